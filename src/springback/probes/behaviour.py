"""Sampled behaviour: continuations of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from springback.decode import DecodeSettings, decode
from springback.errors import MissingExtraError
from springback.models import Tokenizer


@dataclass(frozen=True)
class SampleSettings:
    """Continuations to sample: how many tokens, temperature, seed of the noise.

    ``exact_length`` forbids the end token, so that every continuation has ``new_tokens`` tokens.
    """

    new_tokens: int = 24
    exact_length: bool = False
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 32


def sample(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SampleSettings,
) -> list[list[int]]:
    """One continuation of each prompt (token ids without the prompt).

    The noise is the same for every model, which makes differences between models less noisy.
    """
    stops = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return decode(
        model,
        prompts,
        DecodeSettings(
            max_new_tokens=settings.new_tokens,
            temperature=settings.temperature,
            seed=settings.seed,
            batch_size=settings.batch_size,
            stop_ids=stops,
            forbidden_ids=stops if settings.exact_length else (),
            pad_id=tokenizer.pad_token_id,
        ),
    )


def sentiment(texts: Sequence[str]) -> list[float]:
    """VADER compound score of each text, -1 (negative) to 1 (positive).

    A lexicon, not a classifier: irony and plot words mislead it.  Cost: milliseconds.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise MissingExtraError("vaderSentiment", "sentiment", "the sentiment probe") from error
    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]
