"""One question as the model reads it, and how its answer is read: to look at before a boost."""

from __future__ import annotations

from springback.core import Checkpoint
from springback.data.grading import READINGS
from springback.jobs.boost.checkpoints import folder_of
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import end_text, prompt_text
from springback.models.hub import base_of
from springback.models.loading import load_tokenizer, resolve, tokenizer_source
from springback.weights import is_adapter


def _tokenizer_of(settings: BoostSettings) -> Checkpoint:
    name = settings.ft or settings.model or ""
    folder = folder_of(name)
    if folder is None or not is_adapter(folder):
        return resolve(name)
    return tokenizer_source(folder, resolve(base_of([folder], settings.model)))


def shown(settings: BoostSettings) -> str:
    """The first validation question in its template and the model's chat template, and the rest.

    Test questions are loaded to keep the parts apart, and not shown.
    """
    settings = check_settings(settings)
    questions, data = question_format(settings), load_data(settings)
    tokenizer = load_tokenizer(_tokenizer_of(settings), settings)
    part = questions.render(data.validation)
    row, facts = part.rows[0], questions.describe()
    read = facts["extraction"] if facts["extract"] or not row.metric else READINGS[row.metric]
    templated = "its chat template" if tokenizer.chat_template else "no chat template"
    lines = [
        f"first question of {part.name}, {templated}:",
        prompt_text(tokenizer, row, settings.system),
        f"--- reference solution, closed by {end_text(tokenizer, row)!r}",
        row.response or row.answer or "",
        "--- grading",
        f"answer:          {row.answer}",
        f"metric:          {row.metric or facts['metric']}",
        f"read as:         {read}",
        f"extract:         {facts['extract'] or 'not set'}",
        f"prompt template: {facts['prompt_template']!r}",
    ]
    return "\n".join(lines)
