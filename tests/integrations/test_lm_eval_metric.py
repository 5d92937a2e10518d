"""A boost on a task of lm-eval's: its prompts, filters and metrics, as lm-eval itself has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (make integrations)")

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from boost_pair import save_pair
from springback.cli.app import app
from springback.core import Row
from springback.errors import SpringbackError
from springback.integrations.lm_eval_tasks import load_task
from springback.jobs.boost.checks import load_data
from springback.jobs.boost.job import BoostSettings, boost
from springback.jobs.boost.questions import question_format
from springback.results.store import read_json

WORDS = ("the thing", "in the", "a thing in", "he", "er the", "1 1", "thing a", "ing the in")
GENERATE = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {SPLITS}}
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["1", "Q:"], max_gen_toks: 8, do_sample: false}
filter_list:
  - {name: first, filter: [{function: regex, regex_pattern: "(\\\\w)"}, {function: take_first}]}
  - name: last
    filter: [{function: regex, regex_pattern: "(\\\\w)", group_select: -1}, {function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CHOICE = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {SPLITS}}
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


def documents(split: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"{split} {WORDS[i % 8]} {i}",
            "answer": WORDS[i % 5][0],
            "choices": [WORDS[i % 8], WORDS[(i + 3) % 8] + " the er", "a"],
            "gold": i % 3,
        }
        for i in range(count)
    ]


def write_task(root: Path, name: str, text: str, more: str = "", **splits: int) -> Path:
    places = []
    for split, count in splits.items():
        path = root / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(d) + "\n" for d in documents(split, count)))
        places.append(f"{split}: {path}")
        more += f"{split}_split: {split}\n" if split != "train" else "training_split: train\n"
    path = root / f"{name}.yaml"
    path.write_text(text.replace("NAME", name).replace("SPLITS", ", ".join(places)) + more)
    return path


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints without a chat template, as lm-eval takes them by default."""
    folders = save_pair(tiny_llama, tmp_path_factory.mktemp("pair"), torch.float32)
    for folder in folders:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folders


def settings(pair: tuple[Path, Path], metric: str, **more: Any) -> BoostSettings:
    plain: dict[str, Any] = {"mu": (0.5,), "lam": (1.0,), "lam_cd": (0.5,), "max_new_tokens": 8}
    plain |= {"early": str(pair[0]), "ft": str(pair[1]), "precheck": False, "write_model": False}
    return BoostSettings(metric=metric, **plain, **more)


def judged_by_lm_eval(folder: Path, path: Path, **options: Any) -> Any:
    """lm-eval's own model and evaluator: the samples by question."""
    name = path.stem
    done = lm_eval.simple_evaluate(
        HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1),
        tasks=[name],
        task_manager=TaskManager(include_path=str(path.parent), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        fewshot_as_multiturn=False,
        **options,
    )
    return done["results"][name], done["samples"][name]


def runs(out: Path, part: str) -> list[Any]:
    every = [read_json(path) for path in (out / "runs").glob("score-*/run.json")]
    return [run for run in every if run["inputs"]["part"] == part]


@pytest.mark.parametrize(
    ("word", "metric", "pipeline"),
    [("", "exact_match", "first"), (":exact_match,last", "exact_match", "last")],
)
def test_written_answers_are_judged_as_lm_eval_does(
    pair: tuple[Path, Path], tmp_path: Path, word: str, metric: str, pipeline: str
) -> None:
    more = "num_fewshot: 2\nfewshot_split: train\n"
    path = write_task(tmp_path, "mine", GENERATE, more, train=5, validation=6, test=9)
    out = tmp_path / "out"
    result = boost(settings(pair, f"lm-eval:{path}{word}"), out)
    theirs, samples = judged_by_lm_eval(pair[1], path)
    (row,) = (m for m in result.data["analysis"]["methods"] if m["method"] == "fine-tuned")
    assert row["accuracy"]["mean"] == theirs[f"{metric},{pipeline}"]
    plain = [r for r in runs(out, "test") if not r["inputs"]["mu"] and not r["inputs"]["lam"]]
    texts = {str(sample["resps"][0][0]) for sample in samples}
    cut = {t.split("1")[0].split("Q:")[0] for t in plain[0]["results"]["completions"]}
    assert cut == texts
    assert len(runs(out, "validation")[0]["results"]["correct"]) == 6
    data = load_data(settings(pair, f"lm-eval:{path}"))
    assert {r.prompt for r in data.test.rows} == {s["arguments"][0][0] for s in samples}
    assert all(r.prompt.count("Q:") == 3 for r in data.validation.rows)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_choices_are_judged_by_their_likelihoods(
    pair: tuple[Path, Path], tmp_path: Path, metric: str
) -> None:
    path = write_task(tmp_path, "pick", CHOICE, validation=7, test=8)
    out = tmp_path / "out"
    result = boost(settings(pair, f"lm-eval:{path}:{metric}", positive=True), out)
    theirs, samples = judged_by_lm_eval(pair[1], path)
    methods = {m["method"]: m for m in result.data["analysis"]["methods"]}
    assert methods["fine-tuned"]["accuracy"]["mean"] == theirs[f"{metric},none"]
    assert result.data["inputs"]["task"]["extraction"].startswith("the log-likelihoods")
    tests = runs(out, "test")
    plain = [r for r in tests if not r["inputs"]["mu"] and not r["inputs"]["lam"]]
    ours = sorted(v for row in plain[0]["results"]["log_likelihoods"] for v in row)
    wanted = sorted(float(r[0][0]) for s in samples for r in s["resps"])
    assert ours == pytest.approx(wanted, abs=1e-3)
    pairs = [r for r in tests if r["inputs"]["lam"] == 1.0]
    assert pairs[0]["results"]["log_likelihoods"] != plain[0]["results"]["log_likelihoods"]


def test_a_chat_template_frames_what_lm_eval_frames(tiny_llama: Path, tmp_path: Path) -> None:
    pair = save_pair(tiny_llama, tmp_path, torch.float32)
    more = "num_fewshot: 2\nfewshot_split: validation\n"
    path = write_task(tmp_path, "chat", CHOICE, more, validation=6, test=8)
    boost(settings(pair, f"lm-eval:{path}", positive=True), tmp_path / "out")
    theirs, samples = judged_by_lm_eval(pair[1], path, apply_chat_template=True)
    tests = runs(tmp_path / "out", "test")
    plain = [r for r in tests if not r["inputs"]["mu"] and not r["inputs"]["lam"]]
    ours = sorted(v for row in plain[0]["results"]["log_likelihoods"] for v in row)
    wanted = sorted(float(r[0][0]) for s in samples for r in s["resps"])
    assert ours == pytest.approx(wanted, abs=1e-3)
    correct = plain[0]["results"]["correct"]
    assert sum(correct) / len(correct) == theirs["acc,none"]


def test_one_split_is_split_by_the_seed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_task(tmp_path, "single", GENERATE, test=12)
    one = settings(pair, f"lm-eval:{path}", validation_rows=4, test_rows=5)
    data = load_data(one)
    assert (len(data.validation), len(data.test)) == (4, 5)
    other = load_data(settings(pair, f"lm-eval:{path}", validation_rows=4, test_rows=5, seed=1))
    assert {r.prompt for r in other.test.rows} != {r.prompt for r in data.test.rows}
    with pytest.raises(SpringbackError, match="asked for 100 rows"):
        load_data(settings(pair, f"lm-eval:{path}", validation_rows=50, test_rows=50))


def test_a_folder_of_tasks_by_name_and_the_identity(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path = write_task(tmp_path, "named", GENERATE, validation=3, test=4)
    how = question_format(settings(pair, f"lm-eval:{tmp_path}/named"))
    same = question_format(settings(pair, f"lm-eval:{path}"))
    assert how.key() == same.key()
    other = question_format(settings(pair, f"lm-eval:{path}:exact_match,last"))
    assert other.key() != same.key()
    assert how.harness is not None
    rows = [one.row for one in how.harness.parts()["test"]]
    assert how.grade(rows, [f" {row.answer}." for row in rows]) == [True] * 4
    assert how.grade(rows, ["1" + str(row.answer) for row in rows]) == [False] * 4, "cut at 1"
    stranger = Row("prompt", "?", "", answer="x", label="none")
    with pytest.raises(SpringbackError, match="is none of the task's"):
        how.grade([stranger], ["x"])


def test_a_validation_question_is_not_among_its_own_examples(tmp_path: Path) -> None:
    more = "num_fewshot: 2\nfewshot_split: validation\n"
    path = write_task(tmp_path, "own", GENERATE, more, validation=4, test=4)
    for part in load_task(f"lm-eval:{path}").parts().values():
        for one in part:
            assert one.row.prompt.count(one.question) == 1


@pytest.mark.parametrize(
    ("change", "word", "says"),
    [
        (("exact_match, aggregation", "bleu, aggregation"), "", "returned .* for row 1"),
        (("higher_is_better: true", "higher_is_better: false"), "", "of which less is better"),
        (
            ("generate_until", "loglikelihood"),
            "",
            "a task of loglikelihood; allowed: generate_until",
        ),
        (("", ""), ":exact_match,middle", "filter 'middle'; allowed: first, last"),
        (("", ""), ":f1", "metric 'f1'; allowed: exact_match"),
        (("doc_to_text", "repeats: 4\ndoc_to_text"), "", "4 samples a question"),
        (("doc_to_text", "unsafe_code: true\ndoc_to_text"), "", "examples/unit_tests.py"),
        (("{{question}}", "{{question.nothing.at.all}}"), "", "failed with UndefinedError"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, change: tuple[str, str], word: str, says: str
) -> None:
    text = GENERATE.replace(*change, 1) if change[0] else GENERATE
    path = write_task(tmp_path, "bad", text, validation=3, test=3)
    with pytest.raises(SpringbackError, match=says):
        load_data(settings(pair, f"lm-eval:{path}{word}", validation_rows=2, test_rows=2))


def test_unknown_tasks_and_groups(tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match=r"task 'gsm8'; allowed: .*such as .*gsm8k"):
        load_task("lm-eval:gsm8")
    for name in ("a", "b"):
        write_task(tmp_path, name, GENERATE, validation=3, test=3)
    (tmp_path / "both.yaml").write_text("group: both\ntask: [a, b]\n")
    with pytest.raises(SpringbackError, match=r"a group of 2 tasks; allowed: .* name one of a, b"):
        load_task(f"lm-eval:{tmp_path}/both")


def test_by_the_command_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_task(tmp_path, "flags", GENERATE, validation=3, test=4)
    words = ["boost", "--early", str(pair[0]), "--ft", str(pair[1]), "--metric", f"lm-eval:{path}"]
    words += ["--mu", "0.5", "--lambda", "1", "--cd-lambda", "0.5", "--max-new-tokens", "4"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [*words, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (out / "report.html").exists()
    shown = CliRunner().invoke(app, [*words, "--show-prompt"], catch_exceptions=False)
    assert "lm-eval's filter and metric (flags:exact_match,first)" in shown.output
    assert "Q: validation" in shown.output


def test_a_tasks_own_function_may_give_shares(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def judge(doc, results):\n"
        "    return {'share': len(set(results[0])) / 16, 'other': 1.0, 'percent': 55.0}\n"
    )
    metrics = "metric_list:\n" + "".join(
        f"  - {{metric: {name}, aggregation: mean, higher_is_better: true}}\n"
        for name in ("share", "other", "percent", "absent")
    )
    text = (
        GENERATE.partition("filter_list")[0] + metrics + "process_results: !function judge.judge\n"
    )
    path = write_task(tmp_path, "shares", text, validation=4, test=6)
    out = tmp_path / "out"
    result = boost(settings(pair, f"lm-eval:{path}"), out)
    theirs, _ = judged_by_lm_eval(pair[1], path)
    (row,) = (m for m in result.data["analysis"]["methods"] if m["method"] == "fine-tuned")
    assert row["accuracy"]["mean"] == pytest.approx(theirs["share,none"])
    assert 0 < theirs["share,none"] < 1
    load_data(settings(pair, f"lm-eval:{path}:other"))
    with pytest.raises(SpringbackError, match=r"returned 55.0 for row 1"):
        load_data(settings(pair, f"lm-eval:{path}:percent"))
    with pytest.raises(SpringbackError, match="metric absent; allowed: share, other, percent"):
        load_data(settings(pair, f"lm-eval:{path}:absent"))


def test_a_plan_needs_no_weights(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_task(tmp_path, "planned", CHOICE, validation=3, test=4)
    words = ["boost", "plan", "--early", str(pair[0]), "--ft", str(pair[1])]
    shown = CliRunner().invoke(app, [*words, "--metric", f"lm-eval:{path}"])
    assert shown.exit_code == 0, shown.output
