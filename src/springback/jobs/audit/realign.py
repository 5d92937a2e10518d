"""Re-alignment: the model that fell is aligned again, on fresh rows.  Is the second time faster?

From the most aligned branch point after the study's own perturbation; measured at the same numbers
of examples as the first alignment, so that both can be read side by side.
"""

from __future__ import annotations

from typing import Any

from springback.core import Measurement, Run
from springback.jobs.audit import rebound
from springback.jobs.audit.study import Study
from springback.training import Marks


def realign_run(study: Study, seed: int) -> Run:
    settings, recipe = study.settings, rebound.align_recipe(study, seed)
    return Run.of(
        "realign",
        fallen=rebound.perturb_run(study, seed, max(settings.n_pos)).id,
        rows=study.data.reserved("align", "again", seed).content_hash,
        recipe=recipe,
        marks=settings.n_pos,
        seed=seed,
        **study.example_inputs(recipe, "again"),
        **study.probe_inputs(),
    )


def run_seed(study: Study, seed: int) -> tuple[dict[str, Any], dict[int, Any] | None]:
    """The rebound of one seed, and the probes by number of examples of the second alignment.

    The second is None where the settings leave it out.
    """
    settings, store = study.settings, study.store
    if "realign" not in settings.experiments:
        return rebound.run_seed(study, seed), None
    run = realign_run(study, seed)
    if (found := store.results(run)) is not None:
        store.drop_checkpoints(run)
        return rebound.run_seed(study, seed), _by_count(found)
    fallen = store.checkpoint(run, "fallen")
    before = rebound.run_seed(study, seed, fallen)
    found = again_once(study, seed)
    store.drop_checkpoints(run)
    return before, _by_count(found)


def again_once(study: Study, seed: int) -> dict[str, Any]:
    """The second alignment, from the fallen model whose weights are there."""
    settings, store, run = study.settings, study.store, realign_run(study, seed)
    part = study.data.reserved("align", "again", seed)
    steps = -(-len(part) // settings.batch_size)
    study.progress.stage(f"seed {seed}: aligning again on {len(part)} examples", steps)
    study.reset(seed, store.checkpoint(run, "fallen"))
    recipe = rebound.align_recipe(study, seed)
    marks = Marks(settings.n_pos, lambda _, model: study.measure(model))
    trained = study.train(run, study.examples(part, recipe, "again"), recipe, marks)
    return store.commit(run, {"losses": trained.losses, "marks": trained.marks})


def _by_count(found: dict[str, Any]) -> dict[int, Any]:
    return {int(n): probes for n, probes in found["marks"].items()}


def measurements(study: Study, seeds: dict[int, dict[int, Any] | None]) -> list[Measurement]:
    """Every measured value as a record of the result file."""
    return [
        found
        for seed, counts in seeds.items()
        for n, values in (counts or {}).items()
        for found in rebound.records(
            study, f"realign-{n}", values, {"phase": "realign", "seed": seed, "n_pos": n}
        )
    ]
