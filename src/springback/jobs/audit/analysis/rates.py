"""Whose compression rate moves how much per example (paper A, section A1), in an audit.

A set's rate is the model's code length for its held-out texts, in bits a token (its symbol): the
sum of their NLL over the sum of their counted tokens.  The normalised rate takes off log2 M, M the
leaves of the set's own token tree pruned to a stated depth.  M is of the texts and not of the
model, so every change of a normalised rate is that of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from springback.jobs.audit.analysis.findings import branch
from springback.probes.rates import rate_sets
from springback.results.audit_schema import (
    RateFit,
    RateMoves,
    RatePath,
    RateRatio,
    Rates,
    RateSet,
    SetRates,
)
from springback.results.schema import Part
from springback.results.writing import geometric
from springback.stats import mean_interval

if TYPE_CHECKING:
    from springback.jobs.audit.study import Study

SETS = ("pretraining", "aligning", "perturbing")
Rebounds = Mapping[int, Mapping[str, Any]]
#: What a run measured -> probes at each mark of a trajectory.
ProbesAtMarks = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Trajectory:
    """Rates along the examples of one phase.

    ``examples``: the marks, 0 first.  ``values``: set -> seed -> rates, in bits a token, the first
    where the trajectory begins.
    """

    phase: str
    n_pos: int
    examples: tuple[int, ...]
    values: Mapping[str, Mapping[int, Sequence[float]]]


def rates(study: Study, start: Mapping[str, Any], rebounds: Rebounds) -> Rates | None:
    """Changes of the three rates along both trajectories, and the k that they make.

    None where the probe ``rates`` was not asked for.
    """
    s = study.settings
    if "rates" not in s.probes:
        return None
    sources = {"pretraining": s.pretraining, "aligning": s.align, "perturbing": s.perturb}
    first = start["probes"]["rates"]["sets"]
    paths = trajectories(s.n_pos, s.doses, start, rebounds)
    sets = rate_sets(study)
    return Rates(
        s.rate_depth,
        tuple(
            RateSet(
                name,
                sources[name],
                len(sets[name].rows),
                sets[name].leaves,
                SetRates(**first[name]),
            )
            for name in SETS
        ),
        tuple(map(_summary, paths)),
        s.pretraining_volume or None,
        tuple(_fitted(path, s.pretraining_volume) for path in paths),
    )


def trajectories(
    n_pos: Sequence[int], doses: Sequence[int], start: Mapping[str, Any], rebounds: Rebounds
) -> list[Trajectory]:
    """The aligning run's, then a perturbing one's a branch."""

    def one(name: str, probes: Mapping[str, Any]) -> float:
        return float(probes["rates"]["sets"][name]["rate"])

    def along(phase: str, n: int, marks: Sequence[int], measured: ProbesAtMarks) -> Trajectory:
        values = {
            name: {
                seed: [one(name, probes) for probes in measured(got)]
                for seed, got in rebounds.items()
            }
            for name in SETS
        }
        return Trajectory(phase, n, (0, *marks), values)

    begin = start["probes"]
    sizes = [n for n in n_pos if n]
    paths = []
    if sizes:
        climb = along("align", sizes[-1], sizes, lambda got: [begin, *got["aligned"].values()])
        paths.append(climb)
    for n in n_pos:

        def perturbed(got: Mapping[str, Any], n: int = n) -> list[Mapping[str, Any]]:
            values = branch(got, n)
            return [values[d] for d in (0, *doses)]

        paths.append(along("perturb", n, doses, perturbed))
    return paths


def _summary(path: Trajectory) -> RatePath:
    """Mean change since the trajectory's begin, and change for each example to its first mark
    and to its last."""
    sets = {}
    for name, by_seed in path.values.items():
        columns = list(zip(*by_seed.values(), strict=True))  # one a mark, over the seeds
        changes = tuple(
            mean_interval([v - b for v, b in zip(column, columns[0], strict=True)])
            for column in columns
        )
        first, last = (mean_interval(_slopes(path, name, mark)) for mark in (1, -1))
        sets[name] = RateMoves(changes, first, last)
    return RatePath(path.phase, path.n_pos, path.examples, sets)


def _slopes(path: Trajectory, name: str, mark: int) -> list[float]:
    """By seed: change of the set's rate for each example from the beginning to mark ``mark``."""
    return [
        (values[mark] - values[0]) / path.examples[mark] for values in path.values[name].values()
    ]


def _fitted(path: Trajectory, volume: float) -> RateFit:
    """How many times as far as the pre-training set's the aligning set's rate moves, other way.

    By seed and over them: -(change of the aligning set's rate) / (that of the pre-training set's).
    The theorem says |D1| / |D2| while D3 comes, and speaks of perturbing only.
    """

    def ratio(mark: int) -> RateRatio:
        one, two = (_slopes(path, name, mark) for name in ("pretraining", "aligning"))
        ratios = [-b / a if a else math.nan for a, b in zip(one, two, strict=True)]
        return RateRatio(
            path.examples[mark],
            tuple(r if math.isfinite(r) else None for r in ratios),
            geometric(ratios),
            sum(r > 0 for r in ratios) / len(ratios),
        )

    by_volumes = volume / path.n_pos if volume and path.n_pos else None
    return RateFit(path.phase, path.n_pos, ratio(1), ratio(-1), by_volumes)


def parts(measured: Rates | None) -> list[Part]:
    """The question that the rates answer, of the most aligned model."""
    if measured is None:
        return []
    path, fit = measured.trajectories[-1], measured.k[-1]
    moved = "; ".join(f"{name} {path.sets[name].first_per_example.mean:+.2e}" for name in SETS)
    if (k := fit.first.k) is None:
        share = f"{100 * fit.first.opposite:.0f} %"
        label, fitted = "no k", f"the two go opposite ways in {share} of the seeds: no k to fit"
    else:
        bounds = "" if k.bounds is None else f" ({k.low:.2g} to {k.high:.2g})"
        label = f"k = {k.mean:.2g}"
        fitted = f"fitted k = {k.mean:.2g}{bounds}"
    if fit.volumes is not None:
        fitted += f", {fit.volumes:.3g} by volumes"
    text = (
        f"Bits a token for each of the first {fit.first.examples} perturbing examples: {moved}; "
        f"{fitted}."
    )
    return [Part("Whose rate moves, and by what k?", label, text)]
