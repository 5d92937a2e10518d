"""The tables of ``docs/result_schema.md``, made of the classes of a result file.

``make schema`` writes them anew between the page's marks: ``<!-- schema: NAME -->`` is followed by
the class of that name and all that it is made of, ``<!-- fields: NAME -->`` by its own fields only,
until ``<!-- end -->``.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from springback.core import Checkpoint, Measurement
from springback.elasticity import Quantity
from springback.results import schema
from springback.results.audit_schema import Number, Size
from springback.stats import Interval

#: What has a place of its own on the page.
ELSEWHERE = {Interval: "*I*", Checkpoint: "checkpoint", Quantity: "[Quantity](#quantity)"}
ROOTS = (*schema.ANALYSES.values(), Measurement, schema.Verdict, Interval, Quantity)
_WORDS = {int: "integer", float: "number", str: "string", bool: "true or false"}
_MARKS = re.compile(r"(<!-- (schema|fields): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documented(page: str) -> str:
    """``page`` with what stands between its marks made anew."""
    roots = {root.__name__: root for root in ROOTS}
    seen: set[type] = set(ELSEWHERE)

    def made(mark: re.Match[str]) -> str:
        root = roots[mark[3]]
        if mark[2] == "fields":
            return f"{mark[1]}\n{_table(root)}\n{mark[4]}"
        first, *others = [one for one in classes(root) if one not in seen]
        seen.update(others)
        parts = [_table(first), *(f"#### {c.__name__}\n\n{_about(c)}{_table(c)}" for c in others)]
        return "\n".join([mark[1], *parts, mark[4]])

    return _MARKS.sub(made, page)


def classes(root: type) -> list[type]:
    """``root`` and all dataclasses that it is made of, in the order of the page."""
    listed: list[type] = []

    def add(one: type) -> None:
        if one not in listed:
            listed.append(one)
            for hint in hints(one).values():
                for inner in _parts(hint):
                    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                        add(inner)

    add(root)
    return listed


def hints(one: type) -> dict[str, Any]:
    """Key in the file -> annotation, of every field that a file holds."""
    types_of = typing.get_type_hints(one, include_extras=True)
    return {
        f.metadata.get("key", f.name): types_of[f.name]
        for f in dataclasses.fields(one)
        if not f.metadata.get("internal")
    }


def meanings(one: type) -> dict[str, str]:
    """Name of a field -> what its class, or one that it derives from, says of it."""
    texts: dict[str, str] = {}
    for base in reversed(one.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        texts |= {name: " ".join(text.split()) for name, text in entries}
    return texts


def _about(one: type) -> str:
    text = inspect.cleandoc(one.__doc__ or "").partition("Attributes:")[0].strip()
    return f"{_plain(text)}\n\n"


def _table(one: type) -> str:
    texts = meanings(one)
    rows = ["| key | type | meaning |", "|---|---|---|"]
    for f, (key, hint) in zip(
        (f for f in dataclasses.fields(one) if not f.metadata.get("internal")),
        hints(one).items(),
        strict=True,
    ):
        absent = "; may be absent" if f.metadata.get("added") else ""
        rows.append(f"| `{key}` | {words(hint)}{absent} | {_plain(texts.get(f.name, ''))} |")
    return "\n".join(rows) + "\n"


def _plain(text: str) -> str:
    """Names as Markdown marks them; no bar may end a cell."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in typing.get_args(hint):
        yield from _parts(inner)


def words(hint: Any) -> str:
    """A type as the page names it."""
    if hint == Number:
        return "number or null"
    if hint == Size:
        return "integer"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is types.NoneType else words(a) for a in args)
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in args)
    if origin is tuple:
        many = "list of" if args[-1] is Ellipsis else f"list of {len(args)}"
        return f"{many} {_several(args[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        by = "number" if args[0] in (int, Size) else "name"
        return "object" if args[1] is Any else f"object, by {by}, of {_several(args[1])}"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return ELSEWHERE.get(hint) or f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _WORDS.get(hint, "anything")


def _several(hint: Any) -> str:
    one = words(hint)
    if one.startswith("list of"):
        return f"lists{one[4:]}"
    if " or " in one and hint is not bool:
        return f"({one})"
    return f"{one}s" if one == "object" or (hint in _WORDS and hint is not bool) else one


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(documented(page.read_text(encoding="utf-8")), encoding="utf-8")
