"""The result file has one schema: the page says it, published files have it, and no key is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import schema_page
from springback.core import to_jsonable
from springback.errors import StoreError
from springback.report import render
from springback.results.schema import KINDS, read

DOCS = Path(__file__).resolve().parents[1] / "docs"
PUBLISHED = sorted((DOCS / "results").rglob("result.json"))
#: What was published as a result of its own, beside the studies that it is made of.
WHOLE = [path for path in PUBLISHED if "studies" not in path.parts]


def test_the_page_is_what_the_classes_say() -> None:
    page = (DOCS / "result_schema.md").read_text(encoding="utf-8")
    assert schema_page.documented(page) == page, "run make schema"


def test_every_key_has_a_meaning() -> None:
    known = {one for root in schema_page.ROOTS for one in schema_page.classes(root)}
    assert len(known) > 60
    missing = [
        f"{one.__name__}.{key}"
        for one in known - {*schema_page.ELSEWHERE}
        for key in schema_page.hints(one).keys() - schema_page.meanings(one).keys() - {"lambda"}
    ]
    assert missing == []


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Keys and values of ``given`` that ``kept`` has not."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            # A key that may be absent may as well be null.
            if key in kept or value is not None:
                yield from lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for i, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{i}]")
    elif given != kept:
        yield path


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: str(path.parent.relative_to(DOCS)))
def test_published_files_are_read_whole(path: Path) -> None:
    given = json.loads(path.read_text(encoding="utf-8"))
    found = read(given)
    assert list(lost(given["analysis"], to_jsonable(found.analysis))) == []
    assert list(lost(given["verdict"], to_jsonable(found.verdict))) == []
    assert list(lost(given["measurements"], to_jsonable(found.measurements))) == []


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.parent.name)
def test_published_files_are_drawn(path: Path) -> None:
    assert "</html>" in render(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", KINDS)
def test_nesting_without_end_is_refused_in_one_line(kind: str) -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(StoreError, match="nesting without end") as caught:
        read({"schema_version": 1, "kind": kind, "inputs": deep})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("study", "path"),
    [
        ("safety-rebound", "doses_to_undo.half.by_seed.2"),
        ("safety-rebound", "rebound.probes.margin.curves[0].mean"),
        ("overbend-safety", "studies[0].protections.doses"),
        ("theory-theorem", "theorem.huffman.ideal[1]"),
        ("theory-pareto", "pareto[1].tails[0].survival.count"),
        ("theory-pareto", "pareto[1].tails[0].survival.share"),
        ("theory-springs", "springs.scaling[0].k"),
    ],
)
def test_a_list_that_was_emptied_is_refused_by_its_path(study: str, path: str) -> None:
    given = json.loads((DOCS / "results" / study / "result.json").read_text(encoding="utf-8"))
    place: Any = given["analysis"]
    *steps, last = path.replace("]", "").replace("[", ".").split(".")
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    key = int(last) if isinstance(place, list) else last
    assert place[key]
    place[key] = []
    with pytest.raises(StoreError) as refused:
        render(given)
    assert f"analysis.{path}: given: []; allowed: " in str(refused.value)
