"""Models are compared seed by seed where that is fair, and labels survive the number of tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as sps

from elasticity_fixture import audit_result
from springback.cli.app import main
from springback.elasticity import Comparison, Difference
from springback.elasticity import compare as compare_cards
from springback.errors import DataError
from springback.results.cards import card_of_result, read_card


def compare(results: Sequence[Any], names: Sequence[str] | None = None) -> Comparison:
    return compare_cards([card_of_result(result) for result in results], names=names)


def difference(found: Comparison, key: str) -> Difference:
    return next(row for row in found.rows if row.key == key).differences[0]


def test_equal_studies_are_paired_by_seed() -> None:
    # gains differ by 0.10, 0.11, 0.09: paired they differ clearly, unpaired they would not
    a = audit_result("a", gains=(0.4, 0.5, 0.6))
    b = audit_result("b", gains=(0.3, 0.39, 0.51))
    found = difference(compare([a, b]), "gain")
    reference = sps.ttest_rel([0.4, 0.5, 0.6], [0.3, 0.39, 0.51])
    assert (found.a, found.b, found.method) == ("a", "b", "paired by 3 seeds")
    assert found.value == pytest.approx(0.1)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.low == pytest.approx(0.1 - 2.484138 * 0.01, abs=1e-6)


def test_other_seeds_or_another_study_take_welch() -> None:
    a, b = audit_result("a"), audit_result("b", gains=(0.3, 0.39, 0.51, 0.4))
    found = difference(compare([a, b]), "gain")
    assert found.method == "Welch's t over 3 and 4 seeds"
    reference = sps.ttest_ind([0.4, 0.5, 0.6], [0.3, 0.39, 0.51, 0.4], equal_var=False)
    assert found.p == pytest.approx(reference.pvalue)
    other = audit_result("b")
    other["inputs"]["settings"]["learning_rate"] = 1e-4
    compared = compare([a, other])
    assert difference(compared, "gain").method.startswith("Welch")
    assert "data or settings differ" in compared.notes[0]
    assert compare([a, audit_result("b")]).notes == ()


def test_p_values_are_adjusted_over_every_test() -> None:
    a = audit_result("a", gains=(0.4, 0.5, 0.6))
    b = audit_result("b", gains=(0.3, 0.39, 0.51))
    found = compare([a, b])
    ps = sorted(d.p for row in found.rows for d in row.differences if d.p is not None)
    least = next(
        d for row in found.rows for d in row.differences if d.p is not None and d.p == ps[0]
    )
    assert len(ps) > 1
    assert least.p_holm == pytest.approx(len(ps) * ps[0])


def test_labels_follow_the_adjusted_p() -> None:
    a = audit_result("a", gains=(0.4, 0.5, 0.6))
    far = audit_result("b", gains=(0.1, 0.2001, 0.2999))
    assert difference(compare([a, far]), "gain").label == "higher"
    assert difference(compare([far, a]), "gain").label == "lower"
    near = audit_result("b", gains=(0.3, 0.39, 0.53))
    found = difference(compare([a, near]), "gain")
    # 0.1, 0.11, 0.07: p = 0.016 alone, and not small enough among the tests of the page
    assert found.p is not None
    assert found.p < 0.05
    assert found.label == "undecided"


def test_a_model_that_holds_beyond_the_largest_dose_is_higher() -> None:
    # b loses half of its gain at 40, 41 and 42 examples, a at more than 64 in every seed
    a, b = audit_result("a", rate=0.4), audit_result("b")
    for found in b["measurements"]:
        tags = found["tags"]
        if found["probe"] == "margin" and tags.get("n_pos") == 200:
            at_half = 40 + tags["seed"]
            found["value"] = 1 + 0.5 * (1 - tags["n_neg"] / at_half / 2)
    found = difference(compare([a, b]), "half_life_dose")
    # lower ends of a - b: 24, 23, 22
    assert (found.value, found.high) == (None, None)
    assert found.low == pytest.approx(23 - 2.484138, abs=1e-4)
    assert found.label == "higher"
    assert difference(compare([a, a], names=["x", "y"]), "half_life_dose").label == "not estimable"


def test_what_cannot_be_tested_says_so() -> None:
    found = compare([audit_result("a", gains=(0.5,)), audit_result("b")])
    assert difference(found, "gain").label == "one seed"
    assert difference(found, "gain").value == pytest.approx(0.0)
    assert difference(found, "worst_case").label == "not compared"
    empty = compare([audit_result("a"), {"schema_version": 1, "kind": "audit"}])
    assert difference(empty, "gain").label == "not measured"
    assert "| Margin gained" in empty.to_markdown()
    same = compare([audit_result("a"), audit_result("b")])
    assert difference(same, "gain").label == "undecided"
    assert "no spread" in difference(same, "gain").method


def test_quantities_that_are_not_the_same_are_not_compared() -> None:
    """Utility by neutral texts in one card, by bits per byte in the other."""
    a, b = audit_result("a"), audit_result("b")
    for found in [m for m in a["measurements"] if m["probe"] == "bits_per_byte"]:
        a["measurements"].append({**found, "probe": "neutral_nll"})
    found = difference(compare([a, b]), "utility_kept")
    assert (found.label, found.value, found.p) == ("not compared", None, None)
    assert "NLL of neutral texts" in found.method
    assert "bits per byte" in found.method
    alike = difference(compare([a, a], names=["a", "b"]), "utility_kept")
    assert alike.label == "undecided"


def test_the_command_prints_cards_side_by_side_with_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, gains in (("a", (0.4, 0.5, 0.6)), ("b", (0.1, 0.2, 0.29))):
        (tmp_path / name).mkdir()
        text = json.dumps(audit_result(name, gains=gains))
        (tmp_path / name / "result.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["springback", "compare", *map(str, tmp_path.iterdir())])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    line = next(t for t in told.splitlines() if t.startswith("| Margin gained") and "minus" in t)
    assert "paired by 3 seeds" in line
    assert "nats/token" in line


def test_different_doses_are_noted() -> None:
    other = audit_result("b")
    other["analysis"]["rebound"]["doses"] = [0, 16, 32]
    assert (
        "different doses (a 0, 16, 32, 64; b 0, 16, 32)"
        in compare([audit_result("a"), other]).notes[0]
    )


def test_cards_results_and_saved_cards_are_alike() -> None:
    a, b = audit_result("a"), audit_result("b", gains=(0.3, 0.39, 0.51))
    saved = json.loads(json.dumps(card_of_result(b).to_dict()))
    assert compare_cards([card_of_result(a), read_card(saved)]) == compare([a, b])


def test_three_models_have_three_differences_and_names_of_their_own() -> None:
    found = compare([audit_result("m"), audit_result("m"), audit_result("n")])
    assert found.names == ("m", "m #2", "n")
    pairs = [(d.a, d.b) for d in found.rows[0].differences]
    assert pairs == [("m", "m #2"), ("m", "n"), ("m #2", "n")]


def test_the_page_shows_values_and_differences_with_units() -> None:
    a = audit_result("a", gains=(0.4, 0.5, 0.6))
    b = audit_result("b", gains=(0.1, 0.2001, 0.2999), rate=1.5)
    page = compare([a, b]).to_markdown()
    assert "| quantity | a | b |" in page
    # 0.3, 0.2999, 0.3001: sd 0.0001, half width 0.000248
    cells = "| Margin gained by aligning | a minus b | 0.3 nats/token | 0.2998 to 0.3002 nats/token"
    assert cells in page
    assert "10 points of the gain" in page
    assert "adjusted by Holm over all tests on this page" in page
    plain = json.loads(json.dumps(compare([a, b]).to_dict(), allow_nan=False))
    gain = next(d for d in plain["differences"] if d["quantity"] == "gain")
    assert (gain["label"], gain["unit"]) == ("higher", "nats/token")


@pytest.mark.parametrize(
    ("models", "names"), [(["a"], None), (["a", "b"], ["x"]), (["a", "b"], ["x", "x"])]
)
def test_models_that_cannot_be_told_apart_are_refused(
    models: list[str], names: list[str] | None
) -> None:
    with pytest.raises(DataError, match="name of its own"):
        compare([audit_result(m) for m in models], names=names)
