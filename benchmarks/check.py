"""``springback check`` as a user runs it: time, memory, findings, on a fine-tuning made here.

SmolLM2-135M-Instruct is fine-tuned on 192 built-in word problems (all weights, batches of 16), with
a checkpoint at 48, 96 and 192 examples.  Then two commands run, each as a process of its own:
``springback check BASE TUNED`` with no other flag, and ``springback check BASE --run DIR --task
problems`` on passages alone.  Claim: the first takes less than three minutes on two cores.  Beside
the wall clock stands the processor time, which means something on a busy machine too.

    OMP_NUM_THREADS=2 python benchmarks/check.py --work check-benchmark
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from springback.core import Recipe
from springback.data import load_slice
from springback.models.encoding import encode_rows
from springback.models.from_scratch import save_model
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json
from springback.training import Marks, Resume, finetune

RESULT = Path(__file__).parent / "results" / "check.json"
BASE = "smollm2-135m"
MARKS = (48, 96, 192)
LEARNING_RATE = 2e-5


def fine_tuned(folder: Path) -> Path:
    """The run's folder, its checkpoints in it; made unless they are there."""
    places = {n: folder / f"checkpoint-{n}" for n in MARKS}
    if not all(place.exists() for place in places.values()):
        start = resolve(BASE)
        tokenizer, model = load_tokenizer(start), load_model(start)
        rows = encode_rows(tokenizer, load_slice("problems", limit=max(MARKS)).rows, 160)
        recipe = Recipe(learning_rate=LEARNING_RATE, max_tokens=160, precision="float32")
        marks = Marks(MARKS, lambda n, trained: save_model(trained, tokenizer, places[n]))
        progress = Lines()
        progress.stage("fine-tuning", len(rows) // recipe.batch_size)
        finetune(model, tokenizer, rows, recipe, marks, Resume(folder / "partial"), progress)
    return folder


def measured(words: list[str], out: Path) -> dict[str, Any]:
    """Seconds and peak memory of one command, and what it found."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "springback.cli", "check", BASE, *words, "--out", str(out)]
    begin, load = time.monotonic(), os.getloadavg()[0]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    if status:
        raise SystemExit(f"springback check ended with status {status}")
    result = read_json(out / "result.json")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "load_before_and_after": [round(load, 1), round(os.getloadavg()[0], 1)],
        "peak_memory_gb": round(usage.ru_maxrss / 1e6, 2),
        "runs": result["provenance"]["runs"]["made"],
        "verdict": result["verdict"]["text"],
        "analysis": result["analysis"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, help="Folder for models; by default a new one.")
    parser.add_argument("--only-train", action="store_true")
    asked = parser.parse_args()
    started = now()
    with tempfile.TemporaryDirectory() as new:
        work = asked.work or Path(new)
        if asked.only_train:
            fine_tuned(work / "run")
            return
        # Apart: what this process held at its peak would count as its children's.
        train = [sys.executable, __file__, "--only-train", "--work", str(work)]
        subprocess.run(train, check=True)
        run = fine_tuned(work / "run")
        last = str(run / f"checkpoint-{max(MARKS)}")
        along = ["--run", str(run), "--task", "problems", "--texts", "passages"]
        along += [word for name in ("choices", "prompts", "harmful") for word in (f"--{name}", "")]
        findings = {
            "base_and_tuned": measured([last], work / "pair"),
            "along_the_run": measured(along, work / "along"),
        }
    findings = json.loads(json.dumps(findings).replace(str(work), "WORK"))
    write_json(
        asked.out,
        {
            "what": __doc__.splitlines()[0],
            "training": {"rows": max(MARKS), "marks": MARKS, "learning_rate": LEARNING_RATE},
            **findings,
            "provenance": {**provenance(started=started, finished=now()), "command": None},
        },
    )
    print(f"check: {findings['base_and_tuned']['seconds']:.0f} s; written to {asked.out}")


if __name__ == "__main__":
    main()
