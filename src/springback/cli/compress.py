"""``springback compress`` and ``springback decompress``: the model as a lossless compressor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Source = Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")]
_Container = Annotated[Path, typer.Argument(metavar="FILE", help="What compress wrote.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")]


def compress(
    file: _Source,
    out: Annotated[Path, typer.Option(help="The compressed file.")],
    model: Annotated[
        str, typer.Option(help="Model folder, hub id or built-in name.")
    ] = "smollm2-135m",
    chunk: Annotated[
        int, typer.Option(help="Tokens coded from an empty context; more packs better.")
    ] = 512,
    batch: Annotated[
        int, typer.Option(help="Chunks coded together, at most; more is faster.")
    ] = 64,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    threads: Annotated[int | None, typer.Option(help="Default: what torch takes.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode it again before it appears; twice the time.")
    ] = False,
    force: _Force = False,
) -> None:
    """Compress a file with a language model; any bytes will do, text is what it is good at.

    Slow: the whole model runs for every token, here and when decompressing (docs/compress.md). Only
    the same model decompresses it, on the same kind of machine.
    """
    from springback.cli.progress import make_progress
    from springback.compression.files import compress as run
    from springback.compression.settings import CodecSettings

    settings = CodecSettings(chunk, batch, dtype, threads, verify)
    found = run(file, out, model, settings, force, make_progress())
    line = f"{out}: {found.container_bytes} bytes of {found.original_bytes}"
    if found.original_bytes:
        line += f", {found.bits_per_byte:.3f} bits a byte"
    if found.raw_bytes:
        line += f", {found.raw_bytes} bytes not as text"
    typer.echo(line + (", verified" if found.verified else ""))


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

    typer.echo(f"{out}: {run(file, out, model, force, make_progress())} bytes")
