"""From a source to records: files (JSON lines, JSON array, CSV, Parquet) and hub data sets.

Whatever is wrong with a source ends in a one-line :class:`springback.errors.DataError`.
Nothing here unpickles, runs code out of a data set, or reads a URL.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from springback.errors import DataError, MissingExtraError

#: Endings that are read, and further ones that mark a source as a path and no hub id.
_JSON = (".jsonl", ".ndjson", ".json")
_TABLES = {".csv": ",", ".tsv": "\t"}
_READ = (*_JSON, *_TABLES, ".parquet")
_OTHER = (".gz", ".txt", ".zip", ".bz2", ".xz", ".zst", ".arrow", ".xlsx", ".pkl", ".pt", ".md")

_GZIP_MAGIC = b"\x1f\x8b"
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
    shown = [brief(repr(name), 40) for name in list(values)[:12]]
    return ", ".join(shown) + (", ..." if len(values) > 12 else "") if shown else "none"


def read_records(source: str, split: str, revision: str | None) -> list[Record]:
    """All records of a file or hub data set; ``split`` and ``revision`` concern the hub only.

    Raises :class:`springback.errors.DataError` if there is no such file or set, if it cannot be
    read, or if it is empty, and :class:`springback.errors.MissingExtraError` if Parquet or the
    hub is asked for without the packages of the extra ``data``.
    """
    try:
        path = Path(os.path.expanduser(source))
        if path.is_dir():
            raise DataError(f"{source!r} is a folder; allowed: a data file; name a file in it")
        if path.is_file():
            records = list(_read_file(path, source))
        else:
            records = list(_hub_or_nothing(source, split, revision))
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise DataError(f"cannot read {source!r}: {brief(error)}; check path and rights") from error
    if not records:
        raise DataError(f"{source!r} is empty; allowed: at least one row; add rows")
    return records


def _read_file(path: Path, source: str) -> Iterator[Record]:
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    suffix = suffix.lower()
    if suffix not in _READ:
        raise DataError(
            f"{source!r} ends in {path.suffix or 'nothing'!r}; allowed: {', '.join(_READ)}, and "
            "these (but .parquet) with .gz; convert or rename the file"
        )
    if suffix == ".parquet":
        return _parquet(path, source)
    text = _decode(_inflate(path, source), source)
    if suffix in _TABLES:
        return _table(text, _TABLES[suffix], source)
    # Many files called .json hold one object a line, so the first character decides.
    return _array(text, source) if text.lstrip()[:1] == "[" else _lines(text, source)


def _inflate(path: Path, source: str) -> bytes:
    raw = path.read_bytes()
    if path.suffix.lower() != ".gz" and not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{source!r} is no whole gzip file ({brief(error)}); it is cut short or damaged: "
            "fetch it again"
        ) from error


def _decode(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source!r}: line {line} is not UTF-8 (byte {error.start} of the file); "
            "allowed: UTF-8; convert the file, for example with iconv"
        ) from error


def _lines(text: str, source: str) -> Iterator[Record]:
    # Only \n ends a line: str.splitlines would also break at U+2028, which JSON strings may hold.
    for k, line in enumerate(text.split("\n"), start=1):
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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise DataError(f"{source!r}: two columns have the same name; rename one of them")
        for cells in reader:
            if not cells:
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


def _parquet(path: Path, source: str) -> Iterator[Record]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data", f"reading {source!r}") from error
    # Arrow raises many kinds of error on a damaged file; all mean the same to the user.
    try:
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, object]] = file.read().to_pylist()
    except Exception as error:
        raise DataError(
            f"{source!r} is no readable Parquet file ({brief(error)}); write it again"
        ) from error
    return (Record(f"row {k}", row) for k, row in enumerate(rows, start=1))


def _hub_or_nothing(source: str, split: str, revision: str | None) -> Iterator[Record]:
    match = _HUB_ID.fullmatch(source)
    suffix = Path(source).suffix.lower()
    # "data/train" with a folder data beside it is a mistyped path, not somebody's data set.
    below_folder = "/" in source and Path(source.split("/")[0]).is_dir()
    if match is None or suffix in (*_READ, *_OTHER) or below_folder:
        raise DataError(
            f"no such file: {source!r}; allowed: a data file ({', '.join(_READ)}) or a hub "
            "data set id (owner/name); check the path"
        )
    name, config, pinned, part = match.groups()
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
