"""``springback extrapolate``: full weights or LoRA adapters, written or only checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from springback.errors import ModelError, SpringbackError, describe
from springback.integrations.ray.settings import ExecutorSettings

_Folders = Annotated[
    list[str],
    typer.Argument(
        metavar="EARLY… FT",
        help="The checkpoints, the last one last: folders, or org/name@revision.",
    ),
]
_Mu = Annotated[
    str | None,
    typer.Option(help="How far past the last one: 0.2, or by group: attention=0.2,mlp=0.1."),
]
_Out = Annotated[Path | None, typer.Option(help="Folder of the new model or adapter.")]
_Dtype = Annotated[
    str, typer.Option(help="auto (as the last checkpoint), float32, bfloat16 or float16.")
]
_Threads = Annotated[int | None, typer.Option(help="Default: the processors, at most 8.")]
_EarlyRevision = Annotated[
    str | None, typer.Option(help="Hub revision of EARLY; several: one each, with commas.")
]
_FtRevision = Annotated[str | None, typer.Option(help="Hub revision of FT.")]
_Steps = Annotated[
    str | None,
    typer.Option(
        help="Training steps of three or more; default: from names checkpoint-STEP, else even."
    ),
]
_LowRank = Annotated[
    int | None, typer.Option(help="Move matrices along their top K directions only.")
]
_SvdRank = Annotated[int | None, typer.Option(help="Adapters: cut to this rank, no longer exact.")]
_For = Annotated[str, typer.Option("--for", help="Adapters: peft, or vllm, which loads less.")]
_Base = Annotated[str | None, typer.Option(help="Adapters: folder or hub id of the base model.")]
_Lam = Annotated[
    float | None,
    typer.Option(help="Adapters: put FT beside, to decode contrastively with this lambda."),
]
_Alpha = Annotated[float, typer.Option(help="With --lam: how plausible a token has to be.")]
_Materialise = Annotated[
    bool, typer.Option("--materialise", help="Adapters: write a copy of --base with them in it.")
]
_Push = Annotated[
    str | None, typer.Option(help="Upload what was written to the Hub: org/name, private.")
]
_Executor = Annotated[str, typer.Option(help="process, or ray: each shard of full weights a task.")]
_Address = Annotated[str | None, typer.Option(help="Of a running Ray, HOST:PORT or auto.")]
_Check = Annotated[bool, typer.Option("--check", help="Only say whether it looks safe.")]
_Validation = Annotated[
    str | None, typer.Option(help="With --check: rows to take the NLL along mu on.")
]


@dataclass(frozen=True)
class _Asked:
    """The flags that decide what is written."""

    mu: Any
    out: Path
    dtype: str
    threads: int | None
    steps: tuple[float, ...] | None
    low_rank: int | None
    svd_rank: int | None
    engine: str
    base: Path | None
    materialise: bool
    lam: float | None
    alpha: float
    executor: ExecutorSettings


def extrapolate(
    checkpoints: _Folders,
    mu: _Mu = None,
    out: _Out = None,
    dtype: _Dtype = "auto",
    threads: _Threads = None,
    early_revision: _EarlyRevision = None,
    ft_revision: _FtRevision = None,
    steps: _Steps = None,
    low_rank: _LowRank = None,
    svd_rank: _SvdRank = None,
    engine: _For = "peft",
    base: _Base = None,
    lam: _Lam = None,
    alpha: _Alpha = 0.1,
    materialise: _Materialise = False,
    push: _Push = None,
    check: _Check = False,
    validation: _Validation = None,
    executor: _Executor = "process",
    address: _Address = None,
    run_cpus: Annotated[int, typer.Option(help="Cores of each shard on Ray.")] = 1,
) -> None:
    """Write the extrapolated model: ft + mu * (ft - early), streamed tensor by tensor.

    Two checkpoints or more of one run: full weights, or LoRA adapters, which give one adapter.
    More than two: along the least-squares line through them.
    """
    taken = _steps(steps)
    if validation is not None and not check:
        raise SpringbackError("--validation is for --check; leave it out, or add --check")
    if check and push is not None:
        raise SpringbackError("--check writes nothing to --push; leave one of them out")
    if push is not None:
        from springback.integrations.hub_upload import check_name

        check_name(push)
    if check:
        _check(_resolve(checkpoints, early_revision, ft_revision), taken, threads, validation)
        return
    if mu is None or out is None:
        raise SpringbackError("extrapolate needs --mu and --out (or --check alone); give both")
    folders = _resolve(checkpoints, early_revision, ft_revision)
    from springback.models.hub import local_folder
    from springback.weights import is_adapter
    from springback.weights.direction import read_mu

    asked = _Asked(
        mu=read_mu(mu),
        out=out,
        dtype=dtype,
        threads=threads,
        steps=taken,
        low_rank=low_rank,
        svd_rank=svd_rank,
        engine=engine,
        base=None if base is None else local_folder(base),
        materialise=materialise,
        lam=lam,
        alpha=alpha,
        executor=ExecutorSettings(executor, address, run_cpus).checked(),
    )
    kinds = {is_adapter(folder) for folder in folders}
    if len(kinds) > 1:
        given = ", ".join(str(f) for f in folders if is_adapter(f))
        raise ModelError(
            describe(f"adapters ({given}) and full models", "one kind", "merge the adapters first")
        )
    (_adapters if kinds == {True} else _full)(folders, asked)
    if push is not None:
        from springback.integrations.hub_upload import push as upload

        typer.echo(f"pushed: {upload(out, push)}")


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


def _steps(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SpringbackError(
            f"--steps is '{text}'; give numbers separated by commas, such as 100,200,300"
        ) from error


def _refuse(flags: dict[str, object], kind: str) -> None:
    """Raise for a flag that means nothing for what was given."""
    for flag, value in flags.items():
        if value:
            raise SpringbackError(f"--{flag} is not for {kind}; leave it out")


def _full(folders: list[Path], asked: _Asked) -> None:
    from springback.cli.progress import make_progress
    from springback.weights import Extrapolation, extrapolate_along

    flags = {"svd-rank": asked.svd_rank, "base": asked.base, "materialise": asked.materialise}
    flags["lam"] = asked.lam is not None
    _refuse({**flags, "for": asked.engine != "peft"}, "full weights")
    how = Extrapolation(asked.mu, asked.dtype, asked.steps, asked.low_rank, asked.threads)  # type: ignore[arg-type]
    if asked.executor.executor == "ray":
        from springback.integrations.ray.extrapolate import extrapolate_on_ray

        _told(
            extrapolate_on_ray(folders, how, asked.out, asked.executor, make_progress()), asked.out
        )
        return
    _told(extrapolate_along(folders, how, asked.out, make_progress()), asked.out)


def _told(report: Any, out: Path) -> None:
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(
        f"{report.tensors} tensors, {100 * report.changed_share:.1f} % of the weights changed, "
        f"rounding error {report.rounding_error:.2g} of the step"
    )
    if report.energy_kept is not None:
        typer.echo(f"the directions kept hold {100 * report.energy_kept:.1f} % of the update")
    typer.echo(f"model: {out}")


def _adapters(folders: list[Path], asked: _Asked) -> None:
    from springback.cli.progress import make_progress
    from springback.weights import (
        AdapterExtrapolation,
        Contrast,
        Extrapolation,
        extrapolate_adapters,
        materialise_adapters,
        write_adapter_pair,
    )

    _refuse({"executor": asked.executor.executor != "process"}, "adapters, which are small")
    _refuse({"low-rank": asked.low_rank}, "adapters (--svd-rank cuts their rank)")
    if asked.materialise:
        if asked.base is None:
            raise SpringbackError("--materialise needs --base, the folder of the base model")
        _refuse({"svd-rank": asked.svd_rank, "lam": asked.lam is not None}, "--materialise")
        dense = Extrapolation(asked.mu, asked.dtype, asked.steps, threads=asked.threads)  # type: ignore[arg-type]
        report = materialise_adapters(folders, asked.base, dense, asked.out, make_progress())
        _told(report, asked.out)
        return
    how = AdapterExtrapolation(
        mu=asked.mu,
        dtype=asked.dtype,  # type: ignore[arg-type]
        steps=asked.steps,
        svd_rank=asked.svd_rank,
        engine=asked.engine,  # type: ignore[arg-type]
        base=asked.base,
    )
    if asked.lam is None:
        made = extrapolate_adapters(folders, how, asked.out, make_progress())
    else:
        pair = Contrast(asked.lam, asked.alpha)
        made = write_adapter_pair(folders, how, pair, asked.out, make_progress())
    for warning in made.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(
        f"{made.modules} modules of rank {made.rank}, "
        f"rounding error {made.rounding_error:.2g} of the step"
    )
    if made.svd_error is not None and made.svd_worst is not None:
        name, worst = made.svd_worst
        typer.echo(f"cut by SVD: relative error {made.svd_error:.2g}, at most {worst:.2g} ({name})")
    typer.echo(f"adapter: {asked.out}")


def _check(
    folders: list[Path], steps: tuple[float, ...] | None, threads: int | None, rows: str | None
) -> None:
    from springback.cli.progress import make_progress
    from springback.weights import check_line, is_adapter, judge

    if adapters := [str(folder) for folder in folders if is_adapter(folder)]:
        raise ModelError(
            describe(
                f"--check of adapters ({', '.join(adapters)})",
                "full weights",
                "boost, with --model naming their base, tells it of adapters too",
            )
        )
    found = check_line(folders, steps=steps, threads=threads, progress=make_progress())
    for line in found.lines():
        typer.echo(line)
    nll, why = (None, None) if rows is None else _nll(folders, rows)
    if why:
        typer.echo(f"validation NLL is withheld: {why}")
    for mu, values in (nll or {}).items():
        typer.echo(f"mu {mu:g}: validation NLL {sum(values) / len(values):.4f} nats a token")
    call = judge(found, nll, withheld=why is not None)
    typer.echo(f"{call.label} (by rule of thumb): {'; '.join(call.reasons)}")


def _nll(folders: list[Path], source: str) -> tuple[dict[float, list[float]] | None, str | None]:
    """Validation NLL along mu, of the last two checkpoints, or why there is none; needs torch."""
    from springback.cli.progress import make_progress
    from springback.data import load_slice, nll_withheld
    from springback.models.checkpoint_pair import Sweep
    from springback.models.encoding import encode_rows
    from springback.models.loading import resolve
    from springback.probes.along_mu import nll_along_mu

    part = load_slice(source, split="validation", shuffle=False)
    if why := nll_withheld(part, "validation"):
        return None, why
    sweep = Sweep(*(resolve(folder) for folder in folders[-2:]))
    rows = encode_rows(sweep.tokenizer, part.rows, 512)
    return nll_along_mu(sweep, rows, progress=make_progress()), None
