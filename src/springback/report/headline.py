"""What a result says first: one sentence of plain words, and one number with its interval.

The page greets with it, and so do the last lines on the terminal and ``--json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from springback.report import text
from springback.report.components import Fact
from springback.report.estimate import Estimate, shown
from springback.results.audit_schema import Audit, HalfDose
from springback.results.boost_schema import Boost, Method
from springback.results.card_schema import Card
from springback.results.check_schema import AlongRun, Check, CheckedMeasure
from springback.results.paper_schema import LifeCycle, Reproduction
from springback.results.schema import Demo, Interval, Part, ResultFile, Verdict, read
from springback.results.theory_schema import Theory

#: Labels of a verdict's parts that leave the question open, by how they begin.
OPEN = (
    "undecided",
    "one seed",
    "too few",
    "not testable",
    "not defined",
    "not estimable",
    "not measured",
)
#: Of a first sentence that is taken from a longer text.
_FIRST = re.compile(r"(.+?[.!?])(?=\s+\S)", re.DOTALL)
_LONGEST = 240


@dataclass(frozen=True)
class Headline:
    """``sentence``: the verdict.  ``number``: None where no single number carries it."""

    sentence: str
    number: Fact | None = None

    @property
    def in_words(self) -> str:
        """The number in one line: "Dose that undoes half: 58 examples, 43 to 71 (95 %)"."""
        if self.number is None:
            return ""
        value = f"{self.number.value} {self.number.unit}".strip()
        return f"{self.number.label}: " + ", ".join(filter(None, (value, self.number.note)))


def headlines_of(result: Mapping[str, Any]) -> tuple[Headline, ...]:
    """:func:`headlines` of a result file's content.  Raises :class:`StoreError` as ``read``."""
    return headlines(read(result))


def headlines(result: ResultFile) -> tuple[Headline, ...]:
    """One for each job of the result; of a demo that of its audit and that of its boost."""
    analysis = result.analysis
    if isinstance(analysis, Demo):
        made = []
        if analysis.audit is not None:
            made.append(_of_audit(analysis.audit) or Headline("The audit followed no fall."))
        if analysis.boost is not None:
            made.append(_of_boost(analysis.boost) or Headline("The boost compared no methods."))
        return tuple(made) or _of_verdict(result.verdict)
    headline = None
    if isinstance(analysis, Audit):
        headline = _of_audit(analysis)
    elif isinstance(analysis, Boost):
        headline = _of_boost(analysis)
    elif isinstance(analysis, Check):
        headline = _of_check(analysis)
    elif isinstance(analysis, Reproduction):
        headline = _of_reproduction(analysis)
    elif isinstance(analysis, Theory) and result.verdict and result.verdict.label:
        headline = Headline(text.sentence(result.verdict.label))
    return (headline,) if headline is not None else _of_verdict(result.verdict)


def open_parts(verdict: Verdict) -> tuple[Part, ...]:
    """The parts of a verdict that leave their question open."""
    return tuple(part for part in verdict.parts if part.label.lower().startswith(OPEN))


def open_words(verdict: Verdict) -> str:
    """All that is left open in one line: "9 of 14 questions are left open: undecided (9)"."""
    parts, counts = open_parts(verdict), dict[str, int]()
    for part in parts:
        counts[part.label] = counts.get(part.label, 0) + 1
    by_reason = ", ".join(f"{label} ({count})" for label, count in counts.items())
    many = text.count(len(verdict.parts), "question")
    are = "is" if len(parts) == 1 else "are"
    return f"{len(parts)} of {many} {are} left open: {by_reason}" if parts else ""


def _of_verdict(verdict: Verdict | None) -> tuple[Headline, ...]:
    """The first sentence of its text, or its label; nothing where there is neither."""
    if verdict is None or not (verdict.text or verdict.label):
        return ()
    said = " ".join((verdict.text or verdict.label).split())
    match = _FIRST.match(said)
    first = match[1] if match else said
    return (Headline(text.sentence(text.short(first, _LONGEST))),)


@dataclass(frozen=True)
class _Fall:
    """What an audit's first sentence is made of, from the audit or from its card."""

    n_pos: int
    largest: float
    seeds: int
    gain: Estimate
    took: bool
    half: Estimate
    reached: bool
    share: Estimate

    @property
    def opposite(self) -> str:
        return f"{text.plain(self.largest)} examples of the opposite"

    def number(self, label: str, value: Estimate, unit: str) -> Fact:
        note = text.limits(value)
        nothing = "one seed, no interval" if self.seeds == 1 else "no interval"
        return Fact(label, text.estimate(value), unit, f"{note} (95 %)" if note else nothing)

    def headline(self, lost: str, though: str = "") -> Headline:
        """``lost``: what half of is undone, in words."""
        if not self.took:
            number = self.number("Gained by aligning", self.gain, "nats/token")
            said = f"Aligning on {self.n_pos:,} examples hardly took, so there is nothing to undo."
            return Headline(said, number if self.gain.known else None)
        if self.reached:
            many = text.estimate(self.half)
            one = many == "1"
            number = self.number("Dose that undoes half", self.half, "example" + "s" * (not one))
            undo = "example of the opposite undoes" if one else "examples of the opposite undo"
            return Headline(f"{text.capital(many)} {undo} half of {lost}{though}.", number)
        said = f"{self.opposite} do not undo half of {lost}"
        if self.share.value is None:
            return Headline(f"{said}{though}.")
        shown_share = text.number(self.share.value, 2)
        if self.share.value <= 0:
            return Headline(f"{said}: they take nothing back{though}.")
        number = self.number("Taken back at the largest dose", self.share, "% of the gain")
        return Headline(f"{said}: they take back {shown_share} % of it{though}.", number)


def _of_audit(audit: Audit) -> Headline | None:
    rebound = audit.rebound
    if rebound is None or not rebound.n_pos:
        return None
    n_pos = max(rebound.n_pos)

    def at(values: Sequence[Any]) -> Any:
        return next((v.value for v in values if v.n_pos == n_pos), None)

    share, gain = Estimate.of(at(rebound.share_lost)), Estimate.of(at(rebound.gain))
    largest = rebound.fall_dose or max(rebound.doses, default=0)
    doses = audit.doses_to_undo.half if audit.doses_to_undo else None
    found = next((d for d in doses.at if d.n_pos == n_pos), None) if doses else None
    if found is not None:
        half = Estimate.of(found.mean).above_zero()
        reached = found.mean is not None and found.censored < found.mean.n
        took = found.testable and found.mean is not None
    else:
        half, reached, took = _older(rebound.half_dose, n_pos, largest)
    fall = _Fall(
        n_pos, largest, len(rebound.seeds) or 1, gain, took, half, reached, share.scaled(100)
    )
    if not rebound.finished:
        though = ""
        if audit.controls is not None and audit.controls.beyond is not None:
            though = _THOUGH.get(audit.controls.beyond.label, "")
        return fall.headline(f"what {n_pos:,} examples of alignment gained", though)
    lost = audit.finished.lost if audit.finished else "what it shows"
    if took:
        return fall.headline(lost)
    level = None
    if audit.finished is not None:
        value = text.number(audit.finished.level, sign=True)
        title = f"{text.capital(lost)}, as it is"
        level = Fact(title, value, audit.finished.unit, "")
    return Headline(f"{text.capital(lost)} is not above 0: nothing can be undone.", level)


#: What the controls say against the fall, where they were decisive.
_THOUGH = {
    "opposite": ", though the controls fall further",
    "undecided": ", though that is not shown to be more than the controls fall",
}


def _older(halves: Sequence[HalfDose], n_pos: int, largest: float) -> tuple[Estimate, bool, bool]:
    """Dose, whether it was reached, whether alignment took: of files without doses to undo."""
    half = next((h for h in halves if h.n_pos == n_pos), None)
    if half is None:
        return Estimate(None), False, True
    if half.censored:
        least = largest if half.value is None else half.value
        return Estimate(None, at_least=least), half.value is not None, True
    if half.at_most:
        return Estimate(None, at_least=0.0, at_most=half.value), True, True
    return Estimate(half.value), half.value is not None, half.value is not None


def _of_card(card: Card) -> Headline | None:
    """As of the audit that the card is of."""
    known = {key: shown(q)[0] for key, q in card.quantities.items()}
    if "half_life_dose" not in known or not card.n_pos or not card.doses or card.n_pos == (0,):
        return None
    half, label = known["half_life_dose"], card.quantities["half_life_dose"].label
    nothing = Estimate(None)
    fall = _Fall(
        max(card.n_pos),
        max(card.doses),
        len(card.seeds) or 1,
        known.get("gain", nothing),
        bool(half.known) or label in ("", "not reached"),
        half,
        half.value is not None or half.at_most is not None,
        known.get("share_lost", nothing),
    )
    return fall.headline(f"what {max(card.n_pos):,} examples of alignment gained")


#: By verdict of a method: what is said of it and of its difference.
_BOOSTED = {
    "gain": "is better than the fine-tuned model: {points} more of accuracy",
    "harm": "is worse than the fine-tuned model: {points} less of accuracy",
    "no gain": "is no better than the fine-tuned model, and hardly worse,",
}


def written(boost: Boost) -> Method | None:
    """The method that the boost chose and wrote: the best of the run, one plain model, EpiCoDe."""
    by_name = {m.method: m for m in boost.methods or ()}
    plain = boost.equal_step is not None and boost.equal_step.written == "plain"
    names = ("best of the run", "ME, equal step" if plain else "", "EpiCoDe")
    return next((by_name[name] for name in names if name in by_name), None)


def _of_boost(boost: Boost) -> Headline | None:
    method = written(boost)
    if method is None:
        return None
    if method.difference is None:
        tuned = next((m for m in boost.methods or () if m.method == "fine-tuned"), None)
        number = None
        if tuned is not None and tuned.accuracy is not None:
            number = _number("Accuracy, fine-tuned", tuned.accuracy, "%", 100, sign=False)
        said = "Validation chose nothing over it: the fine-tuned model is kept as it is."
        return Headline(said, number)
    over = "on", method.difference.n, "test question"
    return _boosted("The boosted model", method.verdict, method.difference, over)


def _boosted(
    what: str, verdict: str | None, difference: Interval, over: tuple[str, int, str]
) -> Headline:
    """``over``: what the difference is of, such as "on", 128, "test question"."""
    word, n, one = over
    size = text.number(100 * abs(difference.mean), 2)
    points = "1 point" if size == "1" else f"{size} points"
    said = _BOOSTED.get(verdict or "")
    if said is None:
        who = what.replace("The ", "the ", 1)
        leave = text.count(n, f"{one} leaves", f"{one}s leave")
        sentence = f"{leave} open whether {who} is better than the fine-tuned model"
    else:
        sentence = f"{what} {said.format(points=points)} {word} {text.count(n, one)}"
    return Headline(f"{sentence}.", _number("Difference in accuracy", difference, "points", 100))


def _number(
    label: str, value: Interval | None, unit: str, scale: float = 1, sign: bool = True
) -> Fact:
    """A value with its interval; ``scale``: what it is multiplied by."""
    inside = text.bounds(value, scale, sign)
    note = f"{inside} (95 %)" if inside else "no interval"
    return Fact(label, text.value(value, scale, sign), unit, note)


def _of_check(check: Check) -> Headline | None:
    if check.along is not None:
        return _of_run(check.along)
    if len(check.models) != 1:
        return None
    model = check.models[0]
    kept = [m for m in model.measures if m.purpose == "kept"]
    task = [m for m in model.measures if m.purpose == "task"]
    if not model.measures:
        return None
    worse, better = ([m for m in kept if m.label == word] for word in ("worse", "better"))
    measures = text.count(len(kept), "measure")
    also = f", and {len(better)} better" if better else ""
    said = f"Fine-tuning made {len(worse)} of {measures} of what should be kept worse{also}"
    if not worse:
        said = f"Nothing that should be kept got worse beyond noise, in {measures}"
        said += f" ({len(better)} got better)" if better else ""
    if task:
        learned = f"the task got {task[-1].label}"
        said = f"{said}; {learned}" if kept else text.capital(learned)
    return Headline(f"{said}.".replace("got undecided", "is undecided"), _strongest(worse or kept))


def _strongest(measures: Sequence[CheckedMeasure]) -> Fact | None:
    """The change with the clearest test."""
    if not measures:
        return None
    m = min(measures, key=lambda one: 1.0 if one.p_holm is None else one.p_holm)
    share = m.unit == "share"
    label = f"{text.capital(m.words)}: {m.label}, {m.better} is better"
    return _number(label, m.difference, "points" if share else m.unit, 100 if share else 1)


def _of_run(along: AlongRun) -> Headline:
    chosen = next(p for p in along.points if p.name == along.chosen)
    same = along.chosen == along.best
    why = "it learned most" if same else "it learned as much as the best within noise"
    said = f"Take {along.chosen}: {why}, and lost least of what should be kept among such."
    return Headline(said, _number(f"Learned at {along.task}", chosen.learned, along.unit))


def _of_reproduction(reproduction: Reproduction) -> Headline | None:
    if reproduction.life_cycle is not None:
        return _of_life(reproduction.life_cycle)
    cards = [study.card for study in reproduction.studies if study.card is not None]
    if len(reproduction.studies) == 1 and cards:
        return _of_card(cards[0])
    cells = reproduction.cells
    rows = [m for m in (cells[0].methods or () if len(cells) == 1 else ()) if m.method == "EpiCoDe"]
    if rows and rows[0].difference is not None and not cells[0].theory:
        # The difference counts questions where the seeds share theirs.
        over = "over", len(cells[0].seeds), "seed"
        return _boosted("EpiCoDe", rows[0].verdict, rows[0].difference, over)
    return None


#: By axis of a life cycle: more of it, and its name.
_AXES = {
    "size": ("the larger the model", "the size of the model"),
    "volume": ("the longer its pre-training", "the volume of pre-training"),
}
_FALLS = {"grows": "further", "shrinks": "less"}


def _of_life(life: LifeCycle) -> Headline | None:
    falls = {trend.axis: trend for trend in life.trends if trend.quantity == "fall"}
    if not _AXES.keys() <= falls.keys():
        return None
    texts = [
        f"{more}, the {_FALLS[label]} it falls"
        if (label := falls[axis].label) in _FALLS
        else f"whether {name} matters is open"
        for axis, (more, name) in _AXES.items()
    ]
    unit = life.quantities["fall"].unit if "fall" in life.quantities else "nats/token"
    number = _number("Fall, for each doubling of size", falls["size"].slope, unit)
    return Headline(text.sentence("; ".join(texts)), number)
