"""The README as a new user takes it: its commands, its Python, and what its names stand for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from boosted_fixture import boosted

ROOT = Path(__file__).resolve().parents[1]


def blocks(kind: str = "") -> list[str]:
    """The blocks of code in a language, in order; commands stand in blocks of none."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    every = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [block for language, block in every if language == kind]


def commands() -> list[str]:
    """Every line that begins with ``springback`` in a block of commands, long ones put together."""
    lines = "".join(blocks()).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("springback ")]


def prepare(place: Path, model: Path) -> None:
    """What the README's names stand for: models, a run's checkpoints, rows, lm-eval's logs."""
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


def prepare_boosted(place: Path, model: Path) -> None:
    """``boost-of-mine/model`` as a boost that gained writes it; one of a random model gains
    nothing, and then writes none."""
    folder = place / "boost-of-mine" / "model"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        boosted(model, place / "gained").rename(folder)


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


def questions(path: Path, first: int) -> None:
    rows(
        path,
        16,
        lambda n: {"question": f"What is {first + n} and 1?", "answer": f"{first + n + 1}"},
    )
