"""The two arms of the springs study: their data, and the trainings, kept one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from springback import theory
from springback.core import Run
from springback.jobs.papers.theory.leaf_model import LeafModels, Tree, fit_joint, fit_stream
from springback.jobs.papers.theory.settings import SpringsSettings
from springback.jobs.papers.theory.theorem import ARRANGEMENTS, arranged, law_of
from springback.models.from_scratch import Shape
from springback.progress import Progress
from springback.results.store import Store
from springback.theory import Sets

#: A second draw of weights and order with the first seed's sets, for the noise floor.
REPEAT = 1


def sources(s: SpringsSettings, arrangement: str, seed: int) -> Sets:
    """The three sets of one seed: leaf masses that are known exactly."""
    rng = np.random.default_rng((seed, ARRANGEMENTS.index(arrangement)))
    law = law_of("pareto", s.exponent)
    return arranged(law, s.symbols**s.length, arrangement, rng, s.share)


def repeats(s: SpringsSettings) -> list[tuple[int, int]]:
    """Seed of the sets and which draw of weights and order; the first seed has two."""
    first, *others = s.seeds
    return [(first, 0), (first, REPEAT), *((seed, 0) for seed in others)]


def _inputs(s: SpringsSettings, arrangement: str, seed: int, repeat: int) -> dict[str, Any]:
    return {
        "sets": [arrangement, s.symbols, s.length, s.exponent, s.share, seed],
        "shape": [s.hidden, s.layers, s.heads],
        "repeat": repeat,
        "k": s.k,
        "doses": s.doses,
    }


def _models(s: SpringsSettings, seed: int, repeat: int, count: int) -> LeafModels:
    """``count`` models with the same weights."""
    shape = Shape(s.hidden, s.layers, s.heads)
    return LeafModels(Tree(s.symbols, s.length), shape, [1000 * repeat + seed] * count)


def train(
    store: Store, s: SpringsSettings, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of the joint and of the sequential trainings; what was done is read.

    Joint: one for each k and l (0 too), with the distance from the optimum and, where D3 was in,
    the changes.  Sequential: one for each k and l, with the changes since the aligned model.
    Seed by seed, so that fewer seeds are a beginning of more.
    """
    progress.stage("trainings of tiny Llamas", 2 * len(s.arrangements) * len(repeats(s)))
    joint: list[dict[str, Any]] = []
    sequence: list[dict[str, Any]] = []
    for seed, repeat in repeats(s):
        for arrangement in s.arrangements:
            same: dict[str, Any] = {"arrangement": arrangement, "seed": seed, "repeat": repeat}
            for rows, run, fit in (
                (joint, joint_run(s, **same), _together),
                (sequence, sequence_run(s, **same), _one_after_the_other),
            ):
                if (results := store.results(run)) is None:
                    made = fit(s, sources(s, arrangement, seed), seed, repeat)
                    results = store.commit(run, {"rows": made})
                rows += [{**same, **row} for row in results["rows"]]
                progress.advance()
    return joint, sequence


def joint_run(s: SpringsSettings, arrangement: str, seed: int, repeat: int) -> Run:
    inputs = _inputs(s, arrangement, seed, repeat)
    return Run.of("joint", **inputs, steps=s.steps, rate=s.joint_rate)


def sequence_run(s: SpringsSettings, arrangement: str, seed: int, repeat: int) -> Run:
    return Run.of(
        "sequence",
        **_inputs(s, arrangement, seed, repeat),
        aligning=s.aligning,
        batches=[s.pretraining_batch, s.batch_size],
        rate=s.learning_rate,
    )


def _together(s: SpringsSettings, sets: Sets, seed: int, repeat: int) -> list[dict[str, Any]]:
    """All k and l side by side from the same weights."""
    cells = [(k, dose) for k in s.k for dose in (0.0, *s.doses)]
    weights = np.stack([theory.joint_masses(sets, *cell) for cell in cells])
    models = _models(s, seed, repeat, len(cells))
    fit_joint(models, weights, s.steps, s.joint_rate)
    costs = models.exact_costs()
    without = {k: cost for (k, dose), cost in zip(cells, costs, strict=True) if dose == 0}
    rows = []
    for (k, l), joined, cost in zip(cells, weights, costs, strict=True):  # noqa: E741
        changed = theory.change(sets, (k, 1.0, l), without[k], cost).changes if l else None
        rows.append({"k": k, "l": l, "gap": _distance(joined, cost), "changes": changed})
    return rows


def _one_after_the_other(
    s: SpringsSettings, sets: Sets, seed: int, repeat: int
) -> list[dict[str, Any]]:
    """Pre-train once, marking each k; align and perturb from all marks with the same responses."""
    rng = np.random.default_rng((seed, repeat, 1))
    one = _models(s, seed, repeat, 1)
    marks = {round(k * s.aligning): k for k in s.k}
    kept: dict[float, Any] = {}

    def keep(seen: int) -> None:
        if seen in marks:
            kept[marks[seen]] = one.copied()

    sizes = [s.pretraining_batch] * (max(marks) // s.pretraining_batch)
    fit_stream(one, sets.p1, sizes, s.learning_rate, rng, keep)
    models = _models(s, seed, repeat, len(s.k))
    models.load([kept[k] for k in s.k])
    start = models.exact_costs()
    steps = s.aligning // s.batch_size
    fit_stream(models, sets.p2, [s.batch_size] * steps, s.learning_rate, rng)
    aligned = models.exact_costs()
    doses = {round(dose * s.aligning): dose for dose in s.doses}
    rows: list[dict[str, Any]] = []

    def measure(seen: int) -> None:
        if (l := doses.get(seen)) is None:  # noqa: E741
            return
        for i, costs in enumerate(models.exact_costs()):
            volumes = (s.k[i], 1.0, l)
            rows.append(
                {
                    "k": s.k[i],
                    "l": l,
                    "changes": theory.change(sets, volumes, aligned[i], costs).changes,
                    # What aligning itself had changed, and what pre-training left to D1's entropy.
                    "aligning": theory.change(sets, volumes, start[i], aligned[i]).changes,
                    "pretrained": _distance(sets.p1, start[i]),
                }
            )

    sizes = [s.batch_size] * (max(doses) // s.batch_size)
    fit_stream(models, sets.p3, sizes, s.learning_rate, rng, measure)
    return rows


def _distance(masses: theory.masses.Floats, costs: theory.masses.Floats) -> float:
    """KL(leaf masses || model), nats a response: what training has left to their optimum."""
    return theory.mean_cost(masses, costs + np.log(np.where(masses > 0, masses, 1.0)))
