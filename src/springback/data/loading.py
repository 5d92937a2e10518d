"""Slices out of any source, cut, split and compared."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import cast

from springback.core import Row, Slice
from springback.data.builtin.grammar import SPLITS, Split, require_choice, require_count
from springback.data.builtin.passages import PASSAGES, passages
from springback.data.builtin.problems import problems
from springback.data.builtin.requests import KINDS, requests
from springback.data.builtin.reviews import REVIEW_LABELS, reviews
from springback.data.choices import choice_problems, problem_texts
from springback.data.formats import joined, load_rows, split_conditions
from springback.data.records import require_place
from springback.errors import DataError, did_you_mean

BUILT_IN_ROWS = 1000
_PROBLEMS = {
    "problems": problems,
    "problems-choice": choice_problems,
    "problems-text": problem_texts,
}

#: Built-in lists, of which there are only so many.
LISTED = {"passages": len(PASSAGES), **{f"requests:{kind}": len(r) for kind, r in KINDS.items()}}

#: Every built-in data set by name.
BUILT_IN = (
    *(f"reviews:{label}" for label in REVIEW_LABELS),
    *_PROBLEMS,
    *(f"{name}:{level}" for name in _PROBLEMS for level in (1, 2, 3)),
    *LISTED,
)

_OTHER = re.compile(r"[\W_]+")


def is_built_in(source: str) -> bool:
    """Whether :func:`load_slice` makes this source itself (or says which ones it can make)."""
    return source.partition(":")[0] in ("reviews", "requests", "passages", *_PROBLEMS)


def load_slice(
    source: str,
    *,
    name: str | None = None,
    fields: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    split: str = "train",
    note: Callable[[str], None] = lambda text: None,
) -> Slice:
    """A slice of a built-in data set or of anything :func:`load_rows` takes.

    Built-in: ``reviews:positive``, ``reviews:negative``, ``problems``, ``problems-choice`` (with
    choices) and ``problems-text`` (plain texts), the last three also with a level behind them
    (``problems:1`` to ``problems:3``); 1000 rows unless ``limit`` says otherwise, drawn by
    ``seed`` from ``split`` (train, validation or test).  ``passages``, ``requests:harmful`` and
    ``requests:harmless`` are short lists, the same for every seed and split.

    Other sources are shuffled whole by ``seed`` (unless ``shuffle`` is False) and then cut, so a
    shorter slice begins a longer one; ``split`` names a hub data set's split.  ``split`` means
    nothing for a file, ``fields`` nothing for built-in data.  ``note`` is told what was concluded
    from the data.

    Raises :class:`springback.errors.DataError` where the source has fewer than ``limit`` rows,
    and as :func:`load_rows` does.
    """
    if limit is not None:
        require_count(f"rows of {source!r}", limit)
    if is_built_in(source):
        usual = LISTED.get(source, BUILT_IN_ROWS)
        made = _built_in(source, usual if limit is None else limit, seed, split)
        return made if name is None else replace(made, name=name, seed=seed)
    rows = list(load_rows(source, fields=fields, split=split, note=note))
    if limit is not None and limit > len(rows):
        raise DataError(
            f"asked for {limit} rows of {source!r}; there are {len(rows)}; "
            "ask for fewer or give a larger file"
        )
    if shuffle:
        random.Random(seed).shuffle(rows)
    return Slice.of(name or _short(source), source, rows[:limit], seed)


def _short(source: str) -> str:
    if len(parts := joined(source)) > 1:
        return "+".join(map(_short, parts))
    place, conditions = split_conditions(source)
    return PurePath(place).name + source[len(place) :] if conditions else PurePath(place).name


@functools.lru_cache(maxsize=16)
def _built_in(source: str, n: int, seed: int, split: str) -> Slice:
    """Kept, since a job asks for the same rows several times: nobody can change a slice."""
    made = _drawn(source, n, seed, split)
    rows = enumerate(made.rows, start=1)
    placed = tuple(replace(row, place=f"{source!r}: row {number}") for number, row in rows)
    return replace(made, rows=placed)


def _drawn(source: str, n: int, seed: int, split: str) -> Slice:
    require_choice(f"split of {source!r}", split, SPLITS)
    which = cast(Split, split)
    base, _, option = source.partition(":")
    if base == "reviews" and option in REVIEW_LABELS:
        return reviews(option, n, seed=seed, split=which)
    if source in LISTED:
        return passages(n) if source == "passages" else requests(option, n)
    if source in _PROBLEMS:
        return _PROBLEMS[source](n, seed=seed, split=which)
    if base in _PROBLEMS and option in ("1", "2", "3"):
        return _PROBLEMS[base](n, seed=seed, split=which, levels=(int(option),))
    raise _unknown(source)


def require_source(source: str) -> None:
    """Raise :class:`springback.errors.DataError` for a source that is not there: no built-in data
    set of that name, nothing on this disk, and no name of a hub data set.  Nothing is read."""
    if is_built_in(source):
        if source not in BUILT_IN:
            raise _unknown(source)
        return
    for part in joined(source):
        place, _ = split_conditions(part)
        if place.strip():
            require_place(place)


def _unknown(source: str) -> DataError:
    near = did_you_mean(source, BUILT_IN)
    return DataError(
        f"no built-in data set {source!r}{near}; allowed: reviews:positive, reviews:negative, "
        "problems, problems-choice, problems-text, these three also with a level (problems:1, "
        f"problems:2, problems:3), {', '.join(LISTED)}; choose one, or write ./ before a file's "
        "name"
    )


def content_key(row: Row) -> str:
    """What makes two rows the same for splits: the normalised prompt with its turns, or else the
    response.  Lower case, everything but letters and digits as single spaces."""
    parts = [text for _, text in row.turns]
    text = "\n".join([*parts, row.prompt]) if row.prompt else row.response
    key = _OTHER.sub(" ", text.lower()).strip()
    # A text of nothing but signs has no normal form; it is only equal to itself.
    return key or f"signs: {text}"


def _require_rows(part: Slice) -> None:
    if not part.rows:
        raise DataError(
            f"the slice {part.name!r} ({part.source}) is empty; "
            "allowed: at least one row; load more rows"
        )


def split_rows(
    part: Slice, sizes: Mapping[str, int], seed: int, barred: Mapping[str, set[str]] | None = None
) -> dict[str, Slice]:
    """Disjoint slices of the asked sizes, drawn by ``seed`` and filled in the order of ``sizes``.

    Rows with the same :func:`content_key` count as one: they stay together, or some of them are
    left out, and never stand in two parts.  Name held-out parts first: they then stay the same
    when a later part grows.  ``barred``: keys that a part may not hold.

    Raises :class:`springback.errors.DataError` for an empty slice, a size below 1, and where the
    rows do not suffice.
    """
    _require_rows(part)
    if not sizes:
        raise DataError(f"no sizes given to split {part.name!r}; allowed: name and number of rows")
    for label, size in sizes.items():
        require_count(f"rows for {label!r}", size)
    order = list(range(len(part.rows)))
    random.Random(seed).shuffle(order)
    groups: dict[str, list[int]] = {}
    for position in order:
        groups.setdefault(content_key(part.rows[position]), []).append(position)
    waiting = iter(groups)
    parts: dict[str, Slice] = {}
    for label, size in sizes.items():
        taken: list[int] = []
        not_here = (barred or {}).get(label, set())
        while len(taken) < size:
            key = next(waiting, None)
            if key is None:
                raise _too_few(part, sizes, len(groups))
            if key not in not_here:
                taken.extend(groups[key][: size - len(taken)])
        # Back into the shuffled order, so that equal rows do not follow each other.
        ours = set(taken)
        rows = [part.rows[position] for position in order if position in ours]
        parts[label] = Slice.of(f"{part.name}/{label}", part.source, rows, seed)
    return parts


def _too_few(part: Slice, sizes: Mapping[str, int], different: int) -> DataError:
    asked = ", ".join(f"{label} {size}" for label, size in sizes.items())
    return DataError(
        f"asked for {sum(sizes.values())} rows ({asked}) of {part.name!r}; there are "
        f"{len(part.rows)}, of which {different} differ, and equal ones stay in one part; "
        "ask for fewer or give more data"
    )


def check_disjoint(a: Slice, b: Slice) -> None:
    """Raise :class:`springback.errors.DataError` if a row of ``b`` is also in ``a``.

    Rows are the same if their :func:`content_key` is: prompts count, not responses, so a test
    question is caught even when its solution was rewritten.
    """
    _require_rows(a)
    _require_rows(b)
    known = _keys(a.rows)
    shared = sum(content_key(row) in known for row in b.rows)
    if shared:
        raise DataError(
            f"{shared} of the {len(b)} rows of {b.name!r} ({b.source}) are also in {a.name!r} "
            f"({a.source}); allowed: none; remove them from one of the two, or split one source"
        )


def _keys(rows: Sequence[Row]) -> set[str]:
    return {content_key(row) for row in rows}
