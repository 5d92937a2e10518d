"""The command line."""

from __future__ import annotations

from springback.cli.signals import Stop

__all__ = ["main"]


def main() -> None:
    """Entry point.  Signals are taken over before anything that takes time is imported."""
    with Stop():
        from springback.cli.app import main as run

        run()
