"""Settings out of what a user wrote: flags, a study file, or both (a flag wins)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from springback.core import to_jsonable
from springback.errors import SpringbackError, did_you_mean
from springback.settings import hints_of
from springback.settings import kind_of as kind_of

Settings = TypeVar("Settings")

#: Lists and values of a study file, an alias counted as often as it is used.
MAX_NODES = 100_000
_SHOWN = 200

_WORDS = {
    "int": "a whole number, such as 8",
    "float": "a number, such as 0.1",
    "str": "a text",
    "bool": "true or false",
    "ints": "whole numbers separated by commas, such as 1,2",
    "floats": "numbers separated by commas, such as 0.1,0.2",
    "strs": "names separated by commas",
    "map": "pairs OURS=COLUMN, such as text=review",
    "json": "JSON or NAME=VALUE, such as enable_thinking=false",
}


def kinds(settings: type) -> dict[str, str]:
    """:func:`kind_of` every field, in order."""
    hints = hints_of(settings)
    return {f.name: kind_of(hints[f.name]) for f in dataclasses.fields(settings)}


def flag_of(settings: type, name: str) -> str:
    """The flag's name without dashes: ``n-pos`` for ``n_pos``."""
    for f in dataclasses.fields(settings):
        if f.name == name:
            return f.metadata["flag"] or name.replace("_", "-")
    raise KeyError(name)


def build(settings: type[Settings], values: Mapping[str, Any], file: str | None = None) -> Settings:
    """``settings`` with ``values`` checked and converted; lists may be text with commas.

    Raises :class:`SpringbackError` for a name that is no setting, or a value that is not of the
    setting's kind; ``file`` is named in the message if the values came from one.
    """
    from pydantic import TypeAdapter, ValidationError

    known = kinds(settings)
    if unknown := [name for name in values if name not in known]:
        raise SpringbackError(
            f"{file or 'the settings'} has {', '.join(map(repr, unknown))}"
            f"{did_you_mean(unknown[0], known)}; allowed: {', '.join(known)}"
        )
    plain = {name: _listed(known[name], value) for name, value in values.items()}
    try:
        made: Settings = TypeAdapter(settings).validate_python(plain)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        given = values[name]
        label = f"{name} in {file}" if file else f"--{flag_of(settings, name)}"
        shown = _short(repr(given) if isinstance(given, str) else str(given))
        raise SpringbackError(f"{label} is {shown}; give {_WORDS[known[name]]}") from error
    return made


def converted(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` checked and converted as :func:`build` does, and no other setting."""
    made: Any = build(settings, values)
    return {name: getattr(made, name) for name in values}


def _listed(kind: str, value: Any) -> Any:
    """A text with commas as a list, where a list is meant; one value as a list of one."""
    if not kind.endswith("s") or isinstance(value, (list, tuple)):
        return value
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value]


def read_study(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML study file.

    Raises :class:`SpringbackError` where there is no such file, it is not YAML, or no mapping, or
    where its aliases stand for more than :data:`MAX_NODES` values.
    """
    import yaml

    place = Path(path)
    try:
        values = yaml.safe_load(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpringbackError(
            f"cannot read the study file '{path}' ({error.strerror or error}); "
            "give a YAML file with settings, one 'name: value' a line"
        ) from error
    # A date that is none and a number of 5,000 digits are ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = _short(str(error).splitlines()[0])
        raise SpringbackError(
            f"'{path}' is not YAML ({first}); write 'name: value' lines"
        ) from error
    if values is None:
        return {}
    _require_small(values, path)
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise SpringbackError(
            f"'{path}' holds no settings but a {type(values).__name__}; write 'name: value' lines"
        )
    return values


def _require_small(values: Any, path: str | Path) -> None:
    """Raise where aliases make a short file long; one that holds itself has no end."""
    waiting, nodes = [values], 0
    while waiting and nodes <= MAX_NODES:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            nodes += len(node)
            waiting += node.values() if isinstance(node, dict) else node
    if nodes > MAX_NODES:
        raise SpringbackError(
            f"'{path}' holds more than {MAX_NODES} values; write out the settings without aliases"
        )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def show(settings: Any) -> str:
    """Every setting as a YAML study file with its help, defaults included; reads back the same."""
    lines = []
    for f in dataclasses.fields(settings):
        value = to_jsonable(getattr(settings, f.name))
        lines += [f"# {f.metadata['help']}", f"{f.name}: {json.dumps(value)}", ""]
    return "\n".join(lines)
