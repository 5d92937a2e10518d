"""``springback reproduce elasticity-scale``: elasticity over the life of small models.

Llama-style models from scratch, every size kept at every volume of its pre-training, for each
seed; each of these checkpoints is audited (align, perturb, measure) with the same study.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from springback.core import Slice, content_hash, to_jsonable
from springback.data import load_slice
from springback.errors import SpringbackError
from springback.integrations.ray import ExecutorSettings, on_ray
from springback.integrations.ray.scheduler import run_tasks
from springback.integrations.ray.work import task_of
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.clean import remaking
from springback.jobs.papers.pretrain import Pretraining, corpus, pretrain_once
from springback.jobs.papers.scale import analysis as scale_analysis
from springback.jobs.papers.scale.checks import size_of, values_of
from springback.jobs.papers.scale.settings import NAME, ScaleSettings
from springback.models.from_scratch import Shape, small_tokenizer
from springback.models.loading import release_memory
from springback.models.placement import audit_placement
from springback.progress import Progress, default_progress
from springback.results.audit_schema import Rebound
from springback.results.places import require_same_kind
from springback.results.schema import read
from springback.results.store import Store, below, read_json, write_text
from springback.results.writing import Clock, Result, write_result
from springback.settings import names_changing

STUDIES = "studies"


@dataclass(frozen=True)
class Cell:
    """One checkpoint of one pre-training, and the settings of its study."""

    run: Pretraining
    volume: int
    seed: int
    study: AuditSettings

    @property
    def name(self) -> str:
        return f"{self.run.shape.name}-{self.volume}-seed-{self.seed}"

    def place(self, root: Path) -> Path:
        """The study's folder; its name changes with every setting that changes a number."""
        plain, free = AuditSettings(), names_changing(AuditSettings, "model", "seed", "nothing")
        same = {name: getattr(plain, name) for name in free}
        study = to_jsonable(replace(self.study, **{**same, "seeds": ()}))
        del study["controls"]  # younger than folders that are there
        key = content_hash([self.run.run.id, study])[:8]
        return below(root, STUDIES, f"{self.name}-{key}")

    def done(self, root: Path) -> bool:
        return (self.place(root) / "result.json").exists()


def shape_of(text: str) -> Shape:
    """The shape that :func:`springback.jobs.papers.scale.checks.size_of` reads."""
    return Shape(*size_of(text))


def settings_of(scale: str, given: Mapping[str, Any]) -> tuple[ScaleSettings, AuditSettings]:
    """What a scale begins from, ``given`` settings changed; raises on what cannot be."""
    settings, study = values_of(scale, given)
    return settings, check_settings(study)


def scale_study(
    scale: str = "small",
    out: str | Path = f"springback-{NAME}",
    given: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Pre-train, align, perturb, measure every cell; write ``out/result.json`` (kind
    ``reproduce``) and ``reproduce.md``.

    Trainings that were done are read; on Ray each pre-training and each cell is a task.  Raises
    :class:`SpringbackError` on settings that cannot be.
    """
    noted, values = progress or default_progress(), given or {}
    return remaking(out, noted, lambda: _scale_study(scale, out, values, noted, executor))


def _scale_study(
    scale: str,
    out: str | Path,
    given: Mapping[str, Any],
    progress: Progress,
    executor: ExecutorSettings | None,
) -> Result:
    """:func:`scale_study`, where the weights that it needs are there."""
    clock = Clock.start()
    settings, study = settings_of(scale, given)
    spread, place = on_ray(executor), audit_placement(study)
    if executor is not None and executor.shared:
        raise SpringbackError(
            f"--shared with {NAME}; its workers have to see --out: name a common folder there"
        )
    with Store(out).locked() as store, closing(progress):
        require_same_kind(store, "reproduce")
        runs = pretrainings(settings, study, store)
        cells = cells_of(runs, study)
        # A study that is done needs no checkpoint: its files may come from another machine.
        left = [cell for cell in cells if not cell.done(store.root)]
        needed = {(cell.run.shape.name, cell.seed): cell.run for cell in left}
        for run in needed.values():
            _make_tokenizer(settings, run)
        progress.note(
            f"{len(runs)} pre-trainings kept at {len(settings.volumes)} volumes: {len(cells)} "
            f"studies, {len(cells) - len(left)} of them done; stop it at any time, the same "
            "command goes on"
        )
        if spread and executor is not None:
            _make_on_ray(needed, left, store, progress, executor)
        for run in needed.values():
            pretrain_once(run, store, progress, place)
        measured = []
        for number, cell in enumerate(cells, start=1):
            if not cell.done(store.root):
                progress.note(f"study {number} of {len(cells)}: {cell.name}")
                measure_cell(cell, str(store.root), progress)
                release_memory()
            measured.append(_read(cell, cell.place(store.root)))
        analysis = scale_analysis.analyse(scale, settings, study, measured)
        assert analysis.life_cycle is not None
        verdict = scale_analysis.verdict(analysis.life_cycle)
        write_text(store.root / "reproduce.md", scale_analysis.page(analysis, verdict))
        return write_result(
            store,
            "reproduce",
            clock,
            inputs={"settings": study, "scale": settings},
            measurements=scale_analysis.measurements(measured),
            analysis=analysis,
            verdict=verdict,
            computing=place.describe(),
        )


def _text(settings: ScaleSettings, seed: int) -> Slice:
    """The corpus of a seed, in its order."""
    rows = max(settings.volumes)
    if settings.corpus is None:
        return corpus(rows, 7919 + seed)
    return load_slice(settings.corpus, limit=rows, seed=7919 + seed)


def _make_tokenizer(settings: ScaleSettings, run: Pretraining) -> None:
    """The tokenizer of a seed, trained on its own text, unless it is there."""
    folder = Path(run.tokenizer or "")
    if not folder.exists():
        texts = [f"{row.prompt}\n{row.response}".strip() for row in run.part.rows]
        small_tokenizer(texts, settings.vocabulary, folder)


def cells_of(runs: Mapping[tuple[str, int], Pretraining], study: AuditSettings) -> list[Cell]:
    """Every checkpoint that is measured."""
    return [
        Cell(run, volume, seed, study) for (_, seed), run in runs.items() for volume in run.volumes
    ]


def pretrainings(
    settings: ScaleSettings, study: AuditSettings, store: Store
) -> dict[tuple[str, int], Pretraining]:
    """Name of the size and seed -> its pre-training.

    Text, tokenizer and order belong to the seed: what one seed finds does not depend on which
    others are asked for, so seeds can be measured apart and put together.
    """
    runs = {}
    for seed in study.seeds:
        part = _text(settings, seed)
        identity = content_hash([part.content_hash, settings.vocabulary])[:20]
        folder = store.below("checkpoints", f"tokenizer-{identity}")
        for size in settings.sizes:
            shape = shape_of(size)
            runs[shape.name, seed] = Pretraining(
                settings.volumes,
                part,
                shape,
                7919 + seed,
                settings.pretraining_rate,
                str(folder),
                identity,
            )
    return runs


def measure_cell(cell: Cell, root: str, progress: Progress) -> None:
    """The study of one checkpoint, in a folder of its own."""
    store = Store(root)
    model = cell.run.folders(store)[cell.volume]
    one = replace(cell.study, model=str(model), seeds=(cell.seed,))
    audit(one, cell.place(store.root), progress)


def pretrain_task(run: Pretraining, root: str, progress: Progress) -> None:
    pretrain_once(run, Store(root), progress)


def _make_on_ray(
    runs: Mapping[tuple[str, int], Pretraining],
    cells: list[Cell],
    store: Store,
    progress: Progress,
    executor: ExecutorSettings,
) -> None:
    """Pre-trainings and cells as tasks; a cell begins when its checkpoint is there."""
    root = str(store.root.absolute())
    task = task_of(executor, 1_500_000_000)
    tasks = [
        task(
            run.run.name,
            f"pre-training {size}, seed {seed}",
            partial(pretrain_task, run, root),
        )
        for (size, seed), run in runs.items()
        if not run.done(store)
    ]
    waiting = {pretraining.key for pretraining in tasks}
    for cell in cells:
        tasks.append(
            task(
                cell.name,
                cell.name,
                partial(measure_cell, cell, root),
                (cell.run.run.name,) if cell.run.run.name in waiting else (),
                cell.run.folders(store)[cell.volume].exists,
            )
        )
    run_tasks(tasks, executor, progress)


def _read(cell: Cell, place: Path) -> dict[str, Any]:
    """What the study of a cell found, of one seed."""
    audit = read(read_json(place / "result.json")).audit
    rebound = audit.rebound if audit is not None and audit.rebound is not None else Rebound()
    neutral, half = rebound.probes.get("neutral_nll"), rebound.half_dose[-1]
    return {
        "size": cell.run.shape.name,
        "parameters": cell.run.shape.parameters,
        "volume": cell.volume,
        "seed": cell.seed,
        "neutral_nll": neutral.start.mean if neutral is not None and neutral.start else None,
        "gain": rebound.gain[-1].mean,
        "fall": rebound.fall[-1].mean,
        "share_lost": rebound.share_lost[-1].mean,
        "half_dose": half.value,
        "censored": half.censored,
        "before_first": half.at_most,
    }
