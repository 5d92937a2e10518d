"""Points that the checkpoints of a run span: checkpoints, averages, rewinds, extrapolations.

A point is theta_n + sum_i w_i (theta_n - theta_i) over the checkpoints before the last, theta_n:
one ordinary set of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from springback.weights.arithmetic import Floats
from springback.weights.direction import share_weights, slope_weights

#: How far back along the last update the rewound candidates lie, as shares of it.
REWINDS = (0.25, 0.5)


@dataclass(frozen=True)
class Point:
    """One candidate: its name, and w_i of every checkpoint but the last."""

    name: str
    weights: tuple[float, ...]


def on_line(mu: float, count: int) -> tuple[float, ...]:
    """The weights of theta_n + mu (theta_n - theta_{n-1}) among ``count`` checkpoints."""
    return (*(0.0,) * (count - 2), float(mu))


def shares_of(weights: Sequence[float]) -> tuple[float, ...]:
    """One share a checkpoint, the last one's too: they sum to 1."""
    return (*(-w for w in weights), 1.0 + math.fsum(weights))


def points_of_run(
    steps: Sequence[float], names: Sequence[str], mus: Sequence[float]
) -> list[Point]:
    """Candidates of a run of two or more checkpoints, each once, the last one itself first.

    Extrapolations by each of ``mus`` along the last update; rewinds (:data:`REWINDS`); every
    earlier checkpoint; uniform averages of the last two, three, ... checkpoints; of three or more
    also the average whose weights stand for a learning rate that decays as 1 - sqrt (WSM, Tian et
    al., arXiv 2507.17634), and extrapolations along the least-squares line through all of them.
    ``steps`` are the training steps, ``names`` what the checkpoints are called.
    """
    count = len(steps)
    points = [Point("fine-tuned", on_line(0.0, count))]
    points += [Point(f"mu {mu:g}", on_line(mu, count)) for mu in mus if mu]
    points += [Point(f"rewind {share:g}", on_line(-share, count)) for share in REWINDS]
    for i in range(count - 2, -1, -1):
        points.append(Point(names[i], share_weights([float(j == i) for j in range(count)], count)))
    for last in range(2, count + 1):
        shares = [float(j >= count - last) for j in range(count)]
        points.append(Point(f"average of the last {last}", share_weights(shares, count)))
    if count > 2:
        points.append(Point("average, 1-sqrt", share_weights(decay_shares(count), count)))
        slope = slope_weights(steps)
        points += [
            Point(f"least squares, mu {mu:g}", tuple(mu * w for w in slope)) for mu in mus if mu
        ]
    unique: dict[tuple[float, ...], Point] = {}
    for point in points:
        unique.setdefault(tuple(round(w, 12) + 0.0 for w in point.weights), point)
    return list(unique.values())


def decay_shares(count: int) -> list[float]:
    """Shares of ``count`` checkpoints, equally far apart, that stand for a decaying learning rate.

    An average of checkpoints takes the updates between them with weights that fall from 1 to 0:
    checkpoint i's share is the difference of the learning rates before and after it, here of
    1 - sqrt(t), t from 0 at the first checkpoint to 1 after the last.
    """
    rates = [1.0 - math.sqrt(i / count) for i in range(count + 1)]
    return [rates[i] - rates[i + 1] for i in range(count)]


def coordinates(points: Sequence[Point], gram: Floats) -> Floats:
    """Places [points, dimensions] whose distances are those of the weights.

    ``gram``: inner products of theta_i - theta_n over the earlier checkpoints, (n - 1, n - 1).
    In units of the last update's length, where it has one.
    """
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))  # gram = root @ root.T
    unit = math.sqrt(max(float(gram[-1, -1]), 0.0)) or 1.0
    places: Floats = np.array([p.weights for p in points], np.float64) @ root / unit
    return places
