"""Many cases, in a process that may die of one: it is counted, and the next ones go on.

``python -m fuzz`` (with ``tests`` on the path); ``make fuzz`` for 10,000 cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.harness import KINDS, MEMORY, SECONDS, Bench, Outcome, run_case

WHOLE = 10_000
#: Seconds without a word after which a process counts as hung where no signal reaches it.
SILENT = 4 * SECONDS
#: Address space of the process, in bytes: torch alone maps several GB.
ADDRESSES = 24 << 30


def plan(cases: int, kinds: list[str] | None = None) -> list[tuple[str, int]]:
    """Kind and seed of each case, kinds by their shares, and one of each kind at least."""
    chosen = kinds or list(KINDS)
    total = sum(KINDS[name].share for name in chosen)
    counts = {name: max(1, round(cases * KINDS[name].share / total)) for name in chosen}
    return [(name, seed) for name in chosen for seed in range(counts[name])]


def run(cases: list[tuple[str, int]], root: Path) -> Iterator[Outcome]:
    """The outcome of each case; a case that ends its process is one that is wrong."""
    waiting = list(cases)
    while waiting:
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reader)
            _work(waiting, root / f"work-{len(waiting)}", writer)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as lines:
            for outcome in _outcomes(lines, process):
                waiting.pop(0)
                yield outcome
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if waiting and status == 0:
            raise RuntimeError("the fuzzer itself ended early")
        if waiting:
            (name, seed), ended = waiting.pop(0), f"the process ended with {status}"
            yield Outcome(name, seed, "?", "died", ended)


def _outcomes(lines: Any, process: int) -> Iterator[Outcome]:
    while True:
        ready, _, _ = select.select([lines], [], [], SILENT)
        if not ready:
            os.kill(process, signal.SIGKILL)
            return
        line = lines.readline()
        if not line:
            return
        yield Outcome(**json.loads(line))


def _work(cases: list[tuple[str, int]], root: Path, writer: int) -> None:
    """The forked process: one line for each case."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 1
    try:
        root.mkdir()
        bench = Bench(root)
        os.environ["SPRINGBACK_STATE"] = str(root / "state")
        for name, seed in cases:
            outcome = run_case(name, seed, bench)
            os.write(writer, (json.dumps(vars(outcome)) + "\n").encode())
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        os._exit(code)


def summary(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    """Counts by kind, and every case that was wrong."""
    table: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        table.setdefault(outcome.kind, Counter())[outcome.result] += 1
    return {
        "what": "damaged inputs through the code that the commands use (tests/fuzz)",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "cases": len(outcomes),
        "seconds": round(seconds),
        "seconds_a_case_at_most": SECONDS,
        "bytes_more_a_case_at_most": MEMORY,
        "seeds": {name: [0, sum(counts.values()) - 1] for name, counts in table.items()},
        "by_kind": {name: dict(sorted(counts.items())) for name, counts in table.items()},
        "wrong": [vars(outcome) for outcome in outcomes if outcome.wrong],
    }


def main() -> int:
    """The command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=WHOLE)
    parser.add_argument("--case", metavar="KIND:SEED", help="this one alone, in this process")
    parser.add_argument("--kinds", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--out", type=Path, help="write the counts to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="springback-fuzz-") as folder:
        root = Path(folder).resolve()
        if asked.case:
            name, _, seed = asked.case.partition(":")
            print(alone := run_case(name, int(seed), Bench(root)))
            return int(alone.wrong)
        begin, outcomes = time.monotonic(), []
        for outcome in run(plan(asked.cases, asked.kinds and asked.kinds.split(",")), root):
            outcomes.append(outcome)
            if outcome.wrong:
                print(f"WRONG {outcome.kind}:{outcome.seed} {outcome.damage[:300]}")
                print(f"  {outcome.result}: {outcome.detail}", flush=True)
            if len(outcomes) % 500 == 0:
                print(f"{len(outcomes)} cases, {time.monotonic() - begin:.0f} s", flush=True)
    counts = summary(outcomes, time.monotonic() - begin)
    print(json.dumps(counts["by_kind"], indent=1))
    print(f"{counts['cases']} cases, {len(counts['wrong'])} wrong, {counts['seconds']} s")
    if asked.out:
        asked.out.write_text(json.dumps(counts, indent=1) + "\n")
    return int(bool(counts["wrong"]))
