"""A boost that keeps the fine-tuned model says what validation saw of the alternatives."""

from __future__ import annotations

import pytest

from springback.jobs.boost.analysis.kept import why_kept
from springback.jobs.boost.search import Searched, Tried

BASE = Tried(0.0, (1, 0, 1, 0, 1, 0, 1, 0), (0.5, 0.4, 0.6, 0.5, 0.4, 0.6, 0.5, 0.5))


def searches(*others: Tried) -> dict[str, Searched]:
    return {"mu": Searched((BASE, *others), BASE)}


def test_the_best_other_strength_is_told_paired_by_question() -> None:
    worse = Tried(0.2, (0, 0, 1, 0, 1, 0, 0, 0), tuple(v + 0.1 for v in BASE.nll))
    likelier = Tried(
        0.8, (1, 0, 1, 0, 1, 0, 0, 0), tuple(v - 0.1 + 0.001 * i for i, v in enumerate(BASE.nll))
    )
    text = why_kept(searches(worse, likelier))
    assert text is not None
    assert "mu = 0.8 did best on the 8 validation questions" in text
    # One of eight lost: Tango's score interval, as in the table of the test set.
    assert "-12.5 (95 % -47.1 to +24.0) points" in text
    assert "NLL -0.096" in text
    assert "--choose-by nll" in text


def test_equal_accuracies_are_told_apart_by_nll_and_no_rule_is_offered_for_a_higher_nll() -> None:
    near = Tried(0.2, BASE.correct, tuple(v + 0.01 * i for i, v in enumerate(BASE.nll)))
    far = Tried(0.8, BASE.correct, tuple(v + 0.02 * i for i, v in enumerate(BASE.nll)))
    text = why_kept(searches(far, near))
    assert text is not None
    assert "mu = 0.2" in text
    assert "accuracy +0.0 (95 % -32.4 to +32.4) points" in text, "no difference seen is not none"
    assert "--choose-by" not in text


def test_without_nll_accuracy_stands_alone() -> None:
    base, other = (Tried(v, (1.0, 0.0), ()) for v in (0.0, 0.4))
    text = why_kept({"mu": Searched((base, other), base)})
    assert text is not None
    assert "NLL" not in text


@pytest.mark.parametrize("given", [{}, {"mu": Searched((BASE,), BASE)}])
def test_nothing_else_tried_nothing_said(given: dict[str, Searched]) -> None:
    assert why_kept(given) is None
