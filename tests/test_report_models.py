"""The report of several models: a series, and a reproduction of the papers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elasticity_fixture import audit_result
from models_fixture import MODELS, reproduce_result, series_result
from report_page import Page, charts, outward, topics, write
from springback.errors import StoreError
from springback.report import build, render
from springback.report import text as report_text
from springback.report.elasticity_card import report_link
from springback.report.estimate import Estimate
from springback.results.cards import card_of_result
from springback.results.schema import Interval, read
from test_report_findings import numbers_of, table_of

CHARTS = {
    "models-gain",
    "models-share-lost",
    "models-rebound-slope",
    "models-resistance-ratio",
    "models-half-life-dose",
}
Make = Callable[[], dict[str, Any]]


@pytest.mark.parametrize("make", [series_result, reproduce_result])
def test_each_main_quantity_has_a_chart_on_the_page_and_as_files(
    tmp_path: Path, make: Make
) -> None:
    page = Page(build(write(tmp_path, make())).read_text(encoding="utf-8"))
    assert charts(page) == CHARTS
    written = {p.name for p in (tmp_path / "charts").iterdir()}
    assert written == {f"{c}.{ending}" for c in CHARTS for ending in ("svg", "png")}
    assert page.open == []
    assert {"cards", "by-model", "differences", "made"} <= topics(page)
    assert ("published" in topics(page)) == (make is reproduce_result)


@pytest.mark.parametrize("make", [series_result, reproduce_result])
def test_nothing_outside_the_folder_is_referred_to(make: Make) -> None:
    html = render(make())
    assert "http:" not in html
    assert "https:" not in html
    page = Page(html)
    assert outward(page) == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_what_did_not_align_says_so_in_the_chart_of_gains() -> None:
    result = reproduce_result()
    first, second = result["analysis"]["studies"]
    first["card"] = card_of_result(audit_result(first["name"], (-0.1, 0.1, 0.3), 0.6)).to_dict()
    html = render(result)
    assert f"{first['name']} (did not align): 0.10" in html
    assert f"{second['name']} (did not align)" not in html


def test_cards_stand_side_by_side_with_links_to_their_reports() -> None:
    html = render(series_result())
    rows = {row[0]: row[1:] for row in table_of(html, "Cards side by side")}
    # Gains of 0.4, 0.5 and 0.6: 0.50 and 0.25 on either side.
    assert rows["Margin gained by aligning|nats/token"][0] == "0.50|0.25 to 0.75; aligned"
    assert [row[:2] for row in rows["Taken back at the largest dose|% of the gain"]] == [
        "60",
        "90",
        "30",
    ]
    # 30 % of the gain in 64 examples: half of it lies beyond.
    assert rows["Half-life dose: half of the gain lost|examples"][2].startswith("more than 64|")
    assert rows["Seeds"] == ["0, 1, 2"] * 3
    links = [x for x in Page(html).attributes("href") if x.startswith("models/")]
    assert links == [
        "models/0%20135M/report.html",
        "models/1%20360M/report.html",
        "models/2%201.7B/report.html",
    ]


@pytest.mark.parametrize(
    ("folder", "link"),
    [
        ("a", "a/report.html"),
        ("models/b c", "models/b%20c/report.html"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29/report.html"),
        ("", ""),
        (".", ""),
        ("/etc", ""),
        ("//elsewhere.example", ""),
        ("../other", ""),
        ("a/../../other", ""),
        ("..\\other", ""),
    ],
)
def test_a_link_leads_to_a_folder_inside_this_one_or_nowhere(folder: str, link: str) -> None:
    assert report_link(folder) == link


def test_a_model_by_model_chart_has_the_numbers_of_the_cards() -> None:
    html = render(series_result())
    rows = numbers_of(html, "Half-life dose")
    # A straight fall of 60 % in 64 examples: half is lost at 64 * 0.5 / 0.6.
    assert [row[1] for row in rows] == ["53.3", "35.6", "more than 64"]
    assert [row[0] for row in rows] == list(MODELS)
    slope = series_result()["analysis"]["models"][1]["card"]["quantities"]["rebound_slope"]
    assert numbers_of(html, "Rebound slope")[1][1].startswith(f"{slope['value']:.2f} (")


def test_a_model_without_a_value_is_named_with_the_reason(tmp_path: Path) -> None:
    result = series_result()
    quantity = result["analysis"]["models"][0]["card"]["quantities"]["resistance_ratio"]
    quantity |= {"value": None, "low": None, "high": None, "reason": "not measured"}
    result["analysis"]["models"][1]["card"] = None
    build(write(tmp_path, result))
    svg = (tmp_path / "charts" / "models-resistance-ratio.svg").read_text(encoding="utf-8")
    assert ">HuggingFaceTB/SmolLM2-135M: not measured<" in svg
    assert ">HuggingFaceTB/SmolLM2-360M: no card<" in svg


def test_differences_show_the_tests_of_the_file() -> None:
    result = series_result()
    html = render(result)
    given = result["analysis"]["comparison"]["differences"]
    tested = [d for d in given if d["label"] in ("higher", "lower")]
    rows = table_of(html, "Differences that the tests show")
    assert len(rows) == len(tested) > 0
    # 0.4, 0.5, 0.6 minus 0.8, 0.91, 0.99: -0.40, -0.41, -0.39, so -0.4 with
    # 4.303 * 0.01 / sqrt(3) = 0.025 on either side.
    assert rows[0][0] == "Margin gained by aligning|nats/token"
    assert rows[0][1] == "HuggingFaceTB/SmolLM2-135M minus HuggingFaceTB/SmolLM2-360M"
    assert rows[0][2:4] == ["−0.400", "−0.425 to −0.375"]
    assert rows[0][4] == report_text.number(tested[0]["p_holm"], 2)
    assert rows[0][5:] == ["lower", "paired by 3 seeds"]
    told = [d for d in given if d["label"] not in ("not measured", "not compared")]
    assert len(table_of(html, f"All {len(told)} differences")) == len(told)
    assert "Holm over all 9 tests" in html


def test_few_differences_stand_in_one_table_and_none_proven_is_said() -> None:
    result = reproduce_result()
    found = result["analysis"]["comparison"]["differences"]
    assert len(table_of(render(result), "Differences")) <= 12
    for difference in found:
        if difference["label"] in ("higher", "lower"):
            difference["label"] = "undecided"
    assert "No difference stands after that." in render(result)


def test_what_keeps_models_apart_is_a_warning() -> None:
    result = series_result()
    result["analysis"]["comparison"]["notes"] = ["data or settings differ"]
    html = render(result)
    assert '<p class="warning" role="note">Data or settings differ.</p>' in html


def test_published_and_measured_stand_one_above_the_other() -> None:
    html = render(reproduce_result())
    assert html.index('aria-label="Published"') < html.index('aria-label="Measured here"')
    published = table_of(html, "Published")
    assert published[0] == ["Llama2-7B", "1,000", "0.21", "961"]
    assert published[2] == ["Gemma-2B", "1,000", "0.18", "–"]
    measured = table_of(html, "Measured here")
    # Half width 31.25: whole numbers; a bare number keeps four digits.
    assert measured == [
        ["SmolLM2-135M", "1,000", "212|180 to 243"],
        ["SmolLM2-360M", "1,000", "123.5"],
    ]
    text = Page(html).text
    assert (
        "The paper: The number of unsafe examples falls as the number of safe ones rises." in text
    )
    assert "Do fewer unsafe examples undo the alignment of a further aligned model?" in text
    assert "Published: Table 3 of the paper." in text
    assert "table3" in text


def test_a_reproduction_without_a_published_table_says_so() -> None:
    result = reproduce_result()
    result["analysis"]["published"] = None
    html = render(result)
    assert "The paper gives no table for this." in html
    assert len(table_of(html, "Measured here")) == 2


def test_one_study_has_a_card_and_nothing_to_compare() -> None:
    result = reproduce_result()
    result["analysis"]["studies"] = result["analysis"]["studies"][:1]
    result["analysis"]["comparison"] = None
    page = Page(render(result))
    assert charts(page) == set()
    assert topics(page) == {"published", "cards", "made"}


@pytest.mark.parametrize("kind", ["series", "reproduce"])
def test_a_result_with_nothing_but_its_kind_still_makes_a_page(kind: str) -> None:
    page = Page(render({"schema_version": 1, "kind": kind, "measurements": []}))
    assert "This result file carries no verdict." in page.text
    assert page.open == []


@pytest.mark.parametrize("make", [series_result, reproduce_result])
def test_names_of_models_stay_text(make: Make) -> None:
    evil = """<script>alert(1)</script>"><img src=x onerror='alert(2)'>$x_{$"""
    result = make()
    for study in result["analysis"]["models" if make is series_result else "studies"]:
        study |= {"name": evil, "folder": evil}
    plain, page = Page(render(make())), Page(render(result))
    assert {t for t, _ in page.tags} <= {t for t, _ in plain.tags}
    assert page.text.count(evil) > 5
    assert [x for x in page.attributes("href") if "<" in x or '"' in x] == []


@pytest.mark.parametrize(
    ("make", "break_it", "named"),
    [
        (series_result, lambda a: a["models"][1].pop("name"), "analysis.models[1]"),
        (
            series_result,
            lambda a: a["comparison"]["differences"][0].update(a=None),
            "analysis.comparison.differences[0]",
        ),
        (
            reproduce_result,
            lambda a: a["measured"]["rows"][0].pop(),
            "analysis.measured.rows[0]: given: ",
        ),
        (
            reproduce_result,
            lambda a: a["published"]["rows"][0].__setitem__(0, True),
            "analysis.published.rows[0][0]: given: True; allowed: a string, a number",
        ),
        (reproduce_result, lambda a: a.update(paper=3), "analysis.paper: given: 3"),
    ],
)
def test_a_wrong_result_is_refused_in_one_line_that_names_the_key(
    make: Make, break_it: Callable[[dict[str, Any]], object], named: str
) -> None:
    result = make()
    break_it(result["analysis"])
    with pytest.raises(StoreError) as caught:
        read(result)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_that_share_the_beginning_of_a_long_name_stay_apart() -> None:
    one, two = (f"an-organisation-with-a-long-name/and-a-model-of-size-{n}B-base" for n in (1, 7))
    assert report_text.middle(one, 48) != report_text.middle(two, 48)
    assert len(report_text.middle(one, 48)) == 48
    assert report_text.middle("short", 48) == "short"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "–"),
        ("–1 to 1", "–1 to 1"),
        (961, "961"),
        (49.76, "49.76"),
        (0.159, "0.159"),
        (-12.5, "−12.5"),
        (0, "0"),
        (0.123456789, "0.1235"),
        (10000, "10,000"),
        (Interval(0.5, 0.4, 0.6, 3), "0.50 (0.40 to 0.60)"),
    ],
)
def test_a_given_number_keeps_its_digits(given: Any, text: str) -> None:
    assert report_text.entry(given) == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Estimate(24.4, 8.6, 46.0), "24 (9 to 46)"),
        (Estimate(24.4), "24.4"),
        (Estimate(None, at_least=18.6), "more than 18.6"),
        (Estimate(None, low=8.63, at_least=27.4), "more than 27.4 (from 8.63, no upper limit)"),
        (Estimate(None, high=-20.1, at_most=-40.0), "less than −40 (up to −20.1, no lower limit)"),
        (Estimate(None), "–"),
    ],
)
def test_what_is_known_of_a_censored_value_is_said(found: Estimate, text: str) -> None:
    assert report_text.with_limits(found) == text


def test_settings_in_lists_of_objects_are_numbered_rows() -> None:
    assert report_text.flat({"models": [{"path": "a"}, {"path": "b"}], "doses": [1, 2]}) == [
        ("models.0.path", "a"),
        ("models.1.path", "b"),
        ("doses", "1 2"),
    ]


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for make in (series_result, reproduce_result):
        html = render(make())
        for table in re.findall(r'<table class="grid">.*?</table>', html, re.DOTALL):
            head, *rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
            wide = len(re.findall(r"<th\b", head))
            assert {len(re.findall(r"<t[hd]\b", row)) for row in rows} == {wide}
