"""Rebound: every probe while the aligned model is trained on the opposite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from springback.report import figure, text
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Level, Plot, Series
from springback.results.audit_schema import Curve, Probe, Rebound
from springback.results.probe_info import PROBES

#: A model that nothing here aligned.
AS_IT_IS = "as it is"


def rebound_section(rebound: Rebound, floor: Mapping[str, float]) -> Section:
    """A chart for each probe; ``floor``: by probe, how far scoring alone moves it."""
    probes = rebound.probes
    order = sorted(probes, key=lambda key: {"margin": 0, "kl": 1}.get(key, 2))
    notes: tuple[str, ...] = ()
    if floor:
        words = "; ".join(_floor_words(key, value, probes) for key, value in floor.items())
        notes = (f"Noise floor, from scoring the start model twice: {words}.",)
    reading = (
        "Each line starts at a model aligned on that many examples and follows it while it is "
        "trained on the opposite. The dashed line is the start model."
    )
    if rebound.finished:
        based = any(probe.base for probe in probes.values())
        reading = "The line starts at the model as it is and follows it while it is trained on the "
        reading += "opposite. The dashed line is the "
        reading += "model that it was made from." if based else "model as it is."
    return Section(
        "rebound",
        "Rebound",
        "What becomes of the aligned model when it is trained on the opposite?",
        there([rebound_chart(rebound, key) for key in order]),
        notes,
        reading=reading,
    )


def _floor_words(key: str, value: float, probes: Mapping[str, Probe]) -> str:
    probe = probes.get(key.removesuffix("_se"))
    name = probe.title if probe else key.replace("_", " ")
    if probe and key.endswith("_se"):
        name += ", standard error from the choice of texts,"
    return f"{name} {text.number(value)}" + (f" {probe.unit}" if probe else "")


def rebound_chart(rebound: Rebound, key: str) -> Chart | None:
    """A probe against the examples of the opposite, one line per ``n_pos``; None without curves."""
    probe = rebound.probes[key]
    curves = [c for c in probe.curves if any(map(math.isfinite, c.mean))]
    meaning = PROBES[name].meaning if (name := key.partition(":")[0]) in PROBES else ""
    unit = f"Unit: {'; '.join(filter(None, (probe.unit, probe.direction)))}."
    return figure.lines(
        Caption(
            f"rebound-{_slug(key)}",
            probe.title,
            " ".join(filter(None, (meaning, unit))),
            legend="model" if rebound.finished else "aligned on",
            intervals=_band_note(rebound, any(c.band for c in curves)),
        ),
        Plot(
            probe.unit + (f"  ({probe.direction})" if probe.direction else ""),
            curve_series(curves, rebound.finished),
            start_level(probe),
            equal_decimals=True,
        ),
        Axis("examples of the opposite", head="dose", unit="examples"),
    )


def _band_note(rebound: Rebound, drawn: bool) -> str:
    """Where the band comes from, or why there is none."""
    if drawn:
        return f"Bands are 95 % intervals over {text.count(len(rebound.seeds), 'seed')}."
    if len(rebound.seeds) == 1:
        return "There is one seed, so no band is drawn."
    return "No interval was computed, so no band is drawn."


def curve_series(curves: Sequence[Curve], finished: bool = False) -> list[Series]:
    """A line with its band for each ``n_pos``."""
    name = (lambda n: AS_IT_IS) if finished else "{:,}".format
    doses = [[d for d in c.dose if math.isfinite(d)] for c in curves]
    return [
        Series(name(c.n_pos), [c.at(d) for d in dose], dose, band=0.16)
        for c, dose in zip(curves, doses, strict=True)
    ]


def start_level(probe: Probe) -> Level | None:
    if probe.base is not None:
        return Level(probe.base, "base model")
    return None if probe.start is None else Level(probe.start, "start model")


def _slug(key: str) -> str:
    """A probe's key as part of a file name and of an id; different keys stay different."""
    known = {"_": "-"}
    return "".join(c if c.isascii() and c.isalnum() else known.get(c, f"x{ord(c):x}") for c in key)
