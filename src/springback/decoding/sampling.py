"""From logits to the next token, in the order that :mod:`springback.decoding.settings` gives.

Both decoders go through these functions, one row at a time wherever a row has something of its
own, so that they cannot differ in anything but how logits were computed.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from springback.decoding import contrast, philox
from springback.decoding.deferral import lead_of
from springback.decoding.settings import DecodeSettings, Hooks

#: Threads that draw the noise of rows while a GPU works.
DRAWING = 4


@dataclass
class Answer:
    """One prompt and its answer so far.  ``row`` is the prompt's number, which keys the noise."""

    row: int
    context: list[int]  # prompt and answer
    prompt_tokens: int = field(init=False)
    done: bool = False

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.context)

    @property
    def tokens(self) -> list[int]:
        return self.context[self.prompt_tokens :]

    @property
    def position(self) -> int:
        """Number of tokens in the answer: the position that is chosen next."""
        return len(self.context) - self.prompt_tokens

    def ahead(self, tokens: Sequence[int]) -> Answer:
        """This answer as it will be if ``tokens`` turn out right."""
        later = Answer(self.row, [*self.context, *tokens])
        later.prompt_tokens = self.prompt_tokens
        return later

    def take(self, token: int, settings: DecodeSettings, hooks: Hooks) -> None:
        """Add a chosen token, unless it is a stop token; notice the end."""
        if token in settings.stop_ids:
            self.done = True
            return
        self.context.append(token)
        self.done = self.position >= settings.max_new_tokens or self._stopped(settings, hooks)
        if hooks.on_token:
            hooks.on_token(self.row, token)

    def _stopped(self, settings: DecodeSettings, hooks: Hooks) -> bool:
        if not settings.stop_strings or hooks.text_of is None:
            return False
        # A character is at most four byte tokens, so this tail holds any stop string.
        tail = 4 * max(len(s) for s in settings.stop_strings) + 8
        text = hooks.text_of(self.context[max(self.prompt_tokens, len(self.context) - tail) :])
        return any(s in text for s in settings.stop_strings)


def penalised(
    logits: Tensor, contexts: Sequence[Sequence[int]], settings: DecodeSettings
) -> Tensor:
    """The expert's logits (n, vocabulary) after penalties, in fp32 (fp64 stays).

    ``contexts`` (n) are the tokens before each; they are read only if repetition is penalised.
    """
    scores = logits if logits.dtype == torch.float64 else logits.float()
    if settings.repetition_penalty != 1:
        penalty = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)
        rows = [
            penalty(torch.tensor([list(c)], device=scores.device), row[None])
            for c, row in zip(contexts, scores, strict=True)
        ]
        scores = torch.cat(rows)
    if settings.forbidden_ids:
        scores = scores.clone()
        scores[:, list(settings.forbidden_ids)] = -torch.inf
    return scores


@dataclass(frozen=True)
class Chooser:
    """Settings, hooks and noise bound together."""

    settings: DecodeSettings
    hooks: Hooks
    noise: Noise

    def next_tokens(
        self, expert: Tensor, amateur: Tensor | None, answers: Sequence[Answer]
    ) -> list[int]:
        """The next token of each of ``answers`` (n).

        ``expert``: penalised logits (n, vocabulary); ``amateur``: bare ones, None without contrast.
        Where one token is plausible the amateur does not count: the expert can stand in for it.
        """
        scores = self._scores(expert, amateur, answers)
        if self.settings.temperature == 0:
            chosen: list[int] = scores.argmax(-1).tolist()
            return chosen
        if self._at_once(scores):
            return self._draw_all(scores, answers)
        return [self._draw(row.cpu(), a) for row, a in zip(scores, answers, strict=True)]

    def _scores(self, expert: Tensor, amateur: Tensor | None, answers: Sequence[Answer]) -> Tensor:
        s = self.settings
        if s.average and amateur is not None:
            expert, amateur = contrast.averaged(expert, amateur.to(expert.device)), None
        if amateur is not None:
            amateur = contrast.gated(expert, amateur.to(expert.device), s.gate)
        if not self.hooks.processors:
            if amateur is None:
                return expert
            return contrast.combine(expert, amateur, s.lam, s.alpha)
        if amateur is not None:
            scores = contrast.stepped(expert, amateur, s.lam, s.alpha)
        else:
            scores = expert
        rows = []
        for row, answer in zip(scores, answers, strict=True):
            ids, held = torch.tensor([answer.context], device=row.device), row[None].clone()
            for processor in self.hooks.processors:
                held = processor(ids, held)
            rows.append(held)
        scores = torch.cat(rows)
        if amateur is None:
            return scores
        return contrast.mask(scores, contrast.plausible(expert, s.alpha))

    def guess(self, expert: Tensor, answer: Answer) -> tuple[int, float]:
        """What the expert would choose alone, and its lead over the next token, in logits.

        ``expert``: penalised logits (vocabulary,); only plausible tokens count.  Keyed noise only:
        the place may be asked for again.
        """
        s = self.settings
        tokens = contrast.plausible(expert, s.alpha).nonzero()[:, 0]
        values = expert[tokens]
        if s.temperature > 0:
            values = self._noisy(values.cpu(), tokens.cpu(), len(expert), answer) * s.temperature
        return int(tokens[values.argmax()]), lead_of(values)

    def _at_once(self, scores: Tensor) -> bool:
        """Whether all rows are drawn together.

        On a CPU filters and keyed noise are cheaper where they are, among the candidates of a row;
        on a GPU one row is, since keyed noise there takes some 300 steps however many rows there
        are.  Apple's accelerators have no float64.
        """
        where = scores.device.type
        if where == "cpu":
            return isinstance(self.noise, RowStreams) and not self._filters
        return where != "mps" and len(scores) > 1

    def _draw_all(self, scores: Tensor, answers: Sequence[Answer]) -> list[int]:
        """:meth:`_draw` of every row; ``scores``: (n, vocabulary)."""
        places = [(answer.row, answer.position) for answer in answers]
        noise = self.noise.gumbel_rows(places, scores.shape[-1], scores.device)
        held = scores / self.settings.temperature
        noisy = (self._filtered(held) if self._filters else held) + noise
        drawn: list[int] = noisy.argmax(-1).tolist()
        return drawn

    @property
    def _filters(self) -> bool:
        s = self.settings
        return bool(s.top_k or s.top_p < 1 or s.min_p)

    def _draw(self, scores: Tensor, answer: Answer) -> int:
        """A draw from softmax(scores / T) after the filters; ``scores``: (vocabulary,)."""
        tokens = (scores > -torch.inf).nonzero()[:, 0]
        noisy = self._noisy(scores[tokens], tokens, len(scores), answer)
        return int(tokens[noisy.argmax()])

    def _noisy(self, scores: Tensor, tokens: Tensor, width: int, answer: Answer) -> Tensor:
        """scores / T after the filters, with noise; ``scores`` (candidates,) of ``tokens``."""
        s = self.settings
        held = scores / s.temperature
        if len(tokens) > 1 and self._filters:
            held = self._filtered(held[None])[0]
        return held + self.noise.gumbel(answer.row, answer.position, width, tokens)

    def _filtered(self, scores: Tensor) -> Tensor:
        """Top-k, top-p and min-p of ``scores`` (n, candidates); what they drop is at -inf."""
        s = self.settings
        held: Any = scores
        nothing: Any = torch.empty(1, 0, dtype=torch.long)  # filters do not look at ids
        if s.top_k:
            held = TopKLogitsWarper(s.top_k)(nothing, held)
        if s.top_p < 1:
            held = TopPLogitsWarper(s.top_p)(nothing, held)
        if s.min_p:
            held = MinPLogitsWarper(s.min_p)(nothing, held)
        left: Tensor = held
        return left


class RowStreams:
    """One stream of random numbers for each row: positions have to be drawn in order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[int, torch.Generator] = {}

    def gumbel(self, row: int, position: int, width: int, tokens: Tensor) -> Tensor:
        """fp32 noise of ``tokens`` (n,) out of ``width``; advances the row's stream."""
        return _gumbel32(torch.rand(width, generator=self._stream(row))[tokens])

    def gumbel_rows(
        self, places: Sequence[tuple[int, int]], width: int, device: torch.device
    ) -> Tensor:
        """:meth:`gumbel` of all tokens at these (row, position), (n, width), on ``device``.

        A stream is drawn by a CPU, so that its numbers are the same on every device; they move in
        one copy.
        """
        away = device.type != "cpu"
        uniform = torch.empty(len(places), width, pin_memory=device.type == "cuda")

        def draw(i: int) -> None:
            torch.rand(width, generator=self._stream(places[i][0]), out=uniform[i])

        each = self._threads.map if away else map
        deque(each(draw, range(len(places))), 0)
        return _gumbel32(uniform.to(device, non_blocking=True))

    def _stream(self, row: int) -> torch.Generator:
        if row not in self._streams:
            key = hashlib.sha256(f"{self.seed}/{row}".encode()).digest()
            seed = int.from_bytes(key[:8], "little") >> 1
            self._streams[row] = torch.Generator().manual_seed(seed)
        return self._streams[row]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Draw rows beside one another while a GPU works."""
        return ThreadPoolExecutor(DRAWING)


def _gumbel32(uniform: Tensor) -> Tensor:
    """Of fp32 numbers between 0 and 1, which are overwritten."""
    return uniform.clamp_(1e-20, 1 - 1e-7).log_().neg_().log_().neg_()


class KeyedNoise:
    """Noise keyed by (seed, row, position), by the counter-based generator Philox.

    The key is the seed; row and position are the upper half of the counter, so no two places share
    numbers and any of them can be made without the ones before.
    """

    def __init__(self, seed: int) -> None:
        digest = hashlib.sha256(f"springback/{seed}".encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8")

    def gumbel(self, row: int, position: int, width: int, tokens: Tensor) -> Tensor:
        """fp64 noise of ``tokens`` (n,) out of ``width``."""
        if len(tokens) == 1:  # whatever it is, it changes no choice
            return torch.zeros(1, dtype=torch.float64)
        counter = np.array([0, 0, position, row], dtype=np.uint64)
        raw = np.random.Philox(key=self._key, counter=counter).random_raw(width)
        # The middles of 2^53 equal steps: never 0 or 1.
        uniform = ((raw[tokens.numpy()] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return torch.from_numpy(-np.log(-np.log(uniform)))

    def gumbel_rows(
        self, places: Sequence[tuple[int, int]], width: int, device: torch.device
    ) -> Tensor:
        """:meth:`gumbel` of all tokens at these (row, position), fp64 (n, width), made on
        ``device``: the same numbers everywhere, but for the last bits of the logarithms."""
        raw = philox.raw(self._key.tolist(), places, width, device)
        uniform = (((raw >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
        return uniform.log_().neg_().log_().neg_()


Noise = RowStreams | KeyedNoise


def noise_of(settings: DecodeSettings) -> Noise:
    """The noise that ``settings`` ask for."""
    return KeyedNoise(settings.seed) if settings.keyed_noise else RowStreams(settings.seed)
