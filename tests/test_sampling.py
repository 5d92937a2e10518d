"""From logits to a token: the documented order, and noise that draws what it should."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from springback.decoding import DecodeSettings, Hooks, contrast
from springback.decoding.sampling import Answer, Chooser, KeyedNoise, noise_of, penalised
from springback.decoding.settings import check
from springback.errors import SpringbackError

EVERY = torch.arange(6)
DRAWS = 800


def chooser(settings: DecodeSettings, hooks: Hooks | None = None) -> Chooser:
    return Chooser(settings, hooks or Hooks(), noise_of(settings))


def test_penalties_come_before_plausibility() -> None:
    """Expert (4, 2.5, 1), token 0 was seen, penalty 2: (2, 2.5, 1), so token 1 is on top.

    Plausible at alpha 0.5: L >= 2.5 - 0.693 = 1.807: tokens 0 and 1.  Without the penalty it is
    4 - 0.693: token 0 alone.  Anchored at 1, amateur (0, 2.5, 0), lambda 1: differences 2, 0, 1;
    scores 2 + 2 = 4 and 2.5.
    """
    settings = DecodeSettings(lam=1.0, alpha=0.5, repetition_penalty=2.0)
    expert = penalised(torch.tensor([[4.0, 2.5, 1.0]]), [[0]], settings)
    assert expert.tolist() == [[2.0, 2.5, 1.0]]
    scores = contrast.combine(expert, torch.tensor([[0.0, 2.5, 0.0]]), 1.0, 0.5)
    assert scores.tolist() == [[4.0, 2.5, -math.inf]]
    assert chooser(settings).next_tokens(expert, torch.tensor([[0.0, 2.5, 0.0]]), [_at(0)]) == [0]


def test_forbidden_tokens_are_penalised_out() -> None:
    settings = DecodeSettings(forbidden_ids=(0,))
    logits = torch.tensor([[4.0, 2.5]])
    assert penalised(logits, [[1]], settings).tolist() == [[-math.inf, 2.5]]
    assert logits.tolist() == [[4.0, 2.5]], "what was given stays"


def _at(position: int, row: int = 0) -> Answer:
    answer = Answer(row, [1])
    answer.context += [1] * position
    return answer


def shares(settings: DecodeSettings, scores: Tensor, hooks: Hooks | None = None) -> Tensor:
    """Frequencies of 800 draws at as many places."""
    draw = chooser(settings, hooks)
    tokens = [draw.next_tokens(scores[None], None, [_at(i % 8, i // 8)])[0] for i in range(DRAWS)]
    return torch.bincount(torch.tensor(tokens), minlength=len(scores)) / DRAWS


def test_temperature_comes_before_the_filters_and_top_k_before_top_p() -> None:
    """Scores ln(8, 4, 2, 1, 1), T = 0.5: weights squared are 64, 16, 4, 1, 1.

    top_k = 3 leaves 64, 16, 4 (of 84: 0.762, 0.190, 0.048).  top_p = 0.8 then needs tokens 0 and
    1, and min_p = 0.2 lets 1 pass (16 / 64 = 0.25): 64 / 80 = 0.8.  With top_p = 0.75 one token is
    enough (0.762), but not without top_k (64 / 86 = 0.744).  min_p = 0.3 leaves one, which it
    would not at T = 1 (4 / 8).
    """
    scores = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0], dtype=torch.float64).log()
    base: dict[str, Any] = {"temperature": 0.5, "keyed_noise": True}
    found = shares(DecodeSettings(**base, top_k=3, top_p=0.8, min_p=0.2), scores)
    assert found[2:].sum() == 0
    assert abs(float(found[0]) - 0.8) < 5 * math.sqrt(0.8 * 0.2 / DRAWS)
    assert shares(DecodeSettings(**base, top_k=3, top_p=0.75), scores)[0] == 1
    assert shares(DecodeSettings(**base, top_p=0.75), scores)[0] < 1
    assert shares(DecodeSettings(**base, min_p=0.3), scores)[0] == 1


def test_processors_come_before_temperature() -> None:
    """A processor adds ln 2 to token 1: weights 1, 2; at T = 0.5 they are 1, 4: share 0.8."""

    def louder(_: Tensor, scores: Tensor) -> Tensor:
        scores[:, 1] += math.log(2)
        return scores

    settings = DecodeSettings(temperature=0.5, keyed_noise=True)
    found = shares(settings, torch.zeros(2, dtype=torch.float64), Hooks(processors=(louder,)))
    assert abs(float(found[1]) - 0.8) < 5 * math.sqrt(0.8 * 0.2 / DRAWS)


def test_draws_follow_the_softmax() -> None:
    """Chi-square over 100,000 places, 60 tokens with odds as uneven as a model's.

    Bins of fewer than 5 expected draws are one.  p is above 0.001 for the right odds, and below
    if a hundredth of the draws goes from the likeliest to the next.
    """
    rows, positions, width = 400, 250, 60
    weights = np.exp(-0.25 * np.arange(width))
    weights /= weights.sum()
    scores, noise, every = torch.from_numpy(np.log(weights)), KeyedNoise(0), torch.arange(width)
    counts = np.zeros(width)
    for row in range(rows):
        for position in range(positions):
            counts[int((scores + noise.gumbel(row, position, width, every)).argmax())] += 1
    assert counts.sum() == 100_000
    few = int((weights * 100_000 < 5).sum())
    assert few > 5, "there are rare tokens to pool"

    def pooled(values: Any) -> Any:
        return np.append(values[: width - few], values[width - few :].sum())

    right = pooled(weights * 100_000)
    assert right.min() >= 5
    assert stats.chisquare(pooled(counts), right).pvalue > 0.001
    wrong = right.copy()
    wrong[:2] += (-1000, 1000)
    assert stats.chisquare(pooled(counts), wrong).pvalue < 0.001


def test_noise_is_gumbel_and_its_places_are_independent() -> None:
    """Kolmogorov-Smirnov against the Gumbel law; neighbouring places do not correlate."""
    noise, tokens = KeyedNoise(3), torch.arange(4000)
    here = noise.gumbel(5, 7, 4000, tokens).numpy()
    assert stats.kstest(here, "gumbel_r").pvalue > 0.001
    for other in (noise.gumbel(6, 7, 4000, tokens), noise.gumbel(5, 8, 4000, tokens)):
        assert abs(np.corrcoef(here, other.numpy())[0, 1]) < 5 / math.sqrt(4000)
    assert not np.allclose(here, KeyedNoise(4).gumbel(5, 7, 4000, tokens).numpy())


def test_noise_of_a_place_needs_no_other_place() -> None:
    walked = KeyedNoise(1)
    path = [walked.gumbel(2, position, 6, EVERY) for position in range(5)]
    assert torch.equal(KeyedNoise(1).gumbel(2, 4, 6, EVERY), path[4])
    some = torch.tensor([1, 4])
    assert torch.equal(KeyedNoise(1).gumbel(2, 4, 6, some), path[4][some])


@pytest.mark.parametrize(
    "settings",
    [
        DecodeSettings(top_p=0.0),
        DecodeSettings(top_k=-1),
        DecodeSettings(min_p=1.0),
        DecodeSettings(temperature=-1.0),
        DecodeSettings(repetition_penalty=0.0),
        DecodeSettings(stop_strings=("x",)),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: DecodeSettings) -> None:
    with pytest.raises(SpringbackError, match="allowed"):
        check(settings, [[1]], None, Hooks())
