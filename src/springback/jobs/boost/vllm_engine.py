"""A boost's arms by vLLM, in a process of its own environment: one engine for the whole boost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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
from springback.jobs.boost.transformers_engine import TransformersEngine
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
from springback.weights.span import on_line, shares_of


class VllmEngine:
    """An :class:`springback.jobs.boost.engine.Engine`: expert and weak model as one model of
    vLLM's, whose weights are set anew for each mu and weak model.  Of adapters every request says
    how those of the line are weighed, so that any arms are decoded together.

    Given texts are scored by prompt log-probabilities on a GPU, a pass of both models for each
    lambda.  On a CPU, where a pass takes as long as the decoding, Transformers scores them in the
    same dtype: all lambdas of a mu in one pass, and the weak model once for every mu.

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
        self.mixes = self.adapters = self.ft.adapter is not None
        for name, checkpoint in self._other_models():
            self._require_alike(name, checkpoint)
        self._worker: Worker | None = None
        self._scorer = _scorer(sweep, weak, timer)

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
        """``nll`` says what scored given texts."""
        nll = "Transformers" if self._scorer else "prompt log-probabilities"
        return {"engine": f"vLLM {self.python.version}", "nll": nll}

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
        answers: list[list[int]] = []
        how = replace(how, lam=0.0)
        self.decode_each([key], prompts, how, None, done, lambda _, ids: answers.extend(ids))
        return answers

    def decode_each(
        self,
        keys: Sequence[Mapping[str, Any]],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        known: list[list[int]] | None,
        done: Callable[[int], None],
        take: Callable[[int, list[list[int]]], None],
    ) -> None:
        """All arms at once; what is likely to be the answer saves nothing here."""
        worker, lams = self._placed(keys), [float(key["lam"]) for key in keys]
        places = [asdict(self._place(key)) for key in keys] if self.mixes else None
        finished = 0

        def told(answers: int) -> None:  # of all arms, where a question counts once
            nonlocal finished
            before, finished = finished // len(lams), finished + answers
            done(finished // len(lams) - before)

        worker.ask(
            "decode",
            told,
            part=lambda arm: take(*arm),
            prompts=[list(prompt) for prompt in prompts],
            lams=lams,
            alpha=how.alpha,
            max_new_tokens=how.max_new_tokens,
            stop_ids=list(how.stop_ids),
            places=places,
        )

    def text_nll(
        self, keys: Sequence[Mapping[str, Any]], texts: Sequence[Encoded], kept: str | None = None
    ) -> list[list[TextNLL]]:
        if self._scorer:
            return self._scorer.text_nll(keys, texts, kept)
        return self._prompt_nll(keys, texts)

    @timed("scoring")
    def _prompt_nll(
        self, keys: Sequence[Mapping[str, Any]], texts: Sequence[Encoded]
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
        if self._scorer:
            return self._scorer.first_tokens(key, rows, tokens, kept)
        texts = [
            Encoded((*row.ids[: row.start], token), row.start, 0)
            for row, mine in zip(rows, tokens, strict=True)
            for token in mine
        ]
        scores = iter(self.text_nll([key], texts)[0])
        return [[-next(scores).nats for _ in mine] for mine in tokens]

    def nll_along_mu(self, rows: Sequence[Encoded], progress: Progress) -> dict[float, list[float]]:
        if self._scorer:
            return self._scorer.nll_along_mu(rows, progress)

        def scored(mu: float) -> list[TextNLL]:
            return self.text_nll([{"mu": mu, "lam": 0.0, "weak": None}], rows)[0]

        return along_mu(scored, progress=progress)

    @timed("loading")
    def _placed(self, keys: Sequence[Mapping[str, Any]]) -> Worker:
        """The worker with the models of the first of these arms in their places."""
        if self._worker is None:
            self._worker = self._begun()
        self._worker.place(self._place(keys[0]))
        return self._worker

    def _place(self, key: Mapping[str, Any]) -> Place:
        weak = None if key["weak"] is None else self._weak(key["weak"])
        return Place(self._strong(at_of(key)), weak)

    def _strong(self, at: At) -> Weights | tuple[float, ...]:
        point = at if isinstance(at, tuple) else on_line(at, len(self.line))
        if self.adapters:
            return shares_of(point)
        if not any(point):
            return _alone(self.ft)
        return Weights(tuple(str(c.path) for c in self.line), point)

    def _weak(self, name: str) -> Weights | tuple[float, ...]:
        named = {"ft": self.line[-1], "early": self.line[-2]}.get(name)
        if self.adapters:  # none of them: the base
            return tuple(float(c is named) for c in self.line)
        return _alone(named or self.weak[name])

    def _begun(self) -> Worker:
        dtype = self.sweep.place.dtype
        assert dtype is not None
        return Worker(
            self.python.path,
            model=str(self.ft.path),
            adapters=[str(c.adapter) for c in self.line] if self.adapters else [],
            dtype=dtype_name(dtype),
            rows=self.rows,
            alpha=self.alpha,
        )


def _alone(checkpoint: Checkpoint) -> Weights:
    return Weights((str(checkpoint.path),))


def _scorer(
    sweep: ModelPair, weak: Mapping[str, Checkpoint], timer: Timer
) -> TransformersEngine | None:
    """What scores given texts in vLLM's stead; None where vLLM does."""
    if sweep.place.device.type == "cpu":
        return TransformersEngine(sweep, weak, timer)
    return None
