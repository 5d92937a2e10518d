"""``full``: the study's own perturbation at other learning rates and with other draws of rows."""

from __future__ import annotations

from springback.jobs.audit.branches import PLAIN, Attack, swept
from springback.jobs.audit.settings import AuditSettings


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """Learning rates and draws swept together, each with each, but for the study's own."""
    rates = (None, *settings.attack_learning_rates)
    return tuple(a for a in swept(settings, PLAIN, rates) if a != PLAIN)
