"""Measure how an aligned model springs back; make a fine-tuned one better without training.

Public names are loaded on first use, so that ``import springback`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from springback.progress import Progress, draw_by

if TYPE_CHECKING:
    from springback.compression.files import compress, decompress
    from springback.compression.settings import CodecSettings
    from springback.core import Checkpoint, Measurement, Recipe, Row, Run, Slice, Trajectory
    from springback.decoding import ContrastModel
    from springback.errors import SpringbackError
    from springback.inference import GenerateSettings, Loaded, generate, load, score
    from springback.jobs.audit.job import audit
    from springback.jobs.audit.settings import AuditSettings
    from springback.jobs.boost.job import boost
    from springback.jobs.boost.settings import BoostSettings
    from springback.jobs.check.job import check
    from springback.jobs.check.settings import CheckSettings
    from springback.results.writing import Result
    from springback.weights import extrapolate

__version__ = "0.2.0"

_HOMES = {
    "AuditSettings": "springback.jobs.audit.settings",
    "BoostSettings": "springback.jobs.boost.settings",
    "CheckSettings": "springback.jobs.check.settings",
    "Checkpoint": "springback.core",
    "CodecSettings": "springback.compression.settings",
    "ContrastModel": "springback.decoding",
    "GenerateSettings": "springback.inference",
    "Loaded": "springback.inference",
    "Measurement": "springback.core",
    "Recipe": "springback.core",
    "Result": "springback.results.writing",
    "Row": "springback.core",
    "Run": "springback.core",
    "Slice": "springback.core",
    "SpringbackError": "springback.errors",
    "Trajectory": "springback.core",
    "audit": "springback.jobs.audit.job",
    "boost": "springback.jobs.boost.job",
    "check": "springback.jobs.check.job",
    "compress": "springback.compression.files",
    "decompress": "springback.compression.files",
    "extrapolate": "springback.weights",
    "generate": "springback.inference",
    "load": "springback.inference",
    "score": "springback.inference",
}

__all__ = [
    "AuditSettings",
    "BoostSettings",
    "CheckSettings",
    "Checkpoint",
    "CodecSettings",
    "ContrastModel",
    "GenerateSettings",
    "Loaded",
    "Measurement",
    "Recipe",
    "Result",
    "Row",
    "Run",
    "Slice",
    "SpringbackError",
    "Trajectory",
    "__version__",
    "audit",
    "boost",
    "check",
    "compress",
    "decompress",
    "extrapolate",
    "generate",
    "load",
    "score",
]


def _draw() -> Progress:
    """Bars where a notebook or a terminal shows them."""
    from springback.cli.progress import looked_at

    return looked_at()


draw_by(_draw)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'springback' has no attribute {name!r}; it has {__all__}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from springback.errors import missing_extra

        if missing := missing_extra(error, name):
            raise missing from error
        raise


def __dir__() -> list[str]:
    return __all__
