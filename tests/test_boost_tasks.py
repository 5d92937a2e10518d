"""How questions are asked and answers read: named tasks, templates, extraction, own metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boosted_fixture import checkpoints
from springback.core import Row, Slice, to_jsonable
from springback.data import TASKS, load_rows
from springback.data.grading import compile_extraction, find_answer
from springback.errors import DataError, SpringbackError
from springback.inference import generate, load
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import boost
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.results.store import read_json


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(path)


def qa(answer: str, metric: str | None = None) -> Row:
    return Row("qa", "How many?", "", answer, metric=metric)


def gsm8k(n: int) -> dict[str, Any]:
    total = str(2 + n)
    worked = f"2 + {n} = <<2+{n}={total}>>{total}.\n#### {total}"
    return {"question": f"2 + {n}?", "answer": worked, "final": total}


def logiqa(n: int, ours: bool) -> dict[str, Any]:
    names = ("question", "choices", "answer") if ours else ("query", "options", "correct_option")
    values = (f"Which follows, {n}?", ["this", "that", "both", "neither"], n % 4)
    return {"context": f"Case {n}.", **dict(zip(names, values, strict=True))}


def test_gsm8k_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", [gsm8k(n) for n in range(30)])
    settings = BoostSettings(
        task="gsm8k",
        model="m",
        train=path,
        validation=path,
        test=path,
        validation_rows=5,
        test_rows=5,
    )
    assert check_settings(settings).metric == "number"
    data = load_data(settings)
    assert data.train is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 5, 5)
    row = data.test.rows[0]
    assert row.response.endswith(f"#### {row.answer}")
    assert "<<" not in row.response


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("name", ["logiqa", "jecqa"])
def test_choices_by_either_names(name: str, ours: bool, tmp_path: Path) -> None:
    """Our names, or those of LogiQA on the hub; without a worked solution the letter is learned."""
    path = write(tmp_path / "q.jsonl", [logiqa(n, ours) for n in range(12)])
    settings = BoostSettings(
        task=name, model="m", train=path, validation=path, test=path, validation_rows=3, test_rows=3
    )
    if name == "jecqa" and not ours:
        with pytest.raises(DataError, match="fields not recognised"):
            load_data(settings)
        return
    data, how = load_data(settings), question_format(settings)
    assert data.train is not None
    for row in data.train.rows:
        assert row.response == row.answer
    row = how.render(data.test).rows[0]
    assert row.prompt.startswith("Case ")
    assert "\nA. this\nB. that\nC. both\nD. neither\n" in row.prompt
    assert row.prompt.endswith(TASKS[name].template.removeprefix("{question}"))
    assert how.grade([row], [f"{row.answer}."]) == [True]


def test_jecqa_as_it_is_handed_out(tmp_path: Path) -> None:
    def row(n: int, answer: list[str]) -> dict[str, Any]:
        options = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
        told = {"id": f"0_{n}", "statement": f"下列说法{n}", "option_list": options}
        return {**told, "answer": answer, "subject": "民法", "type": "0"}

    right = [["A"], ["B", "D"], ["C", "A"], ["A", "B", "C", "D"]]
    path = write(tmp_path / "q.jsonl", [row(n, right[n % 4]) for n in range(8)])
    settings = BoostSettings(
        task="jecqa", early="a", ft="b", validation=path, test=path, validation_rows=4, test_rows=4
    )
    how, data = question_format(settings), load_data(settings)
    for found in (*data.validation.rows, *data.test.rows):
        n = int(found.prompt.partition("说法")[2][0])
        assert found.prompt.endswith("A. 甲\nB. 乙\nC. 丙\nD. 丁")
        assert found.answer == "".join(sorted(right[n % 4]))
        said = ["、".join(right[n % 4]), "B", "答案是ABC", "都不对"]
        assert how.grade([found] * 4, said) == [True, False, False, False]


def test_jecqa_has_nothing_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give a file or a hub id with --test"):
        check_settings(BoostSettings(task="jecqa", early="a", ft="b"))
    with pytest.raises(DataError, match="allowed: gsm8k, logiqa, jecqa"):
        check_settings(BoostSettings(task="mmlu", early="a", ft="b"))


def test_hub_parts_come_from_the_splits_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """GSM8K has no validation split: it is drawn from the training rows, and disjoint."""
    from springback.data import records

    rows = {"train": [gsm8k(n) for n in range(40)], "test": [gsm8k(n) for n in range(50, 60)]}
    asked_for: list[tuple[Any, ...]] = []

    def stored(name: str, config: Any, split: str, revision: Any) -> Any:
        asked_for.append((name, config, split))
        return iter(records.Record(f"row {i}", dict(r)) for i, r in enumerate(rows[split]))

    monkeypatch.setattr(records, "hub_records", stored)
    settings = BoostSettings(task="gsm8k", model="m", validation_rows=8, train_rows=16)
    data = load_data(check_settings(settings))
    assert data.train is not None
    assert (len(data.test), len(data.validation), len(data.train)) == (10, 8, 16)
    assert set(asked_for) == {("openai/gsm8k", "main", s) for s in ("train", "test")}


def test_a_template_frames_the_question_and_a_plain_one_changes_no_hash() -> None:
    part = Slice.of("q", "q", [qa("3")])
    plain = question_format(BoostSettings())
    assert plain.render(part) is part
    assert question_format(BoostSettings(prompt_template="{question}")).render(part) is part
    framed = question_format(BoostSettings(prompt_template="Q: {question} {x}\nA:")).render(part)
    assert framed.rows[0].prompt == "Q: How many? {x}\nA:"
    assert framed.content_hash != part.content_hash
    with pytest.raises(DataError, match="--prompt-template"):
        question_format(BoostSettings(prompt_template="no place"))


def test_the_last_match_of_an_extraction_is_what_is_graded() -> None:
    """The number behind the last 'Result:', where the metric alone would read the last number."""
    text = "Result: 3\nNo: Result: 4, I checked 10 times."
    assert find_answer(compile_extraction(r"Result: (\d+)"), text) == "4"
    assert find_answer(compile_extraction(r"Result: \d+"), text) == "Result: 4"
    assert find_answer(compile_extraction(r"^Result: \d+"), text) == "Result: 3"
    assert find_answer(compile_extraction(r"Answer: (\d+)"), text) is None
    rows = [qa("4")] * 2
    assert question_format(BoostSettings()).grade(rows, [text, "4"]) == [False, True]
    how = question_format(BoostSettings(extract=r"Result: (\d+)"))
    assert how.grade(rows, [text, "4"]) == [True, False]
    assert how.key() == {"metric": "number", "extract": r"Result: (\d+)"}
    with pytest.raises(DataError, match="--extract"):
        question_format(BoostSettings(extract="("))


def test_a_rows_own_metric_wins(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "answer": "7", "metric": "number"},
        {"question": "b?", "answer": "7", "metric": "exact"},
        {"question": "c?", "answer": "7"},
    ]
    loaded = load_rows(write(tmp_path / "a.jsonl", rows))
    assert [r.metric for r in loaded] == ["number", "exact", None]
    how = question_format(BoostSettings(metric="exact"))
    assert how.grade(loaded, ["it is 7", "it is 7", "it is 7"]) == [True, False, False]
    bad = write(tmp_path / "b.jsonl", [{**rows[0], "metric": "python:x.py:f"}])
    with pytest.raises(DataError, match="none of number, choice, choices, exact"):
        load_rows(bad)


def test_a_row_without_a_metric_hashes_as_before() -> None:
    assert "metric" not in to_jsonable(qa("3"))
    assert to_jsonable(qa("3", "exact"))["metric"] == "exact"


def function(path: Path, body: str) -> str:
    path.write_text(f"def f(prompts, texts, answers):\n    {body}\n", "utf-8")
    return f"python:{path}:f"


def test_a_function_of_the_users_own_grades(tmp_path: Path) -> None:
    body = "return [t.endswith(a) and p == 'How many?' for p, t, a in zip(prompts, texts, answers)]"
    spec = function(tmp_path / "m.py", body)
    how = question_format(BoostSettings(metric=spec))
    assert how.grade([qa("3"), qa("4"), qa("5", "number")], ["x3", "x5", "5"]) == [
        True,
        False,
        True,
    ]
    assert how.key()["metric"].startswith("own ")
    before = how.key()
    function(tmp_path / "m.py", body + "  # changed")
    assert question_format(BoostSettings(metric=spec)).key() != before, (
        "another file is another run"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return [1.5]", "returned 1.5 for row 1; allowed"),
        ("return [-0.1]", "returned -0.1"),
        ("return [float('nan')]", "returned nan for row 1"),
        ("return [1, 1]", "returned 2 values"),
        ("return 1", "returned a int"),
        ("return ['yes']", "returned 'yes'"),
        ("return 1 / 0", "failed with ZeroDivisionError"),
    ],
)
def test_a_function_that_does_not_grade_is_refused(tmp_path: Path, body: str, words: str) -> None:
    how = question_format(BoostSettings(metric=function(tmp_path / "m.py", body)))
    with pytest.raises(SpringbackError, match=words):
        how.grade([qa("3")], ["3"])


def test_what_is_asked_and_read_is_told() -> None:
    told = question_format(BoostSettings(task="logiqa", test="t", validation="v")).describe()
    assert told["metric"] == "choice"
    assert "{question}" in told["prompt_template"]
    assert told["extraction"].startswith("the letter after the last ####")


@pytest.mark.parametrize("chat", [True, False])
def test_the_boosted_folder_asks_as_the_test_was_asked(
    chat: bool, tiny_llama: Path, tmp_path: Path
) -> None:
    """Bare questions give the completions that were graded: frame, system message and contrast."""
    early, ft = checkpoints(tiny_llama, tmp_path)
    if not chat:
        for path in (early, ft):
            (path / "chat_template.jinja").unlink()
    body = "def even(prompts, texts, answers):\n    return [len(t) % 2 == 0 for t in texts]\n"
    (tmp_path / "metric.py").write_text(body, "utf-8")
    settings = BoostSettings(
        early=str(early),
        ft=str(ft),
        validation="problems",
        test="problems",
        validation_rows=2,
        test_rows=4,
        metric=f"python:{tmp_path / 'metric.py'}:even",
        prompt_template="Think.\n{question}\nNow:",
        system="Solve.",
        mu=(0.5,),
        lam=(1.0,),
        lam_cd=(0.5,),
        positive=True,
        keep_pair=True,
        max_new_tokens=8,
        precheck=False,
    )
    out = tmp_path / "out"
    boost(settings, out)
    graded = [
        run["results"]["completions"]
        for run in map(read_json, (out / "runs").glob("score-*/run.json"))
        if run["inputs"]["lam"] == 1.0 and len(run["results"]["completions"]) == 4
    ]
    questions = [row.prompt for row in load_data(check_settings(settings)).test.rows]
    loaded = load(out / "model")
    assert (loaded.template, loaded.system) == (settings.prompt_template, "Solve.")
    assert [list(generate(loaded, questions, max_new_tokens=8))] == graded
    other = generate(loaded, questions, max_new_tokens=8, prompt_template="{question}")
    assert [list(other)] != graded
    with pytest.raises(DataError, match="question"):
        generate(loaded, questions, prompt_template="no place")
    card = (out / "model" / "README.md").read_text("utf-8")
    form = "Think.\n{question}\nNow:"
    assert f"~~~text\n{form if chat else f'Question: {form}' + chr(10) + 'Answer:'}\n~~~" in card


@pytest.mark.parametrize(
    ("metric", "answer", "allowed"),
    [
        ("number", "about six", "one number"),
        ("number", r"\frac{5}{6} or so", "one number"),
        ("choice", "A or B", "one of the letters"),
        ("math", "about six", "one expression"),
    ],
)
def test_an_answer_that_cannot_be_read_whole_is_told_with_its_line(
    metric: str, answer: str, allowed: str, tmp_path: Path
) -> None:
    good = {"number": "1,234", "choice": "(B)", "math": r"\sqrt{2}"}[metric]
    rows = [{"question": f"Number {n}?", "answer": good} for n in range(8)]
    rows[5]["answer"] = answer
    path = write(tmp_path / "all.jsonl", rows)
    settings = BoostSettings(
        early="a", ft="b", validation=path, test=path, validation_rows=4, test_rows=4, metric=metric
    )
    with pytest.raises(DataError, match=f"'{path}': line 6: given: answer .*; allowed: {allowed}"):
        load_data(settings)
    rows[5]["answer"] = good
    write(tmp_path / "all.jsonl", rows)
    assert len(load_data(settings).test) == 4


def test_a_function_of_the_users_own_reads_any_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": f"{n}?", "answer": "six"} for n in range(4)])
    spec = function(tmp_path / "m.py", "return [True] * len(texts)")
    settings = BoostSettings(
        early="a", ft="b", validation=path, test=path, validation_rows=2, test_rows=2, metric=spec
    )
    assert len(load_data(settings).test) == 2


def test_expressions_are_graded_and_what_is_unread_is_counted() -> None:
    how = question_format(BoostSettings(metric="math"))
    rows = [qa("(x+1)^2"), qa("(x+1)^2"), qa("x")]
    texts = [r"\boxed{x^2+2x+1}", r"\boxed{x^2}", ""]
    assert how.outcomes(rows, texts) == ["right", "wrong", "unread"]
    assert how.grade(rows, texts) == [True, False, False]
    assert how.expressions(rows)
    assert not question_format(BoostSettings()).expressions(rows)
    assert question_format(BoostSettings()).expressions([qa("x", "math")])


def test_a_row_with_many_choices_has_as_many_letters() -> None:
    row = Row("qa", "Which?", "", "G", choices=tuple("stuvwxyz"))
    how = question_format(BoostSettings(metric="choice"))
    assert how.grade([row, row], ["The answer is G.", "The answer is A."]) == [True, False]
