"""kill -9 at random moments, then the same command again: the end is that of an undisturbed run.

``python -m fuzz.kills``, 100 kills (``make kills``).  The commands run in processes forked from one
that has loaded the libraries, so that the kills fall into the work and not into imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import command, fork
from fuzz.models import tiny
from fuzz.results import audit_words, boost_words

KILLS = 100
#: Kills of one run at most, before it may end.
IN_A_ROW = 3
MANY_SHARDS, SIDE = 12, 256


@dataclass(frozen=True)
class Work:
    """A command; ``words`` names its output ``out`` in the folder it stands in.

    ``share``: of 100 kills.
    """

    words: Callable[[Path], list[object]]
    share: int


def _full(inputs: Path) -> list[object]:
    return ["extrapolate", inputs / "early", inputs / "ft", "--mu", "0.3", "--out", "out"]


def _low_rank(inputs: Path) -> list[object]:
    return [*_full(inputs), "--low-rank", "2"]


def _adapters(inputs: Path) -> list[object]:
    pair = [inputs / "adapter-early", inputs / "adapter-ft"]
    return ["extrapolate", *pair, "--mu", "0.3", "--svd-rank", "2", "--out", "out"]


def _compress(inputs: Path) -> list[object]:
    words: list[object] = ["compress", inputs / "text", "--model", inputs / "model", "--chunk", 32]
    return [*words, "--out", "out/text.sbc", "--force"]


WORKS = {
    "extrapolate": Work(_full, 30),
    "extrapolate --low-rank": Work(_low_rank, 10),
    "extrapolate, adapters": Work(_adapters, 15),
    "compress": Work(_compress, 15),
    "audit": Work(lambda inputs: [*audit_words(inputs / "model"), "--out", "out"], 15),
    "boost": Work(lambda inputs: [*boost_words(inputs / "model"), "--out", "out"], 15),
}


def make_inputs(folder: Path) -> None:
    """What the commands read."""
    from weights_files import plain, write_file, write_model

    draw = np.random.default_rng(0)
    early = [draw.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(MANY_SHARDS)]
    for name, moved in (("early", 0.0), ("ft", 0.1)):
        tensors = [w + moved * draw.standard_normal(w.shape).astype(np.float32) for w in early]
        write_model(folder / name, *({f"w{n}": plain(w)} for n, w in enumerate(tensors)))
        adapter = {}
        for n in range(24):
            for part, shape in (("A", (4, SIDE)), ("B", (SIDE, 4))):
                values = draw.standard_normal(shape).astype(np.float32)
                adapter[f"base_model.model.layers.{n}.q_proj.lora_{part}.weight"] = plain(values)
        place = folder / f"adapter-{name}"
        write_file(place / "adapter_model.safetensors", adapter)
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        (place / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "text").write_text(" ".join(f"the hen {n} sings in the barn" for n in range(60)))
    (folder / "model").mkdir()
    tiny(folder / "model")


def _start(words: list[object], place: Path) -> int:
    """The number of a process that runs the command in ``place``."""
    process = fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        os.environ["SPRINGBACK_STATE"] = str(place / "state")
        command(*words)
        code = 0
    except BaseException as error:
        (place.parent / "error").write_text(repr(error))
    finally:
        os._exit(code)


def _finish(words: list[object], place: Path) -> float:
    """Run the command to its end; seconds."""
    begin = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(_start(words, place), 0)[1])
    if status:
        raise AssertionError(f"exit code {status}: {(place.parent / 'error').read_text()[-500:]}")
    return time.monotonic() - begin


def _kill(words: list[object], place: Path, after: float) -> bool:
    """Run the command for so many seconds, then kill it; whether it was still at work."""
    process = _start(words, place)
    end = time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(min(0.001, after))
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def content(place: Path) -> dict[str, str]:
    """Every file and folder in ``place``, and what is in it but for times."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_dir():
            found[name] = "folder"
        elif path.name == "made.json" or path.suffix in (".html", ".svg", ".png"):
            found[name] = "file"  # with times, or drawn from the result
        elif path.suffix == ".json":
            plain = json.dumps(_timeless(json.loads(path.read_text()), place), sort_keys=True)
            found[name] = plain
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timeless(value: Any, place: Path) -> Any:
    if isinstance(value, dict):
        inner = {k: v for k, v in value.items() if k not in ("provenance", "seconds", "created")}
        return {k: _timeless(v, place) for k, v in inner.items()}
    if isinstance(value, list):
        return [_timeless(v, place) for v in value]
    return value.replace(str(place), "") if isinstance(value, str) else value


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    for name in sorted({*one, *other}):
        a, b = one.get(name, "nothing"), other.get(name, "nothing")
        if a != b:
            where = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            shown = [text[max(0, where - 40) : where + 40] for text in (a, b)]
            return f"{name}: {shown[0]!r}, undisturbed {shown[1]!r}"
    return ""


@dataclass
class Count:
    """Of one kind of work: kills, ends compared, and what was wrong."""

    kills: int = 0
    too_late: int = 0
    ends: int = 0
    seconds: float = 0.0
    wrong: list[str] | None = None


def trial(name: str, kills: int, root: Path, seed: int = 0) -> Count:
    """So many kills of one kind of work, at moments drawn by ``seed``."""
    rng, count = random.Random(f"{name}:{seed}"), Count(wrong=[])
    assert count.wrong is not None
    inputs = root / "inputs"
    if not inputs.exists():
        inputs.mkdir(parents=True)
        make_inputs(inputs)
    words = WORKS[name].words(inputs)
    places = root / hashlib.sha256(name.encode()).hexdigest()[:8]
    whole = places / "whole"
    whole.mkdir(parents=True)
    count.seconds = _finish(words, whole)
    expected = content(whole)
    while count.kills < kills:
        place = places / f"cut-{count.ends}"
        place.mkdir()
        in_a_row = rng.randint(1, min(IN_A_ROW, kills - count.kills))
        moments = [rng.uniform(0, count.seconds) for _ in range(in_a_row)]
        killed = [_kill(words, place, moment) for moment in moments]
        count.kills += sum(killed)
        count.too_late += in_a_row - sum(killed)
        count.ends += 1
        try:
            _finish(words, place)
            wrong = _difference(content(place), expected)
        except AssertionError as error:
            wrong = str(error)
        if wrong:
            shown = ", ".join(f"{moment:.3f}" for moment in moments)
            count.wrong.append(f"killed after {shown} s of {count.seconds:.2f}: {wrong}")
    return count


def main() -> int:
    """The command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", help=f"of {'; '.join(WORKS)}; default: all")
    parser.add_argument("--out", type=Path, help="write the counts to this file")
    asked = parser.parse_args()
    begin, counts = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="springback-kills-") as folder:
        for name in asked.works.split(";") if asked.works else WORKS:
            kills = max(1, round(asked.kills * WORKS[name].share / KILLS))
            counts[name] = trial(name, kills, Path(folder).resolve(), asked.seed)
            print(f"{name}: {vars(counts[name])}", flush=True)
    wrong = sum(len(c.wrong or []) for c in counts.values())
    result = {
        "what": "kill -9 at random moments, then the same command again (tests/fuzz/kills.py)",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "seed": asked.seed,
        "kills": sum(c.kills for c in counts.values()),
        "seconds": round(time.monotonic() - begin),
        "by_work": {n: {**vars(c), "seconds": round(c.seconds, 2)} for n, c in counts.items()},
    }
    print(f"{result['kills']} kills, {wrong} wrong, {result['seconds']} s")
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    import fuzz.loaded  # noqa: F401  before the first fork

    sys.exit(main())
