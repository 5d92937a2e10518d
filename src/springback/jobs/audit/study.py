"""One audit in one process: the start model, its data, the probes, the store of finished runs."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Checkpoint, Recipe, Run, Slice
from springback.data import load_slice
from springback.jobs.audit import battery
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.rows import Data, PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import (
    Model,
    Tokenizer,
    copy_weights,
    count_parameters,
    load_model,
    load_weights,
)
from springback.probes import Meter, Precision, SampleSettings, SharedMeter, Workers
from springback.probes.rates import RateSet, rate_set
from springback.progress import Progress
from springback.results.store import Store, require_space
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


def opposite_order(settings: AuditSettings) -> AuditSettings:
    """The rebound alone with both sides exchanged: unwanted first, then wanted."""
    return replace(
        settings,
        align=settings.perturb,
        perturb=settings.align,
        experiments=("rebound",),
        resistance_rows=0,
        attack_learning_rates=(),
        attack_seeds=(),
        mix=(),
        mitigate=(),
    )


class Study:
    """What every run of an audit works with."""

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
        self.settings, self.data, self.store, self.progress = settings, data, store, progress
        self.like = like
        self.prompt_filter: PromptFilter = (
            like.prompt_filter if like else prompt_filter or PromptFilter(settings)
        )
        self.checkpoint: Checkpoint = self.prompt_filter.checkpoint
        self.tokenizer: Tokenizer = self.prompt_filter.tokenizer
        self.precision = Precision(settings.probe_precision)
        self.encoded = {
            part: encode_rows(self.tokenizer, rows.rows, settings.max_tokens)
            for part, rows in (("wanted", data.wanted), ("unwanted", data.unwanted))
        }
        self.prompts = self._prompts()
        #: Turned round in the opposite order: what is wanted there is a low reward.
        self.sign = -1.0 if like else 1.0
        #: Runs that were asked for, and their ids, which take a hash of all their rows.
        self.identities: dict[Any, Run] = {}

    @cached_property
    def start(self) -> Model:
        """The start model, loaded when first needed: a plan does without."""
        return self.like.start if self.like else load_model(self.checkpoint)

    @cached_property
    def trained(self) -> tuple[Model, Lora | None]:
        """The model that gets trained, and the adapter in it where the settings ask for one."""
        if self.like:
            return self.like.trained
        model = copy.deepcopy(self.start)
        rank = self.settings.lora_rank
        return model, add_lora(model, self.settings.recipe(0)) if rank else None

    @property
    def work(self) -> Model:
        return self.trained[0]

    def opposite(self) -> Study:
        """The same study in the opposite order: unwanted first, then wanted (symmetry)."""
        settings = opposite_order(self.settings)
        data = load_data(settings, self.prompt_filter)
        return Study(settings, data, self.store, self.progress, like=self)

    def _prompts(self) -> list[list[int]]:
        """Beginnings of held-out texts, half wanted and half unwanted, or prompts of pairs."""
        rows = [r for pair in zip(*self.encoded.values(), strict=True) for r in pair]
        return [list(self.beginning(r)) for r in rows[: self.settings.prompts]]

    def beginning(self, row: Encoded) -> Sequence[int]:
        """What a continuation of ``row`` is sampled from: its prompt, or first words of a text.

        Texts that all answer one prompt give their first words beside it.
        """
        s = self.settings
        if row.start == 1:
            return row.ids[: s.prompt_tokens]
        return row.ids[: row.start + (s.prompt_tokens if s.prompt is not None else 0)]

    def sampling(self, seed: int, exact_length: bool = False) -> SampleSettings:
        return SampleSettings(
            new_tokens=self.settings.sample_tokens, seed=seed, exact_length=exact_length
        )

    @cached_property
    def meter(self) -> Meter:
        """What measures a model: here, or in the processes that the settings ask for."""
        if self.like:
            return self.like.meter
        given = (self.start, self.tokenizer, self.precision)
        count = self.settings.probe_processes
        if count == 1:
            return Meter(*given)
        return SharedMeter(*given, Workers(count, self.checkpoint, self.store.partials))

    def close(self) -> None:
        """End the processes that measure, if there are any."""
        if "meter" in self.__dict__ and not self.like:
            self.meter.close()
            del self.meter

    @cached_property
    def start_texts(self) -> list[Encoded]:
        """The prompts with continuations sampled from the start model once, for its KL."""
        held = self.meter.model
        self.meter.hold(self.start)
        found = self.meter.sample(self.prompts, self.sampling(0, exact_length=True))
        self.meter.hold(held)
        return probes.continued(self.prompts, found)

    def sampled(self) -> list[str]:
        """A continuation of every prompt, as text; the same noise for every model."""
        ids = self.meter.sample(self.prompts, self.sampling(1))
        return [self.tokenizer.decode(i, skip_special_tokens=True) for i in ids]

    @cached_property
    def scorer(self) -> probes.Scorer | None:
        """What scores sampled texts in the probe ``behaviour``."""
        wanted = "behaviour" in self.settings.probes
        return probes.load_scorer(self.settings.behaviour or "") if wanted else None

    @cached_property
    def words(self) -> dict[str, battery.Words]:
        """Title, unit and direction of every probe."""
        return battery.words(self.settings, self.scorer)

    @cached_property
    def neutral(self) -> Slice:
        s = self.settings
        return load_slice(s.neutral, limit=s.utility_rows, split="test")

    @cached_property
    def pretraining(self) -> Slice:
        s = self.settings
        return load_slice(s.pretraining, limit=s.utility_rows, split="test")

    @cached_property
    def rate_sets(self) -> dict[str, RateSet]:
        """The three sets whose rates are followed, with the leaves of their pruned trees."""
        rows = {
            "pretraining": self.encode(self.pretraining),
            "aligning": self.encoded["wanted"],
            "perturbing": self.encoded["unwanted"],
        }
        return {name: rate_set(r, self.settings.rate_depth) for name, r in rows.items()}

    @cached_property
    def choices(self) -> Slice:
        s = self.settings
        return load_slice(s.choices, limit=s.utility_rows, split="test")

    def measure(self, model: Model, aligned: Path | None = None) -> dict[str, dict[str, Any]]:
        """Every probe of the study on one model (:func:`springback.jobs.audit.battery.measure`)."""
        return battery.measure(self, model, aligned)

    def noise_floor(self, measured: dict[str, dict[str, Any]]) -> dict[str, float]:
        """How much scoring itself moves: the start model again, in batches of another size.

        ``margin`` is the absolute difference of the two scorings (nats a token), ``kl`` the KL of
        the first scoring to the second, ``margin_se`` the standard error from the choice of texts.
        """
        other = replace(self.precision, batch_tokens=self.precision.batch_tokens // 3)
        again = [
            probes.nll(self.start, self.encoded[part], self.tokenizer, other)
            for part in ("wanted", "unwanted")
        ]
        texts = [measured["margin"][part] for part in ("wanted", "unwanted")]
        floor = {
            "margin": abs(probes.margin(*again) - measured["margin"]["value"]),
            "margin_se": math.sqrt(sum(statistics.variance(t) / len(t) for t in texts)),
        }
        if "kl" in measured:
            again_kl = self.meter.kl_to_itself(self.start_texts)
            floor["kl"] = abs(sum(again_kl) / len(again_kl))
        return floor

    def probe_inputs(self) -> dict[str, Any]:
        """What a measurement depends on besides the model: part of every run's id."""
        s = self.settings
        more: dict[str, Any] = {}
        if self.scorer is not None:
            more["behaviour"] = self.scorer.identity
        if "neutral_nll" in s.probes:
            more["neutral"] = self.neutral.content_hash
        if "choice" in s.probes:
            more["choices"] = self.choices.content_hash
        if "rates" in s.probes:
            more["pretraining"] = self.pretraining.content_hash
            more["rate_depth"] = s.rate_depth
        return {
            **more,
            "start": self.checkpoint.content_hash,
            "wanted": self.data.wanted.content_hash,
            "unwanted": self.data.unwanted.content_hash,
            "probes": s.probes,
            "probe_precision": s.probe_precision,
            "prompts": [s.prompts, s.prompt_tokens, s.sample_tokens],
        }

    def train(
        self,
        run: Run,
        rows: Sequence[Encoded] | Examples,
        recipe: Recipe,
        marks: Marks | None = None,
    ) -> Trained:
        """Fine-tune the working model, resuming the run's partial state if there is one."""
        resume = Resume(self.store.partial(run), self.settings.save_every)
        require_space(self.store.root, 4 * self.weight_bytes, "the state that a run resumes from")
        if self.settings.accelerate is not None:
            assert not isinstance(rows, Examples)  # check_settings: sft only
            return finetune_apart(
                self.work,
                self.checkpoint,
                self.tokenizer.pad_token_id,
                rows,
                recipe,
                read_launch(self.settings.accelerate),
                self.store.partial(run),
                marks,
                self.progress,
            )
        return finetune(self.work, self.tokenizer, rows, recipe, marks, resume, self.progress)

    @cached_property
    def reward(self) -> probes.Scorer:
        """What RLOO maximises when aligning."""
        return probes.load_scorer(self.settings.reward)

    def examples(self, part: Slice, recipe: Recipe, phase: str) -> Sequence[Encoded] | Examples:
        """``part`` in the form that the recipe's algorithm learns from.

        ``phase``: ``align``, ``perturb`` or ``again``; it says which rows are learned against, and
        which way the reward points.
        """
        cut, tokenizer = recipe.max_tokens, self.tokenizer
        if recipe.algorithm == "sft":
            return self.encode(part)
        if recipe.algorithm == "rloo":
            sign = -self.sign if phase == "perturb" else self.sign
            rows = encode_prompts(tokenizer, part.rows, self.settings.prompt_tokens)
            name = f"{sign:+g} {self.reward.identity}"
            return Examples(rows, reward=partial(_signed, self.reward, sign), name=name)
        other = self._against(phase, recipe.seed).rows
        if recipe.algorithm == "kto":
            # As many rows as part has, half of them the other side's.
            ours, theirs = part.rows[: -(-len(part) // 2)], other[: len(part) // 2]
            return Examples(encode_labelled(tokenizer, labelled_rows(ours, theirs), cut))
        pairs = preference_rows(part.rows, other[: len(part)])
        return Examples(encode_preferences(tokenizer, pairs, cut))

    def example_inputs(self, recipe: Recipe, phase: str) -> dict[str, Any]:
        """What :meth:`examples` depends on besides the rows: part of the run's id."""
        if recipe.algorithm == "sft":
            return {}
        if recipe.algorithm == "rloo":
            return {"reward": self.reward.identity, "prompt_tokens": self.settings.prompt_tokens}
        return {"against": self._against(phase, recipe.seed).content_hash}

    def _against(self, phase: str, seed: int) -> Slice:
        """The other side's rows that a preference algorithm learns against."""
        side = "align" if phase == "perturb" else "perturb"
        return self.data.reserved(side, f"against {phase}", seed)

    def encode(self, part: Slice) -> list[Encoded]:
        return encode_rows(self.tokenizer, part.rows, self.settings.max_tokens)

    @cached_property
    def weight_bytes(self) -> int:
        return 4 * count_parameters(self.checkpoint)

    def reset(self, seed: int, weights: Path | None = None) -> Model:
        """The working model as the start model, or with the weights of a branch point.

        ``seed``: of a fresh adapter's random half, where one is trained.
        """
        if weights is not None:
            load_weights(self.work, weights)
        elif self.trained[1] is not None:
            reset_lora(self.trained[1], seed)
        else:
            copy_weights(self.start, self.work)
        return self.work


def _signed(
    scorer: probes.Scorer, sign: float, prompts: list[str], texts: list[str]
) -> list[float]:
    return [sign * score for score in scorer.score(prompts, texts)]
