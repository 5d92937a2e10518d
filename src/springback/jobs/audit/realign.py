"""Re-alignment: the perturbed model is aligned again, on fresh rows.  Is the second time faster?

From the most aligned branch point after the study's own perturbation; measured at the same numbers
of examples as the first alignment, so that both can be read side by side.
"""

from __future__ import annotations

from typing import Any

from springback.core import Measurement, Slice
from springback.jobs.audit import rebound
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import (
    TrainingRun,
    Weights,
    measured_inputs,
    train_and_measure,
)


def runs(settings: AuditSettings, seed: int) -> list[TrainingRun]:
    """The second alignment of a seed, where the settings ask for it."""
    if "realign" not in settings.experiments:
        return []
    first = rebound.align_run(settings, seed)
    perturbed = rebound.perturb_run(settings, seed, max(settings.n_pos))
    run = TrainingRun(
        "realign",
        seed,
        _align_again,
        _inputs,
        rows=first.rows,
        recipe=first.recipe,
        marks=first.marks,
        starts_from=Weights(perturbed, "perturbed"),
    )
    return [run]


def _rows(study: Study, run: TrainingRun) -> Slice:
    return study.data.reserved("align", "again", run.seed)


def _inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    before = rebound.perturb_run(study.settings, run.seed, max(study.settings.n_pos))
    return {
        **measured_inputs(study, run, _rows(study, run), "again"),
        "fallen": before.identity(study).id,  # this name is part of the ids of finished runs
    }


def _align_again(study: Study, run: TrainingRun) -> dict[str, Any]:
    study.progress.stage(f"seed {run.seed}: aligning again on {run.rows} examples", run.steps)
    study.reset(run.seed, run.start_weights(study))
    part = _rows(study, run)
    return train_and_measure(study, run, part, "again", lambda _, model: study.measure(model))


def read_seed(study: Study, seed: int) -> dict[int, Any] | None:
    """The probes by number of examples of the second alignment, which has to be done.

    None where the settings leave it out.
    """
    return next((run.measured(study) for run in runs(study.settings, seed)), None)


def measurements(study: Study, seeds: dict[int, dict[int, Any] | None]) -> list[Measurement]:
    """Every measured value as a record of the result file."""
    return [
        record
        for seed, counts in seeds.items()
        for n, values in (counts or {}).items()
        for record in rebound.records(
            study, f"realign-{n}", values, {"phase": "realign", "seed": seed, "n_pos": n}
        )
    ]
