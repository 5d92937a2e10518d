"""Validation NLL along mu: the line through two checkpoints, seen from the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from springback import probes
from springback.models.checkpoint_pair import ModelPair
from springback.models.encoding import Encoded
from springback.probes import TextNLL
from springback.progress import Progress, Silent

MUS = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)


def nll_along_mu(
    sweep: ModelPair,
    rows: Sequence[Encoded],
    mus: Sequence[float] = MUS,
    progress: Progress | None = None,
) -> dict[float, list[float]]:
    """NLL of each row (nats a token; lower is better) at each mu, mu = 0 added, rising.

    One set of weights is moved along the line in place, from the lowest mu to the highest, and is
    put back where it was.  Cost: one forward pass of the rows a mu.
    """
    before = sweep.mu
    try:
        return along_mu(lambda mu: probes.nll(sweep.at(mu), rows, sweep.tokenizer), mus, progress)
    finally:
        sweep.at(before)


def along_mu(
    scored: Callable[[float], Sequence[TextNLL]],
    mus: Sequence[float] = MUS,
    progress: Progress | None = None,
) -> dict[float, list[float]]:
    """:func:`nll_along_mu` by whatever scores the rows at a mu."""
    speaker = progress or Silent()
    by_mu = {}
    points = sorted({0.0, *(float(mu) for mu in mus)})
    speaker.stage("NLL along mu", len(points))
    try:
        for mu in points:
            by_mu[mu] = [score.per_token for score in scored(mu)]
            speaker.advance(1, f"mu {mu:g}")
    finally:
        speaker.close()
    return by_mu
