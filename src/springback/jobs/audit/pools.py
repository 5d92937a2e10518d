"""The two pools that every run of an audit draws its rows from, and in which order.

A pool's rows stand in an order by the seed.  What a run trains on is taken from the front, so that
a longer run begins with a shorter one whatever the study's size; what further experiments need is
taken from the back.  Where an algorithm learns two answers to one prompt and the prompts are the
data's own, :class:`PairedData` gives rows that belong together, and :class:`PreferenceData` those
of files that hold two answers to each prompt.
"""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from springback.core import Row, Slice
from springback.errors import DataError


@dataclass(frozen=True)
class Data:
    """Held-out texts of both sides, and the pools.

    ``back``: rows at a pool's end by purpose.  ``left_out``: by source, how many rows have a
    prompt that leaves no room for an answer.  ``neutral``: rows of the control of that name;
    ``controls_left_out``: by control, why this data has none.
    """

    align: Slice
    perturb: Slice
    wanted: Slice
    unwanted: Slice
    benign: Slice | None = None
    back: Mapping[str, Mapping[str, int]] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    neutral: Slice | None = None
    controls_left_out: Mapping[str, str] = field(default_factory=dict)

    def aligning(self, seed: int, n: int) -> Slice:
        return front(self.align, seed, n)

    def perturbing(self, seed: int, n: int) -> Slice:
        return front(self.perturb, seed, n)

    def attacking(self, seed: int, n: int, draw: int) -> Slice:
        """``n`` perturbing rows in the order of another seed, ``draw``.

        None of them is one that the study of ``seed`` learned against.
        """
        pool, used = front(self.perturb, draw, len(self.perturb)), self._learned_against(seed)
        free = [row for row in pool.rows if row not in used]
        return Slice.of(pool.name, pool.source, free[:n], draw)

    def _learned_against(self, seed: int) -> set[Row]:
        purposes = [name for name, size in dict((self.back or {})["perturb"]).items() if size]
        return {row for name in purposes for row in self.reserved("perturb", name, seed).rows}

    def preferring(self, seed: int, n: int, draw: int | None = None) -> Slice:
        """``n`` perturbing rows as :meth:`attacking` draws them, each with an answer to learn
        against: its own, or an aligning row's to the same prompt, which may be one that the model
        was aligned with.

        Raises :class:`DataError` where too few rows have one.
        """
        drawn, used = seed if draw is None else draw, self._learned_against(seed)
        both = pairs_of(self.align, self.perturb, drawn)
        if all(row.rejected for row in self.perturb.rows):
            rows = list(front(self.perturb, drawn, len(self.perturb)).rows)
        else:
            rows = [replace(bad, rejected=good.response) for good, bad in both if bad not in used]
        if len(rows) < n:
            raise DataError(
                f"--attackers with pairs of answers (orpo) needs {n} prompts of "
                f"{self.perturb.source!r} that {self.align.source!r} answers too; there are "
                f"{len(rows)}; give both sides answers to the same prompts, or fewer --doses"
            )
        return Slice.of(f"{self.perturb.name}, preferred", self.perturb.source, rows[:n], drawn)

    def benign_for(self, part: Slice) -> Slice:
        """As many benign rows as ``part`` has, in the order of its seed."""
        assert self.benign is not None  # loaded where something asks for them
        return front(self.benign, part.seed, len(part))

    def reserved(self, side: str, purpose: str, seed: int) -> Slice:
        """The rows at the end of the pool ``side`` (align, perturb) for ``purpose``.

        From the last one backwards, so that more of them begin with fewer.
        """
        sizes = dict((self.back or {}).get(side, {}))
        pool = self.align if side == "align" else self.perturb
        end = len(pool)
        for name, size in sizes.items():
            if name == purpose:
                kept = _cut(pool, seed, end - size, end)
                return Slice.of(kept.name, kept.source, kept.rows[::-1], seed)
            end -= size
        raise KeyError(f"no rows of {side} for {purpose}; there are some for {', '.join(sizes)}")


@dataclass(frozen=True)
class PairedData(Data):
    """Rows with prompts of their own for DPO and SimPO, which need both sides' answers to each.

    The prompts that both sides answer stand in the perturbing pool's order.  Perturbing begins at
    the front of that pool as ever (with pairs: at the first prompts), aligning at the last prompt,
    and aligning again (``again`` prompts) before the ``longest`` last ones; no pair serves two.
    """

    longest: int = 0
    again: int = 0
    dose: int = 0
    perturbs_pairs: bool = False

    @property
    def needed(self) -> int:
        """How many prompts both sides must answer."""
        return self.longest + self.again + self.dose

    def _part(self, side: str, phase: str, seed: int, n: int | None = None) -> Slice:
        """The first ``n`` of the side's answers to the prompts of align, again or perturb."""
        pairs, last = pairs_of(self.align, self.perturb, seed), self.longest + self.again
        chosen = {
            "align": pairs[::-1][: self.longest],
            "again": pairs[::-1][self.longest : last],
            "perturb": pairs[: self.dose],
        }[phase]
        pool, column = (self.align, 0) if side == "align" else (self.perturb, 1)
        return Slice.of(pool.name, pool.source, [pair[column] for pair in chosen[:n]], seed)

    def aligning(self, seed: int, n: int) -> Slice:
        return self._part("align", "align", seed, n)

    def perturbing(self, seed: int, n: int) -> Slice:
        if self.perturbs_pairs:
            return self._part("perturb", "perturb", seed, n)
        return super().perturbing(seed, n)

    def reserved(self, side: str, purpose: str, seed: int) -> Slice:
        """As in :class:`Data`; ``against PHASE``: the answers to the prompts that it learns."""
        if purpose != "resistance":
            return self._part(side, purpose.removeprefix("against "), seed)
        phases = ("align", "again", *(["perturb"] if self.perturbs_pairs else []))
        used = {row for phase in phases for row in self._part("align", phase, seed).rows}
        free = [row for row in front(self.align, seed, len(self.align)).rows if row not in used]
        size = dict((self.back or {})["align"])["resistance"]
        return Slice.of(self.align.name, self.align.source, free[:size], seed)


@dataclass(frozen=True)
class PreferenceData(Data):
    """Rows that each have their own answer to learn against, for every side that needs one."""

    longest: int = 0
    dose: int = 0

    def reserved(self, side: str, purpose: str, seed: int) -> Slice:
        """As in :class:`Data`; ``against PHASE``: the rejected answers of the rows it learns."""
        if not purpose.startswith("against "):
            return super().reserved(side, purpose, seed)
        phase = purpose.removeprefix("against ")
        if phase == "again":
            learned = super().reserved("align", "again", seed)
        elif phase == "align":
            learned = self.aligning(seed, self.longest)
        else:
            learned = self.perturbing(seed, self.dose)
        rows = [replace(row, response=row.rejected or "", rejected=None) for row in learned.rows]
        return Slice.of(learned.name, learned.source, rows, seed)


@functools.lru_cache(maxsize=64)
def pairs_of(align: Slice, perturb: Slice, seed: int) -> tuple[tuple[Row, Row], ...]:
    """Rows of both pools with the same prompt and turns, each once, in the order of ``perturb``."""
    waiting: dict[object, list[Row]] = defaultdict(list)
    for row in reversed(front(align, seed, len(align)).rows):
        waiting[row.turns, row.prompt].append(row)
    pairs = []
    for row in front(perturb, seed, len(perturb)).rows:
        if others := waiting[row.turns, row.prompt]:
            pairs.append((others.pop(), row))
    return tuple(pairs)


@functools.lru_cache(maxsize=64)
def _order(size: int, seed: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return tuple(order)


@functools.lru_cache(maxsize=256)
def _cut(pool: Slice, seed: int, begin: int, end: int) -> Slice:
    """Rows ``begin`` to ``end`` of the pool in the order of ``seed``."""
    rows = [pool.rows[i] for i in _order(len(pool), seed)[begin:end]]
    return Slice.of(pool.name, pool.source, rows, seed)


def front(pool: Slice, seed: int, n: int) -> Slice:
    """The first ``n`` rows in the order of ``seed``."""
    return _cut(pool, seed, 0, n)
