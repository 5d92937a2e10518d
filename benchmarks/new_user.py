"""Seconds that each step of the README takes, as a new user would go through it.

Runs tests/e2e/test_readme.py (a tiny model; every command and snippet from top to bottom, in order)
and keeps what it timed: whole processes, from start to exit.  Writes --out; exits 1 if a step
fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from springback.results.provenance import now, provenance
from springback.results.store import write_json

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "new_user.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file for the result")
    out: Path = parser.parse_args().out
    started, load = now(), os.getloadavg()
    with tempfile.TemporaryDirectory() as place:
        walk = Path(place, "walk.json")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/e2e/test_readme.py"],
            cwd=ROOT,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SPRINGBACK_WALK": str(walk)},
        )
        if done.returncode:
            return 1
        seconds = json.loads(walk.read_text(encoding="utf-8"))
    write_json(
        out,
        {
            "what": "seconds of each step of the README on a tiny model, whole processes",
            "seconds": seconds,
            "sum": round(sum(seconds.values()), 1),
            "load_before_and_after": [load[0], os.getloadavg()[0]],
            "provenance": provenance(started=started, finished=now()),
        },
    )
    print(f"{len(seconds)} steps in {sum(seconds.values()):.0f} s; written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
