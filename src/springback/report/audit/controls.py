"""Controls: the fall beside that of the start model and those under other rows."""

from __future__ import annotations

from springback.report import figure
from springback.report.audit.rebound import start_level
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series
from springback.report.series import Join
from springback.results.audit_schema import Controls, Curve, Rebound

#: By control, what its line and its place in a chart are called.
NAMES = {
    "unaligned": "the start model, same rows",
    "neutral": "neutral rows",
    "shuffled": "answers shuffled",
}


def controls_section(controls: Controls, rebound: Rebound) -> Section | None:
    notes = tuple(f"No {NAMES[c]}: {why}." for c, why in controls.left_out.items() if c in NAMES)
    charts = there([margin_chart(controls, rebound), beyond_chart(controls, rebound)])
    lead = "How much of the fall is more than what the same training takes from any model?"
    if not charts:
        return None
    return Section("controls", "Controls", lead, charts, notes)


def margin_chart(controls: Controls, rebound: Rebound) -> Chart | None:
    """Margin of the most aligned model along the doses, the controls dashed beside it."""
    margin = rebound.probes.get("margin")
    if margin is None or not margin.curves:
        return None
    most = max(margin.curves, key=lambda curve: curve.n_pos)
    series = [_line(f"aligned on {most.n_pos:,}", most, "-")]
    for name, curves in controls.margins.items():
        size = 0 if name == "unaligned" else most.n_pos
        series += [_line(NAMES.get(name, name), c, "--") for c in curves if c.n_pos == size]
    return figure.lines(
        Caption(
            "controls-margin",
            "Margin beside its controls",
            "The dashed lines are the controls: what the same opposite rows do to the start model, "
            "and what other rows do to the same aligned model. Rebound is a fall beyond both.",
        ),
        Plot(f"margin, {margin.unit}", series, start_level(margin), equal_decimals=True),
        Axis("examples of the opposite, or of the control", head="dose", unit="examples"),
    )


def _line(label: str, curve: Curve, join: Join) -> Series:
    """With its band where it is no control: the bands of all would hide each other."""
    if join == "--":
        return Series(label, curve.mean, curve.dose, join=join, markers=False)
    return Series(label, [curve.at(dose) for dose in curve.dose], curve.dose, band=0.16)


def beyond_chart(controls: Controls, rebound: Rebound) -> Chart | None:
    """The fall of the most aligned model less each control's, with its label."""
    beyond = controls.beyond
    if beyond is None:
        return None
    found, margin = beyond.by_control, rebound.probes.get("margin")
    above = f"fall beyond the control, {margin.unit}" if margin else "fall beyond the control"
    dose = "" if rebound.fall_dose is None else f" over {rebound.fall_dose:,} examples"
    return figure.rows(
        Caption(
            "controls-beyond",
            "Fall beyond each control",
            f"The fall of the most aligned model{dose} less that of the control, paired by seed; 0 "
            "is a fall that the control has too.",
        ),
        Plot(
            above,
            [Series("", [one.fall for one in found.values()], join="")],
            Level(0.0, "as far as the control"),
            zero=True,
            signed=True,
        ),
        Axis(
            above,
            [NAMES.get(name, name) for name in found],
            head="control",
            columns={"finding": [one.label for one in found.values()]},
        ),
    )
