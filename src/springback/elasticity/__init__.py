"""The audit's arithmetic (``curves``) and what it says (``judgement``).  Pure; paper A, A2, A3."""

from springback.elasticity.curves import (
    Crossing,
    DecayFit,
    absolute_fall,
    first_crossing,
    fit_proportional_decay,
    half_dose,
    share_lost,
    slope_on_log2,
    undo_dose,
)
from springback.elasticity.judgement import (
    Criterion,
    ReboundCurves,
    ReboundJudgement,
    ResistanceJudgement,
    rebound_judgement,
    resistance_judgement,
)

__all__ = [
    "Criterion",
    "Crossing",
    "DecayFit",
    "ReboundCurves",
    "ReboundJudgement",
    "ResistanceJudgement",
    "absolute_fall",
    "first_crossing",
    "fit_proportional_decay",
    "half_dose",
    "rebound_judgement",
    "resistance_judgement",
    "share_lost",
    "slope_on_log2",
    "undo_dose",
]
