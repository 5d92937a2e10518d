"""``search``: what an attacker gets who tries several ways and keeps what still works.

TamperBench (arXiv 2602.06911) reports the worst of a search in which the model loses at most 10 %
of its utility.  Here a grid of learning rates, doses, all weights and LoRA; the worst is taken
over these and every other attack that the study makes.
"""

from __future__ import annotations

from dataclasses import replace

from springback.errors import SpringbackError, describe
from springback.jobs.audit.attackers import full, lora
from springback.jobs.audit.branches import Attack
from springback.jobs.audit.settings import AuditSettings
from springback.results.probe_info import UTILITY

#: Times the study's learning rate, where ``--attack-learning-rates`` names none.
RATES = (3.0, 10.0)


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """Those of ``full`` and ``lora`` at the named learning rates, or 1, 3 and 10 times its own."""
    if not {*UTILITY} & {*settings.probes}:
        raise SpringbackError(
            describe(
                f"--attackers search with --probes {', '.join(settings.probes)}",
                f"search with {' or '.join(UTILITY)} among the probes",
                "add one: what is found may cost at most --utility-bound of it",
            )
        )
    if not settings.attack_learning_rates:
        rates = tuple(float(f"{times * settings.learning_rate:.6g}") for times in RATES)
        settings = replace(settings, attack_learning_rates=rates)
    return (*full.attacks(settings), *lora.attacks(settings))
