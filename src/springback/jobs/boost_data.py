"""What a boost checks before it starts, and its data: rows to train, to choose and to judge on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from springback.core import Slice
from springback.errors import DataError, SpringbackError
from springback.grading import METRICS
from springback.jobs.common import check_positive, require_disjoint
from springback.jobs.search import candidates
from springback.jobs.settings import BoostSettings
from springback.models import default_precision
from springback.slices import (
    content_key,
    is_built_in,
    load_slice,
    split_conditions,
    split_rows,
)

#: Rows of built-in data, and held-out rows of a file that is split, unless a flag says so.
ROWS = {"validation": 200, "test": 200, "train": 256}


def check_settings(settings: BoostSettings) -> BoostSettings:
    """The settings with ``auto`` filled in and 0 among the candidates; raises on what cannot be."""
    pair, raw = bool(settings.early and settings.ft), bool(settings.model and settings.train)
    if pair == raw:
        raise SpringbackError(
            "boost needs either --early and --ft (two checkpoints of one run) or "
            "--model and --train (it then fine-tunes and keeps both), not a mix"
        )
    if raw and settings.epochs < 2:
        raise SpringbackError(
            f"--epochs is {settings.epochs}; boost needs at least 2, since it extrapolates from "
            "the last checkpoint but one to the last; raise it or leave it out"
        )
    if settings.metric not in METRICS:
        raise SpringbackError(f"--metric is {settings.metric}; allowed: {', '.join(METRICS)}")
    if not 0 < settings.alpha <= 1:
        raise SpringbackError(f"--alpha is {settings.alpha}; allowed is above 0 and at most 1")
    check_positive(
        {
            "max-new-tokens": settings.max_new_tokens,
            "batch-size": settings.batch_size,
            "tolerance": settings.tolerance,
        }
    )
    auto = settings.precision == "auto"
    return replace(
        settings,
        mu=candidates(settings.mu, "mu"),
        lam=candidates(settings.lam, "lambda"),
        lam_cd=candidates(settings.lam_cd, "cd-lambda"),
        precision=default_precision() if auto else settings.precision,
    )


@dataclass(frozen=True)
class Data:
    """Disjoint questions to choose and to judge on, and rows to train on (None: a given pair)."""

    validation: Slice
    test: Slice
    train: Slice | None


def load_data(settings: BoostSettings) -> Data:
    """The parts by the settings.

    Parts that name the same file are split off it by the seed, test first, so that the held-out
    rows stay the same when more is trained on.  Raises :class:`DataError` if two parts share a
    question, or a question has no answer to grade.
    """
    # In this order a file that is split fills its parts.
    sources = {"test": settings.test, "validation": settings.validation}
    if settings.train:
        sources["train"] = settings.train
    limits = {
        "test": settings.test_rows,
        "validation": settings.validation_rows,
        "train": settings.train_rows,
    }
    parts: dict[str, Slice] = {}
    for source in dict.fromkeys(sources.values()):
        names = [name for name, given in sources.items() if given == source]
        parts |= _load(settings, source, {name: limits[name] for name in names})
    for name in ("validation", "test"):
        if missing := sum(1 for row in parts[name].rows if not row.answer):
            raise DataError(
                f"{missing} of {len(parts[name])} rows of {sources[name]} have no answer to "
                "grade; give question/answer rows, or map fields with --field answer=COLUMN"
            )
    require_disjoint(list(parts.values()))
    return Data(parts["validation"], parts["test"], parts.get("train"))


def _load(
    settings: BoostSettings, source: str, limits: Mapping[str, int | None]
) -> dict[str, Slice]:
    """The parts that come from one source."""
    fields, seed = settings.fields or None, settings.seed
    if is_built_in(source):
        return {
            name: load_slice(source, limit=limit or ROWS[name], seed=seed, split=name)
            for name, limit in limits.items()
        }
    if len(limits) == 1 or not Path(split_conditions(source)[0]).exists():
        # A hub data set has splits of its own.
        return {
            name: load_slice(source, fields=fields, limit=limit, seed=seed, split=name)
            for name, limit in limits.items()
        }
    return _split_file(load_slice(source, fields=fields, seed=seed), limits, seed)


def _split_file(whole: Slice, limits: Mapping[str, int | None], seed: int) -> dict[str, Slice]:
    """Test and validation rows by the seed; training takes its number of the rest, or all of it."""
    held = {name: limit or ROWS[name] for name, limit in limits.items() if name != "train"}
    parts = split_rows(whole, held, seed)
    if "train" in limits:
        used = {content_key(row) for part in parts.values() for row in part.rows}
        rest = [row for row in whole.rows if content_key(row) not in used]
        limit = limits["train"]
        if not rest or (limit or 0) > len(rest):
            asked = f"{limit} rows" if limit else "rows"
            raise DataError(
                f"asked for {asked} of {whole.source} to train on; {len(rest)} are left beside "
                + " and ".join(f"{n} for {name}" for name, n in held.items())
                + "; ask for fewer or give more data"
            )
        parts["train"] = Slice.of(f"{whole.name}/train", whole.source, rest[:limit], seed)
    return parts
