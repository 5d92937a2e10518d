"""Claims: ``demo`` ends within 10 minutes, ``demo --quick`` within 2, a bare ``audit`` within 10.

Whole processes on the built-in model, one after the other, each into a fresh folder: wall time, and
the most memory that one held.  The limits are meant for two cores with AMX.  Writes --out after
every job; exits 1 if a claim does not hold.

    python benchmarks/whole_jobs.py --jobs quick
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from springback.results.provenance import now, provenance
from springback.results.store import write_json

RESULT = Path(__file__).parent / "results" / "whole_jobs.json"
#: Words of the command, and the seconds it may take.
JOBS = {"quick": (["demo", "--quick"], 120), "demo": (["demo"], 600), "audit": (["audit"], 600)}


def run(words: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and peak of resident memory (bytes) of one whole process; raises if it fails."""
    program = str(Path(sys.executable).with_name("springback"))
    begin = time.perf_counter()
    child = subprocess.Popen([program, *words, "--out", str(folder)], stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"springback {' '.join(words)} ended with status {child.returncode}")
    return seconds, used.ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"some of {', '.join(JOBS)}")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    started, found = now(), dict[str, Any]()
    for name in args.jobs.split(","):
        words, limit = JOBS[name]
        with tempfile.TemporaryDirectory() as place:
            seconds, memory = run(words, Path(place) / "out")
        found[name] = {"seconds": seconds, "limit_s": limit, "peak_memory_bytes": memory}
        print(f"{name}: {seconds:.0f} s, {memory / 1e9:.1f} GB", flush=True)
        made = provenance(started=started, finished=now())
        write_json(args.out, {"jobs": found, "provenance": made})
    return int(any(job["seconds"] > job["limit_s"] for job in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
