"""What a reproduction of paper B would run, in words, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from springback.data import is_built_in, is_local, split_conditions, task_of
from springback.errors import DataError, SpringbackError
from springback.jobs.boost.candidates import candidates
from springback.jobs.boost.checks import ROWS, check_values
from springback.jobs.boost.engine import VLLM, refuse_executor
from springback.jobs.config import converted
from springback.jobs.papers.claims import check_names
from springback.jobs.papers.epicode.settings import EPICODE, EpicodeSettings, changed

_PARTS = ("train", "validation", "test")


def planned(name: str, scale: str, settings: EpicodeSettings) -> list[str]:
    """Lines: runs, models, data, training, search, tests.  Loads no model and no data."""
    models = settings.series or (settings.model or f"the pair {settings.early}, {settings.ft}",)
    tasks = settings.tasks or ((settings.task,) if settings.task else ())
    groups = len(models) * max(len(tasks), 1)
    seeds = len(settings.seeds)
    return [
        f"{name} at {scale} scale: {groups * seeds} runs, {len(models)} models x "
        f"{max(len(tasks), 1)} tasks x {seeds} seeds ({', '.join(map(str, settings.seeds))})",
        f"models: {', '.join(models)}",
        *(_data(settings, task) for task in tasks or (None,)),
        _training(name, settings),
        *_search(settings),
    ]


def settings_of(name: str, scale: str, given: Mapping[str, Any]) -> EpicodeSettings:
    """What a reproduction starts from, ``given`` settings changed.

    Raises :class:`SpringbackError` on an unknown name or scale, or a setting that is none.
    """
    check_names(EPICODE, name, scale)
    settings = changed(EPICODE[name].begin[scale], converted(EpicodeSettings, given))
    if not settings.seeds:
        raise SpringbackError("--seeds is empty; give one or more, such as 0,1,2")
    return settings


def check(settings: EpicodeSettings, theory: bool = False, spread: bool = False) -> None:
    """Raise now what would stop the runs later: settings, and a task without data.

    ``theory``: for ``epicode-theory``, which reads logits.  ``spread``: seeds are made by an
    executor.
    """
    refuse_executor(settings, spread)
    if theory and settings.engine == VLLM:
        raise SpringbackError(
            "epicode-theory with --engine vllm, which gives no logits; allowed: transformers; "
            "leave it out"
        )
    model = settings.series[0] if settings.series else settings.model
    if settings.smaller and settings.weak:
        raise SpringbackError(
            f"--smaller {settings.smaller} with --weak {settings.weak}; allowed: one of them: "
            "--smaller is fine-tuned here, --weak is taken as it is"
        )
    if settings.smaller and settings.early and settings.ft:
        raise SpringbackError(
            f"--smaller {settings.smaller} with a given pair; allowed: with --model, whose rows it "
            "is fine-tuned on; name a fine-tuned model with --weak"
        )
    if settings.smaller and settings.lora_rank:
        raise SpringbackError(
            f"--smaller {settings.smaller} with --lora-rank {settings.lora_rank}; allowed: one of "
            "them: a smaller model is fine-tuned in full; leave one out"
        )
    if settings.smaller and settings.engine == VLLM:
        raise SpringbackError(
            f"--smaller {settings.smaller} with --engine vllm; allowed: weak models of the "
            "fine-tuned one's config; leave one of them out"
        )
    for task in settings.tasks or (settings.task,):
        try:
            check_values(settings.one(settings.seeds[0], model, task))
        except DataError as error:
            rest = [t for t in settings.tasks if t != task]
            if not rest:
                raise
            raise DataError(
                f"{error}; or leave it out: --tasks {','.join(rest)}, and run it alone with "
                f"--task {task}"
            ) from error


def _data(settings: EpicodeSettings, task: str | None) -> str:
    """Where each part comes from and how many rows, by the rules of :func:`load_data`."""
    known = task_of(task) if task else None
    parts = _PARTS[1:] if settings.early and settings.ft else _PARTS
    places: dict[str, tuple[str, str] | None] = {}
    for part in parts:
        source = getattr(settings, part) or (known.source if known else None)
        of_task = known is not None and source == known.source
        split = known.splits.get(part, part) if known and of_task else part
        if source and is_local(split_conditions(source)[0]):
            split = ""  # it names its split itself
        places[part] = (source, split) if source else None
    descriptions = []
    for part, place in places.items():
        if place is None:
            descriptions.append(f"{part} NOT KNOWN (give a file with --{part})")
            continue
        source, split = place
        shared = sum(other == place for other in places.values()) > 1
        rows = getattr(settings, f"{part}_rows")
        if rows is None and (is_built_in(source) or (shared and part != "train")):
            rows = ROWS[part]
        many = rows or ("the rest" if shared else "all")
        descriptions.append(f"{part} {many} of {source}{f' ({split})' if split else ''}")
    metric = settings.metric or (known.metric if known else "number")
    return f"data{f' of {task}' if task else ''}: {'; '.join(descriptions)}; graded by {metric}"


def _training(name: str, settings: EpicodeSettings) -> str:
    if settings.early and settings.ft:
        return "training: none, the pair is given"
    text = (
        f"training of each run: {settings.epochs} epochs, learning rate "
        f"{settings.learning_rate:g}, "
        f"batches of {settings.train_batch_size}, precision {settings.precision}; early is the "
        "checkpoint one epoch before the last"
    )
    if name != "epicode-theory":
        return text
    rows = settings.reference_rows or (settings.train_rows and 10 * settings.train_rows)
    return f"{text}; and a reference by the same recipe on {rows or 'ten times'} rows"


def _search(settings: EpicodeSettings) -> list[str]:
    def listed(values: Sequence[float]) -> str:
        return ", ".join(f"{v:g}" for v in values)

    mu, lam, alone = (
        candidates(values, what, settings.positive)
        for values, what in (
            (settings.mu, "mu"),
            (settings.lam, "lambda"),
            (settings.lam_cd, "cd-lambda"),
        )
    )
    named = [*settings.ablate_weak, *([settings.weak] if settings.weak else [])]
    if settings.smaller:
        named.append(f"{settings.smaller}, fine-tuned")
    further = len(named) + bool(settings.gate)
    tries = len(mu) + len(lam) * (1 + further) + len(alone)
    weak = f"; further weak models: {', '.join(named)}" if named else ""
    return [
        f"search on validation: mu {listed(mu)}, then lambda {listed(lam)}; CD only lambda "
        f"{listed(alone)}{weak}: {tries} candidates a run; no source gives the paper's grids, "
        "these are ours",
        f"test: opened once a run, {4 + further} methods; answers of at most "
        f"{settings.max_new_tokens} tokens",
    ]
