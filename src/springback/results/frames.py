"""Results as tables: for notebooks, and as pandas DataFrames."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from springback.core import printable
from springback.errors import MissingExtraError, SpringbackError, describe, did_you_mean
from springback.results.store import RUN_FILE, below, read_json, require_file

Table = Literal["measurements", "methods", "questions"]
#: What of a method a notebook shows.
_SHOWN = ("method", "mu", "lambda", "accuracy", "difference", "verdict")


def frame_of(folder: Path, data: Mapping[str, Any], what: str) -> Any:
    """:meth:`springback.results.writing.Result.to_frame`."""
    tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "measurements": lambda: [_flat(one) for one in data["measurements"]],
        "methods": lambda: [_flat(one) for one in data["analysis"].get("methods") or ()],
        "questions": lambda: list(_questions(folder)),
    }
    if what not in tables:
        near = did_you_mean(str(what), tables)
        given = f"the table {what!r}{near}"
        raise SpringbackError(describe(given, ", ".join(get_args(Table)), "name one of these"))
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", "data", "to_frame") from error
    rows = tables[what]()
    if not rows:
        raise SpringbackError(
            f"{folder} has no {what} (kind {data['kind']}); allowed: methods of a boost, questions "
            "of a boost or a check whose runs are there, measurements; name another table"
        )
    return pandas.DataFrame(rows)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """One row: tags beside the rest; of an interval its mean under its name, and its ends."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name == "tags":
            row |= value
        elif isinstance(value, Mapping) and "mean" in value:
            row |= {name: value["mean"]}
            row |= {f"{name}_{end}": value.get(end) for end in ("low", "high")}
        else:
            row[name] = value
    return row


def _questions(folder: Path) -> Iterator[dict[str, Any]]:
    """Of every run with a score for each question: one row each, with what tells runs apart."""
    for path in sorted(folder.glob(f"runs/*/{RUN_FILE}")):
        place = below(folder, "runs", path.parent.name) / RUN_FILE
        require_file(place)
        record = read_json(place)
        inputs, results = record["inputs"], record["results"]
        lists = {k: v for k, v in results.items() if _is_scores(v)}
        size = max(map(len, lists.values()), default=0)
        scores = {k: v for k, v in lists.items() if len(v) == size}
        same = {k: v for k, v in inputs.items() if isinstance(v, (str, int, float, bool))}
        for number in range(size):
            yield {
                "run": path.parent.name,
                "kind": record["kind"],
                **same,
                "question": number,
                **{name: values[number] for name, values in scores.items()},
            }


def _is_scores(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, float)) for v in value)


def shown_in_notebook(folder: Path, data: Mapping[str, Any]) -> str:
    """HTML: kind and folder, the verdict, and the methods of a boost."""
    text = html.escape(printable(str(data["verdict"]["text"])))
    lines = [f"<p><b>{html.escape(str(data['kind']))}</b> in {html.escape(str(folder))}</p>"]
    lines.append(f"<p>{text}</p>")
    methods = data["analysis"].get("methods") or ()
    if methods:
        head = "".join(f"<th>{name}</th>" for name in _SHOWN)
        lines.append(f"<table><tr>{head}</tr>")
        for method in methods:
            cells = "".join(f"<td>{_cell(method.get(name))}</td>" for name in _SHOWN)
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</table>")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        mean, low, high = (value.get(name) for name in ("mean", "low", "high"))
        ends = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        return f"{mean:.3f}{ends}"
    return html.escape(f"{value:g}" if isinstance(value, float) else printable(str(value)))
