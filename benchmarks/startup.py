"""Claim: ``springback --help`` answers in under 0.4 s.

Times whole processes, from start to exit, and beside them a Python that does nothing, which no
program can beat.  Writes --out; exits 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from springback.results.provenance import now, provenance
from springback.results.store import write_json

CLAIM = 0.4  # seconds
RUNS = 15
RESULT = Path(__file__).parent / "results" / "startup.json"


def wall_seconds(command: list[str]) -> float:
    """Wall time of one whole process; raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file for the result")
    out: Path = parser.parse_args().out
    started = now()
    commands = {
        "springback --help": [str(Path(sys.executable).with_name("springback")), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    for command in commands.values():
        wall_seconds(command)  # writes the bytecode and warms the disk cache
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):  # in turns, so that a busy moment touches both
        for name, command in commands.items():
            seconds[name].append(round(wall_seconds(command), 4))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    holds = medians["springback --help"] < CLAIM
    result = {
        "claim": f"springback --help takes under {CLAIM} s (median of {RUNS})",
        "holds": holds,
        "median_seconds": medians,
        "seconds": seconds,
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(out, result)
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s, slowest {max(seconds[name]):.3f} s")
    print(f"claim (under {CLAIM} s): {'holds' if holds else 'FAILS'}; written to {out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
