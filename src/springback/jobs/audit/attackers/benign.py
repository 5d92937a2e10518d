"""``benign``: does the alignment wear off under training that teaches nothing unwanted?"""

from __future__ import annotations

from springback.jobs.audit.branches import Attack
from springback.jobs.audit.settings import AuditSettings


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """Benign rows alone, as ``--mix 1`` has it."""
    return (Attack(mix=1.0),)
