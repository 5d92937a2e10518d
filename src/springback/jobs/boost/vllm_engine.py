"""A boost's arms by vLLM, in a process of its own environment: one engine for the whole boost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from springback.core import Checkpoint
from springback.decoding import DecodeSettings
from springback.errors import ModelError, describe
from springback.integrations.vllm.client import Place, Weights, Worker
from springback.integrations.vllm.environment import find_python
from springback.jobs.boost.arm import at_of
from springback.jobs.boost.batches import MOST
from springback.jobs.boost.engine import VLLM
from springback.jobs.boost.settings import BoostSettings
from springback.models.checkpoint_pair import At, ModelPair
from springback.models.encoding import Encoded
from springback.models.placement import dtype_name
from springback.models.stored_line import computing
from springback.probes import TextNLL
from springback.probes.along_mu import along_mu
from springback.progress import Progress
from springback.results.timing import Timer, timed
from springback.weights import hash_weights
from springback.weights.io.folder import open_weights
from springback.weights.span import on_line


class VllmEngine:
    """An :class:`springback.jobs.boost.engine.Engine`: expert and weak model as one model of
    vLLM's, whose weights are set anew for each mu and weak model.

    The worker begins when something is first decoded or scored, so that a finished boost starts
    none.
    """

    def __init__(
        self,
        settings: BoostSettings,
        line: Sequence[Checkpoint],
        sweep: ModelPair,
        weak: Mapping[str, Checkpoint],
        timer: Timer,
    ) -> None:
        """``weak``: models beside the pair by their name in an arm.

        Raises :class:`ModelError` for a weak model that cannot stand in the pair's place.
        """
        self.line, self.sweep, self.weak = tuple(line), sweep, dict(weak)
        self.timer = timer
        self.alpha = settings.alpha
        self.rows = MOST if settings.batch_size == "auto" else settings.batch_size
        self.python = find_python(settings.vllm_python)
        self.adapters = self.ft.adapter is not None
        for name, checkpoint in self._other_models():
            self._require_alike(name, checkpoint)
        self._worker: Worker | None = None

    @property
    def ft(self) -> Checkpoint:
        return self.line[-1]

    def _other_models(self) -> Iterator[tuple[str, Checkpoint]]:
        yield from self.weak.items()
        if not self.adapters:
            yield "early", self.line[-2]

    def _require_alike(self, name: str, checkpoint: Checkpoint) -> None:
        """Raise unless the checkpoint's weights fit the fine-tuned model's place."""
        if self.adapters:
            base = hash_weights(self.ft.path)
            fits = checkpoint.adapter is None and checkpoint.content_hash == base
            allowed = "the base of the adapters"
        else:
            configs = [computing(open_weights(c.path)) for c in (checkpoint, self.ft)]
            fits, allowed = configs[0] == configs[1], "a model of the fine-tuned one's config"
        if not fits:
            raise ModelError(
                describe(
                    f"{checkpoint.path} as the weak model '{name}' with --engine vllm",
                    allowed,
                    "leave it out, or use --engine transformers",
                )
            )

    def inputs(self) -> dict[str, Any]:
        return {"engine": VLLM}

    def describe(self) -> dict[str, Any]:
        """``nll`` says that solutions were scored by vLLM too: by log-probabilities of prompts."""
        return {"engine": f"vLLM {self.python.version}", "nll": "prompt log-probabilities"}

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def decode(
        self,
        key: Mapping[str, Any],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        done: Callable[[int], None],
    ) -> list[list[int]]:
        return self.decode_each([key], prompts, replace(how, lam=0.0), None, done)[0]

    def decode_each(
        self,
        keys: Sequence[Mapping[str, Any]],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        known: list[list[int]] | None,
        done: Callable[[int], None],
    ) -> list[list[list[int]]]:
        """All lambdas in one batch; what is likely to be the answer saves nothing here."""
        worker, lams = self._placed(keys), [float(key["lam"]) for key in keys]
        finished = 0

        def told(answers: int) -> None:  # of all arms, where a question counts once
            nonlocal finished
            before, finished = finished // len(lams), finished + answers
            done(finished // len(lams) - before)

        answers: list[list[list[int]]] = worker.ask(
            "decode",
            told,
            prompts=[list(prompt) for prompt in prompts],
            lams=lams,
            alpha=how.alpha,
            max_new_tokens=how.max_new_tokens,
            stop_ids=list(how.stop_ids),
        )
        return answers

    @timed("scoring")
    def text_nll(
        self, keys: Sequence[Mapping[str, Any]], texts: Sequence[Encoded], kept: str | None = None
    ) -> list[list[TextNLL]]:
        worker = self._placed(keys)
        asked = [[list(text.ids), text.start] for text in texts]
        by_arm = []
        for key in keys:
            nats = worker.ask("score", texts=asked, lam=float(key["lam"]))
            scores = zip(nats, texts, strict=True)
            by_arm.append([TextNLL(n, text.counted, text.text_bytes) for n, text in scores])
        return by_arm

    def first_tokens(
        self,
        key: Mapping[str, Any],
        rows: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        kept: str | None = None,
    ) -> list[list[float]]:
        texts = [
            Encoded((*row.ids[: row.start], token), row.start, 0)
            for row, mine in zip(rows, tokens, strict=True)
            for token in mine
        ]
        scores = iter(self.text_nll([key], texts)[0])
        return [[-next(scores).nats for _ in mine] for mine in tokens]

    def nll_along_mu(self, rows: Sequence[Encoded], progress: Progress) -> dict[float, list[float]]:
        def scored(mu: float) -> list[TextNLL]:
            return self.text_nll([{"mu": mu, "lam": 0.0, "weak": None}], rows)[0]

        return along_mu(scored, progress=progress)

    @timed("loading")
    def _placed(self, keys: Sequence[Mapping[str, Any]]) -> Worker:
        """The worker with the models of these arms in their places."""
        key = keys[0]
        weak = None if key["weak"] is None else self._weak(key["weak"])
        if self._worker is None:
            self._worker = self._begun()
        self._worker.place(Place(self._strong(at_of(key)), weak))
        return self._worker

    def _strong(self, at: At) -> Weights:
        point = at if isinstance(at, tuple) else on_line(at, len(self.line))
        if not any(point):
            return self._alone(self.ft)
        return Weights(tuple(map(self._folder, self.line)), point)

    def _weak(self, name: str) -> Weights:
        if name in ("ft", "early"):
            return self._alone(self.line[-1 if name == "ft" else -2])
        if self.adapters:  # the base, whose adapter is none
            return Weights(())
        return self._alone(self.weak[name])

    def _alone(self, checkpoint: Checkpoint) -> Weights:
        return Weights((self._folder(checkpoint),))

    def _folder(self, checkpoint: Checkpoint) -> str:
        return str(checkpoint.adapter if self.adapters else checkpoint.path)

    def _begun(self) -> Worker:
        dtype = self.sweep.place.dtype
        assert dtype is not None
        return Worker(
            self.python.path,
            model=str(self.ft.path),
            adapters=[str(c.adapter) for c in self.line[-2:]] if self.adapters else [],
            dtype=dtype_name(dtype),
            rows=self.rows,
            alpha=self.alpha,
        )
