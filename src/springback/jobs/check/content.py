"""What is measured of both models: texts, questions and prompts, and what rows share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from springback.core import Row, Slice
from springback.data import LISTED, is_built_in, load_slice
from springback.errors import DataError, shown
from springback.integrations.eval_logs import clusters_of
from springback.integrations.lm_eval_tasks import PREFIX, HarnessTask, load_task
from springback.jobs.check.settings import CheckSettings

#: How an item is measured: bits per byte; letters of choices; by lm-eval; answers to prompts that
#: should be answered, or refused.
Kind = Literal["text", "choice", "harness", "prompt", "harmful"]


@dataclass(frozen=True)
class Item:
    """One source, and how it is measured.

    ``clusters``: a label a row where rows are not independent, and ``shared``: what of them is the
    same.  ``purpose``: ``kept`` or ``task``.
    """

    source: str
    kind: Kind
    part: Slice
    purpose: str = "kept"
    harness: HarnessTask | None = None
    clusters: tuple[str, ...] = ()
    shared: str = ""


def load_items(settings: CheckSettings, note: Callable[[str], None]) -> list[Item]:
    """Everything that is measured, in the order of the table, the task first.

    Raises :class:`DataError` for rows that do not fit what they were named for.
    """
    s = settings
    items = []
    if s.task:
        items.append(replace(_task_item(s, s.task, note), purpose="task"))
    items += [_texts(s, source, s.text_rows, note) for source in s.texts]
    items += [_choices(s, source, s.choice_rows, note) for source in s.choices]
    items += [_harness(s, f"{PREFIX}{name.removeprefix(PREFIX)}") for name in s.tasks]
    items += [_prompts(s, source, "prompt", note) for source in s.prompts]
    return items + [_prompts(s, source, "harmful", note) for source in s.harmful]


def _task_item(s: CheckSettings, source: str, note: Callable[[str], None]) -> Item:
    if source.startswith(PREFIX):
        return _harness(s, source)
    part = _rows(s, source, s.task_rows, note)
    if all(len(row.choices) > 1 for row in part.rows):
        return _choices(s, source, s.task_rows, note)
    return _texts(s, source, s.task_rows, note)


def _rows(s: CheckSettings, source: str, most: int, note: Callable[[str], None]) -> Slice:
    """At most so many rows; of built-in data those that are held out."""
    if is_built_in(source):
        limit = min(most, LISTED.get(source, most))
        return load_slice(source, limit=limit, seed=s.seed, split="test")
    return load_slice(source, fields=s.fields, seed=s.seed, note=note).take(most)


def _texts(s: CheckSettings, source: str, most: int, note: Callable[[str], None]) -> Item:
    part = _rows(s, source, most, note)
    short = next((row for row in part.rows if len(row.response.strip()) < 2), None)
    if short is not None:
        raise DataError(
            f"{short.place or repr(source)}: there is no text to score; "
            "allowed: texts, or prompts with responses; name prompts by --prompts"
        )
    rows = [replace(row, response=row.response[: s.text_characters]) for row in part.rows]
    cut = Slice.of(part.name, part.source, rows, part.seed)
    return _clustered(Item(source, "text", cut))


def _choices(s: CheckSettings, source: str, most: int, note: Callable[[str], None]) -> Item:
    part = _rows(s, source, most, note)
    for row in part.rows:
        if len(row.choices) < 2 or row.answer is None or len(row.answer) != 1:
            raise DataError(
                f"{row.place or repr(source)}: a row with {len(row.choices)} choices and the "
                f"answer {shown(row.answer)}; allowed: questions with two or more choices of which "
                "one is right; name other rows by --texts"
            )
    return _clustered(Item(source, "choice", part))


def _clustered(item: Item) -> Item:
    """Built-in problems of one form differ in numbers and names alone, so whole forms are drawn."""
    if not item.source.startswith("problems"):
        return item
    labels = tuple(str(row.label) for row in item.part.rows)
    return replace(item, clusters=labels, shared="form") if len({*labels}) > 1 else item


def _harness(s: CheckSettings, spec: str) -> Item:
    task = load_task(spec)
    parts = task.parts()
    rows = [one.row for one in parts.get("test") or parts.get("validation") or ()]
    if not rows:
        raise DataError(f"{spec} has no test and no validation questions; name another task")
    random.Random(s.seed).shuffle(rows)
    rows = rows[: s.task_rows]
    documents = {str(row.label): _mapping(task.document(row)) for row in rows}
    clusters, shared = clusters_of(documents)
    part = Slice.of(task.name, spec, rows, s.seed)
    by_row = tuple(clusters[str(row.label)] for row in rows) if clusters else ()
    return Item(spec.removeprefix(PREFIX), "harness", part, "kept", task, by_row, shared or "")


def _mapping(document: object) -> dict[str, object]:
    return dict(document) if hasattr(document, "keys") else {}  # type: ignore[call-overload]


def _prompts(s: CheckSettings, source: str, kind: Kind, note: Callable[[str], None]) -> Item:
    """Prompts of rows, or of bare texts the texts; a file may have a column ``prompt`` alone."""
    try:
        part = _rows(s, source, s.prompt_rows, note)
    except DataError:
        if is_built_in(source) or s.fields:
            raise
        try:
            part = load_slice(source, fields={"text": "prompt"}, seed=s.seed).take(s.prompt_rows)
        except DataError:
            part = _rows(s, source, s.prompt_rows, note)  # for its message
    rows = [
        Row(
            "pair",
            row.prompt or row.response,
            "",
            turns=row.turns,
            label=row.label,
            place=row.place,
        )
        for row in part.rows
    ]
    return Item(source, kind, Slice.of(part.name, part.source, rows, part.seed))
