"""The rounds of the fast decoder: draft, check, ask the amateur where needed, accept, roll back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from springback.decoding import contrast
from springback.decoding.deferral import DeferralPolicy
from springback.decoding.drafts import ModelDrafts, NgramIndex, Pace
from springback.decoding.ragged_cache import CachedModel, CachedPair
from springback.decoding.sampling import Answer, Chooser, penalised
from springback.decoding.settings import Work

#: What asking the amateur about a batch costs, in rounds of the expert.
ASKING = 1.0


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
    """One token of a row: certain, or taken until the amateur has been run on it."""

    token: int
    contested: bool
    open: bool = False  # the amateur is to be asked
    strong: Tensor | None = None  # the expert's logits (vocabulary,), where still to be chosen
    sure: bool = False  # may wait
    risk: float = 0.0  # of being overruled


@dataclass
class _Since:
    """What happened since the amateur was last asked, in a batch."""

    rounds: int = 0
    tokens: int = 0  # certain, so final without it


@dataclass
class Batch:
    """The rows of a batch that are not finished, and the state of both models for them."""

    answers: list[Answer]
    chooser: Chooser
    expert: CachedModel | CachedPair
    amateur: CachedModel | None  # None without contrast, and where the expert is a CachedPair
    drafter: ModelDrafts | None
    ngrams: list[NgramIndex] | None
    pace: Pace = field(default_factory=lambda: Pace(None))
    deferral: DeferralPolicy = field(default_factory=DeferralPolicy)
    work: Work = field(default_factory=Work)
    defer: int = 0
    waiting: list[list[_Step]] = field(default_factory=list)  # of each row, not yet final
    stash: list[list[Tensor]] = field(default_factory=list)  # amateur's logits behind its drafts
    since: _Since = field(default_factory=_Since)

    def __post_init__(self) -> None:
        self.waiting = [[] for _ in self.answers]
        self.contrasted = self.amateur is not None or isinstance(self.expert, CachedPair)
        if self.drafter is not None or self.chooser.hooks.processors:
            self.defer = 0  # the amateur runs anyway; processors see each chosen token once

    @property
    def together(self) -> bool:
        """Whether rows share the amateur's calls."""
        return len(self.answers) > 1

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
            walked = time.perf_counter()
            self._settle()
            self._roll_back()
            if not first:
                longest = max(len(d) for d in drafts)
                if longest:
                    self.pace.drafting(sum(map(bool, drafts)), len(drafts))
                self.pace.proposed(longest, drafted - begin)
                # Rows that share the amateur's calls need as many, however long a round is.
                end = walked if self.together else time.perf_counter()
                self.pace.ran(longest, end - drafted)
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
        if self.drafter.model is self.amateur:
            self.stash = logits
        return drafts

    def _check(self, drafts: list[list[int]]) -> _Checked:
        """The expert over the tokens it has not seen and the drafts."""
        settings = self.chooser.settings
        fed = [self._fed(row) for row in range(len(drafts))]
        blocks = [f[n:] + d for f, n, d in zip(fed, self.expert.lengths, drafts, strict=True)]
        keep, weak = 1 + max(len(d) for d in drafts), None
        if isinstance(self.expert, CachedPair):
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
        column = checked.at(row, j)
        contested, token = bool(checked.contested[row][column]), checked.top[row][column]
        strong = checked.logits[row, column]
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
            weak = checked.weak[row, column][None]
        elif self.stash and j < len(self.stash[row]):
            weak = self.stash[row][j][None]
        if weak is not None or not self.contrasted:
            [token] = self.chooser.next_tokens(strong[None], weak, [ahead])
            return _Step(token, contested)
        token, lead = self.chooser.guess(strong, ahead)
        lam, sure, risk = self.chooser.settings.lam, False, 0.0
        if self.defer and self.together:
            sure, risk = True, self.deferral.chance(lead, lam)
        elif self.defer:
            sure = self.deferral.may_wait(lead, lam)
        # A copy, so that one row does not hold the logits of the whole block.
        return _Step(token, contested, open=True, strong=strong.clone(), sure=sure, risk=risk)

    def _due_rows(self) -> list[int]:
        """Rows to settle: each when it is due, or with ``together`` all that wait at once."""
        rows = range(len(self.answers))
        if not (self.defer and self.together):
            return [row for row in rows if self._due(row)]
        self.since.rounds += 1
        certain = [row for row in rows if not any(step.open for step in self.waiting[row])]
        if len(certain) < len(rows) and self._worth_asking():
            self.since = _Since()
            return list(rows)
        self.since.tokens += sum(len(self.waiting[row]) for row in certain)
        return certain

    def _due(self, row: int) -> bool:
        """Whether what waits of ``row`` has to be settled now, whatever the others do."""
        undecided = [i for i, step in enumerate(self.waiting[row]) if step.open]
        if not undecided or any(not self.waiting[row][i].sure for i in undecided):
            return True
        return self._ended(row) or len(self.waiting[row]) - undecided[0] >= self.defer

    def _ended(self, row: int) -> bool:
        """Whether nothing can follow what waits."""
        s, steps = self.chooser.settings, self.waiting[row]
        full = self.answers[row].position + len(steps) >= s.max_new_tokens
        return full or steps[-1].token in s.stop_ids

    def _settle(self) -> None:
        """Make final what waits, asking the amateur where that is due."""
        due = self._due_rows()
        weak = self._ask(due)
        for row in due:
            self._accept(row, weak)
        self.stash = []

    def _worth_asking(self) -> bool:
        """Whether tokens come sooner if the amateur is asked now than one round later.

        A call costs about as much for one row as for all, so they are asked together.  Each row's
        guesses hold up to the first that is overruled, that one included.  Waiting pays as long as
        the tokens that the next round is expected to add, in its time, are more than the average
        since the last call, the coming one included (the marginal value theorem).
        """
        settled, coming, guessed = float(self.since.tokens), 0.0, self.since.tokens
        for row, steps in enumerate(self.waiting):
            first = next((i for i, step in enumerate(steps) if step.open), len(steps))
            if len(steps) - first >= self.defer:
                return True
            alive = 1.0
            for step in steps:
                settled += alive
                alive *= 1 - step.risk
            guessed += len(steps)
            coming += 0.0 if self._ended(row) else alive
        a_round = guessed / (self.since.rounds * len(self.answers))  # tokens a row, if all stand
        return coming * a_round * (self.since.rounds + ASKING) <= settled

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
        needed = {row: self._unread(row, places[-1]) for row, places in wanted.items()}
        blocks = self._filled(needed)
        columns: dict[tuple[int, int], int] = {}  # of a row's place, counted from the block's end
        for row, places in wanted.items():
            behind = len(blocks[row]) - len(needed[row])
            columns |= {(row, p): p - places[-1] - 1 - behind for p in places}
        order = sorted(set(columns.values()))
        keep = 1 if order == [-1] else order
        logits = self.amateur.run(list(blocks), list(blocks.values()), keep)
        row_of = {row: i for i, row in enumerate(blocks)}
        place_of = {column: i for i, column in enumerate(order)}
        return {(r, p): logits[row_of[r], place_of[c]] for (r, p), c in columns.items()}

    def _unread(self, row: int, place: int) -> list[int]:
        """What the amateur has not read of ``row`` before ``place`` in what waits."""
        assert self.amateur is not None
        before = [step.token for step in self.waiting[row][:place]]
        return (self.answers[row].context + before)[self.amateur.lengths[row] :]

    def _filled(self, needed: dict[int, list[int]]) -> dict[int, list[int]]:
        """The blocks with what waits behind them, as far as it goes in the width of the widest.

        They are padded to it, so reading on costs nothing, and the next block is shorter.
        """
        width = max(map(len, needed.values()))
        further = {row: self._unread(row, len(self.waiting[row]))[:-1][:width] for row in needed}
        return {row: max(block, further[row], key=len) for row, block in needed.items()}

    def _accept(self, row: int, weak: dict[tuple[int, int], Tensor]) -> None:
        """Choose as the plain loop would, as far as the guesses agree."""
        answer, steps, agreed = self.answers[row], self.waiting[row], 0
        for place, step in enumerate(steps):
            token = self._choose(answer, step, weak.get((row, place)))
            self.work.contested += step.contested
            deferred = step.sure and place + 1 < len(steps)  # something was built upon it
            self.work.deferred += deferred
            self.work.overruled += deferred and token != step.token
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
            self.deferral.observe(step.strong, weak, allowed, step.token)
        return token

    def _roll_back(self) -> None:
        for row in range(len(self.answers)):
            length = len(self._fed(row)) - 1
            self.expert.roll_back(row, length)
            for model in self._others():
                model.roll_back(row, length)

    def _others(self) -> list[CachedModel]:
        """Each further model once: the amateur may also be the drafter."""
        models = [] if self.amateur is None else [self.amateur]
        if self.drafter is not None and self.drafter.model is not self.amateur:
            models.append(self.drafter.model)
        return models

    def _drop_finished(self) -> None:
        left = [i for i, a in enumerate(self.answers) if not a.done]
        if len(left) == len(self.answers):
            return
        self.answers = [self.answers[i] for i in left]
        self.waiting = [self.waiting[i] for i in left]
        if self.ngrams is not None:
            self.ngrams = [self.ngrams[i] for i in left]
        self.expert.keep(left)
        for model in self._others():
            model.keep(left)
