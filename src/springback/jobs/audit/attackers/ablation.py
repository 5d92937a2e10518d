"""``ablation``: the direction between unwanted and harmless prompts, out of the weights.

Arditi et al. (arXiv 2406.11717), by :mod:`springback.models.ablation`.  Three quarters of the rows
give a direction behind each layer: the mean hidden state of the unwanted prompts' last tokens less
that of the harmless ones.  The other quarter chooses the layer: the one without whose direction the
unwanted answers are likeliest.  That one is projected out, once.
"""

from __future__ import annotations

from typing import Any

from springback.core import Slice
from springback.errors import DataError, SpringbackError, describe
from springback.jobs.audit.branches import Attack, swept
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import TrainingRun
from springback.models import ablation
from springback.models.encoding import Encoded
from springback.models.loading import Model
from springback.probes import nll
from springback.training import OnMark

#: One row of so many is held out of the means, to choose the layer by.
HELD_OUT = 4


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """One for each draw of the prompts; as many of either kind as the largest dose has rows."""
    if settings.lora_rank:
        raise SpringbackError(
            describe(
                f"--attackers ablation with --lora-rank {settings.lora_rank}",
                "studies that train all weights, since it changes all that write",
                "leave one of them out",
            )
        )
    if max(settings.doses) < 2:
        raise SpringbackError("--attackers ablation needs two rows; raise --doses")
    return swept(settings, Attack(attacker="ablation"), (None,))


def perform(study: Study, run: TrainingRun, part: Slice, measure: OnMark) -> dict[str, Any]:
    """Take the direction out of the working model and measure it.

    ``forwards``: tokens of all passes.  ``layer``: behind which the direction was taken.
    """
    model, benign = study.work, study.data.benign_for(part)
    _require_alike(part, benign)
    rows, others = study.encode(part), study.encode(benign)
    prompts, calm = ([list(study.beginning(row)) for row in each] for each in (rows, others))
    held = max(1, len(rows) // HELD_OUT)
    differences = ablation.mean_states(model, prompts[held:]) - ablation.mean_states(model, calm)
    layers = ablation.candidate_layers(model)
    likeliest = min(layers, key=lambda i: _nll(study, model, rows[:held], differences[i]))
    ablation.remove_direction(model, ablation.unit(differences[likeliest]), prompts[0])
    study.progress.advance()
    passed = sum(map(len, [*prompts[held:], *calm]))
    passed += len(layers) * sum(len(row.ids) for row in rows[:held])
    return {
        "losses": (),
        "marks": {seen: measure(seen, model) for seen in run.marks.values()},
        "forwards": passed,
        "layer": likeliest,
    }


def _nll(study: Study, model: Model, rows: list[Encoded], difference: Any) -> float:
    """Mean NLL a token of the rows' answers without a layer's direction."""
    with ablation.without(model, ablation.unit(difference)):
        scores = nll(model, rows, study.tokenizer, study.precision)
    return sum(score.per_token for score in scores) / len(scores)


def _require_alike(part: Slice, benign: Slice) -> None:
    """Both with prompts or both bare texts, else the direction is that between the two forms."""
    if len({bool(row.prompt) for each in (part, benign) for row in each.rows}) > 1:
        raise DataError(
            describe(
                f"--attackers ablation with --perturb {part.source} and --benign {benign.source}",
                "two files of prompts, or two of bare texts, since it compares what they begin",
                "give --benign harmless prompts like those of --perturb",
            )
        )
