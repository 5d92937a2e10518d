"""The command line."""

from __future__ import annotations

from springback.cli.app import main

__all__ = ["main"]
