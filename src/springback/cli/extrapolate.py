"""``springback extrapolate``: full weights or LoRA adapters, written or only checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from springback.cli.flags import take, with_settings
from springback.cli.output import emit
from springback.cli.say import say
from springback.errors import ModelError, SpringbackError, describe
from springback.integrations.ray.settings import ExecutorSettings
from springback.settings import Settings, setting


@dataclass(frozen=True)
class RevisionSettings(Settings, group="Checkpoints"):
    """Where checkpoints on the hub, and their order, come from."""

    early_revision: str | None = setting(
        None, "Hub revision of EARLY; several: one each, with commas."
    )
    ft_revision: str | None = setting(None, "Hub revision of FT.")
    steps: tuple[float, ...] = setting(
        (),
        "Training steps of three or more; default: from names like checkpoint-STEP, else even.",
    )


@dataclass(frozen=True)
class AdapterSettings(Settings, group="Adapters"):
    """What is only for LoRA adapters."""

    svd_rank: int | None = setting(None, "Cut to this rank, no longer exact.")
    engine: str = setting("peft", "peft, or vllm, which loads less.", flag="for")
    base: str | None = setting(None, "Folder or hub id of the base model.")
    lam: float | None = setting(None, "Put FT beside, to decode contrastively with this lambda.")
    alpha: float = setting(0.1, "With --lam: how plausible a token has to be.")
    materialise: bool = setting(False, "Write a copy of --base with them in it.")


@dataclass(frozen=True)
class ExtrapolateOptions(AdapterSettings, RevisionSettings):
    """The flags that decide what is written or checked."""

    mu: str | None = setting(
        None, "How far past the last one: 0.2, or by group: attention=0.2,mlp=0.1."
    )
    weights: tuple[float, ...] = setting(
        (),
        "Instead of --mu: what of each checkpoint to take, divided by their sum; 1,1,1 is the "
        "average of three.",
    )
    out: str | None = setting(None, "Folder of the new model or adapter.")
    dtype: str = setting("auto", "auto (as the last checkpoint), float32, bfloat16 or float16.")
    threads: int | None = setting(None, "Default: the processors, at most 8.")
    low_rank: int | None = setting(None, "Move matrices along their top K directions only.")
    push: str | None = setting(None, "Upload what was written to the Hub: org/name, private.")
    check: bool = setting(False, "Only say whether it looks safe.")
    validation: str | None = setting(None, "With --check: rows to take the NLL along mu on.")


@with_settings(
    ExtrapolateOptions,
    ExecutorSettings,
    first="mu weights out dtype threads low_rank push check validation",
    leave_out="run_gpus run_memory retries shared",
)
def extrapolate(
    given: dict[str, Any],
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="EARLY… FT",
            help="The checkpoints, the last one last: folders, or org/name@revision.",
        ),
    ],
) -> None:
    """Write the extrapolated model: ft + mu * (ft - early), streamed tensor by tensor.

    Two checkpoints or more of one run: full weights, or LoRA adapters, which give one adapter.
    More than two: along the least-squares line through them.
    """
    executor, options = take(ExecutorSettings, given), take(ExtrapolateOptions, given)
    if options.validation is not None and not options.check:
        raise SpringbackError("--validation is for --check; leave it out, or add --check")
    if options.check and options.push is not None:
        raise SpringbackError("--check writes nothing to --push; leave one of them out")
    if options.push is not None:
        from springback.integrations.hub_upload import check_name

        check_name(options.push)
    if options.weights and (options.mu is not None or options.check):
        other = "--check" if options.check else "--mu"
        raise SpringbackError(f"--weights with {other}; allowed: one of them; leave one out")
    aim = options.mu is not None or options.weights
    if not options.check and (not aim or options.out is None):
        raise SpringbackError(
            "extrapolate needs --mu and --out (or --weights and --out, or --check alone); give both"
        )
    from springback.weights.direction import read_mu

    if options.mu is not None:
        read_mu(options.mu)
    folders = _resolve(checkpoints, options.early_revision, options.ft_revision)
    from springback.weights import is_adapter, tensor_names

    kinds = {is_adapter(folder) for folder in folders}
    if len(kinds) > 1:
        for folder in (f for f in folders if not is_adapter(f)):
            tensor_names(folder)  # what is no model either has a clearer message
        adapters = ", ".join(str(f) for f in folders if is_adapter(f))
        raise ModelError(
            describe(
                f"adapters ({adapters}) and full models", "one kind", "merge the adapters first"
            )
        )
    if options.check:
        _check(folders, options)
        return
    (_adapters if kinds == {True} else _full)(folders, options, executor.checked())
    if options.push is not None:
        from springback.integrations.hub_upload import push as upload

        say(f"pushed: {upload(Path(options.out or ''), options.push)}")


def _resolve(names: Sequence[str], early: str | None, ft: str | None) -> list[Path]:
    """Every checkpoint as a folder on this machine."""
    from springback.models.hub import local_folder

    if len(names) < 2:
        raise ModelError(
            describe(f"{len(names)} checkpoint", "two or more of one run", "name EARLY and FT")
        )
    given: list[str | None] = [*early.split(",")] if early else [None]
    if len(given) not in (1, len(names) - 1):
        raise ModelError(
            describe(
                f"{len(given)} early revisions for {len(names) - 1} checkpoints",
                "one for all, or one each",
                "separate them with commas",
            )
        )
    each = given if len(given) == len(names) - 1 else given * (len(names) - 1)
    pairs = zip(names, [*each, ft], strict=True)
    return [local_folder(name, revision or None) for name, revision in pairs]


def _refuse(flags: dict[str, object], kind: str) -> None:
    """Raise for a flag that means nothing for what was given."""
    for flag, value in flags.items():
        if value:
            raise SpringbackError(f"--{flag} is not for {kind}; leave it out")


def _full(folders: list[Path], options: ExtrapolateOptions, executor: ExecutorSettings) -> None:
    from springback.cli.progress import make_progress
    from springback.weights import extrapolate_along

    _refuse(
        {
            "svd-rank": options.svd_rank,
            "base": options.base,
            "materialise": options.materialise,
            "lam": options.lam is not None,
            "for": options.engine != "peft",
        },
        "full weights",
    )
    how, out = _dense(options), Path(options.out or "")
    if executor.executor == "ray":
        from springback.integrations.ray.extrapolate import extrapolate_on_ray

        _print_report(extrapolate_on_ray(folders, how, out, executor, make_progress()), out)
        return
    _print_report(extrapolate_along(folders, how, out, make_progress()), out)


def _dense(options: ExtrapolateOptions) -> Any:
    """How full weights are extrapolated."""
    from springback.weights import Extrapolation
    from springback.weights.direction import read_mu

    o = options
    mu = 1.0 if o.weights else read_mu(o.mu or "")
    dtype, steps, shares = o.dtype, o.steps or None, o.weights or None
    return Extrapolation(mu, dtype, steps, o.low_rank, o.threads, shares)  # type: ignore[arg-type]


def _print_report(report: Any, out: Path) -> None:
    for warning in report.warnings:
        say(f"warning: {warning}", err=True)
    say(
        f"{report.tensors} tensors, {100 * report.changed_share:.1f} % of the weights changed, "
        f"rounding error {report.rounding_error:.2g} of the step"
    )
    if report.energy_kept is not None:
        say(f"the directions kept hold {100 * report.energy_kept:.1f} % of the update")
    say(f"model: {out}")
    emit(model=out, tensors=report.tensors, rounding_error=report.rounding_error)


def _adapters(folders: list[Path], options: ExtrapolateOptions, executor: ExecutorSettings) -> None:
    from springback.cli.progress import make_progress
    from springback.models.hub import base_of
    from springback.weights import (
        AdapterExtrapolation,
        Contrast,
        extrapolate_adapters,
        materialise_adapters,
        write_adapter_pair,
    )

    _refuse({"executor": executor.executor != "process"}, "adapters, which are small")
    _refuse({"low-rank": options.low_rank}, "adapters (--svd-rank cuts their rank)")
    out, dense = Path(options.out or ""), _dense(options)
    needs_base = options.materialise or options.base is not None
    base = base_of(folders, options.base) if needs_base else None
    if options.materialise and base is not None:
        _refuse({"svd-rank": options.svd_rank, "lam": options.lam is not None}, "--materialise")
        _print_report(materialise_adapters(folders, base, dense, out, make_progress()), out)
        return
    how = AdapterExtrapolation(
        mu=dense.mu,
        dtype=dense.dtype,
        steps=dense.steps,
        shares=dense.shares,
        svd_rank=options.svd_rank,
        engine=options.engine,  # type: ignore[arg-type]
        base=base,
    )
    if options.lam is None:
        made = extrapolate_adapters(folders, how, out, make_progress())
    else:
        pair = Contrast(options.lam, options.alpha)
        made = write_adapter_pair(folders, how, pair, out, make_progress())
    for warning in made.warnings:
        say(f"warning: {warning}", err=True)
    say(
        f"{made.modules} modules of rank {made.rank}, "
        f"rounding error {made.rounding_error:.2g} of the step"
    )
    if made.svd_error is not None and made.svd_worst is not None:
        name, worst = made.svd_worst
        say(f"cut by SVD: relative error {made.svd_error:.2g}, at most {worst:.2g} ({name})")
    say(f"adapter: {out}")
    emit(adapter=out, modules=made.modules, rank=made.rank, rounding_error=made.rounding_error)


def _check(folders: list[Path], options: ExtrapolateOptions) -> None:
    from springback.cli.progress import make_progress
    from springback.weights import check_line, is_adapter, judge

    if any(is_adapter(folder) for folder in folders):
        from springback.models.hub import base_of
        from springback.weights.adapters.merging import merge_each
        from springback.weights.direction import checkpoint_steps

        with TemporaryDirectory(prefix="springback-") as merged:
            base, into = base_of(folders, options.base), Path(merged).resolve()
            taken = checkpoint_steps(folders, options.steps or None)
            whole = merge_each(folders, base, into, make_progress())
            _check(whole, replace(options, steps=taken))
        return
    steps, threads = options.steps or None, options.threads
    checked = check_line(folders, steps=steps, threads=threads, progress=make_progress())
    for line in checked.lines():
        say(line)
    nll, why = (None, None) if options.validation is None else _nll(folders, options.validation)
    if why:
        say(f"validation NLL is withheld: {why}")
    for mu, values in (nll or {}).items():
        say(f"mu {mu:g}: validation NLL {sum(values) / len(values):.4f} nats a token")
    call = judge(checked, nll, withheld=why is not None)
    emit(call=call.label, reasons=call.reasons)
    say(f"{call.label} (by rule of thumb): {'; '.join(call.reasons)}")


def _nll(folders: list[Path], source: str) -> tuple[dict[float, list[float]] | None, str | None]:
    """Validation NLL along mu, of the last two checkpoints, or why there is none; needs torch."""
    from springback.cli.progress import make_progress
    from springback.data import load_slice, nll_withheld
    from springback.models.checkpoint_pair import CheckpointPair
    from springback.models.encoding import encode_rows
    from springback.models.loading import resolve
    from springback.probes.along_mu import nll_along_mu

    part = load_slice(source, split="validation", shuffle=False)
    if why := nll_withheld(part, "validation"):
        return None, why
    pair = CheckpointPair(*(resolve(folder) for folder in folders[-2:]))
    rows = encode_rows(pair.tokenizer, part.rows, 512)
    return nll_along_mu(pair, rows, progress=make_progress()), None
