"""Commands, flags and exit codes.  Each command imports its job when it runs, not before."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from springback.cli.extrapolate import extrapolate
from springback.errors import SpringbackError
from springback.jobs.settings import AuditSettings, BoostSettings

app = typer.Typer(
    name="springback",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Measure how strongly an aligned language model springs back (audit), and make a "
        "fine-tuned one better without training (boost). Start with: springback demo"
    ),
    epilog="Exit codes: 0 done, 2 the input is at fault (one line says how), 130 interrupted.",
)

_A = AuditSettings()
_B = BoostSettings()

Out = Annotated[Path, typer.Option(help="Folder for results; the same command goes on there.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="OURS=COLUMN, when the data's columns are not recognised."),
]


def _numbers(text: str, flag: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """``1,2,3`` as a tuple."""
    try:
        return tuple(kind(part) for part in text.replace(" ", "").split(",") if part)
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise SpringbackError(
            f"--{flag} is '{text}'; give {what} separated by commas, such as 1,2"
        ) from error


def _mapping(fields: list[str] | None) -> dict[str, str]:
    found = {}
    for item in fields or []:
        ours, equals, column = item.partition("=")
        if not (ours and equals and column):
            raise SpringbackError(f"--field is '{item}'; give OURS=COLUMN, such as text=review")
        found[ours] = column
    return found


def _listed(values: tuple[Any, ...]) -> str:
    return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _finish(result: Any) -> None:
    """Build the report and say where everything is."""
    from springback.report import build

    page = build(result.folder)
    typer.echo(result.verdict)
    typer.echo(f"results: {result.folder / 'result.json'}")
    typer.echo(f"report:  {page}")


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option(help="Show the whole trace of an error.")] = False,
) -> None:
    """``--debug`` is taken off anywhere in the line by :func:`main`; here it is for the help."""


@app.command()
def demo(
    out: Out = Path("springback-demo"),
    quick: Annotated[bool, typer.Option(help="Smaller: about 2 minutes, noisier.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Run audit and boost on the built-in model and data; ends with a report."""
    from springback.cli.progress import make_progress
    from springback.jobs.demo import demo as run

    _finish(run(out, quick=quick, seed=seed, progress=make_progress()))


@app.command()
def audit(
    model: Annotated[str, typer.Option(help="Model folder, hub id, or built-in name.")] = _A.model,
    align: Annotated[str, typer.Option(help="Data that aligns: file or built-in.")] = _A.align,
    perturb: Annotated[str, typer.Option(help="Data of the opposite kind.")] = _A.perturb,
    out: Out = Path("springback-audit"),
    n_pos: Annotated[str, typer.Option(help="Aligning examples at the branch points.")] = _listed(
        _A.n_pos
    ),
    doses: Annotated[str, typer.Option(help="Perturbing examples to measure at.")] = _listed(
        _A.doses
    ),
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds; default 0,1,2, or 0 on the built-in model and data."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Constant.")] = _A.learning_rate,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = _A.batch_size,
    max_tokens: Annotated[int, typer.Option(help="Rows are cut here.")] = _A.max_tokens,
    holdout: Annotated[int, typer.Option(help="Held-out texts a side.")] = _A.holdout,
    prompts: Annotated[int, typer.Option(help="Prompts for KL and samples.")] = _A.prompts,
    prompt_tokens: Annotated[
        int, typer.Option(help="Length of prompts cut from plain text.")
    ] = _A.prompt_tokens,
    sample_tokens: Annotated[
        int, typer.Option(help="Tokens of a sampled continuation.")
    ] = _A.sample_tokens,
    probes: Annotated[str, typer.Option(help="What to measure.")] = ",".join(_A.probes),
    resistance_rows: Annotated[
        int, typer.Option(help="Rows of each resistance slice; 0 leaves it out.")
    ] = _A.resistance_rows,
    precision: Annotated[str, typer.Option(help="auto, bf16-mixed or float32.")] = _A.precision,
    probe_precision: Annotated[
        str, typer.Option(help="float32 or bf16-mixed.")
    ] = _A.probe_precision,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    field: Fields = None,
) -> None:
    """Align a model, perturb it the other way, measure how it springs back.

    On the built-in model and data: one seed unless --seeds says otherwise, under 10 minutes on
    2 cores. Studies of your own default to 3 seeds.
    """
    from springback.cli.progress import make_progress
    from springback.jobs.audit import audit as run

    bare = (model, align, perturb) == (_A.model, _A.align, _A.perturb)
    default_seeds = (0,) if bare else _A.seeds
    settings = AuditSettings(
        model=model,
        revision=revision,
        align=align,
        perturb=perturb,
        fields=_mapping(field),
        n_pos=_numbers(n_pos, "n-pos", int),
        doses=_numbers(doses, "doses", int),
        seeds=_numbers(seeds, "seeds", int) if seeds is not None else default_seeds,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_tokens=max_tokens,
        holdout=holdout,
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        sample_tokens=sample_tokens,
        probes=tuple(p for p in probes.replace(" ", "").split(",") if p),
        resistance_rows=resistance_rows,
        precision=precision,
        probe_precision=probe_precision,
    )
    _finish(run(settings, out, make_progress()))


@app.command()
def boost(
    validation: Annotated[str, typer.Option(help="Questions to choose mu and lambda on.")],
    test: Annotated[str, typer.Option(help="Questions to judge on, scored once.")],
    early: Annotated[str | None, typer.Option(help="The earlier checkpoint of a run.")] = None,
    ft: Annotated[str | None, typer.Option(help="Its last checkpoint.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of two checkpoints: fine-tune this model …")
    ] = None,
    train: Annotated[str | None, typer.Option(help="… on these rows.")] = None,
    train_rows: Annotated[int | None, typer.Option(help="Take this many of them.")] = None,
    out: Out = Path("springback-boost"),
    metric: Annotated[str, typer.Option(help="number, choice or exact.")] = _B.metric,
    mu: Annotated[str, typer.Option(help="Candidates; 0 is always one.")] = _listed(_B.mu),
    lam: Annotated[str, typer.Option("--lambda", help="Candidates; 0 is always one.")] = _listed(
        _B.lam
    ),
    lam_cd: Annotated[str, typer.Option("--cd-lambda", help="Candidates of CD only.")] = _listed(
        _B.lam_cd
    ),
    alpha: Annotated[float, typer.Option(help="Plausibility threshold.")] = _B.alpha,
    validation_rows: Annotated[int | None, typer.Option(help="Take this many.")] = None,
    test_rows: Annotated[int | None, typer.Option(help="Take this many.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = _B.max_new_tokens,
    max_tokens: Annotated[
        int, typer.Option(help="Rows are cut here in training and scoring.")
    ] = _B.max_tokens,
    batch_size: Annotated[int, typer.Option(help="Questions decoded at once.")] = _B.batch_size,
    system: Annotated[str | None, typer.Option(help="System message of every question.")] = None,
    learning_rate: Annotated[float, typer.Option(help="With --train.")] = _B.learning_rate,
    train_batch_size: Annotated[int, typer.Option(help="With --train.")] = _B.train_batch_size,
    epochs: Annotated[int, typer.Option(help="With --train, at least 2.")] = _B.epochs,
    precision: Annotated[str, typer.Option(help="Of training.")] = _B.precision,
    tolerance: Annotated[
        float, typer.Option(help="What 'no gain' means, as a share of questions.")
    ] = _B.tolerance,
    seed: Annotated[int, typer.Option(help="Of data order and training.")] = _B.seed,
    field: Fields = None,
) -> None:
    """Extrapolate past the last checkpoint, decode contrastively, and prove the gain."""
    from springback.cli.progress import make_progress
    from springback.jobs.boost import boost as run

    settings = BoostSettings(
        validation=validation,
        test=test,
        early=early,
        ft=ft,
        model=model,
        train=train,
        train_rows=train_rows,
        fields=_mapping(field),
        metric=metric,
        mu=_numbers(mu, "mu", float),
        lam=_numbers(lam, "lambda", float),
        lam_cd=_numbers(lam_cd, "cd-lambda", float),
        alpha=alpha,
        validation_rows=validation_rows,
        test_rows=test_rows,
        max_new_tokens=max_new_tokens,
        max_tokens=max_tokens,
        batch_size=batch_size,
        system=system,
        learning_rate=learning_rate,
        train_batch_size=train_batch_size,
        epochs=epochs,
        precision=precision,
        tolerance=tolerance,
        seed=seed,
    )
    _finish(run(settings, out, make_progress()))


app.command()(extrapolate)


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="Boosted or plain folder, hub id, built-in name.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts; without any, lines of standard input.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    raw: Annotated[bool, typer.Option(help="Continue the text, no chat template.")] = False,
) -> None:
    """Answer prompts; a boosted folder is decoded contrastively."""
    from springback.inference import generate as run

    lines = prompt or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise SpringbackError("no prompt; give one as an argument or on standard input")
    answers = run(
        model,
        lines,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        system=system,
        raw=raw,
    )
    for answer in answers:
        typer.echo(answer)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder with a result.json.")],
) -> None:
    """Rebuild the report from the result file."""
    from springback.report import build

    typer.echo(f"report: {build(folder)}")


@app.command()
def doctor() -> None:
    """Print versions, device, memory, cache, and what is missing."""
    from springback.doctor import diagnose

    findings = diagnose()
    width = max(len(f.name) for f in findings)
    for finding in findings:
        mark = "ok" if finding.ok else "!!"
        typer.echo(f"{mark}  {finding.name:<{width}}  {finding.value}")
        if finding.advice and not finding.ok:
            typer.echo(f"    {'':<{width}}  -> {finding.advice}")


def main() -> None:
    """Entry point: errors of ours become one line and exit code 2."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    # Read when torch starts its threads, so set before anything imports it.  Threads that spin at
    # barriers make a step ten times slower as soon as another process wants a core (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(args=arguments, prog_name="springback")
    except SpringbackError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
