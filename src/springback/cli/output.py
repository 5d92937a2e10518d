"""How much commands print and for whom: the flags of every command, at any place in its line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Commands whose words all belong to other software.
PASSED_THROUGH = ("lm-eval",)


@dataclass
class Output:
    """``facts``: what ``--json`` prints at the end, as one line."""

    debug: bool = False
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    facts: Mapping[str, Any] | None = None


#: Of this process; :func:`read_output` sets it.
OUTPUT = Output()

_FLAGS = {
    "--debug": "debug",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--json": "json",
}


def read_output(arguments: list[str]) -> list[str]:
    """``arguments`` without the flags of every command, which :data:`OUTPUT` then holds.

    What stands behind ``--`` or behind the name of other software's command is left as it is.
    ``--no-color`` becomes NO_COLOR, which Rich and others read.
    """
    vars(OUTPUT).update(vars(Output()))
    kept: list[str] = []
    for place, word in enumerate(arguments):
        if word == "--" or (kept[:1] and kept[0] in PASSED_THROUGH):
            return kept + arguments[place:]
        if word in _FLAGS:
            setattr(OUTPUT, _FLAGS[word], True)
        elif word == "--no-color":
            os.environ["NO_COLOR"] = "1"
        else:
            kept.append(word)
    if OUTPUT.verbose:
        # Transformers' own setting: what loads models leaves it alone where it is set.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info")
    return kept


def emit(**facts: Any) -> None:
    """What a command found, for ``--json``: strings, numbers, lists and dicts of them."""
    OUTPUT.facts = {**(OUTPUT.facts or {}), **facts}


def last_line(**more: Any) -> str:
    """The line that ``--json`` ends with."""
    return json.dumps({**(OUTPUT.facts or {}), **more}, default=str)
