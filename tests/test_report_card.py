"""The elasticity card as a page of its own."""

from __future__ import annotations

import html as entities
import json
import re
from pathlib import Path
from typing import Any

import pytest

from findings_fixture import full_audit
from models_fixture import series_result
from report_fixture import boost_result, demo_result
from report_page import Page, write
from springback.report import build, render_card
from springback.report.theme import DARK, LIGHT


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return full_audit()


@pytest.fixture(scope="module")
def html(result: dict[str, Any]) -> str:
    found = render_card(result)
    assert found is not None
    return found


def test_the_card_says_every_quantity_with_interval_finding_and_the_verdict(
    result: dict[str, Any], html: str
) -> None:
    card = result["analysis"]["card"]
    text = Page(html).text
    assert card["verdict"] in text
    assert Page(html).tags.count(("h1", {})) == 1
    assert f"<h1>{card['model']}</h1>" in html
    titles = [q["title"] for q in (*card["quantities"].values(), *card["pairs"].values())]
    assert len(titles) == 13 + 2
    for title in titles:
        assert title[1:] in text
    rows = re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
    assert len(rows) == (1 + 13) + (1 + 2)
    labels = {q["label"] for q in card["quantities"].values() if q["label"]}
    assert labels
    assert all(entities.escape(label, quote=False) in html for label in labels)
    assert "Noise floor of scoring" in text
    assert "3 seeds" in text


def test_the_card_is_one_file_that_loads_nothing_and_knows_dark_and_phone(html: str) -> None:
    page = Page(html)
    links = page.attributes("href", "src", "srcset", "xlink:href", "data", "action")
    assert {x for x in links if not x.startswith("#")} == {"data:,", "report.html", "result.json"}
    assert "http:" not in html
    assert "https:" not in html
    policy = [a["content"] for t, a in page.tags if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [
        a for t, a in page.tags if t == "meta"
    ]
    for colours in (LIGHT, DARK):
        assert all(f"--{role}: {colour};" in html for role, colour in colours.items())
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert "@media screen and (max-width: 30rem)" in html
    # A table wider than a phone scrolls inside its own box.
    tables = [i for i, (t, _) in enumerate(page.tags) if t == "table"]
    assert len(tables) == 2
    assert all(page.tags[i - 1][1].get("class") == "scroll" for i in tables)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {x[1:] for x in page.attributes("href") if x.startswith("#")} <= set(ids)
    assert set(page.attributes("aria-labelledby")) <= set(ids)


def test_build_writes_the_card_beside_the_report_that_links_to_it(
    tmp_path: Path, result: dict[str, Any], html: str
) -> None:
    path = build(write(tmp_path / "a", result))
    assert (path.parent / "card.html").read_text(encoding="utf-8") == html
    assert "card.html" in Page(path.read_text(encoding="utf-8")).attributes("href")
    for name, other in (("b", boost_result()), ("s", series_result()), ("d", demo_result())):
        path = build(write(tmp_path / name, other))
        has = "card" in other["analysis"].get("audit", {})
        assert (path.parent / "card.html").exists() is has
        assert ("card.html" in path.read_text(encoding="utf-8")) is has
        assert (render_card(other) is not None) is has


def test_what_a_result_file_holds_stays_text(result: dict[str, Any]) -> None:
    evil = """<script>alert(1)</script>"><img src=x onerror='alert(2)'>{{ 7*7 }}"""
    changed = json.loads(json.dumps(result))
    card = changed["analysis"]["card"]
    card["model"] = card["verdict"] = card["quantities"]["gain"]["title"] = evil
    card["quantities"]["gain"]["label"] = evil
    found = render_card(changed)
    assert found is not None
    tags = {t for t, _ in Page(found).tags}
    assert "script" not in tags
    assert "img" not in tags
    assert "{{ 7*7 }}" in found


def test_a_card_of_one_seed_says_why_there_are_no_intervals() -> None:
    found = render_card(full_audit(1))
    assert found is not None
    assert "1 seed" in Page(found).text
    assert "one seed" in Page(found).text.lower()
