"""Keep Transformers' own bars and warnings out of the way while loading."""

from __future__ import annotations

import logging as standard_logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ACCELERATE = standard_logging.getLogger("accelerate")


def one_line(error: BaseException) -> str:
    """What an error says on one line of at most 300 characters, for an error of ours.

    That is its first line, and what follows where that line only announces it: it ends in a colon,
    counts what is wrong, or names a kind of error.
    """
    lines = [line for raw in str(error).splitlines() if (line := " ".join(raw.split()))]
    if not lines:
        return type(error).__name__
    until = 1
    while until < len(lines):
        last = lines[until - 1]
        named = until > 1 and " " not in last  # the field that the error is about
        if not (named or _ANNOUNCES.search(last)):
            break
        until += 1
    return " ".join(lines[:until])[:300]


#: Lines that say that something is wrong, and not what.
_ANNOUNCES = re.compile(
    r":$|^(validation error|error\(s\) in|\d+ validation errors?|traceback|multiple errors)|"
    r"^[\w.]*(Error|Exception|Warning)$",
    re.IGNORECASE,
)


class quiet:
    """Turns progress bars and warnings of Transformers and accelerate off inside the block.

    Not where TRANSFORMERS_VERBOSITY asks for them.
    """

    def __enter__(self) -> None:
        import transformers

        self.logging: Any = transformers.utils.logging
        logging = self.logging
        self.level = _ACCELERATE.level
        self.verbosity, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        if os.environ.get("TRANSFORMERS_VERBOSITY", "").lower() not in ("info", "debug"):
            _ACCELERATE.setLevel("ERROR")
            logging.set_verbosity_error()
            logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        logging = self.logging
        logging.set_verbosity(self.verbosity)
        _ACCELERATE.setLevel(self.level)
        if self.bars:
            logging.enable_progress_bar()


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """No warning when PEFT or TRL read a setting by the name it had before Transformers 5.20."""
    with warnings.catch_warnings():
        old = r"`(is_)?gradient_checkpointing"
        warnings.filterwarnings("ignore", message=old, category=FutureWarning)
        yield
