"""Every kind: importing this enters them all into :data:`fuzz.harness.KINDS`."""

from fuzz import data, models, results, weights

__all__ = ["data", "models", "results", "weights"]
