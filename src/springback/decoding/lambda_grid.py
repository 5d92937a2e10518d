"""Several lambdas of one pair at once: variants share their path until they differ.

A batch begins with one row a prompt, which stands for all variants.  At every position each
variant chooses its token; where they disagree the row is copied, cache and all, and each copy goes
on with the variants that agree.  Answers known beforehand (those of lambda 0, or of the mu before)
are read in blocks as far as some variant would have chosen them: they save steps and change no
token.  The amateur runs only at contested positions, as in :mod:`springback.decoding.fast`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.decoding import contrast
from springback.decoding.plain import batches, decode
from springback.decoding.ragged_cache import CachedModel, croppable
from springback.decoding.sampling import Answer, penalised
from springback.decoding.settings import NO_HOOKS, DecodeSettings, check
from springback.errors import SpringbackError, describe

#: Logits of one block, at most: what a known answer is cut to (256 MB in fp32).
BLOCK_LOGITS = 1 << 26
#: At least so many known tokens a block, however large the vocabulary.
LEAST = 4


@dataclass
class Forks:
    """What was done: forward passes, the rows in them, positions where variants parted."""

    expert_calls: int = 0
    expert_rows: int = 0
    amateur_calls: int = 0
    amateur_rows: int = 0
    forks: int = 0


@dataclass
class _Path:
    """An answer so far, the variants that share it, and known tokens that may come next."""

    answer: Answer
    variants: tuple[int, ...]
    known: list[int]

    def forked(self, variants: tuple[int, ...], known: list[int]) -> _Path:
        answer = Answer(self.answer.row, list(self.answer.context))
        answer.prompt_tokens = self.answer.prompt_tokens
        return _Path(answer, variants, known)


#: Token of each variant (list by variant), by row and number of known tokens before it.
_Choices = dict[tuple[int, int], list[int]]


@dataclass
class _Batch:
    """The paths that are not finished, one a row of both caches."""

    paths: list[_Path]
    lams: Sequence[float]
    settings: DecodeSettings
    expert: CachedModel
    amateur: CachedModel | None
    answers: list[list[list[int]]]  # variant -> prompt -> tokens
    work: Forks

    def complete(self) -> None:
        while self.paths:
            drafts = self._drafts()
            choices = self._choices(drafts)
            going: list[tuple[int, _Path]] = []
            for row, path in enumerate(self.paths):
                going += [(row, p) for p in self._walk(row, path, drafts[row], choices)]
            self.paths = [path for _, path in going]
            self._carry([row for row, _ in going])

    def _drafts(self) -> list[list[int]]:
        vocabulary = self.expert.model.config.get_text_config().vocab_size
        width = max(LEAST, BLOCK_LOGITS // (vocabulary * len(self.paths)) - 1)
        most = self.settings.max_new_tokens
        return [p.known[: min(width, most - p.answer.position - 1)] for p in self.paths]

    def _choices(self, drafts: list[list[int]]) -> _Choices:
        """Both models over what they have not seen, as far as it may be reached."""
        s = self.settings
        blocks = [
            p.answer.context[n:] + d
            for p, n, d in zip(self.paths, self.expert.lengths, drafts, strict=True)
        ]
        keep = 1 + max(len(d) for d in drafts)
        raw = self.expert.run(range(len(blocks)), blocks, keep)  # (rows, keep, vocabulary)
        logits = penalised(raw.flatten(0, 1), (), s).view_as(raw)
        top = logits.argmax(-1).tolist()
        plausible = contrast.plausible(logits, s.alpha)
        contested = plausible.sum(-1) > 1
        if s.gate is not None:
            contested &= contrast.uncertain(logits, s.gate)
        if self.amateur is None:
            contested = torch.zeros_like(contested)
        open_ = contested.tolist()
        choices: _Choices = {}
        wanted: list[list[int]] = []
        for row, draft in enumerate(drafts):
            wanted.append([])
            for j in range(len(draft) + 1):
                column = keep - 1 - len(draft) + j
                if open_[row][column]:
                    wanted[row].append(j)
                else:
                    choices[row, j] = [top[row][column]] * len(self.lams)
                if j < len(draft):
                    kept = (
                        bool(plausible[row, column, draft[j]])
                        if open_[row][column]
                        else top[row][column] == draft[j]
                    )
                    if not kept:
                        break  # no variant goes on along the known answer
        if any(wanted):
            choices |= self._contrasted(logits, drafts, wanted)
        return choices

    def _contrasted(
        self, logits: Tensor, drafts: list[list[int]], wanted: list[list[int]]
    ) -> _Choices:
        """The tokens at contested positions, ``wanted`` by row, after one pass of the amateur."""
        assert self.amateur is not None
        rows = [row for row, places in enumerate(wanted) if places]
        blocks = [
            (self.paths[r].answer.context + drafts[r][: wanted[r][-1]])[self.amateur.lengths[r] :]
            for r in rows
        ]
        keep = 1 + max(wanted[r][-1] - wanted[r][0] for r in rows)
        weak = self.amateur.run(rows, blocks, keep).to(logits.device)  # (rows, keep, vocabulary)
        places = [(place, r, j) for place, r in enumerate(rows) for j in wanted[r]]
        size = logits.shape[1]
        strong = torch.stack([logits[r, size - 1 - len(drafts[r]) + j] for _, r, j in places])
        beside = torch.stack([weak[place, keep - 1 - wanted[r][-1] + j] for place, r, j in places])
        tokens = choose_all(strong, beside, self.lams, self.settings.alpha).tolist()
        return {(r, j): t for (_, r, j), t in zip(places, tokens, strict=True)}

    def _walk(self, row: int, path: _Path, draft: list[int], choices: _Choices) -> list[_Path]:
        """Take tokens as far as the block decides them; the paths that go on from here."""
        going, beyond = [], path.known[len(draft) :]
        for j in range(len(draft) + 1):
            chosen = choices[row, j]
            groups: dict[int, tuple[int, ...]] = {}
            for v in path.variants:
                groups[chosen[v]] = (*groups.get(chosen[v], ()), v)
            self.work.forks += len(groups) - 1
            along = groups.pop(draft[j], None) if j < len(draft) else None
            for token, variants in groups.items():
                fits = j == len(draft) and beyond[:1] == [token]
                branch = path.forked(variants, beyond[1:] if fits else [])
                if self._take(branch, token):
                    going.append(branch)
            if along is None:
                break
            path.variants = along
            if not self._take(path, draft[j]):
                break
        return going

    def _take(self, path: _Path, token: int) -> bool:
        """Whether the path goes on after ``token``; if not, its answer is kept."""
        path.answer.take(token, self.settings, NO_HOOKS)
        if path.answer.done:
            for v in path.variants:
                self.answers[v][path.answer.row] = path.answer.tokens
        return not path.answer.done

    def _carry(self, sources: list[int]) -> None:
        """Give every path its row: copied where it forked, dropped where it ended."""
        models = [self.expert, *([self.amateur] if self.amateur is not None else [])]
        for cached in models:
            if sources != list(range(len(cached.lengths))):
                cached.keep(sources)
            for row, path in enumerate(self.paths):
                cached.roll_back(row, len(path.answer.context) - 1)


def choose_all(expert: Tensor, amateur: Tensor, lams: Sequence[float], alpha: float) -> Tensor:
    """The greedy token of every lambda (n, lambdas) out of logits (n, vocabulary).

    As the argmax of :func:`springback.decoding.contrast.combine`, on the plausible tokens alone.
    """
    count = int(contrast.plausible(expert, alpha).sum(-1).max())
    ids = expert.topk(count, dim=-1).indices.sort(-1).values  # in order: ties fall as in argmax
    strong, weak = expert.gather(-1, ids), amateur.to(expert.dtype).gather(-1, ids)
    tokens = []
    for lam in lams:
        choice = contrast.combine(strong, weak, lam, alpha).argmax(-1, keepdim=True)
        tokens.append(ids.gather(-1, choice)[:, 0])
    return torch.stack(tokens, dim=-1)


def decode_variants(
    models: tuple[PreTrainedModel, PreTrainedModel | None],
    prompts: Sequence[Sequence[int]],
    settings: DecodeSettings,
    lams: Sequence[float],
    known: Sequence[Sequence[int]] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[dict[float, list[list[int]]], Forks]:
    """Answers by lambda, each as :func:`springback.decoding.decode` gives it with that lambda.

    ``models`` are expert and amateur (None if every lambda is 0); ``settings.lam`` is not read.
    ``known``: an answer to each prompt that is likely to be right, such as that of lambda 0.
    Greedy only, without repetition penalty and stop strings.  Equal up to rounding, which can tip
    a tie: a block and a single step, or batches of other sizes, differ in the last bits.  Memory:
    the caches grow with the number of variants that have parted.  A model whose cache cannot be
    cropped is decoded plainly, once for each lambda.
    """
    expert, amateur = models
    odd = settings.temperature or settings.repetition_penalty != 1 or settings.average
    if odd or settings.stop_strings:
        raise SpringbackError(
            describe(
                "sampling, a repetition penalty, stop strings or an average for several lambdas",
                "greedy decoding",
                "decode one lambda at a time",
            )
        )
    values = list(dict.fromkeys(float(lam) for lam in lams))
    for lam in values:
        check(replace(settings, lam=lam), prompts, amateur, NO_HOOKS, expert)
    pair = (expert, amateur if any(values) else None)
    work = Forks()
    if not all(croppable(model) for model in pair if model is not None):
        plain = {
            lam: decode(expert, prompts, replace(settings, lam=lam), amateur, on_batch)
            for lam in values
        }
        return plain, work
    answers_by_lambda: list[list[list[int]]] = [[[] for _ in prompts] for _ in values]
    everyone = tuple(range(len(values)))
    for answers in batches(prompts, settings.batch_size):
        paths = [_Path(a, everyone, list(known[a.row]) if known else []) for a in answers]
        contexts = [a.context for a in answers]
        with torch.inference_mode():
            cached_expert = CachedModel.begun(expert, contexts)
            cached_amateur = CachedModel.begun(pair[1], contexts) if pair[1] is not None else None
            batch = _Batch(
                paths, values, settings, cached_expert, cached_amateur, answers_by_lambda, work
            )
            if settings.max_new_tokens:
                batch.complete()
        work.expert_calls += cached_expert.calls
        work.expert_rows += cached_expert.rows_run
        if cached_amateur is not None:
            work.amateur_calls += cached_amateur.calls
            work.amateur_rows += cached_amateur.rows_run
        if on_batch:
            on_batch(len(answers))
    return dict(zip(values, answers_by_lambda, strict=True)), work
