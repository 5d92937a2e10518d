"""Judges: what scores sampled texts in the probe ``behaviour``.  One file each, and an entry in
:data:`springback.results.judge_info.JUDGES`."""

from springback.probes.judges.registry import load_scorer, load_scorers, require_judges
from springback.probes.judges.scorer import Scorer
from springback.probes.judges.user_function import (
    USER_FUNCTION_FORMS,
    UserFunction,
    is_user_function,
    load_user_function,
)

__all__ = [
    "USER_FUNCTION_FORMS",
    "Scorer",
    "UserFunction",
    "is_user_function",
    "load_scorer",
    "load_scorers",
    "load_user_function",
    "require_judges",
]
