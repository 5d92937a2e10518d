"""One audit in one process: the start model, its data, the probes, the store of finished runs."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Checkpoint, Run, Slice
from springback.encode import Encoded, encode_rows
from springback.finetune import Marks, Resume, Trained, finetune
from springback.jobs import battery
from springback.jobs.audit_data import Data, load_data
from springback.jobs.settings import AuditSettings
from springback.models import (
    Model,
    Tokenizer,
    copy_weights,
    count_parameters,
    load_model,
    load_tokenizer,
    load_weights,
    resolve,
)
from springback.probes import Precision, SampleSettings, StartDistribution
from springback.progress import Progress
from springback.slices import load_slice
from springback.store import Store, require_space


class Study:
    """What every run of an audit works with."""

    def __init__(
        self,
        settings: AuditSettings,
        data: Data,
        store: Store,
        progress: Progress,
        like: Study | None = None,
    ) -> None:
        """``like``: a study of the same model, whose weights this one uses."""
        self.settings, self.data, self.store, self.progress = settings, data, store, progress
        self.like = like
        self.checkpoint: Checkpoint = (
            like.checkpoint if like else resolve(settings.model, settings.revision)
        )
        self.tokenizer: Tokenizer = like.tokenizer if like else load_tokenizer(self.checkpoint)
        self.precision = Precision(settings.probe_precision)
        self.encoded = {
            part: encode_rows(self.tokenizer, rows.rows, settings.max_tokens)
            for part, rows in (("wanted", data.wanted), ("unwanted", data.unwanted))
        }
        self.prompts = self._prompts()
        self._distribution: StartDistribution | None = None

    @cached_property
    def start(self) -> Model:
        """The start model, loaded when first needed: a plan does without."""
        return self.like.start if self.like else load_model(self.checkpoint)

    @cached_property
    def work(self) -> Model:
        """The model that gets trained."""
        return self.like.work if self.like else copy.deepcopy(self.start)

    def opposite(self) -> Study:
        """The same study in the opposite order: unwanted first, then wanted (symmetry)."""
        s = self.settings
        settings = replace(
            s,
            align=s.perturb,
            perturb=s.align,
            experiments=("rebound",),
            resistance_rows=0,
            attack_learning_rates=(),
            mix=(),
        )
        return Study(settings, load_data(settings), self.store, self.progress, like=self)

    def _prompts(self) -> list[list[int]]:
        """Beginnings of held-out texts, half wanted and half unwanted, all of one length."""
        cut = self.settings.prompt_tokens
        rows = [r for pair in zip(*self.encoded.values(), strict=True) for r in pair]
        ids = [list(r.ids[: cut if r.start == 1 else r.start]) for r in rows]
        return ids[: self.settings.prompts]

    def sampling(self, seed: int, exact_length: bool = False) -> SampleSettings:
        return SampleSettings(
            new_tokens=self.settings.sample_tokens, seed=seed, exact_length=exact_length
        )

    @property
    def distribution(self) -> StartDistribution:
        """The start model's on the prompts with continuations sampled from it once."""
        if self._distribution is None:
            found = probes.sample(
                self.start, self.tokenizer, self.prompts, self.sampling(0, exact_length=True)
            )
            rows = [Encoded((*p, *c), len(p), 0) for p, c in zip(self.prompts, found, strict=True)]
            self._distribution = StartDistribution(self.start, rows, self.tokenizer, self.precision)
        return self._distribution

    def sampled(self, model: Model) -> list[str]:
        """A continuation of every prompt, as text; the same noise for every model."""
        ids = probes.sample(model, self.tokenizer, self.prompts, self.sampling(1))
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
    def choices(self) -> Slice:
        s = self.settings
        return load_slice(s.choices, limit=s.utility_rows, split="test")

    def measure(self, model: Model, aligned: Path | None = None) -> dict[str, dict[str, Any]]:
        """Every probe of the study on one model; see :func:`springback.jobs.battery.measure`."""
        return battery.measure(self, model, aligned)

    def noise_floor(self, measured: dict[str, dict[str, Any]]) -> dict[str, float]:
        """How much scoring itself moves: the start model again, in batches of another size.

        ``margin`` is the absolute difference of the two scorings (nats a token), ``kl`` the KL of
        the start model to itself, ``margin_se`` the standard error from the choice of texts.
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
            floor["kl"] = measured["kl"]["value"]
        return floor

    def probe_inputs(self) -> dict[str, Any]:
        """What a measurement depends on besides the model: part of every run's id."""
        s = self.settings
        more = {}
        if self.scorer is not None:
            more["behaviour"] = self.scorer.identity
        if "neutral_nll" in s.probes:
            more["neutral"] = self.neutral.content_hash
        if "choice" in s.probes:
            more["choices"] = self.choices.content_hash
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
        rows: list[Encoded],
        marks: Marks | None = None,
        learning_rate: float | None = None,
    ) -> Trained:
        """Fine-tune the working model, resuming the run's partial state if there is one."""
        resume = Resume(self.store.partial(run), self.settings.save_every)
        require_space(self.store.root, 4 * self.weight_bytes, "the state that a run resumes from")
        recipe = self.settings.recipe(int(run.inputs["seed"]), learning_rate)
        return finetune(self.work, self.tokenizer, rows, recipe, marks, resume, self.progress)

    def encode(self, part: Slice) -> list[Encoded]:
        return encode_rows(self.tokenizer, part.rows, self.settings.max_tokens)

    @cached_property
    def weight_bytes(self) -> int:
        return 4 * count_parameters(self.checkpoint)

    def reset(self, weights: Path | None = None) -> Model:
        """The working model with the start model's weights, or with those of a branch point."""
        if weights is None:
            copy_weights(self.start, self.work)
        else:
            load_weights(self.work, weights)
        return self.work
