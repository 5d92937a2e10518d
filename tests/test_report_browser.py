"""The report in a real browser: headless Chromium, driven by Selenium.

Skipped, with the reason, where Chromium, its driver or Selenium is not installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from findings_fixture import full_audit
from models_fixture import reproduce_result, series_result
from report_fixture import boost_result, demo_result
from springback.report import build
from springback.report.theme import DARK, LIGHT, SERIES
from springback.results.texts import Answer, Asked, write_texts

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.e2e

#: Kind of page -> its result file, and how many charts it has.
PAGES: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "demo": (demo_result, 15),  # ten of the audit and five of the boost
    "audit": (full_audit, 19),  # those ten and nine of the further findings
    "card": (full_audit, 0),  # the audit's card alone
    "series": (series_result, 5),
    "reproduce": (reproduce_result, 5),
}
FLAGS = (
    "--headless",
    "--no-sandbox",  # needed to run as root, as in a container; the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        missing = "chromium" if chromium is None else "chromedriver"
        pytest.skip(f"{missing} is not installed (Debian: apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths given: Selenium then looks for nothing to download.
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, (make, _) in PAGES.items():
        out = tmp_path_factory.mktemp(kind)
        (out / "result.json").write_text(json.dumps(make()), encoding="utf-8")
        made[kind] = build(out)
        if kind == "card":
            made[kind] = out / "card.html"
    return made


@pytest.fixture(scope="module")
def page(pages: dict[str, Path]) -> Path:
    return pages["demo"]


def log_of(browser: Chrome, name: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = browser.get_log(name)  # type: ignore[no-untyped-call]
    return lines


def show(browser: Chrome, page: Path, width: int = 1200, scheme: str = "light") -> None:
    """Load ``page`` with nothing in the logs yet, ``width`` CSS pixels wide."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    for log in ("browser", "performance"):
        log_of(browser, log)  # reading a log empties it
    browser.get(page.as_uri())


def requests(browser: Chrome) -> list[str]:
    """Addresses that the browser asked for since the page was opened."""
    messages = [json.loads(line["message"])["message"] for line in log_of(browser, "performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def run(browser: Chrome, script: str, *given: Any) -> Any:
    return browser.execute_script(script, *given)


@pytest.mark.parametrize("kind", PAGES)
def test_it_loads_one_file_and_complains_about_nothing(
    browser: Chrome, pages: dict[str, Path], kind: str
) -> None:
    page = pages[kind]
    show(browser, page)
    assert [url for url in requests(browser) if not url.startswith("data:")] == [page.as_uri()]
    assert log_of(browser, "browser") == []


def test_the_check_sees_a_foreign_request_and_a_complaint(
    browser: Chrome, page: Path, tmp_path: Path
) -> None:
    """The two lists above would not be empty by accident."""
    html = page.read_text(encoding="utf-8")
    foreign = (tmp_path / "foreign.png").as_uri()
    blocked = tmp_path / "blocked.html"
    blocked.write_text(html + f'<img src="{foreign}"><script>1</script>', encoding="utf-8")
    show(browser, blocked)
    complaints = " ".join(line["message"] for line in log_of(browser, "browser"))
    assert "Content Security Policy" in complaints
    allowed = tmp_path / "allowed.html"
    allowed.write_text(f'<img src="{foreign}">', encoding="utf-8")
    show(browser, allowed)
    assert foreign in requests(browser)


@pytest.mark.parametrize("kind", PAGES)
def test_every_chart_has_drawn(browser: Chrome, pages: dict[str, Path], kind: str) -> None:
    show(browser, pages[kind])
    charts = run(
        browser,
        """const colours = arguments[0];
        return [...document.querySelectorAll('figure.chart > svg')].map(svg => {
            const box = svg.getBoundingClientRect();
            const drawn = [...svg.querySelectorAll('path, use')].filter(path => {
                const style = getComputedStyle(path), own = path.getBoundingClientRect();
                const inked = style.stroke !== 'none' || style.fill !== 'none';
                return inked && (own.width > 0 || own.height > 0) &&
                    own.right > box.left && own.left < box.right &&
                    own.bottom > box.top && own.top < box.bottom;
            });
            const texts = [...svg.querySelectorAll('text')];
            return {
                name: svg.parentElement.id, width: box.width, height: box.height,
                drawn: drawn.length,
                series: drawn.filter(path => {
                    const style = getComputedStyle(path);
                    return colours.includes(style.stroke) || colours.includes(style.fill);
                }).length,
                outside: texts.filter(text => {
                    const own = text.getBoundingClientRect();
                    return own.width === 0 || own.left < box.left - 1 ||
                        own.right > box.right + 1 || own.top < box.top - 1 ||
                        own.bottom > box.bottom + 1;
                }).map(text => text.textContent),
                label: svg.getAttribute('aria-label'),
            };
        });""",
        [rgb(LIGHT[role]) for role in SERIES],
    )
    assert len(charts) == PAGES[kind][1]
    for chart in charts:
        assert chart["width"] > 300, chart
        assert chart["height"] > 100, chart
        assert chart["drawn"] > 8, chart  # grid, axis, ticks
        assert chart["series"] > 0, chart
        assert chart["outside"] == [], chart
        assert len(chart["label"]) > 40, chart


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("width", [1200, 768, 360, 320])
def test_nothing_overflows_sideways(
    browser: Chrome, pages: dict[str, Path], kind: str, width: int
) -> None:
    show(browser, pages[kind], width)
    run(browser, "document.querySelectorAll('details').forEach(d => { d.open = true; });")
    assert run(browser, "return document.documentElement.scrollWidth") <= width
    wide = run(
        browser,
        """return [...document.querySelectorAll('body *')].filter(e =>
            !e.closest('.scroll') && !e.closest('.skip') &&
            e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map(e => e.tagName + '.' + e.className);""",
    )
    assert wide == []


def test_a_wide_table_scrolls_inside_its_own_box(browser: Chrome, page: Path) -> None:
    show(browser, page, 360)
    inside, box = run(
        browser,
        """const box = document.querySelector('table.grid').parentElement;
        return [box.scrollWidth, box.clientWidth];""",
    )
    assert inside > box
    assert box <= 360


def test_published_and_measured_stand_one_above_the_other(
    browser: Chrome, pages: dict[str, Path]
) -> None:
    for width in (1200, 360):
        show(browser, pages["reproduce"], width)
        boxes = run(
            browser,
            """return ['Published', 'Measured here'].map(label => {
                const box = document.querySelector(`[aria-label="${label}"]`);
                return [box.getBoundingClientRect().top, box.getBoundingClientRect().left];
            });""",
        )
        assert boxes[0][0] < boxes[1][0]
        assert boxes[0][1] == boxes[1][1]


@pytest.mark.parametrize("kind", PAGES)
def test_at_1100_pixels_no_table_scrolls_sideways(
    browser: Chrome, pages: dict[str, Path], kind: str
) -> None:
    show(browser, pages[kind], 1100)
    run(browser, "document.querySelectorAll('details').forEach(d => { d.open = true; });")
    wide = run(
        browser,
        """return [...document.querySelectorAll('.scroll')].filter(
            box => box.scrollWidth > box.clientWidth + 1
        ).map(box => box.getAttribute('aria-label'));""",
    )
    assert wide == []


@pytest.mark.parametrize("kind", ["demo", "audit", "reproduce"])
@pytest.mark.parametrize("width", [1100, 390])
def test_the_first_screen_has_the_sentence_and_the_picture(
    browser: Chrome, pages: dict[str, Path], kind: str, width: int
) -> None:
    show(browser, pages[kind], width)
    sentence, picture, others = run(
        browser,
        """const top = e => e.getBoundingClientRect().top;
        const first = document.querySelector('.first');
        return [top(document.querySelector('h1')), top(first.querySelector('figure > svg')),
            [...document.querySelectorAll('main > :not(.first)')].map(top)];""",
    )
    assert sentence < picture < 800
    assert min(others) > picture


def rgb(colour: str) -> str:
    return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:7], 16)})"


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_the_page_and_its_charts_follow_the_scheme(
    browser: Chrome, page: Path, scheme: str, colours: dict[str, str]
) -> None:
    show(browser, page, scheme=scheme)
    ground, ink, series = run(
        browser,
        """const svg = document.querySelector('#rebound-margin > svg');
        const strokes = [...svg.querySelectorAll('path')].map(p => getComputedStyle(p).stroke);
        const body = getComputedStyle(document.body);
        return [body.backgroundColor, body.color, strokes];""",
    )
    assert ground == rgb(colours["page"])
    assert ink == rgb(colours["ink"])
    assert {rgb(colours[s]) for s in ("s1", "s2", "s3", "grid")} <= set(series)


def test_paper_is_light_even_where_the_screen_is_dark(browser: Chrome, page: Path) -> None:
    show(browser, page, scheme="dark")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    try:
        colour = run(browser, "return getComputedStyle(document.body).color")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert colour == rgb(LIGHT["ink"])


@pytest.fixture(scope="module")
def asked_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boost of 120 questions, with every kind of outcome and hostile texts."""
    out = tmp_path_factory.mktemp("asked")
    (out / "result.json").write_text(json.dumps(boost_result()), encoding="utf-8")
    rows = []
    for i in range(120):
        right = (i % 4 in (0, 2), i % 4 in (1, 2))  # only A, only B, both, neither
        text = "</script><img src=x onerror=alert(1)>" if i == 0 else "word " * (i % 7 + 1)
        answers = {
            "fine-tuned": Answer(text, float(right[0]), 0.5, i % 10 == 9),
            "EpiCoDe": Answer(f"{text}{i}", float(right[1]), 0.5, False),
            "ME only": Answer("the same", 1.0, 0.5, False),
        }
        rows.append(Asked("\u202eWhat?" if i == 0 else f"What is {i}?", str(i), answers))
    write_texts(out, "questions", rows)
    return build(out)


def choose(browser: Chrome, label: str, option: str) -> None:
    run(
        browser,
        """const [label, option] = arguments;
        const select = [...document.querySelectorAll('.texts-bar label')].find(
            e => e.firstChild.textContent.trim() === label).querySelector('select');
        select.value = [...select.options].find(o => o.textContent === option).value;
        select.dispatchEvent(new Event('change'));""",
        label,
        option,
    )


def listed(browser: Chrome) -> tuple[str, list[list[str]]]:
    """How many questions the table says it has, and the cells of those it shows."""
    from selenium.webdriver.support.ui import WebDriverWait

    filled = "return document.querySelectorAll('.texts-table').length > 0"
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(filled))
    count, cells = run(
        browser,
        """return [document.querySelector('.texts output').textContent,
            [...document.querySelectorAll('.texts-table tbody tr')].map(
                row => [...row.cells].map(cell => cell.textContent))];""",
    )
    return count, cells


def test_questions_are_filtered_and_sorted_in_the_page(browser: Chrome, asked_page: Path) -> None:
    show(browser, asked_page)
    count, rows = listed(browser)
    assert (count, len(rows)) == ("120 of 120", 50)
    assert rows[1] == ["2", "What is 1?reference1", "✗ wrongword word ", "✓ rightword word 1"]
    run(browser, "document.querySelector('.texts > button').click()")
    assert len(listed(browser)[1]) == 100
    numbers = {
        "right only by A": range(0, 120, 4),
        "right only by B": range(1, 120, 4),
        "right by both": range(2, 120, 4),
        "right by neither": range(3, 120, 4),
        "cut off": range(9, 120, 10),
    }
    for option, expected in numbers.items():
        choose(browser, "Show", option)
        count, rows = listed(browser)
        assert count == f"{len(expected)} of 120", option
        assert [int(row[0]) - 1 for row in rows] == list(expected)[:50], option
    choose(browser, "Show", "all questions")
    choose(browser, "Order", "longest first")
    longest = [len(row[3]) for row in listed(browser)[1]]
    assert longest == sorted(longest, reverse=True)
    choose(browser, "Order", "shortest first")
    assert listed(browser)[1][0][0] == "8"  # of one word, and a number of one digit
    choose(browser, "B", "ME only")
    assert {row[3] for row in listed(browser)[1]} == {"✓ rightthe same"}


def test_texts_of_questions_stay_text_and_nothing_is_loaded(
    browser: Chrome, asked_page: Path
) -> None:
    show(browser, asked_page)
    _, rows = listed(browser)
    assert rows[0][1] == r"\u202eWhat?reference0"
    assert "</script><img src=x onerror=alert(1)>" in rows[0][2]
    assert run(browser, "return document.querySelectorAll('.texts img').length") == 0
    assert [url for url in requests(browser) if not url.startswith("data:")] == [
        asked_page.as_uri()
    ]
    assert log_of(browser, "browser") == []
    assert not run(browser, "return document.querySelector('.texts-none').checkVisibility()")


def test_a_question_unfolds_by_its_number(browser: Chrome, asked_page: Path) -> None:
    show(browser, asked_page)
    listed(browser)
    state = run(
        browser,
        """const button = document.querySelector('.texts-table th button');
        button.click();
        return [button.getAttribute('aria-expanded'), button.closest('tr').className];""",
    )
    assert state == ["true", "whole"]


@pytest.mark.parametrize("width", [1100, 390])
def test_the_table_of_questions_fits(browser: Chrome, asked_page: Path, width: int) -> None:
    show(browser, asked_page, width)
    listed(browser)
    assert run(browser, "return document.documentElement.scrollWidth") <= width
    assert run(
        browser,
        """return [...document.querySelectorAll('.texts *')].every(e =>
            e.getBoundingClientRect().right <= document.documentElement.clientWidth + 1);""",
    )


def test_a_browser_that_cannot_unpack_is_told_where_the_rows_are(
    browser: Chrome, asked_page: Path
) -> None:
    added = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream;"}
    )
    try:
        show(browser, asked_page)
        assert run(browser, "return document.querySelector('.texts-none').checkVisibility()")
        assert run(browser, "return document.querySelectorAll('.texts-table').length") == 0
        links = "return [...document.querySelectorAll('.files a')].map(a => a.textContent)"
        assert "questions.csv" in run(browser, links)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
