"""Data: two built-in sets made by seeded grammars, and the user's own in any usual form."""

from springback.data.builtin.problems import check, problem_count, problems
from springback.data.builtin.reviews import review_count, reviews
from springback.data.choices import bare_question, choice_problems, problem_texts
from springback.data.files import is_local
from springback.data.formats import load_rows, split_conditions
from springback.data.loading import (
    LISTED,
    check_disjoint,
    content_key,
    is_built_in,
    load_slice,
    require_source,
    split_rows,
)
from springback.data.references import nll_withheld
from springback.data.tasks import (
    QUESTION,
    TASKS,
    Task,
    check_template,
    fields_of,
    framed,
    source_of,
    task_of,
)

__all__ = [
    "LISTED",
    "QUESTION",
    "TASKS",
    "Task",
    "bare_question",
    "check",
    "check_disjoint",
    "check_template",
    "choice_problems",
    "content_key",
    "fields_of",
    "framed",
    "is_built_in",
    "is_local",
    "load_rows",
    "load_slice",
    "nll_withheld",
    "problem_count",
    "problem_texts",
    "problems",
    "require_source",
    "review_count",
    "reviews",
    "source_of",
    "split_conditions",
    "split_rows",
    "task_of",
]
