"""``lora``: an adapter on every linear layer learns the opposite, all else stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from springback.core import Slice
from springback.errors import SpringbackError, describe
from springback.jobs.audit.branches import Attack, swept
from springback.jobs.audit.settings import AuditSettings
from springback.results.probe_info import PROBES

if TYPE_CHECKING:
    from springback.jobs.audit.study import Study
    from springback.jobs.audit.training_run import TrainingRun
    from springback.training import OnMark

#: What an adapter's learning rate is to that of all weights, where none is given: it learns best
#: at about ten times it.
FASTER = 10.0


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """At the study's learning rate and the swept ones, or ten times the study's without."""
    rank = settings.attack_lora_rank
    if rank < 1:
        given = f"--attack-lora-rank is {rank}"
        raise SpringbackError(describe(given, "1 or more", "give a rank, such as 8"))
    _check(settings)
    rates = settings.attack_learning_rates or (FASTER * settings.learning_rate,)
    return swept(settings, Attack(attacker="lora", lora_rank=rank), (None, *rates))


def _check(settings: AuditSettings) -> None:
    """Probes see the adapter in its model: what needs plain weights does not go with it."""
    whole = [name for name in settings.probes if PROBES[name].whole_weights]
    against = {
        f"--lora-rank {settings.lora_rank}": settings.lora_rank,
        f"--accelerate {settings.accelerate}": settings.accelerate is not None,
        f"--probes {', '.join(whole)}": whole,
        f"--probe-processes {settings.probe_processes}": settings.probe_processes > 1,
        f"--dtype {settings.dtype}": settings.dtype not in ("auto", "float32"),
    }
    if given := [words for words, there in against.items() if there]:
        raise SpringbackError(
            describe(
                f"--attackers with lora (or search, which tries it) and {', '.join(given)}",
                "studies of all weights that are measured in float32, in this process",
                "leave one of them out",
            )
        )


def perform(study: Study, run: TrainingRun, part: Slice, measure: OnMark) -> dict[str, Any]:
    """Train a fresh adapter in the working model; it is taken out again whatever happens."""
    from springback.jobs.audit.training_run import train_and_measure
    from springback.models.stored_model import in_memory
    from springback.training import add_lora, drop_lora

    lora = add_lora(in_memory(study.work), run.recipe)
    try:
        return train_and_measure(study, run, part, run.phase, measure)
    finally:
        drop_lora(lora)
