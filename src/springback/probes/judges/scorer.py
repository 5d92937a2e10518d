"""What a judge gives: a number for each sampled text, with its unit and what a higher one means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from springback.errors import SpringbackError, describe, shown
from springback.results.judge_info import FORMS

#: Prompts and texts, both in order.
Function = Callable[[list[str], list[str]], Iterable[Any]]


@dataclass(frozen=True)
class Scorer:
    """A number for each sampled text, with its unit and what a higher one means.

    ``identity`` tells scorers apart that give other numbers under one name, and belongs into a
    run's inputs: it holds a hash of the classifier's weights or of the function's file (but not
    of what that file imports).  ``cut``: the score from which on the judge says yes; None where
    its scores are graded and have no such point.  ``asked``: it is given the question as it stands
    in the data, instead of the text that the model under measurement reads.  ``gaps``: it may
    leave a text without a score, which is NaN then.  ``sends_to``: the address that texts go to.
    """

    name: str
    unit: str
    direction: str
    identity: str
    function: Function
    cut: float | None = None
    asked: bool = False
    gaps: bool = False
    sends_to: str = ""

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """One number for each text, in order; ``texts`` are the continuations of ``prompts``.

        Raises :class:`SpringbackError` unless the function gives one finite number a text, or of
        a judge with ``gaps`` one for at least half of them.
        """
        if len(prompts) != len(texts):
            raise SpringbackError(
                f"{len(prompts)} prompts and {len(texts)} texts; give one prompt for each text"
            )
        return self._numbers(self.function(list(prompts), list(texts)), len(texts))

    def _numbers(self, given: object, count: int) -> list[float]:
        allowed = f"a list of {count} finite numbers, one for each text"
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise self._fault(f"a {type(given).__name__}", allowed)
        numbers: list[float] = []
        for i, value in enumerate(given):
            try:
                number = math.nan if isinstance(value, (str, bytes)) else float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number) and not self.gaps:
                raise self._fault(f"{shown(value)} for text {i}", allowed)
            numbers.append(number)
        if len(numbers) != count:
            raise self._fault(f"{len(numbers)} numbers", allowed)
        if 2 * sum(map(math.isfinite, numbers)) < count:
            raise SpringbackError(
                f"the judge {self.name} answered neither yes nor no to more than half of {count} "
                "texts; allowed: replies that begin with yes or no; take another model or rubric"
            )
        return numbers

    def _fault(self, given: str, allowed: str) -> SpringbackError:
        return SpringbackError(
            f"the scorer {self.name} returned "
            + describe(given, allowed, "mend it").removeprefix("given: ")
        )


def refuse_spec(spec: str, do: str, what: str = "scorer", allowed: str = FORMS) -> SpringbackError:
    """The error for a spec that names nothing."""
    return SpringbackError(f"{what} {describe(repr(spec), allowed, do)}")
