"""What the page is made of: facts, tables and sections, and the chapters that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from springback.report import text
from springback.report.series import Chart
from springback.results.audit_schema import AtSize
from springback.results.schema import Interval


@dataclass(frozen=True)
class Fact:
    """A key number: ``note`` holds its interval or what it rests on."""

    label: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True)
class Cell:
    """``note`` stands below the text, smaller.  With a ``tone`` (good, bad, plain) it is a pill.

    ``link``: a relative address that the text leads to.
    """

    text: str
    note: str = ""
    tone: str = ""
    link: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first cell of a row names it.

    ``label`` says what it is to who cannot see it; ``titled`` shows that to everyone.  Columns
    in ``words`` hold words and not numbers.  ``folded``: shown on request.
    """

    label: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset()
    titled: bool = False
    folded: bool = False


@dataclass(frozen=True)
class TextTable:
    """Texts of several models to read side by side: base64 of gzip of JSON, and the same as files.

    ``folded``: shown on request.
    """

    packed: str
    files: tuple[str, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; ``missing`` says why there is nothing.

    ``reading`` is what holds for all of its charts and tables.
    """

    id: str
    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    missing: str = ""
    reading: str = ""
    texts: TextTable | None = None


@dataclass(frozen=True)
class Chapter:
    """One job's share of the page; ``title`` is empty unless the page tells of two jobs."""

    title: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]


def tone(label: str | None) -> str:
    """good, bad or plain: for a verdict's colour, which never stands without its word."""
    return {"gain": "good", "harm": "bad"}.get((label or "").strip().lower(), "plain")


def last(values: Sequence[AtSize]) -> tuple[int, Interval] | None:
    """The value for the largest ``n_pos`` that has one."""
    known = [(v.n_pos, v.value) for v in values if v.value is not None]
    return max(known, key=lambda pair: pair[0]) if known else None


def fact(label: str, mean: Interval, unit: str, scale: float = 1.0, sign: bool = False) -> Fact:
    inside = text.bounds(mean, scale, sign)
    note = f"{inside} (95 %)" if inside else ("one value, no interval" * (mean.n == 1))
    return Fact(label, text.value(mean, scale, sign), unit, note)


def not_measured(name: str, title: str) -> Section:
    return Section(name, title, missing="This run did not measure it.")


def there(charts: Sequence[Chart | None]) -> tuple[Chart, ...]:
    return tuple(c for c in charts if c is not None)
