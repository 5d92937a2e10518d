"""Docstrings as Markdown, for the pages that mkdocstrings makes of them.

Ours are plain sentences with Sphinx's roles and examples of doctest.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?:\.\.\. |(?!>>>)\S).*\n?)*)+", re.MULTILINE)


def markdown(text: str) -> str:
    """A docstring with roles as code, and examples as blocks of code."""

    def block(example: re.Match[str]) -> str:
        code = re.sub(r"^(?:>>>|\.\.\.) ?", "", example[0].rstrip(), flags=re.MULTILINE)
        code = re.sub(r" *# doctest:.*$", "", code, flags=re.MULTILINE)
        return f"```python\n{code}\n```\n"

    return _EXAMPLE.sub(block, _ROLE.sub(r"`\1`", text))


class Docstrings(griffe.Extension):  # type: ignore[misc]
    """Rewrites every docstring when its object has been read, and defaults as callers see them."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_attribute(self, *, attr: Any, **_: Any) -> None:
        if default := re.fullmatch(r"added\((.*)\)", str(attr.value)):
            attr.value = default[1]
