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
from springback.jobs.audit.study import Study
from springback.models.encoding import Encoded
from springback.models.loading import save_weights

PAIRS = ((1, 2), (2, 3), (1, 3))


def _slices(study: Study, seed: int) -> list[Slice]:
    """Three training slices and one of held-out prompts, from rows that aligning never uses."""
    size = study.settings.resistance_rows
    part = study.data.reserved("align", "resistance", seed)
    rows = part.rows
    return [
        Slice.of(part.name, part.source, rows[i * size : (i + 1) * size], seed) for i in range(4)
    ]


def _run(study: Study, seed: int, kind: str, **inputs: Any) -> Run:
    s = study.settings
    return Run.of(
        kind,
        start=study.checkpoint.content_hash,
        slices=[part.content_hash for part in _slices(study, seed)],
        recipe=s.recipe(seed),
        sampling=[s.prompt_tokens, s.sample_tokens],
        precision=s.probe_precision,
        seed=seed,
        # Left out for the default, whose ids are older than the variant.
        **({} if s.resistance_data == "responses" else {"data": s.resistance_data}),
        **study.stop_inputs,
        **inputs,
    )


def runs(study: Study, seed: int) -> list[Run]:
    """The trainings of one seed: three slices in sequence, then every pair both ways."""
    if not study.settings.resistance_rows:
        return []
    chain = [slice_run(study, seed, k) for k in (1, 2, 3)]
    return [*chain, *(toward_run(study, seed, a, b) for a, b in ways())]


def run_seed(study: Study, seed: int) -> dict[str, Any] | None:
    """Losses of every pair for one seed, or None if the experiment is left out.

    Returns ``{"1-2": {"forward": …, "inverse": …, "excess_forward": …, "excess_inverse": …}, …}``,
    nats a token, mean over the steps of the run.
    """
    if not study.settings.resistance_rows:
        return None
    run = sum_run(study, seed)
    if (found := study.store.results(run)) is not None:
        return found
    chain = _chain(study, seed)
    own = {k: chain[k]["own_nll"] for k in (1, 2, 3)}
    pairs: dict[str, Any] = {}
    for k, l in PAIRS:  # noqa: E741  (the paper's letters)
        forward = toward_once(study, seed, k, l, chain[l]["responses"])
        inverse = toward_once(study, seed, l, k, chain[k]["responses"])
        pairs[f"{k}-{l}"] = {
            "forward": forward,
            "inverse": inverse,
            "excess_forward": forward - own[l],
            "excess_inverse": inverse - own[k],
        }
    found = study.store.commit(run, pairs)
    for k in (1, 2, 3):
        study.store.drop_checkpoints(slice_run(study, seed, k))
    return found


def _prompts(study: Study, seed: int) -> list[list[int]]:
    return [list(study.beginning(r)) for r in study.encode(_slices(study, seed)[3])]


def slice_run(study: Study, seed: int, k: int) -> Run:
    return _run(study, seed, "slice", stage=k)


def toward_run(study: Study, seed: int, source: int, target: int) -> Run:
    return _run(study, seed, "toward", source=source, target=target)


def sum_run(study: Study, seed: int) -> Run:
    """What all trainings of a seed found together."""
    return _run(study, seed, "resistance")


def ways() -> list[tuple[int, int]]:
    """Source and target of every training that compares the ways."""
    return [way for k, l in PAIRS for way in ((k, l), (l, k))]  # noqa: E741


def _chain(study: Study, seed: int) -> dict[int, dict[str, Any]]:
    """theta_1 to theta_3: weights kept on disk, their responses and their own NLL on them."""
    store = study.store
    compared = all(store.results(toward_run(study, seed, *way)) is not None for way in ways())
    done: dict[int, dict[str, Any]] = {}
    for k in (1, 2, 3):
        run = slice_run(study, seed, k)
        found = store.results(run)
        if found is None or not (compared or store.checkpoint(run, "end").exists()):
            found = slice_once(study, seed, k)
        done[k] = found
    return done


def slice_once(study: Study, seed: int, k: int) -> dict[str, Any]:
    """theta_k out of theta_k-1, whose weights are there."""
    part = _slices(study, seed)[k - 1]
    run = slice_run(study, seed, k)
    steps = -(-len(part) // study.settings.batch_size)
    study.progress.stage(f"seed {seed}: resistance, slice {k} of 3", steps)
    before = study.store.checkpoint(slice_run(study, seed, k - 1), "end") if k > 1 else None
    model = study.reset(seed, before)
    study.train(run, study.encode(part), study.settings.recipe(seed))
    save_weights(model, study.store.checkpoint(run, "end"))
    prompts = _prompts(study, seed)
    answers = probes.sample(
        model, study.tokenizer, prompts, study.sampling(seed, exact_length=True)
    )
    rows = _data(study, seed, k, answers)
    scores = probes.nll(model, rows, study.tokenizer, study.precision)
    own = sum(s.nats for s in scores) / sum(s.tokens for s in scores)
    return study.store.commit(run, {"responses": answers, "own_nll": own})


def _rows(prompts: list[list[int]], answers: list[list[int]]) -> list[Encoded]:
    return [Encoded((*p, *a), len(p), 0) for p, a in zip(prompts, answers, strict=True)]


def _data(study: Study, seed: int, target: int, responses: list[list[int]]) -> list[Encoded]:
    """What leads to theta_target: its responses to the held-out prompts, or its last slice."""
    if study.settings.resistance_data == "slices":
        return study.encode(_slices(study, seed)[target - 1])
    return _rows(_prompts(study, seed), responses)


def toward_once(
    study: Study, seed: int, source: int, target: int, responses: list[list[int]]
) -> float:
    """Mean training loss of theta_source on what leads to theta_target."""
    run = toward_run(study, seed, source, target)
    if (found := study.store.results(run)) is None:
        rows = _data(study, seed, target, responses)
        steps = -(-len(rows) // study.settings.batch_size)
        study.progress.stage(f"seed {seed}: resistance, {source} toward {target}", steps)
        study.reset(seed, study.store.checkpoint(slice_run(study, seed, source), "end"))
        losses = study.train(run, rows, study.settings.recipe(seed)).losses
        found = study.store.commit(run, {"loss": sum(losses) / len(losses), "losses": losses})
    return float(found["loss"])


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
