"""``orpo``: odds ratio preference optimisation of the opposite's answers over the wanted ones.

Hong et al. (arXiv 2403.07691).  (Mis)alignment (arXiv 2604.07754) finds it the best at undoing.
"""

from __future__ import annotations

from springback.errors import SpringbackError, describe
from springback.jobs.audit.branches import Attack, swept
from springback.jobs.audit.pools import Data
from springback.jobs.audit.settings import AuditSettings


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """At the study's learning rate and the swept ones; an example is a pair of answers."""
    if settings.accelerate is not None:
        given = f"--attackers orpo with --accelerate {settings.accelerate}"
        raise SpringbackError(describe(given, "sft alone with --accelerate", "leave one out"))
    own = Attack(attacker="orpo", algorithm="orpo")
    return swept(settings, own, (None, *settings.attack_learning_rates))


def check(settings: AuditSettings, data: Data) -> None:
    """Raises where a seed has too few pairs of answers."""
    for seed in settings.seeds:
        data.preferring(seed, max(settings.doses))
