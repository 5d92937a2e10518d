"""The report of an audit with every finding: card, doses, phases, attackers, opposite order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from findings_fixture import full_audit
from models_fixture import reproduce_result, series_result
from report_fixture import audit_result, boost_result
from report_page import Page, charts, outward, topics, write
from springback.errors import StoreError
from springback.report import build, drawing, render
from springback.report.page import chapters
from springback.results.schema import read

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
NEW_KEYS = ("doses_to_undo", "phases", "attackers", "realign", "symmetry", "card")
NEW_CHARTS = {
    "dose-all",
    "dose-kl",
    "dose-reverse-kl",
    "attackers-share",
    "attackers-dose",
    "attackers-mixed",
    "realign-gain",
    "symmetry-margin",
    "symmetry-change",
}
NEW_TOPICS = {"card", "phases", "attackers", "realign", "symmetry"}


@pytest.fixture(scope="module")
def html() -> str:
    return render(full_audit())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def table_of(html: str, label: str) -> list[list[str]]:
    """Rows of the table with that label; a cell's note follows its text after a bar."""
    found = re.search(rf'aria-label="{re.escape(label)}">\s*<table.*?</table>', html, re.DOTALL)
    assert found is not None, label
    rows = re.findall(r"<tr>(.*?)</tr>", found[0].split("<tbody>")[1], re.DOTALL)
    cells = [re.findall(r"<(?:th|td)\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    plain = [[re.sub(r"<small>", "|", cell) for cell in row] for row in cells]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in plain]


def numbers_of(html: str, chart: str) -> list[list[str]]:
    return table_of(html, f"Numbers of the chart {chart}")


def test_every_finding_has_its_section_and_its_charts_on_the_page_and_as_files(
    tmp_path: Path,
) -> None:
    page = Page(build(write(tmp_path, full_audit())).read_text(encoding="utf-8"))
    old = Page(render(audit_result()))
    assert topics(page) - topics(old) == NEW_TOPICS
    assert charts(page) - charts(old) == NEW_CHARTS
    written = {p.stem for p in (tmp_path / "charts").glob("*.svg")}
    assert written == charts(page)
    assert {p.stem for p in (tmp_path / "charts").glob("*.png")} == written


def test_nothing_outside_the_folder_is_referred_to(html: str, page: Page) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert outward(page) == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_the_card_shows_value_interval_unit_and_finding(html: str) -> None:
    rows = {row[0]: row[1:] for row in table_of(html, "Elasticity card")}
    # Gains 0.4, 0.5 and 0.6: 0.5 with 4.303 * 0.1 / sqrt(3) = 0.25 on either side.
    assert rows["Margin gained by aligning"] == ["0.50", "0.25 to 0.75", "nats/token", "aligned"]
    # 1.6 of the gain in 64 examples, alike in every seed.
    assert rows["Taken back at the largest dose"][:3] == ["160", "–", "% of the gain"]
    # A straight fall: half of the gain is lost at 64 * 0.5 / 1.6.
    assert rows["Half-life dose: half of the gain lost"][0] == "20"
    assert len(rows) == len(full_audit()["analysis"]["card"]["quantities"])


def test_a_censored_quantity_says_that_it_lies_above() -> None:
    result = full_audit()
    quantity = result["analysis"]["card"]["quantities"]["half_life_dose"]
    quantity |= {"value": None, "at_least": 250.6, "low": 228.0, "high": None}
    quantity |= {"label": "censored in 1 of 3 seeds", "reason": "some seeds did not reach it"}
    rows = {row[0]: row[1:] for row in table_of(render(result), "Elasticity card")}
    found = rows["Half-life dose: half of the gain lost"]
    assert found[:2] == ["more than 251", "from 228, no upper limit"]
    assert found[3] == "censored in 1 of 3 seeds|some seeds did not reach it"


def test_the_card_stands_first_and_in_place_of_the_key_numbers(html: str) -> None:
    order = re.findall(r'<section class="topic" id="([^"]+)"', html)
    assert order[0] == "card"
    assert 'class="facts"' not in html
    assert 'class="facts"' in render(audit_result())


def test_slopes_are_told_by_the_card_or_by_a_note_and_not_by_both(page: Page) -> None:
    said = "Each doubling of alignment changes the fall by"
    assert said not in page.text
    assert said in Page(render(audit_result())).text
    assert "beyond proportional decay, fitted to the curves at one rate, by +" in page.text


def test_doses_to_undo_are_the_files_with_their_intervals(html: str) -> None:
    # Half of 400, 416 and 432: 208, with 4.303 * 8 / sqrt(3) = 20 on either side.
    half = numbers_of(html, "Dose that undoes half")
    assert half[0] == ["64", "208 (188 to 228)", "208 examples", "200, 208, 216"]
    # All: 240, 256, and 272, which lies beyond the largest dose, 256.  So at least
    # (240 + 256 + 256) / 3, from which 4.303 * 5.33 leads down to 228.
    everything = numbers_of(html, "Dose that undoes all")
    assert everything[1][1] == "more than 251 (from 228, no upper limit)"
    assert everything[0][1] == "more than 256"
    assert "censored in 3 of 3 seeds" in everything[0][2]
    # The trend, which stands in the file beside the doses.
    trend = full_audit()["analysis"]["doses_to_undo"]["all"]["trend"]
    assert everything[-1][0] == "change for each doubling"
    assert everything[-1][2] == trend["label"] == "falls"


def test_a_censored_dose_is_an_open_triangle(html: str) -> None:
    hollow = r"<use [^>]*fill: var\(--card, #ffffff\); stroke: var\(--s2, #c96f1e\)"
    for chart, beyond in (("dose-half", 0), ("dose-all", 2), ("dose-kl", 2)):
        svg = html.partition(f'<figure id="{chart}"')[2].partition("</svg>")[0]
        assert svg.count(">lies beyond</text>") == (1 if beyond else 0), chart
        # Each of them, and the one in the legend.
        assert len(re.findall(hollow, svg)) == (beyond + 1 if beyond else 0), chart


def test_doses_that_are_defined_nowhere_have_no_chart_and_old_files_keep_theirs() -> None:
    result = full_audit()
    for at in result["analysis"]["doses_to_undo"]["half"]["at"]:
        at |= {"mean": None, "median": None, "words": "not defined: alignment gained nothing"}
    assert "dose-half" not in charts(Page(render(result)))
    del result["analysis"]["doses_to_undo"]
    html = render(result)
    # The dose of the mean curve then, as in the file.
    assert numbers_of(html, "Dose that undoes half")[1] == ["128", "121"]


def test_phases_are_told_in_words_with_breakpoint_and_slopes(html: str) -> None:
    rows = table_of(html, "Phases of the fall")
    assert [row[0] for row in rows] == ["64", "128", "256"]
    # 0.003 a dose up to 96, then 0.0005: 0.3 and 0.05 per 100 examples.
    assert rows[0][1] == "two phases|falls fast up to 96 examples, then slowly"
    assert rows[0][2].startswith("96")
    assert rows[0][3:5] == ["−0.3", "−0.05"]


def test_too_few_doses_for_phases_are_one_line_and_no_table() -> None:
    result = full_audit()
    for branch in result["analysis"]["phases"]["branches"].values():
        branch |= {"label": "too few doses", "aicc": {}, "breakpoint": None, "slopes": None}
    page = Page(render(result))
    assert "Not judged: too few doses." in page.text
    assert "Phases of the fall" not in page.attributes("aria-label")


def test_the_worst_attacker_stands_beside_the_median_with_name_and_number(html: str) -> None:
    share = numbers_of(html, "Worst beside median: share lost")
    # Shares 0.8, 0.9, 1.0 and half of each.
    assert share[0] == ["worst", "100", "learning rate 3e-05, seed 2"]
    assert share[1][:2] == ["median", "65"]  # between 0.5 and 0.8
    # Medians by seed 0.6, 0.675 and 0.75: 67.5, with 4.303 * 7.5 / sqrt(3) = 19 beside it.
    assert share[2][:2] == ["typical", "68 (49 to 86)"]
    assert "Each of 6 attackers" in html
    dose = numbers_of(html, "Worst beside median: dose to undo")
    assert [row[1] for row in dose[:2]] == ["160", "more than 256"]


def test_mixed_perturbations_stand_beside_the_studys_own(html: str) -> None:
    rows = numbers_of(html, "Mixed perturbations")
    own = full_audit()["analysis"]["rebound"]["fall"][-1]["mean"]
    assert rows[0][0] == "opposite rows only, as the study"
    assert rows[0][1].startswith(f"{own:.4f}")
    assert rows[1] == ["50 % benign", "0.061 (0.051 to 0.071)", "47.0 (46.0 to 48.0)"]


def test_the_second_alignment_stands_beside_the_first_at_equal_counts(html: str) -> None:
    rows = numbers_of(html, "First and second alignment")
    # 0.1 and 0.16 in 64 examples: per 100 of them 0.156 and 0.25.
    assert rows[0] == ["64", "0.156", "0.25", "+0.0937"]
    assert rows[2][1].startswith("0.1602 (")  # the mean of 0.40, 0.41 and 0.42 in 256
    # The file's own number of examples between equal heights.
    examples = full_audit()["analysis"]["realign"]["examples"]["mean"]
    assert f"second minus first: −{abs(examples):.0f} (" in html


def test_both_orders_stand_beside_each_other(html: str) -> None:
    here = full_audit()["analysis"]["rebound"]["probes"]["margin"]["curves"][0]["mean"][0]
    there = full_audit()["analysis"]["symmetry"]["probes"]["margin"]["curves"][0]["mean"][0]
    rows = numbers_of(html, "Both orders")
    assert rows[0][1].startswith(f"{here:.3f} (")
    assert rows[0][4].startswith(f"{there:.3f} (")
    change = numbers_of(html, "Gain and fall in both orders")
    # 0.07 here; the fixture makes nine tenths of it there.
    assert change[0][1:3] == ["0.0700 (0.0620 to 0.0780)", "0.0630 (0.0558 to 0.0702)"]


def test_resistance_by_pair_carries_its_test(html: str) -> None:
    rows = table_of(html, "Resistance by pair")
    pairs = full_audit()["analysis"]["card"]["pairs"]
    assert [row[0].partition("|")[0] for row in rows] == list(pairs)
    assert rows[0][3] == f"resists|{pairs['1-2']['reason']}"


def test_many_questions_are_listed_and_their_sentences_unfold() -> None:
    result = full_audit()
    for part in result["verdict"]["parts"]:
        part["label"] = "shown"
    html = render(result)
    assert html.count("<details>\n    <summary><span>") == 11  # three and the fixture's eight
    assert "Sentence 7." in html
    assert "<article>" in render(audit_result())
    assert "<article>" not in html


@pytest.mark.parametrize("key", NEW_KEYS)
def test_a_finding_that_is_missing_or_null_leaves_no_trace(key: str, page: Page) -> None:
    result = full_audit()
    result["analysis"][key] = None
    null = read(result)
    gone = topics(page) - topics(Page(render(result)))
    assert gone == ({key} if key in NEW_TOPICS else set())
    del result["analysis"][key]
    audit = read(result).audit
    assert audit is not None
    assert null.audit == replace(audit, silent=frozenset({key}))


@pytest.mark.parametrize("name", ["demo", "imdb-audit"])
def test_results_of_older_versions_still_render(name: str) -> None:
    result = json.loads((RESULTS / name / "result.json").read_text(encoding="utf-8"))
    page = Page(render(result))
    analysis = result["analysis"]["audit"] if name == "demo" else result["analysis"]
    if not set(NEW_KEYS) & set(analysis):
        assert not topics(page) & NEW_TOPICS
        assert not charts(page) & NEW_CHARTS
        assert "Dose that undoes half" in page.text
    assert page.open == []
    assert "rebound-margin" in charts(page)


def test_one_seed_has_no_whiskers_and_says_why() -> None:
    html = render(full_audit(seeds=1))
    assert numbers_of(html, "Dose that undoes half")[0][1:] == ["200", "200 examples", "200"]
    row = numbers_of(html, "First and second alignment")[0]
    assert row == ["64", "0.156", "0.25", "+0.0937"]
    assert "No intervals: there is one value each." in html
    rows = {row[0]: row[1:] for row in table_of(html, "Elasticity card")}
    assert rows["Margin gained by aligning"] == ["0.4", "–", "nats/token", "one seed, no interval"]


def test_unknown_keys_of_findings_change_nothing() -> None:
    more = full_audit()
    analysis = more["analysis"]
    analysis["doses_to_undo"]["later"] = {"what": 1}
    analysis["phases"]["branches"]["64"]["later"] = 1
    analysis["attackers"]["later"] = []
    analysis["realign"]["counts"][0]["later"] = "x"
    analysis["card"]["later"] = {}
    analysis["card"]["quantities"]["gain"]["later"] = 1
    assert read(more) == read(full_audit())


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda a: a["card"].update(schema_version=2), "analysis.card.schema_version: given: 2"),
        (lambda a: a["card"].pop("schema_version"), "key 'schema_version'"),
        (
            lambda a: a["card"]["quantities"]["gain"].update(value="much"),
            "analysis.card.quantities.gain.value: given: 'much'",
        ),
        (
            lambda a: a["doses_to_undo"]["half"]["at"].append("x"),
            "analysis.doses_to_undo.half.at[3]: given: 'x'; allowed: an object",
        ),
        (
            lambda a: a["phases"]["branches"].update(many={}),
            "analysis.phases.branches.many: given: 'many'; allowed: a number of examples",
        ),
        (lambda a: a["attackers"]["mixed"].append({}), "analysis.attackers.mixed[2]"),
        (lambda a: a["realign"].update(counts=3), "analysis.realign.counts: given: 3"),
        (lambda a: a["symmetry"].update(n_pos=[0.5]), "analysis.symmetry.n_pos[0]: given: 0.5"),
    ],
)
def test_a_wrong_finding_is_refused_in_one_line_that_names_the_key(
    break_it: Callable[[dict[str, Any]], object], named: str
) -> None:
    result = full_audit()
    break_it(result["analysis"])
    with pytest.raises(StoreError) as caught:
        read(result)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [full_audit, lambda: full_audit(1), boost_result, series_result, reproduce_result]
)
def test_no_text_of_a_chart_leaves_its_panel(make: Callable[[], dict[str, Any]]) -> None:
    """Measured in the bundled font, which is wider than those of most systems."""
    result = read(make())
    drawn = [c for chapter in chapters(result) for s in chapter.sections for c in s.charts]
    assert len(drawn) > 3
    for chart in drawn:
        with drawing.style(chart.name):
            FigureCanvasAgg(chart.figure)
            box = chart.figure.get_tightbbox()
            height = chart.figure.get_figheight()
        left, right = 72 * box.x0, 72 * box.x1
        assert left >= drawing.PAD - 1, chart.name
        assert right <= drawing.FULL - drawing.PAD + 1, chart.name
        assert box.y0 >= 0, chart.name
        assert box.y1 <= height, chart.name


def test_what_an_audit_writes_is_shown(tiny_llama: Path, tmp_path: Path) -> None:
    """The real job on a tiny model: no key of its findings has another form than read here."""
    from springback.jobs.audit.job import audit
    from springback.jobs.audit.settings import AuditSettings

    benign = tmp_path / "benign.jsonl"
    benign.write_text("".join(f'{{"text": "the sum of {n} and 1"}}\n' for n in range(40)))
    settings = AuditSettings(
        model=str(tiny_llama),
        benign=str(benign),
        n_pos=(4, 8),
        controls=(),
        doses=(4, 8),
        seeds=(0,),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=4,
        probes=("margin", "kl", "reverse_kl", "bits_per_byte"),
        precision="float32",
        experiments=("rebound", "resistance", "symmetry", "realign"),
        attack_learning_rates=(3e-3,),
        mix=(0.5,),
    )
    result = audit(settings, tmp_path / "out")
    html = build(result.folder).read_text(encoding="utf-8")
    page = Page(html)
    assert topics(page) >= NEW_TOPICS | {"rebound", "resistance-pairs", "dose"}
    # KL is never small again here: all censored, which is drawn; the others hang on the model.
    assert charts(page) >= {"dose-kl", "dose-reverse-kl", "rebound-reverse-kl", "realign-gain"}
    assert charts(page) >= {"symmetry-margin", "symmetry-change", "attackers-mixed"}
    gain = result.data["analysis"]["card"]["quantities"]["gain"]["value"]
    shown = table_of(html, "Elasticity card")[0][1]
    assert float(shown.replace("−", "-")) == pytest.approx(gain, abs=0.05 * abs(gain) + 0.05)
    assert "One phase or two (aligned on 8)?" in page.text
    assert outward(page) == []
