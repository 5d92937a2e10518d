"""The rows of an audit: held-out texts, and two pools that every run draws its rows from.

A pool's rows stand in an order by the seed.  What a run trains on is taken from the front, so that
a longer run begins with a shorter one whatever the study's size; what further experiments need is
taken from the back.  Where an algorithm learns two answers to one prompt and the prompts are the
data's own, :class:`PairedData` gives rows that belong together.
"""

from __future__ import annotations

import functools
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from springback.core import ALGORITHMS, Checkpoint, Row, Slice
from springback.data import check_disjoint, content_key, is_built_in, load_slice, split_rows
from springback.errors import DataError
from springback.jobs.audit.protections import most_beside
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import encode_prompt
from springback.models.loading import Tokenizer, load_tokenizer, resolve
from springback.training import with_prompt

#: Rows of a built-in pool: one number for every study, so that its order by seed is one order.
POOL = 2048


@dataclass(frozen=True)
class Data:
    """Held-out texts of both sides, and the pools.

    ``back``: rows at a pool's end by purpose.  ``left_out``: by source, how many rows have a
    prompt that leaves no room for an answer.
    """

    align: Slice
    perturb: Slice
    wanted: Slice
    unwanted: Slice
    benign: Slice | None = None
    back: Mapping[str, Mapping[str, int]] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def aligning(self, seed: int, n: int) -> Slice:
        return front(self.align, seed, n)

    def perturbing(self, seed: int, n: int) -> Slice:
        return front(self.perturb, seed, n)

    def attacking(self, seed: int, n: int, draw: int) -> Slice:
        """``n`` perturbing rows in the order of another seed, ``draw``.

        None of them is one that the study of ``seed`` learned against.
        """
        purposes = [name for name, size in dict((self.back or {})["perturb"]).items() if size]
        used = {row for name in purposes for row in self.reserved("perturb", name, seed).rows}
        pool = front(self.perturb, draw, len(self.perturb))
        free = [row for row in pool.rows if row not in used]
        return Slice.of(pool.name, pool.source, free[:n], draw)

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


class PromptFilter:
    """Whether a row's prompt leaves room for an answer, by the tokenizer of the study's model."""

    def __init__(self, settings: AuditSettings) -> None:
        self.settings = settings

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        return resolve(self.settings.model, self.settings.revision)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.checkpoint)

    @functools.cached_property
    def _around(self) -> int:
        """Tokens of the template around one turn, and some more."""
        return len(encode_prompt(self.tokenizer, Row("pair", "x", "x"))) + 8

    def fits(self, row: Row) -> bool:
        """Whether :func:`springback.models.encoding.encode_row` will take the row."""
        if self.settings.prompt is not None:
            row = with_prompt(row, self.settings.prompt)
        if row.kind == "text":
            return True
        texts = "".join([*(text for _, text in row.turns), row.prompt])
        # No token is shorter than a byte, so most rows need not be encoded.
        if len(texts.encode()) + self._around * (1 + len(row.turns)) < self.settings.max_tokens:
            return True
        return len(encode_prompt(self.tokenizer, row)) < self.settings.max_tokens


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


def load_data(settings: AuditSettings, prompt_filter: PromptFilter | None = None) -> Data:
    """The rows by the study's settings; the held-out ones are the same for every seed.

    Both sides may answer the same prompts (safe and unsafe answers): prompts are then held out of
    both sides together.  Rows that ``prompt_filter`` refuses are left out and counted (None: it
    takes all).  Raises
    :class:`DataError` where a source has too few rows, or a row stands on two sides.
    """
    longest, dose = max(settings.n_pos), max(settings.doses)
    again = longest if "realign" in settings.experiments else 0
    both = ALGORITHMS[settings.algorithm].preference
    swapped = ALGORITHMS[settings.perturb_algorithm].preference
    back = {
        "align": {
            "resistance": 4 * settings.resistance_rows,
            "again": again,
            "against perturb": dose * swapped,
            "beside": most_beside(settings.mitigate, settings.batch_size, dose),
        },
        "perturb": {"against align": longest * both, "against again": again * both},
    }
    align = _Side(settings.align, settings, prompt_filter, longest + sum(back["align"].values()))
    perturb = _Side(settings.perturb, settings, prompt_filter, dose + sum(back["perturb"].values()))
    wanted, unwanted = align.held(), perturb.held()
    benign = None
    left_out = align.left_out | perturb.left_out
    shares = [m for m in settings.mix if m]
    before_repair = settings.repair_rows * ("repair" in settings.experiments)
    if shares or before_repair:
        needed = max(math.ceil(max(shares, default=0) * dose), before_repair)
        side = _Side(settings.benign, settings, prompt_filter, needed)
        benign, left_out = side.front(), left_out | side.left_out
    data = Data(
        align.pool(unwanted), perturb.pool(wanted), wanted, unwanted, benign, back, left_out
    )
    _check(data)
    data = _with_prompts(data, settings.prompt)
    algorithms = (settings.algorithm, settings.perturb_algorithm)
    paired = any(ALGORITHMS[name].learns == "pairs" for name in algorithms)
    prompts = {(row.turns, row.prompt) for part in (data.align, data.perturb) for row in part.rows}
    if len(prompts) < 2 or not paired:
        return data
    return _paired(data, settings, longest, again, dose)


def _paired(data: Data, settings: AuditSettings, longest: int, again: int, dose: int) -> PairedData:
    """The same data in pairs; raises :class:`DataError` where there are too few."""
    aligns_pairs = ALGORITHMS[settings.algorithm].learns == "pairs"
    by_pairs = ALGORITHMS[settings.perturb_algorithm].learns == "pairs"
    data_fields = {f.name: getattr(data, f.name) for f in fields(data)}
    paired = PairedData(
        **data_fields, longest=longest, again=again, dose=dose, perturbs_pairs=by_pairs
    )
    there = len(pairs_of(data.align, data.perturb, 0))
    if there < paired.needed:
        which = settings.algorithm if aligns_pairs else settings.perturb_algorithm
        raise DataError(
            f"{which} learns two answers to one prompt, and the study needs {paired.needed} "
            f"prompts that {settings.align!r} and {settings.perturb!r} both answer, beside "
            f"held-out ones; there are {there}; ask for fewer, give both the same prompts, or use "
            "kto, which takes answers to any"
        )
    return paired


class _Side:
    """One side's source, read once: held-out rows, and the pool of all others."""

    def __init__(
        self, source: str, settings: AuditSettings, prompt_filter: PromptFilter | None, needed: int
    ) -> None:
        self.source, self.holdout, self.built_in = source, settings.holdout, is_built_in(source)
        self.needed, self.prompt_filter = needed, prompt_filter
        self.max_tokens = settings.max_tokens
        limit = max(POOL, self.needed) if self.built_in else None
        every = load_slice(source, fields=settings.fields or None, limit=limit)
        self.rows = self._fitting(every)
        gone = len(every) - len(self.rows)
        self.left_out = {source: gone} if gone else {}

    def _fitting(self, part: Slice) -> Slice:
        """Without the rows whose prompt fills all of ``max_tokens``: they have nothing to teach."""
        if self.prompt_filter is None:
            return part
        rows = [row for row in part.rows if self.prompt_filter.fits(row)]
        if len(rows) == len(part):
            return part
        if not rows:
            raise DataError(
                f"no row of {self.source!r} has room for an answer within {self.max_tokens} "
                "tokens, prompt and chat template included; raise --max-tokens or give other data"
            )
        return Slice.of(part.name, part.source, rows, part.seed)

    def front(self) -> Slice:
        """The first rows, as many as are needed."""
        if len(self.rows) < self.needed:
            raise self._too_few(self.needed, len(self.rows))
        return self.rows.take(self.needed)

    def held(self) -> Slice:
        if self.built_in:  # it has a split of its own
            return self._fitting(load_slice(self.source, limit=self.holdout, split="test"))
        return split_rows(self.rows, {"holdout": self.holdout}, 0)["holdout"]

    def pool(self, others: Slice) -> Slice:
        """Every other row once; none has a prompt that is held out here or in ``others``."""
        if self.built_in:
            if len(self.rows) < self.needed:
                raise self._too_few(self.needed, len(self.rows))
            return self.rows
        barred = {content_key(row) for part in (self.held(), others) for row in part.rows}
        kept: dict[tuple[str, str], Row] = {}
        for row in self.rows.rows:
            key = content_key(row)
            if key not in barred:
                kept.setdefault((key, row.response if row.prompt else ""), row)
        if len(kept) < self.needed:
            raise self._too_few(self.needed, len(kept), f" beside {self.holdout} held-out ones")
        return Slice.of(self.rows.name, self.rows.source, kept.values(), self.rows.seed)

    def _too_few(self, needed: int, there: int, beside: str = "") -> DataError:
        gone = sum(self.left_out.values())
        why = f" ({gone} have no room for an answer within --max-tokens)" if gone else ""
        return DataError(
            f"the study needs {needed} rows of {self.source!r} to train on{beside}; there are "
            f"{there} different ones{why}; ask for fewer or give more data"
        )


def _check(data: Data) -> None:
    """No held-out prompt in training, and no row on two sides of it."""
    given = [part for part in (data.align, data.perturb, data.benign) if part is not None]
    for held in (data.wanted, data.unwanted):
        for part in given:
            check_disjoint(part, held)
    if all(not row.prompt for row in (*data.wanted.rows, *data.unwanted.rows)):
        check_disjoint(data.wanted, data.unwanted)
    for i, a in enumerate(given):
        rows = {(row.turns, row.prompt, row.response) for row in a.rows}
        for b in given[i + 1 :]:
            if shared := sum((row.turns, row.prompt, row.response) in rows for row in b.rows):
                raise DataError(
                    f"{shared} of the {len(b)} rows of {b.name!r} ({b.source}) are also in "
                    f"{a.name!r} ({a.source}); allowed: none; remove them from one of the two"
                )


def _with_prompts(data: Data, prompt: str | None) -> Data:
    """Bare texts as answers to ``prompt``, in training and probes alike."""
    if prompt is None:
        return data

    def answer(part: Slice) -> Slice:
        rows = [with_prompt(row, prompt) for row in part.rows]
        return Slice.of(part.name, part.source, rows, part.seed)

    return replace(
        data,
        align=answer(data.align),
        perturb=answer(data.perturb),
        wanted=answer(data.wanted),
        unwanted=answer(data.unwanted),
        benign=data.benign and answer(data.benign),
    )
