"""The rounds of the fast decoder: draft, check, ask the amateur where needed, accept, roll back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from springback import contrast
from springback.decode.choose import Answer, Chooser, penalised
from springback.decode.drafts import ModelDrafts, NgramIndex, Pace
from springback.decode.rows import Half, TwinHalf
from springback.decode.trust import Trust
from springback.decode.work import Work


@dataclass
class _Checked:
    """The expert's view of one round: logits and what follows from them, right-aligned."""

    logits: Tensor  # penalised, (rows, keep, vocabulary)
    weak: Tensor | None  # the amateur's, where both ran at once
    top: list[list[int]]  # the expert's choice
    contested: list[list[int]]  # 1: more than one token is plausible, and the gate is open
    drafts: list[list[int]]

    def at(self, row: int, draft: int) -> int:
        """Column of the logits after ``draft`` drafted tokens of ``row``."""
        return self.logits.shape[1] - 1 - len(self.drafts[row]) + draft


@dataclass
class _Step:
    """One token on a row's way: certain, or taken until the amateur has had its say."""

    token: int
    contested: bool
    open: bool = False  # the amateur is to be asked
    strong: Tensor | None = None  # the expert's logits (vocabulary,), where still to be chosen
    sure: bool = False  # rarely overruled: may wait


@dataclass
class Batch:
    """A batch on its way."""

    answers: list[Answer]
    chooser: Chooser
    expert: Half | TwinHalf
    amateur: Half | None  # None without contrast, and where the expert's half is both
    drafter: ModelDrafts | None
    ngrams: list[NgramIndex] | None
    pace: Pace = field(default_factory=lambda: Pace(None))
    trust: Trust = field(default_factory=Trust)
    work: Work = field(default_factory=Work)
    defer: int = 0
    waiting: list[list[_Step]] = field(default_factory=list)  # of each row, not yet final
    stash: list[list[Tensor]] = field(default_factory=list)  # amateur's logits behind its drafts

    def __post_init__(self) -> None:
        self.waiting = [[] for _ in self.answers]
        self.contrasted = self.amateur is not None or isinstance(self.expert, TwinHalf)
        if self.drafter is not None or self.chooser.hooks.processors:
            self.defer = 0  # the amateur runs anyway; processors see each chosen token once

    def complete(self) -> None:
        """Rounds until every row is done."""
        while self.answers:
            begin = time.perf_counter()
            first = not max(self.expert.lengths)
            drafts = [[] for _ in self.answers] if first else self._draft()
            drafted = time.perf_counter()
            checked = self._check(drafts)
            for row in range(len(self.answers)):
                self._walk(row, checked)
            self._settle()
            self._roll_back()
            if not first:
                longest = max(len(d) for d in drafts)
                self.pace.proposed(longest, drafted - begin)
                self.pace.ran(longest, time.perf_counter() - drafted)
            self._drop_finished()

    def _fed(self, row: int) -> list[int]:
        """Prompt and answer of ``row`` with what waits."""
        return self.answers[row].context + [step.token for step in self.waiting[row]]

    def _draft(self) -> list[list[int]]:
        if self.drafter is None and self.ngrams is None:
            return [[] for _ in self.answers]
        limit, most = self.pace.length(), self.chooser.settings.max_new_tokens
        have = [a.position + len(w) for a, w in zip(self.answers, self.waiting, strict=True)]
        counts = [max(0, min(limit, most - n - 1)) for n in have]
        if self.ngrams is not None:
            rows = range(len(self.answers))
            return [self.ngrams[r].propose(self._fed(r), counts[r]) for r in rows]
        assert self.drafter is not None
        drafts, logits = self.drafter.propose(self.answers, counts, self.chooser)
        if self.drafter.half is self.amateur:
            self.stash = logits
        return drafts

    def _check(self, drafts: list[list[int]]) -> _Checked:
        """The expert over the tokens it has not seen and the drafts."""
        settings = self.chooser.settings
        fed = [self._fed(row) for row in range(len(drafts))]
        blocks = [f[n:] + d for f, n, d in zip(fed, self.expert.lengths, drafts, strict=True)]
        keep, weak = 1 + max(len(d) for d in drafts), None
        if isinstance(self.expert, TwinHalf):
            logits, weak = self.expert.run(blocks, keep)
        else:
            logits = self.expert.run(range(len(blocks)), blocks, keep)  # (rows, keep, vocabulary)
        contexts = []
        if settings.repetition_penalty != 1:
            for f, d in zip(fed, drafts, strict=True):
                ends = range(len(d) - keep + 1, len(d) + 1)
                contexts += [f + d[: max(end, 0)] for end in ends]
        strong = penalised(logits.flatten(0, 1), contexts, settings).view_as(logits)
        top, best = strong.max(-1)
        contested = torch.zeros(strong.shape[:2], dtype=torch.bool, device=strong.device)
        if self.contrasted:
            least = top[..., None] + math.log(settings.alpha)
            contested = (strong >= least).sum(-1) > 1  # contrast.plausible
            if settings.gate is not None:
                contested &= contrast.uncertain(strong, settings.gate)
        chosen, open_ = torch.stack([best, contested.long()]).tolist()  # one wait for the device
        return _Checked(strong, weak, chosen, open_, drafts)

    def _walk(self, row: int, checked: _Checked) -> None:
        """Go along the drafts as far as they agree, and one token further."""
        s, draft = self.chooser.settings, checked.drafts[row]
        blind = bool(self.chooser.hooks.processors)  # chosen later: follow the draft
        accepted, refused = 0, False
        for j in range(len(draft) + 1):
            step = self._step(row, checked, j)
            self.waiting[row].append(step)
            if j < len(draft) and blind:
                step.token = draft[j]
            elif j < len(draft):
                refused = step.token != draft[j]
                accepted += not refused
            full = self.answers[row].position + len(self.waiting[row]) >= s.max_new_tokens
            if refused or full or (step.token in s.stop_ids and not blind):
                break
        self.work.drafted += len(draft)
        if not blind:
            self._judge(accepted, refused)

    def _judge(self, accepted: int, refused: bool) -> None:
        self.pace.judged(accepted, refused)
        self.work.accepted += accepted

    def _step(self, row: int, checked: _Checked, j: int) -> _Step:
        """The token after ``j`` drafts of ``row``, given those before it."""
        at = checked.at(row, j)
        contested, token = bool(checked.contested[row][at]), checked.top[row][at]
        strong = checked.logits[row, at]
        if self.chooser.hooks.processors:
            return _Step(token, contested, open=contested, strong=strong)
        # One plausible token is the choice; behind a closed gate there may be several.
        lone = self.contrasted and self.chooser.settings.gate is None
        if not contested and (lone or self.chooser.settings.temperature == 0):
            return _Step(token, contested)
        ahead = self.answers[row].ahead([w.token for w in self.waiting[row]])
        weak = None
        if self.contrasted and not contested:
            weak = strong[None]  # the amateur does not count
        elif checked.weak is not None:
            weak = checked.weak[row, at][None]
        elif self.stash and j < len(self.stash[row]):
            weak = self.stash[row][j][None]
        if weak is not None or not self.contrasted:
            [token] = self.chooser.next_tokens(strong[None], weak, [ahead])
            return _Step(token, contested)
        token, lead = self.chooser.guess(strong, ahead)
        sure = self.defer > 0 and self.trust.may_wait(lead, self.chooser.settings.lam)
        # A copy, so that one row does not hold the logits of the whole block.
        return _Step(token, contested, open=True, strong=strong.clone(), sure=sure)

    def _due(self, row: int) -> bool:
        """Whether what waits has to be settled now."""
        s, steps = self.chooser.settings, self.waiting[row]
        undecided = [i for i, step in enumerate(steps) if step.open]
        if not undecided or any(not steps[i].sure for i in undecided):
            return True
        last = steps[-1].token in s.stop_ids
        full = self.answers[row].position + len(steps) >= s.max_new_tokens
        return last or full or len(steps) - undecided[0] >= self.defer

    def _settle(self) -> None:
        """Make final what waits, asking the amateur where that is due."""
        due = [row for row in range(len(self.answers)) if self._due(row)]
        if any(step.open for row in due for step in self.waiting[row]):
            soon = max(self.defer // 2, 1)  # due before long: one call for all of them
            rest = set(range(len(self.answers))) - set(due)
            due += [row for row in sorted(rest) if len(self.waiting[row]) >= soon]
        weak = self._ask(due)
        for row in due:
            self._accept(row, weak)
        self.stash = []

    def _ask(self, rows: list[int]) -> dict[tuple[int, int], Tensor]:
        """The amateur's logits (vocabulary,) by row and place in what waits, where they count."""
        # Nothing waits where the amateur drafts, so its drafts' places are those of this round.
        have = {(r, i): x for r, row in enumerate(self.stash) for i, x in enumerate(row)}
        missing: dict[int, list[int]] = {}
        for row in rows:
            for i, step in enumerate(self.waiting[row]):
                if step.open and (row, i) not in have:
                    missing.setdefault(row, []).append(i)
        return {**have, **self._run_amateur(missing)} if missing else have

    def _run_amateur(self, wanted: dict[int, list[int]]) -> dict[tuple[int, int], Tensor]:
        assert self.amateur is not None
        rows, blocks, columns = list(wanted), [], set()
        for row, places in wanted.items():
            steps = self.waiting[row][: places[-1]]
            fed = self.answers[row].context + [step.token for step in steps]
            blocks.append(fed[self.amateur.lengths[row] :])
            columns |= {place - places[-1] - 1 for place in places}  # counted from the end
        order = sorted(columns)
        keep = 1 if order == [-1] else order
        logits = self.amateur.run(rows, blocks, keep)
        place_of = {column: i for i, column in enumerate(order)}
        return {
            (row, place): logits[at, place_of[place - places[-1] - 1]]
            for at, (row, places) in enumerate(wanted.items())
            for place in places
        }

    def _accept(self, row: int, weak: dict[tuple[int, int], Tensor]) -> None:
        """Choose as the plain loop would, as far as the guesses agree."""
        answer, steps, agreed = self.answers[row], self.waiting[row], 0
        for place, step in enumerate(steps):
            token = self._choose(answer, step, weak.get((row, place)))
            self.work.contested += step.contested
            self.work.deferred += step.sure
            self.work.overruled += step.sure and token != step.token
            answer.take(token, self.chooser.settings, self.chooser.hooks)
            agreed += token == step.token
            if answer.done or token != step.token:
                break
        if self.chooser.hooks.processors and len(steps) > 1:
            drafted = len(steps) - 1
            self._judge(min(agreed, drafted), agreed < drafted and not answer.done)
        self.waiting[row] = []

    def _choose(self, answer: Answer, step: _Step, weak: Tensor | None) -> int:
        """The plain loop's token; ``weak``: the amateur's logits (vocabulary,), if asked for."""
        if step.strong is None:
            return step.token
        if self.contrasted and not step.open:  # one plausible token: the amateur does not count
            weak = step.strong
        given = None if weak is None else weak[None]
        [token] = self.chooser.next_tokens(step.strong[None], given, [answer])
        if step.open and weak is not None and self.defer:
            allowed = contrast.plausible(step.strong, self.chooser.settings.alpha)
            self.trust.saw(step.strong, weak, allowed, step.token)
        return token

    def _roll_back(self) -> None:
        for row in range(len(self.answers)):
            length = len(self._fed(row)) - 1
            self.expert.roll_back(row, length)
            for half in self._others():
                half.roll_back(row, length)

    def _others(self) -> list[Half]:
        """Each further model once: the amateur may also be the drafter."""
        halves = [] if self.amateur is None else [self.amateur]
        if self.drafter is not None and self.drafter.half is not self.amateur:
            halves.append(self.drafter.half)
        return halves

    def _drop_finished(self) -> None:
        left = [i for i, a in enumerate(self.answers) if not a.done]
        if len(left) == len(self.answers):
            return
        self.answers = [self.answers[i] for i in left]
        self.waiting = [self.waiting[i] for i in left]
        if self.ngrams is not None:
            self.ngrams = [self.ngrams[i] for i in left]
        self.expert.keep(left)
        for half in self._others():
            half.keep(left)
