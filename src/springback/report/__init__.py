"""A result file as pictures and one page.  Reads ``result.json`` and nothing else of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from springback.report.page import build, render, render_card

__all__ = ["build", "render", "render_card"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: the classes of a result file need numpy."""
    if name not in __all__:
        raise AttributeError(f"module 'springback.report' has no attribute {name!r}")
    from springback.report import page

    return getattr(page, name)
