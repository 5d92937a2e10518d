"""What else an audit says: doses to undo, phases, attackers, the second alignment, the opposite
order, and the card that sums it up.  Beside :mod:`springback.jobs.audit.analysis.curves`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from springback import elasticity
from springback.elasticity import Attacker, Doses, Realignment, ReboundCurves
from springback.elasticity.outcome import Values
from springback.jobs.audit.analysis import attack_curves, judges
from springback.jobs.audit.branches import PLAIN, attacks
from springback.jobs.audit.finished import is_finished
from springback.jobs.audit.settings import AuditSettings
from springback.results.audit_schema import (
    Attackers,
    Audit,
    DoseAtSize,
    DosesToUndo,
    FallPhases,
    Mixed,
    SampledScore,
    Slope,
    UndoDoses,
    WithinBound,
)
from springback.results.probe_info import PROBES, SAMPLED, ProbeInfo
from springback.results.schema import Part
from springback.stats import mean_interval

Rebounds = Mapping[int, Mapping[str, Any]]
#: Why a finished model has no dose to undo.
NOTHING = "not defined: there is none to lose"
#: Margin of the most aligned model by number of examples of the second alignment, by seed.
Again = Mapping[int, Mapping[int, Any] | None]


def branch(got: Mapping[str, Any], n_pos: int) -> dict[int, Any]:
    """Dose -> probes of one seed's branch; at dose 0 the aligned model, or for 0 the start's."""
    aligned = {0: got["aligned"][n_pos]} if n_pos else {}
    return {**aligned, **got["perturbed"][n_pos]}


def outcome(
    settings: AuditSettings,
    start: Mapping[str, Any],
    rebounds: Rebounds,
    words: Mapping[str, ProbeInfo] = PROBES,
    attack: str | None = None,
    probe: str | None = None,
    control: Values | None = None,
) -> ReboundCurves:
    """The curves that the findings are about (:mod:`springback.elasticity.outcome`).

    ``attack``: that of another attack's name, from the last branch point alone.  ``control``: a
    control's values instead of the study's own, told in the same way.
    """
    probe = probe or elasticity.outcome_of(settings.probes)
    n_pos: Sequence[int] = settings.n_pos
    plain = curves_of(settings, start, rebounds, probe)
    values, noise = plain.margins if control is None else control, plain.noise
    if attack is not None:
        n_pos, noise = n_pos[-1:], noise and noise[-1:]
        values = {
            seed: [
                [
                    rows[-1][0],
                    *(rebounds[seed]["attacks"][attack][d][probe]["value"] for d in settings.doses),
                ]
            ]
            for seed, rows in values.items()
        }
    base = start.get("base")
    return elasticity.outcome_curves(
        n_pos,
        [0, *settings.doses],
        values,
        start=float(start["probes"][probe]["value"]),
        base=float(base[probe]["value"]) if base else None,
        probe=probe,
        unit=words[probe].unit,
        noise=noise,
    )


def curves_of(
    settings: AuditSettings, start: Mapping[str, Any], rebounds: Rebounds, probe: str = "margin"
) -> ReboundCurves:
    """A probe along the doses, of every branch and seed; it starts where it would be undone.

    That is the start model's value, and of a finished model the base model's, or 0.
    """
    begin = float(start["probes"][probe]["value"])
    if is_finished(settings):
        base = start.get("base")
        begin = float(base[probe]["value"]) if base else 0.0
    values = {
        seed: [
            [branch(got, n)[d][probe]["value"] for d in (0, *settings.doses)]
            for n in settings.n_pos
        ]
        for seed, got in rebounds.items()
    }
    noise = gain_noise(settings, start, rebounds) if probe == "margin" else None
    return ReboundCurves(
        settings.n_pos, [0, *settings.doses], dict.fromkeys(rebounds, begin), values, noise=noise
    )


def gain_noise(
    settings: AuditSettings, start: Mapping[str, Any], rebounds: Rebounds
) -> tuple[float, ...] | None:
    """By ``n_pos``, the noise of what alignment gained, nats a token; None without single texts.

    The standard error from the choice of held-out texts, each paired with itself before aligning,
    as a mean over the seeds, which share them; at least what scoring alone moves.  The t interval
    over the seeds does not hold it.
    """
    before = start["probes"].get("margin", {})
    floor = float(start.get("noise", {}).get("margin") or 0.0)

    def error(after: Mapping[str, Any]) -> float:
        changes = [
            [b - a for a, b in zip(before[side], after[side], strict=True)]
            for side in ("wanted", "unwanted")
        ]
        return math.sqrt(sum(statistics.variance(c) / len(c) for c in changes))

    if min(len(before.get(side, ())) for side in ("wanted", "unwanted")) < 2:
        return None
    by_size = [[branch(got, n)[0]["margin"] for got in rebounds.values()] for n in settings.n_pos]
    return tuple(max(floor, statistics.fmean(map(error, seeds))) for seeds in by_size)


def doses_to_undo(
    settings: AuditSettings,
    start: Mapping[str, Any],
    rebounds: Rebounds,
    words: Mapping[str, ProbeInfo] = PROBES,
) -> UndoDoses:
    """Half, and all, of the gain in margin; KL at most epsilon; each with its trend in n_pos.

    Of a finished model: of what it has to lose, and the KL is that to its base model.
    """
    margins, finished = outcome(settings, start, rebounds, words), is_finished(settings)

    def lost(share: Literal["half", "all"], curves: ReboundCurves = margins) -> DosesToUndo:
        return _doses(elasticity.doses_to_lose_gain(curves, share), curves, finished)

    by_kind = {"half": lost("half"), "all": lost("all")}
    if "base_kl" in settings.probes:
        values = curves_of(settings, start, rebounds, "base_kl").margins
        by_kind["kl"] = _doses(
            elasticity.kl_doses(
                settings.n_pos, margins.doses, values, epsilon=settings.epsilon, to_base=True
            ),
            finished=finished,
        )
    if finished and "behaviour" in settings.probes and "margin" in settings.probes:
        scores = outcome(settings, start, rebounds, words, probe="behaviour")
        by_kind["behaviour"] = lost("half", scores)
    for probe in () if finished else ("kl", "reverse_kl"):
        if probe in settings.probes:
            values = curves_of(settings, start, rebounds, probe).margins
            doses = elasticity.kl_doses(
                settings.n_pos, margins.doses, values, epsilon=settings.epsilon
            )
            if probe == "reverse_kl":
                doses = replace(doses, what=f"{doses.what}, on the model's own texts")
            by_kind[probe] = _doses(doses)
    return UndoDoses(**by_kind)


def _doses(
    doses: Doses, curves: ReboundCurves | None = None, finished: bool = False
) -> DosesToUndo:
    """``curves``: where the dose is one of their gain, which can be too small to be lost.

    ``finished``: no alignment made here can have gained nothing.
    """
    took = {*doses.n_pos}
    if curves is not None and not finished:
        took = {doses.n_pos[b] for b in curves.took()}

    def words(dose: elasticity.DoseAt) -> str:
        return NOTHING if finished and dose.mean is None else dose.words()

    return DosesToUndo(
        doses.what,
        doses.largest,
        tuple(
            DoseAtSize(**vars(d), words=words(d), testable=d.n_pos in took)
            for d in elasticity.doses_at(doses)
        ),
        doses.by_seed,
        elasticity.dose_trend(doses, curves=curves)
        if elasticity.several_sizes(doses.n_pos)
        else None,
        first=doses.first,
    )


def sampled(
    settings: AuditSettings,
    words: Mapping[str, ProbeInfo],
    start: Mapping[str, Any],
    rebounds: Rebounds,
) -> dict[str, SampledScore]:
    """Scores of sampled texts, which are what the paper goes by, under the same two criteria.

    Which way is aligned is where aligning moved the score on average at the largest n_pos: a user's
    score may be one that should fall.  ``gain`` keeps its own sign, so its interval is a fair test
    of whether the score moved at all.
    """
    scores = {}
    own = elasticity.outcome_of(settings.probes)  # told as what there is to lose
    for probe in (p for p in words if p.partition(":")[0] in SAMPLED and p != own):
        plain = curves_of(settings, start, rebounds, probe)
        gains = [rows[-1][0] - plain.start[seed] for seed, rows in plain.margins.items()]
        gain = mean_interval(gains)
        sign = 1.0 if gain.mean >= 0 else -1.0
        curves = ReboundCurves(
            plain.n_pos,
            plain.doses,
            {seed: sign * value for seed, value in plain.start.items()},
            {s: [[sign * v for v in row] for row in rows] for s, rows in plain.margins.items()},
            what="the score",
            unit=words[probe].unit,
        )
        dose = curves.doses[-1]
        several = elasticity.several_sizes(curves.n_pos)
        judged = elasticity.rebound_judgement(curves, dose=dose) if several else None
        moved = gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
        scores[probe] = SampledScore(
            title=words[probe].title,
            unit=words[probe].unit,
            aligned_is="higher" if sign > 0 else "lower",
            gain=gain,
            moved=moved,
            fall=mean_interval([row[-1] for row in curves.falls(dose).values()]),
            fall_per_log2=judged.paper.slope if judged else None,
            label=judged.paper.label if judged else "",
            sentence=judged.paper.sentence if judged else "",
            share_per_log2=judged.strict.slope if judged else None,
            share_label=judged.strict.label if judged else "",
        )
    return scores


def attackers(
    settings: AuditSettings,
    start: Mapping[str, Any],
    rebounds: Rebounds,
    words: Mapping[str, ProbeInfo] = PROBES,
) -> Attackers | None:
    """Worst case and median over ways, learning rates, draws and seeds; mixed ones beside them.

    None where the settings sweep nothing.
    """
    if not attacks(settings):
        return None
    margins = outcome(settings, start, rebounds, words)
    doses = list(margins.doses)
    tried, mixed = [], []
    sweep = [attack for attack in attacks(settings) if not attack.mix]
    by_attack = {
        attack.name: outcome(settings, start, rebounds, words, attack.name)
        for attack in attacks(settings)
    }
    for seed in rebounds:
        plain = margins.margins[seed][-1]
        others = [(a, by_attack[a.name].margins[seed][-1]) for a in sweep]
        for attack, curve in [(PLAIN, plain), *others]:
            rate = (attack.learning_rate or settings.learning_rate) if attack.trains else None
            share = elasticity.share_lost(doses, curve, margins.start[seed], max(doses))
            undone = elasticity.dose_to_undo_gain(doses, curve, margins.start[seed], curve[0])
            tried.append(Attacker(rate, seed, share, undone, attack.draw, attack.kind))
    for attack in attacks(settings):
        if attack.mix:
            values = {s: rows[-1] for s, rows in by_attack[attack.name].margins.items()}
            mixed.append(_mixed(attack.name, attack.mix, doses, values, margins.start))
    summary = elasticity.attack_summary(tried, largest=max(doses), first=min(settings.doses))
    outcomes = {PLAIN.name: margins, **by_attack}
    every = attack_curves.curves(settings, start["probes"], rebounds, outcomes)
    return Attackers(
        summary.share,
        summary.dose,
        tuple(mixed),
        max(settings.n_pos),
        every,
        attack_curves.within_bound(settings, every),
    )


def _mixed(
    name: str,
    mix: float,
    doses: Sequence[float],
    values: Mapping[int, Sequence[float]],
    start: Mapping[int, float],
) -> Mixed:
    falls = [elasticity.absolute_fall(doses, row, max(doses)) for row in values.values()]
    shares = [
        elasticity.share_lost(doses, row, start[seed], max(doses)) for seed, row in values.items()
    ]
    known = [s for s in shares if s is not None]
    return Mixed(name, mix, mean_interval(falls), mean_interval(known) if known else None)


def phases(
    settings: AuditSettings,
    start: Mapping[str, Any],
    rebounds: Rebounds,
    words: Mapping[str, ProbeInfo] = PROBES,
) -> FallPhases:
    """One phase or two, by n_pos; and the falls against proportional decay at one rate."""
    margins = outcome(settings, start, rebounds, words)
    several = elasticity.several_sizes(settings.n_pos)
    return FallPhases(
        elasticity.branch_phases(margins),
        elasticity.decay_criterion(margins, dose=margins.doses[-1]) if several else None,
    )


def second_alignment(
    settings: AuditSettings, start: Mapping[str, Any], rebounds: Rebounds, again: Again
) -> Realignment | None:
    """Is the second alignment faster?  None where it was not measured."""
    measured = {seed: counts for seed, counts in again.items() if counts is not None}
    if not measured:
        return None
    begin = float(start["probes"]["margin"]["value"])
    last, dose = max(settings.n_pos), max(settings.doses)
    first, second = {}, {}
    for seed, counts in measured.items():
        got = rebounds[seed]
        climbed = [values["margin"]["value"] for values in got["aligned"].values()]
        first[seed] = [begin, *climbed]
        fallen = got["perturbed"][last][dose]["margin"]["value"]
        second[seed] = [fallen, *(values["margin"]["value"] for values in counts.values())]
    return elasticity.realignment([0, *filter(None, settings.n_pos)], first, second)


def parts(analysis: Audit) -> list[Part]:
    """The questions that these findings answer, with label and sentence."""
    answers = []
    titles = {
        "half": "How many examples undo half of the alignment?",
        "all": "How many undo all of it?",
        "kl": "How many bring the model back to the start's distribution?",
        "reverse_kl": "How many, seen on the model's own texts?",
        "behaviour": "How many undo half of what sampled answers show?",
    }
    finished = analysis.finished
    if finished is not None:
        titles["kl"] = "How many bring the model back to the base model's distribution?"
    doses = analysis.doses_to_undo.known() if analysis.doses_to_undo is not None else {}
    for name, dose in doses.items():
        largest, what = dose.at[-1], dose.what
        at = "" if finished else f", aligned on {largest.n_pos}"
        text = f"{what[0].upper()}{what[1:]}{at}: {largest.words}."
        if dose.trend is not None:
            text += f" {dose.trend.sentence}"
        answers.append(Part(titles[name], _dose_label(largest), text))
    if (shapes := analysis.phases) is not None:
        if (decay := shapes.decay) is not None:
            question = "Steeper than proportional decay fitted at one rate?"
            answers.append(Part(question, decay.label, decay.sentence))
        n_pos, shape = list(shapes.branches.items())[-1]
        question = "One phase or two?" if finished else f"One phase or two (aligned on {n_pos})?"
        answers.append(Part(question, shape.label, shape.sentence))
    # Of several judges the first one's, by which the verdict goes.
    for name, score in (analysis.sampled or {}).items():
        if name in SAMPLED:
            answers.append(_lost(score) if finished else _scored(score))
    answers += judges.parts(analysis.judges)
    if analysis.attackers is not None:
        answers += _attacked(analysis.attackers, analysis.lost)
    if (second := analysis.realign) is not None:
        answers.append(Part("Is the second alignment faster?", second.label, second.sentence))
    return answers


def _dose_label(dose: DoseAtSize) -> str:
    """The same number as the card's, or why there is none."""
    if dose.mean is None:
        return "not defined"
    if not dose.testable:
        return "not testable"
    return "not reached" if dose.censored == dose.mean.n else elasticity.dose_in_words(dose.mean)


def _scored(score: SampledScore) -> Part:
    gain, fall = (change.with_bounds("+.4f") for change in (score.gain, score.fall))
    text = (
        f"Aligning changed the score by {gain} {score.unit}; of that the opposite took back {fall}."
    )
    label = score.label or "measured"
    if score.gain.low is not None and not score.moved:
        label = "did not align"
        text += " The interval of the gain holds zero, so the fall says little."
    question = f"What do sampled texts say ({score.title})?"
    return Part(question, label, " ".join(filter(None, (text, score.sentence))))


def _lost(score: SampledScore) -> Part:
    """Of a finished model, which nothing here aligned."""
    gain, fall = score.gain.mean, score.fall.with_bounds("+.4f")
    text = f"Above what it would be undone at: {gain:+.4f} {score.unit}; the opposite took {fall}."
    return Part(f"What do sampled texts say ({score.title})?", "measured", text)


def _attacked(swept: Attackers, lost: str = "the gain") -> list[Part]:
    answers = []
    if (share := swept.share) is not None:
        worst, median = (100 * (value or 0.0) for value in (share.worst, share.median))
        text = (
            f"Of {share.attackers} attackers the worst took back {worst:.0f} % "
            f"of {lost} ({share.worst_by}), the median {median:.0f} %."
        )
        answers.append(Part("What does the worst attacker do?", f"{worst:.0f} % of {lost}", text))
    if (bounded := swept.bounded) is not None:
        answers.append(_within_bound(bounded, lost))
    for mixed in swept.mixed:
        fall = mixed.fall
        if fall is None:
            continue
        what = f"It fell by {fall.mean:+.4f}"
        if lost == "the gain":
            what = f"The margin fell by {fall.mean:+.4f} nats a token"
        label = bounds = "one seed, no interval"
        if fall.low is not None and fall.high is not None:
            bounds = f"95 % interval {fall.low:+.4f} to {fall.high:+.4f}"
            label = "yes" if fall.low > 0 else "no" if fall.high < 0 else "undecided"
        text = f"{what} ({bounds})."
        rows = "benign rows only" if mixed.mix == 1 else f"rows {mixed.name}"
        answers.append(Part(f"Does it fall when perturbed with {rows}?", label, text))
    return answers


def _within_bound(bounded: WithinBound, lost: str) -> Part:
    most, point = 100 * bounded.bound, bounded.point
    question = f"What does the worst attack do that costs at most {most:g} % of the utility?"
    counted = f"{bounded.within} of {bounded.points} points of all attacks"
    by = " and ".join(PROBES[name].title for name in bounded.utility)
    if point is None:
        text = f"None of {bounded.points} points costs that little ({by})."
        return Part(question, "every one costs more", text)
    share, fall = point.share_lost, point.fall
    took = "nothing was gained"
    if share is not None:
        took = f"{100 * share.mean:.0f} % of {lost}"
    elif fall is not None:
        took = f"a fall of {fall.mean:.4f}"
    utility = point.utility_lost or 0.0
    price = f"{100 * utility:.1f} % of the utility" if utility > 0 else "none of the utility"
    text = (
        f"{bounded.name} with {point.dose:,} examples, for {price} ({by}) and {point.cost:,.0f} "
        f"tokens of forward passes. It is the worst of {counted}: read it with their number."
    )
    return Part(question, took, text)


def symmetry(analysis: Audit) -> list[Part]:
    """Whether the opposite order's rebound says what this order's says.

    Shown in both: the fall at the largest ``n_pos`` has an interval above 0 in either order, and
    so has its slope on ``n_pos`` where there are several.  Else the directions of the means are
    compared, which is no test.
    """
    orders = [rebound for rebound in (analysis.rebound, analysis.symmetry) if rebound is not None]
    if len(orders) < 2:
        return []
    slopes = [rebound.slope or Slope() for rebound in orders]
    measures = [
        ("the margin fell by", [rebound.fall[-1].value for rebound in orders]),
        ("per doubling of n_pos the fall changes by", [s.fall_per_log2 for s in slopes]),
        ("per doubling of n_pos the share lost changes by", [s.share_per_log2 for s in slopes]),
    ]
    compared = [(words, a, b) for words, (a, b) in measures if a is not None and b is not None]
    same = all((a.mean > 0) == (b.mean > 0) for _, a, b in compared)
    # The share is the stricter criterion, which the paper does not ask for.
    needed = [one for _, *both in compared[:2] for one in both]
    shown = all(one.low is not None and one.low > 0 for one in needed)
    label = "same direction" if same else "not the same direction"
    if shown:
        label = "shown in both orders"
    lines = [
        f"{words} {a.with_bounds('+.4f')} here and {b.with_bounds('+.4f')} there"
        for words, a, b in compared
    ]
    text = f"Opposite order: {'; '.join(lines)}." + ("" if shown else " Directions, not a test.")
    return [Part("Is it the same in the opposite order?", label, text)]
