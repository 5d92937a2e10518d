"""Everything that touches TRL: DPO, KTO, SimPO and ORPO (experimental there), and RLOO.

TRL has the losses; batches, order, marks and resume are ours, through :class:`Watched`.  Import
this module only where it is needed: TRL takes seconds to load and may not be installed.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from trl.import_utils import TRLExperimentalWarning
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import add_fused_lm_head

from springback.core import content_hash
from springback.errors import DataError, SpringbackError, TrainingError
from springback.models.encoding import Encoded
from springback.models.loading import Model, listed_end_ids, trainable
from springback.models.quiet import old_names_allowed
from springback.training.examples import Labelled, Preference, Prompt
from springback.training.memory.microbatches import groups
from springback.training.trainer import Task, Watched

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # that it may change; the pin is ours
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

#: TRL trains in bf16 and recomputes activations unless told otherwise.
COMMON: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}
#: The answers of a SimPO row.
SIDES = ("chosen", "rejected")
#: Ends of the names of right-padded inputs (rows, length).
PADDED = ("input_ids", "attention_mask", "labels", "completion_ids", "completion_mask")


class _Stub(Dataset):  # type: ignore[misc]
    """A row for TRL's constructors to look at; the batches come from :class:`Watched`."""

    def map(self, *args: Any, **kwargs: Any) -> _Stub:
        return self


def _stub(**columns: Any) -> _Stub:
    return cast("_Stub", _Stub.from_dict({name: [value] for name, value in columns.items()}))


class _TRLTrainer(Watched):
    """One of TRL's trainers, that takes a large batch in pieces and sends nothing to TRL's makers.

    The batch's loss is the mean of its rows'.
    """

    #: Sequences of a row: 2 where it is a pair of answers.
    sequences = 1

    def _send_telemetry(self) -> None:
        """Nothing; TRL would report from every constructor."""

    def lengths(self, inputs: Any) -> Tensor:
        """Tokens of every row's longest sequence, (rows,)."""
        lengths: Tensor = inputs["attention_mask"].sum(1).view(self.sequences, -1).amax(0)
        return lengths

    def parts(self, inputs: Any) -> list[tuple[Any, float]]:
        lengths = self.lengths(inputs)
        before = inputs["prompt_ids"].shape[1] if "prompt_ids" in inputs else 0
        pieces = groups(lengths + before, self.at_once, self.sequences)
        if len(pieces) == 1:
            return [(inputs, 1.0)]
        return [(_piece(inputs, rows, lengths), len(rows) / len(lengths)) for rows in pieces]


def _piece(inputs: dict[str, Any], rows: list[int], lengths: Tensor) -> dict[str, Any]:
    """Rows of a batch, right-padded as far as they need it.

    ``lengths`` (all rows,).  A tensor may hold one block of all rows after the other, as the chosen
    answers and then the rejected ones.
    """
    width = max(1, int(lengths[rows].max()))
    piece = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            blocks = range(0, len(value), len(lengths))
            piece[name] = value[[first + row for first in blocks for row in rows]]
            if name.endswith(PADDED):
                piece[name] = piece[name][:, :width]
    return piece


class DPO(_TRLTrainer, DPOTrainer):
    """-log sigmoid(beta ((log p - log ref)(chosen) - (log p - log ref)(rejected))), mean."""

    sequences = 2  # the inputs have all chosen answers, then all rejected ones


class KTO(_TRLTrainer, KTOTrainer):
    """Desirable: w (1 - sigmoid(beta (r - z))), else w (1 - sigmoid(beta (z - r))), mean.

    r is the answer's log p - log ref, z the batch's KL estimate (not below 0): the mean of that
    difference over every prompt with the answer before it in the batch.
    """

    def parts(self, inputs: Any) -> list[tuple[Any, float]]:
        parts = super().parts(inputs)
        if len(parts) > 1:
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
                logps = self._compute_kl_logps(self.model, inputs)  # without gradients
            # z of the whole batch, before it is cut at 0
            batch_kl = (logps - inputs["ref_KL_logps"]).mean()
            for piece, _ in parts:
                piece["batch_kl"] = batch_kl
                piece["ref_KL_logps"].zero_()  # what TRL subtracts is subtracted here already
        return parts

    def _compute_kl_logps(self, model: Any, batch: Any) -> Tensor:
        if "batch_kl" in batch:  # out of the piece, whose rest TRL hands to the model
            known: Tensor = batch.pop("batch_kl")
            return known.expand(len(batch["label"]))
        trl: Any = super()
        logps: Tensor = trl._compute_kl_logps(model, batch)
        return logps


class _Sides(_TRLTrainer):
    """A trainer whose inputs have the chosen and the rejected answers under their own names."""

    sequences = 2

    def lengths(self, inputs: Any) -> Tensor:
        chosen, rejected = (inputs[f"{side}_attention_mask"].sum(1) for side in SIDES)
        return torch.maximum(chosen, rejected)

    def log_probs(
        self, model: Any, batch: Any, with_prompts: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of every token of the chosen rows, then of the rejected ones, (2 rows, length - 1) each.

        Log p (0 for padding and, unless ``with_prompts``, for prompts), whether the token is an
        answer's, and whether it is no padding.  TRL's own way holds all logits.
        """
        trl: Any = self
        joined = trl.concatenated_inputs(
            batch, padding_value=trl.processing_class.pad_token_id, device=self.accelerator.device
        )
        ids, there = joined["concatenated_input_ids"], joined["concatenated_attention_mask"]
        labels = joined["concatenated_labels"]
        scored = torch.where(there == 1, ids, -100) if with_prompts else labels
        out = model(ids, attention_mask=there, labels=scored, fused_lm_head=True)
        return out.log_probs, labels[:, 1:] != -100, there[:, 1:] == 1


class SimPO(_Sides, CPOTrainer):
    """-log sigmoid(beta (mean log p(chosen) - mean log p(rejected)) - gamma), mean a pair."""

    def concatenated_forward(self, model: Any, batch: Any) -> Any:
        """Mean log p of the chosen and the rejected answers.

        Where TRL gives the logits, for its log, and an NLL, there is a zero.
        """
        each, answers, _ = self.log_probs(model, batch)
        chosen, rejected = (each.sum(-1) / answers.sum(-1)).chunk(2)
        none = torch.zeros((), device=each.device)
        return chosen, rejected, none, none, none


class ORPO(_Sides, ORPOTrainer):
    """NLL(prompt and chosen) - beta log sigmoid(log odds(chosen) - log odds(rejected)).

    The odds are p / (1 - p) with p = exp(mean log p) of an answer, mean a pair; the NLL is the mean
    over the batch's tokens, prompts included, as TRL has it (Hong et al., arXiv 2403.07691).
    """

    def parts(self, inputs: Any) -> list[tuple[Any, float]]:
        parts = super().parts(inputs)
        counted = int(inputs["chosen_attention_mask"][:, 1:].sum())
        # Times its weight a piece's NLL is then its share of the whole batch's.
        return [({**piece, "nll_tokens": counted * weight}, weight) for piece, weight in parts]

    def concatenated_forward(self, model: Any, batch: Any) -> Any:
        """Mean log p of the answers, zeros for their logits, and the NLL of the chosen texts."""
        each, answers, there = self.log_probs(model, batch, with_prompts=True)
        chosen, rejected = ((each * answers).sum(-1) / answers.sum(-1)).chunk(2)
        first = slice(0, len(chosen))
        loss = -(each[first] * there[first]).sum() / batch["nll_tokens"]
        none = torch.zeros((), device=each.device)
        return chosen, rejected, none, none, loss


class RLOO(_TRLTrainer, RLOOTrainer):
    """- advantage * p / p at sampling (clipped), mean; the baseline is the other answers' mean."""

    seed: int
    prompts: list[Prompt]

    def lengths(self, inputs: Any) -> Tensor:
        """Tokens of every answer; the prompts before them keep their padding."""
        answers: Tensor = inputs["completion_mask"].sum(1)
        return answers

    def _prepare_inputs(self, batch: Any) -> dict[str, Any]:
        """Sample and score.  The noise is drawn from seed and step, so a resumed run repeats it."""
        step = self.loop.state.step
        with old_names_allowed(), torch.random.fork_rng():
            torch.manual_seed(int(content_hash([self.seed, step])[:12], 16))
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
                scored: dict[str, Any] = super()._prepare_inputs(batch)
        return scored

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Our own token ids; a prompt's name is its index."""
        return [list(self.prompts[int(name)].ids) for name in prompts], None, {}


@contextmanager
def _swapped(model: Model, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The model with these trainable weights, without a copy."""
    policy = {name: p.data for name, p in trainable(model).items()}
    for name, p in trainable(model).items():
        p.data = tensors[name]
    try:
        yield
    finally:
        for name, p in trainable(model).items():
            p.data = policy[name]


def _handle(model: Model) -> Model:
    """Another object over the very same weights: TRL wants policy and reference to be two."""
    return copy.copy(model)


def _reference(task: Task) -> Model:
    """The reference at this moment, before the first step: given, or the model as it is."""
    return task.examples.reference or _handle(task.model)


def _keep_reference(
    task: Task, trainer: Any, make: Callable[[int], Any], names: tuple[str, ...]
) -> None:
    """Compute the reference log-probabilities of every batch once; later steps read them."""
    reference = trainer.ref_model
    trainer.ref_model, trainer.precompute_ref_logps = None, True
    if task.state.kept:
        return
    task.progress.note(f"log-probabilities of {task.seen[-1]} examples under the reference")
    scores: dict[str, list[Tensor]] = {name: [] for name in names}
    for step in range(len(task.batches)):
        inputs = {k: v.to(task.model.device) for k, v in make(step).items()}
        with task.autocast():
            values = trainer.compute_ref_log_probs(reference, inputs)
        for name, value in zip(names, values, strict=True):
            scores[name].append(value.float().cpu())
    task.state.kept = {name: torch.cat(values) for name, values in scores.items()}
    task.state.save()  # it took as long as a third of the training


def _kept(task: Task, step: int) -> dict[str, Tensor]:
    """The reference log-probabilities of one step's batch."""
    part = slice(task.seen[step], task.seen[step + 1])
    return {name: values[part] for name, values in task.state.kept.items()}


def build_dpo(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of a DPO run; scores every example under the reference unless the run resumes."""
    rows = cast("list[Preference]", task.examples.rows)
    collate = DataCollatorForPreference(task.tokenizer.pad_token_id)
    trainer = DPO(
        model=task.model,
        ref_model=_reference(task),
        args=DPOConfig(**args, **COMMON, beta=task.beta, max_length=None),
        train_dataset=_stub(prompt="a", chosen="b", rejected="c"),
        processing_class=task.tokenizer,
        optimizers=task.optimizers,
    )

    def make(step: int) -> dict[str, Tensor]:
        batch = [
            {
                "prompt_ids": list(rows[i].prompt),
                "chosen_ids": list(rows[i].chosen),
                "rejected_ids": list(rows[i].rejected),
            }
            for i in task.batches[step]
        ]
        return {**collate(batch), **_kept(task, step)}

    _keep_reference(task, trainer, make, ("ref_chosen_logps", "ref_rejected_logps"))
    trainer.batches = task.feed(make)
    return trainer


def build_kto(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of a KTO run; scores every example under the reference unless the run resumes.

    Raises :class:`DataError` where a batch has one row.
    """
    recipe, rows = task.recipe, cast("list[Labelled]", task.examples.rows)
    if any(len(batch) < 2 for batch in task.batches):
        raise DataError(
            f"KTO estimates its KL within a batch, so every batch needs two rows; {len(rows)} rows "
            f"in batches of {recipe.batch_size} leave one alone; change the batch size or the rows"
        )
    collate = DataCollatorForUnpairedPreference(task.tokenizer.pad_token_id)
    config = KTOConfig(
        **args,
        **COMMON,
        beta=task.beta,
        max_length=None,
        desirable_weight=recipe.desirable_weight,
        undesirable_weight=recipe.undesirable_weight,
        per_device_train_batch_size=recipe.batch_size,
    )
    trainer = KTO(
        model=task.model,
        ref_model=_reference(task),
        args=config,
        train_dataset=_stub(prompt="a", completion="b", label=True),
        processing_class=task.tokenizer,
        optimizers=task.optimizers,
    )

    def make(step: int) -> dict[str, Tensor]:
        index = task.batches[step]
        batch = [
            {
                "prompt_ids": list(rows[i].prompt),
                "completion_ids": list(rows[i].completion),
                "KL_completion_ids": list(rows[before].completion),
                "label": rows[i].desirable,
            }
            for i, before in zip(index, [index[-1], *index[:-1]], strict=True)
        ]
        return {**collate(batch), **_kept(task, step)}

    _keep_reference(task, trainer, make, ("ref_logps", "ref_KL_logps"))
    trainer.batches = task.feed(make)
    return trainer


def build_simpo(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of a SimPO run; it has no reference."""
    recipe = task.recipe
    config = CPOConfig(
        **args,
        **COMMON,
        loss_type="simpo",
        beta=task.beta,
        simpo_gamma=recipe.gamma,
        cpo_alpha=0.0,  # no SFT term: SimPO, not CPO-SimPO
        max_length=recipe.max_tokens,
    )
    return _by_sides(SimPO, task, config)


def build_orpo(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of an ORPO run; it has no reference."""
    config = ORPOConfig(**args, **COMMON, beta=task.beta, max_length=task.recipe.max_tokens)
    return _by_sides(ORPO, task, config)


def _by_sides(trainer_class: Any, task: Task, config: Any) -> Watched:
    """A :class:`_Sides` trainer, fed with the rows' prompts and both answers to each."""
    rows = cast("list[Preference]", task.examples.rows)
    add_fused_lm_head(task.model)
    trainer: Watched = trainer_class(
        model=task.model,
        args=config,
        data_collator=dict,  # not used, but without one it makes its own
        train_dataset=_stub(prompt="a", chosen="b", rejected="c"),
        processing_class=task.tokenizer,
        optimizers=task.optimizers,
    )

    def make(step: int) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        for side in SIDES:
            pairs = [(rows[i].prompt, getattr(rows[i], side)) for i in task.batches[step]]
            # Labels count the answers.
            joined = [Encoded((*prompt, *answer), len(prompt), 0) for prompt, answer in pairs]
            batch = task.padded(joined, range(len(joined)))
            inputs |= {f"{side}_{name}": value for name, value in batch.items()}
        return inputs

    trainer.batches = task.feed(make)
    return trainer


def _scoring(task: Task) -> Callable[..., list[float | None]]:
    """The reward function as TRL calls it: prompts by index; one finite number each."""
    prompts, reward = cast("list[Prompt]", task.examples.rows), task.examples.reward

    def score(prompts_: list[str], completions: list[str]) -> list[float | None]:
        if reward is None:
            raise SpringbackError("RLOO needs a reward function")
        texts = [prompts[int(name)].text for name in prompts_]
        with torch.autocast(task.model.device.type, enabled=False):
            values = [float(value) for value in reward(texts, completions)]
        if len(values) != len(texts) or not all(map(math.isfinite, values)):
            raise TrainingError(
                f"the reward function gave {values} for {len(texts)} texts; "
                "it must give one finite number for each"
            )
        task.state.rewards.append(sum(values) / len(values))
        return [*values]

    return lambda prompts, completions, **_: score(prompts, completions)


def build_rloo(task: Task, args: dict[str, Any]) -> Watched:
    """The trainer of an RLOO run; the reference scores the answers as they are sampled."""
    recipe = task.recipe
    handle = _handle(task.model)  # before TRL patches the model's forward
    config = RLOOConfig(
        **args,
        **COMMON,
        beta=0.0,  # TRL would load a second model; the reference is set below
        num_generations=recipe.generations,
        max_completion_length=recipe.new_tokens,
        temperature=recipe.temperature,
        per_device_train_batch_size=recipe.batch_size * recipe.generations,
    )
    trainer = RLOO(
        model=task.model,
        reward_funcs=_scoring(task),
        args=config,
        train_dataset=_stub(prompt="a"),
        processing_class=task.tokenizer,
        optimizers=task.optimizers,
    )
    # TRL has the tokenizer's end token and the generation config's.
    more = {*listed_end_ids(task.model), *task.examples.stop_ids} - {*trainer.eos_token_ids}
    trainer.eos_token_ids = [*trainer.eos_token_ids, *sorted(more)]
    trainer.generation_config.eos_token_id = trainer.eos_token_ids
    trainer.seed, trainer.prompts = recipe.seed, cast("list[Prompt]", task.examples.rows)
    if recipe.beta:
        trainer.beta = recipe.beta
        trainer.ref_model = _online_reference(task, handle)

    def make(step: int) -> list[dict[str, str]]:
        return [{"prompt": str(i)} for i in task.batches[step] for _ in range(recipe.generations)]

    trainer.batches = task.feed(make)
    return trainer


def _online_reference(task: Task, handle: Model) -> Model:
    """A model that scores sampled answers as the reference does, at any step."""
    if task.examples.reference is not None:
        add_fused_lm_head(task.examples.reference, temperature=task.recipe.temperature)
        return task.examples.reference
    add_fused_lm_head(handle, temperature=task.recipe.temperature)
    scored = handle.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _swapped(task.model, task.start or {}):
            return scored(*args, **kwargs)

    handle.forward = forward
    return handle
