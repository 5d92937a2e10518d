"""The user's own data, recognised by its field names.

A source is a file (JSON lines or array, CSV, Parquet, Arrow; packed or not), a folder
or a pattern of them (``FOLDER[#split]``, ``data/train-*.parquet``), or a hub data set,
``owner/name[:config][@revision][#split]``; ``?field=value`` behind it keeps some rows.
Several sources joined with ``+`` are one.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

from springback.core import Row
from springback.data.choice_rows import index_base
from springback.data.layouts import ALLOWED, Layout, layout_of, row_of
from springback.data.records import Record, names_of, read_records
from springback.data.view import COLUMNS, View
from springback.errors import DataError, shown


def load_rows(
    source: str,
    *,
    fields: Mapping[str, str] | None = None,
    split: str = "train",
    revision: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Row, ...]:
    """The rows of a data source, in its order.

    Recognised by field names: ``text``; ``prompt``/``response`` (or ``instruction`` [+ ``input``]/
    ``output``, ``prompt``/``completion``); ``question``/``answer`` with or without ``choices``,
    ``context``, ``solution``, ``final``, ``metric``; ``messages`` (ShareGPT's ``conversations``);
    ``chosen``/``rejected`` with or without ``prompt``: ``response`` is the chosen answer.  Prompts
    and answers may be messages.  ``label`` is kept.  ``fields`` maps these names to the source's
    own.  ``split`` and ``revision`` are for hub data sets that name none.

    With ``choices`` the prompt lists them as ``A. ...`` and ``answer`` is the letter; of several
    right ones all letters (``ACD``), and the row's metric is then ``choices``.  Whether answers
    that are numbers count from 0 or from 1 is concluded from the whole source, and said to
    ``note``.  An answer ending in ``#### N`` is a worked solution: ``answer`` is N, ``response``
    the solution without its ``<<...>>`` notes.  Responses may be empty only if they all are
    (prompts to sample from).

    ``?label=positive`` behind the source keeps rows with that value (``&`` joins conditions,
    true and false in any case, %xx for special characters).  ``A?safe=true+B`` is the rows of A
    that meet its condition and then all of B; both have to be of one kind.

    Raises :class:`springback.errors.DataError`, naming line or row, for anything that cannot be
    read or understood, and :class:`springback.errors.MissingExtraError` for Parquet or the hub
    without the extra ``data``.
    """
    mapping = _checked_mapping(fields)
    if len(parts := joined(source)) > 1:
        return _load_joined(source, parts, mapping, split, note)
    return _read(source, mapping, split, revision, note)


def _read(
    source: str,
    mapping: Mapping[str, str],
    split: str,
    revision: str | None,
    note: Callable[[str], None],
) -> tuple[Row, ...]:
    """Every row of one source."""
    place, conditions = split_conditions(source)
    every = read_records(place, split, revision)
    records = _keep(every, conditions, source)
    layout = _layout(source, records[0], mapping)
    base, why = index_base(View(source, r, mapping) for r in every) if layout == "qa" else (0, None)
    if why:
        note(f"{source!r}: {why}")
    rows = []
    for record in records:
        view = View(source, record, mapping)
        other = layout_of(view)
        if other not in (layout, None):
            raise view.fail(
                f"this row is of kind {other}, {records[0].where} of kind {layout}",
                "a source holds one kind: take them apart",
            )
        rows.append(replace(row_of(view, layout, base), place=view.place))
    _all_or_no_response(source, records, rows)
    return tuple(rows)


def joined(source: str) -> list[str]:
    """The sources that ``source`` names, joined with ``+``; a file's own name may have one.

    In a condition's value a plus is written %2B.
    """
    place = source.partition("?")[0]
    if _exists(source) or ("+" in place and _exists(place)):
        return [source]
    return source.split("+")


def _load_joined(
    source: str,
    parts: Sequence[str],
    mapping: Mapping[str, str],
    split: str,
    note: Callable[[str], None],
) -> tuple[Row, ...]:
    all_rows: list[Row] = []
    kind = None
    for part in parts:
        if not part.strip():
            raise DataError(
                f"{source!r} joins {len(parts)} sources with '+', one of them empty; allowed: "
                "A+B; name a file on both sides, and write %2B for a plus in a value"
            )
        rows = load_rows(part, fields=mapping, split=split, note=note)
        if kind not in (rows[0].kind, None):
            raise DataError(
                f"{part!r} is of kind {rows[0].kind}, {parts[0]!r} of kind {kind}; "
                "allowed: sources of one kind; take them apart"
            )
        kind = rows[0].kind
        all_rows += rows
    return tuple(all_rows)


def split_conditions(source: str) -> tuple[str, dict[str, str]]:
    """Path or id, and the ``field=value`` conditions behind the question mark."""
    place, mark, query = source.partition("?")
    if not place.strip():
        raise DataError(f"no source given ({source!r}); allowed: a data file or a hub data set id")
    if not mark or _exists(source):
        return source, {}
    conditions: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not name or not equals or unquote(name) in conditions:
            raise DataError(
                f"the condition {part!r} of {source!r} is not understood; allowed: "
                "SOURCE?field=value&field2=value2, each field once; mend it"
            )
        conditions[unquote(name)] = unquote(value)
    return place, conditions


def _exists(source: str) -> bool:
    try:
        return os.path.exists(os.path.expanduser(source))
    except ValueError:  # a NUL character
        return False


def _checked_mapping(fields: Mapping[str, str] | None) -> dict[str, str]:
    for name, column in (fields or {}).items():
        if name not in COLUMNS:
            raise DataError(
                f"fields names {name!r}; allowed: {', '.join(COLUMNS)}; "
                "map one of these to a column of yours"
            )
        if not isinstance(column, str) or not column:
            raise DataError(f"fields maps {name!r} to {column!r}; allowed: a column name; give one")
    return dict(fields or {})


def _matches(value: object, wanted: str) -> bool:
    if value is None:
        return False
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == wanted.lower()
    if isinstance(value, float):  # 1.0, as a column of numbers with gaps has them
        with contextlib.suppress(ValueError):
            return value == float(wanted)
    return str(value) == wanted


def _keep(records: list[Record], conditions: dict[str, str], source: str) -> list[Record]:
    """The records that meet every condition; at least one must."""
    for name in conditions:
        if not any(name in record.values for record in records):
            raise DataError(
                f"{source!r}: no row has a field {name!r}; the fields of {records[0].where}: "
                f"{names_of(records[0].values)}; name one of them behind the '?'"
            )
    kept = [
        record
        for record in records
        if all(_matches(record.values.get(name), wanted) for name, wanted in conditions.items())
    ]
    if not kept:
        seen = "; ".join(_values_seen(name, records) for name in conditions)
        raise DataError(
            f"{source!r}: no row meets the condition; {seen}; ask for a value that occurs"
        )
    return kept


def _values_seen(name: str, records: Sequence[Record]) -> str:
    counts = Counter(str(r.values[name]) for r in records if name in r.values)
    common = ", ".join(
        f"{shown(value) if len(value) > 20 else value} ({n} rows)"
        for value, n in counts.most_common(5)
    )
    return f"{name} is {common}"


def _layout(source: str, first: Record, mapping: Mapping[str, str]) -> Layout:
    layout = layout_of(View(source, first, mapping))
    if layout is None:
        raise DataError(
            f"{source!r}: fields not recognised: {names_of(first.values)} ({first.where}); "
            f"allowed: {ALLOWED}; rename yours, or map ours to "
            "them with fields (--field text=COLUMN)"
        )
    return layout


def _all_or_no_response(source: str, records: Sequence[Record], rows: Sequence[Row]) -> None:
    """Pairs without a response pass only as a whole set of prompts, never a few among others."""
    if rows[0].kind != "pair":
        return
    empty = [record for record, row in zip(records, rows, strict=True) if not row.response.strip()]
    if empty and len(empty) < len(rows):
        raise DataError(
            f"{source!r}: {empty[0].where}: the response is empty, as in {len(empty)} of "
            f"{len(rows)} rows; its fields: {names_of(empty[0].values)}; "
            "fill them or drop these rows"
        )
