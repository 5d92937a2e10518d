"""Rebound (paper A, section A3): align, then fine-tune the other way from every branch point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Measurement, Recipe, Run, Slice
from springback.jobs.audit.branches import PLAIN, Attack, attacks, perturbing_rows, protected, worn
from springback.jobs.audit.protections import Protection
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.loading import save_weights
from springback.models.task_vector import add_direction, scale_adapter
from springback.probes.registry import get_probe
from springback.training import Marks


def align_recipe(study: Study, seed: int) -> Recipe:
    return study.settings.recipe(seed, study.settings.algorithm)


def perturb_recipe(study: Study, seed: int, attack: Attack) -> Recipe:
    settings = study.settings
    if attack.repair:
        return settings.recipe(seed)
    drawn = seed if attack.draw is None else attack.draw
    recipe = settings.recipe(drawn, settings.perturb_algorithm, attack.learning_rate)
    more = attack.protection.beside(settings.batch_size) if attack.protection else 0
    return replace(recipe, batch_size=settings.batch_size + more) if more else recipe


def perturb_rows(study: Study, seed: int, attack: Attack) -> Slice:
    settings = study.settings
    rows = attack.rows or max(settings.doses)
    return perturbing_rows(study.data, attack, rows, seed, settings.batch_size)


def marks_of(settings: AuditSettings, attack: Attack) -> dict[int, int]:
    """Dose -> rows of the run seen by then, as its results are keyed.

    Dose 0 is measured where the protection changes the aligned model itself.  Beside aligning
    rows a dose counts the others alone.
    """
    if attack.repair:
        return {n: n for n in (attack.rows or 0,)}
    shield = attack.protection
    if shield is None:
        return {d: d for d in settings.doses}
    batch = settings.batch_size
    each = batch + shield.beside(batch)
    begin = {0: 0} if shield.kind == "overbend" else {}
    return begin | {d: d // batch * each for d in settings.doses}


def align_run(study: Study, seed: int) -> Run:
    settings, recipe = study.settings, align_recipe(study, seed)
    rows = study.data.aligning(seed, max(settings.n_pos))
    return Run.of(
        "align",
        rows=rows.content_hash,
        recipe=recipe,
        marks=settings.n_pos,
        seed=seed,
        **study.example_inputs(recipe, "align"),
        **study.probe_inputs(),
    )


def perturb_run(study: Study, seed: int, n_pos: int, attack: Attack = PLAIN) -> Run:
    settings, recipe = study.settings, perturb_recipe(study, seed, attack)
    first = align_recipe(study, seed)
    rows = perturb_rows(study, seed, attack)
    before = study.example_inputs(first, "align")
    return Run.of(
        "perturb",
        # The prefix that leads to the branch point, not the whole aligning run: a study that
        # aligns further shares this branch.
        aligned=study.data.aligning(seed, n_pos).content_hash,
        # Left out where both are alike, as in every run before there was a choice.
        **({} if first == recipe else {"aligning_recipe": first}),
        **({"aligned_by": before} if before else {}),
        rows=rows.content_hash,
        recipe=recipe,
        marks=tuple(marks_of(settings, attack).values()),
        seed=seed,
        # What came later is left out where it is not asked for: ids of finished runs stay.
        **({"protection": attack.protection} if attack.protection else {}),
        **({"repair": attack.repair} if attack.repair else {}),
        **study.example_inputs(recipe, "perturb"),
        **study.probe_inputs(),
    )


def branches(settings: AuditSettings) -> list[tuple[int, Attack]]:
    """Every perturbing run of a seed: each branch point as the study perturbs, then the others
    from the last branch point."""
    plain = [(n, PLAIN) for n in settings.n_pos]
    others = (*attacks(settings), *protected(settings), *worn(settings))
    return [*plain, *((max(settings.n_pos), attack) for attack in others)]


def start_run(study: Study) -> Run:
    return Run.of("start", seed=0, **study.probe_inputs())


def measure_start(study: Study) -> dict[str, Any]:
    """Every probe on the start model, and the noise floor of scoring."""
    run = start_run(study)
    if (found := study.store.results(run)) is None:
        study.progress.stage("measuring the start model", 1)
        measured = study.measure(study.start)
        found = study.store.commit(run, {"probes": measured, "noise": study.noise_floor(measured)})
        study.progress.advance()
    return found


def run_seed(study: Study, seed: int, fallen: Path | None = None) -> dict[str, Any]:
    """Align and perturb for one seed; finished runs are read, not repeated.

    ``fallen``: where to keep the weights of the most aligned model after the study's own
    perturbation, for an experiment that goes on from there.  Returns ``{"aligned": {n_pos:
    probes}, "perturbed": {n_pos: {dose: probes}}, "attacks": {name: {dose: probes}},
    "protected": {name: {dose: probes}}, "repair": {mu: probes} or None}``.
    """
    settings, store = study.settings, study.store
    last = max(settings.n_pos)
    align = align_run(study, seed)
    runs = {branch: perturb_run(study, seed, *branch) for branch in branches(settings)}
    aligned = store.results(align)
    waiting = [
        branch
        for branch, run in runs.items()
        if store.results(run) is None
        or (branch == (last, PLAIN) and fallen is not None and not fallen.exists())
    ]
    weights = {n: store.checkpoint(align, f"{n}") for n in settings.n_pos}
    if aligned is None or any(not weights[n].exists() for n, _ in waiting):
        # Also when the measurements are there but the weights are not: made on another machine.
        aligned = align_once(study, seed)
    for at, (n_pos, attack) in enumerate(waiting):
        keep = fallen if (n_pos, attack) == (last, PLAIN) else None
        perturb_once(study, seed, n_pos, attack, keep)
        if all(n != n_pos for n, _ in waiting[at + 1 :]):
            store.drop_checkpoint(align, f"{n_pos}")
    store.drop_checkpoints(align)
    found = {branch: store.results(run) or {} for branch, run in runs.items()}
    by_dose = {
        branch: {d: got["marks"][str(at)] for d, at in marks_of(settings, branch[1]).items()}
        for branch, got in found.items()
    }
    return {
        "aligned": {n: aligned["marks"][str(n)] for n in settings.n_pos},
        "perturbed": {n: by_dose[n, PLAIN] for n in settings.n_pos},
        "attacks": {a.name: by_dose[last, a] for a in attacks(settings)},
        "protected": {
            a.protection.name: by_dose[last, a] for a in protected(settings) if a.protection
        },
        "repair": next((_repaired(by_dose[last, a], found[last, a]) for a in worn(settings)), None),
    }


def _repaired(worn_model: dict[int, Any], found: dict[str, Any]) -> dict[float, Any]:
    """mu -> probes, 0 being the worn model itself."""
    (probes,) = worn_model.values()
    return {0.0: probes, **{float(mu): values for mu, values in found["repaired"].items()}}


def align_once(study: Study, seed: int) -> dict[str, Any]:
    """The aligning run of a seed, with the weights of its branch points."""
    settings, store, run = study.settings, study.store, align_run(study, seed)
    part = study.data.aligning(seed, max(settings.n_pos))
    steps = -(-len(part) // settings.batch_size)
    study.progress.stage(f"seed {seed}: aligning on {len(part)} examples", steps)
    model, recipe = study.reset(seed), align_recipe(study, seed)

    def at_branch(examples: int, _: object) -> dict[str, Any]:
        save_weights(model, store.checkpoint(run, f"{examples}"))
        return study.measure(model)

    rows = study.examples(part, recipe, "align")
    trained = study.train(run, rows, recipe, Marks(settings.n_pos, at_branch))
    return store.commit(run, {"losses": trained.losses, "marks": trained.marks})


def perturb_once(
    study: Study, seed: int, n_pos: int, attack: Attack = PLAIN, keep: Path | None = None
) -> None:
    """One perturbing run from a branch point that is there; ``keep``: where its own weights go."""
    settings, store = study.settings, study.store
    run = perturb_run(study, seed, n_pos, attack)
    part, recipe = perturb_rows(study, seed, attack), perturb_recipe(study, seed, attack)
    how = "" if attack == PLAIN else f" ({attack.name})"
    title = f"seed {seed}: perturbing the model aligned on {n_pos} with {len(part)} examples{how}"
    study.progress.stage(title, -(-len(part) // recipe.batch_size))
    branch = store.checkpoint(align_run(study, seed), f"{n_pos}")
    model = study.reset(seed, branch)
    more: dict[str, Any] = {}
    if (shield := attack.protection) is not None and shield.kind == "overbend":
        more["bent"] = _overbend(study, branch, shield)
    marks = Marks(
        tuple(marks_of(settings, attack).values()), lambda _, model: study.measure(model, branch)
    )
    trained = study.train(run, study.examples(part, recipe, "perturb"), recipe, marks)
    if keep is not None:
        save_weights(model, keep)
    if attack.repair:
        more["repaired"] = _repair(study, store.checkpoint(run, "worn"), branch, attack.repair)
    store.commit(run, {"losses": trained.losses, "marks": trained.marks, **more})
    store.drop_checkpoints(run)


def _overbend(study: Study, branch: Path, shield: Protection) -> dict[str, Any]:
    """Move the working model, which stands at ``branch``, further along its alignment."""
    if study.settings.lora_rank:
        scale_adapter(study.work, 1 + shield.strength)
        return {"norm": None, "kept": 1.0}
    with probes.stored_weights(branch) as aligned:
        found = add_direction(study.work, aligned, study.start, shield.strength, shield.rank)
    return {"norm": found.norm, "kept": found.kept}


def _repair(
    study: Study, here: Path, branch: Path, strengths: tuple[float, ...]
) -> dict[str, dict[str, Any]]:
    """Every probe with ``mu`` times the alignment's direction added to the working model."""
    save_weights(study.work, here)
    found = {}
    for mu in strengths:
        model = study.reset(0, here)
        with probes.stored_weights(branch) as aligned:
            add_direction(model, aligned, study.start, mu)
        found[f"{mu:g}"] = study.measure(model)
    return found


def measurements(
    study: Study, start: dict[str, Any], seeds: dict[int, dict[str, Any]], order: str = ""
) -> list[Measurement]:
    """Every measured value as a record of the result file; ``order`` marks the opposite one."""
    same = {"order": order} if order else {}
    found = records(study, "start", start["probes"], {"phase": "start", **same})
    for seed, got in seeds.items():
        last = max(got["aligned"])
        for n_pos, values in got["aligned"].items():
            tags = {"phase": "align", "seed": seed, "n_pos": n_pos, "n_neg": 0, **same}
            found += records(study, f"align-{n_pos}", values, tags)
        for n_pos, doses in got["perturbed"].items():
            tags = {"phase": "perturb", "seed": seed, "n_pos": n_pos, **same}
            found += _branch(study, f"align-{n_pos}", doses, tags)
        for attack, doses in got["attacks"].items():
            tags = {"phase": "attack", "seed": seed, "n_pos": last, "attack": attack, **same}
            found += _branch(study, f"align-{last}", doses, tags)
        for name, doses in got["protected"].items():
            tags = {"phase": "protected", "seed": seed, "n_pos": last, "protection": name, **same}
            found += _branch(study, f"align-{last}, {name}", doses, tags)
        for mu, values in (got["repair"] or {}).items():
            tags = {"phase": "repair", "seed": seed, "n_pos": last, "mu": mu, **same}
            found += records(study, f"align-{last}+benign, mu {mu:g}", values, tags)
    return found


def _branch(
    study: Study, name: str, doses: dict[int, dict[str, Any]], tags: dict[str, Any]
) -> list[Measurement]:
    return [
        found
        for dose, values in doses.items()
        for found in records(study, f"{name}+perturb-{dose}", values, {**tags, "n_neg": dose})
    ]


def records(
    study: Study, checkpoint: str, values: dict[str, dict[str, Any]], tags: dict[str, Any]
) -> list[Measurement]:
    """One checkpoint's probes and their further parts, after the NLL of either side's texts."""
    made = []
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
