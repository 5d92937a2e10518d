"""A job's settings as the flags of its command: each is written once, in its ``settings.py``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from springback.errors import SpringbackError
from springback.jobs.config import flag_of, kinds

_METAVARS = {
    "int": "N",
    "float": "X",
    "str": "TEXT",
    "ints": "N,N,…",
    "floats": "X,X,…",
    "strs": "TEXT,…",
}


def _typed(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, tuple):
        return ",".join(_typed(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameter(
    settings: type, f: dataclasses.Field[Any], kind: str, required: bool
) -> inspect.Parameter:
    flag = f"--{flag_of(settings, f.name)}"
    if kind == "map":
        hint: Any = Annotated[list[str] | None, typer.Option(flag, help=f.metadata["help"])]
    elif kind == "bool":
        both = f"{flag}/--no-{flag[2:]}"
        hint = Annotated[bool | None, typer.Option(both, help=f.metadata["help"])]
    else:
        shown = not required and f.default is not None and f.default != ()
        text = f"{f.metadata['help']} [default: {_typed(f.default)}]" if shown else None
        option = typer.Option(flag, help=text or f.metadata["help"], metavar=_METAVARS[kind])
        hint = Annotated[str if required else str | None, option]
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(
        f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
    )


def with_settings(
    settings: type,
    required: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
    also: type | tuple[type, ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the fields of ``settings`` flags of a command, ``required`` ones without a default.

    ``also``: further settings whose fields become flags where the first ones have none of the name
    (of one kind where both have it); the command tells them apart.  Fields in ``leave_out`` become
    no flags; the command has them as arguments of its own.

    The function's ``given`` is a dict of the flags that were given, as text; its other parameters
    stay flags and arguments of their own.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        known = kinds(settings)
        fields = [f for f in dataclasses.fields(settings) if f.name not in leave_out]
        owner = {f.name: settings for f in fields}
        for other in also if isinstance(also, tuple) else (also,):
            more = [f for f in dataclasses.fields(other) if f.name not in owner]
            known, owner = kinds(other) | known, {f.name: other for f in more} | owner
            fields += more
        own = inspect.signature(function, eval_str=True).parameters
        flags = [_parameter(owner[f.name], f, known[f.name], f.name in required) for f in fields]
        rest = [p for name, p in own.items() if name != "given"]

        def call(**values: Any) -> None:
            given = {f.name: values.pop(f.name) for f in fields}
            function(
                given={
                    name: _mapping(value) if known[name] == "map" else value
                    for name, value in given.items()
                    if value is not None and value != []
                },
                **values,
            )

        # Typer reads a command's flags off its signature.
        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in rest]
        call.__signature__ = inspect.Signature([*kept, *flags])  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*kept, *flags]}
        call.__name__, call.__doc__ = function.__name__, function.__doc__
        return call

    return wrap


def _mapping(fields: list[str]) -> dict[str, str]:
    found = {}
    for item in fields:
        ours, equals, column = item.partition("=")
        if not (ours and equals and column):
            raise SpringbackError(f"--field is '{item}'; give OURS=COLUMN, such as text=review")
        found[ours] = column
    return found
