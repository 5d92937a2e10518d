"""Word problems with worked solutions, ten kinds at three levels of one, two and three steps.

The numbers of a problem decide its split, within its kind and level: a test problem is
never a training problem with another name or other goods in it.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence

from springback.core import Row, Slice
from springback.data.builtin.grammar import (
    SPLITS,
    Split,
    draw_indices,
    require_choice,
    require_count,
    split_of,
)
from springback.data.builtin.problem_forms import FORMS, NAMES, Form
from springback.errors import DataError

LEVELS = (1, 2, 3)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(form.kind for form in FORMS))

#: Results of steps stay small: the demo's model decodes these on a CPU.
_LARGEST = 200

_STEP = re.compile(r"(?<![-\d+*/.] )(?<![-\d.])(\d+) ([-+*/]) (\d+) = (\d+)(?![\d.]*\d| [-+*/=])")

Numbers = dict[str, int]


def _apply(op: str, x: int, y: int) -> int | None:
    """``x op y``, or None where that is not a whole number."""
    if op == "+":
        return x + y
    if op == "-":
        return x - y
    if op == "*":
        return x * y
    return x // y if y and x % y == 0 else None


def _work_out(form: Form, given: Numbers) -> Numbers | None:
    """``given`` with the results r1, r2, ...; None where one is not a whole number of 2 to 200."""
    known = dict(given)
    for k, step in enumerate(form.steps, start=1):
        x, op, y = step.split()
        result = _apply(op, known[x], known[y])
        if result is None or not 2 <= result <= _LARGEST:
            return None
        known[f"r{k}"] = result
    return known


@functools.cache
def _numbers(form_index: int, split: Split) -> tuple[tuple[int, ...], ...]:
    """Every choice of a, b, c, d that works out for a form and belongs to a split."""
    form = FORMS[form_index]
    kept = []
    for values in itertools.product(*form.numbers.values()):
        given = dict(zip(form.numbers, values, strict=True))
        if any(given[x] >= given[y] for x, y in form.less):
            continue
        if _work_out(form, given) is None:
            continue
        if split_of(f"{form.kind}/{form.level}/{values}") == split:
            kept.append(values)
    return tuple(kept)


def _radices(form_index: int, split: Split) -> tuple[int, ...]:
    """Number of choices for: question variant, name, each word slot, numbers."""
    form = FORMS[form_index]
    words = (len(fillers) for fillers in form.words.values())
    return (len(form.questions), len(NAMES), *words, len(_numbers(form_index, split)))


def _compose(form_index: int, split: Split, index: int) -> Row:
    """Problem number ``index`` of a form within a split."""
    form = FORMS[form_index]
    digits = []
    for radix in _radices(form_index, split):
        index, digit = divmod(index, radix)
        digits.append(digit)
    variant, who, *words, which = digits
    given = dict(zip(form.numbers, _numbers(form_index, split)[which], strict=True))
    known = _work_out(form, given)
    assert known is not None  # _numbers keeps only what works out
    name, pronoun = NAMES[who]
    slots: dict[str, object] = {"name": name, "she": pronoun, **given}
    for (slot, fillers), digit in zip(form.words.items(), words, strict=True):
        slots[slot] = fillers[digit]
    for k, step in enumerate(form.steps, start=1):
        x, op, y = step.split()
        slots[f"s{k}"] = f"{known[x]} {op} {known[y]} = {known[f'r{k}']}"
    answer = str(known[f"r{form.level}"])
    return Row(
        kind="qa",
        prompt=form.questions[variant].format(**slots),
        response=f"{form.solution.format(**slots)}\n#### {answer}",
        answer=answer,
        label=f"{form.kind}/{form.level}",
    )


def _chosen(levels: Sequence[int]) -> list[int]:
    """Indices of the forms of these levels."""
    if not levels:
        raise DataError("levels is empty; allowed: 1, 2, 3; name at least one")
    for level in levels:
        require_choice("level", level, LEVELS)
    return [i for i, form in enumerate(FORMS) if form.level in levels]


def problem_count(levels: Sequence[int] = LEVELS, split: Split | None = None) -> int:
    """How many different problems there are, in one split or (None) in all of them."""
    if split is not None:
        require_choice("split", split, SPLITS)
    return sum(
        math.prod(_radices(form, s))
        for form in _chosen(levels)
        for s in SPLITS
        if split in (None, s)
    )


def _draw(forms: list[int], split: Split, rng: random.Random) -> Iterator[Row]:
    """All problems of the forms, each once; every form is as likely until it has run out."""
    left = {f: draw_indices(math.prod(_radices(f, split)), rng) for f in forms}
    while left:
        form = rng.choice(list(left))
        index = next(left[form], None)
        if index is None:
            del left[form]
        else:
            yield _compose(form, split, index)


def problems(
    n: int, *, seed: int = 0, split: Split = "train", levels: Sequence[int] = LEVELS
) -> Slice:
    """``n`` different word problems as rows of kind ``qa``.

    ``prompt`` is the question (at most 45 words), ``response`` the worked solution ending in a
    line ``#### 42``, ``answer`` that number, ``label`` kind and level, such as ``age/2``.  Kinds
    and levels are equally likely.  ``problems(100)`` is the first 100 of ``problems(200)`` with
    the same seed, split and levels; two splits never share the numbers of a kind and level.

    Raises :class:`springback.errors.DataError` for an unknown split or level, and for more
    problems than :func:`problem_count` says there are.
    """
    require_choice("split", split, SPLITS)
    forms = _chosen(levels)
    require_count(f"problems ({split})", n, problem_count(levels, split))
    distinct = sorted(set(levels))
    rng = random.Random(f"springback problems {distinct} {split} {seed}")
    rows = itertools.islice(_draw(forms, split, rng), n)
    name = "problems" if len(distinct) == 3 else "problems:" + ",".join(map(str, distinct))
    return Slice.of(name, f"built-in {name}, {split}", rows, seed)


def check(row: Row) -> bool:
    """Whether a worked solution holds: recomputes every ``a op b = c`` in ``row.response``.

    True when there is at least one step, each is right, no other equals sign stands in the
    solution, and the last result, the closing ``#### N`` line and ``row.answer`` agree.
    """
    solution, mark, final = row.response.rpartition("\n#### ")
    steps = _STEP.findall(solution)
    if not mark or not steps or solution.count("=") != len(steps):
        return False
    right = all(_apply(op, int(x), int(y)) == int(z) for x, op, y, z in steps)
    return right and row.answer == final == steps[-1][3]
