"""``springback theory``: what its two studies write, and the page made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from springback.cli.app import app
from springback.core import Row, Slice
from springback.errors import SpringbackError, StoreError
from springback.jobs.papers.theory import pareto
from springback.jobs.papers.theory.job import pareto_study, theorem_study
from springback.jobs.papers.theory.settings import ParetoSettings, TheoremSettings
from springback.report import build, render
from springback.theory import TokenTree

SMALL = TheoremSettings(
    depth=6,
    k=(10.0, 1e3),
    doses=(0.0, 0.01, 0.1),
    exponents=(0.8, 1.2),
    overlaps=(-1.0, 0.0, 1.0),
    depths=(3, 6),
    draws=4,
)


@pytest.fixture(scope="module")
def theorem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return theorem_study(SMALL, tmp_path_factory.mktemp("theorem")).folder


def read(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_the_theorems_study_tells_identity_from_content(theorem: Path) -> None:
    data = read(theorem)
    assert (data["schema_version"], data["kind"]) == (1, "theory")
    found = data["analysis"]["theorem"]
    assert found["identity"]["residue_at_zero"] < 1e-12
    assert found["identity"]["difference"] < 1e-4
    # Identity: at l = 0 the ratio is -k, whatever the law, the overlap and k.
    at_zero = [row["kept"] for row in (*found["by_k"], *found["laws"]) if row["l"] == 0]
    assert all(
        bound == pytest.approx(1, abs=1e-6)
        for kept in at_zero
        if kept["median"] is not None
        for bound in (kept["low"], kept["median"], kept["high"])
    )
    # Content: away from it overlap decides.  D3 = D2 has b = 1: 1 / 1.1 is left.
    later = {
        row["arrangement"]: row for row in found["by_k"] if row["l"] == 0.1 and row["k"] == 1e3
    }
    assert later["same ranks"]["kept"]["median"] == pytest.approx(1 / 1.1, rel=1e-2)
    assert later["same ranks"]["worse"] == 0
    assert later["opposed kinds"]["worse"] == 1
    # Every row says whether it lies within the theorem's premises.
    tables = (*found["by_k"], *found["by_l"], *found["laws"], *found["escaped"], *found["map"])
    for row in tables:
        inside = row.get("arrangement") == "three parts" and not row.get("mass")
        assert row["premises"] is inside
        assert row["as_stated"] == 1 or not inside
    assert {row["arrangement"] for row in tables if row["premises"]} == {"three parts"}
    assert later["three parts"]["kept"]["median"] == pytest.approx((1 + 0.3 / 1e3) / 0.8)
    assert later["opposite ranks"]["as_stated"] < 1
    for row in found["premises"]:
        assert row["inside"] is (row["l"] < 0.5)
        assert row["as_stated"] is row["inside"]
        assert row["trees"] == pytest.approx(row["closed"], rel=1e-6)
        assert row["differences"] == pytest.approx(row["closed"], rel=1e-6)
    assert data["verdict"]["parts"][0]["label"] == "as stated"
    assert "independent (outside)" in data["verdict"]["parts"][2]["text"]
    for row in found["departures"]:
        assert row["kept"] == pytest.approx(1 / (1 + row["l_over_scale"]), rel=1e-6)
    assert len(found["map"]) == 2 * 3 * 2
    low, high = found["huffman"]["redundancy"]
    assert 0 <= low <= high < 1
    assert found["huffman"]["codes"] > 1


def test_the_same_settings_give_the_same_numbers(theorem: Path, tmp_path: Path) -> None:
    again = read(theorem_study(SMALL, tmp_path).folder)
    assert again["analysis"] == read(theorem)["analysis"]


def test_the_page_and_pictures_of_the_theorem(theorem: Path) -> None:
    page = build(theorem).read_text(encoding="utf-8")
    assert "Escaped mass" in page
    assert "Under the theorem&#x27;s premises" in page or "Under the theorem's premises" in page
    assert "outside" in page
    drawn = {path.stem for path in (theorem / "charts").glob("*.svg")}
    assert {
        "theory-premises",
        "theory-ratio-k",
        "theory-ratio-l",
        "theory-map",
        "theory-huffman",
    } <= drawn
    assert drawn == {path.stem for path in (theorem / "charts").glob("*.png")}


def test_a_theory_result_of_another_form_is_refused(theorem: Path) -> None:
    data = read(theorem)
    del data["analysis"]["theorem"]["identity"]
    with pytest.raises(StoreError, match="form that springback theory writes"):
        render(data)
    assert "Theory" in render({"schema_version": 1, "kind": "theory"})


def test_a_theorem_from_before_the_premises_is_read(theorem: Path) -> None:
    data = read(theorem)
    tables = data["analysis"]["theorem"]
    del tables["premises"]
    for name in ("by_k", "by_l", "laws", "escaped", "map"):
        for row in tables[name]:
            del row["premises"], row["as_stated"]
    page = render(data)
    assert "theory-premises" not in page
    assert "theory-ratio-l" in page


def slice_of(*texts: str) -> Slice:
    return Slice.of("s", "s", [Row("text", "", text) for text in texts], 0)


def test_counts_of_ngrams_and_leaves_by_hand() -> None:
    rows = pareto.words(slice_of("The cat. The dog", "the cat"))
    assert rows == [[0, 1, 2, 0, 3], [0, 1]]
    # the x3, cat x2, "." and dog once
    assert sorted(pareto.ngram_counts(rows, 1)) == [1, 1, 2, 3]
    # "the cat" twice; "cat .", ". the", "the dog"; none across the two rows
    assert sorted(pareto.ngram_counts(rows, 2)) == [1, 1, 1, 2]
    assert sorted(pareto.ngram_counts(rows, 3)) == [1, 1, 1]
    assert pareto.ngram_counts(rows, 6).size == 0
    tree = TokenTree.from_responses(rows)
    assert pareto.leaf_counts(tree, 2, 2).tolist() == [2]
    assert pareto.leaf_counts(tree, 2, 3).tolist() == [1, 1]


@pytest.fixture(scope="module")
def zipf_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of words drawn by a zeta law with exponent 2 of rank."""
    rng = np.random.default_rng(0)
    ranks = rng.zipf(2.0, size=(300, 12))
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [json.dumps({"text": " ".join(f"w{r}" for r in row)}) for row in ranks.tolist()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_tails_of_a_file(zipf_texts: Path, tmp_path: Path) -> None:
    settings = ParetoSettings(data=(str(zipf_texts),), ngrams=(1, 50), depths=(1,), samples=10)
    first = pareto_study(settings, tmp_path)
    (found,) = first.data["analysis"]["pareto"]
    tails = {tail["leaves"]: tail for tail in found["tails"]}
    # Mass of rank r ~ r^-2: the masses themselves have alpha = 1 + 1/2.
    fit = tails["1-grams"]["fit"]
    assert abs(fit["alpha"] - 1.5) < 4 * fit["alpha_se"]
    assert fit["p"] is not None
    assert tails["50-grams"]["fit"] is None
    assert tails["50-grams"]["reason"] == "no response is that long"
    assert any(m["probe"] == "tail_exponent" for m in first.data["measurements"])
    (run,) = (tmp_path / "runs").glob("tails-*/run.json")
    before = run.stat().st_mtime_ns
    assert pareto_study(settings, tmp_path).data["analysis"] == first.data["analysis"]
    assert run.stat().st_mtime_ns == before  # read, not made again
    assert "theory-tail-1" in build(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (TheoremSettings(depth=40), "--depth"),
        (TheoremSettings(overlaps=(2.0,)), "--overlaps"),
        (TheoremSettings(depths=(13,)), "1 to 12"),
        (TheoremSettings(draws=0), "--draws"),
        (TheoremSettings(seed=-1), "--seed: given: -1; allowed: 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: TheoremSettings, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpringbackError, match=said):
        theorem_study(settings, tmp_path)


def test_no_data_and_no_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match="--seed: given: -1"):
        pareto_study(ParetoSettings(data=("problems-text",), seed=-1), tmp_path)
    with pytest.raises(SpringbackError, match="no data"):
        pareto_study(ParetoSettings(), tmp_path)


def test_the_commands_write_both_results(
    zipf_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = "--depth 4 --k 10,100 --l 0,0.1 --exponents 1 --overlaps 0 --depths 2,4 --draws 2"
    command = ["theory", "theorem", *common.split(), "--out", str(tmp_path / "a")]
    app(args=command, prog_name="springback", standalone_mode=False)
    assert read(tmp_path / "a")["inputs"]["settings"]["k"] == [10, 100]
    command = ["theory", "pareto", str(zipf_texts), "--samples", "2", "--out", str(tmp_path / "b")]
    app(args=command, prog_name="springback", standalone_mode=False)
    assert read(tmp_path / "b")["inputs"]["data"][0]["rows"] == 300
    assert "report:" in capsys.readouterr().out
