"""Runs of lm-eval and inspect_ai compared: read by content, paired by question, or refused."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from springback.errors import DataError
from springback.integrations.eval_logs import is_eval, read_eval
from springback.jobs.compare_evals import compare_evals
from springback.stats import mcnemar_exact, paired_clusters, paired_interval

DATE = "2026-01-02T03-04-05.678901"


def lm_eval(
    folder: Path,
    scores: Sequence[float],
    *,
    task: str = "quiz",
    metric: str = "acc",
    filters: Sequence[str] = ("none",),
    docs: Sequence[Mapping[str, Any]] | None = None,
    version: int = 1,
    model: str | None = None,
    date: str = DATE,
    **changed: Any,
) -> Path:
    """A folder as ``lm_eval --log_samples --output_path`` writes it."""
    place = folder / "model"
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"samples_{task}_{date}.jsonl").open("w") as file:
        for name in filters:
            for i, score in enumerate(scores):
                row = {
                    "doc_id": i,
                    "doc": dict(docs[i]) if docs else {"question": f"q{i}"},
                    "target": "A",
                    "arguments": {"gen_args_0": {"arg_0": f"q{i}"}},
                    "resps": [["A"]],
                    "filtered_resps": ["A"],
                    "filter": name,
                    "metrics": [metric],
                    "doc_hash": f"hash{i}",
                    "prompt_hash": f"prompt{i}",
                    "target_hash": "t",
                    metric: score,
                } | changed
                file.write(json.dumps(row) + "\n")
    about = {
        "results": {},
        "versions": {task: version},
        "higher_is_better": {task: {metric: True}},
        "model_name": model or folder.name,
    }
    (place / f"results_{date}.json").write_text(json.dumps(about))
    return folder


def inspect_log(
    file: Path,
    values: Sequence[Sequence[Any]],
    *,
    packed: bool = False,
    cluster: str | None = None,
    status: str = "success",
    version: Any = 0,
) -> Path:
    """A log as inspect_ai writes it: ``values`` by sample, one for each epoch."""
    options = {"cluster": cluster} if cluster else {}
    head = {
        "task": "quiz",
        "task_version": version,
        "model": file.stem,
        "scorers": [{"name": "match", "metrics": [{"name": "stderr", "options": options}]}],
    }
    samples = [
        {
            "id": i + 1,
            "epoch": epoch,
            "metadata": {"story": i // 2},
            "scores": {"match": {"value": value, "answer": ""}},
        }
        for i, of_sample in enumerate(values)
        for epoch, value in enumerate(of_sample, 1)
    ]
    log = {"version": 2, "status": status, "eval": head, "plan": {}}
    file.parent.mkdir(parents=True, exist_ok=True)
    if not packed:
        file.write_text(json.dumps(log | {"samples": samples}))
        return file
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in samples:
            name = f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            archive.writestr(name, json.dumps(sample))
        archive.writestr("summaries.json", "[]")
        archive.writestr("header.json", json.dumps(log))
    return file


FIRST = [1.0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
OTHER = [1.0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0]


def test_lm_eval_runs_are_paired_by_question(tmp_path: Path) -> None:
    places = [lm_eval(tmp_path / "one", FIRST), lm_eval(tmp_path / "two", OTHER)]
    (row,) = compare_evals(places).rows
    assert (row.task, row.metric, row.run, row.questions) == ("quiz", "acc", "two", 20)
    assert (row.won, row.lost) == (5, 1)
    assert row.p == mcnemar_exact(OTHER, FIRST) == pytest.approx(2 * 7 / 64)
    assert row.difference == paired_interval(OTHER, FIRST)
    # Two means of 20 by themselves: their variances over 19, over 20.
    error = math.sqrt((0.5 * 0.5 + 0.7 * 0.3) / 19)
    assert row.p_unpaired == pytest.approx(math.erfc(0.2 / error / math.sqrt(2)))
    assert row.label == "undecided"


def test_order_and_missing_questions_do_not_matter(tmp_path: Path) -> None:
    one = lm_eval(tmp_path / "one", FIRST)
    two = lm_eval(tmp_path / "two", OTHER)
    file = next(two.rglob("*.jsonl"))
    lines = file.read_text().splitlines()[:-2]
    file.write_text("\n".join(reversed(lines)) + "\n")
    (row,) = compare_evals([one, two]).rows
    assert row.questions == 18
    assert row.difference.mean == pytest.approx(sum(OTHER[:18]) / 18 - sum(FIRST[:18]) / 18)
    assert any("2 questions" in note for note in row.notes)


def test_many_runs_and_tasks_share_one_correction(tmp_path: Path) -> None:
    big = [float(i % 3 == 0) for i in range(300)]
    better = [float(i % 3 <= 1) for i in range(300)]
    places = [lm_eval(tmp_path / name, s) for name, s in (("a", big), ("b", better), ("c", big))]
    for place, scores in zip(places, (big, big, big), strict=True):
        lm_eval(place, scores, task="second")
    compared = compare_evals(places)
    assert [(r.task, r.run) for r in compared.rows] == [
        ("quiz", "b"), ("second", "b"), ("quiz", "c"), ("second", "c")
    ]  # fmt: skip
    first = compared.rows[0]
    assert first.label == "higher"
    assert first.p is not None and first.p_holm == pytest.approx(4 * first.p)  # noqa: PT018
    assert {r.label for r in compared.rows[1:]} <= {"same", "undecided"}
    page = compared.to_markdown()
    assert page.count("| quiz |") == 2
    assert "higher" in page


def test_several_filters_want_a_name(tmp_path: Path) -> None:
    both = ("strict-match", "flexible-extract")
    places = [lm_eval(tmp_path / n, FIRST, filters=both) for n in ("a", "b")]
    with pytest.raises(DataError, match=r"several filters \(flexible-extract, strict-match\)"):
        compare_evals(places)
    with pytest.raises(DataError, match="not loose"):
        compare_evals(places, "loose")
    assert compare_evals(places, "strict-match").rows[0].questions == 20


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"version": 2}, "version 1 in .* and 2"),
        ({"task": "else"}, "share no task"),
        ({"doc_hash": "same"}, "share no question"),
    ],
)
def test_what_does_not_pair_is_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    places = [lm_eval(tmp_path / "a", FIRST), lm_eval(tmp_path / "b", OTHER, **other)]
    with pytest.raises(DataError, match=message):
        compare_evals(places)


def test_two_runs_in_a_folder_want_a_name(tmp_path: Path) -> None:
    one = lm_eval(tmp_path / "a", FIRST)
    lm_eval(one, OTHER, date="2026-01-03T03-04-05.678901")
    with pytest.raises(DataError, match="two runs of quiz"):
        read_eval(one)
    assert len(read_eval(min(one.rglob("*.jsonl"))).tasks) == 1


def test_a_question_scored_twice_is_refused(tmp_path: Path) -> None:
    one = lm_eval(tmp_path / "a", FIRST)
    file = next(one.rglob("*.jsonl"))
    file.write_text(file.read_text() + file.read_text().splitlines()[3] + "\n")
    with pytest.raises(DataError, match="twice"):
        read_eval(one)


def test_equal_questions_of_a_task_are_told_apart_by_number(tmp_path: Path) -> None:
    places = [lm_eval(tmp_path / n, s, doc_hash="h") for n, s in (("a", FIRST), ("b", OTHER))]
    assert compare_evals(places).rows[0].questions == 20


def test_questions_of_one_passage_are_a_cluster(tmp_path: Path) -> None:
    docs = [{"passage": f"story {i // 4}", "question": str(i)} for i in range(20)]
    places = [lm_eval(tmp_path / n, s, docs=docs) for n, s in (("a", FIRST), ("b", OTHER))]
    (row,) = compare_evals(places).rows
    interval, p = paired_clusters(OTHER, FIRST, [i // 4 for i in range(20)])
    assert (row.difference, row.p) == (interval, p)
    assert row.difference.n == 5
    assert any("passage" in note for note in row.notes)


def test_clusters_of_equal_size_are_a_t_test_over_their_means() -> None:
    a, b = [1.0, 0, 1, 1, 0, 1], [0.0, 0, 0, 1, 0, 0]
    interval, p = paired_clusters(a, b, ["x", "x", "y", "y", "z", "z"])
    # Means of the clusters: 0.5, 0.5, 0.5 -> no spread.
    assert interval.bounds is None and p is None  # noqa: PT018
    interval, p = paired_clusters(a, b, ["x", "x", "x", "y", "y", "y"])
    # Means 2/3 and 1/3: standard error 1/6, t of one degree of freedom is Cauchy.
    assert interval.mean == pytest.approx(0.5)
    assert interval.high is not None
    assert interval.high - 0.5 == pytest.approx(math.tan(math.pi * 0.475) / 6)
    assert p == pytest.approx(1 - 2 * math.atan(3) / math.pi)


def test_prompts_in_other_words_are_told(tmp_path: Path) -> None:
    places = [lm_eval(tmp_path / "a", FIRST), lm_eval(tmp_path / "b", OTHER, prompt_hash="x")]
    (row,) = compare_evals(places).rows
    assert any("other words" in note for note in row.notes)


@pytest.mark.parametrize("packed", [False, True])
def test_inspect_logs_are_read_in_both_formats(tmp_path: Path, packed: bool) -> None:
    end = "eval" if packed else "json"
    one = inspect_log(tmp_path / "a" / f"one.{end}", [["C"], ["I"], ["C"], ["P"]], packed=packed)
    two = inspect_log(tmp_path / "b" / f"two.{end}", [["C"], ["C"], [True], [0.5]], packed=packed)
    assert is_eval(one) and is_eval(two.parent)  # noqa: PT018
    (row,) = compare_evals([one, two.parent]).rows
    assert (row.first, row.other, row.questions) == (0.625, 0.875, 4)
    assert (row.run, row.metric) == ("two", "match")


def test_epochs_of_a_sample_are_averaged(tmp_path: Path) -> None:
    one = inspect_log(tmp_path / "one.json", [["C", "I"], ["I", "I"], ["C", "C"]])
    two = inspect_log(tmp_path / "two.json", [["C", "C"], ["I", "C"], ["C", "C"]])
    (row,) = compare_evals([one, two]).rows
    assert row.first == pytest.approx(0.5)
    assert row.difference.n == 3
    assert row.won is None


def test_clusters_that_a_task_names_are_used(tmp_path: Path) -> None:
    values = [["C"], ["I"], ["C"], ["C"], ["I"], ["I"]]
    one = inspect_log(tmp_path / "one.json", values, cluster="story")
    two = inspect_log(tmp_path / "two.json", [["C"]] * 6, cluster="story")
    (row,) = compare_evals([one, two]).rows
    assert row.difference.n == 3


def test_other_versions_and_broken_runs_of_inspect_are_refused(tmp_path: Path) -> None:
    one = inspect_log(tmp_path / "one.json", [["C"], ["I"]])
    later = inspect_log(tmp_path / "two.json", [["C"], ["I"]], version="2-A")
    with pytest.raises(DataError, match=r"version 0 in .* and 2-A"):
        compare_evals([one, later])
    with pytest.raises(DataError, match="ended as 'error'"):
        read_eval(inspect_log(tmp_path / "three.json", [["C"]], status="error"))
    cut = inspect_log(tmp_path / "four.eval", [["C"]], packed=True)
    cut.write_bytes(cut.read_bytes().replace(b"header.json", b"hea_er.json"))
    with pytest.raises(DataError, match="no whole log"):
        read_eval(cut)


@pytest.mark.parametrize(
    "line", ["", "{", "[" * 100_000, '{"doc_id": 1}', '{"other": 1}', '"text"', "null"]
)
def test_damaged_samples_are_refused(tmp_path: Path, line: str) -> None:
    one = lm_eval(tmp_path / "a", FIRST)
    file = next(one.rglob("*.jsonl"))
    text = file.read_text().splitlines()
    file.write_text("\n".join([text[0], line, *text[1:]]) + "\n")
    if line:
        with pytest.raises(DataError):
            read_eval(file)
    else:
        assert read_eval(file).tasks
    file.write_text(line)
    assert not is_eval(file)


def test_other_folders_are_no_evals(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema_version": 1, "kind": "audit"}')
    (tmp_path / "data.jsonl").write_text('{"question": "x", "answer": "y"}\n')
    assert not is_eval(tmp_path)
    with pytest.raises(DataError, match="no scores by question"):
        read_eval(tmp_path)
    with pytest.raises(DataError, match="two or more"):
        compare_evals([tmp_path])
