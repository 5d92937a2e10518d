"""Shared prefixes: a grid of n_pos x doses against one run for every cell.

Claim: a 4 x 5 grid takes at most 0.35 of the time of 20 runs from the start model, probes
excluded, with identical curves; the ratio against 20 perturbing runs from reused aligned models
stands beside it.

Training times only (the probes at every cell are outside the clock); one process, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from springback.data import load_slice
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import (
    Model,
    Tokenizer,
    copy_weights,
    load_model,
    load_tokenizer,
    load_weights,
    resolve,
    save_weights,
)
from springback.probes import margin, nll
from springback.results.provenance import now, provenance
from springback.results.store import write_json
from springback.training import Marks, finetune

RESULT = Path(__file__).parent / "results" / "grid.json"
N_POS, DOSES = (16, 32, 48, 64), (8, 16, 24, 32, 40)
SETTINGS = AuditSettings(batch_size=8, max_tokens=64, precision="float32")
CLAIM = 0.35


class Grid:
    """One model, its data, and a clock that runs during training only."""

    def __init__(self) -> None:
        checkpoint = resolve(SETTINGS.model)
        self.tokenizer: Tokenizer = load_tokenizer(checkpoint)
        self.start: Model = load_model(checkpoint)
        self.model: Model = load_model(checkpoint)
        self.align = self._rows("reviews:positive", max(N_POS), "train")
        self.perturb = self._rows("reviews:negative", max(DOSES), "train")
        self.wanted = self._rows("reviews:positive", 8, "test")
        self.unwanted = self._rows("reviews:negative", 8, "test")
        self.seconds = 0.0

    def _rows(self, source: str, n: int, split: str) -> list[Encoded]:
        rows = load_slice(source, limit=n, split=split).rows
        return encode_rows(self.tokenizer, rows, SETTINGS.max_tokens)

    def measure(self, model: Model) -> float:
        """The margin, with the clock stopped."""
        begin = time.perf_counter()
        found = margin(*(nll(model, rows, self.tokenizer) for rows in (self.wanted, self.unwanted)))
        self.seconds -= time.perf_counter() - begin
        return found

    def train(self, rows: list[Encoded], marks: Marks | None = None) -> dict[int, Any]:
        begin = time.perf_counter()
        done = finetune(self.model, self.tokenizer, rows, SETTINGS.recipe(0), marks)
        self.seconds += time.perf_counter() - begin
        return dict(done.marks)

    def shared(self, folder: Path) -> dict[tuple[int, int], float]:
        """One aligning run with branch points, one perturbing run from each."""

        def keep(n: int, model: Model) -> None:
            save_weights(model, folder / f"{n}")

        copy_weights(self.start, self.model)
        self.train(self.align, Marks(N_POS, keep))
        found: dict[tuple[int, int], float] = {}
        for n in N_POS:
            load_weights(self.model, folder / f"{n}")
            marks = self.train(self.perturb, Marks(DOSES, lambda _, model: self.measure(model)))
            found |= {(n, d): value for d, value in marks.items()}
        return found

    def separate(self, reuse: Path | None) -> dict[tuple[int, int], float]:
        """A perturbing run for every cell, from the start model or from a kept aligned one."""
        found = {}
        for n in N_POS:
            for d in DOSES:
                if reuse is None:
                    copy_weights(self.start, self.model)
                    self.train(self.align[:n])
                else:
                    load_weights(self.model, reuse / f"{n}")
                self.train(self.perturb[:d])
                found[n, d] = self.measure(self.model)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    started = now()
    grid, seconds, curves = Grid(), {}, {}
    with tempfile.TemporaryDirectory() as tmp:
        ways: dict[str, Callable[[], dict[tuple[int, int], float]]] = {
            "shared": lambda: grid.shared(Path(tmp)),
            "separate": lambda: grid.separate(None),
            "separate, aligned models reused": lambda: grid.separate(Path(tmp)),
        }
        for name, way in ways.items():
            grid.seconds = 0.0
            curves[name] = way()
            seconds[name] = round(grid.seconds, 2)
    ratio = seconds["shared"] / seconds["separate"]
    same = all(found == curves["shared"] for found in curves.values())
    result = {
        "claim": f"a {len(N_POS)} x {len(DOSES)} grid takes at most {CLAIM} of separate runs' time",
        "holds": ratio <= CLAIM and same,
        "ratio": ratio,
        "ratio_reused": seconds["shared"] / seconds["separate, aligned models reused"],
        "identical_curves": same,
        "seconds": seconds,
        "margins": {f"{n}/{d}": value for (n, d), value in curves["shared"].items()},
        "settings": SETTINGS,
        "seed": 0,
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(options.out, result)
    print(f"ratio {ratio:.3f}, identical {same}; written to {options.out}")


if __name__ == "__main__":
    main()
