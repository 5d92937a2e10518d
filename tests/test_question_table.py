"""Test questions one by one: files beside the result, and packed small and harmless in the page."""

from __future__ import annotations

import base64
import builtins
import gzip
import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from report_fixture import audit_result, boost_result, demo_result
from report_page import Page, write
from springback.errors import StoreError
from springback.report import build
from springback.report.texts import MOST, pack
from springback.results.texts import Answer, Asked, read_texts, write_texts

RUNS = Path(__file__).resolve().parents[1] / "docs" / "results" / "gsm8k-boost" / "runs"
#: What a text may hold that means something to a page, a terminal or a spreadsheet.
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script> -->",
    "\x1b[31mred\x07\x00",
    "\u202egnp.exe\u2066",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(1)",
    "'quoted",
    "half \ud800 a pair",
    'a "quote", a comma\nand a line',
    "{{ 7 * 7 }}",
    "",
)


def table(texts: list[str]) -> list[Asked]:
    answers = [
        {
            "fine-tuned": Answer(text, 1.0, 0.25, False),
            "EpiCoDe": Answer(text[::-1], 0.0, cut=True),
        }
        for text in texts
    ]
    return [Asked(text, text, answer) for text, answer in zip(texts, answers, strict=True)]


def realistic(n: int) -> list[Asked]:
    """As many questions with answers of a small model; the questions are their words shuffled."""
    runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob("score-*/run.json"))]
    tests = [r["results"]["completions"] for r in runs if r["inputs"]["part"] == "test"]
    answers = list(zip(*tests, strict=True))
    rows, dice = [], random.Random(0)
    for i in range(n):
        texts = list(answers[i % len(answers)])
        words = " ".join(texts).split()
        dice.shuffle(words)
        if i >= len(answers):
            texts = [" ".join(dice.sample(t.split(), len(t.split()))) for t in texts]
        each = {f"method {k}": Answer(t, float(i % 2), 0.3, False) for k, t in enumerate(texts)}
        rows.append(Asked(" ".join(words[:45]), texts[0], each))
    return rows


def unpacked(page: Path) -> dict[str, Any]:
    html = page.read_text(encoding="utf-8")
    packed = html.partition('<script type="text/plain">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return data


def growth(folder: Path, asked: list[Asked]) -> int:
    """Bytes that the table adds to the page."""
    plain = build(write(folder, boost_result())).stat().st_size
    write_texts(folder, "questions", asked)
    return build(folder).stat().st_size - plain


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    asked = table(["A question?", *(t for t in HOSTILE if t.isprintable() or "\n" in t)])
    write_texts(tmp_path, "questions", asked)
    assert list(read_texts(tmp_path, "questions") or ()) == asked


def test_what_steers_is_spelt_out_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    write_texts(tmp_path, "questions", table(list(HOSTILE)))
    raw = (tmp_path / "questions.csv").read_bytes()
    assert not set(raw) & ({*range(32)} - {9, 10})
    text = raw.decode("utf-8")
    assert "\u202e" not in text
    assert r"\x1b[31mred\x07\x00" in text
    import csv

    cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    again = read_texts(tmp_path, "questions")
    assert again is not None
    assert [one.prompt for one in again][5:10] == list(HOSTILE[5:10])


def test_parquet_has_the_same_rows_as_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert write_texts(tmp_path, "questions", table(list(HOSTILE))) == ""
    rows = parquet.read_table(tmp_path / "questions.parquet").to_pylist()
    assert len(rows) == 2 * len(HOSTILE)
    assert rows[0]["text"] == HOSTILE[0]
    assert (rows[0]["score"], rows[0]["nll"], rows[0]["cut"]) == (1.0, 0.25, False)
    assert (rows[1]["model"], rows[1]["nll"], rows[1]["cut"]) == ("EpiCoDe", None, True)


def test_without_pyarrow_no_parquet_is_left_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "questions.parquet").write_bytes(b"of other rows")
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    said = write_texts(tmp_path, "questions", table(["a"]))
    assert "questions.parquet is left out" in said
    assert "springback[data]" in said
    assert {p.name for p in tmp_path.iterdir()} == {"questions.csv"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a,b\n",
        "question,prompt,reference,model,score,nll,cut,text\n0,a,b,c,much,,,d\n",
        "question,prompt,reference,model,score,nll,cut,text\n0,a,b,c,1,,maybe,d\n",
        "question,prompt,reference,model,score,nll,cut,text\n0,a\n",
        "question,prompt,reference,model,score,nll,cut,text\nx,a,b,c,1,,,d\n",
        'question,prompt,reference,model,score,nll,cut,text\n0,"a',
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    write(tmp_path, boost_result())
    (tmp_path / "questions.csv").write_text(content)
    with pytest.raises(StoreError, match=r"cannot read .*questions\.csv") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, boost_result())
    (tmp_path / "secret.txt").write_text("of another place")
    (tmp_path / "questions.csv").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(StoreError):
        build(tmp_path)
    with pytest.raises(StoreError):
        write_texts(tmp_path, "questions", table(["a"]))


def test_200_questions_take_at_most_150_kb_whatever_their_texts(tmp_path: Path) -> None:
    assert growth(tmp_path / "real", realistic(200)) <= 150_000
    assert "in the middle" not in (tmp_path / "real" / "report.html").read_text("utf-8")
    dice = random.Random(1)
    noise = ["".join(dice.choices(string.printable[:94], k=3000)) for _ in range(200)]
    assert growth(tmp_path / "noise", table(noise)) <= 150_000
    page = (tmp_path / "noise" / "report.html").read_text("utf-8")
    assert "are cut in the middle; the files have them" in page


def test_a_huge_text_and_many_questions_are_cut_and_said(tmp_path: Path) -> None:
    asked = table(["x" + "y " * 2_000_000])
    assert growth(tmp_path / "huge", asked) <= 150_000
    assert read_texts(tmp_path / "huge", "questions") == tuple(asked)
    many = [Asked(f"{i}?", "", {"a": Answer("", 1.0), "b": Answer("", 1.0)}) for i in range(1200)]
    many[1150] = Asked("apart?", "", {"a": Answer("", 1.0), "b": Answer("", 0.0)})
    growth(tmp_path / "many", many)
    data = unpacked(tmp_path / "many" / "report.html")
    assert len(data["rows"]) == MOST
    assert [1150 in {row[0] for row in data["rows"]}, len(data["rows"][0])] == [True, 5]
    said = Page((tmp_path / "many" / "report.html").read_text("utf-8")).text
    assert "The page has 1,000 of 1,200 questions, first those that differ." in said


def test_hostile_texts_stay_data(tmp_path: Path) -> None:
    growth(tmp_path, table(list(HOSTILE)))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" not in html
    assert html.count("<script") == 2
    texts = unpacked(tmp_path / "report.html")["texts"]
    assert HOSTILE[0] in texts
    assert not any("\x1b" in text or "\u202e" in text for text in texts)


def test_the_same_table_packs_to_the_same_letters() -> None:
    asked = list(enumerate(table(["a", "b"])))
    assert pack(asked, ["fine-tuned"], ["fine-tuned"]) == pack(
        asked, ["fine-tuned"], ["fine-tuned"]
    )


def test_the_two_models_of_the_verdict_stand_side_by_side(tmp_path: Path) -> None:
    one = {name: Answer(name, 1.0) for name in ("ME only", "fine-tuned", "CD only", "EpiCoDe")}
    growth(tmp_path, [Asked("a?", "", one)])
    data = unpacked(tmp_path / "report.html")
    assert [data["models"][i] for i in data["pair"]] == ["fine-tuned", "EpiCoDe"]


def test_a_demo_has_the_table_of_its_boost(tmp_path: Path) -> None:
    write(tmp_path, demo_result())
    (tmp_path / "boost").mkdir()
    write_texts(tmp_path / "boost", "questions", table(["a"]))
    html = build(tmp_path).read_text(encoding="utf-8")
    assert 'href="boost/questions.csv"' in html


def test_a_page_without_texts_runs_no_script(tmp_path: Path) -> None:
    for make in (audit_result, boost_result):
        html = build(write(tmp_path / make.__name__, make())).read_text(encoding="utf-8")
        assert "<script" not in html
        assert "script-src" not in html
        assert "runs no script" in html
