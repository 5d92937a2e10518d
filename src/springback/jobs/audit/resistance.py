"""Resistance (paper A, section A2): is aligning harder than going back?

Three slices of the aligning data are learned one after the other: theta_0 -> theta_1 -> theta_2
-> theta_3.  For every pair k < l, *forward* trains theta_k on responses of theta_l, *inverse*
trains theta_l on responses of theta_k, with the same held-out prompts, sampling and token count.
Beside the raw training loss stands the excess over the target's own NLL on its responses: the raw
loss also falls when the target is simply more predictable.

In the variant ``slices`` the data are the rows of the target's last slice instead.  The target has
learned these very rows, so its own NLL on them is that of its training data; and forward and
inverse differ in the rows too, not only in the way.
"""

from __future__ import annotations

from typing import Any

from springback import probes
from springback.core import Measurement, Run, Slice
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.audit.training_run import TrainingRun, Weights
from springback.models.encoding import Encoded
from springback.models.loading import save_weights

PAIRS = ((1, 2), (2, 3), (1, 3))


def runs(settings: AuditSettings, seed: int) -> list[TrainingRun]:
    """The trainings of one seed: three slices in sequence, then every pair both ways."""
    if not settings.resistance_rows:
        return []
    pairs = [toward_run(settings, seed, *way) for k, l in PAIRS for way in ((k, l), (l, k))]  # noqa: E741
    return [*(slice_run(settings, seed, k) for k in (1, 2, 3)), *pairs]


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


def toward_run(settings: AuditSettings, seed: int, source: int, target: int) -> TrainingRun:
    """theta_source on what leads to theta_target."""
    return TrainingRun(
        "toward",
        seed,
        _train_toward,
        _run_inputs,
        rows=settings.resistance_rows,
        recipe=settings.recipe(seed),
        starts_from=Weights(slice_run(settings, seed, source), "end"),
        reads=(slice_run(settings, seed, target),),
        stage=source,
        target=target,
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
        # Left out for the default, whose ids are older than the variant.
        **({} if s.resistance_data == "responses" else {"data": s.resistance_data}),
        **study.stop_inputs,
        **more,
    }


def _run_inputs(study: Study, run: TrainingRun) -> dict[str, Any]:
    if run.phase == "slice":
        return _inputs(study, run.seed, stage=run.stage)
    return _inputs(study, run.seed, source=run.stage, target=run.target)


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
    save_weights(model, Weights(run, "end").path(study))
    measured = study.meter.rounded(model)
    answers = probes.sample(
        measured, study.tokenizer, _prompts(study, seed), study.sampling(seed, exact_length=True)
    )
    scores = probes.nll(measured, _data(study, seed, k, answers), study.tokenizer, study.precision)
    own_nll = sum(s.nats for s in scores) / sum(s.tokens for s in scores)
    return {"responses": answers, "own_nll": own_nll}


def _data(study: Study, seed: int, target: int, responses: list[list[int]]) -> list[Encoded]:
    """What leads to theta_target: its responses to the held-out prompts, or its last slice."""
    if study.settings.resistance_data == "slices":
        return study.encode(_slices(study, seed)[target - 1])
    prompts = _prompts(study, seed)
    return [Encoded((*p, *a), len(p), 0) for p, a in zip(prompts, responses, strict=True)]


def _train_toward(study: Study, run: TrainingRun) -> dict[str, Any]:
    """Mean training loss of theta_source on what leads to theta_target."""
    (target,) = run.reads
    rows = _data(study, run.seed, run.target, target.results(study)["responses"])
    title = f"seed {run.seed}: resistance, {run.stage} toward {run.target}"
    study.progress.stage(title, run.steps)
    study.reset(run.seed, run.start_weights(study))
    losses = study.train(run.identity(study), rows, run.recipe).losses
    return {"loss": sum(losses) / len(losses), "losses": losses}


def read_seed(study: Study, seed: int) -> dict[str, Any] | None:
    """Losses of every pair for one seed, whose runs have to be done; None if it is left out.

    Returns ``{"1-2": {"forward": …, "inverse": …, "excess_forward": …, "excess_inverse": …}, …}``,
    nats a token, mean over the steps of the run.
    """
    settings = study.settings
    if not settings.resistance_rows:
        return None
    together = sum_run(study, seed)
    if (known := study.store.results(together)) is not None:
        return known
    own_nll = {k: slice_run(settings, seed, k).results(study)["own_nll"] for k in (1, 2, 3)}
    pairs: dict[str, Any] = {}
    for k, l in PAIRS:  # noqa: E741  (the paper's letters)
        forward = float(toward_run(settings, seed, k, l).results(study)["loss"])
        inverse = float(toward_run(settings, seed, l, k).results(study)["loss"])
        pairs[f"{k}-{l}"] = {
            "forward": forward,
            "inverse": inverse,
            "excess_forward": forward - own_nll[l],
            "excess_inverse": inverse - own_nll[k],
        }
    return study.store.commit(together, pairs)


def measurements(study: Study, seeds: dict[int, dict[str, Any] | None]) -> list[Measurement]:
    """Every loss as a record of the result file; its slice says what was trained on."""
    return [
        Measurement(
            f"loss_{way}",
            f"theta_{pair.replace('-', ' and theta_')}",
            study.settings.resistance_data,
            float(values[way]),
            "nats/token",
            tags={"phase": "resistance", "seed": seed, "pair": pair},
        )
        for seed, pairs in seeds.items()
        for pair, values in (pairs or {}).items()
        for way in ("forward", "inverse", "excess_forward", "excess_inverse")
    ]
