"""Errors that a user can act on.

Every message says what was given, what is allowed and what to do.  The command
line prints it on one line and exits with code 2; ``--debug`` shows the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from springback.core import printable


class SpringbackError(Exception):
    """Base class: the input or the surroundings are at fault, and the user can mend it.

    As text it is one line, whatever the names in it hold.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SpringbackWarning(UserWarning):
    """Something was left aside or made again, and the work goes on."""


class DataError(SpringbackError):
    """A data set is missing, empty, of an unknown form, or overlaps with another one."""


class ModelError(SpringbackError):
    """A model is missing, unreadable, or does not fit the other one (tokenizer, names, shapes)."""


class FreedError(ModelError):
    """The weights of ``folder`` were freed by ``springback clean``, or at the end of a boost."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the weights of {folder} were freed (springback clean); allowed: a folder with its "
            "weights; remove that folder and run the command again that made it"
        )
        self.folder = folder


class TrainingError(SpringbackError):
    """A fine-tuning run produced a loss that is not a number."""


class SpaceError(SpringbackError):
    """Not enough disk (or memory) for what was asked."""


class StoreError(SpringbackError):
    """A result folder is locked by another process, or holds something that is not ours."""


class CodecError(SpringbackError):
    """A container is damaged, cut short, of another model, or does not decode on this machine."""


class MissingExtraError(SpringbackError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'springback[{extra}]'"
        )


#: A module that may be missing -> the extra that brings it.
EXTRA_OF = {
    "accelerate": "train",
    "bitsandbytes": "nf4",
    "constriction": "compress",
    "datasets": "train",
    "fastapi": "serve",
    "gguf": "demo",
    "huggingface_hub": "torch",
    "jinja2": "report",
    "matplotlib": "report",
    "peft": "train",
    "pyarrow": "data",
    "scipy": "report",
    "tokenizers": "torch",
    "torch": "torch",
    "transformers": "torch",
    "trl": "train",
    "uvicorn": "serve",
}


#: A command or public name -> the extra that brings all of what it always needs.
EXTRA_FOR = {
    "audit": "train",
    "boost": "torch",
    "compress": "compress",
    "decompress": "compress",
    "demo": "demo",
    "generate": "torch",
    "lm-eval": "lm-eval",
    "load": "torch",
    "reproduce": "train",
    "score": "torch",
    "serve": "serve",
    "track": "track",
}


def missing_extra(error: ImportError, name: str) -> MissingExtraError | None:
    """The error that names the extra to install for a command or public name of springback.

    None where what is missing is no module of an extra.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRA_OF:
        return None
    extra = EXTRA_OF[package]
    if extra in ("report", "torch"):  # the first that is missing, of several
        extra = EXTRA_FOR.get(name, extra)
    return MissingExtraError(package, extra, f"springback {name}".rstrip())


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """`` (did you mean X?)`` where one of ``allowed`` is spelt much like ``name``, else nothing."""
    spelt = {one.lower().replace("-", "_"): one for one in allowed}
    near = get_close_matches(name.lower().replace("-", "_"), list(spelt), n=1, cutoff=0.7)
    return f" (did you mean {spelt[near[0]]}?)" if near else ""


def shown(value: object, length: int = 20) -> str:
    """``value`` for a message: as it stands where it is as short as a label or a number, else what
    it is, since an error must not spread the text of a row."""
    line = " ".join(repr(value).split())
    if len(line) <= length + len("''"):
        return line
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"


def describe(given: object, allowed: str, do: str) -> str:
    """One line: what was given, what is allowed, what to do."""
    return f"given: {given}; allowed: {allowed}; {do}"
