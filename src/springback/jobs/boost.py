"""``springback boost``: extrapolate, decode contrastively, choose both strengths, prove it.

Paper B: mu is searched on validation data without contrast, then lambda with mu frozen, then the
test data is scored once: fine-tuned, ME only, CD only, EpiCoDe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Checkpoint, Measurement, Run, Slice
from springback.decode import DecodeSettings, decode
from springback.encode import encode_prompt, encode_rows, stop_ids
from springback.errors import DataError, SpringbackError
from springback.grading import METRICS, grade
from springback.jobs.boost_analysis import analyse, judge
from springback.jobs.boosted import Strengths, write_boosted
from springback.jobs.common import (
    Clock,
    Result,
    check_positive,
    require_disjoint,
    write_result,
)
from springback.jobs.search import Tried, candidates, search
from springback.jobs.settings import BoostSettings
from springback.jobs.training import train_epochs
from springback.models import default_precision, resolve
from springback.probes import Precision
from springback.progress import Progress, Silent
from springback.slices import is_built_in, load_slice
from springback.store import Store
from springback.sweep import Sweep


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


def load_questions(settings: BoostSettings, which: str) -> Slice:
    """The validation or test questions; every row must carry an answer to grade."""
    source = settings.validation if which == "validation" else settings.test
    limit = settings.validation_rows if which == "validation" else settings.test_rows
    rows = load_slice(
        source,
        fields=settings.fields or None,
        limit=limit or (200 if is_built_in(source) else None),
        seed=settings.seed,
        split=which,
    )
    if missing := sum(1 for r in rows.rows if not r.answer):
        raise DataError(
            f"{missing} of {len(rows)} rows of {source} have no answer to grade; "
            "give question/answer rows, or map fields with --field answer=COLUMN"
        )
    return rows


@dataclass(frozen=True)
class Arm:
    """One way to decode: the strong model theta_ft + mu * (theta_ft - theta_early), and the weak
    model (``ft``, ``early`` or none) with its lambda."""

    method: str
    mu: float
    lam: float
    weak: str | None

    def key(self) -> dict[str, Any]:
        """What decides the tokens: without contrast, or against itself, the weak model does not."""
        idle = self.lam == 0 or (self.weak == "ft" and self.mu == 0)
        if idle:
            return {"mu": float(self.mu), "lam": 0.0, "weak": None}
        return {"mu": float(self.mu), "lam": float(self.lam), "weak": self.weak}


class Boost:
    """One boost in one process: the pair in memory and the store of finished runs."""

    def __init__(
        self,
        settings: BoostSettings,
        pair: tuple[Checkpoint, Checkpoint],
        store: Store,
        progress: Progress,
    ) -> None:
        self.settings, self.store, self.progress = settings, store, progress
        self.early, self.ft = pair
        self.sweep = Sweep(*pair)
        self.tokenizer = self.sweep.tokenizer

    def score(self, arm: Arm, questions: Slice, part: str) -> Tried:
        """Decode and grade every question under ``arm``, and score the reference solutions."""
        key = arm.key()
        run = Run.of(
            "score",
            early=self.early.content_hash,
            ft=self.ft.content_hash,
            questions=questions.content_hash,
            part=part,
            metric=self.settings.metric,
            alpha=self.settings.alpha,
            decode=[self.settings.max_new_tokens, self.settings.batch_size],
            system=self.settings.system,
            max_tokens=self.settings.max_tokens,
            **key,
        )
        found = self.store.results(run)
        if found is None:
            what = f"{part}: {arm.method}, mu {key['mu']:g}, lambda {key['lam']:g}"
            self.progress.stage(what, len(questions))
            found = self.store.commit(run, self._score(key, questions))
        value = arm.lam if arm.weak else arm.mu
        return Tried(value, tuple(found["correct"]), tuple(found["nll"]))

    def _score(self, key: dict[str, Any], questions: Slice) -> dict[str, Any]:
        s, rows = self.settings, questions.rows
        expert = self.sweep.at(key["mu"])
        weak = {"ft": self.sweep.ft, "early": self.sweep.early}.get(key["weak"] or "")
        prompts = [encode_prompt(self.tokenizer, r, s.system) for r in rows]
        settings = DecodeSettings(
            max_new_tokens=s.max_new_tokens,
            lam=key["lam"],
            alpha=s.alpha,
            batch_size=s.batch_size,
            stop_ids=stop_ids(self.tokenizer, rows[0]),
            pad_id=self.tokenizer.pad_token_id,
        )
        ids = decode(expert, prompts, settings, weak, self.progress.advance)
        texts = [self.tokenizer.decode(i, skip_special_tokens=True) for i in ids]
        correct = [grade(s.metric, t, r.answer or "") for t, r in zip(texts, rows, strict=True)]
        cut = sum(len(i) == s.max_new_tokens for i in ids)
        return {
            "correct": correct,
            "nll": self._solution_nll(expert, weak, key["lam"], questions),
            "completions": texts,
            "cut": cut,
        }

    def _solution_nll(self, expert: Any, weak: Any, lam: float, questions: Slice) -> list[float]:
        """NLL of the reference solutions, nats a token; of the answers where there are none."""
        rows = [replace(r, response=r.response or r.answer or "") for r in questions.rows]
        encoded = encode_rows(self.tokenizer, rows, self.settings.max_tokens, self.settings.system)
        precision = Precision("float32")
        if weak is None:
            scores = probes.nll(expert, encoded, self.tokenizer, precision)
        else:
            scores = probes.pair_nll(expert, weak, encoded, self.tokenizer, [lam], precision)[lam]
        return [s.per_token for s in scores]

    def choose(self, validation: Slice) -> tuple[dict[str, Arm], dict[str, tuple[Tried, ...]]]:
        """The arms of the test, chosen on validation data: mu first, then lambda."""
        s = self.settings
        mu, mus = search(
            s.mu, lambda m: self.score(Arm("ME only", m, 0, None), validation, "validation")
        )
        lam, lams = search(
            s.lam,
            lambda v: self.score(Arm("EpiCoDe", mu.value, v, "ft"), validation, "validation"),
        )
        cd, cds = search(
            s.lam_cd, lambda v: self.score(Arm("CD only", 0, v, "early"), validation, "validation")
        )
        arms = {
            "fine-tuned": Arm("fine-tuned", 0, 0, None),
            "ME only": Arm("ME only", mu.value, 0, None),
            "CD only": Arm("CD only", 0, cd.value, "early"),
            "EpiCoDe": Arm("EpiCoDe", mu.value, lam.value, "ft"),
        }
        return arms, {"mu": mus, "lambda": lams, "cd_lambda": cds}


def boost(
    settings: BoostSettings,
    out: str | Path = "springback-boost",
    progress: Progress | None = None,
) -> Result:
    """Search on validation, score test once, write ``out/result.json`` and ``out/model``.

    ``out/model`` is the boosted folder (:func:`springback.load` and ``generate`` take it); it is
    not written when both chosen strengths are zero, since then the fine-tuned model is kept.
    Raises :class:`springback.errors.SpringbackError` on input that cannot be used.
    """
    clock, progress = Clock.start(), progress or Silent()
    settings = check_settings(settings)
    with Store(out).locked() as store:
        validation = load_questions(settings, "validation")
        test = load_questions(settings, "test")
        require_disjoint([validation, test])
        early, ft, train = _pair(settings, store, progress, [validation, test])
        job = Boost(settings, (early, ft), store, progress)
        arms, tried = job.choose(validation)
        tested = {name: job.score(arm, test, "test") for name, arm in arms.items()}
        analysis = analyse(settings, arms, tried, tested)
        best = arms["EpiCoDe"]
        kept = best.key() == arms["fine-tuned"].key()
        verdict = judge(settings, analysis, kept)
        if settings.write_model and not kept:
            strengths = Strengths(best.mu, best.lam, settings.alpha)
            write_boosted(early, ft, strengths, store.root / "model", settings.system)
        return write_result(
            store,
            "boost",
            clock,
            inputs={
                "early": early,
                "ft": ft,
                "train": train.describe() if train else None,
                "validation": validation.describe(),
                "test": test.describe(),
                "settings": settings,
                "boosted": None if kept or not settings.write_model else "model",
            },
            measurements=_measurements(tested, arms),
            analysis=analysis,
            verdict=verdict,
        )


def _pair(
    settings: BoostSettings, store: Store, progress: Progress, held_out: Sequence[Slice]
) -> tuple[Checkpoint, Checkpoint, Slice | None]:
    """The two checkpoints: as given, or the last two epochs of a fine-tuning of our own."""
    if settings.early and settings.ft:
        early, ft = resolve(settings.early), resolve(settings.ft)
        if early.content_hash == ft.content_hash:
            raise SpringbackError(
                f"--early {settings.early} and --ft {settings.ft} hold the same weights; "
                "give an earlier checkpoint of the run, such as the one after the first epoch"
            )
        return early, ft, None
    source = settings.train or ""
    rows = load_slice(
        source,
        fields=settings.fields or None,
        limit=settings.train_rows or (256 if is_built_in(source) else None),
        seed=settings.seed,
    )
    require_disjoint([rows, *held_out])
    start = resolve(settings.model or "")
    done = train_epochs(start, rows, settings.recipe(), store, progress, settings.system)
    return done.points[-2].checkpoint, done.points[-1].checkpoint, rows


def _measurements(tested: Mapping[str, Tried], arms: Mapping[str, Arm]) -> list[Measurement]:
    found = []
    for name, result in tested.items():
        tags = {"method": name, "mu": arms[name].mu, "lambda": arms[name].lam}
        nll = sum(result.nll) / len(result.nll)
        found.append(Measurement("accuracy", name, "test", result.accuracy, "share", tags=tags))
        found.append(Measurement("nll", name, "test", nll, "nats/token", tags=tags))
    return found


__all__ = ["Arm", "Boost", "BoostSettings", "boost"]
