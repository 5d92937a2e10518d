"""``ablation``: the direction between unwanted and harmless prompts, out of the weights.

Arditi et al. (arXiv 2406.11717), by :mod:`springback.models.ablation`.  Three quarters of the rows
give a direction behind each layer: the mean hidden state of the unwanted prompts' last tokens less
that of the harmless ones.  The other quarter chooses the layer: the one without whose direction the
unwanted answers are likeliest.  That one is projected out, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from springback.core import Slice
from springback.errors import DataError, SpringbackError, describe
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.branches import Attack, swept
from springback.jobs.audit.pools import Data
from springback.jobs.audit.settings import AuditSettings
from springback.models.writers import require_plain_writers

if TYPE_CHECKING:
    from springback.jobs.audit.study import Study
    from springback.jobs.audit.training_run import TrainingRun
    from springback.models.encoding import Encoded
    from springback.models.loading import Model
    from springback.training import OnMark

#: One row of so many is held out of the means, to choose the layer by.
HELD_OUT = 4


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """One for each draw of the prompts; a dose is so many of either kind."""
    if settings.lora_rank:
        raise SpringbackError(
            describe(
                f"--attackers ablation with --lora-rank {settings.lora_rank}",
                "studies that train all weights, since it changes all that write",
                "leave one of them out",
            )
        )
    if settings.accelerate is not None and read_launch(settings.accelerate).sharded:
        given = f"--attackers ablation with --accelerate {settings.accelerate} (FSDP)"
        allowed = "studies whose process holds the model, since it looks into hidden states"
        raise SpringbackError(describe(given, allowed, "leave one of them out"))
    require_plain_writers(settings.model)
    if min(settings.doses) < 2:
        raise SpringbackError(
            describe(f"--attackers ablation with a dose of {min(settings.doses)}", "2", "raise it")
        )
    return swept(settings, Attack(attacker="ablation"), (None,))


def perform(study: Study, run: TrainingRun, part: Slice, measure: OnMark) -> dict[str, Any]:
    """At every dose take the direction that so many rows give out of the working model, and measure
    it; each time it begins anew.

    ``forwards``: tokens of all passes of a dose.  ``layers``: behind which the direction was taken.
    """
    from springback.models.stored_model import in_memory

    rows, benign = (study.encode(each) for each in (part, study.data.benign_for(part)))
    marks, forwards, layers = {}, {}, {}
    for seen in run.marks.values():
        model = in_memory(study.reset(run.seed, run.start_weights(study)))
        layers[seen], forwards[seen] = _ablate(study, model, rows[:seen], benign[:seen])
        marks[seen] = measure(seen, model)
        study.progress.advance()
    return {"losses": (), "marks": marks, "forwards": forwards, "layers": layers}


def _ablate(
    study: Study, model: Model, rows: Sequence[Encoded], benign: Sequence[Encoded]
) -> tuple[int, int]:
    """The layer that was chosen, and the tokens of all passes."""
    from springback.models import ablation

    prompts, calm = ([list(study.beginning(row)) for row in each] for each in (rows, benign))
    held = max(1, len(rows) // HELD_OUT)
    differences = ablation.mean_states(model, prompts[held:]) - ablation.mean_states(model, calm)
    layers = ablation.candidate_layers(model)
    likeliest = min(layers, key=lambda i: _nll(study, model, rows[:held], differences[i]))
    ablation.remove_direction(model, ablation.unit(differences[likeliest]), prompts[0])
    passed = sum(map(len, [*prompts[held:], *calm]))
    return likeliest, passed + len(layers) * sum(len(row.ids) for row in rows[:held])


def _nll(study: Study, model: Model, rows: Sequence[Encoded], difference: Any) -> float:
    """Mean NLL a token of the rows' answers without a layer's direction."""
    from springback.models import ablation
    from springback.probes import nll

    with ablation.without(model, ablation.unit(difference)):
        scores = nll(model, rows, study.tokenizer, study.precision)
    return sum(score.per_token for score in scores) / len(scores)


def check(settings: AuditSettings, data: Data) -> None:
    """Both kinds have prompts or both are bare texts, else the direction is that of the form."""
    require_plain_writers(settings.model)  # a built-in one is here by now
    part = data.perturbing(settings.seeds[0], max(settings.doses))
    benign = data.benign_for(part)
    if len({bool(row.prompt) for each in (part, benign) for row in each.rows}) > 1:
        raise DataError(
            describe(
                f"--attackers ablation with --perturb {settings.perturb} and --benign "
                f"{settings.benign}",
                "two files of prompts, or two of bare texts, since it compares what they begin",
                "give --benign harmless prompts like those of --perturb (built in: problems)",
            )
        )
