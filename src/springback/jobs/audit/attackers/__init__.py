"""The attackers by name: how each is shown, and where its functions stand.

Loads nothing, so that help and settings may read it.  A new attacker is one entry here and one file
beside it; outside the package, an entry made before the settings name it.  An attacker is one or
more attacks (:class:`springback.jobs.audit.branches.Attack`) from the last branch point, each one
run of the study.  Every row that it uses is the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

#: A function, or ``module:function`` of it, which is loaded when it is needed.
Named = str | Callable[..., Any]


@dataclass(frozen=True)
class AttackerInfo:
    """What an attacker is.

    ``title`` and ``meaning`` stand in the help, in results and below charts.
    ``attacks``: settings -> its attacks; raises :class:`springback.errors.SpringbackError` where
    the settings do not go with it.
    ``perform``: study, run, rows and what measures the model -> the run's results, as
    :func:`springback.jobs.audit.training_run.train_and_measure` gives them; None is that function.
    ``forwards``: of an attacker that trains nothing, forward passes over each of its rows, for
    plans; its results then have ``forwards`` too, by dose the tokens of all passes.  None: it
    trains.
    ``benign_rows``: it needs as many benign rows as the largest dose has.
    ``check``: settings, data -> None; raises before anything is trained where the rows do not fit.
    """

    title: str
    meaning: str
    attacks: Named
    perform: Named | None = None
    forwards: float | None = None
    benign_rows: bool = False
    check: Named | None = None


_HERE = "springback.jobs.audit.attackers"
ATTACKERS = {
    "full": AttackerInfo(
        "Fine-tuning",
        "trains as the study does on the opposite, at other learning rates and draws",
        f"{_HERE}.full:attacks",
    ),
    "lora": AttackerInfo(
        "LoRA",
        "trains an adapter on the opposite instead of all weights",
        f"{_HERE}.lora:attacks",
        f"{_HERE}.lora:perform",
    ),
    "benign": AttackerInfo(
        "Benign fine-tuning",
        "trains on benign rows alone",
        f"{_HERE}.benign:attacks",
    ),
    "orpo": AttackerInfo(
        "ORPO",
        "prefers the opposite's answers to the wanted ones by odds ratio",
        f"{_HERE}.orpo:attacks",
        check=f"{_HERE}.orpo:check",
    ),
    "ablation": AttackerInfo(
        "Ablation",
        "takes the direction between unwanted and harmless prompts out of the weights, untrained",
        f"{_HERE}.ablation:attacks",
        f"{_HERE}.ablation:perform",
        # Two sets of prompts, and the held-out quarter of one for each layer of some 30.
        forwards=8.0,
        benign_rows=True,
        check=f"{_HERE}.ablation:check",
    ),
    "search": AttackerInfo(
        "Search",
        "the worst of learning rates and doses, all weights and LoRA, within --utility-bound",
        f"{_HERE}.search:attacks",
    ),
}


def function(named: Named) -> Callable[..., Any]:
    """The function that an entry names."""
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), name)
    return loaded
