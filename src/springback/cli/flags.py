"""A job's settings as the flags of its command: each is written once, in its ``settings.py``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from springback.cli.study_file import as_arguments, is_study
from springback.errors import SpringbackError
from springback.jobs.config import build, flag_of, kinds
from springback.settings import Settings, owner_of, parse_arguments

#: Titles in the help: the flags that matter first, and those of the command that are no settings.
FIRST = "Options"
OTHER = "Other options"

_METAVARS = {
    "int": "N",
    "float": "X",
    "str": "TEXT",
    "ints": "N,N,…",
    "floats": "X,X,…",
    "strs": "TEXT,…",
}
_Class = TypeVar("_Class", bound=Settings)


class GroupedCommand(TyperCommand):
    """A command whose help lists its flags by group: :data:`FIRST`, the groups, :data:`OTHER`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, groups = [], {FIRST: [], OTHER: []}  # type: ignore[var-annotated]
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(line)
            else:
                group = getattr(parameter, "rich_help_panel", None) or OTHER
                groups.setdefault(group, []).append(line)
        last = groups.pop(OTHER)
        for title, lines in {"Arguments": arguments, **groups, OTHER: last}.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


class StudyCommand(GroupedCommand):
    """A :class:`GroupedCommand` whose first word may be a study file (:mod:`.study_file`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and is_study(args[0]):
            flags, arguments = as_arguments(args[0], self.get_params(ctx))
            args = [*flags, *arguments, *args[1:]]
        return super().parse_args(ctx, args)


def _typed(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, tuple):
        return ",".join(_typed(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameter(
    settings: type[Settings], f: dataclasses.Field[Any], kind: str, group: str
) -> inspect.Parameter:
    flag, text = f"--{flag_of(settings, f.name)}", f.metadata["help"]
    hint: Any = str | None
    names, more = (flag,), dict[str, Any]()
    if kind in ("map", "json"):
        hint = list[str] | None
    elif kind == "bool":
        hint, names = bool | None, (f"{flag}/--no-{flag[2:]}",)
    else:
        more = {"metavar": _METAVARS[kind]}
        if f.default is not None and f.default not in ((), ""):
            text += f" [default: {_typed(f.default)}]"
    option = typer.Option(*names, help=text, rich_help_panel=group, **more)
    return inspect.Parameter(
        f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[hint, option]
    )


def with_settings(
    *settings: type[Settings], first: str = "", leave_out: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the fields of ``settings`` flags of a command, in groups (:class:`GroupedCommand`).

    Where several classes have a field of one name, the first one's becomes the flag (of one kind
    in all); the command tells them apart with :func:`take`.  ``first``: names of the fields whose
    flags matter first, with spaces between.  Fields in ``leave_out`` become no flags; the command
    has them as arguments of its own.

    The function's ``given`` is a dict of the flags that were given, as text; its other parameters
    stay flags and arguments of their own.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        kind: dict[str, str] = {}
        flags: dict[str, inspect.Parameter] = {}
        for cls in settings:
            known = kinds(cls)
            for f in dataclasses.fields(cls):  # type: ignore[arg-type]
                if f.name not in flags and f.name not in leave_out.split():
                    group = FIRST if f.name in first.split() else owner_of(cls, f.name).group
                    kind[f.name] = known[f.name]
                    flags[f.name] = _parameter(cls, f, known[f.name], group)
        parameters = inspect.signature(function, eval_str=True).parameters
        rest = [p for name, p in parameters.items() if name != "given"]

        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            parsed = {"map": _mapping, "json": parse_arguments}
            function(
                given={
                    name: parsed[kind[name]](value) if kind[name] in parsed else value
                    for name, value in given.items()
                    if value is not None and value != []
                },
                **values,
            )

        # Typer reads a command's flags off its signature.
        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in rest]
        every = [*flags.values(), *kept]
        call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in every}
        call.__name__, call.__doc__ = function.__name__, function.__doc__
        return call

    return wrap


def take(settings: type[_Class], given: dict[str, Any]) -> _Class:
    """``settings`` of the flags in ``given`` that are its own, which are taken out of ``given``."""
    names = [name for name in kinds(settings) if name in given]
    return build(settings, {name: given.pop(name) for name in names})


def _mapping(items: list[str]) -> dict[str, str]:
    columns = {}
    for item in items:
        ours, equals, column = item.partition("=")
        if not (ours and equals and column):
            raise SpringbackError(f"--field is '{item}'; give OURS=COLUMN, such as text=review")
        columns[ours] = column
    return columns
