"""Paper B's theory over seeds: predicted error against lambda beside measured NLL and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from springback.core import Checkpoint
from springback.errors import DataError
from springback.jobs.boost.analysis.logit_errors import quantities
from springback.results.boost_schema import LambdaPoint
from springback.results.paper_schema import Agreement, SeedTheory
from springback.stats import Interval, mean_interval, paired_interval
from springback.theory.logit_errors import Errors, TextErrors, estimate


def theory_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts of a :class:`Cell` that theory has.

    ``seeds``: what each predicts and shows; ``curve``: by lambda, over the seeds.  Measured "helps"
    is the sign of the change of mean NLL at the smallest lambda above 0, since the theory's
    condition rho k > 1 is about the slope at 0.  Intervals over seeds are Student's t; with one
    seed they are over questions.
    """
    errors = [_errors(result) for result in results]
    seeds = tuple(map(_seed, results, errors))
    judged = [s for s in seeds if s.predicted in ("helps", "does not help")]
    right = sum(s.predicted == s.measured for s in judged)
    reference = results[0]["reference"]
    return {
        "seeds": seeds,
        "curve": _curve(results, errors),
        "agreement": Agreement(right, len(judged), len(seeds)),
        "reference": None if reference is None else Checkpoint(**reference),
    }


def _errors(result: Mapping[str, Any]) -> Errors | None:
    """The logit errors of a seed; None where they were not measured or cannot be estimated."""
    if not result["errors"]:
        return None
    try:
        return estimate([TextErrors(**text) for text in result["errors"]])
    except DataError:
        return None


def _seed(result: Mapping[str, Any], errors: Errors | None) -> SeedTheory:
    nll = {point["lambda"]: fmean(point["nll"]) for point in result["nll"]}
    small = min(lam for lam in nll if lam > 0)
    predicted: dict[str, Any] = {"label": "no reference"} if errors is None else quantities(errors)
    return SeedTheory(
        seed=result["seed"],
        mu=result["mu"],
        predicted=predicted.pop("label"),
        measured="helps" if nll[small] < nll[0.0] else "does not help",
        nll_lambda=min(nll, key=lambda lam: (nll[lam], lam)),
        chosen=result["chosen"],
        **predicted,
    )


def _curve(
    results: Sequence[Mapping[str, Any]], errors: Sequence[Errors | None]
) -> tuple[LambdaPoint, ...]:
    lams = sorted(set.intersection(*({p["lambda"] for p in r["nll"]} for r in results)))
    decoded = set.intersection(*({p["lambda"] for p in r["accuracy"]} for r in results))
    factors = [known for e in errors if e is not None and (known := e.factors(lams)) is not None]
    return tuple(
        LambdaPoint(
            lam,
            mean_interval([by_lam[i] for by_lam in factors]) if factors else None,
            _change(results, "nll", "nll", lam),
            _change(results, "accuracy", "correct", lam) if lam in decoded else None,
        )
        for i, lam in enumerate(lams)
    )


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
