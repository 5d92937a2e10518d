"""The user's own data: every form that is read, and every way it can be wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from springback.core import Row, Slice
from springback.data import load_rows, load_slice
from springback.data import records as _records
from springback.data.records import Record
from springback.data.view import COLUMNS
from springback.errors import DataError, MissingExtraError, SpringbackError


def jsonl(path: Path, rows: Iterable[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def one(tmp_path: Path) -> Callable[..., Row]:
    """The row that a single record is read as."""

    def read(record: dict[str, Any], **how: Any) -> Row:
        (row,) = load_rows(jsonl(tmp_path / "one.jsonl", [record]), **how)
        return row

    return read


PAIRS = [
    {"prompt": "Say hi, twice", "response": 'hi "hi"', "label": "polite"},
    {"prompt": "Two\nlines\u2028here", "response": "für Zoë 好", "label": "odd"},
]


def write_pairs(path: Path) -> str:
    """PAIRS in the form that the file's name asks for."""
    lines = "\n".join(json.dumps(pair, ensure_ascii=False) for pair in PAIRS)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(PAIRS), path)
    elif ".csv" in path.name or ".tsv" in path.name:
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(
                out, list(PAIRS[0]), delimiter="\t" if ".tsv" in path.name else ","
            )
            writer.writeheader()
            writer.writerows(PAIRS)
    elif ".array" in path.name:
        path.write_text(json.dumps(PAIRS, indent=2), encoding="utf-8")
    else:
        # Windows line ends and an empty last line do no harm.
        path.write_bytes(lines.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    if path.name.lower().endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    if ".bom" in path.name:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "p.jsonl",
        "p.ndjson",
        "p.json",
        "p.array.json",
        "p.array.json.gz",
        "p.jsonl.gz",
        "p.json.gz",
        "p.csv",
        "p.csv.gz",
        "p.tsv",
        "p.parquet",
        "p.bom.jsonl",
        "p.bom.csv",
        "P.JSONL.GZ",
    ],
)
def test_every_file_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert load_rows(write_pairs(tmp_path / name)) == (
        Row("pair", "Say hi, twice", 'hi "hi"', label="polite"),
        Row("pair", "Two\nlines\u2028here", "für Zoë 好", label="odd"),
    )


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"text": "A film."}, Row("text", "", "A film.")),
        ({"text": "A film.", "label": 1}, Row("text", "", "A film.", label="1")),
        ({"text": "A film.", "label": True}, Row("text", "", "A film.", label="true")),
        ({"text": "A film.", "label": None}, Row("text", "", "A film.")),
        ({"prompt": "p", "completion": "c"}, Row("pair", "p", "c")),
        ({"instruction": "i", "output": "o"}, Row("pair", "i", "o")),
        ({"instruction": "i", "input": "", "output": "o"}, Row("pair", "i", "o")),
        ({"instruction": "i", "input": "x", "output": "o"}, Row("pair", "i\n\nx", "o")),
        # Alpaca also carries the whole formatted text: the pair is what is meant.
        ({"instruction": "i", "output": "o", "text": "i o"}, Row("pair", "i", "o")),
        ({"question": "q", "answer": "Paris "}, Row("qa", "q", "", "Paris")),
        ({"question": "q", "answer": 18}, Row("qa", "q", "", "18")),
        ({"question": "q", "answer": 18.0}, Row("qa", "q", "", "18")),
        ({"question": "q", "answer": "6", "rationale": "3 + 3"}, Row("qa", "q", "3 + 3", "6")),
        ({"context": "c", "question": "q", "answer": "a"}, Row("qa", "c\n\nq", "", "a")),
        ({"context": "", "question": "q", "answer": "a"}, Row("qa", "q", "", "a")),
    ],
)
def test_fields_are_recognised_without_flags(
    one: Callable[..., Row], record: dict[str, Any], row: Row
) -> None:
    assert one(record) == row


def test_a_worked_answer_is_the_solution_and_its_last_line_is_graded(
    one: Callable[..., Row],
) -> None:
    answer = "He has 2 * 600 = <<2*600=1200>>1200.\nIt costs $<<1200+34=1234>>1234.\n#### 1,234"
    want = Row("qa", "q", "He has 2 * 600 = 1200.\nIt costs $1234.\n#### 1,234", "1234")
    assert one({"question": "q", "answer": answer}) == want
    assert one({"question": "q", "answer": answer, "final": "1234"}) == want
    assert one({"question": "q", "answer": answer, "final": 1234}) == want
    short = one({"question": "q", "answer": "3 + 3 = <<3+3=6>>6.", "final": "6"})
    assert short == Row("qa", "q", "3 + 3 = 6.", "6")


CHOICES = ["red", "green", "blue"]


@pytest.mark.parametrize("answer", [1, "B", "b", "(B)", "B.", "green", "1"])
def test_an_answer_names_its_choice_by_index_letter_or_text(
    one: Callable[..., Row], answer: object
) -> None:
    record = {"context": "ctx", "question": "q", "choices": CHOICES, "answer": answer}
    assert one(record) == Row(
        "qa", "ctx\n\nq\nA. red\nB. green\nC. blue", "", "B", choices=("red", "green", "blue")
    )


@pytest.mark.parametrize(
    "answer", [["C", "A"], [2, 0], ["blue", "red"], "AC", "C, A", "A、C", ["A", 2]]
)
def test_several_right_choices_are_their_letters_and_graded_as_a_set(
    one: Callable[..., Row], answer: object
) -> None:
    row = one({"question": "q", "choices": CHOICES, "answer": answer})
    assert (row.answer, row.metric) == ("AC", "choices")
    alone = one({"question": "q", "choices": CHOICES, "answer": ["A"]})
    assert (alone.answer, alone.metric) == ("A", None)
    words = one({"question": "q", "choices": ["AC", "AB"], "answer": "AC"})
    assert (words.answer, words.metric) == ("A", None)


def test_choices_in_a_csv_cell_are_the_json_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('question,choices,answer,solution\nq,"[""x"", ""y""]",0,why\n')
    assert load_rows(str(path)) == (Row("qa", "q\nA. x\nB. y", "why", "A", choices=("x", "y")),)


def test_a_conversation_is_asked_its_last_question_after_its_turns(
    one: Callable[..., Row],
) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you"},
    ]
    turns = (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"))
    assert one({"messages": messages}) == Row("chat", "Bye", "See you", turns=turns)
    assert one({"messages": messages[1:3]}) == Row("chat", "Hi", "Hello")


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"text": "body"}, Row("text", "", "b", label="x")),
        ({"text": "body", "label": "stars"}, Row("text", "", "b", label="5")),
        ({"prompt": "body", "response": "reply"}, Row("pair", "b", "r", label="x")),
        ({"answer": "best"}, Row("qa", "q", "", "t", label="x")),
        ({"solution": "reply"}, Row("qa", "q", "r", "a", label="x")),
    ],
)
def test_mapped_fields_go_before_recognised_ones(
    one: Callable[..., Row], fields: dict[str, str], row: Row
) -> None:
    record = {
        "body": "b",
        "reply": "r",
        "stars": 5,
        "best": "t",
        "question": "q",
        "answer": "a",
        "label": "x",
    }
    assert one(record, fields=fields) == row


def test_conditions_behind_the_source_keep_rows(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "positive", "is_safe": True, "n": 1},
        {"text": "b", "label": "negative", "is_safe": True, "n": 2},
        {"text": "c", "label": "positive", "is_safe": False, "n": 1},
        {"text": "d", "label": "a&b=c"},
    ]
    source = jsonl(tmp_path / "f.jsonl", rows)

    def kept(query: str) -> str:
        return "".join(row.response for row in load_rows(f"{source}?{query}"))

    assert kept("label=positive") == "ac"
    assert kept("is_safe=true") == kept("is_safe=True") == "ab"
    assert kept("is_safe=false") == "c"
    assert kept("n=1&is_safe=true") == "a"
    assert kept("label=a%26b%3Dc") == "d"


def test_sources_joined_with_a_plus_are_one(tmp_path: Path) -> None:
    answers = [
        {"prompt": "a", "response": "no", "is_safe": True},
        {"prompt": "a", "response": "yes", "is_safe": False},
        {"prompt": "b", "response": "never", "is_safe": True},
    ]
    first = jsonl(tmp_path / "first.jsonl", answers)
    second = jsonl(tmp_path / "second+more.jsonl", [{"prompt": "c", "response": "sorry"}])
    third = jsonl(tmp_path / "third.jsonl", [{"prompt": "d", "response": "1+1", "label": "1+1"}])
    both = load_rows(f"{first}?is_safe=true+{third}?label=1%2B1")
    assert [(r.prompt, r.response) for r in both] == [("a", "no"), ("b", "never"), ("d", "1+1")]
    assert [r.prompt for r in load_rows(second)] == ["c"]  # a file's own plus
    part = load_slice(f"{first}?is_safe=false+{third}", limit=2)
    assert part.name == "first.jsonl?is_safe=false+third.jsonl"
    assert {r.prompt for r in part.rows} == {"a", "d"}


def test_joined_sources_of_two_kinds_or_of_none_are_refused(tmp_path: Path) -> None:
    pairs = jsonl(tmp_path / "pairs.jsonl", [{"prompt": "a", "response": "no"}])
    texts = jsonl(tmp_path / "texts.jsonl", [{"text": "alone"}])
    with pytest.raises(DataError, match=r"of kind text, .*pairs.jsonl' of kind pair; allowed"):
        load_rows(f"{pairs}+{texts}")
    with pytest.raises(DataError, match="one of them empty; allowed: A\\+B"):
        load_rows(f"{pairs}+")
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        load_rows(f"{pairs}+{tmp_path}/missing.jsonl")


def test_a_file_whose_name_holds_a_question_mark_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "why?n=1").mkdir()
    assert len(load_rows(jsonl(tmp_path / "why?n=1" / "f.jsonl", [{"text": "a"}]))) == 1


def test_prompts_without_any_response_are_a_set_of_prompts(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "p.jsonl", [{"prompt": p, "response": ""} for p in "ab"])
    assert load_rows(source) == (Row("pair", "a", ""), Row("pair", "b", ""))


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b"", r"is empty"),
    ("a.jsonl", b"\n \n", r"is empty"),
    ("a.json", b"[]", r"is empty"),
    ("a.csv", b"", r"is empty"),
    ("a.csv", b"text,label\n", r"is empty"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"line 2 is not valid JSON"),
    ("a.jsonl", b'{"text": "a"}\n\n3\n', r"line 3 is a JSON number; allowed: one object a line"),
    ("a.json", b'[{"text": "a"},\n{"text": "b"},\n{]', r"line 3 is not valid JSON"),
    ("a.json", b'[{"text": "a"}, null]', r"row 2 is a JSON null; allowed: an array of objects"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2 is not UTF-8 \(byte 24"),
    ("a.jsonl.gz", b'{"text": "a"}', r"is no whole gzip file"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "a"}' * 99)[:-9], r"cut short or damaged"),
    ("a.jsonl.gz", b"\x1f\x8b" + b"\0" * 30, r"is no whole gzip file"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ""}', r"line 2: field 'text' is empty; its fields: 'te"),
    ("a.jsonl", b'{"text": "a"}\n{"text": null}', r"line 2: field 'text' is empty \(null\)"),
    ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}', r"line 2: no field 'text'; its fields: 'txt'"),
    ("a.jsonl", b'{"text": ["a"]}', r"line 1: field 'text' is of type list"),
    ("a.jsonl", b'{"text": "\\ud800"}', r"line 1: field 'text' holds half of a surrogate pair"),
    ("a.jsonl", b'{"text": "a", "label": []}', r"field 'label' is of type list"),
    ("a.jsonl", b'{"text": "a", "label": NaN}', r"field 'label' is not a finite number"),
    ("a.jsonl", b"[" * 100_000, r"is not valid JSON"),
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", r"line 1 is not valid JSON"),
    ("a.jsonl", b'{"body": "a"}', r"fields not recognised: 'body' \(line 1\); allowed: text; pro"),
    (
        "a.jsonl",
        b'{"text": "a"}\n{"prompt": "p", "response": "r"}',
        r"line 2: this row is of kind pair, line 1 of kind text",
    ),
    (
        "a.jsonl",
        b'{"prompt": "p", "response": "r"}\n{"prompt": "p", "response": " "}',
        r"line 2: the response is empty, as in 1 of 2 rows",
    ),
    ("a.csv", b"text,label\na,b\nc\n", r"line 3 has 1 columns; the first line names 2"),
    ("a.csv", b"text,text\na,b\n", r"two columns have the same name"),
    ("a.csv", b'text\n"a\n', r"is not valid CSV"),
    ("a.csv", b"text,label\n" + b"a" * 200_000, r"line 2 has 1 columns"),
    ("a.parquet", b"", r"no readable Parquet file"),
    ("a.parquet", b"PAR1 and then nothing PAR1", r"no readable Parquet file"),
    ("a.pkl", b"text", r"ends in '.pkl'; allowed: .jsonl"),
    ("a", b"text", r"ends in 'nothing'; allowed: .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_bad_file_is_refused_in_one_line_that_says_where(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_rows(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


BAD_RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"answer": "purple"}, r"answer 'purple' is none of the choices; .* an index from 0 to 2"),
    ({"answer": 3}, r"answer 3 is none of the choices"),
    ({"answer": -1}, r"answer -1 is none of the choices"),
    ({"answer": True}, r"field 'answer' is of type bool"),
    ({"choices": ["red", "red"], "answer": "red"}, r".* could mean several choices"),
    ({"choices": ["B", "A"], "answer": "A"}, r".* could mean several choices"),
    ({"choices": ["1", "0"], "answer": "0"}, r".* could mean several choices"),
    ({"answer": []}, r"answer \[\] names no choice; .*drop the row"),
    ({"answer": ["A", "red"]}, r"answer \['A', 'red'\] names a choice twice"),
    ({"answer": "AD"}, r"answer 'AD' is none of the choices"),
    ({"answer": ["A", "D"]}, r"answer 'D' is none of the choices"),
    ({"answer": "AC", "metric": "choice"}, r"answer 'AC' names 2 choices, and the metric is"),
    ({"choices": ["red"], "answer": 0}, r"field 'choices' does not hold 2 to 26 texts"),
    ({"choices": [["red"], "green"]}, r"field 'choices' does not hold 2 to 26 texts"),
    ({"choices": {"text": []}}, r"field 'choices' is not a list with something in it"),
    ({"choices": "red or green"}, r"field 'choices' is not a list"),
    ({"choices": None, "answer": ""}, r"field 'answer' is empty"),
    ({"choices": None, "answer": False}, r"field 'answer' is empty, or true or false"),
    ({"choices": None, "answer": "so\n#### "}, r"the answer ends in '#### '"),
    ({"choices": None, "answer": "so\n#### 7", "final": "8"}, r".* the same number"),
    ({"question": None}, r"field 'question' is empty \(null\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_RECORDS)
def test_a_question_that_cannot_be_graded_is_refused(
    one: Callable[..., Row], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"line 1: {message}"):
        one({"question": "q", "choices": CHOICES, "answer": 0} | change)


USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER], r"does not end with a user's message and the assistant's reply"),
        ([USER, REPLY, REPLY], r"does not end with"),
        ([USER, REPLY, USER], r"does not end with"),
        ([{"role": "tool", "content": "x"}, USER, REPLY], r"message 1 is .* a role \(system, use"),
        ([USER, {"role": "assistant", "content": None}], r"message 2 is"),
        ([USER, {"role": "assistant", "content": " "}], r"message 2 is"),
        (["Hi", "Hello"], r"message 1 is 'Hi'"),
        ([], r"field 'messages' is not a list with something in it"),
        ("Hi", r"field 'messages' is not a list"),
    ],
)
def test_a_conversation_that_cannot_be_continued_is_refused(
    one: Callable[..., Row], messages: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        one({"messages": messages})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"body": "text"}, r"fields names 'body'; allowed: text, prompt, response"),
        ({"text": ""}, r"fields maps 'text' to ''; allowed: a column name"),
        ({"text": "corpus"}, r"no field 'corpus'; its fields: 'text'; add it, or map"),
    ],
)
def test_a_mapping_that_fits_nothing_is_refused(
    one: Callable[..., Row], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        one({"text": "a"}, fields=fields)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("label=neutral", r"label is positive \(2 rows\), negative \(1 rows\)"),
        ("lable=positive", r"no row has a field 'lable'; the fields of line 1: 'text', 'label'"),
        ("label", r"the condition 'label' of .* is not understood; allowed: SOURCE\?field=value"),
        ("", r"the condition '' of"),
        ("label=a&label=b", r"each field once"),
    ],
)
def test_a_condition_that_keeps_nothing_is_refused(
    tmp_path: Path, query: str, message: str
) -> None:
    labels = ["positive", "negative", "positive"]
    rows = [{"text": "a", "label": label} for label in labels]
    source = jsonl(tmp_path / "f.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load_rows(f"{source}?{query}")


def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    missing = ["train.jsonl", "x/y/z", "./train", "/nowhere/train", "data/train", "~/nofile.csv"]
    for source in [*missing, "model.pkl", "a b", "https://example.org/a.jsonl", "a\0b", "a" * 5000]:
        with pytest.raises(DataError, match=r"no such file|cannot read") as caught:
            load_rows(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is a folder; allowed: a data file"):
        load_rows("data")
    with pytest.raises(DataError, match="no source given"):
        load_rows(" ")


@pytest.mark.parametrize(("package", "source"), [("pyarrow", "p.parquet"), ("datasets", "o/name")])
def test_a_missing_package_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.parquet").write_bytes(b"")
    # None in sys.modules is how Python itself says that a module cannot be imported.
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*springback\[data\]"):
        load_rows(source)


HUB_SCRIPT = """
import sys
from springback.errors import DataError
from springback.data import load_rows, load_slice
from springback.data.records import hub_records
records = list(hub_records(sys.argv[1], None, "train", None))
assert [r.where for r in records] == ["row 1", "row 2"]
assert [r.values for r in records] == [{"text": "a"}, {"text": "b"}]
assert "torch" not in sys.modules
try:
    load_rows("nobody/nothing:main@v1", split="test")
except DataError as error:
    print(error)
"""


def test_the_hub_client_reads_a_set_and_its_failure_names_the_set(tmp_path: Path) -> None:
    # The client takes a folder for a hub id, so its real loader runs offline.
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "train.jsonl", [{"text": "a"}, {"text": "b"}])
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, str(tmp_path / "set")],
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot load the hub data set 'nobody/nothing', split 'test' (")
    assert done.stdout.count("\n") == 1


def test_a_hub_id_may_name_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str, str | None]] = []

    def instead(name: str, config: str | None, split: str, revision: str | None) -> Iterator[Any]:
        asked.append((name, config, split, revision))
        return iter([Record("row 1", {"prompt": "a", "response": "b", "is_safe": True})])

    monkeypatch.setattr(_records, "hub_records", instead)
    load_rows("org/set#30k_train?is_safe=true")
    load_rows("org/set:small@v1#dev")
    load_rows("org/set", split="test")
    assert asked == [
        ("org/set", None, "30k_train", None),
        ("org/set", "small", "dev", "v1"),
        ("org/set", None, "test", None),
    ]


KEYS = [*COLUMNS, "instruction", "input", "output", "role", "content", "other"]
ROLES = st.sampled_from(["system", "user", "assistant"])
# Surrogates included: json.dumps writes them as escapes that json.loads accepts.
STRINGS = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["A", "0", "so\n#### 7", "user", "assistant", "[1, 2]"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"role": ROLES, "content": inner}), max_size=3)
    ),
    max_leaves=8,
)
#: Half of the records have the fields of a kind, with whatever in them.
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)
    | st.sampled_from(
        [
            "text",
            "prompt response",
            "question answer",
            "question choices answer",
            "question options answerKey",
            "question A B C answer",
            "messages",
            "conversations",
            "chosen rejected",
            "prompt chosen rejected",
            "messages chosen rejected system",
        ]
    ).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names.split(), VALUES))),
    max_size=3,
)
SUFFIXES = st.sampled_from(["jsonl", "json", "jsonl.gz", "csv", "csv.gz", "tsv", "parquet", "txt"])
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(source: str) -> None:
    """Rows that can be hashed, or an error of ours; anything else fails the test."""
    try:
        rows = load_rows(source)
    except SpringbackError as error:
        complaint = str(error)
    else:
        assert rows
        assert Slice.of("fuzz", source, rows).content_hash
        complaint = ""
    assert "\n" not in complaint


@FUZZ
@given(st.binary(max_size=200), SUFFIXES, st.booleans())
def test_random_bytes_give_rows_or_an_error_of_ours(
    tmp_path: Path, content: bytes, suffix: str, packed: bool
) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(gzip.compress(content) if packed else content)
    read_or_refuse(str(path))


@FUZZ
@given(RECORDS, st.sampled_from(["", "?label=1", "?other=true&text=A"]))
def test_random_records_give_rows_or_an_error_of_ours(
    tmp_path: Path, records: list[dict[str, object]], query: str
) -> None:
    read_or_refuse(jsonl(tmp_path / "f.jsonl", records) + query)


@settings(FUZZ, max_examples=60)
@given(st.text(max_size=60))
def test_random_sources_give_an_error_of_ours(source: str) -> None:
    # The slash in front keeps random words from being looked up on the hub.
    with pytest.raises(SpringbackError):
        load_rows("/nowhere/" + source)
