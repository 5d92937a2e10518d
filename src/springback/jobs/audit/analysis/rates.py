"""Whose compression rate moves how much per example (paper A, section A1), in an audit.

A set's rate is the model's code length for its held-out texts, in bits a token (its symbol): the
sum of their NLL over the sum of their counted tokens.  The normalised rate takes off log2 M, M the
leaves of the set's own token tree pruned to a stated depth.  M is of the texts and not of the
model, so every change of a normalised rate is that of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from springback.probes.rates import rate_sets
from springback.results.writing import geometric
from springback.stats import mean_interval

if TYPE_CHECKING:
    from springback.jobs.audit.study import Study

SETS = ("pretraining", "aligning", "perturbing")
Rebounds = Mapping[int, Mapping[str, Any]]


def rates(study: Study, start: Mapping[str, Any], rebounds: Rebounds) -> dict[str, Any] | None:
    """Changes of the three rates along both trajectories, and the k that they make.

    None where the probe ``rates`` was not asked for.
    """
    s = study.settings
    if "rates" not in s.probes:
        return None
    sources = {"pretraining": s.pretraining, "aligning": s.align, "perturbing": s.perturb}
    first = start["probes"]["rates"]["sets"]
    sets, paths = rate_sets(study), trajectories(s.n_pos, s.doses, start, rebounds)
    return {
        "depth": s.rate_depth,
        "sets": [
            {
                "name": name,
                "source": sources[name],
                "texts": len(sets[name].rows),
                "leaves": sets[name].leaves,
                "start": first[name],
            }
            for name in SETS
        ],
        "trajectories": [_summary(path) for path in paths],
        "volume": s.pretraining_volume or None,
        "k": [_fitted(path, s.pretraining_volume) for path in paths],
    }


def trajectories(
    n_pos: Sequence[int], doses: Sequence[int], start: Mapping[str, Any], rebounds: Rebounds
) -> list[dict[str, Any]]:
    """Rates by set and seed along examples: the aligning run, then a perturbing one a branch.

    ``values``: set -> seed -> rates, in bits a token, the first where the trajectory begins.
    """

    def one(name: str, at: Mapping[str, Any]) -> float:
        return float(at["rates"]["sets"][name]["rate"])

    begin = start["probes"]
    found: list[dict[str, Any]] = [
        {
            "phase": "align",
            "n_pos": max(n_pos),
            "examples": [0, *n_pos],
            "values": {
                name: {
                    seed: [one(name, begin), *(one(name, got["aligned"][n]) for n in n_pos)]
                    for seed, got in rebounds.items()
                }
                for name in SETS
            },
        }
    ]
    for n in n_pos:
        values = {
            name: {
                seed: [
                    one(name, got["aligned"][n]),
                    *(one(name, got["perturbed"][n][d]) for d in doses),
                ]
                for seed, got in rebounds.items()
            }
            for name in SETS
        }
        found.append({"phase": "perturb", "n_pos": n, "examples": [0, *doses], "values": values})
    return found


def _summary(path: Mapping[str, Any]) -> dict[str, Any]:
    """Mean change since the trajectory's begin, and change for each example to its first mark
    and to its last."""
    examples = path["examples"]
    found: dict[str, Any] = {key: path[key] for key in ("phase", "n_pos", "examples")}
    found["sets"] = {}
    for name, by_seed in path["values"].items():
        columns = list(zip(*by_seed.values(), strict=True))  # one a mark, over the seeds
        changes = [
            mean_interval([v - b for v, b in zip(column, columns[0], strict=True)]).to_dict()
            for column in columns
        ]
        found["sets"][name] = {
            "change": changes,
            "first_per_example": _per_example(by_seed, examples, 1),
            "per_example": _per_example(by_seed, examples, -1),
        }
    return found


def _slopes(
    by_seed: Mapping[int, Sequence[float]], examples: Sequence[int], at: int
) -> list[float]:
    """By seed: change of the rate for each example from the beginning to mark ``at``."""
    return [(values[at] - values[0]) / examples[at] for values in by_seed.values()]


def _per_example(
    by_seed: Mapping[int, Sequence[float]], examples: Sequence[int], at: int
) -> dict[str, Any]:
    return mean_interval(_slopes(by_seed, examples, at)).to_dict()


def _fitted(path: Mapping[str, Any], volume: float) -> dict[str, Any]:
    """How many times as far as the pre-training set's the aligning set's rate moves, other way.

    By seed and over them: -(change of the aligning set's rate) / (that of the pre-training set's).
    The theorem says |D1| / |D2| while D3 comes, and speaks of perturbing only.
    """
    found: dict[str, Any] = {"phase": path["phase"], "n_pos": path["n_pos"]}
    for key, at in (("first", 1), ("all", -1)):
        one, two = (
            _slopes(path["values"][name], path["examples"], at)
            for name in ("pretraining", "aligning")
        )
        ratios = [-b / a if a else math.nan for a, b in zip(one, two, strict=True)]
        found[key] = {
            "examples": path["examples"][at],
            "by_seed": [r if math.isfinite(r) else None for r in ratios],
            "k": geometric(ratios),
            "opposite": sum(r > 0 for r in ratios) / len(ratios),
        }
    found["volumes"] = volume / path["n_pos"] if volume else None
    return found


def parts(found: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The question that the rates answer, of the most aligned model."""
    if found is None:
        return []
    path, fitted = found["trajectories"][-1], found["k"][-1]["first"]
    moved = "; ".join(
        f"{name} {path['sets'][name]['first_per_example']['mean']:+.2e}" for name in SETS
    )
    k = fitted["k"]
    if k is None:
        share = f"{100 * fitted['opposite']:.0f} %"
        label, said = "no k", f"the two go opposite ways in {share} of the seeds: no k to fit"
    else:
        bounds = "" if k["low"] is None else f" ({k['low']:.2g} to {k['high']:.2g})"
        label = f"k = {k['mean']:.2g}"
        said = f"fitted k = {k['mean']:.2g}{bounds}"
    if found["k"][-1]["volumes"] is not None:
        said += f", {found['k'][-1]['volumes']:.3g} by volumes"
    text = (
        f"Bits a token for each of the first {fitted['examples']} perturbing examples: {moved}; "
        f"{said}."
    )
    return [
        {"question": "Whose rate moves, and by what k?", "label": label, "text": text},
    ]
