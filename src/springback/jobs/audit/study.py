"""One audit in one process: the start model, its data, the probes, the store of finished runs."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import ALGORITHMS, Checkpoint, Recipe, Row, Run, Slice
from springback.errors import SpringbackError, describe
from springback.jobs.audit.accelerate_config import read_launch, sharding
from springback.jobs.audit.pools import Data
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, stop_ids
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    copy_weights,
    count_parameters,
    load_weights,
    save_weights,
)
from springback.models.sharded import can_be_sharded
from springback.models.stored_model import AnyModel, StoredModel, in_memory
from springback.models.views import view_of
from springback.probes import registry
from springback.probes.context import ProbeInputs
from springback.probes.measuring import Measures
from springback.probes.registry import ProbeValue
from springback.probes.sharded import ShardedMeter
from springback.progress import Progress
from springback.results.probe_info import ProbeInfo
from springback.results.store import Store, require_folder, require_space
from springback.results.timing import timed
from springback.training import (
    Examples,
    Lora,
    Marks,
    Resume,
    Trained,
    add_lora,
    encode_labelled,
    encode_preferences,
    encode_prompts,
    finetune,
    labelled_rows,
    preference_rows,
    reset_lora,
)
from springback.training.distributed import finetune_apart
from springback.training.launch import Launch
from springback.training.memory.activations import checkpointed_activations


def opposite_order(settings: AuditSettings) -> AuditSettings:
    """The rebound alone with both sides exchanged: unwanted first, then wanted."""
    return replace(
        settings,
        align=settings.perturb,
        perturb=settings.align,
        experiments=("rebound",),
        resistance_rows=0,
        attackers=(),
        controls=(),
        attack_learning_rates=(),
        attack_seeds=(),
        mix=(),
        mitigate=(),
    )


class Study(ProbeInputs):
    """What every run of an audit works with: beside what its probes need, data, model and store."""

    settings: AuditSettings
    like: Study | None

    def __init__(
        self,
        settings: AuditSettings,
        data: Data,
        store: Store,
        progress: Progress,
        like: Study | None = None,
        prompt_filter: PromptFilter | None = None,
    ) -> None:
        """``like``: the study whose opposite this is; they share the model.

        ``prompt_filter``: what the data was loaded with, for its tokenizer.
        """
        self.prompt_filter: PromptFilter = (
            like.prompt_filter if like else prompt_filter or PromptFilter(settings)
        )
        held_out = {"wanted": data.wanted, "unwanted": data.unwanted}
        super().__init__(
            settings,
            self.prompt_filter.checkpoint,
            self.prompt_filter.tokenizer,
            held_out,
            store.partials,
            like,
        )
        self.data, self.store, self.progress = data, store, progress
        self.timer = store.timer
        #: Turned round in the opposite order: what is wanted there is a low reward.
        self.sign = -1.0 if like else 1.0
        #: Runs that were asked for, and their ids, which take a hash of all their rows.
        self.identities: dict[Any, Run] = {}
        if settings.probe_processes > 1 and self.sharded:
            raise SpringbackError(
                describe(
                    f"--probe-processes {settings.probe_processes} with --accelerate "
                    f"{settings.accelerate} (FSDP), whose num_processes measure as well",
                    "one of the two, where weights are sharded",
                    "leave --probe-processes out",
                )
            )

    @cached_property
    def sharded(self) -> Launch | None:
        """The processes over which all weights lie, of what trains as of what measures.

        Then no weights are in this one's memory.  None where a process holds whole models: without
        FSDP, with adapters, and of files that hold tensors in another form (merged experts).
        """
        launch = sharding(self.settings)
        return launch if launch and can_be_sharded(self.checkpoint) else None

    @cached_property
    def start(self) -> AnyModel:
        if self.like:
            return self.like.start
        if self.sharded:
            return self._stored(self.checkpoint)
        model = in_memory(super().start)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise SpringbackError(
                f"--device-map auto puts weights of {self.settings.model} where they cannot be "
                "trained, in memory or on disk beside the GPUs; allowed: models that the GPUs hold "
                "four times; take a smaller one"
            )
        return model

    @cached_property
    def base(self) -> AnyModel:
        if not self.sharded:
            return super().base
        if not can_be_sharded(self.base_checkpoint):
            given = f"--base {self.settings.base}, whose files hold tensors in another form"
            allowed = "tensors as they are computed with, to be sharded (--accelerate, FSDP)"
            raise SpringbackError(describe(given, allowed, "save it with save_pretrained"))
        return self._stored(self.base_checkpoint)

    def _stored(self, checkpoint: Checkpoint) -> StoredModel:
        assert self.place.dtype is not None  # audit_placement
        return StoredModel(checkpoint, self.place.dtype)

    @cached_property
    def trained(self) -> tuple[Model, Lora | None]:
        """The model that gets trained, and the adapter in it where the settings ask for one.

        Below an adapter lie the start model's own weights, which nothing changes: held once.
        """
        if self.like:
            return self.like.trained
        start = in_memory(self.start)
        with self.timer.part("loading"):
            model = view_of(start) if self.settings.lora_rank else copy.deepcopy(start)
        if self.settings.lora_rank:
            return model, add_lora(model, self.settings.recipe(0))
        whole: Any = model
        whole.float()  # what is trained, whatever is measured
        return model, None

    @cached_property
    def meter(self) -> Measures:
        """As of any study, or in the processes that shard the weights."""
        start = self.start
        if self.like or self.sharded is None or not isinstance(start, StoredModel):
            return super().meter
        shared = (self.tokenizer, self.precision, self.sharded)
        return ShardedMeter(start, *shared, self.folder, self.timer)

    @cached_property
    def work(self) -> AnyModel:
        """The working model, which is trained and measured."""
        if self.like:
            return self.like.work
        if not self.sharded:
            return self.trained[0]
        require_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(".tmp", ".trained-", self.folder))
        return replace(self._stored(self.checkpoint), folder=folder)

    def close(self) -> None:
        """Also of the weights that were trained last, where they lie in a file."""
        super().close()
        work = self.__dict__.get("work")
        if isinstance(work, StoredModel) and work.folder is not None and not self.like:
            shutil.rmtree(work.folder, ignore_errors=True)
            del self.work

    def opposite(self) -> Study:
        """The same study in the opposite order: unwanted first, then wanted (symmetry)."""
        settings = opposite_order(self.settings)
        data = load_data(settings, self.prompt_filter, opposite=True)
        return Study(settings, data, self.store, self.progress, like=self)

    @cached_property
    def words(self) -> dict[str, ProbeInfo]:
        """Title, unit and direction of every probe."""
        return registry.infos(self)

    def measure(self, model: AnyModel, aligned: Path | None = None) -> dict[str, ProbeValue]:
        """Every probe of the study on one model, which comes from the branch point ``aligned``."""
        return registry.measure(self, model, aligned)

    def probe_inputs(self) -> dict[str, Any]:
        """What a measurement depends on besides the model: part of every run's id."""
        s = self.settings
        return {
            **registry.identity(self),
            **self.stop_inputs,
            "start": self.checkpoint.content_hash,
            "wanted": self.data.wanted.content_hash,
            "unwanted": self.data.unwanted.content_hash,
            "probes": s.probes,
            "probe_precision": s.probe_precision,
            "prompts": [s.prompts, s.prompt_tokens, s.sample_tokens],
        }

    @timed("training")
    def train(
        self,
        run: Run,
        rows: Sequence[Encoded] | Examples,
        recipe: Recipe,
        marks: Marks | None = None,
    ) -> Trained:
        """Fine-tune the working model, resuming the run's partial state if there is one."""
        resume = Resume(self.store.partial(run), self.settings.save_every, self.timer)
        require_space(self.store.root, 4 * self.weight_bytes, "the state that a run resumes from")
        less = self.settings.checkpoint_activations
        if self.settings.accelerate is not None:
            assert not isinstance(rows, Examples)  # check_settings: sft only
            launch = self.sharded or read_launch(self.settings.accelerate)
            return finetune_apart(
                self.work,
                self.checkpoint,
                self.tokenizer.pad_token_id,
                rows,
                recipe,
                replace(launch, checkpoint_activations=less),
                resume,
                marks,
                self.progress,
            )
        model = in_memory(self.work)
        with checkpointed_activations(model, less):
            return finetune(model, self.tokenizer, rows, recipe, marks, resume, self.progress)

    @cached_property
    def reward(self) -> probes.Scorer:
        """What RLOO maximises when aligning."""
        scorer = probes.load_scorer(self.settings.reward)
        if scorer.gaps:
            raise SpringbackError(
                f"--reward is {self.settings.reward}, which may leave a text without a score; "
                "allowed: what scores every text here; take another of these"
            )
        return scorer

    def examples(self, part: Slice, recipe: Recipe, phase: str) -> Sequence[Encoded] | Examples:
        """``part`` in the form that the recipe's algorithm learns from.

        ``phase``: ``align``, ``perturb`` or ``again``; it says which rows are learned against, and
        which way the reward points.  Rows of ``attack`` bring what they are learned against.
        """
        cut, tokenizer = recipe.max_tokens, self.tokenizer
        learns = ALGORITHMS[recipe.algorithm].learns
        if learns == "rows":
            return self.encode(part)
        if learns == "prompts":
            sign = -self.sign if phase in ("perturb", "attack") else self.sign
            rows = encode_prompts(tokenizer, part.rows, self.settings.prompt_tokens)
            name = f"{sign:+g} {self.reward.identity}"
            ends = stop_ids(tokenizer, self.sampled_row)
            reward = partial(_signed, self.reward, sign)
            return Examples(rows, reward=reward, name=name, stop_ids=ends)
        other = self._against(phase, recipe.seed).rows if phase != "attack" else _rejected(part)
        if learns == "labelled":
            # As many rows as part has, half of them the other side's.
            ours, theirs = part.rows[: -(-len(part) // 2)], other[: len(part) // 2]
            return Examples(encode_labelled(tokenizer, labelled_rows(ours, theirs), cut))
        pairs = preference_rows(part.rows, other[: len(part)])
        return Examples(encode_preferences(tokenizer, pairs, cut))

    def example_inputs(self, recipe: Recipe, phase: str) -> dict[str, Any]:
        """What :meth:`examples` depends on besides the rows: part of the run's id."""
        learns = ALGORITHMS[recipe.algorithm].learns
        if learns == "rows" or (phase == "attack" and learns != "prompts"):
            return {}
        if learns == "prompts":
            return {"reward": self.reward.identity, "prompt_tokens": self.settings.prompt_tokens}
        return {"against": self._against(phase, recipe.seed).content_hash}

    def _against(self, phase: str, seed: int) -> Slice:
        """The other side's rows that a preference algorithm learns against."""
        side = "align" if phase == "perturb" else "perturb"
        return self.data.reserved(side, f"against {phase}", seed)

    @cached_property
    def weight_bytes(self) -> int:
        return 4 * count_parameters(self.checkpoint)

    @timed("loading")
    def reset(self, seed: int, weights: Path | None = None) -> AnyModel:
        """The working model as the start model, or with the weights of a branch point.

        ``seed``: of a fresh adapter's random half, where one is trained.
        """
        work = self.work
        if isinstance(work, StoredModel):
            work.file = weights / WEIGHTS_FILE if weights is not None else None
        elif weights is not None:
            load_weights(work, weights)
        elif self.settings.lora_rank:
            adapter = self.trained[1]
            assert adapter is not None
            reset_lora(adapter, seed)
        else:
            copy_weights(in_memory(self.start), work)
        return work


@timed("saving")
def keep_weights(study: Study, model: AnyModel, folder: Path) -> None:
    """Write what the model trained, for runs that start from there."""
    if isinstance(model, StoredModel):
        model.keep(folder)
    else:
        save_weights(model, folder)


def _rejected(part: Slice) -> tuple[Row, ...]:
    """The answers that the rows are preferred to, as rows."""
    return tuple(replace(row, response=row.rejected or "", rejected=None) for row in part.rows)


def _signed(
    scorer: probes.Scorer, sign: float, prompts: list[str], texts: list[str]
) -> list[float]:
    return [sign * score for score in scorer.score(prompts, texts)]
