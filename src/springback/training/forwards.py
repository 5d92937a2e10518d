"""Standing in for the ``forward`` of a module, and putting its own back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


def set_forward(module: Any, forward: Any) -> None:
    """Put back what :func:`vars` had as the instance's forward (None: the class's own)."""
    if forward is None:
        vars(module).pop("forward", None)
    else:
        module.forward = forward


@contextmanager
def forwards(stand_ins: Iterable[tuple[Any, Any]]) -> Iterator[None]:
    """Within, the modules have these forwards."""
    with ExitStack() as stack:
        for module, forward in stand_ins:
            stack.callback(set_forward, module, vars(module).get("forward"))
            module.forward = forward
        yield
