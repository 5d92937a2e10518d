"""``springback check``: what did fine-tuning break?

Each item (texts, questions, prompts) is a run on each model (:mod:`springback.jobs.check.runs`);
what the scores say is worked out in :mod:`springback.jobs.check.analysis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from springback.core import Measurement
from springback.errors import ModelError, SpringbackError
from springback.jobs.check.analysis import (
    Checkpoint,
    Paired,
    along_run,
    compared,
    gains,
    labelled,
    verdict_words,
)
from springback.jobs.check.checks import check_settings
from springback.jobs.check.content import Item, load_items
from springback.jobs.check.plan import CheckPlan, make_plan, parts_of
from springback.jobs.check.runs import Work, why_no_kl, why_no_weights
from springback.jobs.check.settings import CheckSettings
from springback.jobs.check.subject import Scores, Subject
from springback.models.loading import release_memory
from springback.models.out_of_memory import memory_explained
from springback.models.placement import placement
from springback.models.run_folder import checkpoints_of
from springback.progress import Progress, Silent, default_progress
from springback.results.check_schema import AlongRun, Check, CheckedModel, Drift
from springback.results.places import require_same_kind, require_same_study
from springback.results.schema import Part, Verdict
from springback.results.store import Store
from springback.results.texts import QUESTIONS, Answer, Asked, drop_texts, write_texts
from springback.results.writing import Clock, Result, write_result
from springback.stats import bootstrap_interval


def check(
    settings: CheckSettings,
    out: str | Path = "springback-check",
    progress: Progress | None = None,
) -> Result:
    """Measure both models on the same texts, questions and prompts; write ``out/result.json``.

    Finished runs in ``out/runs`` are read instead of repeated, so the same call after a crash goes
    on, and one with further content measures that alone.  Raises
    :class:`springback.errors.SpringbackError` on input that cannot be used.

    >>> check(CheckSettings(base="smollm2-135m", tuned="tuned")).verdict  # doctest: +SKIP
    """
    clock, progress = Clock.start(), progress or default_progress()
    settings = check_settings(settings, out)
    explained = memory_explained("check", lambda: parts_of(settings), settings.device)
    with Store(out).locked() as store, closing(progress), explained:
        require_same_kind(store, "check")
        base, tuned = subjects(settings)
        require_same_study(store, "check", settings, _hashes(settings, base, tuned), {})
        work = Work(settings, load_items(settings, progress.note), store, progress)
        planned = make_plan(work, base, tuned)
        _announce(planned, settings, progress)
        progress.stage("checking", len(planned.runs))
        before = [work.scores(base, item) for item in work.items]
        if not any(run.what.endswith("KL") and not run.done for run in planned.runs):
            base.release()
        pairs, models = {}, []
        for model in tuned:
            pairs[model.name] = _pairs(work, before, model)
            models.append(_checked(work, base, model, pairs[model.name]))
            model.release()
            release_memory()
        progress.close()
        if asked := list(_asked(work, [base, *tuned])):
            if left_out := write_texts(store.root, QUESTIONS, asked):
                progress.note(left_out)
        else:
            drop_texts(store.root, QUESTIONS)
        done = labelled(models)
        analysis = Check(settings.base, done, _along(done, pairs))
        return write_result(
            store,
            "check",
            clock,
            inputs=_inputs(settings, base, tuned, work.items),
            measurements=list(_measurements(settings, done)),
            analysis=analysis,
            verdict=_verdict(analysis),
            computing=placement(settings).describe(),
        )


def _asked(work: Work, subjects: Sequence[Subject]) -> Iterator[Asked]:
    """Questions of choices and tasks with every model's score; their texts are not kept."""
    for item in work.items:
        if item.kind != "choice" and item.harness is None:
            continue
        scores: dict[str, list[float]] = {}
        for subject in subjects:
            kept = (work.store.results(work.item_run(subject, item)) or {}).get("scores", {})
            scores[subject.name] = next(iter(kept.values()), [])
        for i, row in enumerate(item.part.rows):
            known = {name: Answer("", s[i]) for name, s in scores.items() if i < len(s)}
            yield Asked(row.prompt, row.answer or row.response, known)


def plan(settings: CheckSettings, out: str | Path = "springback-check") -> CheckPlan:
    """What :func:`check` would do in ``out``, and what of it is done; measures nothing."""
    settings = check_settings(settings, out)
    base, tuned = subjects(settings)
    store = Store(out)
    return make_plan(
        Work(settings, load_items(settings, lambda _: None), store, Silent()), base, tuned
    )


def subjects(settings: CheckSettings) -> tuple[Subject, list[Subject]]:
    """The base, and what is checked against it, in order."""
    base = Subject(settings, settings.base)
    if settings.tuned:
        tuned = Subject(settings, settings.tuned, base)
        if tuned.identity == base.identity:
            raise SpringbackError(
                f"{settings.base} and {settings.tuned} are the same model; allowed: a base and "
                "what was fine-tuned from it; name another"
            )
        return base, [tuned]
    folders = checkpoints_of(settings.run)
    run = [Subject(settings, str(folder), base) for folder in folders]
    for one in run:
        one.name = Path(one.name).name
    if len({one.name for one in run}) < len(run):  # such as a/final and b/final
        for one, folder in zip(run, folders, strict=True):
            one.name = str(folder)
    return base, [one for one in run if one.identity != base.identity]


def _hashes(settings: CheckSettings, base: Subject, tuned: Sequence[Subject]) -> dict[str, str]:
    """By setting, what the models are."""
    if settings.tuned:
        return {"base": base.identity, "tuned": tuned[0].identity}
    return {"base": base.identity}


def _announce(planned: CheckPlan, settings: CheckSettings, progress: Progress) -> None:
    done = sum(run.done for run in planned.runs)
    before = f"{done} of {len(planned.runs)} runs are done; " if done else ""
    what = settings.tuned or f"{len(planned.models)} checkpoints"
    progress.note(f"check of {what} against {settings.base}")
    progress.note(f"{before}{planned.needs}; stop it at any time, the same command goes on")


def _pairs(work: Work, before: Sequence[Scores], tuned: Subject) -> list[Paired]:
    """Both models' scores, measure by measure; ``before``: the base's, by item."""
    pairs = []
    for item, base in zip(work.items, before, strict=True):
        after = work.scores(tuned, item)
        pairs += [
            Paired(
                item.source, item.kind, name, item.purpose, base[name], after[name],
                item.clusters, item.shared,
            )
            for name in base
        ]  # fmt: skip
    return pairs


def _checked(work: Work, base: Subject, tuned: Subject, pairs: Sequence[Paired]) -> CheckedModel:
    """One tuned model against the base, without the words that take all tests together."""
    left_out = [] if work.settings.kl else ["KL: --no-kl"]
    drift = None
    if work.settings.kl and (why := why_no_kl(base, tuned)):
        left_out.append(why)
    elif work.settings.kl:
        drift = tuple(_drift(work, base, tuned, i) for i in work.items if i.kind == "prompt")
    weights = None
    if not work.settings.weights:
        left_out.append("how far weights moved: --no-weights")
    elif why := why_no_weights(base, tuned):
        left_out.append(why)
    else:
        try:
            weights = work.moved(base, tuned)
        except ModelError as error:
            left_out.append(f"how far weights moved: {error}")
    if tuned.facts.weak is not None and weights is not None:
        left_out.append("of the contrasted pair the weights are those of its strong model")
    templates = [s.tokenizer.chat_template for s in (base, tuned)]
    if templates[0] != templates[1]:
        left_out.append(
            "one way to ask: the chat templates differ, so prompts and questions are put to each "
            "model in its own; KL in the tuned model's"
        )
    measures = tuple(compared(pair) for pair in pairs)
    return CheckedModel(tuned.name, measures, drift, weights, tuple(left_out))


def _drift(work: Work, base: Subject, tuned: Subject, item: Item) -> Drift:
    kl = work.divergence(base, tuned, item)
    forgotten, new = (bootstrap_interval(kl[name]) for name in ("forgotten", "new"))
    return Drift(item.source, len(item.part), work.settings.sample_tokens, forgotten, new)


def _along(models: Sequence[CheckedModel], pairs: dict[str, list[Paired]]) -> AlongRun | None:
    """Of a run with a task and texts that should be kept: which checkpoint to take."""
    if len(models) < 2:
        return None
    run = []
    for model in models:
        both = list(zip(model.measures, pairs[model.name], strict=True))
        # Of questions with letters the probability, which tells more than right and wrong.
        task = [(m, pair) for m, pair in both if m.purpose == "task"]
        kept = [pair for m, pair in both if m.purpose == "kept" and m.measure == "bits per byte"]
        if not task or not kept:
            return None
        measure, pair = task[-1]
        lost = [t - b for one in kept for b, t in zip(one.base, one.tuned, strict=True)]
        worse = len(model.labelled("worse"))
        run.append(Checkpoint(model.name, gains(measure, pair), lost, worse))
    return along_run(measure.source, measure.measure, measure.unit, run)


def _verdict(analysis: Check) -> Verdict:
    """Of one model its words; of a run the choice, with a part for each checkpoint."""
    words = [(model, *verdict_words(model)) for model in analysis.models]
    if len(words) == 1:
        _, label, text = words[0]
        return Verdict(label, text)
    parts = tuple(Part(model.name, label, text) for model, label, text in words)
    if analysis.along is not None:
        return Verdict(f"take {analysis.along.chosen}", analysis.along.text, parts)
    text = "; ".join(f"{model.name}: {label}" for model, label, _ in words)
    return Verdict("", f"{text}. Name what the run was for by --task to see which to take.", parts)


def _measurements(settings: CheckSettings, models: Sequence[CheckedModel]) -> Iterator[Measurement]:
    for number, model in enumerate(models):
        for row in model.measures:
            for name, value in ((settings.base, row.base), (model.name, row.tuned)):
                if number and name == settings.base:
                    continue  # it is the same for every checkpoint
                tags = {"purpose": row.purpose}
                yield Measurement(row.measure, name, row.source, value.mean, row.unit, tags=tags)


def _inputs(
    settings: CheckSettings, base: Subject, tuned: Sequence[Subject], items: Sequence[Item]
) -> dict[str, Any]:
    def model(subject: Subject) -> dict[str, Any]:
        contrast = {"lambda": subject.facts.lam} if subject.facts.lam else {}
        return {"path": subject.name, "content_hash": subject.identity, **contrast}

    content = [
        {**item.part.describe(), "source": item.source, "kind": item.kind, "purpose": item.purpose}
        for item in items
    ]
    after = {"tuned": model(tuned[0])} if settings.tuned else {"run": [model(t) for t in tuned]}
    return {"base": model(base), **after, "content": content, "settings": settings}


__all__ = ["CheckSettings", "check", "plan"]
