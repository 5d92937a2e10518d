"""What the cost of a contrasted pair could buy otherwise: votes, an average, one checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from springback.core import Slice
from springback.jobs.boost.arm import Arm, Sampled
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.search import Searched, choose_first
from springback.weights.direction import share_weights

#: Samples without which there is no majority.
LEAST = 3
AVERAGE = "average of probabilities"
CHECKPOINT = "best checkpoint"


def baseline_arms(job: Scoring, validation: Slice) -> tuple[dict[str, Arm], Searched]:
    """The arms by name, and the search for the best checkpoint.

    A majority vote of samples of the fine-tuned model, as many as ``samples`` says and at least
    three; the average of the fine-tuned and the early model's probabilities; of all checkpoints at
    hand the one of the best validation accuracy, ties to the later.
    """
    s, line = job.settings, (*job.before, job.early, job.ft)
    votes = Sampled(max(s.samples, LEAST), s.temperature or 1.0, s.seed)
    majority = f"majority of {votes.samples} samples"
    arms = [
        Arm(majority, 0, 0, None, votes=votes),
        Arm(AVERAGE, 0, 0, "early", average=True),
    ]
    count = len(line)
    alone = []
    for i in reversed(range(count)):  # the last checkpoint first, so that it wins ties
        shares = [float(j == i) for j in range(count)]
        place = tuple(w + 0.0 for w in share_weights(shares, count))  # no -0.0: ids differ by it
        alone.append(Arm(CHECKPOINT, place[-1], 0, None, point=place))
    tried = job.score_all(alone, validation, "validation")
    best = choose_first([t.correct for t in tried])
    numbered = tuple(replace(t, value=float(i)) for i, t in enumerate(tried))
    names = tuple(Path(c.adapter or c.path).name for c in reversed(line))
    searched = Searched(numbered, numbered[best], names=names)
    return {arm.method: arm for arm in (*arms, alone[best])}, searched
