"""What an attack costs: tokens put forward through the model, for all attackers one axis.

A training step is three forward passes over its tokens (the backward pass takes two), of an adapter
two (gradients of the other weights are not made); passes without a gradient are one each.  What
measuring takes is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from springback.core import ALGORITHMS, Recipe, Slice
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import TrainingRun
from springback.models.encoding import Encoded
from springback.training import Examples, Labelled, Preference


def forward_tokens(study: Study, run: TrainingRun, part: Slice) -> dict[int, float]:
    """Dose -> tokens of all forward passes until then; ``part``: the rows that the run learns."""
    if not run.attack.trains:
        passed = run.results(study)["forwards"]
        return {dose: float(passed[str(rows)]) for dose, rows in run.marks.items()}
    phase = "attack" if run.attack.algorithm else "perturb"
    examples = study.examples(part, run.recipe, phase)
    rows: Sequence[Any] = examples.rows if isinstance(examples, Examples) else examples
    sums = [0.0, *accumulate(_tokens(row, run.recipe) for row in rows)]
    return {dose: sums[seen] for dose, seen in run.marks.items()}


def _tokens(row: Any, recipe: Recipe) -> float:
    """Those of one example."""
    step, apart = 2 if recipe.lora_rank else 3, ALGORITHMS[recipe.algorithm].forward_passes
    if isinstance(row, Encoded):
        return step * len(row.ids)
    if isinstance(row, Preference):
        both = 2 * len(row.prompt) + len(row.chosen) + len(row.rejected)
        return (step + apart / 2) * both  # ``forward_passes`` are of one answer
    if isinstance(row, Labelled):
        return (step + apart) * (len(row.prompt) + len(row.completion))
    # Sampled answers, each of its tokens by a pass of its own.
    whole = len(row.ids) + recipe.new_tokens
    return recipe.generations * ((step + apart) * whole + recipe.new_tokens)
