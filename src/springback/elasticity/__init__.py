"""What an audit's numbers say.  Pure; what is random takes a seed.  Paper A, A2 and A3.

``curves``, ``doses``, ``phases``, ``proportional``: the arithmetic of one study.  ``rebound``,
``controls``, ``resistance``, ``attackers``, ``realign``: what it says.  ``card`` (made of
``audit_values`` by ``make_card``) and ``compare``: one model on one page, several side by side.
``censored`` and
``seed_tests``: means and tests over seeds that keep censored values censored.
"""

from springback.elasticity.attackers import Attacker, AttackSummary, Sweep, attack_summary
from springback.elasticity.audit_values import AuditValues, study_hash
from springback.elasticity.card import ElasticityCard, Quantity
from springback.elasticity.censored import Bounded, bounded_mean
from springback.elasticity.compare import Comparison, Difference, compare
from springback.elasticity.controls import (
    DECIDING,
    BeyondControl,
    BeyondControls,
    beyond_control,
    beyond_controls,
    less_control,
)
from springback.elasticity.curves import (
    Crossing,
    DecayFit,
    absolute_fall,
    bootstrap_slope,
    dose_to_half_gain,
    dose_to_undo_gain,
    first_crossing,
    fit_proportional_decay,
    share_lost,
    slope_on_log2,
    slopes_on_log2,
)
from springback.elasticity.doses import (
    EPSILON,
    DoseAt,
    Doses,
    DoseTrend,
    dose_in_words,
    dose_trend,
    doses_at,
    doses_to_lose_gain,
    kl_doses,
)
from springback.elasticity.make_card import card_of
from springback.elasticity.outcome import is_finished, outcome_curves, outcome_of
from springback.elasticity.phases import Phases, branch_phases, fall_phases
from springback.elasticity.proportional import decay_criterion, excess_falls
from springback.elasticity.realign import AtCount, Realignment, realignment
from springback.elasticity.rebound import (
    Criterion,
    ReboundCurves,
    ReboundJudgement,
    ResistanceJudgement,
    rebound_judgement,
    resistance_judgement,
    several_sizes,
    took,
)
from springback.elasticity.resistance import (
    KLChange,
    PairTest,
    by_arm,
    kl_change,
    overall_resistance,
    resistance_tests,
)

__all__ = [
    "DECIDING",
    "EPSILON",
    "AtCount",
    "AttackSummary",
    "Attacker",
    "AuditValues",
    "BeyondControl",
    "BeyondControls",
    "Bounded",
    "Comparison",
    "Criterion",
    "Crossing",
    "DecayFit",
    "Difference",
    "DoseAt",
    "DoseTrend",
    "Doses",
    "ElasticityCard",
    "KLChange",
    "PairTest",
    "Phases",
    "Quantity",
    "Realignment",
    "ReboundCurves",
    "ReboundJudgement",
    "ResistanceJudgement",
    "Sweep",
    "absolute_fall",
    "attack_summary",
    "beyond_control",
    "beyond_controls",
    "bootstrap_slope",
    "bounded_mean",
    "branch_phases",
    "by_arm",
    "card_of",
    "compare",
    "decay_criterion",
    "dose_in_words",
    "dose_to_half_gain",
    "dose_to_undo_gain",
    "dose_trend",
    "doses_at",
    "doses_to_lose_gain",
    "excess_falls",
    "fall_phases",
    "first_crossing",
    "fit_proportional_decay",
    "is_finished",
    "kl_change",
    "kl_doses",
    "less_control",
    "outcome_curves",
    "outcome_of",
    "overall_resistance",
    "realignment",
    "rebound_judgement",
    "resistance_judgement",
    "resistance_tests",
    "several_sizes",
    "share_lost",
    "slope_on_log2",
    "slopes_on_log2",
    "study_hash",
    "took",
]
