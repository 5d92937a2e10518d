"""The report: one page and its pictures out of one result file."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from report_fixture import CHARTS, audit_result, boost_result, demo_result
from report_page import Page, topics, write
from springback.errors import StoreError
from springback.report import build, render

AUDIT_CHARTS = {
    "rebound-margin",
    "rebound-kl",
    "rebound-bits-per-byte",
    "rebound-sentiment",
    "dose-share",
    "dose-half",
    "alignment-fall",
    "alignment-share",
    "resistance",
    "resistance-excess",
}
BOOST_CHARTS = {"methods", "search-steps", "search-mu", "search-lambda", "search-cd-lambda"}


@pytest.fixture(scope="module")
def audit_page() -> Page:
    return Page(render(audit_result()))


@pytest.fixture(scope="module")
def boost_page() -> Page:
    return Page(render(boost_result()))


@pytest.mark.parametrize(
    ("make", "charts"),
    [
        (audit_result, AUDIT_CHARTS),
        (boost_result, BOOST_CHARTS),
        (demo_result, AUDIT_CHARTS | BOOST_CHARTS),
    ],
)
def test_build_writes_the_page_and_every_chart_as_svg_and_png(
    tmp_path: Path, make: Callable[[], dict[str, Any]], charts: set[str]
) -> None:
    path = build(write(tmp_path, make()))
    assert path == tmp_path / "report.html"
    html = path.read_text(encoding="utf-8")
    assert set(re.findall(r'<figure id="([^"]+)" class="chart">\s*<h\d>', html)) == charts
    written = {p.name for p in (tmp_path / "charts").iterdir()}
    assert written == {f"{c}.{ending}" for c in charts for ending in ("svg", "png")}
    for chart in charts:
        root = ET.parse(tmp_path / "charts" / f"{chart}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        head = (tmp_path / "charts" / f"{chart}.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        # 420 px and 14 px of margin on either side, at three pixels a unit.
        assert int.from_bytes(head[16:20], "big") == 3 * (420 + 28)


def test_the_time_of_a_resumed_job_is_not_told_as_its_whole(boost_page: Page) -> None:
    """492 s of which nothing was read; the same with runs that an earlier call had made."""
    told = "8 min 12 s"
    assert told in boost_page.text
    for runs, shown in (({"made": 5, "read": 0}, True), ({"made": 1, "read": 4}, False)):
        result = boost_result()
        result["provenance"]["runs"] = runs
        assert (told in Page(render(result)).text) is shown


def test_the_page_refers_to_nothing_outside_its_folder(audit_page: Page) -> None:
    html = render(audit_result())
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    links = audit_page.attributes("href", "src", "srcset", "xlink:href", "data", "action")
    assert "result.json" in links
    outward = [
        x
        for x in links
        if not re.fullmatch(r"#.+|data:,|result\.json|card\.html|charts/[\w.-]+", x)
    ]
    assert outward == []
    policy = [a["content"] for t, a in audit_page.tags if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_ids_are_unique_and_every_reference_finds_one() -> None:
    page = Page(render(demo_result()))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = [x[1:] for x in page.attributes("href") if x.startswith("#")]
    used += page.attributes("aria-labelledby")
    clips = " ".join(value or "" for _, a in page.tags for value in a.values())
    used += re.findall(r"url\(#([^)]+)\)", clips)
    assert len(used) > 100  # markers and clip paths among them
    assert set(used) <= set(ids)


def replace_strings(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {k: replace_strings(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [replace_strings(v, text) for v in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("make", [audit_result, boost_result])
def test_strings_of_the_result_stay_text(make: Callable[[], dict[str, Any]]) -> None:
    evil = """<script>alert(1)</script>"><img src=x onerror='alert(2)'>$x_{$ {{ 7*7 }} ]]> &lt;"""
    honest, plain = make(), Page(render(make()))
    result = replace_strings(honest, evil) | {"kind": honest["kind"], "schema_version": 1}
    page = Page(render(result))
    assert {t for t, _ in page.tags} <= {t for t, _ in plain.tags}
    assert {n for _, a in page.tags for n in a} <= {n for _, a in plain.tags for n in a}
    # As the verdict's title, and as the model's path or a setting.
    assert page.text.count(" ".join(evil.split())) > 5


def test_keys_of_the_result_stay_text() -> None:
    result = audit_result()
    result["inputs"]["settings"]["<script>alert(1)</script>"] = 1
    probes = result["analysis"]["rebound"]["probes"]
    probes['"><script>alert(1)</script>'] = probes.pop("kl")
    page = Page(render(result))
    assert "script" not in {t for t, _ in page.tags}
    assert "settings.<script>alert(1)</script>" in page.text


def test_characters_that_no_file_may_hold_are_replaced(tmp_path: Path) -> None:
    result = audit_result()
    result["verdict"]["label"] = "a\x00b\ud800c"
    result["analysis"]["rebound"]["probes"]["margin"]["title"] = "\x08 漢字 \udfff"
    html = build(write(tmp_path, result)).read_text(encoding="utf-8")
    assert "A\ufffdb\ufffdc" in html
    ET.parse(tmp_path / "charts" / "rebound-margin.svg")


def test_the_same_result_gives_the_same_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", boost_result()), write(tmp_path / "two", boost_result())
    build(one)
    CHARTS.clear()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        build(two)
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
    assert len(names) == 2 + 2 * len(BOOST_CHARTS)
    assert [n for n in names if (one / n).read_bytes() != (two / n).read_bytes()] == []


def test_a_rebuild_drops_old_charts_and_keeps_what_is_not_ours(tmp_path: Path) -> None:
    write(tmp_path, boost_result())
    charts = tmp_path / "charts"
    (charts / "folder").mkdir(parents=True)
    (charts / "folder" / "a.txt").write_text("kept")
    (charts / "notes.png").write_text("kept")
    (charts / "rebound-kl.png").write_text("of an older result")
    build(tmp_path)
    assert (charts / "notes.png").read_text() == "kept"
    assert (charts / "folder" / "a.txt").read_text() == "kept"
    assert not (charts / "rebound-kl.png").exists()
    assert (charts / "methods.png").exists()


def test_every_colour_in_the_page_follows_the_theme() -> None:
    html = render(demo_result())
    drawings = "".join(re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL))
    assert drawings.count("var(--s1, #") > 20
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\))", re.sub(r'"#[^"]*"', "", drawings)) == []


def only_margin(seeds: int) -> str:
    """The page of an audit that measured nothing but the margin."""
    result = audit_result(seeds)
    result["analysis"]["resistance"] = None
    probes = result["analysis"]["rebound"]["probes"]
    result["analysis"]["rebound"]["probes"] = {"margin": probes["margin"]}
    return render(result)


def test_three_seeds_have_bands_and_one_seed_says_why_it_has_none() -> None:
    several, single = only_margin(seeds=3), only_margin(seeds=1)
    assert several.count("fill-opacity: 0.16") == 6  # one for each n_pos: the margin, its share
    assert "Bands are 95 % intervals over 3 seeds." in several
    assert "There is one seed" not in several
    assert single.count("fill-opacity: 0.16") == 0
    assert "There is one seed, so no band is drawn." in single


def test_probes_of_similar_names_have_charts_of_their_own() -> None:
    result = audit_result()
    probe = result["analysis"]["rebound"]["probes"]["kl"]
    result["analysis"]["rebound"]["probes"] = dict.fromkeys(["a b", "a_b", "a-b"], probe)
    names = re.findall(r'<figure id="(rebound[^"]+)"', render(result))
    assert names == ["rebound-ax20b", "rebound-a-b", "rebound-ax2db"]


def test_key_numbers_of_an_audit_are_those_of_the_largest_alignment(audit_page: Page) -> None:
    # 0.035 * log2(256 / 16) = 0.14, and 0.008 on either side of it.
    gain = "Gained by 256 examples of alignment 0.1400 nats/token 0.1320 to 0.1480 (95 %)"
    assert gain in audit_page.text
    assert "Dose that undoes half 88 examples" in audit_page.text
    # 2-3 has the higher inverse loss; 1-2 and 1-3 the lower, raw and in excess.
    assert "Going back is easier in 2 of 3 pairs" in audit_page.text


def test_going_back_is_not_easier_where_only_the_raw_loss_says_so() -> None:
    result = audit_result()
    result["analysis"]["resistance"]["pairs"][0]["excess_inverse"]["mean"] = 9.0
    assert "Going back is easier in 1 of 3 pairs" in Page(render(result)).text


def test_the_fall_names_its_dose_where_the_result_does() -> None:
    result = audit_result()
    result["analysis"]["rebound"]["fall_dose"] = 256
    assert "Lost again over 256 examples of the opposite" in Page(render(result)).text


def test_the_method_table_has_difference_interval_and_verdict(boost_page: Page) -> None:
    # 0.442 - 0.43 = 1.2 points, 1.8 on either side; NLL -0.2 * 0.012 = -0.0024.
    row = "EpiCoDe undecided +1.2 −0.6 to +3.0 44.2 40.8 to 47.6 −0.0024 −0.0054 to +0.0006"
    assert row in boost_page.text
    assert "ME only gain +2.2 +0.4 to +4.0" in boost_page.text
    assert "a guess would get 25 %." in boost_page.text


def test_the_chosen_candidate_is_marked_in_words_and_in_the_drawing() -> None:
    result = boost_result()
    some = render(result)
    for tried in result["analysis"]["search"].values():
        for candidate in tried:
            candidate["chosen"] = False
    none = render(result)
    # In the legend of each of the three searches, and as the row's name in their numbers.
    assert [page.count(">chosen</text>") for page in (some, none)] == [3, 0]
    assert [page.count(" (chosen)</th>") for page in (some, none)] == [3, 0]
    assert "0.2 (chosen)</th>" in some


def test_each_chart_has_a_text_in_place_of_the_picture(audit_page: Page) -> None:
    labels = [a["aria-label"] or "" for t, a in audit_page.tags if a.get("role") == "img"]
    assert len(labels) == len(AUDIT_CHARTS)
    # The margin of 256: -0.021 + 0.14 = 0.119 before the first dose.
    assert any("aligned on 256: 0.119 at 0 examples" in label for label in labels)


def test_resistance_on_rows_of_the_slices_is_told_as_the_variant() -> None:
    result = audit_result()
    usual = "inverse the later model on texts of the earlier one"
    variant = "rows of the earlier one's, with equal settings: the variant"
    text = Page(render(result)).text
    assert usual in text
    assert variant not in text
    result["analysis"]["resistance"]["data"] = "slices"
    text = Page(render(result)).text
    assert variant in text
    assert usual not in text


@pytest.mark.parametrize(
    ("make", "key", "gone"),
    [
        (audit_result, "rebound", {"rebound", "dose", "more-alignment"}),
        (audit_result, "resistance", {"resistance-pairs"}),
        (boost_result, "search", {"search"}),
        (boost_result, "methods", {"comparison"}),
    ],
)
def test_a_section_that_is_missing_is_left_out_and_one_that_is_null_says_so(
    make: Callable[[], dict[str, Any]], key: str, gone: set[str]
) -> None:
    def told(result: dict[str, Any]) -> tuple[set[str], str]:
        page = Page(render(result))
        return topics(page), page.text

    full, text = told(make())
    assert gone <= full
    assert "did not measure" not in text
    result = make()
    del result["analysis"][key]
    without, text = told(result)
    assert without == full - gone
    assert "did not measure" not in text
    result["analysis"][key] = None
    _, text = told(result)
    assert "This run did not measure it." in text


def test_a_demo_without_one_of_its_jobs_says_so() -> None:
    result = demo_result()
    result["analysis"]["boost"] = None
    assert "The boost was not run." in Page(render(result)).text


@pytest.mark.parametrize("kind", ["audit", "boost", "demo"])
def test_a_result_with_nothing_but_its_kind_still_makes_a_page(kind: str) -> None:
    page = Page(render({"schema_version": 1, "kind": kind}))
    assert "This result file carries no verdict." in page.text
    assert page.open == []


def test_unknown_keys_change_nothing() -> None:
    result = audit_result()
    more = copy.deepcopy(result)
    more["later"] = {"a": 1}
    more["analysis"]["later"] = [1, 2]
    more["analysis"]["rebound"]["later"] = "x"
    more["analysis"]["rebound"]["probes"]["margin"]["curves"][0]["later"] = None
    more["verdict"]["later"] = 1
    assert render(more) == render(result)


def test_a_value_that_is_not_a_number_leaves_a_gap() -> None:
    result = audit_result()
    curve = result["analysis"]["rebound"]["probes"]["margin"]["curves"][0]
    curve["mean"][2] = curve["low"][2] = curve["high"][2] = None
    rows = re.findall(r'<th scope="row">32</th><td>([^<]*)</td>', render(result))
    assert rows[0] == "–"


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda r: r.pop("schema_version"), "not a springback result"),
        (lambda r: r.update(schema_version=2), "schema_version 2; allowed: 1"),
        (lambda r: r.update(kind="tea"), "'tea'; allowed: audit, boost, check, demo"),
        (
            lambda r: r["analysis"]["rebound"]["gain"].append("x"),
            "analysis.rebound.gain[3]: given: 'x'; allowed: an object",
        ),
        (
            lambda r: r["analysis"]["rebound"]["probes"]["kl"]["curves"][1]["mean"].pop(),
            "analysis.rebound.probes.kl.curves[1].mean",
        ),
        (
            lambda r: r["analysis"]["resistance"]["pairs"][0]["forward"].update(mean="low"),
            "analysis.resistance.pairs[0].forward.mean: given: 'low'; allowed: a number or null",
        ),
        (
            lambda r: r["analysis"]["rebound"]["n_pos"].append(1.5),
            "analysis.rebound.n_pos[3]: given: 1.5; allowed: a whole number",
        ),
        (lambda r: r.update(verdict={"label": 3}), "verdict.label: given: 3; allowed: a string"),
    ],
)
def test_a_wrong_result_is_refused_in_one_line_that_names_the_key(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], object], named: str
) -> None:
    result = audit_result()
    break_it(result)
    with pytest.raises(StoreError) as caught:
        build(write(tmp_path, result))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no result\.json in .*springback audit.*name such"):
        build(tmp_path)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot read"):
        build(tmp_path)


def test_importing_the_report_loads_no_drawing_library_and_drawing_no_pyplot() -> None:
    code = (
        "import sys, springback.report as r\n"
        "heavy = {'matplotlib', 'jinja2', 'numpy', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from report_fixture import boost_result\n"
        "r.render(boost_result())\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True False"]
