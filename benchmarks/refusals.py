"""Claim: input that is plainly wrong is refused within a second of computing.

Times whole processes of wrong command lines, from start to exit: wall time, and the seconds of
computing (user and system), which a busy machine hardly changes.  ``--before SRC`` times another
source tree first, such as an older version's ``src``.  Writes --out; exits 1 if the claim does not
hold or a command line is not refused.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from springback.results.provenance import now, provenance
from springback.results.store import write_json

CLAIM = 1.0  # seconds of computing
RUNS = 3
HERE = Path(__file__).parent
RESULT = HERE / "results" / "refusals.json"
BOOST = "boost --model smollm2-135m --train problems --validation problems --test problems"
LINES = {
    "audit, no such study file": "audit nowhere.yaml",
    "audit, no such data file": "audit --align nowhere.jsonl",
    "audit, no such model": "audit --model ./nowhere",
    "audit, n-pos no multiple": "audit --n-pos 3",
    "audit, unknown probe": "audit --probes margin,kll",
    "boost, no such folders": "boost --early ./a --ft ./b --validation problems --test problems",
    "boost, unknown metric": f"{BOOST} --metric numbr",
    "generate, no such folder": "generate ./nowhere hello",
    "serve, no such folder": "serve ./nowhere",
    "check, no such folder": "check smollm2-135m ./nowhere",
    "extrapolate, no such folder": "extrapolate ./a ./b --mu 1 --out new",
    "reproduce, unknown name": "reproduce elasticity-sizes",
    "reproduce, n-pos no multiple": "reproduce elasticity-size --n-pos 3",
}


def refused(line: str, source: Path, folder: str) -> dict[str, Any]:
    """Wall and computing seconds of one command line, and its error."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", *line.split()],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computing = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    last = (done.stderr.splitlines() or [""])[-1]
    return {
        "wall": round(wall, 2),
        "computing": round(computing, 2),
        "code": done.returncode,
        "error": last.replace(folder, "."),
    }


def timed(source: Path, runs: int) -> dict[str, dict[str, Any]]:
    """Every line, ``runs`` times in turns."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in LINES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for name, line in LINES.items():
                taken[name].append(refused(line, source, folder))
    return {
        name: {
            "wall": [one["wall"] for one in each],
            "computing": [one["computing"] for one in each],
            "code": each[-1]["code"],
            "error": each[-1]["error"],
        }
        for name, each in taken.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file for the result")
    parser.add_argument("--before", type=Path, help="src of another version, timed once a line")
    asked = parser.parse_args()
    started = now()
    before = timed(asked.before, 1) if asked.before else None
    refused("--help", HERE.parent / "src", ".")  # writes the bytecode
    after = timed(HERE.parent / "src", RUNS)
    slowest = max(statistics.median(each["computing"]) for each in after.values())
    holds = slowest < CLAIM and all(each["code"] == 2 for each in after.values())
    facts = provenance(started=started, finished=now())
    facts["command"] = [Path(sys.argv[0]).name, *(["--before", "SRC"] if asked.before else [])]
    write_json(
        asked.out,
        {
            "claim": f"a refusal takes under {CLAIM:g} s of computing (median of {RUNS})",
            "holds": holds,
            "lines": LINES,
            "before": before,
            "after": after,
            "load": os.getloadavg(),
            "provenance": facts,
        },
    )
    for name, each in after.items():
        computing, wall = statistics.median(each["computing"]), statistics.median(each["wall"])
        old = before[name] if before else None
        was = f"; before {old['computing'][0]:.1f} s, wall {old['wall'][0]:.1f} s" if old else ""
        print(f"{name}: {computing:.2f} s of computing, wall {wall:.2f} s{was}")
    print(f"claim (under {CLAIM:g} s): {'holds' if holds else 'FAILS'}; written to {asked.out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
