"""A value of the result file, checked as it is read, with the path of keys that led to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from springback.errors import StoreError, describe
from springback.report.values import AtSize, Interval

T = TypeVar("T")


def readable(value: Any) -> Any:
    """``value`` with every character that no HTML or SVG file may hold replaced by U+FFFD.

    JSON can spell lone surrogates and control characters; neither UTF-8 nor XML can.
    """
    if isinstance(value, str):
        return "".join(c if _allowed(c) else "\ufffd" for c in value)
    if isinstance(value, Mapping):
        return {readable(str(k)): readable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(v) for v in value]
    return value


@contextmanager
def form_of(where: str, command: str) -> Iterator[None]:
    """Within it, a part of the file that has not the form that ``springback command`` writes raises
    :class:`StoreError`, naming ``where``."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise StoreError(
            f"result.json, {where}: "
            + describe(
                f"{type(error).__name__} {error}",
                f"the form that springback {command} writes",
                "run the job again",
            )
        ) from error


def _allowed(char: str) -> bool:
    code = ord(char)
    if code < 0x20:
        return char in "\t\n\r"
    return not (0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE)


@dataclass(frozen=True)
class Node:
    """A value of the file and the path of keys that led to it."""

    value: Any
    path: str

    def bad(self, allowed: str) -> StoreError:
        given = repr(self.value)
        given = given if len(given) <= 60 else given[:59] + "…"
        return StoreError(
            f"result.json, {self.path}: "
            + describe(given, allowed, "run the job again, or the springback that wrote the file")
        )

    def mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            raise self.bad("an object")
        return self.value

    def get(self, key: str) -> Node | None:
        """The value under ``key``, or None where it is missing or null."""
        found = self.mapping().get(key)
        return None if found is None else Node(found, f"{self.path}.{key}".lstrip("."))

    def need(self, key: str) -> Node:
        found = self.get(key)
        if found is None:
            raise self.bad(f"an object with the key '{key}'")
        return found

    def items(self) -> list[Node]:
        if not isinstance(self.value, (list, tuple)):
            raise self.bad("a list")
        return [Node(v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.bad("a string")
        return self.value

    def number(self) -> float:
        """A float; NaN where the file says null or something not finite."""
        if self.value is None:
            return math.nan
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.bad("a number or null")
        try:
            found = float(self.value)
        except OverflowError:  # JSON knows no largest integer
            return math.nan
        return found if math.isfinite(found) else math.nan

    def finite(self) -> float | None:
        found = self.number()
        return None if math.isnan(found) else found

    def whole(self) -> int:
        found = self.number()
        if not found.is_integer():  # nor is NaN
            raise self.bad("a whole number")
        return int(found)

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.bad("true or false")
        return self.value

    def optional(self, key: str, read: Callable[[Node], T]) -> T | None:
        found = self.get(key)
        return None if found is None else read(found)

    def every(self, key: str, read: Callable[[Node], T]) -> tuple[T, ...]:
        """The list under ``key`` read item by item; empty where it is missing or null."""
        found = self.get(key)
        return () if found is None else tuple(read(item) for item in found.items())

    def nulls(self) -> frozenset[str]:
        return frozenset(k for k, v in self.mapping().items() if v is None)


def interval(node: Node) -> Interval | None:
    """None where the mean itself is unknown: there is nothing to show then."""
    mean = node.optional("mean", Node.finite)
    if mean is None:
        return None
    count = node.optional("n", Node.whole)
    return Interval(
        mean,
        node.optional("low", Node.finite),
        node.optional("high", Node.finite),
        1 if count is None else count,
        node.optional("method", Node.text) or "",
    )


def at_size(node: Node) -> AtSize:
    return AtSize(node.need("n_pos").whole(), interval(node))
