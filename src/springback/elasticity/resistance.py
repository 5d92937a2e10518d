"""Resistance of several pairs of models: a judgement each, a paired test, and one over all (A2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from springback.elasticity.rebound import ResistanceJudgement, resistance_judgement
from springback.elasticity.seed_tests import t_pvalue
from springback.stats import holm

#: Seed -> what was measured for one pair, by way: ``forward``, ``inverse`` and, where it was
#: measured, ``excess_forward`` and ``excess_inverse``; nats a token.
Losses = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class PairTest:
    """``p``: paired t on the logarithms of the losses, inverse against forward, by seed.

    ``p_holm``: adjusted over the pairs.  Both None with one seed, or without spread.
    """

    judgement: ResistanceJudgement
    p: float | None
    p_holm: float | None


def resistance_tests(pairs: Mapping[str, Losses], *, level: float = 0.95) -> dict[str, PairTest]:
    """Pair -> judgement and paired test.

    Raises :class:`~springback.errors.DataError` as :func:`resistance_judgement`.
    """
    judged = {pair: _judged(losses, level) for pair, losses in pairs.items()}  # and checked
    ps = {
        pair: t_pvalue([math.log(v["inverse"] / v["forward"]) for v in losses.values()])
        for pair, losses in pairs.items()
    }
    tested = {pair: p for pair, p in ps.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        pair: PairTest(judgement, ps[pair], adjusted.get(pair))
        for pair, judgement in judged.items()
    }


def overall_resistance(
    pairs: Mapping[str, Losses], *, level: float = 0.95
) -> tuple[ResistanceJudgement, dict[int, float]]:
    """One judgement over all pairs, and the ratio of each seed.

    The pairs of a seed share its models, so a seed is one value: the geometric mean of its ratios,
    and the mean of its excesses.  Seeds without all pairs are left out.  Raises as
    :func:`resistance_judgement`.
    """
    common = set.intersection(*(set(losses) for losses in pairs.values())) if pairs else set()
    by_seed = {
        seed: _pooled([losses[seed] for losses in pairs.values()]) for seed in sorted(common)
    }
    ratios = {seed: v["inverse"] / v["forward"] for seed, v in by_seed.items()}
    return _judged(by_seed, level), ratios


def _pooled(losses: list[Mapping[str, float]]) -> dict[str, float]:
    ways = set.intersection(*(set(values) for values in losses))
    pooled = {}
    for way in ways:
        values = [v[way] for v in losses]
        if way in ("forward", "inverse"):
            pooled[way] = math.exp(math.fsum(math.log(v) for v in values) / len(values))
        else:
            pooled[way] = math.fsum(values) / len(values)
    return pooled


def _judged(losses: Losses, level: float) -> ResistanceJudgement:
    def of(way: str) -> dict[int, float]:
        return {seed: values[way] for seed, values in losses.items() if way in values}

    forward, back = of("excess_forward"), of("excess_inverse")
    complete = forward.keys() == back.keys() == losses.keys()
    return resistance_judgement(
        of("forward"),
        of("inverse"),
        forward_excess=forward if complete else None,
        inverse_excess=back if complete else None,
        level=level,
    )
