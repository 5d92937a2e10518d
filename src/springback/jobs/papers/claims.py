"""What every reproduction has: the paper's claim, published beside measured, as record and page.

Light to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from springback.core import printable
from springback.errors import SpringbackError, did_you_mean

if TYPE_CHECKING:
    from springback.results.paper_schema import Figures, Reproduction

S = TypeVar("S")
SCALES = ("small", "paper")


@dataclass(frozen=True, kw_only=True)
class Claim(Generic[S]):
    """A question that a paper answers.

    ``published``: its table, column heads first; None where it has a figure only.  ``further``:
    what else is known of its numbers, tables likewise.  ``unknown``: what of them could not be had.
    ``ours``: which of the settings no source gives.  ``begin``: the settings that each scale begins
    from.
    """

    question: str
    finding: str
    begin: Mapping[str, S]
    published: tuple[tuple[str, ...], ...] | None = None
    source: str = ""
    further: tuple[tuple[tuple[str, ...], ...], ...] = ()
    unknown: str = ""
    ours: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be had, and what is ours, in words."""
        return tuple(filter(None, (self.unknown, self.ours)))


def check_names(claims: Mapping[str, Any], name: str, scale: str) -> None:
    """Raise :class:`SpringbackError` unless ``name`` is one of the claims and ``scale`` a scale."""
    if name not in claims:
        near = did_you_mean(name, claims)
        raise SpringbackError(f"no reproduction '{name}'{near}; allowed: {', '.join(claims)}")
    if scale not in SCALES:
        raise SpringbackError(f"--scale is {scale}; allowed: {', '.join(SCALES)}")


def record(
    name: str, scale: str, claim: Claim[Any], measured: Figures | None, **more: Any
) -> Reproduction:
    """The ``analysis`` part of a result file of kind ``reproduce``."""
    from springback.results.paper_schema import Figures, Reproduction

    def figures(table: tuple[tuple[str, ...], ...]) -> Figures:
        head, *rows = table
        return Figures(head, tuple(rows), claim.source)

    published = None if claim.published is None else figures(claim.published)
    return Reproduction(
        name=name,
        question=claim.question,
        scale=scale,
        paper=claim.finding,
        published=published,
        further=tuple(map(figures, claim.further)),
        notes=claim.notes,
        measured=measured,
        **more,
    )


def page(analysis: Reproduction, cell: Callable[[Any], str] = str) -> list[str]:
    """Lines of ``reproduce.md``: question, claim, both tables; ``cell`` shows a measured value."""
    lines = [f"# {analysis.name}, {analysis.scale} scale", "", analysis.question, ""]
    lines += [f"The paper: {analysis.paper}", ""]
    if analysis.note:
        lines += [analysis.note, ""]
    if analysis.published:
        lines += ["## Published", "", *markdown_table(analysis.published), ""]
    for table in analysis.further:
        lines += [*markdown_table(table), ""]
    for note in analysis.notes:
        lines += [note, ""]
    if analysis.measured:
        lines += ["## Measured", "", *markdown_table(analysis.measured, cell), ""]
    return lines


def select(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def markdown_table(table: Figures, cell: Callable[[Any], str] = str) -> list[str]:
    """Lines of a table; a cell stays one line, whatever it names."""
    lines = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    rows = ([printable(cell(value)) for value in row] for row in table.rows)
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
