"""Rows as people have them: chat and preference formats, choices by label, shards, encodings."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from springback.core import Row
from springback.data import load_rows, load_slice
from springback.errors import DataError
from springback.jobs.audit.pools import PreferenceData
from springback.jobs.audit.rows import load_data
from springback.jobs.audit.settings import AuditSettings

Record = dict[str, Any]


def write(path: Path, records: Sequence[Record], encoding: str = "utf-8") -> str:
    text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(text + "\n", encoding=encoding)
    return str(path)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Row, ...]]:
    def reader(*records: Record, **kwargs: Any) -> tuple[Row, ...]:
        return load_rows(write(tmp_path / "f.jsonl", records), **kwargs)

    return reader


def questions(answers: Sequence[object], choices: Sequence[object] = "wxyz") -> list[Record]:
    return [
        {"question": f"q{i}", "choices": [*choices], "answer": answer}
        for i, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answers", "letters", "counts"),
    [
        ([0, 1, 2, 3], "ABCD", None),
        (["0", "3", "1"], "ADB", None),
        ([1, 2, 3, 4], "ABCD", "from 1"),
        (["4", "1"], "DA", "from 1"),
        (["(4)", "1.", "B"], "DAB", "from 1"),
        ([0.0, 2.0], "AC", None),
        ([[2, 4], [1]], ["BD", "A"], "from 1"),
        (["B", "2"], "BB", "from 1"),
        (["A", "4", "C"], "ADC", "from 1"),
        (["b", "3", "d"], "BCD", "from 1"),
        (["B", "0"], "BA", None),
        ([1, 2, 3], "BCD", "from 0: neither"),
        (["B", "d", "(a)", "c."], "BDAC", None),
        (["a, c", "bd", "D、B"], ["AC", "BD", "BD"], None),
    ],
)
def test_what_numbers_count_from_is_concluded_from_the_whole_file(
    read: Callable[..., tuple[Row, ...]],
    answers: list[object],
    letters: Sequence[str],
    counts: str | None,
) -> None:
    notes: list[str] = []
    rows = read(*questions(answers), note=notes.append)
    assert [row.answer for row in rows] == [*letters]
    assert len(notes) == (counts is not None)
    assert counts is None or (counts in notes[0] and "f.jsonl" in notes[0])


def test_a_file_that_counts_both_ways_names_both_places(
    read: Callable[..., tuple[Row, ...]],
) -> None:
    with pytest.raises(DataError, match=r"line 3: answer 4 counts .* from 1, .* line 2 from 0"):
        read(*questions([1, 0, 4]))
    with pytest.raises(DataError, match=r"line 2: answer '5' is none of the choices"):
        read(*questions(["4", "5", "1"]))
    with pytest.raises(DataError, match=r"line 1: answer 'ba' is none of the choices"):
        read(*questions(["ba"]))


def test_choices_that_are_numbers_are_not_taken_for_indexes(
    read: Callable[..., tuple[Row, ...]],
) -> None:
    rows = read(*questions(["30", "10", "40"], ["10", "20", "30", "40"]))
    assert [row.answer for row in rows] == ["C", "A", "D"]
    # Where some answers can be nothing but texts, all are.
    rows = read(*questions(["30", "2", "1"], ["1", "2", "30", "4"]))
    assert [row.answer for row in rows] == ["C", "B", "A"]
    # Neither: 2 is the first text and the third place.
    with pytest.raises(DataError, match=r"line 2: .* could mean several"):
        read(*questions(["4", "2"], ["2", "8", "4", "1"]))


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        ({"text": ["w", "x", "y"], "label": ["A", "B", "C"]}, "C"),
        ({"text": ["w", "x", "y"], "label": ["1", "2", "3"]}, "3"),
        ({"text": ["w", "x", "y"], "label": ["1", "2", "3"]}, 3),
        (
            [{"label": "A", "text": "w"}, {"label": "B", "text": "x"}, {"label": "C", "text": "y"}],
            "C",
        ),
        ({"C": "y", "A": "w", "B": "x"}, "C"),
        ({"a": "w", "c": "y", "b": "x"}, "c"),
        ({"2": "x", "1": "w", "3": "y"}, "3"),
        ({"1": "x", "0": "w", "2": "y"}, 2),
        ({"(A)": "w", "(B)": "x", "(C)": "y"}, "C"),
        ({"A": "w", "B": "x", "C": "y", "D": None}, "y"),
        ('{"B": "x", "A": "w", "C": "y"}', "C"),
    ],
)
@pytest.mark.parametrize("names", [("choices", "answer"), ("options", "answerKey")])
def test_choices_by_label_in_any_order(
    read: Callable[..., tuple[Row, ...]], choices: object, answer: object, names: tuple[str, str]
) -> None:
    (row,) = read({"question": "q", names[0]: choices, names[1]: answer})
    assert (row.choices, row.answer) == (("w", "x", "y"), "C")
    assert row.prompt == "q\nA. w\nB. x\nC. y"


@pytest.mark.parametrize(
    "names", ["ABC", ("option_a", "option_b", "option_c"), ("opa", "opb", "opc")]
)
def test_choices_in_columns_of_their_own(tmp_path: Path, names: Sequence[str]) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"question,{','.join(names)},answer\nq,w,x,y,B\nr,w,x,,A\n")
    rows = load_rows(str(path))
    assert [(row.choices, row.answer) for row in rows] == [
        (("w", "x", "y"), "B"),
        (("w", "x"), "A"),
    ]


NAN = float("nan")


@pytest.mark.parametrize(
    "record",
    [
        {"options": {"A": "w", "B": "x", "C": NAN}},
        {"choices": NAN, "A": "w", "B": "x", "C": NAN, "context": NAN, "solution": NAN},
        {"choices": [{"label": "A", "text": "w"}, {"label": "B", "text": "x"}], "messages": NAN},
    ],
)
def test_nan_is_as_good_as_null(read: Callable[..., tuple[Row, ...]], record: Record) -> None:
    (row,) = read({"question": "q", "answer": "B", **record})
    assert (row.prompt, row.choices) == ("q\nA. w\nB. x", ("w", "x"))
    with pytest.raises(DataError, match="line 1: field 'answer' is not a finite number"):
        read({"question": "q", "answer": NAN})


@pytest.mark.parametrize(
    ("names", "answers", "letters"),
    [
        (("a", "b"), ["b", "(A)"], "BA"),
        (("Option A", "Option B"), ["x", "A"], "BA"),
        (("option1", "option2"), [1, 1], "AA"),
        (("option1", "option2"), ["2"], "B"),
        (("sol1", "sol2"), [1, 0], "BA"),  # the columns count from 1, the answers from 0
        (("ending0", "ending1"), ["1", "0"], "BA"),
    ],
)
def test_columns_of_choices_by_any_name(
    read: Callable[..., tuple[Row, ...]],
    names: Sequence[str],
    answers: Sequence[object],
    letters: str,
) -> None:
    records = [{"question": "q", names[0]: "w", names[1]: "x", "answer": a} for a in answers]
    assert [row.answer for row in read(*records)] == [*letters]
    assert all(row.choices == ("w", "x") for row in read(*records))


def test_columns_a_and_b_of_a_question_with_a_number_are_no_choices(
    read: Callable[..., tuple[Row, ...]],
) -> None:
    assert read({"question": "3+4?", "a": 3, "b": 4, "answer": 7}) == (Row("qa", "3+4?", "", "7"),)


@pytest.mark.parametrize(
    ("choices", "answers", "letters"),
    [
        (["A. w", "B. x"], ["B. x", "w", "A", 1], "BAAB"),
        (["(A) w", "(B)x"], ["(B) x", 0], "BA"),
        (["w", "x"], ["B) x", "A. w"], "BA"),
        ([20, 8], [8, "20"], "BA"),
        ([0.5, 1.5], [1.5], "B"),
        ([2, 8, 4], [2, 8], "AB"),  # 8 can be no place, so 2 is none either
        ([20, 8, 4], [2, 0], "CA"),
    ],
)
def test_an_answer_is_a_choice_with_its_letter_or_a_number_of_its_own(
    read: Callable[..., tuple[Row, ...]],
    choices: Sequence[object],
    answers: Sequence[object],
    letters: str,
) -> None:
    rows = read(*questions(answers, choices))
    assert [row.answer for row in rows] == [*letters]
    assert "A. A" not in rows[0].prompt
    assert "A. (" not in rows[0].prompt


def test_a_letter_before_the_text_of_another_choice_is_refused(
    read: Callable[..., tuple[Row, ...]],
) -> None:
    with pytest.raises(DataError, match=r"line 1: answer 'A\) x' is none of the choices"):
        read(*questions(["A) x"]))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"A": "w", "a": "x"}, "two choices of field 'choices' have one label"),
        ({"right": "w", "wrong": "x"}, "nor by letters or numbers"),
        ({"text": ["w", "x"], "label": ["A"]}, "nor by letters or numbers"),
        ({"A": "w", "B": None}, "does not hold 2 to 26 texts"),
        ({"1": "w", "2": "x"}, "answer 0 is none of the choices"),
    ],
)
def test_labels_that_say_nothing_are_refused(
    read: Callable[..., tuple[Row, ...]], choices: object, message: str
) -> None:
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        read({"question": "q", "choices": choices, "answer": 0})


def said(*pairs: tuple[str, object]) -> list[Record]:
    return [{"role": role, "content": content} for role, content in pairs]


ASKED, ANSWER, WORSE = ("user", "u"), ("assistant", "a"), ("assistant", "b")
BOTH = said(ASKED, ANSWER)


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
        {"conversation": [{"from": "user", "value": "u"}, {"from": "model", "value": "a"}]},
        {"messages": said(("user", [{"type": "text", "text": "u"}]), ANSWER)},
        {"messages": said(("user", ["u"]), ("assistant", [{"text": "a"}]))},
        {"messages": {"role": ["user", "assistant"], "content": ["u", "a"]}},
        {"messages": [{**m, "name": None, "weight": 1, "tool_calls": None} for m in BOTH]},
        {"messages": json.dumps(said(ASKED, ANSWER))},
        {"messages": said(ASKED, ANSWER), "text": None, "prompt": None},
        {"messages": said(("system", ""), ("User", "u"), ("AI", "a"))},
        {"conversations": [{"from": "Human", "value": "u"}, {"from": "chatgpt", "value": "a"}]},
        {"prompt": said(ASKED), "completion": said(ANSWER)},
        {"prompt": "u", "completion": said(ANSWER)},
        {"prompt": said(ASKED), "completion": "a"},
    ],
)  # fmt: skip
def test_a_conversation_in_any_form(read: Callable[..., tuple[Row, ...]], record: Record) -> None:
    assert read(record) == (Row("chat", "u", "a"),)
    (row,) = read({**record, "system": "s"})
    assert row == Row("chat", "u", "a", turns=(("system", "s"),))


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_pair_is_asked_with_its_system_prompt_and_history(
    read: Callable[..., tuple[Row, ...]], column: str
) -> None:
    alpaca = {"instruction": "u", "input": float("nan"), "output": "a"}
    assert read({**alpaca, column: "", "history": []}) == (Row("pair", "u", "a"),)
    (row,) = read({**alpaca, column: "s"})
    assert row == Row("chat", "u", "a", turns=(("system", "s"),))
    (row,) = read({**alpaca, column: "s", "history": [["v", "b"]]})
    assert row == Row("chat", "u", "a", turns=(("system", "s"), ("user", "v"), ("assistant", "b")))
    with pytest.raises(DataError, match="line 1: field 'history' is a list of something else"):
        read({**alpaca, "history": ["v", "b"]})


def test_developer_messages_are_system_messages(read: Callable[..., tuple[Row, ...]]) -> None:
    (row,) = read({"messages": said(("developer", "s"), ASKED, ANSWER), "system": "unused"})
    assert row.turns == (("system", "s"),)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"from": "observation", "value": "x"}, "message 1 is"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "message 1 is"),
        ({"role": "user", "content": []}, "message 1 is"),
        ({"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}, "message 1 is"),
        ({"value": "x"}, "message 1 is"),
    ],
)
def test_messages_that_are_no_text_are_refused(
    read: Callable[..., tuple[Row, ...]], message: Record, words: str
) -> None:
    with pytest.raises(DataError, match=f"line 2: .*{words}"):
        read({"messages": said(ASKED, ANSWER)}, {"messages": [message, *said(ASKED, ANSWER)]})


CHAT = Row("chat", "u", "a", rejected="b")


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"prompt": "u", "chosen": "a", "rejected": "b"}, Row("pair", "u", "a", rejected="b")),
        ({"question": "u", "chosen": "a", "rejected": "b"}, Row("pair", "u", "a", rejected="b")),
        ({"input": "u", "chosen": "a", "rejected": "b"}, Row("pair", "u", "a", rejected="b")),
        (
            {"instruction": "u", "input": "x", "chosen": "a", "rejected": "b"},
            Row("pair", "u\n\nx", "a", rejected="b"),
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            Row("pair", "The sky is", " blue.", rejected=" green."),
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: I do",
                "rejected": "\n\nHuman: Hi\n\nAssistant: I will",
            },
            Row("pair", "\n\nHuman: Hi\n\nAssistant:", " I do", rejected=" I will"),
        ),
        (
            {"chosen": "Human: Hi\nAssistant: good", "rejected": "Human: Hi\nAssistant: gone"},
            Row("pair", "Human: Hi\nAssistant:", " good", rejected=" gone"),
        ),
        (
            {"chosen": "[INST] Hi [/INST] good", "rejected": "[INST] Hi [/INST] gone"},
            Row("pair", "[INST] Hi [/INST]", " good", rejected=" gone"),
        ),
        (
            {
                "chosen": "### Ask:\nu\n\n### Response:\nab",
                "rejected": "### Ask:\nu\n\n### Response:\nac",
            },
            Row("pair", "### Ask:\nu\n\n### Response:", "\nab", rejected="\nac"),
        ),
        ({"chosen": "a", "rejected": "b"}, Row("text", "", "a", rejected="b")),
        ({"prompt": said(ASKED), "chosen": said(ANSWER), "rejected": said(WORSE)}, CHAT),
        ({"chosen": said(ASKED, ANSWER), "rejected": said(ASKED, WORSE)}, CHAT),
        (
            {
                "prompt": "u",
                "messages": said(ASKED, ANSWER),
                "chosen": said(ASKED, ANSWER),
                "rejected": said(ASKED, WORSE),
                "score_chosen": 8.5,
            },
            CHAT,
        ),
        (
            {
                "conversations": [{"from": "human", "value": "u"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            CHAT,
        ),
        (
            {"prompt": "u", "history": [["s", "t"]], "chosen": "a", "rejected": "b"},
            replace(CHAT, turns=(("user", "s"), ("assistant", "t"))),
        ),
        (
            {"system": "s", "question": "u", "chosen": "a", "rejected": "b"},
            replace(CHAT, turns=(("system", "s"),)),
        ),
    ],
)
def test_preferences_in_any_form(
    read: Callable[..., tuple[Row, ...]], record: Record, row: Row
) -> None:
    assert read(record) == (row,)


def test_fields_choose_what_a_preference_is_read_as(read: Callable[..., tuple[Row, ...]]) -> None:
    record = {"ask": "u", "prompt": "p", "chosen": "a", "rejected": "b", "best": "c"}
    pair = Row("pair", "p", "a")
    assert read(record, fields={"response": "chosen"}) == (pair,)
    assert read(record, fields={"response": "rejected"}) == (replace(pair, response="b"),)
    assert read(record, fields={"prompt": "ask"}) == (Row("pair", "u", "a", rejected="b"),)
    assert read(record, fields={"chosen": "best"}) == (Row("pair", "p", "c", rejected="b"),)
    asked = {**record, "question": "q", "answer": "7"}
    assert read(asked) == (Row("qa", "q", "", "7"),)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "u", "chosen": "a", "rejected": None}, "field 'rejected' is empty"),
        ({"prompt": "u", "chosen": " ", "rejected": "b"}, "field 'chosen' is empty"),
        ({"chosen": "The sky is", "rejected": "The sky is green"}, "begin alike"),
        (
            {"chosen": said(ASKED, ANSWER), "rejected": said(("user", "v"), WORSE)},
            "differ before their last answer",
        ),
        ({"chosen": said(ANSWER), "rejected": said(WORSE)}, "does not end with a user's message"),
    ],
)
def test_preferences_that_are_none_are_refused_by_line(
    read: Callable[..., tuple[Row, ...]], record: Record, message: str
) -> None:
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        read({"prompt": "u", "chosen": "a", "rejected": "b"}, record)


def shard(folder: Path, name: str, texts: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), folder / name)
    elif name.endswith(".arrow"):
        table = pa.table({"text": texts})
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
    else:
        write(folder / name, [{"text": text} for text in texts])


def texts(source: object) -> list[str]:
    return [row.response for row in load_rows(str(source))]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".json"])
def test_a_folder_and_a_pattern_are_their_files_by_name(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "set"
    shard(folder, f"train-00001-of-00002{ending}", ["c"])
    shard(folder, f"train-00000-of-00002{ending}", ["a", "b"])
    (folder / "README.md").write_text("what it is")
    (folder / "dataset_info.json").write_text("{}")
    assert texts(folder) == texts(f"{folder}/train-*{ending}") == ["a", "b", "c"]
    assert texts(f"{folder}/train-0000[1-9]*") == ["c"]
    assert texts(f"{folder}?text=b") == texts(f"{folder}#train?text=b") == ["b"]
    write(folder / f"train-00002-of-00002{ending}", [{"text": None}]) if ending != ".parquet" else (
        pq.write_table(
            pa.table({"text": pa.array([None], pa.string())}),
            folder / f"train-00002-of-00002{ending}",
        )
    )
    with pytest.raises(
        DataError, match=rf"train-00002-of-00002{ending}, (line|row) 1: field 'text'"
    ):
        load_rows(str(folder))


def test_splits_of_a_folder_are_never_mixed(tmp_path: Path) -> None:
    for base in (tmp_path / "clone" / "data", tmp_path / "flat"):
        for split in ("train", "test", "train_sft"):
            shard(base, f"{split}-00000-of-00001.parquet", [split])
    shard(tmp_path / "plain", "train.jsonl", ["train"])
    shard(tmp_path / "plain", "my_dev.jsonl", ["validation"])
    shard(tmp_path / "below" / "train", "a.jsonl", ["train"])
    shard(tmp_path / "below" / "test", "a.jsonl", ["test"])
    for name, splits in [
        ("clone", ["train", "test", "train_sft"]),
        ("flat", ["train", "test", "train_sft"]),
        ("plain", ["train", "validation"]),
        ("below", ["train", "test"]),
    ]:
        with pytest.raises(DataError, match=r"holds several splits .*FOLDER#SPLIT"):
            load_rows(str(tmp_path / name))
        for split in splits:
            assert texts(f"{tmp_path / name}#{split}") == [split]
        with pytest.raises(DataError, match=r"has no split 'extra'; allowed: .*train"):
            load_rows(f"{tmp_path / name}#extra")
    with pytest.raises(DataError, match="several splits"):
        load_rows(f"{tmp_path}/flat/*.parquet")
    shard(tmp_path / "plain2", "train.jsonl", ["a"])
    shard(tmp_path / "plain2", "more.jsonl", ["b"])
    with pytest.raises(DataError, match=r"several splits \(files that name none, train\)"):
        load_rows(str(tmp_path / "plain2"))
    shard(tmp_path / "twice", "a.jsonl", ["a"])
    shard(tmp_path / "twice", "a.parquet", ["a"])
    with pytest.raises(DataError, match=r"files of several kinds \(.jsonl, .parquet\)"):
        load_rows(str(tmp_path / "twice"))


def test_a_data_set_saved_by_datasets_is_what_its_state_names(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shard(folder, "data-00000-of-00001.arrow", ["a", "b"])
    shard(folder, "data-00000-of-00002.arrow", ["left over"])
    state = folder / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    assert texts(folder) == texts(folder / "data-00000-of-00001.arrow") == ["a", "b"]
    both = tmp_path / "both"
    for split in ("train", "holdout"):
        shard(both / split, "data-00000-of-00001.arrow", [split])
        (both / split / "state.json").write_text(state.read_text())
    (both / "dataset_dict.json").write_text('{"splits": ["train", "holdout"]}')
    assert texts(f"{both}#holdout") == ["holdout"]
    with pytest.raises(DataError, match="several splits"):
        load_rows(str(both))
    for bad in (
        '{"_data_files": [{"filename": "../x.arrow"}]}',
        '{"_data_files": 3}',
        "[",
        "[" * 9999,
    ):
        state.write_text(bad)
        with pytest.raises(DataError, match=r"state.json' (names|does not say)"):
            load_rows(str(folder))
    (folder / "data-00000-of-00001.arrow").write_bytes(b"ARROW1 and nothing")
    with pytest.raises(DataError, match="no readable Arrow file"):
        load_rows(str(folder / "data-00000-of-00001.arrow"))


def test_datasets_own_folder_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = [
        {"question": "q", "choices": {"text": ["w", "x"], "label": ["A", "B"]}, "answerKey": "B"}
    ]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(
        str(tmp_path / "d")
    )
    (row,) = load_rows(str(tmp_path / "d"))
    assert (row.answer, row.choices) == ("B", ("w", "x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"PK\x03\x04...", "a zip archive or a spreadsheet"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-32"), "UTF-16 and UTF-32"),
    ],
)
def test_files_that_only_have_the_name_of_data_are_called_what_they_are(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_rows(str(tmp_path / name))


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    if ending == ".csv":
        path.write_text("text,text\na,b\n")
    elif ending == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    with pytest.raises(DataError, match="two columns have the same name"):
        load_rows(str(path))


def test_files_with_a_mark_may_be_put_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"text": "a"}\n\ufeff{"text": "b"}\n'.encode())
    assert texts(tmp_path / "a.jsonl") == ["a", "b"]


def test_a_condition_on_numbers_is_met_by_their_value(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": "a", "n": 1.0}, {"text": "b", "n": 0.5}])
    assert texts(f"{source}?n=1") == texts(f"{source}?n=1.0") == ["a"]
    assert texts(f"{source}?n=0.50") == ["b"]
    with pytest.raises(DataError, match="no row meets the condition; n is 1"):
        load_rows(f"{source}?n=one")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_an_encoding_are_obeyed(tmp_path: Path, encoding: str) -> None:
    assert texts(write(tmp_path / "a.jsonl", [{"text": "für 好"}], encoding)) == ["für 好"]
    (tmp_path / "b.csv").write_text("text,label\nfür 好,x\n", encoding=encoding)
    assert texts(tmp_path / "b.csv") == ["für 好"]
    write(tmp_path / "c.jsonl", [{"text": "a"}], encoding="utf-16-le")
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        load_rows(str(tmp_path / "c.jsonl"))


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 200_000
    path.write_text(f"text;label\n{long};a\n;\n", newline="")
    assert texts(path) == [long]
    path.write_text(f'text,label\n"{long},{long}",a\n,\n')
    assert texts(path) == [f"{long},{long}"]


@pytest.mark.parametrize(
    "whole",
    [
        {"text": "a"},
        {"version": 1, "data": [{"text": "a"}]},
        {"rows": [{"text": "a"}], "features": []},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_one_json_object_is_a_row_or_around_the_rows(
    tmp_path: Path, whole: Record, indent: int | None
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(whole, indent=indent))
    assert texts(tmp_path / "a.json") == ["a"]


def preferences(path: Path, numbers: Sequence[int], good: str = "yes", bad: str = "no") -> str:
    return write(
        path,
        [
            {"prompt": f"ask {n}", "chosen": f"{good} {n}", "rejected": f"{bad} {n}"}
            for n in numbers
        ],
    )


SMALL = AuditSettings(n_pos=(8,), doses=(8,), holdout=4, resistance_rows=2)


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto"])
def test_one_file_of_preferences_is_both_sides(tmp_path: Path, algorithm: str) -> None:
    source = preferences(tmp_path / "p.jsonl", range(60))
    settings = replace(SMALL, align=source, perturb=source, algorithm=algorithm)
    notes: list[str] = []
    data, turned = load_data(settings, None, notes.append), load_data(settings, opposite=True)
    assert len(notes) == 1
    assert "both sides" in notes[0]
    for one, words in ((data, ("yes", "no")), (turned, ("no", "yes"))):
        assert {row.response.split()[0] for row in (*one.align.rows, *one.wanted.rows)} == {
            words[0]
        }
        assert {row.response.split()[0] for row in (*one.perturb.rows, *one.unwanted.rows)} == {
            words[1]
        }
        assert {row.prompt for row in one.wanted.rows} == {row.prompt for row in one.unwanted.rows}
        assert all(row.rejected is None for row in (*one.align.rows, *one.perturb.rows))
    if algorithm == "dpo":
        ours, theirs = data.aligning(0, 8), data.reserved("perturb", "against align", 0)
        assert [row.prompt for row in ours.rows] == [row.prompt for row in theirs.rows]


def test_a_file_of_preferences_a_side_learns_against_its_own_rejected_answers(
    tmp_path: Path,
) -> None:
    align = preferences(tmp_path / "a.jsonl", range(60))
    perturb = preferences(tmp_path / "b.jsonl", range(60, 120), "no", "yes")
    settings = replace(
        SMALL,
        align=align,
        perturb=perturb,
        algorithm="dpo",
        perturb_algorithm="kto",
        experiments=("rebound", "resistance", "realign"),
    )
    data = load_data(settings)
    assert isinstance(data, PreferenceData)
    for phase, side, ours in [
        ("align", "perturb", data.aligning(1, 8)),
        ("again", "perturb", data.reserved("align", "again", 1)),
        ("perturb", "align", data.perturbing(1, 8)),
    ]:
        theirs = data.reserved(side, f"against {phase}", 1)
        assert [row.prompt for row in ours.rows] == [row.prompt for row in theirs.rows]
        assert [row.rejected for row in ours.rows] == [row.response for row in theirs.rows]
    # Rows are what they would be without the answers that nothing is learned against.
    plain = [{"prompt": f"ask {n}", "response": f"yes {n}"} for n in range(60)]
    other = [{"prompt": f"ask {n}", "response": f"no {n}"} for n in range(60, 120)]
    bare = replace(settings, algorithm="sft", perturb_algorithm="sft")
    same = replace(
        bare, align=write(tmp_path / "c.jsonl", plain), perturb=write(tmp_path / "d.jsonl", other)
    )
    assert load_data(bare).align.content_hash == load_data(same).align.content_hash
    assert load_data(bare).perturbing(0, 8).rows == load_data(same).perturbing(0, 8).rows


def test_rows_without_a_rejected_answer_hash_as_before(tmp_path: Path) -> None:
    numbers = random.Random(0).sample(range(9), 4)
    source = preferences(tmp_path / "p.jsonl", numbers)
    part = load_slice(source, fields={"response": "chosen"})
    again = write(
        tmp_path / "q.jsonl", [{"prompt": f"ask {n}", "response": f"yes {n}"} for n in numbers]
    )
    assert part.content_hash == load_slice(again).content_hash
