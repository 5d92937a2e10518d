"""Time of a boost with default flags beside that of an earlier version, on the same questions.

A pair is trained once (SmolLM2-135M, built-in one-step problems); then both versions boost it in
processes of their own, in turns.  Default flags: every candidate, the pre-check and the written
model; only the questions are few and short.  ``--before``: a checkout of the earlier version, such
as ``git worktree add FOLDER 430b6c3``.

    python benchmarks/boost_time.py --before FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.settings import BoostSettings
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import Store, write_json

RESULT = Path(__file__).parent / "results" / "boost_time.json"
AFTER = Path(__file__).parent.parent
AIM = 1.3
QUESTIONS: dict[str, Any] = {
    "validation": "problems:1",
    "test": "problems:1",
    "system": "Solve the problem.",
    "max_new_tokens": 48,
    "max_tokens": 192,
    "reopen_test": True,
}
#: Run by each version: a boost of the pair, and what it took.
CHILD = """
import json, sys, time
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
settings = BoostSettings(**json.loads(sys.argv[1]))
wall, cpu = time.perf_counter(), time.process_time()
data = boost(settings, sys.argv[2]).data
methods = [[m["method"], m["mu"], m["lambda"]] for m in data["analysis"]["methods"]]
spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
print(json.dumps({**spent, "methods": methods}))
"""


def one_boost(tree: Path, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """What the version in ``tree`` takes for it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(settings), str(out)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def revision(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, help="checkout of the earlier version")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--validation", type=int, default=8)
    parser.add_argument("--test", type=int, default=12)
    parser.add_argument("--rows", type=int, default=48, help="training rows")
    parser.add_argument(
        "--positive", action="store_true", help="0 is no candidate, so contrast is always chosen"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options, started = parser.parse_args(), now()
    if options.before is None:
        print("needs --before: left out (see the head of this file)")
        return
    rows = {"validation_rows": options.validation, "test_rows": options.test}
    questions = QUESTIONS | rows | {"positive": options.positive}
    pairs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        trained = BoostSettings(
            model="smollm2-135m", train="problems:1", train_rows=options.rows, **questions
        )
        trained = check_settings(trained)
        with Store(Path(folder) / "pair").locked() as store:
            pair = make_pair(trained, load_data(trained).train, store, Lines())
        settings = {"early": pair.early.path, "ft": pair.ft.path, **questions}
        for number in range(options.pairs):
            both = {
                name: one_boost(tree, settings, Path(folder) / f"{name}-{number}")
                for name, tree in (("before", options.before), ("after", AFTER))
            }
            ratio = both["after"]["seconds"] / both["before"]["seconds"]
            cpu = both["after"]["cpu_seconds"] / both["before"]["cpu_seconds"]
            pairs.append({**both, "ratio": ratio, "cpu_ratio": cpu})
            print(f"pair {number + 1}: wall {ratio:.3f}, CPU {cpu:.3f}", flush=True)
    median = {name: statistics.median(p[name] for p in pairs) for name in ("ratio", "cpu_ratio")}
    found = {
        "aim": AIM,
        "versions": {"before": revision(options.before), "after": revision(AFTER)},
        "questions": questions,
        "pairs": pairs,
        "median": median,
        "met": median["ratio"] <= AIM,
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(options.out, found)
    print(median)


if __name__ == "__main__":
    main()
