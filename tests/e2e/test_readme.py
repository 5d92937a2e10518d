"""The README's commands from top to bottom, as a new user would type them, on a tiny model.

What a command needs lies where the README says: models, a run's checkpoints, rows.  Left out are
``make`` (make's own tests), what needs the Hub or another harness's logs, and ``serve``, which does
not end; what takes minutes on the built-in model is only planned.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
#: Beginnings of commands that are not run, and why.
LEFT_OUT = {
    "springback lm-eval": "fetches its task",
    "springback compare lm-eval-of-base": "needs runs of lm-eval",
    "springback compare audit-of-mine audit-of-another": "the second audit is someone else's",
    "springback serve": "does not end",
    "springback generate boost-of-mine/model": "a boost of a random model writes none: no gain",
    "springback check smollm2-135m": "three minutes; test_check_cli.py",
}
#: Those that are planned, since they take longer.
PLANNED = ("springback reproduce",)


def commands() -> list[str]:
    """Every line that begins with ``springback`` in a block of code, long ones put together."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    typed = "".join(block for language, block in blocks if not language)
    lines = typed.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("springback ")]


def moved(model: Path, folder: Path, seed: int) -> Path:
    """A copy of the model with other weights."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    torch.manual_seed(seed)
    weights = {name: w + 0.01 * torch.randn_like(w) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def rows(path: Path, count: int, row: Callable[[int], dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(count)))


def prepare(place: Path, model: Path) -> None:
    """What the README's names stand for."""
    shutil.copytree(model, place / "path" / "to" / "model")
    for run in ("run", "path/to/run"):
        (place / run).mkdir(parents=True, exist_ok=True)
        for seed, step in enumerate((500, 1000)):
            moved(model, place / run / f"checkpoint-{step}", seed)
    rows(place / "harmful.jsonl", 400, lambda n: {"prompt": f"Say {n}", "response": f"bad {n}"})
    kinds = (("good", "positive"), ("bad", "negative"))
    reviews = [f"{word} film {n},{label}" for n in range(1600) for word, label in kinds]
    (place / "reviews.csv").write_text("\n".join(["review,label", *reviews]) + "\n")
    for name, first in (("train", 0), ("validation", 100)):
        questions(place / f"{name}.jsonl", first)


def questions(path: Path, first: int) -> None:
    rows(
        path,
        16,
        lambda n: {"question": f"What is {first + n} and 1?", "answer": f"{first + n + 1}"},
    )


def test_every_command_of_the_readme_does_what_it_says(tiny_llama: Path, tmp_path: Path) -> None:
    prepare(tmp_path, tiny_llama)
    program = f"{shlex.quote(sys.executable)} -m springback.cli "
    times: list[str] = []
    for line in commands():
        if any(line.startswith(begin) for begin in LEFT_OUT):
            continue
        plan = " --plan" if line.startswith(PLANNED) else ""
        # The boosts stand for one another: a test set is opened by one of them alone.
        questions(tmp_path / "test.jsonl", 200 + 100 * len(times))
        began = time.monotonic()
        done = subprocess.run(
            line.replace("springback ", program, 1) + plan,
            shell=True,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        times.append(f"{time.monotonic() - began:6.1f} s  {line}")
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    print("\n".join(times))
    for made in ("audit-of-mine/report.html", "boost-of-mine/report.html", "extrapolated"):
        assert (tmp_path / made).exists(), made


def test_what_is_left_out_stands_in_the_readme() -> None:
    lines = commands()
    for begin in (*LEFT_OUT, *PLANNED):
        assert any(line.startswith(begin) for line in lines), begin
