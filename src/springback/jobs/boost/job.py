"""``springback boost``: extrapolate, decode contrastively, choose both strengths, prove it.

Paper B: mu is searched on validation data without contrast, then lambda with mu frozen, then the
test data is scored once: fine-tuned, ME only, CD only, EpiCoDe, and what was asked for besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from springback.core import Measurement, Slice
from springback.errors import SpringbackError
from springback.integrations.ray import ExecutorSettings, on_ray
from springback.jobs.boost.analysis.difficulty import further
from springback.jobs.boost.analysis.equal_step import EQUAL_STEP, equal_step, slopes_of
from springback.jobs.boost.analysis.kept import why_kept
from springback.jobs.boost.analysis.logit_errors import Reference
from springback.jobs.boost.analysis.methods import analyse, judge
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.baselines import baseline_arms
from springback.jobs.boost.checkpoints import Pair, free_merged, make_pair
from springback.jobs.boost.checks import READ, Data, check_settings, load_data, weak_label
from springback.jobs.boost.engine import chosen_engine, refuse_executor
from springback.jobs.boost.export import Strengths, plain_load_note, write_boosted
from springback.jobs.boost.on_ray import Workers
from springback.jobs.boost.plan_at_hand import peak_parts
from springback.jobs.boost.precheck import precheck
from springback.jobs.boost.questions import QuestionFormat, question_format
from springback.jobs.boost.run_search import BEST, OfRun, methods_of, run_arms, search_run
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.search import Choice, Searched, Tried, choice_of, grid, lowest
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.test_set_log import open_test, require_openable
from springback.jobs.clean import remaking
from springback.models.loading import resolve
from springback.models.out_of_memory import memory_explained
from springback.models.placement import placement
from springback.progress import Progress, default_progress
from springback.results.boost_schema import (
    JointCandidate,
    NarrowedCandidate,
    Opening,
    PrecheckPart,
)
from springback.results.places import require_apart, require_same_study
from springback.results.schema import Part, Verdict
from springback.results.store import Store
from springback.results.texts import QUESTIONS, Asked, write_texts
from springback.results.writing import Clock, Result, write_result
from springback.stats import bootstrap_interval

#: The method that goes back from the fine-tuned model instead of further (``--rewind``).
REWIND = "rewind"


class Boost(Scoring):
    """One boost in one process: how it scores, and how it searches.

    Set by :meth:`choose`: ``narrowed``, by search the candidates' mean NLL and whether they were
    decoded; ``joint``, the points of a joint search by (mu, lambda), and the chosen one.
    """

    #: Methods beside which one plain model that goes as far is tested, and what it is called.
    controls: Mapping[str, str] = MappingProxyType({"EpiCoDe": EQUAL_STEP})
    #: What a further weak model is called, where its folder's name says nothing.
    weak_names: Mapping[str, str] = MappingProxyType({})
    of_run: OfRun | None = None
    narrowed: dict[str, tuple[NarrowedCandidate, ...]]
    joint: tuple[dict[tuple[float, float], Tried], tuple[float, float]] | None

    def choose(self, validation: Slice) -> tuple[dict[str, Arm], dict[str, Searched]]:
        """The arms of the test, chosen on validation data, and every search with all it tried."""
        s = self.settings
        if s.choose_by == "nll" and (why := self.withheld(validation, "validation")):
            raise SpringbackError(
                f"--choose-by nll, but NLL is withheld: {why}; allowed: auto, accuracy, best; "
                "choose by one of these"
            )
        self.narrowed, self.joint = {}, None
        tries = [Arm("ME only", mu, 0, None) for mu in s.mu]
        alone = [Arm("CD only", 0, v, "early") for v in s.lam_cd]
        back = [Arm(REWIND, -share, 0, None) for share in s.rewind]
        joint, points = s.search == "joint", run_arms(self) if s.run else []
        pairs = self._pairs() if joint else []
        self._ahead([*tries, *points, *alone, *back, *pairs], validation)
        searches = {"mu": self._search("mu", tries, validation)}
        mu = only_mu = searches["mu"].chosen.value
        if joint:
            mu, searches["lambda"] = self._search_jointly(searches["mu"], validation)
        tries = [] if joint else [Arm("EpiCoDe", mu, v, "ft") for v in s.lam]
        further = {
            name: [replace(arm, lam=v) for v in s.lam] for name, arm in self._further(mu).items()
        }
        self._ahead([*tries, *chain.from_iterable(further.values())], validation)
        if not joint:
            searches["lambda"] = self._search("lambda", tries, validation)
        searches["cd_lambda"] = self._search("cd_lambda", alone, validation)
        if back:
            searches["rewind"] = self._search("rewind", back, validation)
        arms = {
            "fine-tuned": Arm("fine-tuned", 0, 0, None),
            "ME only": Arm("ME only", only_mu, 0, None),
            "CD only": Arm("CD only", 0, searches["cd_lambda"].chosen.value, "early"),
            "EpiCoDe": Arm("EpiCoDe", mu, searches["lambda"].chosen.value, "ft"),
        }
        if back:
            arms[REWIND] = Arm(REWIND, searches["rewind"].chosen.value, 0, None)
        for name, tries in further.items():
            searches[name] = self._search(name, tries, validation)
            arms[tries[0].method] = replace(tries[0], lam=searches[name].chosen.value)
        for name, label in self.controls.items():
            if arms[name].key()["lam"]:
                arms[label] = Arm(label, arms[name].step, 0, None)
        if s.run:
            pair = arms["EpiCoDe"], searches["lambda"].chosen
            self.of_run = search_run(self, pair, validation)
            searches["run"] = self.of_run.searched
        if s.baselines:
            baselines, searches["checkpoint"] = baseline_arms(self, validation)
            arms |= baselines
        return methods_of(arms, self.of_run), searches

    def _ahead(self, arms: Sequence[Arm], validation: Slice) -> None:
        """Make runs that wait for none of each other, where many at once are quicker: in other
        processes, or as one batch."""
        if self.settings.narrow:
            return
        self.make_elsewhere("score_all", arms, validation, "validation")
        if self.engine.mixes:
            self.score_all(arms, validation, "validation")

    def _pairs(self) -> list[Arm]:
        """Every mu with every lambda."""
        s = self.settings
        return [Arm("EpiCoDe", mu, lam, "ft") for mu in s.mu for lam in s.lam if lam]

    def _further(self, mu: float) -> dict[str, Arm]:
        """The further arms that the settings name, at EpiCoDe's mu, by the search for lambda."""
        s, arms = self.settings, {}
        for weak in s.ablate_weak:
            label = self.weak_names.get(weak, weak_label(s.weak) if weak == "other" else weak)
            arms[f"lambda_{weak}"] = Arm(f"EpiCoDe, weak {label}", mu, 0, weak)
        if s.gate:
            arms["lambda_gated"] = Arm("EpiCoDe, gated", mu, 0, "ft", s.gate)
        return arms

    def _search(self, name: str, arms: Sequence[Arm], validation: Slice) -> Searched:
        """Score the candidates, or those that NLL leaves; choose by accuracy."""
        values = [arm.lam if arm.weak else arm.mu for arm in arms]
        kept = self._narrowed(name, arms, [{"value": v} for v in values], validation)
        tried = tuple(self.score_all([arms[i] for i in kept], validation, "validation"))
        tried = tuple(sorted(tried, key=lambda t: abs(t.value)))  # of ties the smaller step wins
        choice = self._chosen(tried, [t.value for t in tried])
        return Searched(tried, tried[choice.index], choice)

    def _chosen(self, tried: Sequence[Tried], points: Any) -> Choice:
        return choice_of(tried, points, self.settings.choose_by, self.settings.one_se)

    def _narrowed(
        self,
        name: str,
        arms: Sequence[Arm],
        points: Sequence[dict[str, float]],
        validation: Slice,
    ) -> list[int]:
        """Which candidates to decode: all, or those of the lowest NLL and 0."""
        keep = self.settings.narrow
        if not keep or keep >= len(arms):
            return list(range(len(arms)))
        nll = self.nll_all(arms, validation, "validation")
        plain = {i for i, a in enumerate(arms) if not (a.lam if a.weak else a.mu)}
        kept = sorted({*lowest(nll, keep), *plain})
        self.narrowed[name] = tuple(
            NarrowedCandidate(nll=sum(n) / len(n), kept=i in kept, **point)
            for i, (point, n) in enumerate(zip(points, nll, strict=True))
        )
        return kept

    def _search_jointly(self, mus: Searched, validation: Slice) -> tuple[float, Searched]:
        """Every mu with every lambda; the mu of the best pair (ties to the smaller mu, then
        lambda), and the lambdas that were tried there."""
        s = self.settings
        points = {(t.value, 0.0): replace(t, value=0.0) for t in mus.points if 0.0 in s.lam}
        arms = self._pairs()
        labels = [{"mu": arm.mu, "lam": arm.lam} for arm in arms]
        kept = self._narrowed("joint", arms, labels, validation)
        tried = self.score_all([arms[i] for i in kept], validation, "validation")
        points |= {(arms[i].mu, arms[i].lam): t for i, t in zip(kept, tried, strict=True)}
        order = sorted(points)
        # Two ways to go on: by the weights, and by contrast, whose step is mu times lambda.
        places = [(mu, mu * lam) for mu, lam in order]
        best = order[self._chosen([points[p] for p in order], places).index]
        self.joint = (points, best)
        return best[0], Searched(tuple(points[p] for p in order if p[0] == best[0]), points[best])

    def joint_points(self) -> tuple[JointCandidate, ...] | None:
        """The joint search as the result file records it; None where there was none."""
        if self.joint is None:
            return None
        return grid(*self.joint, lambda v: bootstrap_interval(v, resamples=4000))


def boost(
    settings: BoostSettings,
    out: str | Path = "springback-boost",
    progress: Progress | None = None,
    executor: ExecutorSettings | None = None,
) -> Result:
    """Search on validation, score test once, write ``out/result.json`` and ``out/model``.

    ``executor``: where runs are made (:mod:`springback.jobs.boost.on_ray`); None is here.

    ``out/model`` is the boosted folder (:func:`springback.load` and ``generate`` take it); it is
    not written when both chosen strengths are zero, since then the fine-tuned model is kept.
    Raises :class:`springback.errors.SpringbackError` on input that cannot be used, and on a test
    set that was opened with other settings before (:mod:`springback.jobs.boost.test_set_log`).
    """
    noted = progress or default_progress()
    return remaking(out, noted, lambda: _boost(settings, out, noted, executor))


def _boost(
    settings: BoostSettings, out: str | Path, progress: Progress, executor: ExecutorSettings | None
) -> Result:
    """:func:`boost`, where the weights that it needs are there."""
    clock = Clock.start()
    settings = check_settings(settings)
    spread = on_ray(executor)
    refuse_executor(settings, bool(spread))
    require_apart(out, settings, READ, *(["model"] if settings.write_model else []))
    needs = memory_explained("boost", lambda: peak_parts(settings), settings.device)
    with Store(out).locked() as store, closing(progress), needs, ExitStack() as ending:
        if settings.write_model:
            store.below("model")  # a link there is refused before the work
        cuda = placement(settings).device.type == "cuda"
        settings = chosen_engine(settings, store, cuda, bool(spread))
        data = load_data(settings, progress.note)
        validation, test, train = data.validation, data.test, data.train
        parts = {"validation": validation, "test": test}
        require_same_study(store, "boost", settings, {}, {**parts, "train": train})
        questions = question_format(settings)
        reference = Reference(resolve(settings.reference)) if settings.reference else None
        shown = questions.render(train) if train else None
        workers = None
        if spread and executor is not None:
            workers = ending.enter_context(Workers(settings, store, progress, executor))
            workers.train(shown)
        pair = make_pair(settings, shown, store, progress)
        if settings.early and settings.ft:
            given = {"early": pair.early.content_hash, "ft": pair.ft.content_hash}
            require_same_study(store, "boost", settings, given, {})
        require_openable(settings, pair, test, store)
        job = Boost(settings, pair.line, store, progress, pair.weak, train)
        ending.callback(job.engine.close)
        if workers is not None:
            workers.take(job)
        withheld = {name: job.withheld(rows, name) for name, rows in parts.items()}
        for why in filter(None, withheld.values()):
            progress.note(f"NLL is withheld: {why}")
        if reference:
            reference.check(job)
        ahead = precheck(job, pair.line, validation) if settings.precheck else None
        arms, searched = job.choose(validation)
        opening = open_test(settings, pair, test, store)
        tested = job.score_each(arms, test, "test", letters=True)
        greedy = None
        if job.sampled and job.sampled.samples > 1:  # what samples are worth, on the same pair
            pair_of = ("fine-tuned", "EpiCoDe")
            greedy = {n: job.score(arms[n], test, "test", greedy=True) for n in pair_of}
        difficulty, diagnostics = further(job, arms, tested, data, reference)
        control = equal_step(settings, arms, tested)
        analysis = replace(
            analyse(settings, arms, searched, tested, greedy),
            equal_step=control,
            run=job.of_run.record if job.of_run else None,
            nll_slope=slopes_of(searched),
            difficulty=difficulty,
            diagnostics=diagnostics,
            narrowed=job.narrowed or None,
            joint=job.joint_points(),
            precheck=ahead,
            nll_withheld={k: v for k, v in withheld.items() if v} or None,
            test_openings=opening,
        )
        plain = control is not None and control.written == "plain"
        best = arms[BEST if BEST in arms else EQUAL_STEP if plain else "EpiCoDe"]
        kept = best.key() == arms["fine-tuned"].key()
        judged = judge(settings, analysis, best.method, kept, why_kept(searched))
        verdict = _completed(judged, opening, ahead)
        if settings.write_model and not kept:
            strengths = Strengths(best.mu, best.lam, settings.alpha, best.point)
            folder, template = store.below("model"), None if questions.plain else questions.template
            write_boosted(pair.line, strengths, folder, settings.system, template, settings)
            if best.lam > 0:
                progress.note(plain_load_note(folder, pair.ft.adapter is not None))
        if left_out := write_texts(store.root, QUESTIONS, _asked(job, arms, test)):
            progress.note(left_out)
        free_merged(pair, store)
        return write_result(
            store,
            "boost",
            clock,
            inputs=_inputs(settings, pair, data, questions, kept),
            measurements=_measurements(tested, arms),
            analysis=analysis,
            verdict=verdict,
            computing={**job.sweep.place.describe(), **job.engine.describe()},
        )


def _asked(job: Boost, arms: Mapping[str, Arm], test: Slice) -> list[Asked]:
    """The test questions with every method's answer."""
    answers = {name: job.answers(arm, test, "test") for name, arm in arms.items()}
    return [
        Asked(row.prompt, row.response or row.answer or "", {n: a[i] for n, a in answers.items()})
        for i, row in enumerate(test.rows)
    ]


def _inputs(
    settings: BoostSettings, pair: Pair, data: Data, questions: QuestionFormat, kept: bool
) -> dict[str, Any]:
    return {
        "early": pair.early,
        "ft": pair.ft,
        "train": data.train.describe() if data.train else None,
        "validation": data.validation.describe(),
        "test": data.test.describe(),
        "settings": settings,
        "boosted": None if kept or not settings.write_model else "model",
        "task": questions.describe(),
        "init": pair.weak.get("init"),
        "weak": pair.weak.get("other"),
    }


def _completed(verdict: Verdict, opening: Opening, ahead: PrecheckPart | None) -> Verdict:
    """The verdict with how often the test was opened, and beside it what the pre-check said."""
    parts = list(verdict.parts)
    if ahead is not None:
        text = f"The pre-check, before anything was decoded: {'; '.join(ahead.reasons)}."
        parts.append(Part("Was a gain to be expected?", ahead.label, text))
    return Verdict(verdict.label, f"{verdict.text} {opening.words}", tuple(parts))


def _measurements(tested: Mapping[str, Tried], arms: Mapping[str, Arm]) -> list[Measurement]:
    measurements = []
    for name, result in tested.items():
        tags = {"method": name, "mu": arms[name].mu, "lambda": arms[name].lam}
        measurements.append(
            Measurement("accuracy", name, "test", result.accuracy, "share", tags=tags)
        )
        if result.nll:
            nll = sum(result.nll) / len(result.nll)
            measurements.append(Measurement("nll", name, "test", nll, "nats/token", tags=tags))
    return measurements


__all__ = ["Arm", "Boost", "BoostSettings", "Pair", "boost"]
