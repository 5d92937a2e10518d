"""One quantity of several things: a line for each, its name above it, its value along the axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from springback.report import formatting
from springback.report.estimate import Estimate
from springback.report.figure import (
    Chart,
    LegendItem,
    Table,
    mark,
    number_axis,
    open_item,
    panel,
    style,
)
from springback.report.theme import LIGHT


@dataclass(frozen=True)
class Line:
    """``found`` in the units of the axis; where nothing is known ``missing`` says why."""

    label: str
    found: Estimate
    missing: str = ""


@dataclass(frozen=True)
class Frame:
    """What stands around the lines.

    ``mark``: a value with a dashed line, and its name in the legend.  ``zero``: 0 is in view.
    """

    name: str
    title: str
    above: str
    axis: str
    reading: str
    mark: tuple[float, str] | None = None
    zero: bool = True


def lines_chart(frame: Frame, lines: Sequence[Line], table: Table) -> Chart | None:
    """Dots with intervals, one below the other; None where no line has a value."""
    if not any(line.found.known for line in lines):
        return None
    legend = []
    if any(_open(line.found) for line in lines):
        legend.append(open_item())
    if frame.mark is not None:
        legend.append(LegendItem(frame.mark[1], LIGHT["muted"], None))
    with style(frame.name):
        height = max(110, 46 * len(lines) + 20)
        figure, (axes,) = panel(
            frame.title, frame.above, legend, plot_height=height, left=12, right=20
        )
        axes.set_xlim(*_span(frame, lines))
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_yticks([])
        axes.grid(True, axis="x")
        number_axis(axes.xaxis)
        axes.set_xlabel(frame.axis)
        for row, line in enumerate(lines):
            if frame.mark is not None:  # beside the values only, so that it crosses no name
                ends = (row - 0.04, row + 0.36)
                axes.vlines(
                    frame.mark[0], *ends, color=LIGHT["muted"], linestyle="--", linewidth=1.5
                )
            mark(axes, row + 0.16, line.found, 0, across=True)
            label = line.label if line.found.known else f"{line.label}: {line.missing}"
            axes.text(
                0.0,
                row - 0.24,
                formatting.middle(label, 48),
                transform=axes.get_yaxis_transform(),
                va="center",
                color=LIGHT["ink"] if line.found.known else LIGHT["muted"],
            )
    return Chart(
        frame.name,
        frame.title,
        f"Dot chart of {frame.above}. "
        + "; ".join(f"{line.label}: {_said(line)}" for line in lines)
        + ".",
        f"{frame.reading} {_how([line.found for line in lines])}",
        table,
        figure,
    )


def _open(found: Estimate) -> bool:
    return found.value is None and found.at_least is not None


def _said(line: Line) -> str:
    return formatting.with_limits(line.found) if line.found.known else line.missing or "not known"


def _span(frame: Frame, lines: Sequence[Line]) -> tuple[float, float]:
    known = [v for line in lines for v in line.found.known]
    known += [0.0] if frame.zero else []
    known += [frame.mark[0]] if frame.mark is not None else []
    low, high = min(known), max(known)
    room = 0.07 * (high - low or abs(high) or 1.0)
    return low - room, high + room * (2 if any(_open(line.found) for line in lines) else 1)


def _how(found: Sequence[Estimate]) -> str:
    if any(f.low is not None or f.high is not None for f in found):
        return "Whiskers are 95 % intervals over the seeds."
    return "There are no intervals."
