"""``springback audit``: how strongly does a model spring back after alignment?

Its runs are listed in :mod:`springback.jobs.audit.runs`; what the numbers say is worked out in
:mod:`springback.jobs.audit.analysis`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.core import to_jsonable
from springback.elasticity import card_of
from springback.elasticity.read_audit import AuditValues, study_hash
from springback.integrations.ray import ExecutorSettings
from springback.jobs.audit import on_ray as ray_runs
from springback.jobs.audit import realign, rebound, resistance, runs
from springback.jobs.audit.analysis import curves, findings, protections, rates
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.plan import Plan, make_plan
from springback.jobs.audit.pools import Data
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.progress import Progress, Silent
from springback.results.audit_schema import Audit
from springback.results.card_schema import Card
from springback.results.store import Store, require_space, write_json, write_text
from springback.results.writing import Clock, Result, write_result


def audit(
    settings: AuditSettings | None = None,
    out: str | Path = "springback-audit",
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Align, perturb, measure; write ``out/result.json``, ``card.json`` and ``card.md``.

    ``executor``: where the runs are made (:mod:`springback.jobs.audit.on_ray`); None is here.

    Finished runs in ``out/runs`` are read instead of repeated, so the same call after a crash (or
    with more seeds) goes on.  Raises :class:`springback.errors.SpringbackError` on input that
    cannot be used, before anything is trained.  Paper A, sections A2 and A3.
    """
    clock, progress = Clock.start(), progress or Silent()
    settings = check_settings(settings or AuditSettings())
    on_ray = ray_runs.on_ray(executor)
    with Store(out).locked() as store, ExitStack() as ending:
        prompt_filter = PromptFilter(settings)
        data = load_data(settings, prompt_filter, progress.note)
        studies = _studies(settings, data, store, progress, prompt_filter)
        ending.callback(studies[0].close)
        planned = _announce(studies)
        if on_ray and executor is not None:
            ray_runs.make(studies, planned, executor, progress)
        for study in studies:
            runs.make(study, runs.of(study.settings))
        study, opposite = studies[0], studies[1] if len(studies) > 1 else None
        start = rebound.read_start(study)
        rebounds = {seed: rebound.read_seed(study, seed) for seed in settings.seeds}
        again = {seed: realign.read_seed(study, seed) for seed in settings.seeds}
        resistances = {seed: resistance.read_seed(study, seed) for seed in settings.seeds}
        turned = None
        if opposite is not None:
            first = rebound.read_start(opposite)
            turned = first, {seed: rebound.read_seed(opposite, seed) for seed in settings.seeds}
        words = study.words
        analysis = Audit(
            rebound=curves.rebound_part(settings, words, start, rebounds),
            resistance=curves.resistance_part(settings, resistances),
            noise_floor=start["noise"],
            doses_to_undo=findings.doses_to_undo(settings, start, rebounds),
            phases=findings.phases(settings, start, rebounds),
            sampled=findings.sampled(settings, words, start, rebounds),
            attackers=findings.attackers(settings, start, rebounds),
            realign=findings.second_alignment(settings, start, rebounds, again),
            rates=rates.rates(study, start, rebounds),
            protections=protections.protections(settings, words, start, rebounds),
            repair=protections.repair(settings, words, start, rebounds),
            symmetry=curves.rebound_part(settings, words, *turned) if turned else None,
        )
        records = rebound.measurements(study, start, rebounds)
        records += resistance.measurements(study, resistances)
        records += realign.measurements(study, again)
        if turned is not None:
            records += rebound.measurements(study, *turned, order="opposite")
        verdict = curves.judge(settings, start, rebounds, resistances)
        parts = (
            *verdict.parts,
            *findings.parts(analysis),
            *rates.parts(analysis.rates),
            *protections.parts(analysis),
            *findings.symmetry(analysis),
        )
        inputs = _inputs(study, data)
        values = AuditValues(
            model=settings.model,
            model_hash=study.checkpoint.content_hash,
            study=study_hash(to_jsonable(inputs)),
            seeds=settings.seeds,
            n_pos=settings.n_pos,
            doses=(0, *settings.doses),
            values={p: findings.curves_of(settings, start, rebounds, p).margins for p in words},
            start={p: float(start["probes"][p]["value"]) for p in words},
            losses=curves.losses_of(resistances),
            noise_floor=start["noise"],
            attackers=analysis.attackers.share if analysis.attackers is not None else None,
            resistance_data=settings.resistance_data,
        )
        card = card_of(values, epsilon=settings.epsilon)
        write_json(store.root / "card.json", card.to_dict())
        write_text(store.root / "card.md", card.to_markdown())
        return write_result(
            store,
            "audit",
            clock,
            inputs=inputs,
            measurements=records,
            analysis=replace(analysis, card=Card.of(card)),
            verdict=replace(verdict, parts=parts),
        )


def plan(settings: AuditSettings, out: str | Path = "springback-audit") -> Plan:
    """What :func:`audit` would do in ``out``, and what of it is done; trains nothing."""
    settings = check_settings(settings)
    store, prompt_filter = Store(out), PromptFilter(settings)
    data = load_data(settings, prompt_filter)
    return make_plan(_studies(settings, data, store, Silent(), prompt_filter))


def _studies(
    settings: AuditSettings,
    data: Data,
    store: Store,
    progress: Progress,
    prompt_filter: PromptFilter,
) -> list[Study]:
    """The study, and its opposite if symmetry is asked for."""
    study = Study(settings, data, store, progress, prompt_filter=prompt_filter)
    return [study, study.opposite()] if "symmetry" in settings.experiments else [study]


def _announce(studies: list[Study]) -> Plan:
    """Say what will be done, how long it takes, and the memory and disk it needs."""
    study, made = studies[0], make_plan(studies)
    s = study.settings
    require_space(study.store.root, made.disk, "this audit")
    study.progress.note(
        f"audit of {s.model}: {len(s.seeds)} seed(s) {list(s.seeds)}; align on {list(s.n_pos)} "
        f"rows of {s.align}, perturb with up to {max(s.doses)} rows of {s.perturb}"
    )
    for source, rows in study.data.left_out.items():
        study.progress.note(
            f"left out {rows} rows of {source}: their prompts leave no room for an answer within "
            f"{s.max_tokens} tokens"
        )
    if len(s.seeds) == 1:
        study.progress.note("one seed: values come without intervals across seeds")
    done = sum(p.done for p in made.runs)
    before = f"{done} of {len(made.runs)} runs are done; " if done else ""
    study.progress.note(f"{before}{made.needs}; stop it at any time, the same command goes on")
    return made


def _inputs(study: Study, data: Data) -> dict[str, Any]:
    return {
        # The name that was given, not where the cache keeps it: results are made to be shared.
        "model": replace(study.checkpoint, path=study.settings.model),
        "align": data.align.describe(),
        "perturb": data.perturb.describe(),
        "wanted": data.wanted.describe(),
        "unwanted": data.unwanted.describe(),
        "settings": study.settings,
        **({"left_out": data.left_out} if data.left_out else {}),
    }


__all__ = ["AuditSettings", "audit", "plan"]
