"""The result file read once, and checked here, so that the page can trust it.

Keys that are not known are ignored; a section that is missing or null reads as None; a value of
the wrong form raises :class:`StoreError` naming the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from springback.errors import StoreError, describe
from springback.report import boost_reading, card_reading, finding_reading
from springback.report.node import Node, at_size, interval, readable
from springback.report.schema import (
    KINDS,
    SCHEMA_VERSION,
    Audit,
    Curve,
    HalfDose,
    Pair,
    Part,
    Probe,
    Rebound,
    Result,
    Verdict,
)


def _half_dose(node: Node) -> HalfDose:
    return HalfDose(
        node.need("n_pos").whole(),
        node.optional("value", Node.finite),
        node.optional("censored", Node.flag) or False,
    )


def _curve(node: Node) -> Curve:
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


def _probe(node: Node, key: str) -> Probe:
    return Probe(
        key,
        node.optional("title", Node.text) or key.replace("_", " "),
        node.optional("unit", Node.text) or "",
        node.optional("direction", Node.text) or "",
        node.optional("start", interval),
        node.every("aligned", at_size),
        node.every("curves", _curve),
    )


def _rebound(node: Node) -> Rebound:
    probes = node.get("probes")
    slope = node.get("slope")
    return Rebound(
        n_pos=node.every("n_pos", Node.whole),
        doses=node.every("doses", Node.number),
        seeds=node.every("seeds", Node.whole),
        probes=tuple(
            _probe(child, key)
            for key in (probes.mapping() if probes else ())
            if probes and (child := probes.get(key)) is not None
        ),
        gain=node.every("gain", at_size),
        fall=node.every("fall", at_size),
        share_lost=node.every("share_lost", at_size),
        half_dose=node.every("half_dose", _half_dose),
        fall_per_log2=slope.optional("fall_per_log2", interval) if slope else None,
        share_per_log2=slope.optional("share_per_log2", interval) if slope else None,
        fall_dose=node.optional("fall_dose", Node.whole),
    )


def _pair(node: Node) -> Pair:
    return Pair(
        node.need("pair").text(),
        node.optional("forward", interval),
        node.optional("inverse", interval),
        node.optional("ratio", interval),
        node.optional("excess_forward", interval),
        node.optional("excess_inverse", interval),
    )


def _audit(node: Node) -> Audit:
    resistance = node.get("resistance")
    floor = node.get("noise_floor")
    return Audit(
        rebound=node.optional("rebound", _rebound),
        resistance=resistance.every("pairs", _pair) if resistance else None,
        noise_floor={
            key: value
            for key in (floor.mapping() if floor else ())
            if floor and (value := floor.optional(key, Node.finite)) is not None
        },
        silent=node.nulls(),
        doses=node.optional("doses_to_undo", finding_reading.doses) or (),
        phases=node.optional("phases", finding_reading.phases),
        attackers=node.optional("attackers", finding_reading.attackers),
        realign=node.optional("realign", finding_reading.realign),
        opposite=node.optional("symmetry", _rebound),
        card=node.optional("card", card_reading.card),
        rates=node.optional("rates", finding_reading.rates),
        protections=node.optional("protections", Node.mapping),
        repair=node.optional("repair", Node.mapping),
        resistance_data=(resistance.optional("data", Node.text) or "") if resistance else "",
    )


def _protected(node: Node) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    return (
        node.need("name").text(),
        node.optional("protections", Node.mapping),
        node.optional("repair", Node.mapping),
    )


def _part(node: Node) -> Part:
    return Part(*(node.optional(key, Node.text) or "" for key in ("question", "label", "text")))


def _verdict(node: Node) -> Verdict:
    return Verdict(
        node.optional("label", Node.text) or "",
        node.optional("text", Node.text) or "",
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
                "an object written by a springback job",
                "name the folder that one wrote",
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
    root = Node(readable(result), "")
    analysis = root.get("analysis") or Node({}, "analysis")
    measured = root.get("measurements")
    plain = Result(
        kind=kind,
        provenance=found.mapping() if (found := root.get("provenance")) else {},
        inputs=found.mapping() if (found := root.get("inputs")) else {},
        measurements=len(measured.items()) if measured else 0,
        verdict=root.optional("verdict", _verdict),
        silent=analysis.nulls(),
        theory=analysis.mapping() if kind == "theory" else None,
    )
    if kind == "audit":
        return replace(plain, audit=_audit(analysis))
    if kind == "boost":
        return replace(plain, boost=boost_reading.boost(analysis))
    if kind == "series":
        return replace(plain, models=card_reading.models(analysis, "models"))
    if kind == "reproduce":
        return replace(
            plain,
            models=card_reading.models(analysis, "studies"),
            reproduction=card_reading.reproduction(analysis),
            cells=analysis.every("cells", boost_reading.cell),
            protected=analysis.every("studies", _protected),
            life_cycle=analysis.optional("life_cycle", Node.mapping),
        )
    audit, boost = (
        analysis.optional("audit", _audit),
        analysis.optional("boost", boost_reading.boost),
    )
    return replace(plain, audit=audit, boost=boost)
