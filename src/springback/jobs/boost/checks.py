"""What a boost checks before it starts, and its data: rows to train, to choose and to judge on.

What needs no torch comes first, and :func:`refuse` is that alone, for the command line.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from springback.core import PRECISIONS, Row, Slice
from springback.data import (
    content_key,
    fields_of,
    is_built_in,
    is_local,
    load_slice,
    nll_withheld,
    require_source,
    source_of,
    split_conditions,
    split_rows,
    task_of,
)
from springback.decoding.gate import parse_gate
from springback.errors import DataError, SpringbackError, describe
from springback.integrations.lm_eval_tasks import HarnessTask, is_lm_eval
from springback.jobs.boost.candidates import RULES, SEARCHES, candidates
from springback.jobs.boost.engine import check_engine, require_engine
from springback.jobs.boost.plan import ROWS as ROWS
from springback.jobs.boost.questions import metric_of, question_format
from springback.jobs.boost.settings import BoostSettings
from springback.models.names import require_adapters_above, require_compute, require_model
from springback.models.run_folder import checkpoints_of
from springback.results.checks import check_positive, require_disjoint
from springback.results.places import require_apart
from springback.training.recipes import check_recipe

#: Questions where neither a source nor a task is named.
BUILT_IN = "problems"
#: Weak models beside the fine-tuned one, in the order of the table.
WEAK = ("early", "init", "other")


def weak_label(folder: str | None) -> str:
    """What the weak model of ``--weak`` is called in the table: its folder's name, marked where
    another method has that name."""
    name = Path(folder or "").name
    return f"{name} (--weak)" if name in ("", "ft", *WEAK) else name


#: The settings that name what is read.
READ = ("early", "ft", "model", "weak", "reference", "train", "validation", "test")


def refuse(settings: BoostSettings, out: str | Path) -> None:
    """Raise :class:`SpringbackError` for what is seen to be wrong without torch.

    Wrong values and names, models and data that are not there (hub ids are believed), a folder for
    results that is none.  The job itself raises the same for all of this, and for more.
    """
    s = check_values(settings)
    require_engine(s)
    require_apart(out, s, READ)
    by_task = is_lm_eval(s.metric)
    for source in (s.train, *(() if by_task else (s.validation, s.test))):
        if source:
            require_source(source)
    pair = s.run or (s.early, s.ft) if s.early and s.ft else (s.model,)
    for model in filter(None, (*pair, s.weak, s.reference)):
        require_model(model, adapters=True)
    if s.early and s.ft:
        require_adapters_above(s, *(name for name in pair if name and Path(name).is_dir()))


def check_settings(settings: BoostSettings) -> BoostSettings:
    """The settings with everything left open filled in; raises on what cannot be.

    That is: the task's sources and metric, ``auto``, and 0 among the candidates.
    """
    from springback.models.loading import default_precision
    from springback.models.placement import placement

    settings = check_values(settings)
    require_engine(settings)
    question_format(settings)  # a task of lm-eval's is loaded only now
    placement(settings)
    auto = settings.precision == "auto"
    return replace(settings, precision=default_precision()) if auto else settings


def check_values(settings: BoostSettings) -> BoostSettings:
    """:func:`check_settings` as far as it needs no torch: ``precision`` may stay ``auto``."""
    metric = metric_of(settings)
    require_compute(settings)
    settings = check_engine(settings)
    settings = _of_run(with_sources(settings))
    pair, raw = bool(settings.early and settings.ft), bool(settings.model and settings.train)
    if pair == raw:
        raise SpringbackError(
            "boost needs either --early and --ft (two checkpoints of one run), or --run (all of "
            "them), or --model and --train (it then fine-tunes and keeps both), not a mix"
        )
    if raw and settings.quantize:
        raise SpringbackError(
            describe(
                f"--quantize {settings.quantize} with --train, which trains on a base in full",
                "--early and --ft, two adapters of one run",
                "leave it out, or give adapters",
            )
        )
    if raw and settings.epochs < 2:
        raise SpringbackError(
            f"--epochs is {settings.epochs}; boost needs at least 2, since it extrapolates from "
            "the last checkpoint but one to the last; raise it or leave it out"
        )
    if not 0 < settings.alpha <= 1:
        raise SpringbackError(f"--alpha is {settings.alpha}; allowed is above 0 and at most 1")
    if settings.search not in SEARCHES:
        raise SpringbackError(
            "--search: " + describe(settings.search, ", ".join(SEARCHES), "choose")
        )
    if settings.choose_by not in RULES:
        raise SpringbackError(
            "--choose-by: " + describe(settings.choose_by, ", ".join(RULES), "choose")
        )
    if settings.narrow < 0:
        raise SpringbackError(
            f"--narrow is {settings.narrow}; give a number of candidates, 0 is off"
        )
    numbers = ("max_new_tokens", "max_tokens", "batch_size", "tolerance", "train_batch_size")
    rows = tuple(f"{part}_rows" for part in ROWS)
    given = {name: getattr(settings, name) for name in (*numbers, "samples", *rows)}
    check_positive({k.replace("_", "-"): v for k, v in given.items() if v not in (None, "auto")})
    if list(settings.difficulty) != sorted({*settings.difficulty}):
        raise SpringbackError(
            "--difficulty: "
            + describe(
                ",".join(f"{edge:g}" for edge in settings.difficulty),
                "rising numbers, each once",
                "sort them, or leave it out for terciles",
            )
        )
    above = settings.positive
    settings = replace(
        settings,
        metric=metric,
        mu=candidates(settings.mu, "mu", above),
        lam=candidates(settings.lam, "lambda", above),
        lam_cd=candidates(settings.lam_cd, "cd-lambda", above),
        rewind=_rewinds(settings.rewind),
        ablate_weak=_ablated(settings, raw),
        gate=str(parse_gate(settings.gate)) if settings.gate else None,
        temperature=_temperature(settings),
    )
    auto = settings.precision == "auto"  # which is one of the others, by the device
    check_recipe((replace(settings, precision=PRECISIONS[0]) if auto else settings).recipe())
    return settings


def _rewinds(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Shares of the last update to go back by, from small to large, each once."""
    if bad := [share for share in shares if not 0 < share <= 1]:
        raise SpringbackError(
            f"--rewind has {', '.join(f'{share:g}' for share in bad)}; allowed: shares of the last "
            "update, above 0 and at most 1 (the early checkpoint); change it"
        )
    return tuple(sorted({*shares}))


def _temperature(settings: BoostSettings) -> float | None:
    """That of sampling; None is greedy, where one answer is asked for at no temperature or 0."""
    given, several = settings.temperature, settings.samples > 1
    if given is None:
        return 1.0 if several else None
    if given < 0 or (several and not given):
        raise SpringbackError(
            f"--temperature is {given:g} with --samples {settings.samples}; allowed: above 0 "
            "(0 is greedy, for one answer); raise it or leave it out"
        )
    return given or None


def _of_run(settings: BoostSettings) -> BoostSettings:
    """With every checkpoint of ``run`` by name, and its last two as early and ft."""
    if not settings.run:
        return settings
    line = tuple(str(folder) for folder in checkpoints_of(settings.run))
    given = [flag for flag in ("early", "ft") if getattr(settings, flag)]
    if given and (settings.early, settings.ft) != line[-2:]:
        raise SpringbackError(
            f"--run with --{' and --'.join(given)}; allowed: one or the other; the run's last two "
            "checkpoints are taken for the two"
        )
    return replace(settings, run=line, early=line[-2], ft=line[-1])


def _ablated(settings: BoostSettings, raw: bool) -> tuple[str, ...]:
    """The further weak models, each once, in the order of :data:`WEAK`."""
    wanted = {*settings.ablate_weak, *(("other",) if settings.weak else ())} - {"ft"}
    if unknown := sorted(wanted - set(WEAK)):
        raise SpringbackError(
            "--ablate-weak: "
            + describe(", ".join(unknown), f"ft (EpiCoDe has it), {', '.join(WEAK)}", "choose")
        )
    if "other" in wanted and not settings.weak:
        raise SpringbackError("--ablate-weak other needs the model; name it with --weak")
    if "init" in wanted and not (raw or settings.model):
        raise SpringbackError(
            "--ablate-weak init needs the model before fine-tuning; name it with --model"
        )
    return tuple(name for name in WEAK if name in wanted)


def with_sources(settings: BoostSettings) -> BoostSettings:
    """The settings with a source for each part: the task's, or (from Python) the built-in one; of
    a task of lm-eval's none."""
    if is_lm_eval(settings.metric):
        return settings
    task = task_of(settings.task) if settings.task else None
    if task is None:
        return replace(
            settings,
            validation=settings.validation or BUILT_IN,
            test=settings.test or BUILT_IN,
        )
    trains = bool(settings.model) and not (settings.early and settings.ft)
    return replace(
        settings,
        test=source_of(task, "test", settings.test),
        validation=source_of(task, "validation", settings.validation),
        train=source_of(task, "train", settings.train) if trains else settings.train,
    )


@dataclass(frozen=True)
class Data:
    """Disjoint questions to choose and to judge on, and rows to train on (None: a given pair)."""

    validation: Slice
    test: Slice
    train: Slice | None


def load_data(settings: BoostSettings, note: Callable[[str], None] = lambda text: None) -> Data:
    """The parts by the settings.

    Parts that name the same file are split off it by the seed, test first, so that the held-out
    rows stay the same when more is trained on.  Rows to train on that have an answer but no worked
    solution are trained on the answer.  Raises :class:`DataError` if two parts share a
    question, a question has no answer that its metric can read, or ``--narrow`` would go by a
    withheld NLL.
    """
    settings = with_sources(settings)
    parts: dict[str, Slice] = {}
    # In this order a file that is split fills its parts.
    sources = {"test": settings.test or "", "validation": settings.validation or ""}
    questions = question_format(settings)
    if questions.harness is not None:
        parts, sources = _of_harness(settings, questions.harness, note), {}
        if not questions.harness.by_likelihood:  # before anything is decoded
            questions.grade(parts["validation"].rows[:1], [""])
    if settings.train:
        sources["train"] = settings.train
    limits = {
        "test": settings.test_rows,
        "validation": settings.validation_rows,
        "train": settings.train_rows,
    }
    for source in dict.fromkeys(sources.values()):
        names = [name for name, given in sources.items() if given == source]
        parts |= _load(settings, source, {name: limits[name] for name in names}, note)
    for name in ("validation", "test"):
        if missing := sum(1 for row in parts[name].rows if not row.answer):
            raise DataError(
                f"{missing} of {len(parts[name])} rows of {parts[name].source} have no answer to "
                "grade; give question/answer rows, or map fields with --field answer=COLUMN"
            )
        if name in sources:
            question_format(settings).check_references(parts[name])
    require_disjoint(list(parts.values()))
    train = _answered(parts["train"]) if "train" in parts else None
    if train and any(row.rejected for row in train.rows):
        note(f"{sources['train']}: its chosen answers are learned, its rejected ones are not used")
    why = nll_withheld(parts["validation"], "validation", train) if settings.narrow else None
    if why:
        raise DataError(
            f"--narrow goes by the NLL of the validation solutions, which is withheld: {why}; or "
            "leave --narrow out"
        )
    return Data(parts["validation"], parts["test"], train)


def _of_harness(
    settings: BoostSettings, harness: HarnessTask, note: Callable[[str], None]
) -> dict[str, Slice]:
    """Validation and test questions of a task of lm-eval's: its own splits, or its only one split
    by the seed.  A question that stands twice is used once, for the test where it is in both."""
    wanted = {"test": settings.test_rows, "validation": settings.validation_rows}
    seen: set[str] = set()
    rows: dict[str, list[Row]] = {}
    twice = 0
    for name in wanted:
        for one in harness.parts().get(name, ()):
            keys = {content_key(replace(one.row, prompt=one.question)), content_key(one.row)}
            if seen & keys:
                twice += 1
                continue
            seen |= keys
            rows.setdefault(name, []).append(one.row)
    if twice:
        note(f"{harness.spec}: {twice} questions that stand there twice are used once")
    if (allowed := harness.max_new_tokens or 0) > settings.max_new_tokens:
        note(
            f"{harness.spec}: the task allows {allowed} new tokens, --max-new-tokens "
            f"{settings.max_new_tokens} are decoded"
        )
    if not rows:
        raise DataError(
            f"{harness.spec} has no validation and no test questions; allowed: a task with either; "
            "name another"
        )
    if len(rows) == 1:
        whole = Slice.of(harness.spec, harness.spec, next(iter(rows.values())), settings.seed)
        return _split_file(whole, wanted, settings.seed)
    parts = {}
    for name, limit in wanted.items():
        have = rows[name]
        if (limit or 0) > len(have):
            raise DataError(
                f"asked for {limit} {name} rows of {harness.spec}; there are {len(have)}; ask for "
                "fewer"
            )
        random.Random(settings.seed).shuffle(have)
        parts[name] = Slice.of(f"{harness.spec}/{name}", harness.spec, have[:limit], settings.seed)
    return parts


def _answered(train: Slice) -> Slice:
    """The slice with answers as responses where a question has no worked solution."""
    if all(row.response or not row.answer for row in train.rows):
        return train
    rows = [row if row.response else replace(row, response=row.answer or "") for row in train.rows]
    return Slice.of(train.name, train.source, rows, train.seed)


def _reading(
    settings: BoostSettings, source: str, name: str
) -> tuple[Mapping[str, str] | None, str]:
    """The column names and the split by which the part ``name`` is read from ``source``."""
    task = task_of(settings.task) if settings.task else None
    fields, split = settings.fields, name
    if task is not None:
        fields = fields_of(task, source, settings.fields)
        if source == task.source:
            split = task.splits.get(name, name)
    if is_local(split_conditions(source)[0]):
        split = "train"  # what is on disk names its split itself
    return fields or None, split


def _load(
    settings: BoostSettings,
    source: str,
    limits: Mapping[str, int | None],
    note: Callable[[str], None],
) -> dict[str, Slice]:
    """The parts that come from one source."""
    seed = settings.seed
    if is_built_in(source):
        return {
            name: load_slice(source, limit=limit or ROWS[name], seed=seed, split=name)
            for name, limit in limits.items()
        }
    readings = {name: _reading(settings, source, name) for name in limits}
    fields = next(iter(readings.values()))[0]
    splits = {name: split for name, (_, split) in readings.items()}
    parts: dict[str, Slice] = {}
    for split in dict.fromkeys(splits.values()):
        here = {name: limit for name, limit in limits.items() if splits[name] == split}
        if len(here) == 1:
            name, limit = next(iter(here.items()))
            parts[name] = load_slice(
                source, fields=fields, limit=limit, seed=seed, split=split, note=note
            )
        else:
            parts |= _split_file(
                load_slice(source, fields=fields, seed=seed, split=split, note=note), here, seed
            )
    return parts


def _split_file(whole: Slice, limits: Mapping[str, int | None], seed: int) -> dict[str, Slice]:
    """Test and validation rows by the seed; training takes its number of the rest, or all of it."""
    held = {name: limit or ROWS[name] for name, limit in limits.items() if name != "train"}
    parts = split_rows(whole, held, seed)
    if "train" in limits:
        used = {content_key(row) for part in parts.values() for row in part.rows}
        rest = [row for row in whole.rows if content_key(row) not in used]
        limit = limits["train"]
        if not rest or (limit or 0) > len(rest):
            wanted = f"{limit} rows" if limit else "rows"
            raise DataError(
                f"asked for {wanted} of {whole.source} to train on; {len(rest)} are left beside "
                + " and ".join(f"{n} for {name}" for name, n in held.items())
                + "; ask for fewer or give more data"
            )
        parts["train"] = Slice.of(f"{whole.name}/train", whole.source, rest[:limit], seed)
    return parts
