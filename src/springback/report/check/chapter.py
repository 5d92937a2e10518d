"""What fine-tuning broke: the table of what got better and worse, KL, weights, the run."""

from __future__ import annotations

from springback.report import figure, text
from springback.report.components import Cell, Fact, Grid, Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.check_schema import AlongRun, Check, CheckedMeasure, CheckedModel, Drift
from springback.results.schema import Interval

_TONES = {"better": "good", "worse": "bad"}
#: Of shares and probabilities, which are shown in points.
_SHARES = ("share", "probability", "score")


def facts(check: Check) -> tuple[Fact, ...]:
    """How many measures got worse and better; of a run which checkpoint to take."""
    if check.along is not None:
        chosen = next(p for p in check.along.points if p.name == check.along.chosen)
        return (
            Fact("Take", chosen.name, "", f"of {len(check.along.points)} checkpoints"),
            Fact("Learned", *_fact(chosen.learned, check.along.unit)),
            Fact("Lost", *_fact(chosen.lost, "bits per byte")),
        )
    if len(check.models) != 1:
        return ()
    model = check.models[0]
    words = ("worse", "better", "undecided", "same")
    counts = [(word, len(model.labelled(word))) for word in words]
    facts = [Fact(text.capital(word), str(n), "", "of what is kept") for word, n in counts]
    if model.weights:
        share = model.weights[0].relative
        if share is not None:
            facts.append(Fact("Weights moved", text.number(100 * share, 2), "%", "of length"))
    return tuple(facts)


def _fact(value: Interval, unit: str) -> tuple[str, str, str]:
    return text.value(value, sign=True), unit, f"{text.bounds(value, sign=True)} (95 %)"


def sections(check: Check) -> tuple[Section, ...]:
    parts: list[Section] = []
    if check.along is not None:
        parts.append(_along_section(check.along))
    for number, model in enumerate(check.models, start=1):
        suffix = f"-{number}" if len(check.models) > 1 else ""
        title = f"What changed: {model.name}" if suffix else "What got better and worse"
        parts.append(_table_section(model, suffix, title))
    parts += [section for section in (_drift_section(check), _weights_section(check)) if section]
    return tuple(parts)


def _table_section(model: CheckedModel, suffix: str, title: str) -> Section:
    order = ("worse", "better", "undecided", "same")
    rows = sorted(model.measures, key=lambda m: (m.purpose != "task", order.index(m.label)))
    notes = tuple(dict.fromkeys(f"{m.source}: {n}" for m in rows for n in m.notes))
    charts = [_chart(rows, suffix, shares) for shares in (False, True)]
    return Section(
        f"check-table{suffix}",
        title,
        "Tuned less base, on the same texts, questions and prompts.",
        there(charts) if not suffix else (),
        notes=(*notes, *(f"Left out: {text}" for text in model.left_out)),
        grids=(_grid(rows, title),) if rows else (),
        missing="" if rows else "No texts, questions or prompts were named.",
        reading="The word is read from the interval and the test after Holm's correction over all "
        "tests; same: the interval lies within 0.01.",
    )


def _chart(rows: list[CheckedMeasure], suffix: str, shares: bool) -> Chart | None:
    mine = [m for m in rows if (m.unit in _SHARES) is shares]
    scale = 100.0 if shares else 1.0
    unit = "points" if shares else "bits per byte (lower is better)"
    name = "shares" if shares else "texts"
    return figure.rows(
        Caption(
            f"check-{name}{suffix}",
            "Answers: tuned less base" if shares else "Texts: tuned less base",
            "Right of 0 is a higher value, which is better or worse as the table says.",
        ),
        Plot(
            f"change, {unit}",
            [Series("", [m.difference.scaled(scale) for m in mine], join="")],
            zero=True,
            signed=True,
        ),
        Axis(f"change, {unit}", [m.words for m in mine], head="measure"),
    )


def _grid(rows: list[CheckedMeasure], title: str) -> Grid:
    head = ("Measure", "Finding", "Base", "Tuned", "Difference", "p (Holm)", "n")
    return Grid(title, head, tuple(_row(m) for m in rows), frozenset({1}))


def _row(m: CheckedMeasure) -> tuple[Cell, ...]:
    scale = 100.0 if m.unit == "share" else 1.0
    unit = "%" if m.unit == "share" else m.unit
    task = "the task; " if m.purpose == "task" else ""
    return (
        Cell(m.words, f"{task}{unit}, {m.better} is better"),
        Cell(m.label, tone=_TONES.get(m.label, "plain")),
        Cell(text.value(m.base, scale), text.bounds(m.base, scale)),
        Cell(text.value(m.tuned, scale), text.bounds(m.tuned, scale)),
        Cell(
            text.value(m.difference, scale, True),
            text.bounds(m.difference, scale, True),
        ),
        Cell("–" if m.p_holm is None else text.number(m.p_holm, 2), m.method),
        Cell(text.plain(m.n)),
    )


def _drift_section(check: Check) -> Section | None:
    known = [(model, drift) for model in check.models for drift in model.drift or ()]
    if not known:
        return None
    several = len(check.models) > 1
    rows = tuple(
        (
            Cell(model.name if several else drift.source, _about(drift, several)),
            Cell(text.value(drift.forgotten), text.bounds(drift.forgotten)),
            Cell(text.value(drift.new), text.bounds(drift.new)),
        )
        for model, drift in known
    )
    return Section(
        "check-kl",
        "How far answers moved",
        "KL divergence of next-token distributions, nats a token; 0 is no change.",
        reading="KL(base || tuned) on what the base samples sees what was forgotten; "
        "KL(tuned || base) on what the tuned model samples sees what is new.",
        grids=(Grid("KL", ("Prompts", "KL(base || tuned)", "KL(tuned || base)"), rows),),
    )


def _about(drift: Drift, several: bool) -> str:
    source = f"{drift.source}, " if several else ""
    return f"{source}{drift.n} prompts, {drift.tokens} tokens each"


def _weights_section(check: Check) -> Section | None:
    known = [(model, group) for model in check.models for group in model.weights or ()]
    if not known:
        return None
    several = len(check.models) > 1
    rows = tuple(
        (
            Cell(f"{model.name}, {group.group}" if several else group.group),
            Cell("–" if group.relative is None else text.number(100 * group.relative, 2)),
            Cell(text.number(group.norm)),
            Cell(text.plain(group.parameters)),
        )
        for model, group in known
        if not several or group.group == "all"
    )
    head = ("Tensors", "Change, % of their length", "Change, length", "Weights")
    return Section(
        "check-weights",
        "How far weights moved",
        "Length of the change over that of the base's weights, by kind of module.",
        grids=(Grid("How far weights moved", head, rows),),
    )


def _along_section(along: AlongRun) -> Section:
    places = [p.name for p in along.points]
    title = f"better than the base at {along.task}, {along.unit}"
    chart = figure.points(
        Caption(
            "check-run",
            "Learned and lost along the run",
            f"Above: {along.measure} of the task, higher is better. Below: rise of the texts that "
            "should be kept, lower is better.",
        ),
        [
            Plot(title, [Series("", [p.learned for p in along.points])], name="learned", zero=True),
            Plot(
                "rise in bits per byte",
                [Series("", [p.lost for p in along.points])],
                name="lost",
                zero=True,
            ),
        ],
        Axis("checkpoint", places),
    )
    rows = tuple(
        (
            Cell(p.name, ", ".join(_marks(along, p.name, p.front))),
            _cell(p.learned),
            _cell(p.behind),
            _cell(p.lost),
            _cell(p.lost_more),
            Cell(text.plain(p.worse)),
        )
        for p in along.points
    )
    head = (
        "Checkpoint", "Learned", "Behind the best", "Lost", "More than the chosen", "Got worse",
    )  # fmt: skip
    return Section(
        "check-run",
        "Which checkpoint to take",
        along.text,
        there([chart]),
        grids=(Grid("Checkpoints", head, rows),),
        reading="Chosen: of the checkpoints that are within one standard error of the best at the "
        "task (paired by row), the one whose kept texts rose least. Front: none is better at both.",
    )


def _cell(value: Interval) -> Cell:
    return Cell(text.value(value, sign=True), text.bounds(value, sign=True))


def _marks(along: AlongRun, name: str, front: bool) -> list[str]:
    marks = {"chosen": name == along.chosen, "learned most": name == along.best, "front": front}
    return [word for word, holds in marks.items() if holds]
