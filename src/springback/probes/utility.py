"""What a model can still do: likelihood of neutral texts, and a multiple-choice set."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from springback.core import Row
from springback.data import bare_question
from springback.errors import DataError, shown
from springback.models.encoding import Encoded, encode_answer
from springback.models.loading import Tokenizer
from springback.probes.context import ProbeContext
from springback.probes.likelihood import Precision, TextNLL, nll
from springback.probes.registry import Probe, ProbeValue, mean_of


def neutral_nll(
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    tokenizer: Tokenizer,
    precision: Precision | None = None,
) -> list[float]:
    """NLL a token of each neutral text (nats/token; lower is better), in order.

    The probe is their mean, each text weighing the same.  Neutral are texts that neither side of
    an audit teaches: a rise is damage that has nothing to do with alignment.  Built in:
    :func:`springback.data.problem_texts`.  Left out as in :func:`springback.probes.nll`.
    Cost: one forward pass.
    """
    return [score.per_token for score in nll(model, rows, tokenizer, precision)]


@Probe(
    "neutral_nll",
    cost=lambda s, length: {f"texts of {s.neutral}": s.utility_rows * length},
    identity=lambda inputs: {"neutral": inputs.rows_of(inputs.settings.neutral).content_hash},
)
def _neutral_nll(context: ProbeContext) -> ProbeValue:
    """:func:`neutral_nll`."""
    texts = context.inputs.rows_of(context.settings.neutral)
    return mean_of([score.per_token for score in context.scores(texts)])


@dataclass(frozen=True)
class ChoiceScore:
    """Log-likelihood (nats) and UTF-8 bytes of a question's choices, and which one is right."""

    log_likelihoods: tuple[float, ...]
    text_bytes: tuple[int, ...]
    answer: int

    @property
    def correct(self) -> bool:
        """Whether the right choice has the largest log-likelihood; ties go to the first choice."""
        return _first_best(self.log_likelihoods) == self.answer

    @property
    def correct_by_bytes(self) -> bool:
        """Whether the right choice has the largest log-likelihood a byte."""
        pairs = zip(self.log_likelihoods, self.text_bytes, strict=True)
        return _first_best([nats / size for nats, size in pairs]) == self.answer


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def choice_scores(
    model: PreTrainedModel,
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    precision: Precision | None = None,
    system: str | None = None,
) -> list[ChoiceScore]:
    """The likelihood of every choice of every question as its answer, in order.

    The model reads the question without the list of choices, and each choice's text is scored
    behind it (not its letter), as the harness lm-eval does for ``acc``.  Left out: the end of the
    answer, so of two choices the one that begins the other is never less likely.  Nothing is
    cut.  Cost: a forward pass over question and choice for every choice.

    Raises :class:`DataError` for a row without choices or without a letter that names one.
    """
    encoded = choice_rows(rows, tokenizer, system)
    return choices_scored(rows, nll(model, encoded, tokenizer, precision))


def choice_rows(
    rows: Sequence[Row], tokenizer: Tokenizer, system: str | None = None
) -> list[Encoded]:
    """Every question with every choice as its answer, as :func:`choice_scores` has them scored."""
    for row in rows:
        _answer_index(row)
    bare = [replace(row, prompt=bare_question(row)) for row in rows]
    return [encode_answer(tokenizer, row, choice, system) for row in bare for choice in row.choices]


def choices_scored(rows: Sequence[Row], nlls: Sequence[TextNLL]) -> list[ChoiceScore]:
    """The questions with the scores of their :func:`choice_rows`."""
    answers = [_answer_index(row) for row in rows]
    scores, questions = iter(nlls), []
    for row, answer in zip(rows, answers, strict=True):
        ours = [next(scores) for _ in row.choices]
        questions.append(
            ChoiceScore(tuple(-s.nats for s in ours), tuple(s.text_bytes for s in ours), answer)
        )
    return questions


def _answer_index(row: Row) -> int:
    letters = string.ascii_uppercase[: len(row.choices)]
    if len(row.choices) < 2 or row.answer is None or len(row.answer) != 1:
        index = -1
    else:
        index = letters.find(row.answer)
    if index < 0:
        raise DataError(
            f"{row.named} has {len(row.choices)} choices and the answer {shown(row.answer)}; "
            "allowed: two or more, and a letter that names one; give question, choices and answer"
        )
    return index


def choice_accuracy(scores: Sequence[ChoiceScore], *, by_bytes: bool = False) -> float:
    """Share of questions answered right (0 to 1; higher is better).

    ``by_bytes`` compares log-likelihoods a byte of the choice's text, so that a short choice has
    no advantage (as lm-eval's ``acc_norm``, which counts characters).  A guess is right once in
    as many choices as there are.
    """
    right = [s.correct_by_bytes if by_bytes else s.correct for s in scores]
    return sum(right) / len(right)


@Probe(
    "choice",
    cost=lambda s, length: {"choices": 4 * s.utility_rows * length},
    identity=lambda inputs: {"choices": inputs.rows_of(inputs.settings.choices).content_hash},
)
def _choice(context: ProbeContext) -> ProbeValue:
    """:func:`choice_accuracy` both ways."""
    rows = context.inputs.rows_of(context.settings.choices).rows
    scores = choices_scored(rows, context.meter.nll(choice_rows(rows, context.inputs.tokenizer)))
    return {
        "value": choice_accuracy(scores),
        "by_bytes": choice_accuracy(scores, by_bytes=True),
        "per_example": [float(score.correct) for score in scores],
    }
