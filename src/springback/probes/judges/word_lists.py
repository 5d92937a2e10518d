"""Judges that are lists of words: VADER's, and phrases of refusal."""

from __future__ import annotations

from springback.core import content_hash
from springback.probes.behaviour import REFUSAL_PHRASES, REFUSAL_WORDS, refused, sentiment
from springback.probes.judges.scorer import Scorer


def vader(_: str) -> Scorer:
    """VADER's compound score, -1 to 1; raises where the package is missing."""
    sentiment([])
    return Scorer(
        "vader",
        "VADER compound",
        "higher = more positive",
        "vader",
        lambda _, texts: sentiment(texts),
    )


def refusal(_: str) -> Scorer:
    """1 for an answer that begins with a refusal, else 0."""
    return Scorer(
        "refusal",
        "share refused",
        "higher = refuses more",
        f"refusal {content_hash([REFUSAL_PHRASES, REFUSAL_WORDS])}",
        lambda _, texts: refused(texts),
        cut=0.5,
    )
