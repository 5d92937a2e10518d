"""Combine two logit tensors (paper B, contrastive decoding).  Pure tensor functions.

``score = L_ep + lambda * (L_ep - L_ft)`` on the tokens that the expert finds plausible,
``p_ep(token) >= alpha * max p_ep``.  Scores are anchored at the expert's top token: a constant
per position is subtracted from the contrast, which changes no choice and no probability, and
makes the score of a lone plausible token independent of the amateur: there it need not be run.

Implausible tokens are at -inf (:func:`combine`) or, for what cannot know which tokens a later step
still allows, a finite :data:`STEP` below the plausible ones in the expert's order
(:func:`stepped`); :func:`mask` turns the second into the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from springback.decoding.gate import Gate as Gate
from springback.decoding.gate import parse_gate as parse_gate
from springback.errors import SpringbackError

#: How far implausible tokens lie below the lowest plausible one.  At 1e4 fp32 loses their order.
STEP = 1e3
#: Expert's and amateur's logits (..., vocabulary) as those of the pair.
Mix = Callable[[Tensor, Tensor], Tensor]


def check_settings(lam: float, alpha: float) -> None:
    """Raise unless ``lam >= 0`` and ``0 < alpha <= 1``."""
    if not (math.isfinite(lam) and lam >= 0):
        raise SpringbackError(f"lambda is {lam}; allowed is any finite number from 0 up")
    if not 0 < alpha <= 1:
        raise SpringbackError(f"alpha is {alpha}; allowed is above 0 and at most 1 (paper: 0.1)")


def uncertain(expert: Tensor, gate: Gate) -> Tensor:
    """Where ``gate`` lets contrast in: boolean (...) of logits (..., vocabulary)."""
    p = torch.softmax(expert if expert.dtype == torch.float64 else expert.float(), -1)
    if gate.measure == "top":
        return p.amax(-1) <= gate.threshold
    entropy: Tensor = torch.special.entr(p).sum(-1)
    return entropy >= gate.threshold


def gated(expert: Tensor, amateur: Tensor, gate: Gate | None) -> Tensor:
    """The amateur's logits, and the expert's own where the gate is closed: no contrast there."""
    if gate is None:
        return amateur
    return torch.where(uncertain(expert, gate)[..., None], amateur.to(expert.dtype), expert)


def plausible(expert: Tensor, alpha: float) -> Tensor:
    """Which tokens pass ``p >= alpha * max p``.

    ``expert``: logits (..., vocabulary); returns a boolean tensor of the same shape.  On logits
    the test is ``L >= max L + log(alpha)``, so no softmax is taken.  In fp32 (fp64 if given fp64).
    """
    expert, _ = _same_dtype(expert, expert)
    return expert >= expert.amax(dim=-1, keepdim=True) + math.log(alpha)


def contest(expert: Tensor, amateur: Tensor, lam: float) -> Tensor:
    """Unmasked combined logits, for scoring given texts.

    Both (..., vocabulary); computed in fp32 (fp64 if given fp64); same shape back.
    """
    expert, amateur = _same_dtype(expert, amateur)
    return expert if lam == 0 else _anchored(expert, amateur, lam)


def unmasked(lam: float, gate: Gate | None = None) -> Mix:
    """What takes both models' logits to the pair's without a mask, as given texts are scored."""
    return lambda expert, amateur: contest(expert, gated(expert, amateur, gate), lam)


def averaged(first: Tensor, second: Tensor) -> Tensor:
    """Log of the mean of two models' probabilities, (..., vocabulary), from their logits.

    What is forbidden (-inf) in ``first`` stays so.  In fp32 (fp64 if given fp64).
    """
    first, second = _same_dtype(first, second)
    both = torch.logaddexp(torch.log_softmax(first, -1), torch.log_softmax(second, -1))
    return (both - math.log(2)).masked_fill(first == -math.inf, -math.inf)


def _same_dtype(expert: Tensor, amateur: Tensor) -> tuple[Tensor, Tensor]:
    """Both in fp32, or in fp64 if the expert's are."""
    dtype = torch.float64 if expert.dtype == torch.float64 else torch.float32
    return expert.to(dtype), amateur.to(dtype)


def _anchored(expert: Tensor, amateur: Tensor, lam: float | Tensor) -> Tensor:
    """Combined logits (..., vocabulary), whose contrast is 0 at the expert's top token."""
    difference = expert - amateur  # (..., vocabulary)
    anchor = expert.argmax(dim=-1, keepdim=True)  # (..., 1)
    return expert + lam * (difference - difference.gather(-1, anchor))


def combine(expert: Tensor, amateur: Tensor, lam: float, alpha: float) -> Tensor:
    """Combined logits with implausible tokens at -inf, for choosing the next token.

    Both (..., vocabulary); fp32 (fp64 if given fp64).  ``lam = 0`` keeps the expert's order,
    ``alpha = 1`` leaves only its top tokens.
    """
    check_settings(lam, alpha)
    scores = contest(expert, amateur, lam)
    return scores.masked_fill(~plausible(expert, alpha), -math.inf)


def stepped(expert: Tensor, amateur: Tensor, lam: float, alpha: float) -> Tensor:
    """Combined logits with implausible tokens :data:`STEP` below, in the expert's order.

    Shapes and dtypes as :func:`combine`.  With one plausible token nothing in the result depends
    on ``amateur``: give ``expert`` twice.
    """
    check_settings(lam, alpha)
    if expert.device.type == "cpu" and lam:
        return _stepped_where_open(expert, amateur, lam, math.log(alpha))
    scores = contest(expert, amateur, lam)
    expert = expert.to(scores.dtype)
    return _below(expert, scores, plausible(expert, alpha))


def stepped_rows(expert: Tensor, amateur: Tensor, lams: Tensor, alphas: Tensor) -> Tensor:
    """:func:`stepped` with a lambda and an alpha for each row.

    ``expert``, ``amateur``: (rows, vocabulary); ``lams``, ``alphas``: (rows,), checked by the
    caller.  Where lambda is 0 the row is the expert's own, without a step.
    """
    if expert.device.type == "cpu" and bool((lams > 0).all()):
        wide = torch.float64 if expert.dtype == torch.float64 else torch.float32
        lam, floor = lams.to(wide)[:, None], alphas.double().log().to(wide)[:, None]
        return _stepped_where_open(expert, amateur, lam, floor)
    expert, amateur = _same_dtype(expert, amateur)
    lam, top = lams.to(expert)[:, None], expert.amax(dim=-1, keepdim=True)
    scores = _anchored(expert, amateur, lam)
    open_ = (expert >= top + alphas.double().log().to(expert)[:, None]) | (lam == 0)
    return _below(expert, scores, open_)


def _stepped_where_open(
    expert: Tensor, amateur: Tensor, lam: float | Tensor, floor: float | Tensor
) -> Tensor:
    """:func:`stepped`, to the bit, by a third of the passes over the vocabulary.

    The contrast is worked out where tokens are plausible alone.  Not on a GPU, which would wait to
    know where that is.  ``lam``, and ``floor``, the log of alpha: numbers, or (..., 1).
    """
    shape = expert.shape
    expert = expert if expert.dtype == torch.float64 else expert.float()
    expert, amateur = expert.reshape(-1, shape[-1]), amateur.reshape(-1, shape[-1])
    anchor = expert.argmax(-1, keepdim=True)  # (rows, 1)
    top = expert.gather(-1, anchor)
    at_top = top - amateur.gather(-1, anchor).to(expert)
    rows, tokens = (expert >= top + floor).nonzero(as_tuple=True)
    mine = expert[rows, tokens]
    difference = mine - amateur[rows, tokens].to(expert)
    strength = lam[rows, 0] if isinstance(lam, Tensor) else lam
    scores = mine + strength * (difference - at_top[rows, 0])
    lowest = torch.full_like(top[:, 0], math.inf).scatter_reduce(0, rows, scores, "amin")
    stepped = (expert - top).add_(lowest[:, None]).sub_(STEP)
    stepped[rows, tokens] = scores
    return stepped.reshape(shape)


def _below(expert: Tensor, scores: Tensor, open_: Tensor) -> Tensor:
    """``scores`` where ``open_``; the others :data:`STEP` below these, in the expert's order."""
    lowest = scores.masked_fill(~open_, math.inf).amin(dim=-1, keepdim=True)  # (..., 1)
    below = expert - expert.amax(dim=-1, keepdim=True) + lowest - STEP
    return torch.where(open_, scores, below)


def mask(scores: Tensor, allowed: Tensor) -> Tensor:
    """``scores`` with tokens outside ``allowed`` at -inf; a row that would lose all stays as it is.

    ``scores`` (..., vocabulary) are those of :func:`stepped` after a grammar, say, has set some to
    -inf; ``allowed`` are the plausible tokens.  So where every plausible token is forbidden, the
    expert's order decides among the rest.
    """
    kept = scores.masked_fill(~allowed, -math.inf)
    return torch.where(kept.amax(dim=-1, keepdim=True) == -math.inf, scores, kept)
