"""The pre-check of a boost: is a gain to be expected at all?  Made before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev

from springback.core import Checkpoint, Run, Slice
from springback.jobs.boost.scoring import Scoring
from springback.probes.along_mu import MUS
from springback.progress import Progress
from springback.results.boost_schema import NllAtMu, PrecheckPart
from springback.results.reading import read_part
from springback.weights import Precheck, check_line, judge
from springback.weights.adapters.precheck import check_adapters

#: Validation rows that the NLL along mu is taken on: it is a look ahead, not the search.
ROWS = 64


def precheck(job: Scoring, line: Sequence[Checkpoint], validation: Slice) -> PrecheckPart:
    """Numbers along the line of checkpoints, NLL along mu, and the call, as the result file has it.

    ``job.progress`` notes all of it.

    ``nll``: mean over the first :data:`ROWS` validation solutions at each mu, the difference to
    mu = 0 and its standard error (paired by text), nats a token; None where NLL is withheld.
    Stored: done once.
    """
    rendered = job.format.render(validation.take(ROWS))
    why = job.withheld(validation, "validation")
    run = Run.of(
        "precheck",
        line=[c.content_hash for c in line],
        questions=rendered.content_hash,
        mus=list(MUS),
        system=job.settings.system,
        max_tokens=job.settings.max_tokens,
        **job.inputs(),
        **({"nll": "withheld"} if why else {}),
    )
    stored = job.store.results(run)
    if stored is None:
        numbers = _numbers(line, job.progress)
        measured = None
        if not why:
            with job.timer.part("scoring"):
                measured = job.engine.nll_along_mu(job.solutions(rendered), job.progress)
        call = judge(numbers, measured, withheld=why is not None)
        stored = job.store.commit(
            run,
            {
                "label": call.label,
                "reasons": list(call.reasons),
                "line": asdict(numbers),
                "nll": None if measured is None else [_point(mu, measured) for mu in measured],
            },
        )
    part = read_part(PrecheckPart, "precheck", stored, "boost")
    line_numbers = read_part(Precheck, "line", part.line, "boost")
    for text in (*line_numbers.lines(), *_nll_lines(part.nll)):
        job.progress.note(f"pre-check: {text}")
    job.progress.note(f"pre-check: {part.label}; {'; '.join(part.reasons)}")
    return part


def _numbers(line: Sequence[Checkpoint], progress: Progress) -> Precheck:
    if line[-1].adapter is None:
        return check_line([c.path for c in line], progress=progress)
    return check_adapters([str(c.adapter) for c in line[-2:]], line[-1].path, progress)


def _nll_lines(points: Sequence[NllAtMu] | None) -> list[str]:
    if points is None:
        return ["validation NLL along mu: withheld"]
    values = ", ".join(f"{p.nll:.4f} at {p.mu:g}" for p in points)
    return [f"validation NLL along mu, nats a token: {values}"]


def _point(mu: float, nll: Mapping[float, Sequence[float]]) -> dict[str, float | None]:
    paired = [a - b for a, b in zip(nll[mu], nll[0.0], strict=True)]
    error = stdev(paired) / math.sqrt(len(paired)) if len(paired) > 1 else None
    return {"mu": mu, "nll": fmean(nll[mu]), "difference": fmean(paired), "error": error}
