"""Resistance of several pairs of models: a judgement each, a paired test, and one over all (A2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from springback.elasticity.rebound import (
    ResistanceJudgement,
    ResistanceLabel,
    resistance_judgement,
    resistance_label,
)
from springback.elasticity.seed_tests import t_pvalue
from springback.stats import Interval, holm, mean_interval

#: Seed -> what was measured for one pair, by way: ``forward``, ``inverse`` and, where it was
#: measured, ``excess_forward`` and ``excess_inverse``; nats a token.
Losses = Mapping[int, Mapping[str, float]]
#: How whole answers are chosen.  The first is judged: the paper's losses, 0.16 to 0.32 nats a
#: token, are those of texts with little entropy.
ARMS = ("greedy", "sampled")
JUDGED = ARMS[0]


def by_arm(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Arm -> name -> value, of what one pair has in one seed; names of the judged arm are bare."""
    arms: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        arm, _, rest = name.partition("_")
        arm, rest = (arm, rest) if arm in ARMS else (JUDGED, name)
        arms.setdefault(arm, {})[rest] = value
    return arms


@dataclass(frozen=True)
class KLChange:
    """How far training led to the target: KL(target || model) before less after, by way.

    ``forward``, ``inverse``: the change, nats a token, above 0 = nearer.  ``share_forward``,
    ``share_inverse``: the share of the KL before that is gone.  ``label``: ``resists`` where going
    back closes the larger share.
    """

    forward: Interval
    inverse: Interval
    share_forward: Interval
    share_inverse: Interval
    label: ResistanceLabel


def kl_change(losses: Losses, *, level: float = 0.95) -> KLChange | None:
    """Of one pair over the seeds; None unless all have a KL above 0 before training, both ways."""

    def of(name: str) -> list[float]:
        return [values[name] for values in losses.values() if name in values]

    changes, shares = {}, {}
    for way in ("forward", "inverse"):
        before, after = of(f"kl_before_{way}"), of(f"kl_after_{way}")
        if not losses or not len(before) == len(after) == len(losses) or min(before) <= 0:
            return None
        changes[way] = [b - a for b, a in zip(before, after, strict=True)]
        shares[way] = [1 - a / b for b, a in zip(before, after, strict=True)]
    gaps = [f - i for f, i in zip(shares["forward"], shares["inverse"], strict=True)]
    return KLChange(
        mean_interval(changes["forward"], level=level),
        mean_interval(changes["inverse"], level=level),
        mean_interval(shares["forward"], level=level),
        mean_interval(shares["inverse"], level=level),
        resistance_label(mean_interval(gaps, level=level)),
    )


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
