"""Tables of texts beside a result: what several models answered to the same questions.

A boost writes ``questions.csv``, an audit with ``--keep-samples`` ``samples.csv``: one line for
each question and model; the same as ``.parquet`` where pyarrow is installed.  The report shows
them.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.core import printable
from springback.errors import StoreError, describe
from springback.results.store import require_file, whole_file

QUESTIONS, SAMPLES = "questions", "samples"
COLUMNS = ("question", "prompt", "reference", "model", "score", "nll", "cut", "text")
#: A larger file is left for other readers.
MOST_BYTES = 1 << 28
#: With these a spreadsheet would take a cell for a formula; and the mark that keeps it from that.
_FORMULA, _MARK = ("=", "+", "-", "@", "\t", "\r", "'"), "'"


@dataclass(frozen=True)
class Answer:
    """One model's text; ``score``: share of 1, or a judge's number; ``cut``: whether it reached the
    limit of new tokens.  None: not known."""

    text: str
    score: float | None = None
    nll: float | None = None
    cut: bool | None = None


@dataclass(frozen=True)
class Asked:
    """One question, and every model's answer by the model's name."""

    prompt: str
    reference: str
    answers: Mapping[str, Answer] = field(default_factory=dict)


def write_texts(folder: Path, name: str, asked: Sequence[Asked]) -> str:
    """Write ``name.csv`` and, with pyarrow, ``name.parquet``; what of that was left out, or "".

    Control codes and overrides of direction are spelt out (:func:`springback.core.printable`).  In
    the CSV file a text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    rows = [_row(number, one, model) for number, one in enumerate(asked) for model in one.answers]
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row] for row in rows)
    target = folder / f"{name}.csv"
    require_file(target)
    with whole_file(target) as out:
        out.write(lines.getvalue().encode("utf-8", "backslashreplace"))
    return _write_parquet(folder / f"{name}.parquet", rows)


def drop_texts(folder: Path, name: str) -> None:
    """Remove the files of a table: they are of another result."""
    for ending in ("csv", "parquet"):
        path = folder / f"{name}.{ending}"
        require_file(path)
        path.unlink(missing_ok=True)


def read_texts(folder: Path, name: str) -> tuple[Asked, ...] | None:
    """The table of that name in ``folder``; None where there is none, or a very large one.

    Raises :class:`StoreError` where the file is not of the form that :func:`write_texts` writes.
    """
    path = folder / f"{name}.csv"
    require_file(path)
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    asked: dict[int, tuple[str, str, dict[str, Answer]]] = {}
    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for number, prompt, reference, model, answer in _read(csv.reader(lines, strict=True)):
                asked.setdefault(number, (prompt, reference, {}))[2][model] = answer
    except (OSError, ValueError, csv.Error) as error:
        known = f"lines of {', '.join(COLUMNS)}, as a springback job writes them"
        do = "delete that file, or run the same command again"
        raise StoreError(f"cannot read {path}: " + describe(str(error), known, do)) from error
    finally:
        csv.field_size_limit(before)
    return tuple(Asked(*asked[number]) for number in sorted(asked))


def _read(lines: Iterator[list[str]]) -> Iterator[tuple[int, str, str, str, Answer]]:
    head = next(lines, [])
    if tuple(head) != COLUMNS:
        raise ValueError(f"the head {','.join(head)[:60]!r}")
    for cells in lines:
        if len(cells) != len(COLUMNS):
            raise ValueError(f"a line of {len(cells)} cells")
        number, *texts = cells
        prompt, reference, model, score, nll, cut, text = map(_plain, texts)
        known = [float(value) if value else None for value in (score, nll)]
        answer = Answer(text, known[0], known[1], _BOOLS[cut])
        yield int(number), prompt, reference, model, answer


class _Bools(dict[str, bool | None]):
    def __missing__(self, key: str) -> bool | None:
        raise ValueError(f"{key!r} for cut")


_BOOLS = _Bools({"": None, "true": True, "false": False})


def _row(number: int, asked: Asked, model: str) -> tuple[Any, ...]:
    answer = asked.answers[model]
    texts = [_clean(text) for text in (asked.prompt, asked.reference, model, answer.text)]
    numbers = answer.score, answer.nll, answer.cut
    return (number, *texts[:3], *numbers, texts[3])


def _clean(text: str) -> str:
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return printable(whole.replace("\r\n", "\n"), lines=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _MARK * value.startswith(_FORMULA) + value
    return repr(value)


def _plain(cell: str) -> str:
    return cell.removeprefix(_MARK)


def _write_parquet(path: Path, rows: Sequence[tuple[Any, ...]]) -> str:
    require_file(path)
    path.unlink(missing_ok=True)  # never one of other rows than the CSV file's
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return f"{path.name} is left out: it takes pyarrow (pip install 'springback[data]')"
    strings, numbers = pyarrow.string(), pyarrow.float64()
    kinds = (pyarrow.int64(), strings, strings, strings, numbers, numbers, pyarrow.bool_(), strings)
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    arrays = [pyarrow.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
    with whole_file(path) as out:
        pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(COLUMNS)), out)
    return ""
