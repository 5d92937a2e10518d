"""How a chart is described: series of values, what they are set against, what is said of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from springback.report.estimate import Estimate
from springback.results.schema import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How values are joined: by a line, dashed, dotted, or not.
Join = Literal["-", "--", ":", ""]
#: What a series holds at a place; a string says why there is no value.
Value = float | Interval | Estimate | str | None


@dataclass(frozen=True)
class Table:
    """The numbers behind a chart; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    ``name`` is its file name without the ending, ``alt`` what it shows in words for who
    cannot see it, ``reading`` how to read it.
    """

    name: str
    title: str
    alt: str
    reading: str
    table: Table
    figure: Figure


@dataclass(frozen=True)
class Caption:
    """Name of the file, title, and how to read the chart.

    ``legend``: what the labels of all series have before them, as "aligned on".  ``intervals``:
    what whiskers or bands are; None: what the values themselves say.  ``alt`` stands in place of
    the words that are made of the values.
    """

    name: str
    title: str
    reading: str
    legend: str = ""
    intervals: str | None = None
    alt: str = ""


@dataclass(frozen=True)
class Series:
    """Values at ``x``, or at the places of the axis one after the other.

    ``join``: how they are joined, "-", "--", ":" or "" (not at all).  ``band``: how opaque
    intervals are as a band; 0: they are whiskers.  ``hollow``: which of the markers are.
    ``index``: colour and marker, by default its number among the series; ``reference`` has
    neither, nor a place in the table.  ``names``: what stands beside each value.
    """

    label: str
    values: Sequence[Value]
    x: Sequence[float | Interval] = ()
    join: Join = "-"
    markers: bool = True
    band: float = 0.0
    steps: bool = False
    hollow: Collection[int] = ()
    index: int | None = None
    reference: bool = False
    names: Sequence[str] = ()

    @property
    def places(self) -> list[float]:
        """Where the values stand along the axis."""
        numbers = [x.mean if isinstance(x, Interval) else x for x in self.x]
        return numbers or [float(i) for i in range(len(self.values))]

    @property
    def estimates(self) -> list[Estimate]:
        return list(map(estimate_of, self.values))


@dataclass(frozen=True)
class Level:
    """A dashed line at a value all the way, and its name in the legend."""

    value: float | Interval
    label: str = ""

    @property
    def mean(self) -> float:
        return self.value.mean if isinstance(self.value, Interval) else self.value


@dataclass(frozen=True)
class Plot:
    """One pair of axes; ``above`` says what its values are, and ``name`` that in short.

    ``zero``: 0 is in view; so is ``hold``.  ``limits`` overrules both.  ``log``: the values' axis
    is logarithmic.  ``signed``: numbers carry their sign.  ``equal_decimals``: they have as many.
    """

    above: str
    series: Sequence[Series]
    level: Level | None = None
    name: str = ""
    zero: bool = False
    hold: tuple[float, ...] = ()
    limits: tuple[float, float] | None = None
    log: bool = False
    signed: bool = False
    equal_decimals: bool = False

    @property
    def measured(self) -> list[Series]:
        """The series that are values and not a reference for them."""
        return [series for series in self.series if not series.reference]

    @property
    def short(self) -> str:
        return self.name or self.above.split(" (")[0].strip()

    def extent(self, edge: bool = True) -> tuple[float, float]:
        """Limits of the values' axis: all that is known, and room; ``edge``: 0 may be an end."""
        if self.limits is not None:
            return self.limits
        estimates = [e for series in self.series for e in series.estimates]
        known = [*self.hold, *(v for e in estimates for v in e.known if math.isfinite(v))]
        known += [0.0] * self.zero
        known += [] if self.level is None else [self.level.mean]
        if self.log:
            positive = [v for v in known if v > 0]
            return min(positive, default=0.1) / 1.5, max(positive, default=1.0) * 1.5
        low, high = min(known, default=0.0), max(known, default=1.0)
        room = 0.08 * (high - low or abs(high) or 1.0)
        above = room * (2 if any(map(is_open, estimates)) else 1)
        edge = edge and self.zero
        return (
            low if edge and low == 0 else low - room,
            high if edge and high == 0 else high + above,
        )


@dataclass(frozen=True)
class Axis:
    """What the values are set against: numbers, or places by name.

    ``head``: what the table calls it; ``columns``: what else that says of each place; ``unit``:
    what the alternative text counts; ``ticks``: what the drawing calls the places, if otherwise.
    ``scale`` "doses" is logarithmic with 0.  ``dodge``: the step between series of one place;
    None: what is usual.
    """

    label: str
    places: Sequence[str] = ()
    head: str = ""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unit: str = ""
    ticks: Sequence[str] = ()
    scale: Literal["numbers", "log", "doses"] = "numbers"
    limits: tuple[float, float] | None = None
    dodge: float | None = None

    @property
    def names(self) -> Sequence[str]:
        """The places as they are drawn."""
        return self.ticks or self.places


def estimate_of(value: Value) -> Estimate:
    """A value with what is known of its limits; empty for words, for None and for NaN."""
    if isinstance(value, Estimate):
        return value
    if isinstance(value, Interval):
        return Estimate.of(value)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return Estimate(value)
    return Estimate(None)


def is_open(estimate: Estimate) -> bool:
    """Whether all that is known is a bound that it lies above, or two that it lies between."""
    return estimate.value is None and estimate.at_least is not None
