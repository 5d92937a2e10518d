"""One run of an audit, described by the settings alone: neither a model nor rows are needed.

:mod:`springback.jobs.audit.rebound`, ``realign`` and ``resistance`` each give their runs in this
form; :func:`springback.jobs.audit.runs.of` puts them in one list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from springback.core import ALGORITHMS, Recipe, Run, Slice
from springback.jobs.audit.branches import PLAIN, Attack
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.training import Marks, OnMark


@dataclass(frozen=True)
class Weights:
    """Weights that ``run`` leaves in the store under ``label``, for other runs to start from."""

    run: TrainingRun
    label: str

    def path(self, study: Study) -> Path:
        return study.store.checkpoint(self.run.identity(study), self.label)


@dataclass(frozen=True)
class TrainingRun:
    """One run: what it trains on and measures, and which other runs it needs.

    ``phase``: ``start``, ``align``, ``perturb``, ``realign``, ``slice`` or ``toward``; the kind of
    the run in the store.
    ``train``: trains and measures, and returns the results for the store.  ``inputs``: what the
    run's id is taken over.
    ``rows``: how many rows it trains on, by ``recipe``; 0 for ``start``, which trains nothing.
    ``marks``: name of a measurement (examples, dose) -> rows seen when it is taken; every probe is
    measured at each of them.
    ``starts_from``: None is the start model.  ``leaves``: labels of the weights that others start
    from.  ``reads``: runs whose results it needs.
    ``n_pos``, ``attack``: of ``perturb``, its branch point and how it perturbs.
    ``stage``, ``target``: of ``slice`` which one (1 to 3), of ``toward`` from which to which.
    ``arm``: of ``toward`` on whole answers, how these were chosen.  ``compared``: weights that it
    reads beside those it starts from, to take the KL to them.
    """

    phase: str
    seed: int
    train: Callable[[Study, TrainingRun], dict[str, Any]]
    inputs: Callable[[Study, TrainingRun], dict[str, Any]]
    rows: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    marks: Mapping[int, int] = field(default_factory=dict, hash=False)
    starts_from: Weights | None = None
    leaves: tuple[str, ...] = ()
    reads: tuple[TrainingRun, ...] = ()
    n_pos: int = 0
    attack: Attack = PLAIN
    stage: int = 0
    target: int = 0
    arm: str = ""
    compared: Weights | None = None

    def identity(self, study: Study) -> Run:
        """The run as the store knows it, with its id; this needs the study's rows."""
        if self not in study.identities:
            study.identities[self] = Run.of(
                self.phase,
                **self.inputs(study, self),
                **study.settings.chat_inputs(),
                **study.place.inputs(),
            )
        return study.identities[self]

    @property
    def weights_left(self) -> tuple[Weights, ...]:
        return tuple(Weights(self, label) for label in self.leaves)

    @property
    def weights_read(self) -> tuple[Weights, ...]:
        return tuple(w for w in (self.starts_from, self.compared) if w is not None)

    def start_weights(self, study: Study) -> Path | None:
        """Where the weights that it starts from lie; None is the start model."""
        return self.starts_from.path(study) if self.starts_from else None

    def make(self, study: Study) -> None:
        """Train, measure and record it as done; the weights that it starts from are there."""
        study.store.commit(self.identity(study), self.train(study, self))

    def done(self, study: Study) -> bool:
        return study.store.results(self.identity(study)) is not None

    def results(self, study: Study) -> dict[str, Any]:
        """What it found; it has to be done."""
        results = study.store.results(self.identity(study))
        assert results is not None, self
        return results

    def measured(self, study: Study) -> dict[int, dict[str, Any]]:
        """Name of each measurement -> its probes; it has to be done."""
        marks = self.results(study)["marks"]
        return {name: marks[str(rows)] for name, rows in self.marks.items()}

    @property
    def steps(self) -> int:
        if not self.attack.trains:
            return len(self.marks)
        return -(-self.rows // self.recipe.batch_size)

    @property
    def measurements(self) -> int:
        """How often every probe is measured.

        The start model is scored a second time for the noise floor; a repair is measured at each
        of its strengths.
        """
        if not self.rows:
            return 2
        return len(self.marks) + len(self.attack.repair)

    @property
    def weights_moved(self) -> int:
        """How often weights of the whole model are read from disk or written to it."""
        read = len(self.weights_read) if self.rows else 1
        return read + len(self.leaves) + 2 * len(self.attack.repair)

    def trained_tokens(self, settings: AuditSettings, length: float) -> float:
        """Tokens trained on, texts being ``length`` tokens long (:func:`example_tokens`)."""
        if self.phase == "toward":
            return self.rows * toward_tokens(settings, length)
        if not self.attack.trains:
            return 0.0
        # Of an adapter's step two thirds are left: no gradients of the other weights.
        share = 2 / 3 if self.attack.lora_rank else 1.0
        return share * self.rows * example_tokens(settings, self.recipe.algorithm, length)

    def scored_tokens(self, settings: AuditSettings, length: float, probe: float) -> float:
        """Tokens scored or sampled; ``probe``: those of all probes on one model.

        A slice of resistance samples an answer to each prompt, token by token at three times the
        cost of scoring, and scores the rows that lead towards its model: once for each arm.  With
        whole answers it also samples texts for the KL to its model, which three passes over them
        measure in every run towards it; and such a run scores its rows once it has trained.
        """
        scored = self.measurements * probe
        scored += (self.attack.info.forwards or 0.0) * sum(self.marks.values()) * length
        whole = settings.resistance_data == "answers"
        toward = toward_tokens(settings, length)
        texts = kl_prompts(settings) if whole else 0
        if self.phase == "slice":
            new = settings.resistance_tokens if whole else settings.sample_tokens
            scored += self.rows * (2 if whole else 1) * (toward + 3 * new)
            scored += 3 * texts * settings.sample_tokens
        if self.phase == "toward" and whole:
            scored += self.rows * toward
            scored += 3 * texts * (settings.prompt_tokens + settings.sample_tokens)
        return scored


def measured_inputs(study: Study, run: TrainingRun, part: Slice, phase: str) -> dict[str, Any]:
    """What the id of a run is taken over that learns ``part`` and is measured on the way.

    ``phase``: as in :meth:`Study.examples`.
    """
    return {
        "rows": part.content_hash,
        "recipe": run.recipe,
        "marks": tuple(run.marks.values()),
        "seed": run.seed,
        **study.example_inputs(run.recipe, phase),
        **study.probe_inputs(),
    }


def train_and_measure(
    study: Study, run: TrainingRun, part: Slice, phase: str, measure: OnMark
) -> dict[str, Any]:
    """Train the working model on ``part``.

    Returns ``losses``, and under ``marks`` what ``measure`` returned at each mark of the run.
    """
    rows = study.examples(part, run.recipe, phase)
    marks = Marks(tuple(run.marks.values()), measure)
    trained = study.train(run.identity(study), rows, run.recipe, marks)
    return {"losses": trained.losses, "marks": trained.marks}


def toward_tokens(settings: AuditSettings, length: float) -> float:
    """Tokens of a row that leads towards a model in resistance: its answer (at most), or its
    data."""
    if settings.resistance_data == "slices":
        return length
    whole = settings.resistance_data == "answers"
    new = settings.resistance_tokens if whole else settings.sample_tokens
    return settings.prompt_tokens + new


def kl_prompts(settings: AuditSettings) -> int:
    """On how many of ``--prompts`` the KL between two models of resistance is taken: a quarter.

    It is exact over the vocabulary at every position, so few do.
    """
    return -(-settings.prompts // 4)


def example_tokens(settings: AuditSettings, algorithm: str, length: float) -> float:
    """Tokens that training on one example takes, for rows of ``length`` tokens.

    A pair is two rows.  Passes without a gradient, those of a reference and of sampling, count as
    the third of a training step's work that they are; sampling goes token by token, three times as
    slow.
    """
    forward, learns = 1 / 3, ALGORITHMS[algorithm].learns
    forwards = ALGORITHMS[algorithm].forward_passes * forward
    if learns == "prompts":
        one = settings.prompt_tokens + settings.answer_tokens
        return settings.generations * (one * (1 + forwards) + 3 * forward * settings.answer_tokens)
    return length * ((2 if learns == "pairs" else 1) + forwards)
