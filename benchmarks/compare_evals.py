"""``springback compare`` on two real runs of lm-eval: the harness's own test beside the paired one.

SmolLM2-135M-Instruct and the same model fine-tuned here on the answers of built-in choice questions
(``problems-choice``, training split) answer the same test questions in lm-eval, which takes the
likelihood of each choice's text after the question; then the two sample files are compared.
``--lm-eval`` names the program of an environment that has lm-eval with its ``hf`` models.

    python benchmarks/compare_evals.py --lm-eval path/to/bin/lm_eval
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from springback.core import Recipe, Row, to_jsonable
from springback.data import load_slice
from springback.jobs.boost.epochs import train_epochs
from springback.jobs.compare_evals import compare_evals
from springback.models.loading import release_memory, resolve
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import Store, write_json

RESULT = Path(__file__).parent / "results" / "compare_evals.json"
MODEL = "smollm2-135m"
SOURCE = "problems-choice:1"
RECIPE = Recipe(
    learning_rate=1e-5, batch_size=16, epochs=2, max_tokens=192, seed=0, precision="bf16-mixed"
)
TASK = """\
task: problems_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {questions}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""


def short(row: Row) -> tuple[str, str]:
    """The question without its lettered choices, and the right choice's text."""
    assert row.answer
    assert row.choices
    return row.prompt.split("\n")[0], row.choices["ABCD".index(row.answer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--lm-eval", help="its executable")
    parser.add_argument("--rows", type=int, default=256, help="training rows")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULT)
    options, started = parser.parse_args(), now()
    if options.lm_eval is None:
        print("needs --lm-eval: left out (see the head of this file)")
        return
    with tempfile.TemporaryDirectory() as scratch, Store(scratch).locked() as store:
        folder, start = Path(scratch), resolve(MODEL)
        train = load_slice(SOURCE, limit=options.rows, seed=0)
        pairs = [short(row) for row in train.rows]
        answered = zip(train.rows, pairs, strict=True)
        rows = tuple(replace(r, prompt=q, response=a) for r, (q, a) in answered)
        train = replace(train, rows=rows)
        tuned = train_epochs(start, train, RECIPE, store, Lines()).points[-1].checkpoint
        release_memory()
        test = load_slice(SOURCE, limit=options.questions, seed=0, split="test")
        questions = folder / "questions.jsonl"
        with questions.open("w", encoding="utf-8") as file:
            for row in test.rows:
                gold = "ABCD".index(row.answer or "")
                doc = {"question": short(row)[0], "choices": list(row.choices or ()), "gold": gold}
                file.write(json.dumps(doc) + "\n")
        (folder / "task").mkdir()
        (folder / "task" / "choice.yaml").write_text(TASK.format(questions=questions))
        # A plain name for the run, so that no path of a machine is in what is kept.
        names = {"base": start.path, "fine-tuned": tuned.path}
        for name, path in names.items():
            (folder / name).symlink_to(path)
            subprocess.run(
                [
                    *(options.lm_eval, "run", "--model", "hf", "--device", "cpu"),
                    *("--model_args", f"pretrained={folder / name},dtype=float32"),
                    *("--tasks", "problems_choice", "--include_path", str(folder / "task")),
                    *("--batch_size", "16", "--log_samples"),
                    *("--output_path", str(folder / f"out-{name}")),
                ],
                check=True,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )
        compared = compare_evals([folder / f"out-{name}" for name in names])
        (row,) = to_jsonable(compared.rows)
    row["run"] = "fine-tuned"
    found = {
        "model": MODEL,
        "recipe": to_jsonable(RECIPE),
        "train_rows": options.rows,
        "compared": row,
        "notes": compared.notes,
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(options.out, found)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
