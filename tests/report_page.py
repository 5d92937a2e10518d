"""A page of the report, read; and a folder to build one in."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

#: Elements that HTML closes by itself.
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Tags with attributes, text without styles, and what links point to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, *names: str) -> list[str]:
        return [a[n] or "" for _, a in self.tags for n in names if n in a]


def write(out: Path, result: dict[str, Any]) -> Path:
    out.mkdir(exist_ok=True)
    (out / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return out


def topics(page: Page) -> set[str]:
    """Ids of the page's sections."""
    return {a["id"] or "" for _, a in page.tags if a.get("class") == "topic"}


def charts(page: Page) -> set[str]:
    """Ids of the page's charts."""
    return {a["id"] or "" for t, a in page.tags if t == "figure"}


def outward(page: Page) -> list[str]:
    """Addresses that lead anywhere but to this page, its result file, its charts or a model's
    own report."""
    names = ("href", "src", "srcset", "xlink:href", "data", "action")
    own = r"#.+|data:,|result\.json|card\.html|charts/[\w.-]+|models/[\w.%-]+/report\.html"
    return [x for x in page.attributes(*names) if not re.fullmatch(own, x)]
