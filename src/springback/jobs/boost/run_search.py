"""One choice for the whole run: every point that its checkpoints span is a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from springback.core import Checkpoint, Run, Slice
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.search import Searched, Tried, choice_of
from springback.results.boost_schema import RunChoice
from springback.stats.values import Floats
from springback.weights.adapters.precheck import adapter_products
from springback.weights.direction import steps_of
from springback.weights.precheck import inner_products
from springback.weights.span import Point, coordinates, on_line, points_of_run, shares_of

#: The chosen point, in the table of methods.
BEST = "best of the run"


@dataclass(frozen=True)
class OfRun:
    """The search, the arm that was chosen (EpiCoDe's own, where that is), and its record."""

    searched: Searched
    arm: Arm
    record: RunChoice


def search_run(job: Scoring, epicode: tuple[Arm, Tried], validation: Slice) -> OfRun:
    """Score every point of the run; choose among them and EpiCoDe as validation chose it.

    Points are neighbours by the distance of their weights; a contrasted pair lies where one plain
    model goes as far.  Ties go to the earlier candidate, the fine-tuned model first and the pair
    last, since it costs two models.
    """
    line = _line(job)
    names, steps, points = _points(job)
    arms = _arms_at(points)
    tried = list(job.score_all(arms, validation, "validation"))
    pair, of_pair = epicode
    if pair.key()["lam"]:
        points = [*points, Point("EpiCoDe", on_line(pair.step, len(line)))]
        arms, tried = [*arms, pair], [*tried, of_pair]
    gram = _products(job, line)
    settings = job.settings
    places = coordinates(points, gram).tolist()
    choice = choice_of(tried, places, settings.choose_by, settings.one_se)
    numbered = tuple(replace(t, value=float(i)) for i, t in enumerate(tried))
    best, point = arms[choice.index], points[choice.index]
    searched = Searched(
        numbered, numbered[choice.index], choice, tuple(point.name for point in points)
    )
    shares = None if best is pair else shares_of(point.weights)
    record = RunChoice(tuple(names), tuple(steps), _norms(gram), point.name, shares)
    return OfRun(searched, best if best is pair else replace(best, method=BEST), record)


def run_arms(job: Scoring) -> list[Arm]:
    """An arm for every point of the run."""
    return _arms_at(_points(job)[-1])


def _arms_at(points: Sequence[Point]) -> list[Arm]:
    return [Arm(p.name, p.weights[-1], 0, None, point=p.weights) for p in points]


def _line(job: Scoring) -> tuple[Checkpoint, ...]:
    return (*job.before, job.early, job.ft)


def _points(job: Scoring) -> tuple[list[str], tuple[float, ...], list[Point]]:
    """What the checkpoints are called, their training steps, and the points that they span."""
    folders = [Path(c.adapter or c.path) for c in _line(job)]
    names, steps = [folder.name for folder in folders], steps_of(folders)
    return names, steps, points_of_run(steps, names, job.settings.mu)


def _products(job: Scoring, line: Sequence[Checkpoint]) -> Floats:
    """Inner products of the checkpoints' differences to the last, (n - 1, n - 1); made once."""
    run = Run.of("products", line=[c.content_hash for c in line])
    kept = job.store.results(run)
    if kept is None:
        if line[-1].adapter is None:
            gram = inner_products([c.path for c in line], job.progress)
        else:
            gram = adapter_products([str(c.adapter) for c in line])
        kept = job.store.commit(run, {"products": gram.tolist()})
    products: Floats = np.array(kept["products"], np.float64)
    return products


def _norms(gram: Floats) -> tuple[float, ...]:
    """Length of every update over that of the last."""
    count = len(gram) + 1
    padded = np.zeros((count, count))
    padded[:-1, :-1] = gram
    change = np.diff(np.eye(count), axis=0)
    lengths = [math.sqrt(max(float(v), 0.0)) for v in np.diag(change @ padded @ change.T)]
    return tuple(round(length / (lengths[-1] or 1.0), 6) for length in lengths)


def methods_of(arms: Mapping[str, Arm], of_run: OfRun | None) -> dict[str, Arm]:
    """The arms of the test with the chosen point among them."""
    if of_run is None or of_run.record.shares is None:
        return dict(arms)
    return {**arms, BEST: of_run.arm}
