"""Keep Transformers' own bars and warnings out of the way while loading."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers


def one_line(error: BaseException) -> str:
    """The first line of an error's message, for an error of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class quiet:
    """Turns Transformers' progress bars and warnings off inside the block."""

    def __enter__(self) -> None:
        logging: Any = transformers.utils.logging
        self.verbosity, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        logging: Any = transformers.utils.logging
        logging.set_verbosity(self.verbosity)
        if self.bars:
            logging.enable_progress_bar()


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """No warning when PEFT or TRL read a setting by the name it had before Transformers 5.20."""
    with warnings.catch_warnings():
        old = r"`(is_)?gradient_checkpointing"
        warnings.filterwarnings("ignore", message=old, category=FutureWarning)
        yield
