"""``springback generate``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from springback.cli.flags import FIRST, take, with_settings
from springback.cli.output import OUTPUT, emit
from springback.cli.say import say, say_block
from springback.errors import SpringbackError
from springback.settings import ComputeSettings, GenerateOptions, SpeedSettings, check_speed


@with_settings(GenerateOptions, first="max_new_tokens temperature seed system raw")
def generate(
    given: dict[str, Any],
    model: Annotated[str, typer.Argument(help="Boosted or plain folder, hub id, built-in name.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts; without any, lines of standard input.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="End an answer before this text; may be repeated.", rich_help_panel=FIRST
        ),
    ] = None,
    draft_model: Annotated[
        str | None,
        typer.Option(
            help="With --draft model: a smaller one, same tokenizer.",
            rich_help_panel=SpeedSettings.group,
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print text as it comes.", rich_help_panel=FIRST)
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say what it took, on standard error.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(help="Base model of an adapter folder.", rich_help_panel=FIRST),
    ] = None,
) -> None:
    """Answer prompts; a boosted folder is decoded contrastively."""
    from springback.models.names import require_decoder

    place_settings = take(ComputeSettings, given)
    wanted = take(GenerateOptions, given)
    require_decoder(model, place_settings)
    wanted.check_sampling()
    check_speed(wanted.draft, wanted.cache, draft_model)
    if draft_model:
        require_decoder(draft_model, place_settings)

    lines = prompt or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise SpringbackError("no prompt; give one as an argument or on standard input")
    from springback.inference import GenerateSettings, load_at
    from springback.inference import generate as run
    from springback.models.placement import placement

    place = placement(place_settings)
    settings = GenerateSettings(**vars(wanted), stop=tuple(stop or ()), draft_model=draft_model)
    loaded = load_at(model, place, base)
    if not stream or OUTPUT.json:
        answers = run(loaded, lines, settings)
        emit(answers=list(answers))
        for answer in answers:
            say_block(answer)
        if stats:
            say(answers.work.summary(), err=True)
        return
    for line in lines:  # one after the other, so that answers do not mix
        answers = run(loaded, [line], settings, on_text=lambda _, piece: say_block(piece, nl=False))
        say("")
        if stats:
            say(answers.work.summary(), err=True)
