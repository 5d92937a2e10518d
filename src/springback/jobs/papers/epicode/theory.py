"""Paper B's theory over seeds: predicted error against lambda beside measured NLL and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from springback.core import to_jsonable
from springback.errors import DataError
from springback.jobs.boost.analysis.logit_errors import quantities
from springback.stats import Interval, mean_interval, paired_interval
from springback.theory.logit_errors import Errors, TextErrors, estimate


def theory_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``seeds``: what each predicts and shows; ``curve``: by lambda, over the seeds.

    Measured "helps" is the sign of the change of mean NLL at the smallest lambda above 0, since the
    theory's condition rho k > 1 is about the slope at 0.  Intervals over seeds are Student's t;
    with one seed they are over questions.
    """
    seeds = [_seed(result) for result in results]
    judged = [s for s in seeds if s["predicted"] in ("helps", "does not help")]
    return {
        "seeds": [{k: v for k, v in s.items() if k != "factors"} for s in seeds],
        "curve": _curve(results, seeds),
        "agreement": {
            "right": sum(s["predicted"] == s["measured"] for s in judged),
            "judged": len(judged),
            "seeds": len(seeds),
        },
        "reference": results[0]["reference"],
    }


def _errors(result: Mapping[str, Any]) -> Errors | None:
    """The logit errors of a seed; None where they were not measured or cannot be estimated."""
    if not result["errors"]:
        return None
    try:
        return estimate([TextErrors(**text) for text in result["errors"]])
    except DataError:
        return None


def _seed(result: Mapping[str, Any]) -> dict[str, Any]:
    errors = _errors(result)
    nll = {point["lambda"]: fmean(point["nll"]) for point in result["nll"]}
    small = min(lam for lam in nll if lam > 0)
    row: dict[str, Any] = {
        "seed": result["seed"],
        "mu": result["mu"],
        "predicted": "no reference",
        "measured": "helps" if nll[small] < nll[0.0] else "does not help",
        "nll_lambda": min(nll, key=lambda lam: (nll[lam], lam)),
        "chosen": result["chosen"],
        "factors": None,
    }
    if errors is not None:
        predicted = to_jsonable(quantities(errors))
        row |= {"predicted": predicted.pop("label"), **predicted}
        row["factors"] = errors.factors(sorted(nll))
    return row


def _curve(
    results: Sequence[Mapping[str, Any]], seeds: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    lams = sorted(set.intersection(*({p["lambda"] for p in r["nll"]} for r in results)))
    decoded = set.intersection(*({p["lambda"] for p in r["accuracy"]} for r in results))
    rows = []
    for lam in lams:
        known = [
            factors[sorted(p["lambda"] for p in r["nll"]).index(lam)]
            for r, s in zip(results, seeds, strict=True)
            if (factors := s["factors"]) is not None
        ]
        rows.append(
            {
                "lambda": lam,
                "error_variance": mean_interval(known).to_dict() if known else None,
                "nll_difference": _change(results, "nll", "nll", lam).to_dict(),
                "accuracy_difference": _change(results, "accuracy", "correct", lam).to_dict()
                if lam in decoded
                else None,
            }
        )
    return rows


def _change(results: Sequence[Mapping[str, Any]], curve: str, measure: str, lam: float) -> Interval:
    """Change from lambda 0 to ``lam``, paired by question."""

    def by_question(result: Mapping[str, Any], wanted: float) -> list[float]:
        (point,) = (p for p in result[curve] if p["lambda"] == wanted)
        return [float(v) for v in point[measure]]

    if lam == 0:
        return Interval(0.0, None, None, len(results), "the same by definition")
    if len(results) == 1:
        return paired_interval(by_question(results[0], lam), by_question(results[0], 0.0))
    return mean_interval([fmean(by_question(r, lam)) - fmean(by_question(r, 0.0)) for r in results])
