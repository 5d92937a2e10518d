"""``springback clean``: what a job's folder holds that can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from springback.cli.output import emit
from springback.cli.say import say


def clean(
    folder: Annotated[Path, typer.Argument(help="Folder that a job wrote (its --out).")],
    yes: Annotated[bool, typer.Option("--yes", help="Free what is listed.")] = False,
) -> None:
    """List what a job's folder holds that can be made again, at what cost; with --yes free it.

    Partial states, merged copies, weights of the job's own trainings; results, report, boosted
    folder and what you named as input stay. Afterwards the same command still shows its result
    without training; what needs weights that are gone says so and makes them again.
    """
    from springback.core import byte_size
    from springback.jobs.clean import find, free

    listed = free(folder) if yes else find(folder)
    items = []
    for one in listed.spare:
        item = {"path": one.path, "what": one.what, "bytes": one.bytes}
        items.append({**item, "again": one.again, "seconds": one.seconds})
        say(f"{byte_size(one.bytes):>9}  {one.what}: {one.path} ({one.again}{_took(one.seconds)})")
    for path in listed.kept:
        say(f"{'kept':>9}  {path} (named as input)")
    emit(folder=folder, freed=yes, bytes=listed.bytes, items=items, kept=list(listed.kept))
    if not items:
        say(f"nothing to free in {folder}")
    elif yes:
        say(f"freed: {byte_size(listed.bytes)}")
    else:
        say(f"{byte_size(listed.bytes)} can be freed: springback clean {folder} --yes")


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "; time not recorded"
    if not seconds:
        return ""
    return f"; took {seconds:.0f} s" if seconds < 100 else f"; took {seconds / 60:.0f} min"
