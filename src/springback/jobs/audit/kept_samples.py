"""``--keep-samples``: the sampled texts of every model on the way, in ``samples.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from springback.jobs.audit.study import Study
from springback.results.probe_info import SAMPLED
from springback.results.texts import SAMPLES, Answer, Asked, drop_texts, write_texts


def write_samples(
    study: Study, start: Mapping[str, Any], rebounds: Mapping[int, Mapping[str, Any]]
) -> None:
    """Write every prompt with each model's text; without the setting no such file stays."""
    root = study.store.root
    if not study.settings.keep_samples:
        drop_texts(root, SAMPLES)
        return
    probe = next(name for name in SAMPLED if name in study.settings.probes)
    by_model = dict(_models(start["probes"], rebounds))
    asked = [
        Asked(
            prompt,
            "",
            {
                name: Answer(values[probe]["texts"][i], values[probe]["per_example"][i])
                for name, values in by_model.items()
            },
        )
        for i, prompt in enumerate(study.prompt_texts)
    ]
    if left_out := write_texts(root, SAMPLES, asked):
        study.progress.note(left_out)


def _models(
    start: Mapping[str, Any], rebounds: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and probes of the start model, the aligned ones, and these at every dose."""
    yield "start model", start
    for seed, got in rebounds.items():
        for_seed = f", seed {seed}" if len(rebounds) > 1 else ""
        for n_pos, doses in got["perturbed"].items():
            aligned = f"aligned on {n_pos}" if n_pos else "start model"
            if n_pos:
                yield f"{aligned}{for_seed}", got["aligned"][n_pos]
            for dose, values in doses.items():
                if dose:
                    yield f"{aligned}, then {dose} of the opposite{for_seed}", values
