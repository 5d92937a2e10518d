"""Callbacks for Transformers' Trainer and TRL's: keep the early checkpoint, watch elasticity and
the accuracy of answers."""

from __future__ import annotations

import shutil
import string
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from springback.core import Row
from springback.data import check_template, framed, load_slice, task_of
from springback.data.grading import (
    LETTERS,
    METRICS,
    Outcome,
    check_reference,
    compile_extraction,
    find_answer,
    in_thoughts,
    outcome,
    require_math,
    without_thoughts,
)
from springback.data.tasks import Task, fields_of
from springback.decoding import DecodeSettings, decode
from springback.errors import ModelError, SpringbackError, describe
from springback.models.encoding import (
    Encoded,
    encode_prompt,
    encode_rows,
    prompt_text,
    stop_ids,
)
from springback.models.loading import Tokenizer
from springback.probes import Precision, StartDistribution, margin, nll
from springback.results.store import whole_folder

#: What a model or adapter consists of; the state of the training is left behind, and no pickle.
_MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model", ".md"})
_LEFT = frozenset({"trainer_state.json"})


class KeepEarly(TrainerCallback):
    """Keeps the model of one moment, which ``save_total_limit`` would delete, for ``boost``.

    Exactly one of ``step``, ``epoch`` (1: the end of the first) and ``share`` (of all steps) says
    when.  A checkpoint is saved then even if the trainer's own schedule has none, and its model is
    copied to ``OUTPUT_DIR/early-STEP``: weights (or adapter), configuration, tokenizer, but not
    the optimizer.  :attr:`folder` is that path once it is there.

    >>> trainer.add_callback(KeepEarly(epoch=1))  # doctest: +SKIP
    """

    def __init__(
        self, step: int | None = None, epoch: int | None = None, share: float | None = None
    ) -> None:
        given = {"step": step, "epoch": epoch, "share": share}
        named = {k: v for k, v in given.items() if v is not None}
        if len(named) != 1 or not all(v > 0 for v in named.values()) or (share or 0) >= 1:
            raise SpringbackError(
                describe(
                    f"KeepEarly({', '.join(f'{k}={v}' for k, v in named.items())})",
                    "one of step, epoch (1 or more) and share (between 0 and 1)",
                    "say when the early checkpoint is",
                )
            )
        self.step, self.epoch, self.share = step, epoch, share
        self.folder: Path | None = None

    def _at(self, state: TrainerState) -> int | None:
        """The step, where it is known from the beginning."""
        if self.share is not None:
            return max(1, round(self.share * state.max_steps))
        return self.step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises where the moment never comes: a long training should not end without it."""
        step = self._at(state)
        never = step is not None and step >= state.max_steps
        never |= self.epoch is not None and self.epoch >= state.num_train_epochs
        if never:
            raise SpringbackError(
                describe(
                    f"KeepEarly at {'step ' + str(step) if step else 'epoch ' + str(self.epoch)}",
                    f"before the end: {state.max_steps} steps, {state.num_train_epochs} epochs",
                    "keep an earlier one",
                )
            )
        if step is not None and (_out(args) / f"early-{step}").is_dir():
            self.folder = _out(args) / f"early-{step}"  # a run that goes on

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self._at(state):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.epoch is not None and round(state.epoch or 0) == self.epoch:
            control.should_save = True
            self.step = state.global_step

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step != self._at(state) or not state.is_world_process_zero:
            return
        source = _out(args) / f"checkpoint-{state.global_step}"
        files = [p for p in sorted(source.iterdir()) if _is_model(p)]
        if not any(p.suffix == ".safetensors" for p in files):
            raise ModelError(
                describe(
                    f"{source} without safetensors",
                    "checkpoints of whole weights or an adapter, as safetensors",
                    "save full state dicts (FSDP: FULL_STATE_DICT; DeepSpeed: gathered weights)",
                )
            )
        target = _out(args) / f"early-{state.global_step}"
        with whole_folder(target) as tmp:
            for path in files:  # copied: a link would change when the trainer writes it again
                shutil.copy2(path, tmp / path.name)
        self.folder = target


def _out(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".")


def _is_model(path: Path) -> bool:
    return path.is_file() and path.suffix in _MODEL_SUFFIXES and path.name not in _LEFT


@dataclass(frozen=True)
class Held:
    """Held-out rows that elasticity is read off.

    ``wanted`` and ``unwanted``: behaviour that training aims at, and its opposite (texts or
    :class:`springback.Row`); ``neutral``: texts that KL to the start is taken on, best sampled
    from the start model.  Any may be empty: what needs it is not logged.
    """

    wanted: Sequence[str | Row] = ()
    unwanted: Sequence[str | Row] = ()
    neutral: Sequence[str | Row] = ()


class _Measuring(TrainerCallback):
    """Logs what :meth:`measure` says before the first step, every ``every`` steps, at the end."""

    def __init__(self, tokenizer: Tokenizer, every: int) -> None:
        if every < 1:
            raise SpringbackError(describe(f"every={every}", "1 or more", "change it"))
        if tokenizer.pad_token_id is None:
            raise ModelError("the tokenizer has no pad token; set tokenizer.pad_token first")
        self.tokenizer, self.every = tokenizer, every
        self._trainer: weakref.ref[Trainer] | None = None
        self._last = -1

    def watch(self, trainer: Trainer) -> Self:
        """Join ``trainer``; a callback alone cannot reach the trainer's log."""
        self._trainer = weakref.ref(trainer)
        trainer.add_callback(self)
        return self

    def measure(self, model: Any) -> dict[str, float]:
        """What is logged, of ``model`` as it is now."""
        raise NotImplementedError

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if self._trainer is None:
            name = type(self).__name__
            raise SpringbackError(
                f"{name} was given to a trainer by itself; use {name}(...).watch(trainer) instead"
            )
        self._log(model, state, control)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if state.global_step % self.every == 0:
            self._log(model, state, control)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        self._log(model, state, control)

    def _log(self, model: Any, state: TrainerState, control: TrainerControl) -> None:
        trainer = self._trainer() if self._trainer else None
        if state.global_step == self._last or trainer is None:
            return
        self._last, due = state.global_step, control.should_log
        # The base class's own: TRL's trainers add and clear their running means in theirs.
        Trainer.log(trainer, self.measure(model))
        control.should_log = due  # a log of ours must not stand for the trainer's own


class ElasticityCallback(_Measuring):
    """Logs margin and KL to the start while training, to whatever the trainer reports to.

    ``elasticity/margin``: mean NLL a token of the unwanted texts minus that of the wanted ones,
    nats a token, higher is more aligned.  ``elasticity/kl``: KL(start || model), nats a token.
    Measured before the first step, every ``every`` steps, and at the end; in the weights' own
    dtype, on ``tokens`` tokens a text at most.  The start's probabilities are kept, or with a LoRA
    adapter computed without it, so that no second model is needed.

    >>> ElasticityCallback(tokenizer, Held(wanted, unwanted), every=50).watch(trainer)
    ... # doctest: +SKIP
    """

    def __init__(
        self, tokenizer: Tokenizer, held: Held, every: int = 100, tokens: int = 128
    ) -> None:
        super().__init__(tokenizer, every)
        if bool(held.wanted) != bool(held.unwanted) or not (held.wanted or held.neutral):
            raise SpringbackError(
                describe(
                    f"{len(held.wanted)} wanted, {len(held.unwanted)} unwanted, "
                    f"{len(held.neutral)} neutral texts",
                    "wanted and unwanted, or neutral, or all three",
                    "give what you want measured",
                )
            )
        self._wanted, self._unwanted, self._neutral = (
            self._encoded(rows, tokens) for rows in (held.wanted, held.unwanted, held.neutral)
        )
        self._start: StartDistribution | None = None

    def _encoded(self, rows: Sequence[str | Row], tokens: int) -> list[Encoded]:
        given = [Row("text", "", row) if isinstance(row, str) else row for row in rows]
        return encode_rows(self.tokenizer, given, tokens)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if self._trainer is not None and self._neutral:
            self._start = self._start_distribution(model, state.global_step > 0)
        super().on_train_begin(args, state, control, model, **kwargs)

    def _start_distribution(self, model: Any, resumed: bool) -> StartDistribution:
        """Of the model as it is, or without its adapter, where a run goes on."""
        where = _Adapters(model)
        if resumed and not where.any:
            raise SpringbackError(
                describe(
                    "KL to the start in a run that goes on with full weights",
                    "runs from the start, or LoRA",
                    "leave the neutral texts out",
                )
            )
        with _evaluating(model), where:
            start = StartDistribution(
                model, self._neutral, self.tokenizer, Precision(), keep_bytes=2_000_000_000
            )
        if start.kept is None:
            raise SpringbackError(
                "the start's probabilities take more than 2 GB; give fewer neutral texts"
            )
        return start

    def measure(self, model: Any) -> dict[str, float]:
        """What is logged, of ``model`` as it is now."""
        values: dict[str, float] = {}
        with _evaluating(model):
            if self._wanted:
                wanted, unwanted = (
                    nll(model, rows, self.tokenizer, Precision())
                    for rows in (self._wanted, self._unwanted)
                )
                values["elasticity/margin"] = margin(wanted, unwanted)
            if self._start is not None:
                each = self._start.kl(model)
                values["elasticity/kl"] = sum(each) / len(each)
        return values


@dataclass(frozen=True)
class Asked:
    """How questions are put and answers graded, as a boost does it: ``springback boost`` has the
    same names.

    ``task`` (``gsm8k``, ...) fills in what is left open.  ``metric``: ``number`` (the default),
    ``choice``, ``choices``, ``exact`` or ``math``.
    """

    task: str | None = None
    metric: str | None = None
    prompt_template: str | None = None
    extract: str | None = None
    system: str | None = None
    max_new_tokens: int = 256
    batch_size: int = 16

    def filled(self) -> Asked:
        """With the task's own; raises :class:`SpringbackError` for what cannot be."""
        task = task_of(self.task) if self.task else Task("", "number")
        template = check_template(self.prompt_template or task.template)
        filled = replace(self, metric=self.metric or task.metric, prompt_template=template)
        if filled.metric not in METRICS:
            raise SpringbackError(describe(filled.metric, ", ".join(METRICS), "choose a metric"))
        if filled.metric == "math":
            require_math()
        if pattern := self.extract or task.extract:
            compile_extraction(pattern)
        return replace(filled, extract=pattern)


class AccuracyCallback(_Measuring):
    """Logs the accuracy of greedy answers while training, to whatever the trainer reports to.

    ``questions``: rows with answers, or a source as ``--validation`` takes it, of which ``rows``
    are drawn.  ``accuracy/correct``: share of right answers; ``accuracy/unread``: share of those
    that no answer could be read off, which are wrong.  Before the first step, every ``every``
    steps, and at the end; in the weights' own dtype, by the model's own cache.  Decoding is greedy
    and draws nothing, so training is the same without it.

    >>> AccuracyCallback(tokenizer, "dev.jsonl", every=50).watch(trainer)  # doctest: +SKIP
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        questions: str | Sequence[Row],
        every: int = 100,
        asked: Asked | None = None,
        rows: int = 64,
    ) -> None:
        super().__init__(tokenizer, every)
        self.asked = asked = (asked or Asked()).filled()
        if isinstance(questions, str):
            task = task_of(asked.task) if asked.task else None
            fields = fields_of(task, questions, {}) if task else None
            questions = load_slice(questions, fields=fields, limit=rows, split="validation").rows
        if not questions:
            raise SpringbackError(describe("no questions", "one or more", "name some"))
        self._rows = [row if row.metric else replace(row, metric=asked.metric) for row in questions]
        for row in self._rows:
            check_reference(row.metric or "", row.answer or "", letters=_letters(row))
        put = [replace(r, prompt=framed(asked.prompt_template, r.prompt)) for r in questions]
        self._first, system = put[0], asked.system
        self._prompts = [encode_prompt(tokenizer, row, system) for row in put]
        self._begun = "<think>" if in_thoughts(prompt_text(tokenizer, put[0], system)) else ""

    def measure(self, model: Any) -> dict[str, float]:
        """What is logged, of ``model`` as it is now."""
        # Layers of an adapter are in the base model; PEFT's own class hides the cache.
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        how = DecodeSettings(
            max_new_tokens=self.asked.max_new_tokens,
            batch_size=self.asked.batch_size,
            stop_ids=stop_ids(self.tokenizer, self._first, base),
            pad_id=self.tokenizer.pad_token_id,
        )
        with _evaluating(model):
            answers = decode(base, self._prompts, how)
        graded = [
            self._outcome(row, self.tokenizer.decode(ids, skip_special_tokens=True))
            for row, ids in zip(self._rows, answers, strict=True)
        ]
        count = len(graded)
        correct, unread = graded.count("right") / count, graded.count("unread") / count
        return {"accuracy/correct": correct, "accuracy/unread": unread}

    def _outcome(self, row: Row, text: str) -> Outcome:
        answer: str | None = without_thoughts(self._begun + text)
        if self.asked.extract:
            answer = find_answer(compile_extraction(self.asked.extract), answer or "")
        return outcome(row.metric or "", answer, row.answer or "", letters=_letters(row))


def _letters(row: Row) -> str:
    """The letters on offer: as many as the row has choices, five at least."""
    return string.ascii_uppercase[: max(len(LETTERS), len(row.choices))]


class _Adapters:
    """A model with its adapters switched off while inside, where it has any."""

    def __init__(self, model: Any) -> None:
        self.any = hasattr(model, "disable_adapter") and hasattr(model, "peft_config")
        self._held: Any = model.disable_adapter() if self.any else None

    def __enter__(self) -> None:
        if self._held is not None:
            self._held.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._held is not None:
            self._held.__exit__(*error)


class _evaluating:
    """A model in evaluation mode while inside; dropout's random numbers are not touched."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self._training = self.model.training
        self.model.eval()

    def __exit__(self, *error: object) -> None:
        self.model.train(self._training)
