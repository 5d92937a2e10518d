"""Rebound (paper A, section A3): align, then fine-tune the other way from every branch point."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Measurement, Recipe, Slice
from springback.jobs.audit.attackers import function
from springback.jobs.audit.attackers.cost import forward_tokens
from springback.jobs.audit.branches import (
    PLAIN,
    Attack,
    after_benign,
    attacks,
    controls,
    perturbing_rows,
    protected,
)
from springback.jobs.audit.protections import Protection
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study, keep_weights
from springback.jobs.audit.training_run import (
    TrainingRun,
    Weights,
    measured_inputs,
    train_and_measure,
)
from springback.models.stored_model import in_memory
from springback.models.task_vector import add_direction, scale_adapter
from springback.probes.registry import get_probe
from springback.training import OnMark
from springback.training.projection import alignment_directions, way_back_blocked


def runs(settings: AuditSettings, seed: int) -> list[TrainingRun]:
    """Every run of a seed.

    The aligning run; from each of its branch points the perturbation of the study and the controls;
    from the last one the other attacks, the protections, and the benign training that is repaired.
    Branch point 0 is the start model, so where there is no other nothing is aligned; it is also the
    control `unaligned`.
    """
    last = max(settings.n_pos)
    points = sorted({*settings.n_pos, *([0] if "unaligned" in settings.controls else [])})
    others = (*attacks(settings), *protected(settings), *after_benign(settings))
    return [
        *([align_run(settings, seed)] if last else []),
        *(perturb_run(settings, seed, n) for n in points),
        *(perturb_run(settings, seed, n, c) for n in settings.n_pos for c in controls(settings)),
        *(perturb_run(settings, seed, last, attack) for attack in others),
    ]


def start_run() -> TrainingRun:
    """Every probe on the start model."""
    return TrainingRun("start", 0, _measure_start, _start_inputs)


def base_run(settings: AuditSettings) -> list[TrainingRun]:
    """Every probe on the model that a finished one was made from, where it is named."""
    return [] if settings.base is None else [TrainingRun("base", 0, _measure_base, _start_inputs)]


def align_run(settings: AuditSettings, seed: int) -> TrainingRun:
    """Aligning, with the weights of every branch point but 0, which is the start model."""
    points = [n for n in settings.n_pos if n]
    return TrainingRun(
        "align",
        seed,
        _align,
        _align_inputs,
        rows=max(settings.n_pos),
        recipe=settings.recipe(seed, settings.algorithm),
        marks={n: n for n in points},
        leaves=tuple(map(str, points)),
    )


def perturb_run(
    settings: AuditSettings, seed: int, n_pos: int, attack: Attack = PLAIN
) -> TrainingRun:
    """Perturbing the model aligned on ``n_pos`` examples, which for 0 is the start model.

    The most aligned model leaves its weights after the study's own perturbation, if it is to be
    aligned again.
    """
    marks = _marks(settings, attack)
    last = n_pos == max(settings.n_pos) and attack == PLAIN
    return TrainingRun(
        "perturb",
        seed,
        _perturb,
        _perturb_inputs,
        rows=max(marks.values()),
        recipe=_perturb_recipe(settings, seed, attack),
        marks=marks,
        starts_from=Weights(align_run(settings, seed), str(n_pos)) if n_pos else None,
        leaves=("perturbed",) if last and "realign" in settings.experiments else (),
        n_pos=n_pos,
        attack=attack,
    )


def _perturb_recipe(settings: AuditSettings, seed: int, attack: Attack) -> Recipe:
    if attack.repair:
        return settings.recipe(seed)
    drawn = seed if attack.draw is None else attack.draw
    algorithm = attack.algorithm or settings.perturb_algorithm
    recipe = settings.recipe(drawn, algorithm, attack.learning_rate)
    if attack.algorithm:  # beta is set for what the study trains by
        recipe = replace(recipe, beta=None)
    if attack.lora_rank:
        recipe = replace(recipe, lora_rank=attack.lora_rank, lora_alpha=settings.lora_alpha)
    more = attack.protection.beside(settings.batch_size) if attack.protection else 0
    return replace(recipe, batch_size=settings.batch_size + more)


def _marks(settings: AuditSettings, attack: Attack) -> dict[int, int]:
    """Dose -> rows of the run seen by then.

    Dose 0 is measured where the protection changes the aligned model itself.  Beside aligning
    rows a dose counts the others alone.
    """
    if attack.repair:
        return {n: n for n in (attack.rows or 0,)}
    protection = attack.protection
    if protection is None:
        return {dose: dose for dose in settings.doses}
    batch = settings.batch_size
    each = batch + protection.beside(batch)
    begin = {0: 0} if protection.kind == "overbend" else {}
    return begin | {dose: dose // batch * each for dose in settings.doses}


def _start_inputs(study: Study, _: TrainingRun) -> dict[str, Any]:
    return {"seed": 0, **study.probe_inputs()}


def _aligning_rows(study: Study, run: TrainingRun) -> Slice:
    return study.data.aligning(run.seed, run.rows)


def _align_inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    return measured_inputs(study, run, _aligning_rows(study, run), "align")


def _perturbing_rows(study: Study, run: TrainingRun) -> Slice:
    settings = study.settings
    rows = run.attack.rows or max(settings.doses)
    return perturbing_rows(study.data, run.attack, rows, run.seed, settings.batch_size)


def _perturb_inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    attack, part = run.attack, _perturbing_rows(study, run)
    return {
        **measured_inputs(study, run, part, _phase(attack)),
        **(_branch_inputs(study, run) if run.n_pos else {}),
        # What came later is left out where it is not asked for: ids of finished runs stay.
        **({"protection": attack.protection} if attack.protection else {}),
        **({"repair": attack.repair} if attack.repair else {}),
        **({"attacker": attack.attacker} if attack.info.perform else {}),
        **({"benign": study.data.benign_for(part).content_hash} if attack.info.benign_rows else {}),
    }


def _branch_inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    """What made the model that is perturbed, where that is not the start model."""
    first = align_run(study.settings, run.seed).recipe
    before = study.example_inputs(first, "align")
    return {
        # The prefix that leads to the branch point, not the whole aligning run: a study that
        # aligns further shares this branch.
        "aligned": study.data.aligning(run.seed, run.n_pos).content_hash,
        # Left out where both are alike, as in every run before there was a choice.
        **({} if first == run.recipe else {"aligning_recipe": first}),
        **({"aligned_by": before} if before else {}),
    }


def _phase(attack: Attack) -> str:
    """As in :meth:`Study.examples`."""
    return "attack" if attack.algorithm else "perturb"


def _measure_start(study: Study, run: TrainingRun) -> dict[str, Any]:
    """Every probe on the start model, and the noise floor of scoring."""
    study.progress.stage("measuring the start model", 1)
    measured = study.measure(study.start)
    results = {"probes": measured, "noise": study.noise_floor(measured)}
    study.progress.advance()
    return results


def _measure_base(study: Study, run: TrainingRun) -> dict[str, Any]:
    study.progress.stage("measuring the base model", 1)
    results = {"probes": study.measure(study.base)}
    study.progress.advance()
    return results


def _align(study: Study, run: TrainingRun) -> dict[str, Any]:
    study.progress.stage(f"seed {run.seed}: aligning on {run.rows} examples", run.steps)
    model = study.reset(run.seed)

    def at_branch_point(examples: int, _: object) -> dict[str, Any]:
        keep_weights(study, model, Weights(run, str(examples)).path(study))
        return study.measure(model)

    return train_and_measure(study, run, _aligning_rows(study, run), "align", at_branch_point)


def _perturb(study: Study, run: TrainingRun) -> dict[str, Any]:
    attack, protection = run.attack, run.attack.protection
    how = "" if attack == PLAIN else f" ({attack.name})"
    which = f"model aligned on {run.n_pos}" if run.n_pos else "start model"
    title = f"perturbing the {which} with {run.rows} examples{how}"
    study.progress.stage(f"seed {run.seed}: {title}", run.steps)
    branch = run.start_weights(study)
    model = study.reset(run.seed, branch)
    moved = None
    if protection is not None and protection.kind == "overbend" and branch is not None:
        moved = _extrapolate(study, branch, protection)
    part = _perturbing_rows(study, run)
    perform = function(attack.info.perform or _train)
    with _blocked(study, branch, protection):
        results: dict[str, Any] = perform(
            study, run, part, lambda _, model: study.measure(model, branch)
        )
    if moved is not None:
        results["bent"] = moved
    for label in run.leaves:
        keep_weights(study, model, Weights(run, label).path(study))
    if attack.repair and branch is not None:
        results["repaired"] = _repair(study, run, branch)
    return results


def _train(study: Study, run: TrainingRun, part: Slice, measure: OnMark) -> dict[str, Any]:
    return train_and_measure(study, run, part, _phase(run.attack), measure)


def _blocked(
    study: Study, branch: Path | None, protection: Protection | None
) -> AbstractContextManager[None]:
    """Within, training may not go the way back, if that is the protection.

    It leads to the start's weights, and of a finished model to the base's.
    """
    if protection is None or protection.kind != "project":
        return nullcontext()
    start, work = in_memory(study.start), in_memory(study.work)
    begin = dict((start if branch else in_memory(study.base)).named_parameters())
    here = nullcontext(dict(start.named_parameters()))
    with probes.stored_weights(branch) if branch else here as aligned:
        directions = alignment_directions(work, aligned, begin, protection.rank)
    return way_back_blocked(work, directions)


def _extrapolate(study: Study, branch: Path, protection: Protection) -> dict[str, Any]:
    """Move the working model, which stands at ``branch``, further along its alignment."""
    if study.settings.lora_rank:
        scale_adapter(in_memory(study.work), 1 + protection.strength)
        return {"norm": None, "kept": 1.0}
    with probes.stored_weights(branch) as aligned:
        shift = add_direction(
            study.work, aligned, study.start, protection.strength, protection.rank
        )
    return {"norm": shift.norm, "kept": shift.kept}


def _repair(study: Study, run: TrainingRun, branch: Path) -> dict[str, dict[str, Any]]:
    """Every probe with ``mu`` times the alignment's direction added to the working model."""
    trained = Weights(run, "after-benign").path(study)
    keep_weights(study, study.work, trained)
    by_mu = {}
    for mu in run.attack.repair:
        model = study.reset(0, trained)
        with probes.stored_weights(branch) as aligned:
            add_direction(model, aligned, study.start, mu)
        by_mu[f"{mu:g}"] = study.measure(model)
    study.store.drop_checkpoint(run.identity(study), "after-benign")
    return by_mu


def read_start(study: Study) -> dict[str, Any]:
    """``{"probes": …, "noise": …, "base": …}``: of the start model, whose run has to be done, and
    the probes of the base model, None where there is none."""
    base = [run.results(study)["probes"] for run in base_run(study.settings)]
    return {**start_run().results(study), "base": base[0] if base else None}


def read_seed(study: Study, seed: int) -> dict[str, Any]:
    """What the runs of one seed measured; they and the start model's have to be done.

    Branch point 0 has no entry in ``aligned``; its doses begin with 0, the start model.

    Returns ``{"aligned": {n_pos: probes}, "perturbed": {n_pos: {dose: probes}}, "attacks": {name:
    {dose: probes}}, "costs": {name: {dose: tokens of forward passes}}, "controls": {name: {n_pos:
    {dose: probes}}}, "protected": {name: {dose: probes}}, "repair": {mu: probes} or None}``; the
    costs are of the attacks and of the study's own perturbation from the same branch point.
    """
    listed = runs(study.settings, seed)
    branches = [run for run in listed if run.phase == "perturb"]
    by_dose = {run: run.measured(study) for run in branches}
    for run in branches:
        if not run.n_pos and run.attack == PLAIN:
            by_dose[run] = {0: read_start(study)["probes"], **by_dose[run]}
    aligning = next((run for run in listed if run.phase == "align"), None)
    tried, last = attacks(study.settings), max(study.settings.n_pos)
    compared = (PLAIN, *tried) if tried else ()
    return {
        "aligned": aligning.measured(study) if aligning else {},
        "perturbed": {run.n_pos: doses for run, doses in by_dose.items() if run.attack == PLAIN},
        "attacks": {
            run.attack.name: doses for run, doses in by_dose.items() if run.attack in tried
        },
        "costs": {
            run.attack.name: forward_tokens(study, run, _perturbing_rows(study, run))
            for run in branches
            if run.attack in compared and run.n_pos == last
        },
        "controls": {
            attack.control: {run.n_pos: d for run, d in by_dose.items() if run.attack == attack}
            for attack in controls(study.settings)
        },
        "protected": {
            run.attack.protection.name: doses
            for run, doses in by_dose.items()
            if run.attack.protection is not None
        },
        "repair": next((_repaired(study, run) for run in branches if run.attack.repair), None),
    }


def _repaired(study: Study, run: TrainingRun) -> dict[float, Any]:
    """mu -> probes, 0 being the model after benign training itself."""
    (unrepaired,) = run.measured(study).values()
    by_mu = run.results(study)["repaired"]
    return {0.0: unrepaired, **{float(mu): values for mu, values in by_mu.items()}}


def measurements(
    study: Study, start: dict[str, Any], seeds: dict[int, dict[str, Any]], order: str = ""
) -> list[Measurement]:
    """Every measured value as a record of the result file; ``order`` marks the opposite one."""
    same = {"order": order} if order else {}
    made = records(study, "start", start["probes"], {"phase": "start", **same})
    if start["base"]:
        made += records(study, "base", start["base"], {"phase": "base"})
    for seed, got in seeds.items():
        last = max(got["perturbed"])
        for n_pos, values in got["aligned"].items():
            tags = {"phase": "align", "seed": seed, "n_pos": n_pos, "n_neg": 0, **same}
            made += records(study, f"align-{n_pos}", values, tags)
        for n_pos, doses in got["perturbed"].items():
            tags = {"phase": "perturb", "seed": seed, "n_pos": n_pos, **same}
            made += _branch(study, _point_name(n_pos), doses, tags)
        for attack, doses in got["attacks"].items():
            tags = {"phase": "attack", "seed": seed, "n_pos": last, "attack": attack, **same}
            made += _branch(study, _point_name(last), doses, tags)
        for control, by_size in got["controls"].items():
            for n_pos, doses in by_size.items():
                tags = {
                    "phase": "control",
                    "seed": seed,
                    "n_pos": n_pos,
                    "control": control,
                    **same,
                }
                made += _branch(study, f"align-{n_pos}, {control} control", doses, tags)
        for name, doses in got["protected"].items():
            tags = {"phase": "protected", "seed": seed, "n_pos": last, "protection": name, **same}
            made += _branch(study, f"{_point_name(last)}, {name}", doses, tags)
        for mu, values in (got["repair"] or {}).items():
            tags = {"phase": "repair", "seed": seed, "n_pos": last, "mu": mu, **same}
            made += records(study, f"align-{last}+benign, mu {mu:g}", values, tags)
    return made


def _point_name(n_pos: int) -> str:
    """Of a branch point, among the names of checkpoints."""
    return f"align-{n_pos}" if n_pos else "start"


def _branch(
    study: Study, name: str, doses: dict[int, dict[str, Any]], tags: dict[str, Any]
) -> list[Measurement]:
    return [
        record
        for dose, values in doses.items()
        for record in records(study, f"{name}+perturb-{dose}", values, {**tags, "n_neg": dose})
    ]


def records(
    study: Study, checkpoint: str, values: dict[str, dict[str, Any]], tags: dict[str, Any]
) -> list[Measurement]:
    """One checkpoint's probes and their further parts, after the NLL of either side's texts."""
    made = []
    if "margin" in values:
        for side in ("wanted", "unwanted"):
            each = values["margin"][side]
            nll, unit = sum(each) / len(each), study.words["margin"].unit
            made.append(Measurement("nll", checkpoint, side, nll, unit, tags=tags))
    for probe, value in values.items():
        unit, number = study.words[probe].unit, float(value["value"])
        made.append(Measurement(probe, checkpoint, "held-out", number, unit, tags=tags))
        for part in get_probe(probe).parts(value):
            made.append(
                Measurement(part.name, checkpoint, part.texts, part.value, part.unit, tags=tags)
            )
    return made
