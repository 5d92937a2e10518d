"""Links and anchors of Markdown files, as GitHub and the documentation site have them.

Standard library only: the site is built in an environment of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]

_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[^\S\n]*$", re.DOTALL | re.MULTILINE)
#: Code, in which nothing is a link: blocks, and spans of as many backticks as they begin with.
_CODE = re.compile(rf"{_FENCE.pattern}|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]*)\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^()\s]*)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#* *$", re.MULTILINE)


def with_links(text: str, change: Callable[[str], str]) -> str:
    """``text`` with the target of every link and image outside of code given to ``change``."""
    pieces, end = [], 0
    for code in _CODE.finditer(text):
        pieces += [_LINK.sub(lambda m: f"]({change(m[1])})", text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _LINK.sub(lambda m: f"]({change(m[1])})", text[end:])])


def links(text: str) -> list[str]:
    """The targets of all links and images, in order."""
    targets: list[str] = []
    with_links(text, lambda target: targets.append(target) or target)  # type: ignore[func-returns-value]
    return targets


def images(text: str) -> list[str]:
    """The targets of all images, in order."""
    return _IMAGE.findall(_CODE.sub("", text))


def anchors(text: str) -> set[str]:
    """What a link may name behind ``#``: the headings' slugs by GitHub's rule."""
    slugs: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        again = (f"{slug}-{n}" for n in range(1, len(slugs) + 2))
        slugs.add(slug if slug not in slugs else next(s for s in again if s not in slugs))
    return slugs


def is_external(target: str) -> bool:
    """Whether a target names a scheme, as ``https:`` does."""
    return bool(re.match(r"[a-zA-Z][\w+.-]*:", target))


def in_repository(page: str, target: str) -> str:
    """The path from the repository's root that a relative ``target`` on ``page`` leads to."""
    path = unquote(target.partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page


def faults(page: str, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with the links of ``page``, a path from ``root``, a line each.

    Relative ones lead to a file of the repository (on ``README.md``, which is no page of the site,
    also to a folder), and to a heading of it where they name one.  External ones are not fetched:
    they are ``https``, with a host.
    """
    for target in links((root / page).read_text(encoding="utf-8")):
        if is_external(target):
            parts = urlsplit(target)
            web = parts.scheme == "https" and "." in (parts.hostname or "")
            if not web and parts.scheme != "mailto":
                yield f"{page}: {target} is no https address"
            continue
        path, anchor = in_repository(page, target), target.partition("#")[2]
        file = root / path
        if target.startswith("/") or path.startswith(".."):
            yield f"{page}: {target} leads out of the repository"
        elif not file.is_file() and not (page == "README.md" and file.is_dir()):
            yield f"{page}: {target} leads to {'a folder' if file.is_dir() else 'nothing'}"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
            yield f"{page}: {target} names no heading there"
