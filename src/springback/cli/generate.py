"""``springback generate``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from springback.errors import SpringbackError


def generate(
    model: Annotated[str, typer.Argument(help="Boosted or plain folder, hub id, built-in name.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts; without any, lines of standard input.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    prompt_template: Annotated[
        str | None,
        typer.Option(help="Frame of a prompt; {question}: none. Default: the boosted folder's."),
    ] = None,
    raw: Annotated[bool, typer.Option(help="Continue the text, no chat template.")] = False,
    top_k: Annotated[int, typer.Option(help="Sample from this many tokens; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from this share; 1 is off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="At least this share of the top's p.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 repeats less.")] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="End an answer before this text; may be repeated.")
    ] = None,
    draft: Annotated[
        str, typer.Option(help="Speculate by ngram, amateur, model or none.")
    ] = "ngram",
    draft_model: Annotated[
        str | None, typer.Option(help="With --draft model: a smaller one, same tokenizer.")
    ] = None,
    cache: Annotated[
        str, typer.Option(help="dynamic; on a GPU static (CUDA graphs) or compiled.")
    ] = "dynamic",
    reference: Annotated[
        bool, typer.Option("--reference", help="Plain loop: the same answers, slower.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it comes.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say what it took, on standard error.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="Base model of an adapter folder.")] = None,
) -> None:
    """Answer prompts; a boosted folder is decoded contrastively."""
    from springback.inference import GenerateSettings, load
    from springback.inference import generate as run

    lines = prompt or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise SpringbackError("no prompt; give one as an argument or on standard input")
    settings = GenerateSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        system=system,
        prompt_template=prompt_template,
        raw=raw,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        draft=draft,
        draft_model=draft_model,
        cache=cache,
        reference=reference,
    )
    loaded = load(model, base)
    if not stream:
        found = run(loaded, lines, settings)
        for answer in found:
            typer.echo(answer)
        if stats:
            typer.echo(found.work.summary(), err=True)
        return
    for line in lines:  # one after the other, so that answers do not mix
        told = run(loaded, [line], settings, on_text=lambda _, piece: typer.echo(piece, nl=False))
        typer.echo()
        if stats:
            typer.echo(told.work.summary(), err=True)
