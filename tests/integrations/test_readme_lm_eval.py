"""The README's lines for lm-eval as they stand, on a tiny boosted folder and rows of ARC's form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (make integrations)")

from readme_walk import commands, prepare_boosted

LINES = [line for line in commands() if line.startswith("springback lm-eval ")]
#: How a data set on the Hub says which files are which.
CARD = """---
configs:
- config_name: ARC-Easy
  data_files:
{parts}
---
"""


def arc(place: Path) -> None:
    """A folder in the place of the Hub's ``allenai/ai2_arc``, which ``datasets`` then reads."""
    folder = place / "allenai" / "ai2_arc"
    folder.mkdir(parents=True)
    parts = ("train", "validation", "test")
    for number, part in enumerate(parts):
        lines = [
            {
                "id": f"{part}-{n}",
                "question": f"Which is {number} and {n}?",
                "choices": {"text": ["in", "the", f"{n}", "thing"], "label": list("ABCD")},
                "answerKey": "ABCD"[n % 4],
            }
            for n in range(8)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    listed = "\n".join(f"  - split: {part}\n    path: {part}.jsonl" for part in parts)
    (folder / "README.md").write_text(CARD.format(parts=listed))


@pytest.mark.parametrize("line", LINES)
def test_the_readmes_line_scores_the_task(line: str, tiny_llama: Path, tmp_path: Path) -> None:
    prepare_boosted(tmp_path, tiny_llama)
    arc(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", *line.split()[1:]],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    assert "|arc_easy|" in done.stdout.replace(" ", "")


def test_the_readme_has_a_line_for_lm_eval() -> None:
    assert LINES
