"""One audit in one process: the start model, its data, the probes, the store of finished runs."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Run, Slice
from springback.encode import Encoded, encode_rows
from springback.finetune import Marks, Resume, Trained, finetune
from springback.jobs.audit_data import Data
from springback.jobs.settings import AuditSettings
from springback.models import (
    Model,
    Tokenizer,
    copy_weights,
    load_model,
    load_tokenizer,
    load_weights,
    resolve,
    training_speed,
)
from springback.probes import Precision, SampleSettings, StartDistribution
from springback.progress import Progress
from springback.store import Store, require_space


class Study:
    """What every run of an audit works with.  ``work`` is the model that gets trained."""

    def __init__(
        self, settings: AuditSettings, data: Data, store: Store, progress: Progress
    ) -> None:
        self.settings, self.data, self.store, self.progress = settings, data, store, progress
        self.checkpoint = resolve(settings.model, settings.revision)
        self.tokenizer: Tokenizer = load_tokenizer(self.checkpoint)
        self.start: Model = load_model(self.checkpoint)
        self.work: Model = copy.deepcopy(self.start)
        self.precision = Precision(settings.probe_precision)
        self.encoded = {
            part: encode_rows(self.tokenizer, rows.rows, settings.max_tokens)
            for part, rows in (("wanted", data.wanted), ("unwanted", data.unwanted))
        }
        self.prompts = self._prompts()
        self._distribution: StartDistribution | None = None

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

    def measure(self, model: Model) -> dict[str, dict[str, Any]]:
        """Every probe of the study on one model: value, and the per-example values."""
        found: dict[str, dict[str, Any]] = {}
        wanted = probes.nll(model, self.encoded["wanted"], self.tokenizer, self.precision)
        unwanted = probes.nll(model, self.encoded["unwanted"], self.tokenizer, self.precision)
        found["margin"] = {
            "value": probes.margin(wanted, unwanted),
            "wanted": [s.per_token for s in wanted],
            "unwanted": [s.per_token for s in unwanted],
        }
        if "bits_per_byte" in self.settings.probes:
            value = probes.bits_per_byte([*wanted, *unwanted])
            found["bits_per_byte"] = {
                "value": value,
                "wanted": probes.bits_per_byte(wanted),
                "unwanted": probes.bits_per_byte(unwanted),
            }
        if "kl" in self.settings.probes:
            each = self.distribution.kl(model)
            found["kl"] = {"value": sum(each) / len(each), "per_example": each}
        if "sentiment" in self.settings.probes:
            ids = probes.sample(model, self.tokenizer, self.prompts, self.sampling(1))
            texts = [self.tokenizer.decode(i, skip_special_tokens=True) for i in ids]
            scores = probes.sentiment(texts)
            found["sentiment"] = {"value": sum(scores) / len(scores), "per_example": scores}
        return found

    def announce(self) -> None:
        """Say what will be done, how long it takes, and the memory and disk it needs."""
        s, seeds = self.settings, len(self.settings.seeds)
        encoded = [r for rows in self.encoded.values() for r in rows]
        length = sum(len(r.ids) for r in encoded) / len(encoded)
        rows = max(s.n_pos) + len(s.n_pos) * max(s.doses)
        sampled = s.prompt_tokens + s.sample_tokens
        trained = rows * length + s.resistance_rows * (3 * length + 6 * sampled)
        scored = (1 + len(s.n_pos) * (1 + len(s.doses))) * (
            2 * s.holdout * length + 3 * s.prompts * sampled
        )
        speed = training_speed(self.start, s.precision)
        memory = 14 * self.weight_bytes / 1e9 + 1  # the demo's peak is 8.9 GB (docs/results)
        seconds = seeds * (trained / speed + scored / speed) + 30
        require_space(self.store.root, (len(s.n_pos) + 6) * self.weight_bytes, "this audit")
        self.progress.note(
            f"audit of {s.model}: {seeds} seed(s) {list(s.seeds)}; align on {list(s.n_pos)} rows "
            f"of {s.align}, perturb with up to {max(s.doses)} rows of {s.perturb}"
        )
        if seeds == 1:
            self.progress.note("one seed: values come without intervals across seeds")
        self.progress.note(
            f"about {max(1, round(seconds / 60))} min, {memory:.1f} GB of "
            f"memory, {(len(s.n_pos) + 6) * self.weight_bytes / 1e9:.1f} GB of disk at the most; "
            "stop it at any time, the same command goes on"
        )

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
        return {
            "start": self.checkpoint.content_hash,
            "wanted": self.data.wanted.content_hash,
            "unwanted": self.data.unwanted.content_hash,
            "probes": s.probes,
            "probe_precision": s.probe_precision,
            "prompts": [s.prompts, s.prompt_tokens, s.sample_tokens],
        }

    def train(self, run: Run, rows: list[Encoded], marks: Marks | None = None) -> Trained:
        """Fine-tune the working model, resuming the run's partial state if there is one."""
        resume = Resume(self.store.partial(run), self.settings.save_every)
        require_space(self.store.root, 4 * self.weight_bytes, "the state that a run resumes from")
        recipe = self.settings.recipe(int(run.inputs["seed"]))
        return finetune(self.work, self.tokenizer, rows, recipe, marks, resume, self.progress)

    def encode(self, part: Slice) -> list[Encoded]:
        return encode_rows(self.tokenizer, part.rows, self.settings.max_tokens)

    @property
    def weight_bytes(self) -> int:
        return 4 * int(self.start.num_parameters())

    def reset(self, weights: Path | None = None) -> Model:
        """The working model with the start model's weights, or with those of a branch point."""
        if weights is None:
            copy_weights(self.start, self.work)
        else:
            load_weights(self.work, weights)
        return self.work
