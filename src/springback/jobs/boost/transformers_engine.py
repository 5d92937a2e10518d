"""A boost's arms by Transformers: the plain loop, or several lambdas at once, and likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from springback import probes
from springback.core import Checkpoint
from springback.decoding import DecodeSettings, decode, decode_variants
from springback.decoding.contrast import averaged, unmasked
from springback.jobs.boost.arm import at_of, gate_of
from springback.models.checkpoint_pair import At, ModelPair
from springback.models.encoding import Encoded
from springback.models.loading import Model
from springback.probes import LastStates, MemoryBudget, Precision, TextNLL
from springback.probes.along_mu import nll_along_mu
from springback.progress import Progress
from springback.results.timing import Timer, timed

#: Bytes of hidden states kept, at most, for one set of questions.
STATES = 1 << 28


class TransformersEngine:
    """An :class:`springback.jobs.boost.engine.Engine`: two models in memory at most, in here."""

    mixes = False

    def __init__(self, sweep: ModelPair, weak: Mapping[str, Checkpoint], timer: Timer) -> None:
        """``weak``: models beside the pair by their name in an arm."""
        self.sweep, self.weak, self.timer = sweep, weak, timer
        #: Of the questions scored last, by their hash: the states of each model over the solutions.
        self._states: tuple[str, MemoryBudget, dict[At | str, LastStates]]
        self._states = "", MemoryBudget(0), {}

    def inputs(self) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """The models stay as long as the pair."""

    def decode(
        self,
        key: Mapping[str, Any],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        done: Callable[[int], None],
    ) -> list[list[int]]:
        expert, weak = self._models(key)
        return decode(expert, prompts, how, weak, done)

    def decode_each(
        self,
        keys: Sequence[Mapping[str, Any]],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        known: list[list[int]] | None,
        done: Callable[[int], None],
        take: Callable[[int, list[list[int]]], None],
    ) -> None:
        lams = [key["lam"] for key in keys]
        answers, _ = decode_variants(self._models(keys[0]), prompts, how, lams, known, done)
        for i, lam in enumerate(lams):
            take(i, answers[lam])

    @timed("scoring")
    def text_nll(
        self, keys: Sequence[Mapping[str, Any]], texts: Sequence[Encoded], kept: str | None = None
    ) -> list[list[TextNLL]]:
        key, precision, tokenizer = keys[0], Precision("float32"), self.sweep.tokenizer
        expert, weak = self._models(key)
        states = self._states_pair(key, kept)
        if weak is None:
            return [probes.nll(expert, texts, tokenizer, precision, states[0])] * len(keys)
        if "average" in key:
            pair = (expert, weak)
            scores = probes.mixed_nll(pair, texts, tokenizer, averaged, precision, states)
            return [scores] * len(keys)
        lams = [key["lam"] for key in keys]
        both = (states[0], states[1]) if states[0] and states[1] else None
        by_lam = probes.pair_nll(
            expert, weak, texts, tokenizer, lams, precision, gate_of(key), both
        )
        return [by_lam[lam] for lam in lams]

    def first_tokens(
        self,
        key: Mapping[str, Any],
        rows: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        kept: str | None = None,
    ) -> list[list[float]]:
        mix = averaged if "average" in key else unmasked(key["lam"], gate_of(key))
        models, states = self._models(key), self._states_pair(key, kept) if kept else None
        float32 = Precision("float32")
        return probes.first_tokens(models, rows, self.sweep.tokenizer, tokens, mix, float32, states)

    def nll_along_mu(self, rows: Sequence[Encoded], progress: Progress) -> dict[float, list[float]]:
        return nll_along_mu(self.sweep, rows, progress=progress)

    @timed("loading")
    def _models(self, key: Mapping[str, Any]) -> tuple[Model, Model | None]:
        return self.sweep.at(at_of(key)), self._weak(key["weak"])

    def _weak(self, weak: str | None) -> Model | None:
        """The weak model of that name, in the place of the one before."""
        if weak is None:
            return None
        return self.sweep.weak("ft" if weak == "ft" else self.weak.get(weak, "early"))

    def _states_pair(
        self, key: Mapping[str, Any], kept: str | None
    ) -> tuple[LastStates | None, LastStates | None]:
        """Of the strong and the weak model over the solutions of the questions of hash ``kept``."""
        if kept is None:
            return None, None
        weak = 0.0 if key["weak"] == "ft" else key["weak"]
        beside = None if weak is None else self._states_of(kept, weak)
        return self._states_of(kept, at_of(key)), beside

    def _states_of(self, kept: str, model: At | str) -> LastStates:
        """Of the expert by its mu (at 0 it is the fine-tuned model), of others by their name."""
        if self._states[0] != kept:
            self._states = (kept, MemoryBudget(STATES), {})
        _, room, by_model = self._states
        return by_model.setdefault(model, LastStates(room))
