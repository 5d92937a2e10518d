"""How fast this machine trains, scores, decodes and writes: as it was timed, or by a quick product.

``--calibrate`` times it (:mod:`springback.jobs.calibrate`) and keeps the numbers in the cache
folder, by processor, threads, precision and versions, so that machines that share a home folder
do not mix.  Light: torch is loaded where speeds of this machine are asked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from springback.core import content_hash
from springback.errors import SpringbackError
from springback.models.memory import item_bytes
from springback.results.provenance import cpu_model, gpu, package_version, threads
from springback.results.store import read_json, write_json

#: Bytes a second that are written where the disk was not timed.
DISK = 5e8


@dataclass(frozen=True)
class Speeds:
    """FLOP a second of training (6 N a token) and of scoring (2 N); of decoding the seconds that a
    step takes for each weight, and for each weight and row; bytes a second of disk.

    ``source``: where they are from, in words.
    """

    train: float
    score: float
    step: float
    row: float
    disk: float
    source: str

    def decoding(self, weights: float, steps: float, tokens: float) -> float:
        """Seconds of so many passes of a model, that decode so many tokens together."""
        return weights * (steps * self.step + tokens * self.row)


def known_speeds(precision: str, scoring: str = "float32") -> Speeds:
    """Those that this machine was timed at, else those by a quick product.

    ``precision``: of training; ``scoring``: of scoring and decoding.
    """
    scoring = scored_in(scoring)
    return kept_speeds(precision, scoring) or quick_speeds(precision, scoring)


def scored_in(name: str) -> str:
    """``float32`` or ``bf16-mixed``, of a dtype or a precision of probes."""
    return "float32" if name in ("auto", "float32") else "bf16-mixed"


def quick_speeds(precision: str, scoring: str) -> Speeds:
    """A share of a matrix product's speed; good to a factor of about two."""
    from springback.models.loading import SHARE, product_speed

    kinds = {name: SHARE[name] * product_speed(name) for name in {precision, scoring}}
    score = kinds[scoring]
    size = item_bytes("float32" if scoring == "float32" else "bfloat16")
    # A step reads every weight once, at a tenth of what the product multiplies.
    return Speeds(
        kinds[precision],
        score,
        size / (score / 10),
        2 / score,
        DISK,
        "by a quick product, good to a factor of about two; --calibrate times this machine",
    )


def _file(precision: str, scoring: str) -> Path:
    """Where the speeds of this kind of machine are kept."""
    from springback.models.builtin import cache_folder

    facts = [gpu() or cpu_model(), threads(), precision, scoring]
    facts += [package_version(name) for name in ("springback", "torch", "transformers")]
    return cache_folder() / "speeds" / f"{content_hash(facts)[:20]}.json"


def kept_speeds(precision: str, scoring: str) -> Speeds | None:
    """None where this kind of machine was not timed, or what was kept is damaged."""
    file = _file(precision, scoring)
    if not file.is_file():
        return None
    try:
        kept = read_json(file)
        numbers = {name: float(kept[name]) for name in ("train", "score", "step", "row", "disk")}
        if not all(0 < value < float("inf") for value in numbers.values()):
            return None
        return Speeds(**numbers, source=str(kept["source"]))
    except (SpringbackError, OSError, ValueError, KeyError, TypeError):
        return None


def keep(speeds: Speeds, precision: str, scoring: str) -> Path:
    """For later plans on this kind of machine."""
    file = _file(precision, scoring)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(speeds))
    return file
