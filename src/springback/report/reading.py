"""The result file read once, and checked here, so that the page can trust it.

Keys that are not known are ignored; a section that is missing or null reads as None; a value of
the wrong form raises :class:`StoreError` naming the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from springback.errors import StoreError, describe
from springback.report.schema import (
    KINDS,
    SCHEMA_VERSION,
    AtSize,
    Audit,
    Boost,
    Candidate,
    Curve,
    HalfDose,
    Interval,
    Method,
    Pair,
    Part,
    Probe,
    Rebound,
    Result,
    Verdict,
)

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


def _allowed(char: str) -> bool:
    code = ord(char)
    if code < 0x20:
        return char in "\t\n\r"
    return not (0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE)


@dataclass(frozen=True)
class _Node:
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

    def get(self, key: str) -> _Node | None:
        """The value under ``key``, or None where it is missing or null."""
        found = self.mapping().get(key)
        return None if found is None else _Node(found, f"{self.path}.{key}".lstrip("."))

    def need(self, key: str) -> _Node:
        found = self.get(key)
        if found is None:
            raise self.bad(f"an object with the key '{key}'")
        return found

    def items(self) -> list[_Node]:
        if not isinstance(self.value, (list, tuple)):
            raise self.bad("a list")
        return [_Node(v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

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

    def optional(self, key: str, read: Callable[[_Node], T]) -> T | None:
        found = self.get(key)
        return None if found is None else read(found)

    def every(self, key: str, read: Callable[[_Node], T]) -> tuple[T, ...]:
        """The list under ``key`` read item by item; empty where it is missing or null."""
        found = self.get(key)
        return () if found is None else tuple(read(item) for item in found.items())

    def nulls(self) -> frozenset[str]:
        return frozenset(k for k, v in self.mapping().items() if v is None)


def _interval(node: _Node) -> Interval | None:
    """None where the mean itself is unknown: there is nothing to show then."""
    mean = node.optional("mean", _Node.finite)
    if mean is None:
        return None
    count = node.optional("n", _Node.whole)
    return Interval(
        mean,
        node.optional("low", _Node.finite),
        node.optional("high", _Node.finite),
        1 if count is None else count,
        node.optional("method", _Node.text) or "",
    )


def _at_size(node: _Node) -> AtSize:
    return AtSize(node.need("n_pos").whole(), _interval(node))


def _half_dose(node: _Node) -> HalfDose:
    return HalfDose(
        node.need("n_pos").whole(),
        node.optional("value", _Node.finite),
        node.optional("censored", _Node.flag) or False,
    )


def _curve(node: _Node) -> Curve:
    def numbers(key: str) -> tuple[float, ...] | None:
        found = node.get(key)
        if found is None:
            return None
        values = tuple(item.number() for item in found.items())
        if len(values) != len(dose):
            raise found.bad(f"as many numbers as there are doses ({len(dose)})")
        return values

    dose = tuple(item.number() for item in node.need("dose").items())
    node.need("mean")
    low, high = numbers("low"), numbers("high")
    both = low is not None and high is not None
    return Curve(
        node.need("n_pos").whole(),
        dose,
        numbers("mean") or (),
        low if both else None,
        high if both else None,
    )


def _probe(node: _Node, key: str) -> Probe:
    return Probe(
        key,
        node.optional("title", _Node.text) or key.replace("_", " "),
        node.optional("unit", _Node.text) or "",
        node.optional("direction", _Node.text) or "",
        node.optional("start", _interval),
        node.every("aligned", _at_size),
        node.every("curves", _curve),
    )


def _rebound(node: _Node) -> Rebound:
    probes = node.get("probes")
    slope = node.get("slope")
    return Rebound(
        n_pos=node.every("n_pos", _Node.whole),
        doses=node.every("doses", _Node.number),
        seeds=node.every("seeds", _Node.whole),
        probes=tuple(
            _probe(child, key)
            for key in (probes.mapping() if probes else ())
            if probes and (child := probes.get(key)) is not None
        ),
        gain=node.every("gain", _at_size),
        fall=node.every("fall", _at_size),
        share_lost=node.every("share_lost", _at_size),
        half_dose=node.every("half_dose", _half_dose),
        fall_per_log2=slope.optional("fall_per_log2", _interval) if slope else None,
        share_per_log2=slope.optional("share_per_log2", _interval) if slope else None,
        fall_dose=node.optional("fall_dose", _Node.whole),
    )


def _pair(node: _Node) -> Pair:
    return Pair(
        node.need("pair").text(),
        node.optional("forward", _interval),
        node.optional("inverse", _interval),
        node.optional("ratio", _interval),
        node.optional("excess_forward", _interval),
        node.optional("excess_inverse", _interval),
    )


def _audit(node: _Node) -> Audit:
    resistance = node.get("resistance")
    floor = node.get("noise_floor")
    return Audit(
        rebound=node.optional("rebound", _rebound),
        resistance=resistance.every("pairs", _pair) if resistance else None,
        noise_floor={
            key: value
            for key in (floor.mapping() if floor else ())
            if floor and (value := floor.optional(key, _Node.finite)) is not None
        },
        silent=node.nulls(),
    )


def _candidate(node: _Node) -> Candidate:
    return Candidate(
        node.need("value").number(),
        node.optional("accuracy", _interval),
        node.optional("nll", _interval),
        node.optional("chosen", _Node.flag) or False,
    )


def _method(node: _Node) -> Method:
    return Method(
        node.need("method").text(),
        node.optional("mu", _Node.finite),
        node.optional("lambda", _Node.finite),
        node.optional("accuracy", _interval),
        node.optional("nll", _interval),
        node.optional("difference", _interval),
        node.optional("nll_difference", _interval),
        node.optional("verdict", _Node.text),
    )


def _boost(node: _Node) -> Boost:
    search = node.get("search")
    names = ("mu", "lambda", "cd_lambda")
    return Boost(
        search={k: c for k in names if (c := search.every(k, _candidate))} if search else {},
        methods=node.every("methods", _method) or None,
        floor=node.optional("floor", _Node.text),
        silent=node.nulls(),
    )


def _part(node: _Node) -> Part:
    return Part(*(node.optional(key, _Node.text) or "" for key in ("question", "label", "text")))


def _verdict(node: _Node) -> Verdict:
    return Verdict(
        node.optional("label", _Node.text) or "",
        node.optional("text", _Node.text) or "",
        node.every("parts", _part),
    )


def parse(result: Any) -> Result:
    """The result file's content as objects.

    Raises :class:`StoreError` where it is not a springback result, is of another
    ``schema_version`` or ``kind``, or a known key holds the wrong type.
    """
    if not isinstance(result, Mapping) or "schema_version" not in result:
        raise StoreError(
            "result.json is not a springback result: "
            + describe(
                type(result).__name__ + " without schema_version",
                "an object written by springback audit, boost or demo",
                "name the folder that one of them wrote",
            )
        )
    version = result["schema_version"]
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise StoreError(
            "result.json is of another format: "
            + describe(
                f"schema_version {version!r}",
                f"{SCHEMA_VERSION}",
                "install the springback that wrote it, or run the job again",
            )
        )
    kind = result.get("kind")
    if kind not in KINDS:
        raise StoreError(
            "result.json is of an unknown kind: "
            + describe(repr(kind), ", ".join(KINDS), "name a folder that one of these jobs wrote")
        )
    root = _Node(readable(result), "")
    analysis = root.get("analysis") or _Node({}, "analysis")
    own = analysis if kind != "demo" else None
    measured = root.get("measurements")
    return Result(
        kind=kind,
        provenance=found.mapping() if (found := root.get("provenance")) else {},
        inputs=found.mapping() if (found := root.get("inputs")) else {},
        measurements=len(measured.items()) if measured else 0,
        audit=_audit(own) if own and kind == "audit" else analysis.optional("audit", _audit),
        boost=_boost(own) if own and kind == "boost" else analysis.optional("boost", _boost),
        verdict=root.optional("verdict", _verdict),
        silent=analysis.nulls(),
        theory=analysis.mapping() if kind == "theory" else None,
    )
