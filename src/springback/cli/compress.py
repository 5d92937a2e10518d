"""``springback compress`` and ``springback decompress``: the model as a lossless compressor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from springback.cli.flags import take, with_settings
from springback.cli.output import emit
from springback.cli.say import say
from springback.compression.settings import CodecSettings

_Source = Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")]
_Container = Annotated[Path, typer.Argument(metavar="FILE", help="What compress wrote.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")]


@with_settings(CodecSettings)
def compress(
    given: dict[str, Any],
    file: _Source,
    out: Annotated[Path, typer.Option(help="The compressed file.")],
    model: Annotated[
        str, typer.Option(help="Model folder, hub id or built-in name.")
    ] = "smollm2-135m",
    force: _Force = False,
) -> None:
    """Compress a file with a language model; any bytes will do, text is what it is good at.

    Slow: the whole model runs for every token, here and when decompressing (docs/compress.md). Only
    the same model decompresses it, on the same kind of machine.
    """
    from springback.cli.progress import make_progress
    from springback.compression.files import compress as run

    made = run(file, out, model, take(CodecSettings, given), force, make_progress())
    emit(file=out, bytes=made.container_bytes, of=made.original_bytes)
    line = f"{out}: {made.container_bytes} bytes of {made.original_bytes}"
    if made.original_bytes:
        line += f", {made.bits_per_byte:.3f} bits a byte"
    if made.raw_bytes:
        line += f", {made.raw_bytes} bytes not as text"
    say(line + (", verified" if made.verified else ""))


def decompress(
    file: _Container,
    out: Annotated[Path, typer.Option(help="The file as it was.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model it was compressed with. Default: the built-in one."),
    ] = None,
    force: _Force = False,
) -> None:
    """Restore a file that compress wrote, or say in one line why that cannot be done.

    Threads, dtype and batch are taken from the file.
    """
    from springback.cli.progress import make_progress
    from springback.compression.files import decompress as run

    written = run(file, out, model, force, make_progress())
    emit(file=out, bytes=written)
    say(f"{out}: {written} bytes")
