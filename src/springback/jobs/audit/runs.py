"""The runs of an audit, listed once.

Making them here, on Ray, and every plan read :func:`of`: which runs there are, what each trains
and measures, which weights it starts from and leaves.  A further experiment is one more file that
gives its runs, and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from springback.jobs.audit import realign, rebound, resistance
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study, opposite_order
from springback.jobs.audit.training_run import TrainingRun, Weights


def of(settings: AuditSettings) -> list[TrainingRun]:
    """Every run of one order of a study, in the order in which one process makes them."""
    listed = [rebound.start_run(), *rebound.base_run(settings)]
    for seed in settings.seeds:
        listed += [*rebound.runs(settings, seed), *realign.runs(settings, seed)]
    for seed in settings.seeds:
        listed += resistance.runs(settings, seed)
    return listed


def orders(settings: AuditSettings) -> list[AuditSettings]:
    """The study, and the opposite order if the settings ask for symmetry."""
    if "symmetry" in settings.experiments:
        return [settings, opposite_order(settings)]
    return [settings]


def left(study: Study, listed: Sequence[TrainingRun]) -> list[TrainingRun]:
    """Those of the runs that have to be made, in their order.

    That is what is not done; and what is done although weights that such a run reads are
    gone, for instance since it was made on another machine.
    """
    waiting: list[TrainingRun] = []
    needed: set[Weights] = set()
    names: set[str] = set()
    for run in reversed(listed):
        name = run.identity(study).name
        gone = any(not weights.path(study).exists() for weights in needed & {*run.weights_left})
        # The neutral control and a purely benign attack can be one and the same run.
        if gone or not (run.done(study) or name in names):
            names.add(name)
            waiting.append(run)
            needed |= needed_by([run])
    return waiting[::-1]


def needed_by(waiting: Iterable[TrainingRun]) -> set[Weights]:
    """The weights that these runs read."""
    return {weights for run in waiting for weights in run.weights_read}


def make(study: Study, listed: Sequence[TrainingRun]) -> None:
    """Make what is left of the runs, one after the other.

    Weights are dropped once no run that is left reads them.
    """
    waiting = left(study, listed)
    _drop(study, {weights for run in listed for weights in run.weights_left} - needed_by(waiting))
    while waiting:
        run = waiting.pop(0)
        run.make(study)
        _drop(study, ({*run.weights_left} | needed_by([run])) - needed_by(waiting))
    for run in listed:
        study.store.drop_checkpoints(run.identity(study))


def _drop(study: Study, spare: Iterable[Weights]) -> None:
    for weights in spare:
        study.store.drop_checkpoint(weights.run.identity(study), weights.label)


def most_weights(listed: Sequence[TrainingRun]) -> int:
    """How many weights the store holds at the most while the runs are made one after the other."""
    last_use = {weights: i for i, run in enumerate(listed) for weights in run.weights_read}
    spans = [(listed.index(weights.run), end) for weights, end in last_use.items()]
    held = (sum(begin <= i <= end for begin, end in spans) for i in range(len(listed)))
    return max(held, default=0)
