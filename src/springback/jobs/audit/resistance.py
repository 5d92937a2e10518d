"""Resistance (paper A, section A2): is aligning harder than going back?

Three slices of the aligning data are learned one after the other: theta_0 -> theta_1 -> theta_2
-> theta_3.  For every pair k < l, *forward* trains theta_k on answers of theta_l, *inverse* trains
theta_l on answers of theta_k, with the same held-out prompts, settings and number of rows.

With ``answers``, as the paper has it, these are whole answers: end tokens are allowed, and learned
where an answer came to one.  One arm has the target's greedy answers, another sampled ones.  The
outcome is the final loss, that of all trained rows once the run is over: every row counts in it,
while the last batches are a few rows of a short run.  Beside it stand the mean loss of the run, and
the KL to the target (KL(target || model) on texts that it samples to other prompts) before and
after.

With ``responses``, the older form, every row has ``sample_tokens`` tokens sampled at temperature 1,
and the outcome is the mean loss: most of that is the entropy of sampling, which no training lowers.

Beside each loss stands its excess over the target's own NLL on its answers: the raw loss also falls
when the target is simply more predictable.

In the variant ``slices`` the data are the rows of the target's last slice instead.  The target has
learned these very rows, so its own NLL on them is that of its training data; and forward and
inverse differ in the rows too, not only in the way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from springback import probes
from springback.core import Measurement, Run, Slice
from springback.elasticity.resistance import ARMS, JUDGED, by_arm
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study, keep_weights
from springback.jobs.audit.training_run import TrainingRun, Weights, kl_prompts
from springback.models.encoding import Encoded, end_text, stop_ids
from springback.models.loading import read_configs
from springback.results.timing import timed

PAIRS = ((1, 2), (2, 3), (1, 3))


def runs(settings: AuditSettings, seed: int) -> list[TrainingRun]:
    """The trainings of one seed: three slices in sequence, then every pair both ways."""
    if not settings.resistance_rows:
        return []
    ways = [way for k, l in PAIRS for way in ((k, l), (l, k))]  # noqa: E741
    toward = [toward_run(settings, seed, *way, arm) for way in ways for arm in arms(settings)]
    return [*(slice_run(settings, seed, k) for k in (1, 2, 3)), *toward]


def arms(settings: AuditSettings) -> tuple[str, ...]:
    """How the answers are chosen; a single arm without a name where they are no whole answers."""
    return ARMS if settings.resistance_data == "answers" else ("",)


def slice_run(settings: AuditSettings, seed: int, k: int) -> TrainingRun:
    """theta_k out of theta_k-1."""
    return TrainingRun(
        "slice",
        seed,
        _learn_slice,
        _run_inputs,
        rows=settings.resistance_rows,
        recipe=settings.recipe(seed),
        starts_from=Weights(slice_run(settings, seed, k - 1), "end") if k > 1 else None,
        leaves=("end",),
        stage=k,
    )


def toward_run(
    settings: AuditSettings, seed: int, source: int, target: int, arm: str = ""
) -> TrainingRun:
    """theta_source on what leads to theta_target."""
    aim = slice_run(settings, seed, target)
    return TrainingRun(
        "toward",
        seed,
        _train_toward,
        _run_inputs,
        rows=settings.resistance_rows,
        recipe=settings.recipe(seed),
        starts_from=Weights(slice_run(settings, seed, source), "end"),
        reads=(aim,),
        stage=source,
        target=target,
        arm=arm,
        compared=Weights(aim, "end") if arm else None,
    )


def sum_run(study: Study, seed: int) -> Run:
    """What all trainings of a seed found together."""
    how = {**study.settings.chat_inputs(), **study.place.inputs()}
    return Run.of("resistance", **_inputs(study, seed), **how)


def _inputs(study: Study, seed: int, **more: Any) -> dict[str, Any]:
    s = study.settings
    return {
        "start": study.checkpoint.content_hash,
        "slices": [part.content_hash for part in _slices(study, seed)],
        "recipe": s.recipe(seed),
        "sampling": [s.prompt_tokens, s.sample_tokens],
        "precision": s.probe_precision,
        "seed": seed,
        # Left out for responses, whose ids are older than the variants.
        **({} if s.resistance_data == "responses" else {"data": s.resistance_data}),
        **({"answers": [s.resistance_tokens, kl_prompts(s)]} if arms(s) == ARMS else {}),
        **study.stop_inputs,
        **more,
    }


def _run_inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    if run.phase == "slice":
        return _inputs(study, run.seed, stage=run.stage)
    arm = {"arm": run.arm} if run.arm else {}
    return _inputs(study, run.seed, source=run.stage, target=run.target, **arm)


def _slices(study: Study, seed: int) -> list[Slice]:
    """Three training slices and one of held-out prompts, from rows that aligning never uses."""
    size = study.settings.resistance_rows
    part = study.data.reserved("align", "resistance", seed)
    rows = part.rows
    return [
        Slice.of(part.name, part.source, rows[i * size : (i + 1) * size], seed) for i in range(4)
    ]


def _prompts(study: Study, seed: int) -> list[list[int]]:
    return [list(study.beginning(r)) for r in study.encode(_slices(study, seed)[3])]


def _learn_slice(study: Study, run: TrainingRun) -> dict[str, Any]:
    seed, k = run.seed, run.stage
    study.progress.stage(f"seed {seed}: resistance, slice {k} of 3", run.steps)
    model = study.reset(seed, run.start_weights(study))
    rows = study.encode(_slices(study, seed)[k - 1])
    study.train(run.identity(study), rows, run.recipe)
    keep_weights(study, model, Weights(run, "end").path(study))
    study.meter.hold(model)
    if arms(study.settings) != ARMS:
        return _answered(study, run, study.sampling(seed, exact_length=True))
    how = replace(study.sampling(seed), new_tokens=study.settings.resistance_tokens)
    found: dict[str, Any] = {}
    for arm, temperature in zip(ARMS, (0.0, 1.0), strict=True):
        found[arm] = _answered(study, run, replace(how, temperature=temperature))
    texts = study.sampling(seed, exact_length=True)
    found["texts"] = study.meter.sample(_kl_prompts(study), texts)
    return found


def _answered(study: Study, run: TrainingRun, how: probes.SampleSettings) -> dict[str, Any]:
    """Answers of the model that the meter holds to the held-out prompts, and its NLL of what leads
    to it, nats a token."""
    answers = study.meter.sample(_prompts(study, run.seed), how)
    rows = _data(study, run.seed, run.stage, answers)
    return {"responses": answers, "own_nll": _nll(study, rows)}


@timed("probing")
def _nll(study: Study, rows: Sequence[Encoded]) -> float:
    """Nats a token of the held model over all rows."""
    scores = study.meter.nll(rows)
    return sum(s.nats for s in scores) / sum(s.tokens for s in scores)


def _data(study: Study, seed: int, target: int, responses: list[list[int]]) -> list[Encoded]:
    """What leads to theta_target: its responses to the held-out prompts, or its last slice.

    A whole answer that is shorter than the cut has come to its end, and its end token is learned.
    """
    if study.settings.resistance_data == "slices":
        return study.encode(_slices(study, seed)[target - 1])
    cut, ends = study.settings.resistance_tokens, _end_tokens(study)
    if arms(study.settings) == ARMS:
        responses = [a if len(a) >= cut else [*a, *ends] for a in responses]
    prompts = _prompts(study, seed)
    return [Encoded((*p, *a), len(p), 0) for p, a in zip(prompts, responses, strict=True)]


def _end_tokens(study: Study) -> list[int]:
    """What closes an answer, as rows of the slices have it; none where nothing can."""
    row, tokenizer = study.sampled_row, study.tokenizer
    ends: list[int] = tokenizer(end_text(tokenizer, row), add_special_tokens=False)["input_ids"]
    return ends or [*stop_ids(tokenizer, row, read_configs(study.checkpoint.path))][:1]


def _kl_prompts(study: Study) -> list[list[int]]:
    return study.prompts[: kl_prompts(study.settings)]


def _train_toward(study: Study, run: TrainingRun) -> dict[str, Any]:
    """Losses of theta_source on what leads to theta_target, and with whole answers the KL to it."""
    (target,) = run.reads
    found = target.results(study)
    answers = found[run.arm] if run.arm else found
    rows = _data(study, run.seed, run.target, answers["responses"])
    arm = f" ({run.arm})" if run.arm else ""
    title = f"seed {run.seed}: resistance, {run.stage} toward {run.target}{arm}"
    study.progress.stage(title, run.steps)
    kl_to_target = _kl_to_target(study, run, found["texts"]) if run.arm else None
    model = study.reset(run.seed, run.start_weights(study))
    before = 0.0
    if kl_to_target is not None:
        study.meter.hold(model)
        before = kl_to_target()
    losses = study.train(run.identity(study), rows, run.recipe).losses
    measured: dict[str, Any] = {"loss": sum(losses) / len(losses), "losses": losses}
    if kl_to_target is not None:
        study.meter.hold(model)
        measured["final"] = _nll(study, rows)
        measured["kl"] = [before, kl_to_target()]
    return measured


@timed("probing")
def _kl_to_target(study: Study, run: TrainingRun, texts: list[list[int]]) -> Callable[[], float]:
    """The KL from the target to the model that is held then, on the texts that the target sampled,
    whose distribution is kept while the model is trained."""
    assert run.compared is not None
    study.meter.hold(study.reset(run.seed, run.compared.path(study)))
    rows = probes.continued(_kl_prompts(study), texts)
    kl = study.meter.kl_to_held(rows, keep_bytes=sys.maxsize)

    def mean() -> float:
        with study.timer.part("probing"):
            each = kl()
        return sum(each) / len(each)

    return mean


def read_seed(study: Study, seed: int) -> dict[str, Any] | None:
    """Values of every pair for one seed, whose runs have to be done; None if it is left out.

    Returns ``{"1-2": {"forward": …, "inverse": …, "excess_forward": …, "excess_inverse": …}, …}``,
    nats a token.  With whole answers these are final losses of the greedy arm; beside them stand
    ``mean_…``, the means over the steps, and ``kl_before_…`` and ``kl_after_…``, and all of it once
    more as ``sampled_…``.  Else they are means over the steps.
    """
    settings = study.settings
    if not settings.resistance_rows:
        return None
    together = sum_run(study, seed)
    if (known := study.store.results(together)) is not None:
        return known
    pairs: dict[str, Any] = {}
    for k, l in PAIRS:  # noqa: E741  (the paper's letters)
        values = pairs[f"{k}-{l}"] = {}
        for arm in arms(settings):
            prefix = "" if arm in ("", JUDGED) else f"{arm}_"
            for way, source, target in (("forward", k, l), ("inverse", l, k)):
                run = toward_run(settings, seed, source, target, arm)
                for name, value in _values(study, run).items():
                    values[f"{prefix}{name}{way}"] = value
    return study.store.commit(together, pairs)


def _values(study: Study, run: TrainingRun) -> dict[str, float]:
    """Beginning of a name -> value of one run."""
    found, target = run.results(study), run.reads[0].results(study)
    own, mean = float((target[run.arm] if run.arm else target)["own_nll"]), float(found["loss"])
    if not run.arm:
        return {"": mean, "excess_": mean - own}
    final = float(found["final"])
    before, after = found["kl"]
    return {
        "": final,
        "excess_": final - own,
        "mean_": mean,
        "mean_excess_": mean - own,
        "kl_before_": before,
        "kl_after_": after,
    }


def measurements(study: Study, seeds: dict[int, dict[str, Any] | None]) -> list[Measurement]:
    """Every value as a record of the result file; its slice says what was trained on."""
    whole = arms(study.settings) == ARMS
    return [
        Measurement(
            name if name.startswith("kl_") else f"loss_{name}",
            f"theta_{pair.replace('-', ' and theta_')}",
            study.settings.resistance_data,
            float(value),
            "nats/token",
            tags={
                "phase": "resistance",
                "seed": seed,
                "pair": pair,
                **({"arm": arm} if whole else {}),
            },
        )
        for seed, pairs in seeds.items()
        for pair, values in (pairs or {}).items()
        for arm, of_arm in by_arm(values).items()
        for name, value in of_arm.items()
    ]
