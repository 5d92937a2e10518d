"""How a boost asks its questions and reads the answers: template, extraction, metric."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
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
from springback.errors import DataError, SpringbackError, describe, did_you_mean, shown
from springback.integrations.lm_eval_tasks import (
    FORM,
    HarnessTask,
    is_lm_eval,
    load_task,
    require_task,
)
from springback.jobs.boost.settings import BoostSettings
from springback.probes.judges import (
    USER_FUNCTION_FORMS,
    UserFunction,
    is_user_function,
    load_user_function,
)

_METRICS = f"{', '.join(METRICS)}, {FORM}, {USER_FUNCTION_FORMS}"
#: What a task of lm-eval's brings along.
_BROUGHT = ("task", "validation", "test", "fields", "prompt_template", "extract")


@dataclass(frozen=True)
class QuestionFormat:
    """How questions are put and answers graded.

    ``template`` None: the bare question.  ``grader`` is the user's function, if that grades;
    ``harness`` the task of lm-eval's that asks and grades.
    """

    name: str | None
    metric: str
    template: str | None
    extract: str | None
    grader: UserFunction | None
    harness: HarnessTask | None = None

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
        own = self.grader or self.harness
        metric = own.identity if own else self.metric
        return {"metric": metric, **({"extract": self.extract} if self.extract else {})}

    def describe(self) -> dict[str, Any]:
        """What a result file records, so that a reader sees how it was asked and graded."""
        if self.extract:
            reading = "the last match of the expression, its first group if it has one"
        elif self.grader:
            reading = "the whole completion, by the function"
        elif self.harness and self.harness.by_likelihood:
            reading = f"the log-likelihoods of the choices, by lm-eval ({self.harness.name})"
        elif self.harness:
            reading = f"by lm-eval's filter and metric ({self.harness.name})"
        else:
            reading = READINGS[self.metric]
        return {
            "name": self.name,
            "metric": self.metric,
            "prompt_template": self.template or QUESTION,
            "extract": self.extract,
            "extraction": reading,
        }

    def check_references(self, part: Slice) -> None:
        """Raise :class:`SpringbackError` at the first row whose answer its metric cannot read.

        A function of the user's own reads what it likes.
        """
        for row in part.rows:
            metric = self.metric_of(row)
            if metric is None:
                continue
            try:
                check_reference(metric, row.answer or "", letters=letters_of(row))
            except DataError as error:
                raise DataError(f"{row.place or part.name}: {error}") from error

    def grade(self, rows: Sequence[Row], texts: Sequence[str]) -> list[bool | float]:
        """The score of each completion: :meth:`outcomes` without the reason."""
        return [score_of(outcome) for outcome in self.outcomes(rows, texts)]

    def outcomes(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Outcome | float]:
        """What became of each completion: right, wrong, without an answer that can be read, or
        the score of a function that gives more than 0 and 1.

        Thoughts are cut before anything reads a completion.  A row's own metric wins over the
        function and the metric.  What ``extract`` finds nowhere in is unread.  Raises
        :class:`SpringbackError` where the function returns anything but scores from 0 to 1.
        """
        answers = self._answers(texts)
        outcomes: list[Outcome | float] = ["unread"] * len(rows)
        by_function: list[int] = []
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            metric = self.metric_of(row)
            if metric is not None:
                outcomes[i] = outcome(metric, answer, row.answer or "", letters=letters_of(row))
            elif answer is not None:
                by_function.append(i)
        if by_function:
            asked = [rows[i] for i in by_function]
            returned = self._returned(asked, [answers[i] or "" for i in by_function])
            scores = self._scored(rows, by_function, returned)
            words: dict[float, Outcome] = {1.0: "right", 0.0: "wrong"}
            for i, score in zip(by_function, scores, strict=True):
                outcomes[i] = words.get(score, score)
        return outcomes

    def grade_choices(
        self, rows: Sequence[Row], likelihoods: Sequence[Sequence[float]]
    ) -> list[bool | float]:
        """The score of each question by the log-likelihoods of its choices."""
        assert self.harness is not None
        returned = self.harness.grade_choices(rows, likelihoods)
        scores = self._scored(rows, range(len(rows)), returned)
        return [bool(score) if score in (0.0, 1.0) else score for score in scores]

    def _returned(self, rows: Sequence[Row], texts: Sequence[str]) -> object:
        if self.harness is not None:
            return self.harness.grade(rows, texts)
        assert self.grader is not None
        prompts, answers = [row.prompt for row in rows], [row.answer or "" for row in rows]
        return self.grader.call("prompts, texts, answers", prompts, texts, answers)

    def _scored(self, rows: Sequence[Row], index: Sequence[int], returned: object) -> list[float]:
        """What came back for the rows ``index``, as numbers; raises unless these are scores."""
        own = self.grader or self.harness
        read = [f" ({rows[i].place})" if rows[i].place else "" for i in index]
        places = [f"row {i + 1}{where}" for i, where in zip(index, read, strict=True)]
        return _scores(own.name if own else self.metric, returned, places)

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
        """How the row's answer is read; None: by the user's function, or by lm-eval."""
        return row.metric or (None if self.grader or self.harness else self.metric)


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


def score_of(outcome: Outcome | float) -> bool | float:
    """The share of 1 that a completion gets; true or false where nothing lies between."""
    return outcome if isinstance(outcome, float) else outcome == "right"


def _scores(name: str, given: object, places: Sequence[str]) -> list[float]:
    """What a metric returned, one number from 0 to 1 for each of ``places``; raises else."""
    allowed = f"a list of {len(places)} values, each true or false or a score from 0 to 1"
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        problem = f"a {type(given).__name__}"
    else:
        values = list(given)
        problem = f"{len(values)} values"
        if len(values) == len(places):
            scores = [_score(value) for value in values]
            if None not in scores:
                return [score for score in scores if score is not None]
            odd = scores.index(None)
            problem = f"{shown(values[odd])} for {places[odd]}"
    raise SpringbackError(
        f"the metric {name} returned "
        + describe(problem, allowed, "mend it").removeprefix("given: ")
    )


def _score(value: Any) -> float | None:
    """The score as a number, None if it is none from 0 to 1 (NaN is not)."""
    try:
        score = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return score if 0.0 <= score <= 1.0 else None


def question_format(settings: BoostSettings) -> QuestionFormat:
    """The format by ``settings`` and their task; raises :class:`SpringbackError` if it is none."""
    if is_lm_eval(settings.metric):
        return _harness_format(settings)
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
        given = f"{metric}{did_you_mean(metric, METRICS)}"
        raise SpringbackError("--metric: " + describe(given, _METRICS, "choose one"))
    elif metric == "math":
        require_math()
    return QuestionFormat(settings.task, metric, template, pattern, grader)


def metric_of(settings: BoostSettings) -> str:
    """The metric's name; raises as :func:`question_format`, of a task of lm-eval's what is seen
    without loading it."""
    if not is_lm_eval(settings.metric):
        return question_format(settings).metric
    assert settings.metric
    _check_harness(settings)
    require_task(settings.metric)
    return settings.metric


def _check_harness(settings: BoostSettings) -> None:
    """A task of lm-eval's brings questions, wording and reading."""
    if given := [name for name in _BROUGHT if getattr(settings, name)]:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise SpringbackError(
            f"--metric {settings.metric} with {flags}: "
            + describe(
                flags,
                "--validation-rows, --test-rows, --system",
                "leave it out, since the task brings its questions, prompts and filters",
            )
        )


def _harness_format(settings: BoostSettings) -> QuestionFormat:
    assert settings.metric
    _check_harness(settings)
    return QuestionFormat(None, settings.metric, None, None, None, load_task(settings.metric))
