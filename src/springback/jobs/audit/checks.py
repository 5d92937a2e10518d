"""What an audit's settings are checked for before it starts; its rows are checked in ``rows``.

What needs no torch comes first, and :func:`refuse` is that alone, for the command line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from springback.core import ALGORITHMS, PRECISIONS
from springback.data import require_source
from springback.errors import SpringbackError, describe, did_you_mean
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.branches import attacks
from springback.jobs.audit.finished import settle
from springback.jobs.audit.protections import parse_all
from springback.jobs.audit.settings import CONTROLS, EXPERIMENTS, RESISTANCE_DATA, AuditSettings
from springback.models.names import require_compute, require_model
from springback.probes.judges import require_judges
from springback.results.checks import check_positive
from springback.results.places import require_apart
from springback.results.probe_info import PROBES, SAMPLED
from springback.training.recipes import NEUTRAL_PROMPT, check_recipe

#: The settings that name what is read.
READ = ("model", "base", "align", "perturb", "benign", "neutral", "pretraining", "choices")


def refuse(settings: AuditSettings, out: str | Path) -> None:
    """Raise :class:`SpringbackError` for what is seen to be wrong without torch.

    Wrong values and names, models and data that are not there (hub ids are believed), a folder for
    results that is none.  The job itself raises the same for all of this, and for more.
    """
    settings = check_values(settings)
    require_apart(out, settings, READ)
    for source in _sources(settings):
        require_source(source)
    require_model(settings.model)
    if settings.base:
        require_model(settings.base)


def _sources(settings: AuditSettings) -> list[str]:
    """The data that the study reads for certain."""
    s = settings
    benign = "repair" in s.experiments or any(a.info.benign_rows or a.mix for a in attacks(s))
    needed = (
        (s.align, bool(s.align)),
        (s.perturb, True),
        (s.benign, benign),
        (s.neutral, "neutral_nll" in s.probes),
        (s.pretraining, "rates" in s.probes),
        (s.choices, "choice" in s.probes),
    )
    return [source for source, is_read in needed if is_read]


def check_settings(settings: AuditSettings) -> AuditSettings:
    """The settings with ``auto`` filled in and lists sorted; raises on what cannot be."""
    from springback.models.loading import default_precision
    from springback.models.placement import audit_placement

    settings = check_values(settings)
    place = audit_placement(settings)
    if settings.precision == "auto":
        settings = replace(settings, precision=default_precision(place.device))
    return settings


def check_values(settings: AuditSettings) -> AuditSettings:
    """:func:`check_settings` as far as it needs no torch: ``precision`` may stay ``auto``."""
    if settings.series:
        raise SpringbackError(
            "audit measures one model; for a series use springback.jobs.audit.series.series"
        )
    check_positive(
        {
            "learning-rate": settings.learning_rate,
            "batch-size": settings.batch_size,
            "max-tokens": settings.max_tokens,
            "holdout": settings.holdout,
            "prompts": settings.prompts,
            "prompt-tokens": settings.prompt_tokens,
            "sample-tokens": settings.sample_tokens,
            "resistance-tokens": settings.resistance_tokens,
            "epsilon": settings.epsilon,
            "utility-rows": settings.utility_rows,
            "rate-depth": settings.rate_depth,
            "probe-processes": settings.probe_processes,
        }
    )
    if not settings.n_pos or not settings.doses or not settings.seeds:
        raise SpringbackError("--n-pos, --doses and --seeds each need at least one number")
    for name, values in (("n-pos", settings.n_pos), ("doses", settings.doses)):
        least = 0 if name == "n-pos" else 1
        bad = [v for v in values if v < least or v % settings.batch_size]
        if bad:
            zero = "0 (the model as it is) and " * (name == "n-pos")
            raise SpringbackError(
                f"--{name} has {bad}; allowed are {zero}multiples of the batch size "
                f"({settings.batch_size}): change them or --batch-size"
            )
    settings = settle(settings)
    _check_probes(settings)
    _check_whole_weights(settings)
    _check_attacks(settings)
    for flag in ("algorithm", "perturb_algorithm"):
        _among(flag.replace("_", "-"), (getattr(settings, flag),), ALGORITHMS)
    _check_protections(settings)
    _check_aligned(settings)
    _check_execution(settings)
    _among("experiments", settings.experiments, EXPERIMENTS)
    _among("resistance-data", (settings.resistance_data,), RESISTANCE_DATA)
    controls = () if settings.controls == ("none",) else settings.controls
    _among("controls", controls, CONTROLS)
    if "rebound" not in settings.experiments:
        raise SpringbackError(
            f"--experiments is {', '.join(settings.experiments)}; rebound has to be among them, "
            "since the others build on its runs"
        )
    settings = _with_compute(settings)
    _check_algorithms(settings)
    pairs = any(
        ALGORITHMS[name].preference for name in (settings.algorithm, settings.perturb_algorithm)
    )
    return replace(
        settings,
        resistance_rows=settings.resistance_rows if "resistance" in settings.experiments else 0,
        n_pos=tuple(sorted(set(settings.n_pos))),
        doses=tuple(sorted(set(settings.doses))),
        controls=tuple(c for c in CONTROLS if c in controls),
        seeds=tuple(dict.fromkeys(settings.seeds)),
        prompt=NEUTRAL_PROMPT if pairs and settings.prompt is None else settings.prompt,
    )


def _check_probes(settings: AuditSettings) -> None:
    unknown = [p for p in settings.probes if p not in PROBES]
    if unknown or (settings.align and "margin" not in settings.probes):
        near = did_you_mean(unknown[0], PROBES) if unknown else ""
        raise SpringbackError(
            f"--probes is {', '.join(settings.probes)}{near}; allowed: {', '.join(PROBES)}, "
            "with margin among them, since gain and fall are measured in it"
        )
    if "base_kl" in settings.probes and settings.base is None:
        raise SpringbackError(
            "--probes has base_kl without --base; name the model that this one was made from"
        )
    if ("behaviour" in settings.probes) != (settings.behaviour is not None):
        raise SpringbackError(
            f"--probes is {', '.join(settings.probes)} and --behaviour is {settings.behaviour}; "
            "give both: the probe behaviour and what scores the texts"
        )
    if settings.keep_samples and not {*SAMPLED} & {*settings.probes}:
        raise SpringbackError(
            f"--keep-samples with --probes {', '.join(settings.probes)}, none of which samples; "
            f"allowed: with {' or '.join(SAMPLED)} among them; name one, or leave it out"
        )
    if settings.behaviour is not None:
        require_judges(settings.behaviour)
    if "rloo" in (settings.algorithm, settings.perturb_algorithm):
        require_judges(settings.reward)
    if settings.pretraining_volume < 0:
        raise SpringbackError(
            f"--pretraining-volume is {settings.pretraining_volume:g}; give the number of texts, "
            "or 0 if it is not known"
        )


def _check_attacks(settings: AuditSettings) -> None:
    if 0 < settings.resistance_rows < settings.batch_size:
        raise SpringbackError(
            f"--resistance-rows is {settings.resistance_rows}; give 0 (leave it out) or at "
            f"least the batch size ({settings.batch_size})"
        )
    if bad_mix := [m for m in settings.mix if not 0 <= m <= 1]:
        raise SpringbackError(f"--mix has {bad_mix}; give shares from 0 to 1, such as 0.5,1")
    for rate in settings.attack_learning_rates:
        check_positive({"attack-learning-rates": rate})
    if shared := sorted({*settings.attack_seeds} & {*settings.seeds}):
        raise SpringbackError(
            f"--attack-seeds has {shared}, which --seeds has too; a study's own draw is swept "
            "already: give others"
        )
    if not 0 < settings.utility_bound <= 1:
        raise SpringbackError(
            f"--utility-bound is {settings.utility_bound:g}; give a share above 0, 1 at most, such "
            "as 0.1"
        )
    attacks(settings)  # raises on what is not known or does not go together


def _check_aligned(settings: AuditSettings) -> None:
    """What goes back along an alignment needs one that was made here."""
    if any(settings.n_pos):
        return
    needing = [name for name in ("realign", "repair", "symmetry") if name in settings.experiments]
    if needing:
        raise SpringbackError(
            f"--experiments has {', '.join(needing)} with --n-pos 0, which aligns nothing; give "
            "--n-pos a number above 0 too, or leave them out"
        )
    if any(p.kind == "overbend" for p in parse_all(settings.mitigate)):
        raise SpringbackError(
            "--mitigate overbend with --n-pos 0; there is no alignment made here to move further "
            "along: give --n-pos a number above 0 too, or leave it out"
        )


def _check_execution(settings: AuditSettings) -> None:
    if settings.accelerate is not None:
        read_launch(settings.accelerate)
        algorithms = {settings.algorithm, settings.perturb_algorithm}
        if algorithms != {"sft"}:
            raise SpringbackError(
                f"--accelerate with {', '.join(sorted(algorithms))}; it trains by sft: leave it out"
            )
        if settings.quantize:
            given = f"--accelerate with --quantize {settings.quantize}"
            raise SpringbackError(
                describe(given, "a base in bfloat16 or float32", "leave out one of the two")
            )
    if settings.quantize and not settings.lora_rank:
        raise SpringbackError(
            describe(
                f"--quantize {settings.quantize} in an audit of all weights",
                "audits of adapters, whose base is held in 4 bit",
                "add --lora-rank 16, or leave --quantize out",
            )
        )
    if settings.lora_rank and settings.probe_processes > 1:
        raise SpringbackError(
            f"--probe-processes {settings.probe_processes} with --lora-rank {settings.lora_rank}; "
            "they hold whole models, no adapter: leave out one of the two"
        )


def _with_compute(settings: AuditSettings) -> AuditSettings:
    """The settings with the probes' precision filled in; raises on what does not go together."""
    require_compute(settings)
    s = settings
    if s.quantize and s.dtype == "auto":
        s = replace(s, dtype="bfloat16")
    if s.dtype == "float16":
        allowed = "float32, bfloat16"
        raise SpringbackError(
            describe("--dtype float16 in an audit, whose KL is small", allowed, "take bfloat16")
        )
    allowed_probes = ("bfloat16",) if s.dtype == "bfloat16" else ("float32", "bf16-mixed")
    if s.probe_precision not in ("auto", *allowed_probes):
        raise SpringbackError(
            describe(
                f"--probe-precision {s.probe_precision} with --dtype {s.dtype}",
                f"auto, {', '.join(allowed_probes)}",
                "leave one of them out",
            )
        )
    elsewhere = s.device_map or (":" in s.device and s.device != "cuda:0")
    if elsewhere and s.probe_processes > 1:
        raise SpringbackError(
            f"--probe-processes {s.probe_processes} with --device {s.device} and --device-map "
            f"{s.device_map}; process r has GPU r: leave them out"
        )
    if ":" in s.device and s.device != "cuda:0":
        raise SpringbackError(
            describe(
                f"--device {s.device} in an audit, which trains on the first GPU that it sees",
                "auto, cpu, mps, cuda",
                f"set CUDA_VISIBLE_DEVICES={s.device.partition(':')[2]}",
            )
        )
    precision = allowed_probes[0] if s.probe_precision == "auto" else s.probe_precision
    # float32 is what auto is, so it is no other study.
    return replace(s, dtype="auto" if s.dtype == "float32" else s.dtype, probe_precision=precision)


def _check_protections(settings: AuditSettings) -> None:
    protections = parse_all(settings.mitigate)
    by_rows = ALGORITHMS[settings.perturb_algorithm].learns == "rows"
    if not by_rows and any(s.kind == "mix" for s in protections):
        raise SpringbackError(
            f"--mitigate mix with --perturb-algorithm {settings.perturb_algorithm}; aligning rows "
            "are learned beside the others by sft only: leave out one of the two"
        )
    if any(s.kind == "project" for s in protections):
        _check_projection(settings)
    if settings.lora_rank and any(s.rank is not None for s in protections):
        raise SpringbackError(
            f"--mitigate overbend:MU@RANK with --lora-rank {settings.lora_rank}; an adapter is of "
            "low rank already: leave out @RANK or train all weights"
        )
    if "repair" not in settings.experiments:
        return
    check_positive({"repair-rows": settings.repair_rows})
    for mu in settings.repair_mu:
        check_positive({"repair-mu": mu})
    if not settings.repair_mu or settings.repair_rows % settings.batch_size:
        raise SpringbackError(
            f"--repair-rows is {settings.repair_rows} and --repair-mu {settings.repair_mu}; give a "
            f"multiple of the batch size ({settings.batch_size}), and one mu or more"
        )
    if settings.lora_rank:
        raise SpringbackError(
            f"--experiments has repair with --lora-rank {settings.lora_rank}; the alignment's "
            "direction and what wore it have one adapter then: train all weights"
        )
    if "neutral_nll" not in settings.probes:
        raise SpringbackError(
            f"--probes is {', '.join(settings.probes)} with repair among the experiments; "
            "neutral_nll has to be among them, since it measures what benign training taught: "
            "add it, and let --neutral be data like --benign"
        )


def _check_projection(settings: AuditSettings) -> None:
    """Updates are projected in this process, on weights, along an alignment that is known."""
    against = {
        f"--lora-rank {settings.lora_rank}": settings.lora_rank,
        f"--accelerate {settings.accelerate}": settings.accelerate is not None,
        "no wanted texts (--align)": not settings.align,
        "--n-pos 0 and no --base": not any(settings.n_pos) and settings.base is None,
    }
    if given := [words for words, there in against.items() if there]:
        raise SpringbackError(
            describe(
                f"--mitigate project with {', '.join(given)}",
                "studies of all weights in this process, that align themselves or know the base",
                "leave one of them out, or name --base",
            )
        )


def _check_algorithms(settings: AuditSettings) -> None:
    _check_recipes(settings)
    perturbing = ALGORITHMS[settings.perturb_algorithm]
    if perturbing.learns != "rows" and any(attack.mix for attack in attacks(settings)):
        flag = "--mix" if any(settings.mix) else "--attackers benign"
        raise SpringbackError(
            f"{flag} with --perturb-algorithm {settings.perturb_algorithm}; benign rows have no "
            "opposite to learn against: leave out one of the two"
        )
    if perturbing.preference and settings.attack_seeds:
        raise SpringbackError(
            f"--attack-seeds with --perturb-algorithm {settings.perturb_algorithm}; the rows that "
            "it learns against are drawn by the study's seed: leave out one of the two"
        )


def _check_recipes(settings: AuditSettings) -> None:
    """Of a precision that is still open every other field."""
    known = replace(settings, precision=PRECISIONS[0]) if settings.precision == "auto" else settings
    for algorithm in (settings.algorithm, settings.perturb_algorithm):
        for seed in settings.seeds:
            check_recipe(known.recipe(seed, algorithm))


def _check_whole_weights(settings: AuditSettings) -> None:
    """An adapter has no weights for the probes that read them."""
    whole = [p for p in settings.probes if PROBES[p].whole_weights]
    if settings.lora_rank and whole:
        raise SpringbackError(
            f"--probes has {', '.join(whole)} with --lora-rank {settings.lora_rank}; an adapter "
            "has no weights to compare with the start's: leave the probe out or train all weights"
        )


def _among(flag: str, given: Sequence[str], allowed: Collection[str]) -> None:
    if bad := [name for name in given if name not in allowed]:
        near = did_you_mean(bad[0], allowed)
        raise SpringbackError(f"--{flag} has {', '.join(bad)}{near}; allowed: {', '.join(allowed)}")
