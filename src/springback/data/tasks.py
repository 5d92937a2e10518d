"""Tasks by name: where their rows are, how their columns are called, how they are asked and graded.

The data of a task is a hub data set, or a local file with the same columns or with our names for
them (``question``, ``answer``, ``final``, ``context``, ``choices``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from springback.data.files import is_local
from springback.data.formats import split_conditions
from springback.data.records import read_records
from springback.errors import DataError, describe, did_you_mean

#: What a template must hold: the question, with its context before it and its choices below it.
QUESTION = "{question}"


@dataclass(frozen=True)
class Task:
    """``template`` is the user's message; ``extract`` finds the answer in a completion (a regular
    expression whose last match counts; None: the metric's own reading).  ``source`` is the hub
    data set (None: there is none with rows to train on), ``fields`` its column names, ``splits``
    ours to its own."""

    name: str
    metric: str
    template: str = QUESTION
    extract: str | None = None
    source: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "gsm8k",
            "number",
            source="openai/gsm8k:main",
            splits={"train": "train", "validation": "train", "test": "test"},
        ),
        Task(
            "logiqa",
            "choice",
            QUESTION + "\n\nAnswer with the letter of the right choice.",
            source="lucasmccabe/logiqa@refs/convert/parquet",
            fields={"question": "query", "choices": "options", "answer": "correct_option"},
        ),
        # Handed out on request (jecqa.thunlp.org), as JSON lines with these names; on the hub are
        # only small test sets made of it.  More than half of its questions have several right
        # answers, and are right only with all of them, as in the exam.
        Task(
            "jecqa",
            "choices",
            QUESTION + "\n\n请回答所有正确选项的字母。",
            fields={"question": "statement", "choices": "option_list", "answer": "answer"},
        ),
    )
}


def task_of(name: str) -> Task:
    """The task of that name; raises :class:`DataError` with the names there are."""
    if name not in TASKS:
        raise DataError(
            "--task: "
            + describe(
                f"{name!r}{did_you_mean(name, TASKS)}",
                ", ".join(TASKS),
                "name one of these, or leave it out",
            )
        )
    return TASKS[name]


def source_of(task: Task, part: str, given: str | None) -> str:
    """Where the task's ``part`` (train, validation, test) is: as given, or its hub data set."""
    if given:
        return given
    if task.source is None:
        raise DataError(
            f"--task {task.name} has no data set on the hub with rows to train on; give a file or "
            f"a hub id with --{part} ({_columns(task)})"
        )
    return task.source


def _columns(task: Task) -> str:
    task_names = f", or the task's own {', '.join(task.fields.values())}" if task.fields else ""
    return f"columns context, question, choices, answer{task_names}"


def fields_of(task: Task, source: str, given: Mapping[str, str]) -> dict[str, str]:
    """Ours to the source's columns: as given, else the hub's names where the source has them.

    A file may use our own names: its first row decides.
    """
    if given or not task.fields:
        return dict(given)
    place, _ = split_conditions(source)
    if source == task.source or not is_local(place):
        return dict(task.fields) if source == task.source else {}
    columns = read_records(place, "train", None)[0].values
    return dict(task.fields) if all(c in columns for c in task.fields.values()) else {}


def framed(template: str | None, question: str) -> str:
    """``question`` in its place in ``template``; without one, as it is."""
    return question if template is None else template.replace(QUESTION, question)


def check_template(template: str) -> str:
    """``template``, if the question has a place in it; raises :class:`DataError`."""
    if QUESTION not in template:
        raise DataError(
            "--prompt-template: "
            + describe(repr(template), f"a text with {QUESTION} in it", "say where it goes")
        )
    return template
