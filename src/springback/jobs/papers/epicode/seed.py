"""One seed of a reproduction of paper B: trained, searched and tested in a temporary folder.

What is kept is a run of its own, with the answers question by question, named by the hash of what
went in.  So seeds can be made on several machines, and their ``runs/`` be put together.
"""

from __future__ import annotations

import gc
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback.core import Run, Slice, to_jsonable
from springback.data import nll_withheld
from springback.errors import DataError, SpringbackError
from springback.jobs.boost.analysis.difficulty import seed_result, size_of
from springback.jobs.boost.analysis.equal_step import EQUAL_STEP
from springback.jobs.boost.analysis.logit_errors import Contrasted, Reference, text_errors
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checkpoints import Pair, make_pair
from springback.jobs.boost.checks import Data, check_settings, load_data
from springback.jobs.boost.engine import VLLM
from springback.jobs.boost.epochs import train_epochs
from springback.jobs.boost.job import Boost
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.test_set_log import open_test
from springback.jobs.clean import remaking
from springback.models.encoding import listed_stops
from springback.models.loading import (
    check_same_tokenizer,
    load_tokenizer,
    read_configs,
    resolve,
)
from springback.models.placement import dtype_name, placement
from springback.progress import Progress
from springback.results.store import Store
from springback.settings import names_changing

#: Where a seed works below the result folder, until it is done.
WORK = "work"
#: The reference learns from at least so many times the rows of the pair.
TIMES = 10
#: Lambdas at which NLL is measured (one pass), beside those that are decoded.
NLL_LAMBDAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
#: Settings that are hashed whatever they are, and those that are where they are not at their
#: default.  Of the others what they name is hashed (the dtype as it comes out on this machine), or
#: they change no answer.
_SAMPLING = ("samples", "temperature")
_PLACE = ("dtype", "engine", "quantize")
_ALWAYS = tuple(n for n in names_changing(BoostSettings, "decoding") if n not in _PLACE + _SAMPLING)
_IF_CHANGED = (*names_changing(BoostSettings, "method", "prompt"), *_SAMPLING)
#: Beside EpiCoDe and CD only one plain model that goes as far is tested, but for the theory.
CONTROLS = {"EpiCoDe": EQUAL_STEP, "CD only": "ME, step of CD"}


@dataclass(frozen=True)
class Job:
    """Settings filled in, data loaded, and the run that this seed is.

    ``smaller``: a model that is fine-tuned on the same rows, as a further weak one.
    """

    settings: BoostSettings
    data: Data
    run: Run
    reference_rows: int | None
    smaller: str | None = None


def plan(
    kind: str,
    settings: BoostSettings,
    reference_rows: int | None = None,
    smaller: str | None = None,
) -> Job:
    """The run of one seed; ``reference_rows`` is part of it for ``epicode-theory``.

    ``smaller``: as :class:`EpicodeSettings` has it; the theory needs none.  Raises
    :class:`SpringbackError` on settings, data or a smaller model that cannot be used.
    """
    settings = check_settings(settings)
    data = load_data(settings)
    if kind == "epicode-theory" and (why := nll_withheld(data.test, "test", data.train)):
        raise DataError(f"epicode-theory is about NLL, which is withheld: {why}")
    inputs: dict[str, Any] = {
        "settings": _hashed(settings),
        "asked": question_format(settings).key(),  # a user's function by its hash
        "validation": data.validation.content_hash,
        "test": data.test.content_hash,
        "seed": settings.seed,
    }
    if settings.early and settings.ft:
        inputs["pair"] = [resolve(settings.early).content_hash, resolve(settings.ft).content_hash]
        if data.train is not None:  # it decides whether NLL is withheld
            inputs["train"] = data.train.content_hash
    else:
        assert data.train is not None
        inputs["start"] = resolve(settings.model or "").content_hash
        inputs["train"] = data.train.content_hash
        inputs["recipe"] = settings.recipe()
        shown = question_format(settings).render(data.train)
        if shown.content_hash != data.train.content_hash:
            inputs["shown"] = shown.content_hash
    decoded = resolve(settings.ft or settings.model or "")
    tokenizer, configs = load_tokenizer(decoded, settings), read_configs(decoded.path)
    place = placement(settings).of_files(decoded.path)
    inputs |= place.inputs()
    if settings.engine == VLLM:  # auto is Transformers here, on every machine
        inputs["engine"] = VLLM
    # Wherever the seed is made: auto may stand for another dtype there.
    settings = replace(settings, dtype=dtype_name(place.dtype)) if place.dtype else settings
    inputs |= listed_stops(tokenizer, data.test.rows[0], configs)
    if kind != "epicode-theory":
        inputs["controls"] = CONTROLS
    if settings.weak:
        inputs["weak"] = resolve(settings.weak).content_hash
    if kind == "epicode-theory":
        inputs["reference"] = (
            resolve(settings.reference).content_hash if settings.reference else reference_rows
        )
        return Job(settings, data, Run.of(kind, **inputs), reference_rows)
    if smaller:
        weak = resolve(smaller)
        names = smaller, settings.model or ""
        check_same_tokenizer(load_tokenizer(weak, settings), tokenizer, names)
        inputs["smaller"] = weak.content_hash
    return Job(settings, data, Run.of(kind, **inputs), reference_rows, smaller)


def _hashed(settings: BoostSettings) -> dict[str, Any]:
    plain = BoostSettings(choose_by="best")
    changed = [n for n in _IF_CHANGED if getattr(settings, n) != getattr(plain, n)]
    return {name: to_jsonable(getattr(settings, name)) for name in (*_ALWAYS, *changed)}


def finished(job: Job, store: Store, progress: Progress) -> dict[str, Any]:
    """The run's results: read, or made in a folder of their own and then kept."""
    kept = store.results(job.run)
    if kept is not None:
        return kept
    make = theory if job.run.kind == "epicode-theory" else methods
    place = store.below(WORK, job.run.name)

    def once() -> dict[str, Any]:
        # Where a worker was lost, what is left of it may hold the folder a little longer.
        with Store(place).locked(patience=60) as scratch:
            return make(job, scratch, progress)

    made = store.commit(job.run, remaking(place, progress, once))
    gc.collect()  # models have circles: the next seed's would stand beside them in memory
    shutil.rmtree(place, ignore_errors=True)
    return made


def methods(job: Job, store: Store, progress: Progress) -> dict[str, Any]:
    """Train, choose, test: every method's answers (as :class:`SeedResult`)."""
    pair, boost = _begin(job, store, progress)
    boost.controls = CONTROLS
    with closing(boost.engine):
        arms, searched = boost.choose(job.data.validation)
        open_test(job.settings, pair, job.data.test, store)
        tested = boost.score_each(arms, job.data.test, "test", letters=True)
    kept: dict[str, Any] = to_jsonable(seed_result(job.settings.seed, arms, tested, job.data.test))
    return {
        **kept,
        **_data(job.data),
        "search": {
            name: {
                "chosen": s.chosen.value,
                "tried": [
                    {
                        "value": t.value,
                        "accuracy": t.accuracy,
                        "nll": sum(t.nll) / len(t.nll) if t.nll else None,
                        "correct": list(t.correct),
                    }
                    for t in s.points
                ],
            }
            for name, s in searched.items()
        },
    }


def _begin(job: Job, store: Store, progress: Progress) -> tuple[Pair, Boost]:
    s, train = job.settings, job.data.train
    # Trained as it is tested: with the question in its template.
    shown = question_format(s).render(train) if train is not None else None
    pair = make_pair(s, shown, store, progress)
    labels = {}
    if job.smaller and shown is not None:
        start = resolve(job.smaller)
        done = train_epochs(
            start, shown, s.recipe(), store, progress, s.system, s, s.checkpoint_activations
        )
        pair.weak["other"] = done.points[-1].checkpoint
        labels["other"] = f"fine-tuned {Path(job.smaller).name}"
        s = replace(s, ablate_weak=(*s.ablate_weak, "other"))
    boost = Boost(s, pair.line, store, progress, pair.weak, train)
    boost.weak_names = labels
    return pair, boost


def _data(data: Data) -> dict[str, Any]:
    return {
        "data": {
            "train": data.train.describe() if data.train else None,
            "validation": data.validation.describe(),
            "test": data.test.describe(),
        }
    }


def theory(job: Job, store: Store, progress: Progress) -> dict[str, Any]:
    """Logit errors on validation, and what lambda changes on test.

    Without a reference, and rows to train one on, only NLL and accuracy against lambda.
    """
    reference = _reference(job, store, progress)
    pair, boost = _begin(job, store, progress)
    arms, _ = boost.choose(job.data.validation)
    mu, test = arms["EpiCoDe"].mu, job.data.test
    open_test(job.settings, pair, test, store)

    def arm(lam: float) -> Arm:
        return Arm("EpiCoDe", mu, lam, "ft")

    decoded = sorted({0.0, *job.settings.lam})
    scored = [boost.score(arm(lam), test, "test") for lam in decoded]
    lams = sorted({*NLL_LAMBDAS, *decoded})
    nll = boost.nll_all([arm(lam) for lam in lams], test, "test")
    errors = None
    if reference is not None and mu:
        contrast = Contrasted("EpiCoDe", mu, "ft")
        errors = to_jsonable(text_errors(boost, contrast, job.data.validation, reference))
    return {
        "seed": job.settings.seed,
        "mu": mu,
        "chosen": arms["EpiCoDe"].lam,
        "questions": [str(i) for i in range(len(test))],
        "sizes": [size_of(row) for row in test.rows],
        "accuracy": [
            {"lambda": lam, "correct": list(map(float, t.correct))}
            for lam, t in zip(decoded, scored, strict=True)
        ],
        "nll": [{"lambda": lam, "nll": v} for lam, v in zip(lams, nll, strict=True)],
        "errors": errors,
        "reference": None if reference is None else to_jsonable(reference.checkpoint),
        **_data(job.data),
    }


def _reference(job: Job, store: Store, progress: Progress) -> Reference | None:
    """The model named, or the same recipe on more rows of the same source, its last epoch."""
    s = job.settings
    if s.reference:
        return Reference(resolve(s.reference))
    if job.reference_rows is None:
        return None
    train = _more_rows(s, job.reference_rows)
    held = {row.prompt for part in (job.data.validation, job.data.test) for row in part.rows}
    if any(row.prompt in held for row in train.rows):
        raise DataError("the reference's rows hold questions of the test; use other data")
    start, shown = resolve(s.model or ""), question_format(s).render(train)
    done = train_epochs(
        start, shown, s.recipe(), store, progress, s.system, s, s.checkpoint_activations
    )
    return Reference(done.points[-1].checkpoint)


def _more_rows(settings: BoostSettings, rows: int) -> Slice:
    """``rows`` training rows by the same settings.  Raises where there are not so many."""
    try:
        train = load_data(replace(settings, train_rows=rows)).train
        have = 0 if train is None else len(train)
        if train is None or have < rows:
            raise DataError(f"there are {have}")
    except DataError as error:
        raise SpringbackError(
            f"the reference needs {rows} training rows ({error}); name a better model with "
            "--reference, give fewer --train-rows, or more data"
        ) from error
    return train


def reference_rows(settings: BoostSettings, wanted: int | None) -> int | None:
    """Rows of the reference: ``wanted``, else ten times the pair's; None without training rows.

    Raises :class:`SpringbackError` on fewer than ten times.
    """
    if settings.reference or not (settings.model and settings.train):
        return None
    train = load_data(check_settings(settings)).train
    assert train is not None
    least = TIMES * len(train)
    if wanted is not None and wanted < least:
        raise SpringbackError(
            f"--reference-rows is {wanted}; a reference learns from at least {TIMES} times the "
            f"pair's {len(train)} rows: give {least} or more"
        )
    return wanted or least
