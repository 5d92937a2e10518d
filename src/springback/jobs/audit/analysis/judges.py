"""Where several judges score the sampled texts: how far each two of them agree."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from springback.elasticity import Quantity
from springback.probes import Scorer
from springback.results.audit_schema import JudgePair, Judges
from springback.results.probe_info import ProbeInfo
from springback.results.schema import Part
from springback.stats.agreement import agreement_interval, cohens_kappa, rank_correlation
from springback.stats.values import Floats

Values = Mapping[str, Mapping[str, Any]]


def judge_agreement(
    words: Mapping[str, ProbeInfo],
    scorers: Sequence[Scorer],
    start: Mapping[str, Any],
    rebounds: Mapping[int, Mapping[str, Any]],
) -> Judges | None:
    """Agreement on the texts of every model that was measured; None with a single judge.

    ``scorers``: in the order of their probes in ``words``.
    """
    keys = [key for key in words if key.partition(":")[0] == "behaviour"]
    if len(keys) < 2:
        return None
    models = [start["probes"], *_measured(rebounds)]
    scores = {key: [model[key]["per_example"] for model in models] for key in keys}
    prompts = np.array([i for each in scores[keys[0]] for i in range(len(each))])
    flat = {
        key: np.array([v for each in by_model for v in each], dtype=float)  # None is NaN
        for key, by_model in scores.items()
    }
    by_key = dict(zip(keys, scorers, strict=True))
    pairs = [
        _pair((by_key[one], flat[one]), (by_key[two], flat[two]), prompts)
        for one, two in itertools.combinations(keys, 2)
    ]
    return Judges({key: by_key[key].name for key in keys}, len(models), tuple(pairs))


def _measured(rebounds: Mapping[int, Mapping[str, Any]]) -> Iterator[Values]:
    """The probes of every model after the start, which is dose 0 of branch point 0."""
    for got in rebounds.values():
        yield from got["aligned"].values()
        for n_pos, doses in got["perturbed"].items():
            yield from (values for dose, values in doses.items() if n_pos or dose)
        every = (got["attacks"], got["protected"], *got["controls"].values())
        for doses in (doses for branches in every for doses in branches.values()):
            yield from doses.values()
        yield from (got["repair"] or {}).values()


def _pair(one: tuple[Scorer, Floats], two: tuple[Scorer, Floats], prompts: Floats) -> JudgePair:
    (a, first), (b, second) = one, two
    known = np.isfinite(first) & np.isfinite(second)
    first, second, asked = first[known], second[known], prompts[known].astype(int).tolist()
    agreement = kappa = correlation = None
    if a.cut is not None and b.cut is not None:
        yes, also = (first >= a.cut).astype(float), (second >= b.cut).astype(float)
        agreement = agreement_interval(lambda x, y: float((x == y).mean()), yes, also, asked)
        kappa = agreement_interval(cohens_kappa, yes, also, asked)
    else:
        correlation = agreement_interval(rank_correlation, first, second, asked)
    return JudgePair(a.name, b.name, int(known.sum()), agreement, kappa, correlation)


def agreement_quantities(judges: Judges | None) -> dict[str, Quantity]:
    """Lines of the card, one for each two judges."""
    lines = {}
    for pair in judges.pairs if judges is not None else ():
        what, unit, value = "Cohen's kappa", "kappa", pair.kappa
        if pair.agreement is None:
            what, unit, value = "Spearman's rank correlation", "correlation", pair.rank_correlation
        label = reason = ""
        if pair.agreement is not None:
            label = f"the same on {100 * pair.agreement.mean:.0f} % of {pair.texts} texts"
        if value is None:
            reason = "not defined where a judge says the same of every text"
        name = f"{pair.a} and {pair.b}"
        lines[name] = Quantity(
            f"{what} of {name}",
            unit,
            value.mean if value is not None else None,
            value.low if value is not None else None,
            value.high if value is not None else None,
            label=label,
            reason=reason,
        )
    return lines


def parts(judges: Judges | None) -> list[Part]:
    """The question whether the judges agree, one for each two."""
    answers = []
    for pair in judges.pairs if judges is not None else ():
        text = f"On {pair.texts} texts of {judges.models if judges else 0} models"
        if pair.agreement is not None:
            label = f"{100 * pair.agreement.mean:.0f} % the same"
            kappa = pair.kappa.with_bounds(".2f") if pair.kappa else "not defined"
            share = pair.agreement.scaled(100).with_bounds(".0f")
            text += f": the same verdict on {share} %, Cohen's kappa {kappa}."
        else:
            rank = pair.rank_correlation
            label = f"rank correlation {rank.mean:.2f}" if rank else "not defined"
            text += f": Spearman's rank correlation {rank.with_bounds('.2f') if rank else '–'}."
        answers.append(Part(f"Do the judges {pair.a} and {pair.b} agree?", label, text))
    return answers
