"""The fast decoder: the plain loop's tokens at about the price of one model.

Lazy amateur: where only one token is plausible the amateur cannot change the choice, so it does
not run; at the next contested position it catches up on what it skipped in one block.
Speculation: a round feeds the expert the last token and a few drafted ones, and takes as many as
the plain loop would have chosen.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback import contrast
from springback.decode.choose import Answer, Chooser, penalised
from springback.decode.drafts import ModelDrafts, NgramIndex, Pace
from springback.decode.noise import noise_of
from springback.decode.reference import batches, decode
from springback.decode.rows import Half, croppable
from springback.decode.settings import NO_HOOKS, DecodeSettings, Hooks, check
from springback.errors import SpringbackError, describe

DRAFTS = ("none", "ngram", "amateur", "model")


@dataclass(frozen=True)
class Speculation:
    """Where drafts come from: ``none``, ``ngram`` (look-up in prompt and answer), ``amateur``, or
    ``model``, a smaller model with the same tokens, given as ``model``.

    ``length`` drafts a round; None adapts it to measured times and acceptance, so that in fp32 a
    near-tie may fall differently from one call to the next.
    """

    draft: str = "ngram"
    length: int | None = None
    model: PreTrainedModel | None = None


DEFAULT_SPECULATION = Speculation()


@dataclass
class Work:
    """What was done: forward passes, rows in them, positions, drafts."""

    expert_calls: int = 0
    amateur_calls: int = 0
    amateur_rows: int = 0
    draft_calls: int = 0
    tokens: int = 0
    contested: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class Decoded:
    """Answer token ids of every prompt, in order; ``work`` is None after the plain loop."""

    answers: list[list[int]]
    work: Work | None


@dataclass
class _Checked:
    """The expert's view of one round: logits and what follows from them, right-aligned."""

    logits: Tensor  # penalised, (rows, keep, vocabulary)
    top: list[list[int]]  # the expert's choice
    contested: list[list[bool]]  # more than one token is plausible, and the gate is open
    drafts: list[list[int]]

    def at(self, row: int, draft: int) -> int:
        """Column of the logits after ``draft`` drafted tokens of ``row``."""
        return self.logits.shape[1] - 1 - len(self.drafts[row]) + draft


@dataclass
class _Batch:
    """A batch on its way."""

    answers: list[Answer]
    chooser: Chooser
    expert: Half
    amateur: Half | None
    drafter: ModelDrafts | None
    ngrams: list[NgramIndex] | None
    pace: Pace
    work: Work
    stash: list[list[Tensor]] = field(
        default_factory=list
    )  # the amateur's logits behind its drafts

    def complete(self) -> None:
        """Rounds until every row is done."""
        while self.answers:
            begin = time.perf_counter()
            first = not max(self.expert.lengths)
            drafts = [[] for _ in self.answers] if first else self._draft()
            drafted = time.perf_counter()
            checked = self._check(drafts)
            self._accept(checked, self._amateur_logits(checked))
            if not first:
                longest = max(len(d) for d in drafts)
                self.pace.proposed(longest, drafted - begin)
                self.pace.ran(longest, time.perf_counter() - drafted)
            self._drop_finished()

    def _draft(self) -> list[list[int]]:
        if self.drafter is None and self.ngrams is None:
            return [[] for _ in self.answers]
        limit, most = self.pace.length(), self.chooser.settings.max_new_tokens
        counts = [max(0, min(limit, most - a.position - 1)) for a in self.answers]
        if self.ngrams is not None:
            rows = zip(self.answers, self.ngrams, counts, strict=True)
            return [index.propose(a.context, n) for a, index, n in rows]
        assert self.drafter is not None
        drafts, logits = self.drafter.propose(self.answers, counts, self.chooser)
        if self.drafter.half is self.amateur:
            self.stash = logits
        return drafts

    def _check(self, drafts: list[list[int]]) -> _Checked:
        """The expert over the tokens it has not seen and the drafts."""
        settings = self.chooser.settings
        blocks = [
            a.context[n:] + d
            for a, n, d in zip(self.answers, self.expert.lengths, drafts, strict=True)
        ]
        keep = 1 + max(len(d) for d in drafts)
        logits = self.expert.run(range(len(blocks)), blocks, keep)  # (rows, keep, vocabulary)
        contexts = []
        if settings.repetition_penalty != 1:
            for a, d in zip(self.answers, drafts, strict=True):
                ends = range(len(d) - keep + 1, len(d) + 1)
                contexts += [a.context + d[: max(end, 0)] for end in ends]
        strong = penalised(logits.flatten(0, 1), contexts, settings).view_as(logits)
        contested = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        if self.amateur is not None:
            contested = contrast.plausible(strong, settings.alpha).sum(-1) > 1
            if settings.gate is not None:
                contested &= contrast.uncertain(strong, settings.gate)
        return _Checked(strong, strong.argmax(-1).tolist(), contested.tolist(), drafts)

    def _needed(self, checked: _Checked, row: int) -> list[int]:
        """Contested positions of ``row`` that may be reached (0: right after its last token)."""
        found, draft = [], checked.drafts[row]
        alpha = self.chooser.settings.alpha
        for j in range(len(draft) + 1):
            at = checked.at(row, j)
            contested = checked.contested[row][at]
            if contested:
                found.append(j)
            if j == len(draft) or self.chooser.hooks.processors:
                continue
            if not contested and self._lone_is_top and checked.top[row][at] != draft[j]:
                break
            if contested:
                scores = checked.logits[row, at]
                if not bool(contrast.plausible(scores, alpha)[draft[j]]):
                    break
        return found

    @property
    def _lone_is_top(self) -> bool:
        """Whether the expert's top is chosen where no amateur runs: a closed gate still draws."""
        settings = self.chooser.settings
        return settings.gate is None or settings.temperature == 0

    def _amateur_logits(self, checked: _Checked) -> dict[tuple[int, int], Tensor]:
        """The amateur's logits (vocabulary,) by row and position, where they count."""
        if self.amateur is None:
            return {}
        found: dict[tuple[int, int], Tensor] = {}
        rows, wanted, blocks = [], [], []
        for row, answer in enumerate(self.answers):
            have = self.stash[row] if self.stash else []
            needed = self._needed(checked, row)
            found.update({(row, j): have[j] for j in needed if j < len(have)})
            if missing := [j for j in needed if j >= len(have)]:
                fed = answer.context + checked.drafts[row][: missing[-1]]
                rows.append(row)
                wanted.append(missing)
                blocks.append(fed[self.amateur.lengths[row] :])
        self.stash = []
        if rows:
            keep = max(w[-1] - w[0] for w in wanted) + 1
            logits = self.amateur.run(rows, blocks, keep)
            for at, (row, positions) in enumerate(zip(rows, wanted, strict=True)):
                found.update({(row, j): logits[at, j - positions[-1] - 1] for j in positions})
        return found

    def _accept(self, checked: _Checked, weak: dict[tuple[int, int], Tensor]) -> None:
        """Choose as the plain loop would, as far as the drafts agree; roll the rest back."""
        chooser, settings = self.chooser, self.chooser.settings
        certain = not chooser.hooks.processors  # the top of a lone plausible token is the choice
        for row, answer in enumerate(self.answers):
            draft, accepted, refused = checked.drafts[row], 0, False
            for j in range(len(draft) + 1):
                at = checked.at(row, j)
                contested = checked.contested[row][at]
                self.work.contested += contested
                lone = self.amateur is not None and not contested
                known = self._lone_is_top if lone else settings.temperature == 0
                if certain and known and (lone or self.amateur is None):
                    token = checked.top[row][at]
                else:
                    strong = checked.logits[row, at][None]
                    amateur = weak[row, j][None] if contested else strong if lone else None
                    token = chooser.next_tokens(strong, amateur, [answer])[0]
                answer.take(token, settings, chooser.hooks)
                if j < len(draft):
                    refused = token != draft[j]
                    accepted += not refused
                if answer.done or refused:
                    break
            self.pace.judged(accepted, refused)
            self.work.drafted += len(draft)
            self.work.accepted += accepted
            for half in self._halves():
                half.roll_back(row, len(answer.context) - 1)

    def _halves(self) -> list[Half]:
        """Each model once: the amateur may also be the drafter."""
        halves = [self.expert]
        if self.amateur is not None:
            halves.append(self.amateur)
        if self.drafter is not None and self.drafter.half is not self.amateur:
            halves.append(self.drafter.half)
        return halves

    def _drop_finished(self) -> None:
        left = [i for i, a in enumerate(self.answers) if not a.done]
        if len(left) == len(self.answers):
            return
        self.answers = [self.answers[i] for i in left]
        if self.ngrams is not None:
            self.ngrams = [self.ngrams[i] for i in left]
        for half in self._halves():
            half.keep(left)


def _begin(
    models: tuple[PreTrainedModel, PreTrainedModel | None],
    answers: list[Answer],
    chooser: Chooser,
    speculation: Speculation,
    pace: Pace,
    work: Work,
) -> _Batch:
    rows = len(answers)
    expert = Half(models[0], rows)
    amateur = Half(models[1], rows) if models[1] is not None else None
    drafter = None
    if speculation.draft == "amateur" and amateur is not None:
        drafter = ModelDrafts(amateur)
    elif speculation.draft == "model" and speculation.model is not None:
        drafter = ModelDrafts(Half(speculation.model, rows))
    ngrams = [NgramIndex() for _ in answers] if speculation.draft == "ngram" else None
    return _Batch(list(answers), chooser, expert, amateur, drafter, ngrams, pace, work)


_TOLD: set[str] = set()


def _tell_once(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if name not in _TOLD:
        _TOLD.add(name)
        warnings.warn(
            f"{name} has a cache that cannot be cropped (sliding window, state space, or no "
            "position ids), so it is decoded the plain way: same tokens, without the speed",
            stacklevel=3,
        )


def decode_fast(
    expert: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    amateur: PreTrainedModel | None = None,
    on_batch: Callable[[int], None] | None = None,
    hooks: Hooks = NO_HOOKS,
    speculation: Speculation = DEFAULT_SPECULATION,
) -> Decoded:
    """The answers of :func:`springback.decode.decode`, token for token, sooner.

    Equal up to rounding: a block and a single step may differ in the last bits of a logit, which
    can tip a tie.  Sampling needs ``settings.keyed_noise``.  A model whose cache cannot be cropped
    is decoded by the plain loop, with one warning.
    """
    check(settings, prompts, amateur, hooks)
    if settings.temperature > 0 and not settings.keyed_noise:
        raise SpringbackError(
            describe("sampling with a stream of noise", "keyed_noise=True", "set it, or use decode")
        )
    if speculation.draft not in DRAFTS or (
        (speculation.draft == "model") != (speculation.model is not None)
    ):
        raise SpringbackError(
            describe(
                f"draft = {speculation.draft!r}",
                f"{', '.join(DRAFTS)}; a model with 'model', and only then",
                "change it",
            )
        )
    pair = (expert, amateur if settings.lam > 0 else None)
    for model in (*pair, speculation.model):
        if model is not None and not croppable(model):
            _tell_once(model)
            return Decoded(decode(expert, prompts, settings, amateur, on_batch, hooks), None)
    chooser, work = Chooser(settings, hooks, noise_of(settings)), Work()
    pace = Pace(speculation.length)  # one for all batches: what is learned stays
    found: list[list[int]] = [[] for _ in prompts]
    for answers in batches(prompts, settings.batch_size):
        _run_batch(_begin(pair, answers, chooser, speculation, pace, work))
        for answer in answers:
            found[answer.row] = answer.tokens
        if on_batch:
            on_batch(len(answers))
    work.tokens = sum(len(tokens) for tokens in found)
    return Decoded(found, work)


@torch.inference_mode()
def _run_batch(batch: _Batch) -> None:
    if batch.chooser.settings.max_new_tokens:
        batch.complete()
    work, drafter = batch.work, batch.drafter
    work.expert_calls += batch.expert.calls
    if batch.amateur is not None:
        work.amateur_calls += batch.amateur.calls
        work.amateur_rows += batch.amateur.rows_run
    if drafter is not None and drafter.half is not batch.amateur:
        work.draft_calls += drafter.half.calls
