"""An attacker outside the package: noise on every weight, as much as a dose has rows."""

from __future__ import annotations

from typing import Any

import torch

from springback.jobs.audit.attackers import ATTACKERS, AttackerInfo
from springback.jobs.audit.branches import Attack


def attacks(settings: Any) -> tuple[Attack, ...]:
    return (Attack(attacker="noise"),)


def perform(study: Any, run: Any, part: Any, measure: Any) -> dict[str, Any]:
    marks = {}
    for rows in run.marks.values():
        model = study.reset(run.seed, run.start_weights(study))
        torch.manual_seed(run.seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 1e-3 * rows * torch.randn_like(weight)
        marks[rows] = measure(rows, model)
    return {"losses": (), "marks": marks, "forwards": dict.fromkeys(marks, 0)}


ATTACKERS["noise"] = AttackerInfo("Noise", "noise on all weights", attacks, perform, forwards=0.0)
