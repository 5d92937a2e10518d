"""From a source to records: files (JSON lines, JSON array, CSV, Parquet) and hub data sets.

Whatever is wrong with a source ends in a one-line :class:`springback.errors.DataError`.
Nothing here unpickles, runs code out of a data set, or reads a URL.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from springback.data.compressed import PACKED, content_limit, read_whole, too_large
from springback.data.files import ARROW, OTHER, READ, TABLES, local_files, suffix_of
from springback.errors import DataError, MissingExtraError, shown

#: Where an object around the rows has them.
_AROUND = ("data", "rows", "examples")
#: What files begin with that hold no rows, what they are and what to do.
_NO_DATA = {
    b"version https://git-lfs": "a pointer of Git LFS; allowed: the file itself; run git lfs pull",
    b"PK\x03\x04": "a zip archive or a spreadsheet; allowed: one data file; unpack or export it",
}
#: Rows of Arrow that are taken at once, and the bytes that a row or a value counts for at least.
_BATCH = 256
_LEAST = 8
_PART = r"[A-Za-z0-9][\w.-]*"
_HUB_ID = re.compile(
    rf"({_PART}(?:/{_PART})?)(?::([\w.-]+))?(?:@([\w./-]+))?(?:#([\w.-]+))?", re.ASCII
)


class Record(NamedTuple):
    """One row as the source has it, and where it stands there ("line 7", "row 7")."""

    where: str
    values: dict[str, object]


def brief(value: object, length: int = 160) -> str:
    """``value`` on one line, cut to ``length`` characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= length else line[: length - 3] + "..."


def names_of(values: dict[str, object]) -> str:
    """The field names of a record, for messages."""
    names = [shown(name, 40) for name in list(values)[:12]]
    return ", ".join(names) + (", ..." if len(values) > 12 else "") if names else "none"


def read_records(source: str, split: str, revision: str | None) -> list[Record]:
    """All records of a source; ``split`` and ``revision`` concern the hub only.

    Raises :class:`springback.errors.DataError` if there is no such file or set, if it cannot be
    read, or if it is empty, and :class:`springback.errors.MissingExtraError` if Parquet or the
    hub is asked for without the packages of the extra ``data``.
    """
    try:
        files = local_files(source)
        if files is None:
            records = list(_hub_or_nothing(source, split, revision))
        elif len(files) == 1:
            records = list(_read_file(files[0], source))
        else:
            records = [
                Record(f"{path.name}, {record.where}", record.values)
                for path in files
                for record in _read_file(path, str(path))
            ]
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise DataError(f"cannot read {source!r}: {brief(error)}; check path and rights") from error
    if not records:
        raise DataError(f"{source!r} is empty; allowed: at least one row; add rows")
    return records


def _known_suffix(path: Path, source: str) -> str:
    """What a data file's name ends in; raises where that is no format that is read."""
    suffix = suffix_of(path)
    if suffix not in READ:
        raise DataError(
            f"{source!r} ends in {path.suffix or 'nothing'!r}; allowed: {', '.join(READ)}, and "
            f"these (but {' and '.join(ARROW)}) with {', '.join(PACKED)}; convert or rename it"
        )
    return suffix


def _read_file(path: Path, source: str) -> Iterator[Record]:
    suffix = _known_suffix(path, source)
    with path.open("rb") as file:
        start = file.read(32)
    for magic, what in _NO_DATA.items():
        if start.startswith(magic):
            raise DataError(f"{source!r} is {what}")
    if suffix in ARROW:
        return _arrow(path, suffix, source)
    text = _decode(read_whole(path, source), source)
    if suffix in TABLES:
        return _table(text, TABLES[suffix], source)
    # Many files called .json hold one object a line, so the first character decides.
    if text.lstrip()[:1] == "[":
        return _array(text, source)
    return _object(text, source) if suffix == ".json" else _lines(text, source)


def _decode(raw: bytes | bytearray, source: str) -> str:
    # Windows writes UTF-16 with a mark in front; without one, bytes are UTF-8 or refused.
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if (not marked and b"\0" in raw[:4]) or raw.startswith(codecs.BOM_UTF32_LE):
        raise DataError(
            f"{source!r}: line 1 is not UTF-8 (zero bytes, as in UTF-16 and UTF-32); allowed: "
            "UTF-8, or UTF-16 with its mark; convert the file, for example with iconv"
        )
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source!r}: line {line} is not UTF-8 (byte {error.start} of the file); "
            "allowed: UTF-8; convert the file, for example with iconv"
        ) from error


def _object(text: str, source: str) -> Iterator[Record]:
    """One object over several lines, a row or an object around the rows; else one object a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _lines(text, source)
    for name in _AROUND:
        rows = whole.get(name) if isinstance(whole, dict) else None
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return (Record(f"{name}, row {k}", row) for k, row in enumerate(rows, start=1))
    return iter([Record("line 1", whole)]) if isinstance(whole, dict) else _lines(text, source)


def _lines(text: str, source: str) -> Iterator[Record]:
    # Only \n ends a line: str.splitlines would also break at U+2028, which JSON strings may hold.
    for k, line in enumerate(text.split("\n"), start=1):
        line = line.lstrip("\ufeff")  # files with a mark, one behind the other
        if line.strip():
            value = _json(line, source, f"line {k}")
            if not isinstance(value, dict):
                raise DataError(
                    f"{source!r}: line {k} is a JSON {_json_type(value)}; "
                    "allowed: one object a line; rewrite it"
                )
            yield Record(f"line {k}", value)


def _array(text: str, source: str) -> Iterator[Record]:
    values = _json(text, source, None)
    assert isinstance(values, list)  # the text begins with "["
    for k, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(
                f"{source!r}: row {k} is a JSON {_json_type(value)}; "
                "allowed: an array of objects; rewrite it"
            )
        yield Record(f"row {k}", value)


def _json(text: str, source: str, where: str | None) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = where or (
            f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it"
        )
        raise DataError(
            f"{source!r}: {place} is not valid JSON ({brief(error)}); "
            "allowed: one object a line, or an array of objects; mend or remove it"
        ) from error


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: "string", list: "array", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _table(text: str, delimiter: str, source: str) -> Iterator[Record]:
    first = text.partition("\n")[0]
    if delimiter == "," and "," not in first:  # spreadsheets in much of Europe, and text exports
        delimiter = next((sign for sign in ";\t" if sign in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        header = next(reader, [])
        _require_names(header, source)
        for cells in reader:
            if not cells or (len(cells) > 1 and not any(cells)):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{source!r}: line {reader.line_num} has {len(cells)} columns; "
                    f"the first line names {len(header)}; mend it or quote the field"
                )
            yield Record(f"line {reader.line_num}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{source!r}: line {reader.line_num} is not valid CSV ({brief(error)}); mend it, or "
            "convert the file to JSON lines"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _require_names(names: list[str], source: str) -> None:
    if len(set(names)) != len(names):
        raise DataError(f"{source!r}: two columns have the same name; rename one of them")


def _arrow(path: Path, suffix: str, source: str) -> Iterator[Record]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data", f"reading {source!r}") from error
    # Arrow raises many kinds of error on a damaged file; all mean the same to the user.
    rows: list[dict[str, object]] = []
    try:
        if suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                _require_names(file.schema_arrow.names, source)
                facts, limit = file.metadata, content_limit(path)
                sizes = (facts.row_group(k).total_byte_size for k in range(facts.num_row_groups))
                if max(whole := sum(sizes), facts.num_rows * _LEAST) > limit:
                    raise too_large(source, limit)
                rows = _within(path, source, file.iter_batches(_at_once(whole, limit)))
        else:  # a stream is what `datasets` writes, a file (Feather) what others do
            with pa.memory_map(str(path)) as mapped:
                is_file = mapped.read(6) == b"ARROW1"
                mapped.seek(0)
                opened = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
                _require_names(opened.schema.names, source)
                count = range(opened.num_record_batches) if is_file else ()
                rows = _within(path, source, map(opened.get_batch, count) if is_file else opened)
    except DataError:
        raise
    except Exception as error:
        kind = "Parquet" if suffix == ".parquet" else "Arrow"
        raise DataError(
            f"{source!r} is no readable {kind} file ({brief(error)}); write it again"
        ) from error
    return (Record(f"row {k}", row) for k, row in enumerate(rows, start=1))


def _at_once(size: int, limit: int) -> int:
    """How many rows to take at once, where each may be all of ``size`` bytes: a value that many
    rows have is stored once."""
    return min(_BATCH, max(1, limit // max(size, 1)))


def _within(path: Path, source: str, batches: Iterable[Any]) -> list[dict[str, object]]:
    """The rows of all batches.  Raises :class:`DataError` as soon as they are too much for the
    file that they come from: a repeated value is stored once, and nulls are not stored at all."""
    limit, size = content_limit(path), 0
    rows: list[dict[str, object]] = []
    for batch in batches:
        batch.validate(full=True)  # else lengths that lie end the process
        if (len(rows) + batch.num_rows) * _LEAST > limit:
            raise too_large(source, limit)
        step = _at_once(batch.get_total_buffer_size(), limit)
        for start in range(0, batch.num_rows, step):
            some = batch.slice(start, step).to_pylist()
            rows += some
            size += sum(map(_size, some))
            if size > limit:
                raise too_large(source, limit)
    return rows


def _size(value: object) -> int:
    """About how many bytes a value from Arrow takes as text."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return _LEAST + sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else _LEAST


def require_place(source: str) -> None:
    """Raise :class:`springback.errors.DataError` for what is neither on this disk nor named like a
    hub data set; nothing is read."""
    try:
        files = local_files(source)
        if files is None:
            _hub_parts(source)
        for path in files or ():
            _known_suffix(path, source)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {source!r}: {brief(error)}; check path and rights") from error


def _hub_parts(source: str) -> tuple[str, str | None, str | None, str | None]:
    """Name, config, revision and split of a hub data set; raises where ``source`` names none."""
    match = _HUB_ID.fullmatch(source)
    suffix = Path(source).suffix.lower()
    # "data/train" with a folder data beside it is a mistyped path, not somebody's data set.
    below_folder = "/" in source and Path(source.split("/")[0]).is_dir()
    if match is None or suffix in (*READ, *OTHER) or below_folder:
        raise DataError(
            f"no such file: {source!r}; allowed: a data file ({', '.join(READ)}) or a hub "
            "data set id (owner/name); check the path"
        )
    name, config, pinned, part = match.groups()
    return name, config, pinned, part


def _hub_or_nothing(source: str, split: str, revision: str | None) -> Iterator[Record]:
    name, config, pinned, part = _hub_parts(source)
    return hub_records(name, config, part or split, revision or pinned)


def hub_records(
    name: str, config: str | None, split: str, revision: str | None
) -> Iterator[Record]:
    """One split of a hub data set.  ``datasets`` is loaded here; it runs no code of the set."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data", f"the hub data set {name!r}") from error
    # The hub client raises errors of a dozen packages; all mean that the set cannot be had.
    try:
        table = datasets.load_dataset(name, name=config, split=split, revision=revision)
        rows = [dict(row) for row in table]
    except Exception as error:
        raise DataError(
            f"cannot load the hub data set {name!r}, split {split!r} ({brief(error)}); "
            "allowed: a file that exists, or OWNER/NAME[:CONFIG][@REVISION][#SPLIT] on the hub; "
            "check the name, the split and the network"
        ) from error
    return (Record(f"row {k}", row) for k, row in enumerate(rows, start=1))
