"""Errors name the row that they are about by file and number, and never quote what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from springback import score
from springback.core import Row, content_hash, to_jsonable
from springback.data import load_rows, load_slice
from springback.data.grading import METRICS
from springback.errors import SpringbackError, shown
from springback.inference import load
from springback.jobs.boost.questions import QuestionFormat, question_format
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.check.content import load_items
from springback.jobs.check.settings import CheckSettings
from springback.models.encoding import encode_answer, encode_row, encode_rows, prompt_text
from springback.models.loading import Tokenizer, load_tokenizer, resolve
from springback.probes.judges.scorer import Scorer
from springback.probes.utility import choice_rows
from springback.training import encode_labelled, encode_preferences, encode_prompts, preference_rows

#: What no error may hold, however much it cuts off.
SECRET = "forbidden words that are harmful wherever they stand " * 3
#: The row of a file that is wrong, of six.
WRONG = 4


def write(path: Path, good: dict[str, Any], bad: dict[str, Any]) -> str:
    rows = [bad if n == WRONG else good for n in range(1, 7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def told(of: Callable[[], object]) -> str:
    """The error, which is one line without the secret."""
    with pytest.raises(SpringbackError) as raised:
        of()
    message = str(raised.value)
    assert "forbidden" not in message
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


PAIR = {"prompt": "why?", "response": "so"}
CHOICES = {"question": "which?", "choices": ["this", "that"], "answer": "A"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_prompt_that_is_too_long_is_named_by_its_line(
    tokenizer: Tokenizer, tmp_path: Path, seed: int
) -> None:
    """Rows are drawn in another order than they stand in, and come in parts and pairs."""
    path = write(tmp_path / "long.jsonl", PAIR, {"prompt": SECRET, "response": "b"})
    rows = load_slice(path, seed=seed).rows
    place = rf"^'{re.escape(path)}': line {WRONG} has \d+ prompt tokens"
    labelled = [(row, True) for row in rows]
    for encode in (
        lambda: encode_rows(tokenizer, rows, 24),
        lambda: [encode_row(tokenizer, row, 24) for row in rows],
        lambda: encode_preferences(tokenizer, list(zip(rows, rows, strict=True)), 24),
        lambda: encode_labelled(tokenizer, labelled, 24),
    ):
        assert re.search(place, told(encode))
    without = [Row("pair", row.prompt, row.response) for row in rows]
    number = 1 + [row.prompt for row in without].index(SECRET)
    assert told(lambda: encode_rows(tokenizer, without, 24)).startswith(f"row {number} has ")
    assert told(lambda: encode_row(tokenizer, Row("qa", SECRET, ""), 8)).startswith("a row has ")


def test_a_template_that_refuses_a_row_names_its_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "chat.jsonl", CHAT, {
        "messages": [{"role": "system", "content": SECRET}, *CHAT["messages"]]
    })  # fmt: skip
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m['content'] }} {% endfor %}"
    )
    kept, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        rows = load_rows(path)
        for encode in (
            lambda: encode_prompts(tokenizer, rows),
            lambda: [prompt_text(tokenizer, row) for row in rows],
        ):
            message = f"'{path}': line {WRONG}: the chat template refuses it: no system"
            assert told(encode).startswith(message)
    finally:
        tokenizer.chat_template = kept


def test_rows_that_cannot_be_scored_are_named_by_their_line(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = write(tmp_path / "empty.jsonl", PAIR, {"prompt": SECRET, "response": "!"})
    items = CheckSettings(texts=(path,), choices=(), tasks=(), prompts=())
    message = told(lambda: load_items(items, print))
    assert message.startswith(f"'{path}': line {WRONG}: there is no text")
    wrong = load_rows(path)[WRONG - 1]
    message = told(lambda: encode_answer(tokenizer, wrong, ""))
    assert message.startswith(f"'{path}': line {WRONG} has no tokens in its answer")
    open_question = {"question": SECRET, "answer": SECRET}
    mixed = write(tmp_path / "open.jsonl", CHOICES, open_question)
    items = CheckSettings(texts=(), choices=(mixed,), tasks=(), prompts=())
    assert f"'{mixed}': line {WRONG}: a row with 0 choices" in told(
        lambda: load_items(items, print)
    )
    message = told(lambda: choice_rows(load_rows(mixed), tokenizer))
    assert message.startswith(f"'{mixed}': line {WRONG} has 0 choices and the answer a text of ")


def test_texts_that_are_given_are_named_by_their_number(tiny_llama: Path) -> None:
    loaded = load(tiny_llama)
    assert told(lambda: score(loaded, [SECRET, ""])).startswith("text 2 has ")
    message = told(lambda: score(loaded, ["a", ""], prompts=[SECRET, SECRET]))
    assert message.startswith("text 2 has no tokens in its answer")


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        (CHOICES, {**CHOICES, "answer": SECRET}, "answer a text of .* is none of the choices"),
        (CHOICES, {**CHOICES, "answer": [SECRET, SECRET]}, "answer a text of .* is none of"),
        (CHOICES, {**CHOICES, "metric": SECRET}, "metric a text of .* is none of number"),
        (CHAT, {"messages": [{"role": "tool", "content": SECRET}]}, "message 1 is by 'tool', its"),
        (CHAT, {"messages": [{"role": SECRET, "content": "x"}]}, "message 1 is by a text of"),
        (CHAT, {"messages": [{"role": "user", "content": [{"image": SECRET}]}]}, "content list;"),
        (CHAT, {"messages": [SECRET]}, "message 1 is a text of"),
        (PAIR, {"prompt": SECRET, "response": ""}, "the response is empty"),
        (PAIR, {"prompt": SECRET, "response": [SECRET]}, "field 'response' is of type list"),
        ({"question": "?", "answer": "1"}, {"question": "?", "answer": f"1\n#### {SECRET}"}, None),
        (
            {"question": "?", "answer": "1"},
            {"question": "?", "answer": f"1\n#### {SECRET}", "final": "2"},
            "ends in '#### ' and a text of .* field final is '2'",
        ),
    ],
)
def test_a_file_that_cannot_be_read_as_rows_is_told_by_its_line(
    good: dict[str, Any], bad: dict[str, Any], problem: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", good, bad)
    if problem is None:  # a long answer is one that a metric may read
        assert load_rows(path)[WRONG - 1].place == f"'{path}': line {WRONG}"
        return
    message = told(lambda: load_rows(path))
    assert message.startswith(f"'{path}': line {WRONG}: ")
    assert re.search(problem, message)


def test_a_column_of_texts_is_not_listed_as_its_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"{SECRET} {n}", "label": "bad"} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told(lambda: load_rows(f"{path}?text=x"))
    assert "label is bad (3 rows)" in told(lambda: load_rows(f"{path}?label=good"))


def test_a_table_without_names_of_columns_does_not_show_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text(f'"{SECRET}","x"\n"{SECRET}","y"\n')
    assert "fields not recognised" in told(lambda: load_rows(str(path)))


@pytest.mark.parametrize("metric", [m for m in METRICS if m not in ("exact", "math")])
def test_an_answer_that_a_metric_cannot_read_is_described(metric: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"question": "?", "answer": "1" if metric == "number" else "A"},
        {"question": SECRET, "answer": SECRET},
    )
    how = QuestionFormat(None, metric, None, None, None)
    message = told(lambda: how.check_references(load_slice(path)))
    assert message.startswith(f"'{path}': line {WRONG}: given: answer a text of ")


def test_what_a_metric_or_a_judge_of_the_users_returns_is_described(tmp_path: Path) -> None:
    judge = Scorer("j", "1", "up", "j", lambda prompts, texts: [0.5, SECRET])
    assert "for text 1" in told(lambda: judge.score(["", ""], [SECRET, SECRET]))
    path = tmp_path / "rows.jsonl"
    rows = [Row("qa", SECRET, "", answer="1", place=f"'{path}': line {n}") for n in (3, 7)]
    (tmp_path / "m.py").write_text(
        "def m(prompts, texts, answers):\n    return [1, prompts[1]][: len(texts)]\n"
    )
    how = question_format(BoostSettings(early="a", ft="b", metric=f"python:{tmp_path / 'm.py'}:m"))
    message = told(lambda: how.grade(rows, ["a", "b"]))
    assert f"a text of {len(SECRET)} characters for row 2 ('{path}': line 7)" in message


def test_pairs_of_two_prompts_are_named_by_both_lines(tmp_path: Path) -> None:
    good = load_rows(write(tmp_path / "good.jsonl", PAIR, {"prompt": SECRET, "response": "b"}))
    bad = load_rows(
        write(tmp_path / "bad.jsonl", PAIR, {"prompt": f"not {SECRET}", "response": "b"})
    )
    message = told(lambda: preference_rows(good, bad))
    for name in ("good", "bad"):
        assert f"'{tmp_path / name}.jsonl': line {WRONG}" in message


def test_where_a_row_was_read_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    """Not of equality, hashes, runs' ids, or what is written."""
    one, same = Row("pair", "a", "b"), Row("pair", "a", "b", place="x: line 1")
    assert one == same
    assert len({one, same}) == 1
    assert to_jsonable(one) == to_jsonable(same)
    assert content_hash(one) == content_hash(same)
    assert "line 1" not in repr(same)
    part = load_slice("reviews:positive", limit=3)
    assert [row.place for row in part.rows] == [f"'reviews:positive': row {n}" for n in (1, 2, 3)]


def test_short_values_are_shown_and_longer_ones_described() -> None:
    values: dict[str, object] = {
        "'positive'": "positive", "3.5": 3.5, "None": None, "[1, 2]": [1, 2],
        "a text of 21 characters": "x" * 21, "a list of 9": ["abc"] * 9, "a dict": {"a": "x" * 30},
    }  # fmt: skip
    assert [shown(value) for value in values.values()] == list(values)
