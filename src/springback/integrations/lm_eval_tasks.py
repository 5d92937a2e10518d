"""Tasks of lm-eval as questions of a boost: its prompts, its filters, its metrics.

``lm-eval:TASK[:METRIC[,FILTER]]``, TASK being a name that lm-eval knows, ``path/to/task.yaml``, or
``folder/NAME``, a task of that name in a folder of one's own.  lm-eval is loaded when a task is.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from springback.core import Row, content_hash
from springback.errors import MissingExtraError, SpringbackError, describe, did_you_mean
from springback.models.quiet import one_line, quiet

if TYPE_CHECKING:
    from springback.models.encoding import Encoded
    from springback.models.loading import Tokenizer

PREFIX = "lm-eval:"
FORM = "lm-eval:TASK[:METRIC[,FILTER]]"
#: What lm-eval seeds the choice of few-shot examples with, unless told otherwise.
FEWSHOT_SEED = 1234
_KNOWN = "a task that lm-eval knows, path/to/task.yaml, or folder/NAME"
#: What a task's file calls it.
_NAMED = re.compile(rb"""^task:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)
_YAML = re.compile(r"(?P<task>.+?\.ya?ml)(?::(?P<metric>.+))?")
#: How a value of the metric becomes the task's number, for a mean score to be that number.
_AGGREGATIONS = ("mean", "nanmean")


def is_lm_eval(metric: str | None) -> bool:
    return metric is not None and metric.startswith(PREFIX)


@dataclass(frozen=True)
class TaskRow:
    """A question of a task: its row, and the document that it was made of."""

    row: Row
    #: The question without examples, as lm-eval's doc_to_text has it: what makes two the same.
    question: str


class HarnessTask:
    """One task with one of its metrics behind one of its filters.

    ``by_likelihood``: multiple choice, judged by the log-likelihoods of the choices; else answers
    are written and read (generate_until).
    """

    def __init__(self, spec: str, task: Any, metric: str | None, pipeline: str | None) -> None:
        self.spec, self.task = spec, task
        self.by_likelihood = task.OUTPUT_TYPE == "multiple_choice"
        self._check_kind()
        self.metric = self._metric(metric)
        self.pipeline = self._filter(pipeline)
        self._docs: dict[str, Any] = {}
        self._parts: dict[str, list[TaskRow]] | None = None

    @property
    def name(self) -> str:
        return f"{self.task.config.task}:{self.metric},{self.pipeline.name}"

    @property
    def identity(self) -> str:
        """The task in the inputs of a run: how it grades, wherever its data lie."""
        config = {k: v for k, v in self.task.dump_config().items() if not k.startswith("dataset_")}
        return f"{PREFIX}{self.name} {content_hash(json.dumps(config, default=str))[:16]}"

    @property
    def max_new_tokens(self) -> int | None:
        """The longest answer that the task itself allows, where it says so."""
        given = (self.task.config.generation_kwargs or {}).get("max_gen_toks")
        return None if self.by_likelihood or given is None else int(given)

    def parts(self) -> dict[str, list[TaskRow]]:
        """The task's questions by part, ``validation`` and ``test`` as far as it has them, in its
        own order, with the few-shot examples that lm-eval would draw."""
        if self._parts is None:
            parts = {}
            with self._faults("its documents"), quiet():
                for part in ("validation", "test"):
                    if getattr(self.task, f"has_{part}_docs")():
                        parts[part] = list(self._rows(part))
            self._parts = parts
        return self._parts

    def grade(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The metric of each written answer, cut at the task's stop strings and filtered."""
        return self._graded(rows, [[self._cut(text)] for text in texts])

    def grade_choices(
        self, rows: Sequence[Row], likelihoods: Sequence[Sequence[float]]
    ) -> list[Any]:
        """The metric of each question by the log-likelihoods of its choices, nats."""
        return self._graded(rows, [[(value, False) for value in one] for one in likelihoods])

    def choices(
        self, rows: Sequence[Row], tokenizer: Tokenizer, system: str | None
    ) -> list[list[Encoded]]:
        """Every choice of every row behind its prompt; tokens are split as lm-eval does."""
        return [self._choices(row, tokenizer, system) for row in rows]

    def _choices(self, row: Row, tokenizer: Tokenizer, system: str | None) -> list[Encoded]:
        from springback.models.encoding import Encoded, prompt_text

        templated = bool(tokenizer.chat_template)
        context = prompt_text(tokenizer, row, system)
        with self._faults("its choices"):
            requests = self.task.construct_requests(
                doc=self.document(row), ctx=context, apply_chat_template=templated
            )
        encoded = []
        for request in requests:
            head, choice = request.args
            # A space at the end belongs to the token that follows it.
            kept = head.rstrip()
            ids = tokenizer(kept, add_special_tokens=not templated)["input_ids"]
            if not ids:
                raise self._refused("a prompt without a token", "some text", "drop such questions")
            whole = tokenizer(head + choice, add_special_tokens=not templated)["input_ids"]
            encoded.append(Encoded(tuple(whole), len(ids), len(choice.encode("utf-8"))))
        return encoded

    def _rows(self, part: str) -> Iterator[TaskRow]:
        task, config = self.task, self.task.config
        task.set_fewshot_seed(FEWSHOT_SEED)
        held = config.test_split
        if part == "validation":
            # lm-eval keeps a test question out of its own examples; here also a validation one.
            config.test_split = config.validation_split
        try:
            for number, doc in enumerate(getattr(task, f"{part}_docs")(), start=1):
                prompt = task.fewshot_context(
                    doc, num_fewshot=config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(doc)
                )
                key = content_hash(json.dumps(doc, sort_keys=True, default=str))[:24]
                self._docs[key] = doc
                answer = self._target(doc) or "as the task grades it"
                place = f"{self.spec}: {part} question {number}"
                row = Row("prompt", prompt, "", answer=answer, label=key, place=place)
                yield TaskRow(row, str(task.doc_to_text(doc)))
        finally:
            config.test_split = held

    def _target(self, doc: Any) -> str:
        target = self.task.doc_to_target(doc)
        if self.task.config.doc_to_choice is not None:
            choices = self.task.doc_to_choice(doc)
            named = target if isinstance(target, list) else [target]
            target = [choices[i] if isinstance(i, int) and i < len(choices) else i for i in named]
        return " | ".join(map(str, target)) if isinstance(target, list) else str(target)

    def document(self, row: Row) -> Any:
        """What the task made a row of."""
        self.parts()
        if row.label not in self._docs:
            raise SpringbackError(
                f"{self.spec}: {row.named} is none of the task's questions; allowed: its own; load "
                "them anew"
            )
        return self._docs[str(row.label)]

    def _cut(self, text: str) -> str:
        until = (self.task.config.generation_kwargs or {}).get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text

    def _graded(self, rows: Sequence[Row], answers: Sequence[Sequence[Any]]) -> list[Any]:
        from lm_eval.api.instance import Instance

        kind = "loglikelihood" if self.by_likelihood else "generate_until"
        by_row = [
            [
                Instance(kind, self.document(row), (row.prompt, {}), j, (self.name, i, 1), [answer])
                for j, answer in enumerate(given)
            ]
            for i, (row, given) in enumerate(zip(rows, answers, strict=True))
        ]
        with self._faults("its filters and metrics"):
            self.pipeline.apply([one for row in by_row for one in row])
            graded = [
                self.task.process_results(
                    row[0].doc, [one.filtered_resps[self.pipeline.name] for one in row]
                )
                for row in by_row
            ]
        if missing := [g for g in graded if self.metric not in g]:
            raise self._refused(f"metric {self.metric}", ", ".join(missing[0]), "name one of these")
        return [g[self.metric] for g in graded]

    def _check_kind(self) -> None:
        task = self.task
        if task.OUTPUT_TYPE not in ("generate_until", "multiple_choice"):
            raise self._refused(
                f"a task of {task.OUTPUT_TYPE}",
                "generate_until and multiple_choice",
                "take another task, or lm-eval itself on the boosted folder",
            )
        config = task.config
        if getattr(task, "UNSAFE_CODE", False):
            raise self._refused(
                "a task that runs what the model writes in this process (unsafe_code)",
                "tasks that do not",
                "run unit tests by a function of yours, as examples/unit_tests.py does",
            )
        if (config.repeats or 1) > 1:
            raise self._refused(
                f"{config.repeats} samples a question (repeats)", "one", "set repeats: 1 in a copy"
            )
        if getattr(task, "MULTIMODAL", False):
            raise self._refused("images or sounds", "texts", "take another task")
        # It would take the choices without a prompt besides; it is not asked for here.
        task._metric_fn_list.pop("acc_mutual_info", None)
        if self.by_likelihood and task.multiple_input:
            raise self._refused(
                "a prompt for each choice", "one prompt a question", "take another task"
            )

    def _metric(self, name: str | None) -> str:
        names = list(self.task.aggregation())
        if self.by_likelihood:
            names = [n for n in names if n in ("acc", "acc_norm", "acc_bytes")] or names
        metric = name or (names[0] if names else "")
        better = self.task.higher_is_better().get(metric, True)
        how = getattr(self.task.aggregation().get(metric), "__name__", "mean")
        if self.by_likelihood and metric not in ("acc", "acc_norm", "acc_bytes"):
            raise self._refused(f"metric {metric!r}", "acc, acc_norm, acc_bytes", "name one")
        if name and name not in names and self.task.config.process_results is None:
            raise self._refused(f"metric {metric!r}", ", ".join(names), "name one of these")
        if not better or how not in _AGGREGATIONS:
            raise self._refused(
                f"metric {metric!r}" + ("" if better else ", of which less is better"),
                "scores from 0 to 1 a question, the mean of which is the task's number, such as "
                + (", ".join(n for n in names if n != metric) or "exact_match"),
                f"name one: {PREFIX}TASK:METRIC",
            )
        return metric

    def _filter(self, name: str | None) -> Any:
        pipelines = {one.name: one for one in self.task._filters}
        if name is None:
            return next(iter(pipelines.values()))
        if name not in pipelines:
            raise self._refused(f"filter {name!r}", ", ".join(pipelines), "name one of these")
        return pipelines[name]

    def _refused(self, given: str, allowed: str, do: str) -> SpringbackError:
        return SpringbackError(f"{self.spec}: " + describe(given, allowed, do))

    @contextmanager
    def _faults(self, where: str) -> Iterator[None]:
        """Whatever a task's own code raises, in one line."""
        try:
            yield
        except SpringbackError:
            raise
        except Exception as error:
            raise _failed(self.spec, where, error) from error


def _failed(spec: str, where: str, error: Exception) -> SpringbackError:
    return SpringbackError(
        f"{spec}: {where} failed with {type(error).__name__}: {one_line(error)}; allowed: a task "
        "that lm-eval itself runs; mend the task, or try it with lm-eval"
    )


def load_task(spec: str) -> HarnessTask:
    """The task that ``spec`` names; raises :class:`SpringbackError` where it cannot be used.

    A task's YAML file may name functions of a Python file beside it, which are run: like a
    function of the user's own, with the user's rights.
    """
    require_task(spec)
    name, _, _ = parse(spec)
    path = Path(name).expanduser()
    return _loaded(spec, path.stat().st_mtime_ns if path.is_file() else None)


def require_task(spec: str) -> None:
    """Raise :class:`SpringbackError` where lm-eval, a task's file or its name is plainly not there.

    Loads nothing of lm-eval's: a name that stands in none of its files is none of its tasks.
    """
    name, _, _ = parse(spec)
    package = importlib.util.find_spec("lm_eval")
    if package is None:
        raise MissingExtraError("lm-eval", "lm-eval", "--metric lm-eval:TASK")
    if Path(name).expanduser().is_file():
        return
    if _YAML.fullmatch(name):
        given = f"no such file: {name!r}"
        raise SpringbackError(f"{spec}: " + describe(given, _KNOWN, "check the path"))
    folder, _, last = name.rpartition("/")
    own = Path(folder).expanduser()
    if folder and own.is_dir():
        roots, wanted = [own], last
    else:
        roots = [Path(place, "tasks") for place in package.submodule_search_locations or ()]
        wanted = name
    files = [
        Path(place, file)
        for root in roots
        for place, _, inside in os.walk(root)
        for file in inside
        if file.endswith((".yaml", ".yml"))
    ]
    if any(file.stem == wanted for file in files):
        return
    word = re.compile(rb"(?<![\w-])" + re.escape(wanted.encode()) + rb"(?![\w-])")
    names = set[str]()
    for file in files:
        text = file.read_bytes()
        if word.search(text):
            return
        names.update(one.decode("utf-8", "replace") for one in _NAMED.findall(text))
    raise _unknown(spec, wanted, sorted(names))


def _unknown(spec: str, wanted: str, names: Sequence[str]) -> SpringbackError:
    known = [n for n in names if wanted.lower() in n.lower()]
    return SpringbackError(
        f"{spec}: "
        + describe(
            f"task {wanted!r}",
            _KNOWN,
            f"name one, such as {', '.join(known[:6])}"
            if known
            else f"check the name{did_you_mean(wanted, names)}",
        )
    )


@functools.lru_cache(maxsize=4)
def _loaded(spec: str, stamp: int | None) -> HarnessTask:
    """``stamp`` tells versions of a task's file apart."""
    name, metric, pipeline = parse(spec)
    return HarnessTask(spec, _task(spec, name, stamp is not None), metric, pipeline)


def parse(spec: str) -> tuple[str, str | None, str | None]:
    """Task, metric and filter; the last two None where they are not named."""
    rest = spec.removeprefix(PREFIX)
    match = _YAML.fullmatch(rest)
    task, _, metric = (match["task"], "", match["metric"] or "") if match else rest.partition(":")
    metric, comma, pipeline = metric.partition(",")
    if not task or (comma and not (metric and pipeline)) or rest.endswith(":"):
        raise SpringbackError(
            "--metric: " + describe(repr(spec), FORM, "name the task, and a metric as lm-eval does")
        )
    return task, metric or None, pipeline or None


def _task(spec: str, name: str, is_file: bool) -> Any:
    """lm-eval's task, with its data."""
    try:
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError("lm-eval", "lm-eval", "--metric lm-eval:TASK") from error
    folder, _, last = name.rpartition("/")
    if is_file:
        manager = TaskManager(include_defaults=False)
        wanted = str(Path(name).expanduser())
    elif folder and Path(folder).expanduser().is_dir():
        manager = TaskManager(include_path=str(Path(folder).expanduser()), include_defaults=False)
        wanted = last
    else:
        manager, wanted = TaskManager(), name
    if not is_file and wanted not in manager.all_tasks:
        raise _unknown(spec, wanted, manager.all_subtasks)
    try:
        with quiet():
            tasks = list(manager.load(wanted)["tasks"].values())
    except Exception as error:
        raise _failed(spec, "loading it", error) from error
    if len(tasks) != 1 or not isinstance(tasks[0], ConfigurableTask):
        names = ", ".join(str(task.task_name) for task in tasks[:6])
        given = f"a group of {len(tasks)} tasks" if len(tasks) != 1 else "a task written in Python"
        raise SpringbackError(
            f"{spec}: " + describe(given, "one task described by YAML", f"name one of {names}")
        )
    return tasks[0]
