"""Rebound (paper A, section A3): align, then fine-tune the other way from every branch point."""

from __future__ import annotations

from typing import Any

from springback.core import Measurement, Run
from springback.finetune import Marks
from springback.jobs.audit_data import shuffle
from springback.jobs.study import Study
from springback.models import save_weights

UNITS = {
    "margin": "nats/token",
    "kl": "nats/token",
    "bits_per_byte": "bits/byte",
    "sentiment": "VADER compound",
}


def align_run(study: Study, seed: int) -> Run:
    settings = study.settings
    rows = shuffle(study.data.align, seed).take(max(settings.n_pos))
    return Run.of(
        "align",
        rows=rows.content_hash,
        recipe=settings.recipe(seed),
        marks=settings.n_pos,
        seed=seed,
        **study.probe_inputs(),
    )


def perturb_run(study: Study, seed: int, n_pos: int) -> Run:
    settings = study.settings
    rows = shuffle(study.data.perturb, seed).take(max(settings.doses))
    return Run.of(
        "perturb",
        # The prefix that leads to the branch point, not the whole aligning run: a study that
        # aligns further shares this branch.
        aligned=shuffle(study.data.align, seed).take(n_pos).content_hash,
        rows=rows.content_hash,
        recipe=settings.recipe(seed),
        marks=settings.doses,
        seed=seed,
        **study.probe_inputs(),
    )


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


def run_seed(study: Study, seed: int) -> dict[str, Any]:
    """Align and perturb for one seed; finished runs are read, not repeated.

    Returns ``{"aligned": {n_pos: probes}, "perturbed": {n_pos: {dose: probes}}, "losses": …}``.
    """
    settings, store = study.settings, study.store
    align = align_run(study, seed)
    branches = {n: perturb_run(study, seed, n) for n in settings.n_pos}
    aligned = store.results(align)
    open_branches = [n for n, run in branches.items() if store.results(run) is None]
    weights = {n: store.checkpoint(align, f"{n}") for n in settings.n_pos}
    if aligned is None or any(not weights[n].exists() for n in open_branches):
        # Also when the measurements are there but the weights are not: made on another machine.
        aligned = _align(study, seed, align)
    for n_pos in open_branches:
        _perturb(study, seed, n_pos, branches[n_pos])
        store.drop_checkpoint(align, f"{n_pos}")
    store.drop_checkpoints(align)
    perturbed = {n: store.results(run) or {} for n, run in branches.items()}
    return {
        "aligned": {n: aligned["marks"][str(n)] for n in settings.n_pos},
        "perturbed": {
            n: {d: found["marks"][str(d)] for d in settings.doses} for n, found in perturbed.items()
        },
    }


def _align(study: Study, seed: int, run: Run) -> dict[str, Any]:
    settings, store = study.settings, study.store
    part = shuffle(study.data.align, seed).take(max(settings.n_pos))
    steps = -(-len(part) // settings.batch_size)
    study.progress.stage(f"seed {seed}: aligning on {len(part)} examples", steps)
    model = study.reset()

    def at_branch(examples: int, _: object) -> dict[str, Any]:
        save_weights(model, store.checkpoint(run, f"{examples}"))
        return study.measure(model)

    trained = study.train(run, study.encode(part), Marks(settings.n_pos, at_branch))
    return store.commit(run, {"losses": trained.losses, "marks": trained.marks})


def _perturb(study: Study, seed: int, n_pos: int, run: Run) -> dict[str, Any]:
    settings, store = study.settings, study.store
    part = shuffle(study.data.perturb, seed).take(max(settings.doses))
    steps = -(-len(part) // settings.batch_size)
    title = f"seed {seed}: perturbing the model aligned on {n_pos} with {len(part)} examples"
    study.progress.stage(title, steps)
    study.reset(store.checkpoint(align_run(study, seed), f"{n_pos}"))
    marks = Marks(settings.doses, lambda _, model: study.measure(model))
    trained = study.train(run, study.encode(part), marks)
    return store.commit(run, {"losses": trained.losses, "marks": trained.marks})


def measurements(
    start: dict[str, Any], seeds: dict[int, dict[str, Any]], part: str
) -> list[Measurement]:
    """Every measured value as a record of the result file."""
    found = [_record(p, "start", part, v, {"phase": "start"}) for p, v in start["probes"].items()]
    for seed, got in seeds.items():
        for n_pos, values in got["aligned"].items():
            tags = {"phase": "align", "seed": seed, "n_pos": n_pos, "n_neg": 0}
            found += [_record(p, f"align-{n_pos}", part, v, tags) for p, v in values.items()]
        for n_pos, doses in got["perturbed"].items():
            for dose, values in doses.items():
                tags = {"phase": "perturb", "seed": seed, "n_pos": n_pos, "n_neg": dose}
                name = f"align-{n_pos}+perturb-{dose}"
                found += [_record(p, name, part, v, tags) for p, v in values.items()]
    return found


def _record(
    probe: str, checkpoint: str, part: str, value: dict[str, Any], tags: dict[str, Any]
) -> Measurement:
    return Measurement(probe, checkpoint, part, float(value["value"]), UNITS[probe], tags=tags)
