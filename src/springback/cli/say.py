"""The one way in which commands print: nothing that others wrote steers the terminal.

With ``--json`` what is for people goes to standard error, which leaves standard output to one line.
"""

from __future__ import annotations

import typer

from springback.cli.output import OUTPUT
from springback.core import printable


def say(text: str, *, err: bool = False) -> None:
    """Print one line; breaks within it are spelt out, so that no name passes for a line of ours."""
    typer.echo(printable(text), err=err or OUTPUT.json)


def say_block(text: str, *, nl: bool = True) -> None:
    """Print a text of several lines, or with ``nl`` False a piece of one."""
    typer.echo(printable(text, lines=True), nl=nl, err=OUTPUT.json)
