"""``springback audit``: how strongly does a model spring back after alignment?

Its runs are listed in :mod:`springback.jobs.audit.runs`; what the numbers say is worked out in
:mod:`springback.jobs.audit.analysis`.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from springback.core import Checkpoint, Measurement, to_jsonable
from springback.elasticity import AuditValues, card_of, study_hash
from springback.integrations.ray import ExecutorSettings, on_ray
from springback.jobs.audit import on_ray as ray_runs
from springback.jobs.audit import realign, rebound, resistance, runs
from springback.jobs.audit.accelerate_config import sharding
from springback.jobs.audit.analysis import (
    controls,
    curves,
    findings,
    finished,
    judges,
    protections,
    rates,
)
from springback.jobs.audit.checks import READ, check_settings
from springback.jobs.audit.finished import is_finished
from springback.jobs.audit.kept_samples import write_samples
from springback.jobs.audit.plan import Plan, make_plan, parts_of
from springback.jobs.audit.pools import Data
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.out_of_memory import memory_explained
from springback.progress import Progress, Silent, default_progress
from springback.results.audit_schema import Audit
from springback.results.card_schema import Card
from springback.results.places import require_apart, require_same_kind, require_same_study
from springback.results.schema import Verdict
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
    clock, progress = Clock.start(), progress or default_progress()
    settings = check_settings(settings or AuditSettings())
    spread = on_ray(executor)
    require_apart(out, settings, READ)
    with Store(out).locked() as store, closing(progress), ExitStack() as ending:
        ending.enter_context(
            memory_explained("audit", partial(parts_of, settings), settings.device)
        )
        require_same_kind(store, "audit")
        prompt_filter = PromptFilter(settings)
        data = load_data(settings, prompt_filter, progress.note)
        settings = _with_known_controls(settings, data)
        studies = _studies(settings, data, store, progress, prompt_filter)
        ending.callback(studies[0].close)
        require_same_study(
            store,
            "audit",
            settings,
            {name: checkpoint.content_hash for name, checkpoint in _models(studies[0]).items()},
            {"align": data.align, "perturb": data.perturb},
        )
        planned = _announce(studies)
        if spread and executor is not None:
            with store.timer.part("waiting"):
                ray_runs.make(studies, planned, executor, progress)
        for study in studies:
            runs.make(study, runs.of(study.settings))
        measured = _read_runs(studies)
        analysis = _analyse(studies[0], measured)
        inputs = _inputs(studies[0], data)
        card = card_of(_card_values(studies[0], data, measured, analysis), epsilon=settings.epsilon)
        write_json(store.root / "card.json", card.to_dict())
        write_text(store.root / "card.md", card.to_markdown())
        write_samples(studies[0], measured.start, measured.rebounds)
        return write_result(
            store,
            "audit",
            clock,
            inputs=inputs,
            measurements=_measurements(studies[0], measured),
            analysis=replace(analysis, card=Card.of(card)),
            verdict=_verdict(settings, measured, analysis),
            computing={
                **studies[0].place.describe(),
                "probe_batch": studies[0].batches.describe(),
            },
        )


def plan(settings: AuditSettings, out: str | Path = "springback-audit") -> Plan:
    """What :func:`audit` would do in ``out``, and what of it is done; trains nothing."""
    settings = check_settings(settings)
    store, prompt_filter = Store(out), PromptFilter(settings)
    data = load_data(settings, prompt_filter)
    settings = _with_known_controls(settings, data)
    studies = _studies(settings, data, store, Silent(), prompt_filter)
    _models(studies[0])
    return make_plan(studies)


def _with_known_controls(settings: AuditSettings, data: Data) -> AuditSettings:
    """The settings without the controls that this data cannot have."""
    kept = tuple(c for c in settings.controls if c not in data.controls_left_out)
    return replace(settings, controls=kept)


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


def _models(study: Study) -> dict[str, Checkpoint]:
    """By setting; raises where the base model does not belong to the other."""
    models = {"model": study.checkpoint}
    return models if study.settings.base is None else models | {"base": study.base_checkpoint}


def _announce(studies: list[Study]) -> Plan:
    """Say what will be done, how long it takes, and the memory and disk it needs."""
    study, made = studies[0], make_plan(studies)
    s = study.settings
    require_space(study.store.root, made.disk, "this audit")
    first = f"align on {list(s.n_pos)} rows of {s.align}"
    if is_finished(s):
        first = "as it is, so resistance is left out, which aligns"
    study.progress.note(
        f"audit of {s.model}: {len(s.seeds)} seed(s) {list(s.seeds)}; {first}; perturb with up to "
        f"{max(s.doses)} rows of {s.perturb}"
    )
    if not s.align:
        study.progress.note(
            "no wanted texts are named (--align), so there is no margin: what counts is the "
            f"behaviour by {s.behaviour}"
        )
    for source, rows in study.data.left_out.items():
        study.progress.note(
            f"left out {rows} rows of {source}: their prompts leave no room for an answer within "
            f"{s.max_tokens} tokens"
        )
    for control, why in study.data.controls_left_out.items():
        study.progress.note(f"left out the {control} control: {why}")
    if sharding(s) and not study.sharded:
        study.progress.note(
            f"the files of {s.model} hold tensors in another form than they are computed with, so "
            "each process of --accelerate loads it whole, and this one too"
        )
    for scorer in study.scorers if "behaviour" in s.probes else ():
        if scorer.sends_to:
            study.progress.note(f"prompts and sampled texts go to the judge at {scorer.sends_to}")
    if len(s.seeds) == 1:
        study.progress.note("one seed: values come without intervals across seeds")
    done = sum(p.done for p in made.runs)
    before = f"{done} of {len(made.runs)} runs are done; " if done else ""
    study.progress.note(f"{before}{made.needs}; stop it at any time, the same command goes on")
    return made


@dataclass(frozen=True)
class Measured:
    """What the finished runs of an audit measured: of the start model, and seed -> values.

    ``opposite``: start and rebounds in the opposite order; None where it was not asked for.
    """

    start: dict[str, Any]
    rebounds: dict[int, dict[str, Any]]
    realigned: dict[int, dict[int, Any] | None]
    resistances: dict[int, dict[str, Any] | None]
    opposite: tuple[dict[str, Any], dict[int, dict[str, Any]]] | None


def _read_runs(studies: list[Study]) -> Measured:
    seeds = studies[0].settings.seeds
    (start, rebounds), *opposite = (
        (rebound.read_start(study), {seed: rebound.read_seed(study, seed) for seed in seeds})
        for study in studies
    )
    return Measured(
        start,
        rebounds,
        {seed: realign.read_seed(studies[0], seed) for seed in seeds},
        {seed: resistance.read_seed(studies[0], seed) for seed in seeds},
        opposite[0] if opposite else None,
    )


def _analyse(study: Study, measured: Measured) -> Audit:
    """The ``analysis`` part of the result file, but for the card."""
    settings, words = study.settings, study.words
    start, rebounds = measured.start, measured.rebounds
    opposite = measured.opposite
    return Audit(
        finished=finished.section(settings, words, start, rebounds),
        rebound=curves.rebound_part(settings, words, start, rebounds),
        resistance=curves.resistance_part(settings, measured.resistances),
        noise_floor=start["noise"],
        doses_to_undo=findings.doses_to_undo(settings, start, rebounds, words),
        phases=findings.phases(settings, start, rebounds, words),
        sampled=findings.sampled(settings, words, start, rebounds),
        judges=(
            judges.judge_agreement(words, study.scorers, start, rebounds)
            if "behaviour" in settings.probes
            else None
        ),
        attackers=findings.attackers(settings, start, rebounds, words),
        controls=controls.control_part(
            settings, start, rebounds, study.data.controls_left_out, words
        ),
        realign=findings.second_alignment(settings, start, rebounds, measured.realigned),
        rates=rates.rates(study, start, rebounds),
        protections=protections.protections(settings, words, start, rebounds),
        repair=protections.repair(settings, words, start, rebounds),
        symmetry=curves.rebound_part(settings, words, *opposite) if opposite else None,
    )


def _measurements(study: Study, measured: Measured) -> list[Measurement]:
    records = rebound.measurements(study, measured.start, measured.rebounds)
    records += resistance.measurements(study, measured.resistances)
    records += realign.measurements(study, measured.realigned)
    if measured.opposite is not None:
        records += rebound.measurements(study, *measured.opposite, order="opposite")
    return records


def _verdict(settings: AuditSettings, measured: Measured, analysis: Audit) -> Verdict:
    if analysis.finished is not None:
        verdict = finished.judge(settings, analysis)
    else:
        verdict = curves.judge(settings, measured.start, measured.rebounds, measured.resistances)
    parts = (
        *verdict.parts,
        *controls.parts(analysis.controls),
        *findings.parts(analysis),
        *rates.parts(analysis.rates),
        *protections.parts(analysis),
        *findings.symmetry(analysis),
    )
    return replace(verdict, parts=parts)


def _card_values(study: Study, data: Data, measured: Measured, analysis: Audit) -> AuditValues:
    settings, start = study.settings, measured.start
    values = {
        probe: findings.curves_of(settings, start, measured.rebounds, probe).margins
        for probe in study.words
    }
    slices = (data.align, data.perturb, data.wanted, data.unwanted)
    return AuditValues(
        model=settings.model,
        model_hash=study.checkpoint.content_hash,
        study=study_hash([s.content_hash for s in slices], to_jsonable(settings)),
        seeds=settings.seeds,
        n_pos=settings.n_pos,
        doses=(0, *settings.doses),
        values=values,
        start={probe: float(start["probes"][probe]["value"]) for probe in study.words},
        base={
            probe: float(value["value"])
            for probe, value in (start["base"] or {}).items()
            if probe in study.words
        },
        units={probe: info.unit for probe, info in study.words.items()},
        losses=curves.losses_of(measured.resistances),
        noise_floor=start["noise"],
        attackers=analysis.attackers.share if analysis.attackers is not None else None,
        agreement=judges.agreement_quantities(analysis.judges),
        resistance_data=settings.resistance_data,
        controls=controls.margins(settings, measured.rebounds) if "margin" in values else {},
        gain_noise=findings.gain_noise(settings, start, measured.rebounds),
    )


def _inputs(study: Study, data: Data) -> dict[str, Any]:
    return {
        # The name that was given, not where the cache keeps it: results are made to be shared.
        **{
            name: replace(checkpoint, path=getattr(study.settings, name))
            for name, checkpoint in _models(study).items()
        },
        "align": data.align.describe(),
        "perturb": data.perturb.describe(),
        "wanted": data.wanted.describe(),
        "unwanted": data.unwanted.describe(),
        "settings": study.settings,
        **({"left_out": data.left_out} if data.left_out else {}),
    }


__all__ = ["AuditSettings", "audit", "plan"]
