"""``springback check --tasks``: lm-eval's own scores of both models, question by question."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from boosted_fixture import checkpoints
from springback.jobs.check.job import check
from springback.jobs.check.settings import CheckSettings

pytest.importorskip("lm_eval", reason="lm-eval is not installed (make integrations)")

NOTHING = CheckSettings(texts=(), choices=(), prompts=(), harmful=(), task_rows=8, task_tokens=4)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Eight questions about two passages."""
    documents = [
        {"q": f"{n} and 1 make", "right": n % 2, "passage": f"p{n // 4}"} for n in range(8)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return file


def write_task(folder: Path, rows: Path, lines: str) -> str:
    file = folder / "mine.yaml"
    head = f"task: mine\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {rows}\n"
    file.write_text(f'{head}test_split: test\ndoc_to_text: "{{{{q}}}}"\n{lines}')
    return str(file)


def test_multiple_choice_by_likelihood_in_clusters(
    tiny_llama: Path, rows: Path, tmp_path: Path
) -> None:
    base, tuned = checkpoints(tiny_llama, tmp_path)
    spec = write_task(
        tmp_path,
        rows,
        'output_type: multiple_choice\ndoc_to_choice: ["the", "in"]\ndoc_to_target: right\n'
        "metric_list:\n  - metric: acc\n",
    )
    settings = replace(NOTHING, base=str(base), tuned=str(tuned), tasks=(spec,))
    (model,) = check(settings, tmp_path / "out").data["analysis"]["models"]
    (measure,) = model["measures"]
    assert (measure["measure"], measure["n"]) == ("acc", 8)
    assert measure["method"] == "t over 2 clusters by passage"


def test_written_answers_as_the_task_of_the_fine_tuning(
    tiny_llama: Path, rows: Path, tmp_path: Path
) -> None:
    base, tuned = checkpoints(tiny_llama, tmp_path)
    spec = write_task(
        tmp_path,
        rows,
        'output_type: generate_until\ndoc_to_target: "{{q}}"\n'
        "metric_list:\n  - metric: exact_match\n",
    )
    settings = replace(NOTHING, base=str(base), tuned=str(tuned), task=f"lm-eval:{spec}")
    (model,) = check(settings, tmp_path / "out").data["analysis"]["models"]
    (measure,) = model["measures"]
    assert (measure["measure"], measure["purpose"]) == ("exact_match", "task")
    assert measure["base"]["mean"] == measure["tuned"]["mean"] == 0
