"""Data: two built-in sets made by seeded grammars, and the user's own in any usual form."""

from springback.slices.choices import bare_question, choice_problems, problem_texts
from springback.slices.formats import load_rows, split_conditions
from springback.slices.loading import (
    check_disjoint,
    content_key,
    is_built_in,
    load_slice,
    split_rows,
)
from springback.slices.problems import check, problem_count, problems
from springback.slices.reviews import review_count, reviews

__all__ = [
    "bare_question",
    "check",
    "check_disjoint",
    "choice_problems",
    "content_key",
    "is_built_in",
    "load_rows",
    "load_slice",
    "problem_count",
    "problem_texts",
    "problems",
    "review_count",
    "reviews",
    "split_conditions",
    "split_rows",
]
