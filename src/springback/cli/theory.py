"""``springback theory``: the elasticity theorem in numbers, the Pareto test, the springs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from springback.cli.finish import finish
from springback.cli.flags import with_settings
from springback.jobs.papers.theory.settings import ParetoSettings, SpringsSettings, TheoremSettings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Token trees, codes and the elasticity theorem in numbers; is data Pareto? do sets pull?",
)


@app.command()
@with_settings(TheoremSettings)
def theorem(
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path(
        "springback-theory-theorem"
    ),
) -> None:
    """Ratio of the rates against k and l, its sign and where it departs; about a minute."""
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.papers.theory.job import theorem_study

    finish(theorem_study(config.build(TheoremSettings, given), out, make_progress()))


@app.command()
@with_settings(ParetoSettings, leave_out="data")
def pareto(
    given: dict[str, Any],
    data: Annotated[
        list[str], typer.Argument(metavar="DATA…", help="Files, hub ids or built-in names.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for results; the same command goes on there.")
    ] = Path("springback-theory-pareto"),
) -> None:
    """Tail exponents of n-grams and of the pruned tree's leaves, tested against rivals."""
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.papers.theory.job import pareto_study

    settings = config.build(ParetoSettings, {**given, "data": data})
    finish(pareto_study(settings, out, make_progress()))


@app.command()
@with_settings(SpringsSettings)
def springs(
    given: dict[str, Any],
    out: Annotated[
        Path, typer.Option(help="Folder for results; the same command goes on there.")
    ] = Path("springback-theory-springs"),
) -> None:
    """Does volume times elongation stay equal?  Trains tiny Llamas, jointly and in sequence."""
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.papers.theory.springs import springs_study

    finish(springs_study(config.build(SpringsSettings, given), out, make_progress()))
