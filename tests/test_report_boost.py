"""The page of a boost beyond its methods, and of paper B's reproductions."""

from __future__ import annotations

from typing import Any

import pytest

from report_fixture import boost_result, interval
from report_page import Page
from springback.core import to_jsonable
from springback.errors import StoreError
from springback.jobs.papers.epicode import tables
from springback.report.headline import headlines_of
from springback.report.page import chapters, render
from springback.results.paper_schema import Cell, Reproduction
from springback.results.reading import read_part
from springback.results.schema import read


def difficulty(name: str = "EpiCoDe") -> dict[str, Any]:
    return {
        "unit": "characters of the reference solution",
        "bins": [
            {"low": 20, "high": 45, "questions": 41},
            {"low": 46, "high": 80, "questions": 39},
            {"low": 81, "high": 190, "questions": 40},
        ],
        "methods": [
            {
                "method": name,
                "bins": [
                    {"accuracy": interval(0.6, 0.1), "difference": interval(d, 0.02)}
                    for d in (0.001, 0.004, 0.0184)
                ],
                "trend": interval(0.02, 0.015),
                "p": 0.011,
                "p_holm": 0.033,
            }
        ],
    }


def full_boost() -> dict[str, Any]:
    result = boost_result()
    found = result["analysis"]
    for row in found["methods"][1:]:
        row |= {"p": 0.02, "p_holm": 0.0612, "nll_p": 0.001, "nll_p_holm": 0.0045}
    found |= {
        "power": {"text": "To see a gain of 1 point takes 7,847 questions."},
        "difficulty": difficulty(),
        "precheck": {"label": "safe", "reasons": ["validation NLL falls", "R^2 0.99"]},
        "diagnostics": {
            "texts": 48,
            "pairs": [
                {
                    "method": "EpiCoDe",
                    "strong": "extrapolated, mu 0.2",
                    "weak": "fine-tuned",
                    "label": "helps",
                    "eps": interval(0.4, 0.02),
                    "k": interval(1.31, 0.04),
                    "rho": interval(0.97, 0.01),
                    "rho_k": interval(1.27, 0.05),
                    "best_lambda": interval(0.8, 0.3),
                    "contested": interval(0.32, 0.03),
                    "chosen": 0.1,
                    "prediction": [
                        {"lambda": 0.0, "error_variance": 1.0},
                        {"lambda": 0.5, "error_variance": 0.91},
                    ],
                }
            ],
        },
    }
    found["search"]["lambda_early"] = found["search"]["lambda"]
    return result


def cell(name: str = "a-model") -> dict[str, Any]:
    row = {
        "method": "EpiCoDe", "against": "fine-tuned", "mu": [0.2, 0.4], "lambda": [0.5, 0.5],
        "accuracy": interval(0.44, 0.03), "nll": interval(0.9, 0.02),
        "difference": interval(0.0123, 0.009), "nll_difference": interval(-0.02, 0.01),
        "p_t": 0.012, "p_wilcoxon": 0.03, "p_t_holm": 0.0241, "nll_p_t_holm": 0.004,
        "p_wilcoxon_holm": 0.06, "seeds_better": 8, "seeds_worse": 2, "verdict": "gain",
    }  # fmt: skip
    plain = {**row, "method": "fine-tuned", "difference": None, "nll_difference": None,
             "verdict": "same", "p_t_holm": None, "nll_p_t_holm": None}  # fmt: skip
    rival = {**row, "against": "ME only"}
    return {
        "name": name, "seeds": list(range(10)), "methods": [plain, row], "rivals": [rival],
        "difficulty": difficulty(),
    }  # fmt: skip


def theory_cell() -> dict[str, Any]:
    seed = {
        "seed": 3, "mu": 0.2, "predicted": "helps", "measured": "helps", "nll_lambda": 0.5,
        "chosen": 1.0, "rho_k": interval(1.2, 0.1), "k": interval(1.3, 0.1), "eps": None,
        "rho": None, "best_lambda": interval(0.6, 0.2), "contested": interval(0.3, 0.02),
    }  # fmt: skip
    curve = [
        {
            "lambda": lam,
            "error_variance": interval(1 - 0.3 * lam * (1 - lam), 0.02),
            "nll_difference": interval(-0.04 * lam, 0.01),
            "accuracy_difference": interval(0.01 * lam, 0.02) if lam != 0.25 else None,
        }
        for lam in (0.0, 0.25, 0.5, 1.0)
    ]
    agreement = {"right": 1, "judged": 1, "seeds": 1}
    return {"name": "a-model", "seeds": [seed], "curve": curve, "agreement": agreement}


def reproduced(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """As the job writes it: the tables are the job's own."""
    typed = read_part(tuple[Cell, ...], "cells", cells, "reproduce")
    analysis = {
        "name": name, "question": "Does it gain?", "scale": "small", "paper": "It gains.",
        "note": None, "published": {"columns": ["method", "Law"], "rows": [["EpiCoDe", "65.51"]],
                                    "source": "Tao et al. 2025"},
        "measured": to_jsonable(tables.measured(name, typed)), "studies": [], "comparison": None,
        "cells": cells,
    }  # fmt: skip
    return {
        **boost_result(), "kind": "reproduce", "analysis": analysis,
        "verdict": to_jsonable(tables.verdict(name, typed)),
    }  # fmt: skip


def reproduction_of(result: dict[str, Any]) -> Reproduction:
    analysis = read(result).analysis
    assert isinstance(analysis, Reproduction)
    return analysis


def sections_of(result: dict[str, Any]) -> dict[str, Any]:
    return {s.id: s for chapter in chapters(read(result)) for s in chapter.sections}


def test_a_boost_shows_adjusted_p_power_difficulty_and_prediction() -> None:
    found = sections_of(full_boost())
    (table,) = found["comparison"].grids
    row = dict(zip(table.head, table.rows[3], strict=True))
    assert row["p (Holm)"].text == "0.061"
    assert row["p of it (Holm)"].text == "0.0045"
    assert table.rows[0][table.head.index("p (Holm)")].text == "–"
    assert found["comparison"].notes == ("To see a gain of 1 point takes 7,847 questions.",)
    assert "safe (validation NLL falls; R^2 0.99)" in found["search"].notes[0]
    assert "search-lambda-early" in [c.name for c in found["search"].charts]
    (chart,) = found["difficulty"].charts
    assert chart.table.rows[0][3].startswith("+1.8")
    assert "0.033" in chart.table.rows[0]
    (errors,) = found["diagnostics"].grids
    assert errors.rows[0][1].text == "helps"
    assert errors.rows[0][2].text == "1.270"
    # The search has lambda 0.5, so its change of NLL stands beside the prediction 0.91.
    (curve,) = found["diagnostics"].charts
    at_half = next(r for r in curve.table.rows if r[0] == "0.5")
    assert at_half[1] == "0.91"
    # 0.912 - 0.05 * 0.5 + 0.16 * 0.25 less 0.912 at lambda 0: +0.015
    assert at_half[2] == "0.015"


def test_the_share_of_answers_cut_at_the_limit_has_a_column_and_a_note() -> None:
    result = boost_result()
    shares = [0.0, 0.05, None, 0.1325]
    for row, cut in zip(result["analysis"]["methods"], shares, strict=True):
        row["cut"] = cut
    comparison = sections_of(result)["comparison"]
    (table,) = comparison.grids
    at = table.head.index("Cut, %")
    assert [row[at].text for row in table.rows] == ["0", "5", "–", "13"]
    (note,) = comparison.notes
    assert note.startswith("Cut: answers that reached the limit of new tokens.")
    assert "accuracy says less" in note
    result["analysis"]["methods"][3]["cut"] = 0.02
    (note,) = sections_of(result)["comparison"].notes
    assert "accuracy says less" not in note
    (plain,) = sections_of(boost_result())["comparison"].grids
    assert "Cut, %" not in plain.head


def test_older_files_without_these_keys_read_as_before() -> None:
    found = sections_of(boost_result())
    assert set(found) == {"comparison", "search"}
    older = read({**boost_result(), "kind": "reproduce"}).analysis
    assert isinstance(older, Reproduction)
    assert older.cells == ()


def test_a_reproduction_puts_methods_difficulty_and_tests_on_the_page() -> None:
    result = reproduced("epicode-main", [cell()])
    found = sections_of(result)
    assert list(found) == ["published", "comparison", "difficulty"]
    (table,) = found["comparison"].grids
    row = dict(zip(table.head, table.rows[1], strict=True))
    assert row["p (Holm)"].text == "0.024"
    assert (row["mu"].text, row["lambda"].text) == ("–", "0.5")  # seeds chose different mu
    measured = result["analysis"]["measured"]
    told = dict(zip(measured["columns"], measured["rows"][1], strict=True))
    assert told["against fine-tuned, points"]["mean"] == pytest.approx(1.23)
    assert told["p (Wilcoxon)"] == 0.03
    assert measured["rows"][2][1] == "EpiCoDe against ME only"
    assert result["verdict"]["label"] == "gain"
    assert "8 better, 2 worse" in result["verdict"]["text"]
    page = Page(render(result))
    assert "Published" in page.text
    several = sections_of(reproduced("epicode-main", [cell("a"), cell("b")]))
    assert {"comparison-1", "comparison-2", "difficulty-2"} <= set(several)
    assert "| 65.51 |" in tables.page(reproduction_of(result))


@pytest.mark.parametrize(("seeds", "words"), [(10, "10 seeds leave"), (1, "1 seed leaves")])
def test_the_headline_counts_seeds_where_the_difference_counts_questions(
    seeds: int, words: str
) -> None:
    shared = cell() | {"seeds": list(range(seeds))}
    shared["methods"][1] |= {"verdict": "undecided"}
    shared["methods"][1]["difference"] |= {"n": 256}
    (headline,) = headlines_of(reproduced("epicode-main", [shared]))
    assert headline.sentence.startswith(f"{words} open whether EpiCoDe is better")


def test_theory_puts_prediction_beside_what_was_measured() -> None:
    result = reproduced("epicode-theory", [theory_cell()])
    (chart,) = sections_of(result)["lambda"].charts
    half = next(r for r in chart.table.rows if r[0] == "0.5")
    assert [v.split(" (")[0] for v in half[1:]] == ["0.925", "−0.020", "0.5"]
    assert result["verdict"]["label"] == "1 of 1 signs right"
    assert "## Lambda: a-model" in tables.page(reproduction_of(result))
    without = theory_cell()
    for point in without["curve"]:
        point["error_variance"] = None
    without["seeds"][0]["predicted"] = "no reference"
    without["agreement"] = {"right": 0, "judged": 0, "seeds": 1}
    result = reproduced("epicode-theory", [without])
    assert "only NLL" in result["verdict"]["text"]
    (chart,) = sections_of(result)["lambda"].charts
    assert len(chart.table.head) == 3


def test_difficulty_names_where_the_gains_are() -> None:
    result = reproduced("epicode-difficulty", [cell()])
    assert result["verdict"]["label"] == "gains are in the hard questions"
    measured = result["analysis"]["measured"]
    assert [r[3] for r in measured["rows"]] == [41, 39, 40]
    assert measured["rows"][0][6]["mean"] == pytest.approx(2.0)
    assert measured["rows"][1][6] is None


def test_a_wrong_value_is_refused_with_its_name() -> None:
    result = full_boost()
    result["analysis"]["difficulty"]["bins"][0]["questions"] = "many"
    with pytest.raises(StoreError, match=r"difficulty\.bins\[0\]\.questions"):
        read(result)
    with pytest.raises(StoreError, match="curve"):
        read({**result, "kind": "reproduce", "analysis": {"cells": [{"curve": [{}]}]}})
