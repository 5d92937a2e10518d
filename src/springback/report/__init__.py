"""A result file as pictures and one page.  Reads ``result.json`` and nothing else of a job."""

from springback.report.page import build, render, render_card

__all__ = ["build", "render", "render_card"]
