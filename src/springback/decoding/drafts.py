"""Guesses at the next tokens, and how many of them are worth checking.

A guess never changes what is decoded: the block of guesses is checked against the tokens that the
decoder would have chosen one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding.ragged_cache import CachedModel
from springback.decoding.sampling import Answer, Chooser, penalised
from springback.decoding.settings import NO_HOOKS

#: Matches of so many last tokens are looked for, longest first.
GRAMS = (4, 3, 2)
LONGEST = 10


@dataclass(frozen=True)
class Speculation:
    """Where drafts come from: ``none``, ``ngram`` (look-up in prompt and answer), ``amateur``, or
    ``model``, a smaller model with the same tokens, given as ``model``.

    ``length`` drafts a round; None adapts it to measured times and acceptance, so that in fp32 a
    near-tie may fall differently from one call to the next.

    ``defer``: so many tokens may be taken after a contested position before the amateur runs
    there, if the expert's choice is rarely overruled (:mod:`springback.decoding.deferral`); it
    then reads all of them in one block.  0 runs it at once.  Not used with drafts by a model.

    ``cache``: the form of the caches (:mod:`springback.decoding.static_cache`).  ``dynamic`` grows
    with the text; ``static`` has a fixed shape, for accelerators, and on CUDA replays each step as
    a graph; ``compiled`` also compiles the model, half a minute for each of a few block sizes.
    """

    draft: str = "ngram"
    length: int | None = None
    model: PreTrainedModel | None = None
    defer: int = 8
    cache: str = "dynamic"


DEFAULT_SPECULATION = Speculation()


@dataclass
class NgramIndex:
    """Where each n-gram of one row was last seen: the token after it is at that place."""

    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    read: int = 0

    def propose(self, context: Sequence[int], count: int) -> list[int]:
        """Up to ``count`` tokens that followed the last tokens of ``context`` earlier in it."""
        for end in range(max(self.read, 1), len(context)):
            for n in GRAMS:
                if end >= n:
                    self.places[tuple(context[end - n : end])] = end
        self.read = len(context)
        for n in GRAMS:
            place = self.places.get(tuple(context[-n:])) if len(context) >= n else None
            # Guesses that were overruled may have been read: then the place lies behind the end.
            if place is not None and place < len(context):
                span = context[place:]  # a text that repeats itself goes on doing so
                return [span[i % len(span)] for i in range(count)]
        return []


@dataclass
class ModelDrafts:
    """Drafts by a model: the amateur, or a smaller one.  The caller rolls ``model`` back.

    It draws with the noise of the position, so that where it agrees with the pair it also draws
    the same token.
    """

    model: CachedModel

    def propose(
        self, answers: Sequence[Answer], counts: Sequence[int], chooser: Chooser
    ) -> tuple[list[list[int]], list[list[Tensor]]]:
        """Of each row: its drafts, and the model's logits (vocabulary,) behind each of them."""
        chooser = replace(chooser, hooks=NO_HOOKS)  # processors see tokens that are chosen
        drafts: list[list[int]] = [[] for _ in answers]
        logits: list[list[Tensor]] = [[] for _ in answers]
        while rows := [i for i, n in enumerate(counts) if len(drafts[i]) < n]:
            contexts = [answers[i].context + drafts[i] for i in rows]
            blocks = [c[self.model.lengths[i] :] for i, c in zip(rows, contexts, strict=True)]
            rows_logits = self.model.run(rows, blocks, 1)[:, -1]
            places = [answers[i].ahead(drafts[i]) for i in rows]
            strong = penalised(rows_logits, contexts, chooser.settings)
            tokens = chooser.next_tokens(strong, None, places)
            for i, token, row in zip(rows, tokens, rows_logits, strict=True):
                drafts[i].append(token)
                logits[i].append(row)
        return drafts, logits


class Pace:
    """Chooses how many tokens to draft, from measured times and acceptance.

    With acceptance p a token, m drafts give a row that has any p + ... + p^m further tokens a round
    on average; in a batch some rows have none, and ``share`` is that of those that do.  A round
    takes a + b * m seconds, fitted by least squares over the recent rounds (one without drafts
    as long as such rounds took), and c seconds a draft.  The m with the most tokens a second is
    taken.
    """

    MEMORY = 0.95  # what a round weighs after the next one
    FIRST = (0, 4, 2, 6)  # rounds before there is anything to go by

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self.rounds = 0
        self.acceptance = 0.6
        self.share = 1.0
        self.draft_seconds = 0.0
        self.bare: float | None = None  # seconds of a round without drafts
        self._sums = [0.0] * 5  # weight, x, y, xx, xy

    def length(self) -> int:
        """Drafts in the coming round."""
        if self.fixed is not None:
            return self.fixed
        self.rounds += 1
        if self.rounds <= len(self.FIRST):
            return self.FIRST[self.rounds - 1]
        base, slope = self._line()
        rates, tokens, chance = [], 1.0, self.share
        for m in range(LONGEST + 1):
            seconds = base + m * (slope + self.draft_seconds)
            rates.append(tokens / (seconds if m or self.bare is None else self.bare))
            chance *= self.acceptance
            tokens += chance
        best = max(range(LONGEST + 1), key=rates.__getitem__)
        if best == 0:  # nothing is learned without drafts: forget slowly, then try again
            self.acceptance += 0.03 * (0.6 - self.acceptance)
        return best

    def _line(self) -> tuple[float, float]:
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        slope = max((n * xy - x * y) / spread, 0.0) if spread > 1e-9 * max(n, 1) else 0.0
        base = (y - slope * x) / n if n else 1.0
        return max(base, 1e-9), slope

    def ran(self, drafted: int, seconds: float) -> None:
        """A round that checked ``drafted`` tokens (of its longest row) took ``seconds``."""
        if not drafted:
            self.bare = seconds if self.bare is None else self.bare + 0.1 * (seconds - self.bare)
        add = (1.0, drafted, seconds, drafted * drafted, drafted * seconds)
        self._sums = [self.MEMORY * s + a for s, a in zip(self._sums, add, strict=True)]

    def proposed(self, drafted: int, seconds: float) -> None:
        """Making ``drafted`` drafts took ``seconds``."""
        if drafted:
            self.draft_seconds += 0.2 * (seconds / drafted - self.draft_seconds)

    def drafting(self, rows: int, all_rows: int) -> None:
        """So many of all rows had drafts in a round where any had."""
        self.share += 0.2 * (rows / all_rows - self.share)

    def judged(self, accepted: int, refused: bool) -> None:
        """One row's drafts: so many accepted before one was refused, or before the last."""
        for hit in [True] * accepted + [False] * refused:
            self.acceptance += 0.05 * (hit - self.acceptance)
