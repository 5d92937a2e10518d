"""How a boost asks its questions and reads the answers: template, extraction, metric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from springback.core import Row, Slice
from springback.data import QUESTION, check_template, framed, task_of
from springback.data.grading import METRICS, READINGS, compile_extraction, find_answer, grade
from springback.errors import SpringbackError, describe
from springback.jobs.boost.settings import BoostSettings
from springback.probes.scorers import OWN_FORMS, Own, is_own, load_own

_METRICS = f"{', '.join(METRICS)}, {OWN_FORMS}"


@dataclass(frozen=True)
class Asked:
    """``template`` None: the bare question.  ``own`` is the user's function, if that grades."""

    name: str | None
    metric: str
    template: str | None
    extract: str | None
    own: Own | None

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
        metric = f"own {self.own.digest} {self.own.name}" if self.own else self.metric
        return {"metric": metric, **({"extract": self.extract} if self.extract else {})}

    def describe(self) -> dict[str, Any]:
        """What a result file records, so that a reader sees how it was asked and graded."""
        if self.extract:
            reading = "the last match of the expression, its first group if it has one"
        elif self.own:
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

    def grade(self, rows: Sequence[Row], texts: Sequence[str]) -> list[bool]:
        """Whether each completion is right.

        A row's own metric wins over the function and the metric.  What ``extract`` finds nowhere
        in is wrong.  Raises :class:`SpringbackError` where the function does not return 0 or 1.
        """
        found: list[str | None] = list(texts)
        if self.extract:
            pattern = compile_extraction(self.extract)
            found = [find_answer(pattern, text) for text in texts]
        right: list[bool] = [False] * len(rows)
        ours: list[int] = []
        for at, (row, text) in enumerate(zip(rows, found, strict=True)):
            metric = row.metric or (None if self.own else self.metric)
            if metric is None:
                if text is not None:
                    ours.append(at)
            else:
                right[at] = grade(metric, text, row.answer or "")
        if self.own and ours:
            given = self.own.call(
                "prompts, texts, answers",
                [rows[at].prompt for at in ours],
                [found[at] or "" for at in ours],
                [rows[at].answer or "" for at in ours],
            )
            for at, value in zip(
                ours, _zeros_and_ones(self.own.name, given, len(ours)), strict=True
            ):
                right[at] = value
        return right


def _zeros_and_ones(name: str, given: object, count: int) -> list[bool]:
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


def asked(settings: BoostSettings) -> Asked:
    """The task of ``settings``; raises :class:`SpringbackError` on what cannot be."""
    task = task_of(settings.task) if settings.task else None
    metric = settings.metric or (task.metric if task else "number")
    template = settings.prompt_template or (task.template if task else None)
    pattern = settings.extract or (task.extract if task else None)
    if template is not None:
        check_template(template)
    if pattern is not None:
        compile_extraction(pattern)
    own = None
    if is_own(metric):
        own = load_own(metric, "metric")
    elif metric not in METRICS:
        raise SpringbackError("--metric: " + describe(metric, _METRICS, "choose one"))
    return Asked(settings.task, metric, template, pattern, own)
