"""How a boost asks its questions and reads the answers: template, extraction, metric."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from springback.core import Row, Slice
from springback.data import QUESTION, check_template, framed, task_of
from springback.data.grading import (
    LETTERS,
    METRICS,
    READINGS,
    Outcome,
    check_reference,
    compile_extraction,
    extract,
    find_answer,
    outcome,
    require_math,
    without_thoughts,
)
from springback.errors import DataError, SpringbackError, describe
from springback.jobs.boost.settings import BoostSettings
from springback.probes.scorers import (
    USER_FUNCTION_FORMS,
    UserFunction,
    is_user_function,
    load_user_function,
)

_METRICS = f"{', '.join(METRICS)}, {USER_FUNCTION_FORMS}"


@dataclass(frozen=True)
class QuestionFormat:
    """How questions are put and answers graded.

    ``template`` None: the bare question.  ``grader`` is the user's function, if that grades.
    """

    name: str | None
    metric: str
    template: str | None
    extract: str | None
    grader: UserFunction | None

    @property
    def plain(self) -> bool:
        """Whether the question stands alone."""
        return self.template is None or self.template == QUESTION

    def render(self, part: Slice) -> Slice:
        """The slice with its questions put into the template; the same one without a template."""
        if self.plain:
            return part
        rows = [replace(r, prompt=framed(self.template, r.prompt)) for r in part.rows]
        return Slice.of(part.name, part.source, rows, part.seed)

    def key(self) -> dict[str, Any]:
        """What of the grading decides a result; part of a run's inputs."""
        metric = self.grader.identity if self.grader else self.metric
        return {"metric": metric, **({"extract": self.extract} if self.extract else {})}

    def describe(self) -> dict[str, Any]:
        """What a result file records, so that a reader sees how it was asked and graded."""
        if self.extract:
            reading = "the last match of the expression, its first group if it has one"
        elif self.grader:
            reading = "the whole completion, by the function"
        else:
            reading = READINGS[self.metric]
        return {
            "name": self.name,
            "metric": self.metric,
            "prompt_template": self.template or QUESTION,
            "extract": self.extract,
            "extraction": reading,
        }

    def check_references(self, rows: Sequence[Row], source: Callable[[Row], str]) -> None:
        """Raise :class:`SpringbackError` at the first row whose answer its metric cannot read.

        ``source`` says where a row stands.  A function of the user's own reads what it likes.
        """
        for row in rows:
            metric = self.metric_of(row)
            if metric is None:
                continue
            try:
                check_reference(metric, row.answer or "", letters=letters_of(row))
            except DataError as error:
                raise DataError(f"{source(row)}: {error}") from error

    def grade(self, rows: Sequence[Row], texts: Sequence[str]) -> list[bool]:
        """Whether each completion is right: :meth:`outcomes` without the reason."""
        return [outcome == "right" for outcome in self.outcomes(rows, texts)]

    def outcomes(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Outcome]:
        """What became of each completion: right, wrong, or without an answer that can be read.

        Thoughts are cut before anything reads a completion.  A row's own metric wins over the
        function and the metric.  What ``extract`` finds nowhere in is unread.  Raises
        :class:`SpringbackError` where the function does not return 0 or 1.
        """
        answers = self._answers(texts)
        outcomes: list[Outcome] = ["unread"] * len(rows)
        by_function: list[int] = []
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            metric = self.metric_of(row)
            if metric is not None:
                outcomes[i] = outcome(metric, answer, row.answer or "", letters=letters_of(row))
            elif answer is not None:
                by_function.append(i)
        if self.grader and by_function:
            returned = self.grader.call(
                "prompts, texts, answers",
                [rows[i].prompt for i in by_function],
                [answers[i] or "" for i in by_function],
                [rows[i].answer or "" for i in by_function],
            )
            grades = _zeros_and_ones(self.grader.name, returned, len(by_function))
            for i, right in zip(by_function, grades, strict=True):
                outcomes[i] = "right" if right else "wrong"
        return outcomes

    def readings(self, rows: Sequence[Row], texts: Sequence[str]) -> list[str | None]:
        """What each completion is read as, by which samples may vote; None: nothing can be read.

        A function of the user's reads nothing off, so there it is all that ``extract`` finds, or
        the whole text.
        """
        readings = []
        for row, answer in zip(rows, self._answers(texts), strict=True):
            metric = self.metric_of(row)
            if answer is not None and metric is not None:
                answer = extract(metric, answer, letters=letters_of(row))
            readings.append(answer.strip() if answer else None)
        return readings

    def _answers(self, texts: Sequence[str]) -> list[str | None]:
        """Completions without thoughts, of these what ``extract`` finds; None where it does not."""
        whole = [without_thoughts(text) for text in texts]
        if not self.extract:
            return [*whole]
        pattern = compile_extraction(self.extract)
        return [find_answer(pattern, text) for text in whole]

    def expressions(self, rows: Sequence[Row]) -> bool:
        """Whether the metric ``math`` grades any of ``rows``."""
        return any(self.metric_of(row) == "math" for row in rows)

    def metric_of(self, row: Row) -> str | None:
        """How the row's answer is read; None: by the user's function."""
        return row.metric or (None if self.grader else self.metric)


def vote(readings: Sequence[str | None]) -> int:
    """Which sample holds the answer that most give: the first of these.

    Of answers given equally often the one that came first wins; samples without a reading do not
    vote, unless none has any.
    """
    given = [reading for reading in readings if reading is not None]
    if not given:
        return 0
    return readings.index(max(given, key=given.count))


def letters_of(row: Row) -> str:
    """The letters on offer: as many as the row has choices, five at least."""
    return string.ascii_uppercase[: max(len(LETTERS), len(row.choices))]


def _zeros_and_ones(name: str, given: object, count: int) -> list[bool]:
    """What a metric returned, as truth values; raises unless they are ``count`` zeros and ones."""
    allowed = f"a list of {count} values, each true or false (1 or 0)"
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        values: list[Any] = []
        shown = f"a {type(given).__name__}"
    else:
        values = list(given)
        odd = [v for v in values if not _is_truth(v)]
        shown = repr(odd[0])[:60] if odd else f"{len(values)} values"
        if not odd and len(values) == count:
            return [bool(v) for v in values]
    raise SpringbackError(
        f"the metric {name} returned " + describe(shown, allowed, "mend it").removeprefix("given: ")
    )


def _is_truth(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes)) and float(value) in (0.0, 1.0)
    except (TypeError, ValueError):
        return False


def question_format(settings: BoostSettings) -> QuestionFormat:
    """The format by ``settings`` and their task; raises :class:`SpringbackError` if it is none."""
    task = task_of(settings.task) if settings.task else None
    metric = settings.metric or (task.metric if task else "number")
    template = settings.prompt_template or (task.template if task else None)
    pattern = settings.extract or (task.extract if task else None)
    if template is not None:
        check_template(template)
    if pattern is not None:
        compile_extraction(pattern)
    grader = None
    if is_user_function(metric):
        grader = load_user_function(metric, "metric")
    elif metric not in METRICS:
        raise SpringbackError("--metric: " + describe(metric, _METRICS, "choose one"))
    elif metric == "math":
        require_math()
    return QuestionFormat(settings.task, metric, template, pattern, grader)
