"""The rows of an audit as its settings ask for them: held-out texts, and the two pools."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Literal

from springback.core import ALGORITHMS, Checkpoint, Row, Slice
from springback.data import check_disjoint, content_key, is_built_in, load_slice, split_rows
from springback.errors import DataError
from springback.jobs.audit.attackers import ATTACKERS, function
from springback.jobs.audit.branches import attacks
from springback.jobs.audit.pools import Data, PairedData, PreferenceData, pairs_of
from springback.jobs.audit.protections import most_beside
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import encode_prompt
from springback.models.loading import Tokenizer, load_tokenizer, resolve
from springback.training import with_prompt

#: Rows of a built-in pool: one number for every study, so that its order by seed is one order.
POOL = 2048


class PromptFilter:
    """Whether a row's prompt leaves room for an answer, by the tokenizer of the study's model."""

    def __init__(self, settings: AuditSettings) -> None:
        self.settings = settings
        #: By kind, turns and prompt, which many rows may share.
        self._known: dict[tuple[object, ...], bool] = {}

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        return resolve(self.settings.model, self.settings.revision)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.checkpoint, self.settings)

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
        key = row.kind, row.turns, row.prompt
        if key not in self._known:
            tokens = len(encode_prompt(self.tokenizer, row))
            self._known[key] = tokens < self.settings.max_tokens
        return self._known[key]


def load_data(
    settings: AuditSettings,
    prompt_filter: PromptFilter | None = None,
    note: Callable[[str], None] = lambda text: None,
    *,
    opposite: bool = False,
) -> Data:
    """The rows by the study's settings; the held-out ones are the same for every seed.

    Of a file with chosen and rejected answers a side learns the chosen ones, and a preference
    algorithm against the rejected ones.  Where it is both sides, perturbing learns the rejected
    ones (``opposite``: aligning does).  ``note`` is told what was concluded from the data.

    Both sides may answer the same prompts (safe and unsafe answers): prompts are then held out of
    both sides together.  Rows that ``prompt_filter`` refuses are left out and counted (None: it
    takes all).  Raises
    :class:`DataError` where a source has too few rows, or a row stands on two sides.
    """
    longest, dose = max(settings.n_pos), max(settings.doses)
    again = longest if "realign" in settings.experiments else 0
    algorithms = ALGORITHMS[settings.algorithm], ALGORITHMS[settings.perturb_algorithm]
    given, both_answers = _given(settings, note, opposite)
    both, swapped = (algorithm.preference and not both_answers for algorithm in algorithms)
    back = {
        "align": {
            "resistance": 4 * settings.resistance_rows,
            "again": again,
            "against perturb": dose * swapped,
            "beside": most_beside(settings.mitigate, settings.batch_size, dose),
        },
        "perturb": {"against align": longest * both, "against again": again * both},
    }
    needed = longest + sum(back["align"].values()), dose + sum(back["perturb"].values())
    align: _Side | _NoSide = _NoSide()
    if settings.align:
        align = _Side(settings.align, settings, prompt_filter, needed[0], given[0])
    elif needed[0]:
        raise DataError(
            f"{settings.perturb_algorithm} learns against wanted answers, and there are none; name "
            f"some with --align, or let every row of {settings.perturb!r} bring its own"
        )
    perturb = _Side(settings.perturb, settings, prompt_filter, needed[1], given[1])
    wanted, unwanted = align.held, perturb.held
    left_out = align.left_out | perturb.left_out
    data = Data(align.pool(unwanted), perturb.pool(wanted), wanted, unwanted, None, back, left_out)
    _check(data)
    most = settings.repair_rows * ("repair" in settings.experiments)
    for attack in attacks(settings):
        most = max(most, dose if attack.info.benign_rows else math.ceil(attack.mix * dose))
    if most:
        side = _Side(settings.benign, settings, prompt_filter, most)
        data = replace(data, benign=side.apart(data), left_out=left_out | side.left_out)
    data = _with_controls(data, settings, prompt_filter)
    data = _with_prompts(data, settings.prompt)
    _check_answered(data, settings)
    paired = any(algorithm.learns == "pairs" for algorithm in algorithms)
    prompts = {(row.turns, row.prompt) for part in (data.align, data.perturb) for row in part.rows}
    if both_answers:
        parts = {f.name: getattr(data, f.name) for f in fields(data)}
        data = PreferenceData(**parts, longest=longest, dose=dose)
    elif len(prompts) > 1 and paired:
        data = _paired(data, settings, longest, again, dose)
    for name in settings.attackers:
        if (check := ATTACKERS[name].check) is not None:
            function(check)(settings, data)
    return data


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


def _given(
    settings: AuditSettings, note: Callable[[str], None], opposite: bool
) -> tuple[list[Slice | None], bool]:
    """Both sides' rows as their files have them, None for built-in data; and whether all sides that
    learn against something bring it along, as rejected answers to their own prompts."""
    sources, named = (settings.align, settings.perturb), settings.fields or None
    rows = {
        source: None
        if not source or is_built_in(source)
        else load_slice(source, fields=named, note=note)
        for source in dict.fromkeys(sources)
    }
    whole = rows[settings.align]
    if len(rows) == 1 and whole is not None and all(row.rejected for row in whole.rows):
        if not opposite:
            note(
                f"{settings.align} is both sides: aligned on its chosen answers, perturbed with "
                "its rejected ones"
            )
        sides = [_with_answer(whole, "chosen"), _with_answer(whole, "rejected")]
        return [*(sides[::-1] if opposite else sides)], False
    names = settings.algorithm, settings.perturb_algorithm
    against = [ALGORITHMS[name].preference for name in names]
    parts = [rows[source] for source in sources]
    both_answers = any(against) and all(
        part is not None and all(row.rejected for row in part.rows)
        for part, needs in zip(parts, against, strict=True)
        if needs
    )
    kept = [
        part if part is None or (both_answers and needs) else _with_answer(part, "chosen")
        for part, needs in zip(parts, against, strict=True)
    ]
    return kept, both_answers


def _with_answer(part: Slice, answer: Literal["chosen", "rejected"]) -> Slice:
    """The rows of a file of preferences with one of their two answers alone."""
    if not any(row.rejected for row in part.rows):
        return part
    rows = [
        replace(row, rejected=None, response=row.rejected or row.response)
        if answer == "rejected"
        else replace(row, rejected=None)
        for row in part.rows
    ]
    return Slice.of(part.name, part.source, rows, part.seed)


class _Side:
    """One side's source, read once: held-out rows, and the pool of all others."""

    def __init__(
        self,
        source: str,
        settings: AuditSettings,
        prompt_filter: PromptFilter | None,
        needed: int,
        given: Slice | None = None,
    ) -> None:
        """``given``: the source's rows where they are read already."""
        self.source, self.holdout, self.built_in = source, settings.holdout, is_built_in(source)
        self.needed, self.prompt_filter = needed, prompt_filter
        self.max_tokens = settings.max_tokens
        limit = max(POOL, self.needed) if self.built_in else None
        every = given or load_slice(source, fields=settings.fields or None, limit=limit)
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

    def apart(self, data: Data) -> Slice:
        """Every row that the study has nowhere else: each seed draws its own of them."""
        held = {content_key(row) for part in (data.wanted, data.unwanted) for row in part.rows}
        taught = {_content(row) for part in (data.align, data.perturb) for row in part.rows}
        free = [
            row
            for row in self.rows.rows
            if content_key(row) not in held and _content(row) not in taught
        ]
        if len(free) < self.needed:
            raise self._too_few(self.needed, len(free), " beside those that it has elsewhere")
        return Slice.of(self.rows.name, self.rows.source, free, self.rows.seed)

    @functools.cached_property
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
        barred = {content_key(row) for part in (self.held, others) for row in part.rows}
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


class _NoSide:
    """The wanted side of a finished model where none is named: no rows at all."""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}

    @property
    def held(self) -> Slice:
        return Slice.of("none", "none", (), 0)

    def pool(self, others: Slice) -> Slice:
        return self.held


def _content(row: Row) -> tuple[object, ...]:
    return row.turns, row.prompt, row.response


def _check(data: Data) -> None:
    """No held-out prompt in training, and no row on both sides of it."""
    a, b = data.align, data.perturb
    for held in filter(None, (data.wanted, data.unwanted)):
        for part in filter(None, (a, b)):
            check_disjoint(part, held)
    if data.wanted and all(not row.prompt for row in (*data.wanted.rows, *data.unwanted.rows)):
        check_disjoint(data.wanted, data.unwanted)
    rows = {_content(row) for row in a.rows}
    if shared := sum(_content(row) in rows for row in b.rows):
        raise DataError(
            f"{shared} of the {len(b)} rows of {b.name!r} ({b.source}) are also in "
            f"{a.name!r} ({a.source}); allowed: none; remove them from one of the two"
        )


def _with_controls(data: Data, settings: AuditSettings, prompt_filter: PromptFilter | None) -> Data:
    """The same data with the neutral rows, and why a control that is asked for cannot be had.

    A control is no reason to refuse a study.
    """
    asked = {*settings.controls} & {"neutral", "shuffled"}
    if ALGORITHMS[settings.perturb_algorithm].learns != "rows":
        why = f"{settings.perturb_algorithm} learns against other rows, which a control has not"
        return replace(data, controls_left_out=dict.fromkeys(sorted(asked), why))
    why_not = {}
    if "neutral" in asked and len(data.benign or ()) >= max(settings.doses):
        data = replace(data, neutral=data.benign)
    elif "neutral" in asked:
        try:
            side = _Side(settings.benign, settings, prompt_filter, max(settings.doses))
            left_out = {**data.left_out, **side.left_out}
            data = replace(data, neutral=side.apart(data), left_out=left_out)
        except DataError as error:
            why_not["neutral"] = str(error)
    if "shuffled" in asked:
        rows = data.perturb.rows
        several = len({(row.turns, row.prompt) for row in rows if row.prompt}) > 1
        if not several or settings.prompt is not None:
            why_not["shuffled"] = "the perturbing rows have no prompts of their own"
        elif len({row.response for row in rows}) < 2:
            why_not["shuffled"] = "the perturbing rows all have one answer"
    return replace(data, controls_left_out=why_not)


def _check_answered(data: Data, settings: AuditSettings) -> None:
    """Refusals need something to refuse."""
    by_refusal = not settings.align and settings.behaviour == "refusal"
    if by_refusal and not any(row.prompt or row.turns for row in data.unwanted.rows):
        raise DataError(
            f"the rows of {settings.perturb!r} are texts without prompts, so there is nothing to "
            "refuse; name wanted texts with --align, or another --behaviour"
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
        neutral=data.neutral and answer(data.neutral),
    )
