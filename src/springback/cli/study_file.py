"""A study file in place of flags: ``springback generate study.yaml`` and its like.

Its names are those of the flags and arguments; a flag that is given beside it wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError, did_you_mean


def is_study(word: str) -> bool:
    """Whether an argument is a study file and no model: a YAML file by its name."""
    return word.endswith((".yaml", ".yml")) and not word.startswith("-") and not Path(word).is_dir()


def as_arguments(file: str, parameters: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The flags and the arguments that ``file`` stands for, by a command's click ``parameters``.

    Raises :class:`SpringbackError` for a name that is none of them or a value of no use.
    """
    from springback.jobs.config import read_study

    known = {_name(p): p for p in parameters if p.name != "help"}
    # A setting's name beside its flag's, as --show prints it.
    named = {str(p.name): p for p in known.values()} | known
    flags, positional = list[str](), dict[str, list[str]]()
    for name, value in read_study(file).items():
        parameter = named.get(name.replace("-", "_"))
        if parameter is None:
            near = did_you_mean(name, known)
            raise SpringbackError(f"{file} has '{name}'{near}; allowed: {', '.join(known)}")
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            positional[parameter.name] = _texts(file, name, value)
            if any(text.startswith("-") for text in positional[parameter.name]):
                raise SpringbackError(
                    f"{name} in {file} begins with a dash; give it as an argument"
                )
        elif parameter.is_flag:
            flags += _switch(file, name, value, parameter)
        elif parameter.multiple:
            for text in _texts(file, name, value):
                flags += [parameter.opts[0], text]
        else:
            flags += [parameter.opts[0], ",".join(_texts(file, name, value))]
    arguments = [text for p in parameters for text in positional.get(p.name, ())]
    return flags, arguments


def _name(parameter: Any) -> str:
    """The flag without its dashes, with underscores; an argument's own name."""
    if parameter.param_type_name == "argument":
        return str(parameter.name)
    return str(parameter.opts[0]).lstrip("-").replace("-", "_")


def _switch(file: str, name: str, value: Any, parameter: Any) -> list[str]:
    if not isinstance(value, bool):
        raise SpringbackError(f"{name} in {file} is {value!r}; give true or false")
    if value:
        return [parameter.opts[0]]
    return list(parameter.secondary_opts[:1])  # a switch that is off unless given has none


def _texts(file: str, name: str, value: Any) -> list[str]:
    """A value as a user would type it: a list one by one, a mapping as NAME=VALUE."""
    if isinstance(value, dict):
        return [f"{key}={_text(file, name, one)}" for key, one in value.items()]
    return [_text(file, name, one) for one in (value if isinstance(value, list) else [value])]


def _text(file: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise SpringbackError(f"{name} in {file} is {value!r}; give a text, a number or a list of them")
