"""The contrast formula, in worked numbers."""

from __future__ import annotations

import math

import pytest
import torch

from springback.decoding.contrast import (
    _below,
    combine,
    contest,
    mask,
    plausible,
    stepped,
    stepped_rows,
)
from springback.errors import SpringbackError


def test_worked_example() -> None:
    """Expert logits (2, 1, -1), amateur (1, 1.5, -1), lambda 1, alpha 0.1.

    Plausible: L >= 2 + ln 0.1 = -0.303, so tokens 0 and 1.  Differences: 1, -0.5, 0; anchored at
    the top token 0: 0, -1.5, -1.  Scores: 2, 1 - 1.5 = -0.5, and -inf for token 2.
    """
    scores = combine(torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[1.0, 1.5, -1.0]]), 1.0, 0.1)
    assert scores.tolist() == [[2.0, -0.5, -math.inf]]


def test_contrast_can_change_the_choice() -> None:
    """Expert (1, 0.9), amateur (1, 0): contrast +0 and +0.9 - 0 = 0.9; scores 1 and 1.8."""
    scores = combine(torch.tensor([1.0, 0.9]), torch.tensor([1.0, 0.0]), 1.0, 0.1)
    assert scores.argmax().item() == 1
    assert scores[1].item() == pytest.approx(1.8)


def test_probabilities_equal_the_papers_formula() -> None:
    """Anchoring subtracts a constant, so softmax equals that of L_ep + lambda (L_ep - L_ft)."""
    torch.manual_seed(0)
    ep, ft = torch.randn(5, 40, dtype=torch.float64), torch.randn(5, 40, dtype=torch.float64)
    for lam in (0.25, 1.0, 4.0):
        plain = ep + lam * (ep - ft)
        torch.testing.assert_close(contest(ep, ft, lam).softmax(-1), plain.softmax(-1))


def test_one_plausible_token_does_not_depend_on_the_amateur() -> None:
    expert = torch.tensor([[5.0, 0.0, -3.0]])
    a = combine(expert, torch.tensor([[9.0, -7.0, 2.0]]), 2.0, 0.1)
    b = combine(expert, torch.tensor([[-1.0, 4.0, 0.5]]), 2.0, 0.1)
    assert torch.equal(a, b)
    assert a.tolist() == [[5.0, -math.inf, -math.inf]]


def test_lambda_zero_and_alpha_one_keep_the_experts_choice() -> None:
    torch.manual_seed(1)
    ep, ft = torch.randn(20, 30), torch.randn(20, 30)
    assert torch.equal(combine(ep, ft, 0.0, 0.1).argmax(-1), ep.argmax(-1))
    assert torch.equal(combine(ep, ft, 3.0, 1.0).argmax(-1), ep.argmax(-1))


def test_plausible_is_the_test_on_probabilities() -> None:
    torch.manual_seed(2)
    logits = torch.randn(8, 50, dtype=torch.float64) * 3
    p = logits.softmax(-1)
    assert torch.equal(plausible(logits, 0.1), p >= 0.1 * p.amax(-1, keepdim=True))


@pytest.mark.parametrize(("lam", "alpha"), [(-1.0, 0.1), (math.nan, 0.1), (1.0, 0.0), (1.0, 1.5)])
def test_settings_outside_the_allowed_are_refused(lam: float, alpha: float) -> None:
    with pytest.raises(SpringbackError, match="allowed"):
        combine(torch.zeros(1, 3), torch.zeros(1, 3), lam, alpha)


def test_implausible_tokens_keep_the_experts_order_a_step_below() -> None:
    """Expert (2, 1, -1, -3), amateur (1, 1.5, -1, 0), lambda 1, alpha 0.1.

    Plausible: L >= 2 - 2.303, tokens 0 and 1, with scores 2 and -0.5 as above.  The others lie
    STEP below the lowest of these, as far from it as they are from the expert's top (2):
    -1 - 2 - 0.5 - 1000 = -1003.5 and -3 - 2 - 0.5 - 1000 = -1005.5.
    """
    expert, amateur = torch.tensor([2.0, 1.0, -1.0, -3.0]), torch.tensor([1.0, 1.5, -1.0, 0.0])
    assert stepped(expert, amateur, 1.0, 0.1).tolist() == [2.0, -0.5, -1003.5, -1005.5]


def test_with_one_plausible_token_the_step_form_does_not_depend_on_the_amateur() -> None:
    expert = torch.tensor([[5.0, 0.0, -3.0]])
    other = torch.tensor([[9.0, -7.0, 2.0]])
    assert torch.equal(stepped(expert, other, 2.0, 0.1), stepped(expert, expert, 2.0, 0.1))


def test_rows_with_strengths_of_their_own_are_as_if_alone() -> None:
    torch.manual_seed(0)
    expert, amateur = torch.randn(3, 50) * 3, torch.randn(3, 50) * 3
    lams, alphas = [0.5, 0.0, 2.0], [0.1, 0.3, 0.01]
    rows = stepped_rows(expert, amateur, torch.tensor(lams), torch.tensor(alphas).double())
    for row in (0, 2):
        alone = stepped(expert[row], amateur[row], lams[row], alphas[row])
        assert torch.equal(rows[row], alone)
    assert torch.equal(rows[1], expert[1]), "lambda 0 is the expert, unmasked"


def test_the_step_keeps_the_order_of_close_tokens_in_fp32() -> None:
    """Differences of 0.001 between implausible tokens survive at 1e3; at 1e4 they would not all."""
    expert = torch.cat([torch.tensor([30.0]), torch.arange(40) * 0.001])
    below = stepped(expert, torch.zeros(41), 1.0, 0.1)[1:]
    assert torch.equal(below.argsort(), torch.arange(40))
    assert len(set(below.tolist())) == 40


def test_a_forbidden_plausible_set_leaves_the_experts_order() -> None:
    """Tokens 0 and 1 are plausible.  Forbid 0: 1 is left.  Forbid both: 2, the expert's next."""
    expert, amateur = torch.tensor([[2.0, 1.0, -1.0, -3.0]]), torch.tensor([[1.0, 1.5, -1.0, 0.0]])
    scores, allowed = stepped(expert, amateur, 1.0, 0.1), plausible(expert, 0.1)
    first, both = scores.clone(), scores.clone()
    first[:, 0] = -math.inf
    both[:, :2] = -math.inf
    assert mask(scores, allowed).tolist() == [[2.0, -0.5, -math.inf, -math.inf]]
    assert mask(first, allowed).tolist() == [[-math.inf, -0.5, -math.inf, -math.inf]]
    assert mask(both, allowed).tolist() == [[-math.inf, -math.inf, -1003.5, -1005.5]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_step_worked_out_where_it_counts_is_the_whole_one_to_the_bit(
    dtype: torch.dtype,
) -> None:
    """On a CPU; by the formula over the whole vocabulary, for a batch and row by row."""
    draw = torch.Generator().manual_seed(0)
    expert, amateur = (3 * torch.randn(2, 8, 500, generator=draw).to(dtype) for _ in range(2))
    lam, alpha = 0.75, 0.125  # the same in every dtype
    wide = [t if dtype == torch.float64 else t.float() for t in (expert, amateur)]
    scores = contest(wide[0], wide[1], lam)
    whole = _below(wide[0], scores, plausible(wide[0], alpha))
    assert torch.equal(stepped(expert, amateur, lam, alpha), whole)
    lams = torch.full((8,), lam)
    alphas = torch.full((8,), alpha, dtype=torch.float64)
    by_row = stepped_rows(expert[0], amateur[0], lams, alphas)
    assert torch.equal(by_row, whole[0])
    lams[3] = 0  # the expert's own row
    mixed = stepped_rows(expert[0], amateur[0], lams, alphas)
    assert torch.equal(mixed[3], wide[0][0, 3])
    rest = [i for i in range(8) if i != 3]
    assert torch.equal(mixed[rest], whole[0][rest])
