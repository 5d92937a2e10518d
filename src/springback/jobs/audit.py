"""``springback audit``: how strongly does a model spring back after alignment?

Rebound is in :mod:`springback.jobs.rebound`, resistance in :mod:`springback.jobs.resistance`,
what the numbers say in :mod:`springback.jobs.audit_analysis`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.jobs import rebound, resistance
from springback.jobs.audit_analysis import analyse, judge
from springback.jobs.audit_data import Data, check_settings, load_data
from springback.jobs.common import Clock, Result, write_result
from springback.jobs.settings import AuditSettings
from springback.jobs.study import Study
from springback.progress import Progress, Silent
from springback.store import Store


def audit(
    settings: AuditSettings | None = None,
    out: str | Path = "springback-audit",
    progress: Progress | None = None,
) -> Result:
    """Align, perturb, measure; write ``out/result.json``.

    Finished runs in ``out/runs`` are read instead of repeated, so the same call after a crash (or
    with more seeds) goes on.  Raises :class:`springback.errors.SpringbackError` on input that
    cannot be used, before anything is trained.  Paper A, sections A2 and A3.
    """
    clock, progress = Clock.start(), progress or Silent()
    settings = check_settings(settings or AuditSettings())
    with Store(out).locked() as store:
        data = load_data(settings)
        study = Study(settings, data, store, progress)
        study.announce()
        start = rebound.measure_start(study)
        rebounds = {seed: rebound.run_seed(study, seed) for seed in settings.seeds}
        resistances = {seed: resistance.run_seed(study, seed) for seed in settings.seeds}
        analysis = analyse(settings, start, rebounds, resistances)
        found = rebound.measurements(start, rebounds, "held-out")
        found += resistance.measurements(resistances)
        return write_result(
            store,
            "audit",
            clock,
            inputs=_inputs(study, data),
            measurements=found,
            analysis=analysis,
            verdict=judge(settings, start, rebounds, resistances),
        )


def _inputs(study: Study, data: Data) -> dict[str, Any]:
    return {
        # The name that was given, not where the cache keeps it: results are made to be shared.
        "model": replace(study.checkpoint, path=study.settings.model),
        "align": data.align.describe(),
        "perturb": data.perturb.describe(),
        "wanted": data.wanted.describe(),
        "unwanted": data.unwanted.describe(),
        "settings": study.settings,
    }


__all__ = ["AuditSettings", "audit"]
