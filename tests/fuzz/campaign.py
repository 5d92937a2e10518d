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

from fuzz.harness import KINDS, MEMORY, SECONDS, Bench, Outcome, fork, run_case

WHOLE = 10_000
#: Seconds without a word after which a process counts as hung where no signal reaches it.
SILENT = 4 * SECONDS
#: Address space of the process, in bytes: torch alone maps several GB.
ADDRESSES = 24 << 30


def plan(cases: int, kinds: list[str] | None = None) -> list[tuple[str, int]]:
    """Kind and seed of each case of a campaign of so many, or of those ``kinds`` of it."""
    chosen = kinds or list(KINDS)
    counts = {name: max(1, round(cases * KINDS[name].share / WHOLE)) for name in chosen}
    return [(name, seed) for name in chosen for seed in range(counts[name])]


def run(cases: list[tuple[str, int]], root: Path) -> Iterator[Outcome]:
    """The outcome of each case; a case that ends its process is one that is wrong."""
    waiting = list(cases)
    while waiting:
        reader, writer = os.pipe()
        process = fork()
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
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """By kind: its seeds, how many came to what, and every case that was wrong."""
    table: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        of_kind = table.setdefault(outcome.kind, {"cases": 0, "results": Counter(), "wrong": []})
        of_kind["cases"] += 1
        of_kind["results"][outcome.result] += 1
        if outcome.wrong:
            of_kind["wrong"].append(vars(outcome))
    return {
        name: {
            "seeds": [0, of_kind["cases"] - 1],
            **{word: of_kind["results"].pop(word, 0) for word in ("accepted", "refused")},
            "wrong": dict(of_kind["results"]),
            "wrong_cases": of_kind["wrong"],
        }
        for name, of_kind in table.items()
    }


def _write(path: Path, by_kind: dict[str, Any], seconds: dict[str, float]) -> None:
    """Write the counts; kinds that the file has and this call has not stay in it."""
    earlier = json.loads(path.read_text())["by_kind"] if path.exists() else {}
    took = {name: {**of_kind, "seconds": round(seconds[name])} for name, of_kind in by_kind.items()}
    merged = {**earlier, **took}
    wrong = sum(sum(k["wrong"].values()) for k in merged.values())
    whole = {
        "what": "damaged inputs through the code that the commands use (make fuzz)",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "seconds_a_case_at_most": SECONDS,
        "bytes_more_a_case_at_most": MEMORY,
        "cases": sum(k["accepted"] + k["refused"] for k in merged.values()) + wrong,
        "wrong": wrong,
        "by_kind": merged,
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> int:
    """The command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=WHOLE, help="of all kinds together")
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
        outcomes: list[Outcome] = []
        begin, seconds = time.monotonic(), dict.fromkeys(KINDS, 0.0)
        last = begin
        for outcome in run(plan(asked.cases, asked.kinds and asked.kinds.split(",")), root):
            if asked.out and outcomes and outcome.kind != outcomes[-1].kind:
                _write(asked.out, summary(outcomes), seconds)  # what is done, should it be stopped
            outcomes.append(outcome)
            seconds[outcome.kind] += (now := time.monotonic()) - last
            last = now
            if outcome.wrong:
                print(f"WRONG {outcome.kind}:{outcome.seed} {outcome.damage[:300]}")
                print(f"  {outcome.result}: {outcome.detail}", flush=True)
            if len(outcomes) % 500 == 0:
                print(f"{len(outcomes)} cases, {now - begin:.0f} s", flush=True)
    for name, counts in summary(outcomes).items():
        shown = {key: value for key, value in counts.items() if key not in ("seeds", "wrong_cases")}
        print(f"{name:10} {shown}, {seconds[name]:.0f} s")
    wrong = sum(outcome.wrong for outcome in outcomes)
    print(f"{len(outcomes)} cases, {wrong} wrong, {last - begin:.0f} s")
    if asked.out:
        _write(asked.out, summary(outcomes), seconds)
    return int(bool(wrong))
