"""The result file: every part of ``result.json`` as a dataclass, and the one way to read it.

Jobs write these classes (:func:`springback.core.to_jsonable`), everything else reads them with
:func:`read`.  Classes of the maths have their names here too, for the report.
``docs/result_schema.md`` is made of them (``make schema``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from springback.core import Measurement
from springback.elasticity import Bounded as Bounded
from springback.elasticity import Difference as Difference
from springback.elasticity import Phases as Phases
from springback.elasticity import Quantity as Quantity
from springback.elasticity import Realignment as Realignment
from springback.elasticity import Sweep as Sweep
from springback.elasticity.seed_tests import Change as Change
from springback.errors import StoreError, describe
from springback.results.audit_schema import Audit, not_in_file
from springback.results.boost_schema import Boost
from springback.results.card_schema import Series
from springback.results.check_schema import Check
from springback.results.paper_schema import Reproduction
from springback.results.reading import clean, read_part, require_moderate
from springback.results.theory_schema import Theory
from springback.stats import Interval as Interval

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Demo:
    """``analysis`` of a demo.

    Attributes:
        audit: as of an audit
        boost: as of a boost
    """

    audit: Audit | None = None
    boost: Boost | None = None
    silent: frozenset[str] = not_in_file()


Analysis = Audit | Boost | Check | Demo | Series | Reproduction | Theory
#: The form of ``analysis``, by ``kind``.
ANALYSES: Mapping[str, type[Analysis]] = {
    "audit": Audit,
    "boost": Boost,
    "check": Check,
    "demo": Demo,
    "series": Series,
    "reproduce": Reproduction,
    "theory": Theory,
}
KINDS = tuple(ANALYSES)


@dataclass(frozen=True)
class Part:
    """One question and its answer.

    Attributes:
        question: in words
        label: the answer in a few words
        text: sentences
    """

    question: str = ""
    label: str = ""
    text: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the values say, in words.

    Attributes:
        label: a few words
        text: sentences
        parts: the questions that it answers
    """

    label: str = ""
    text: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ResultFile:
    """A result file that was read."""

    kind: str
    provenance: Mapping[str, Any]
    inputs: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    analysis: Analysis
    verdict: Verdict | None

    @property
    def audit(self) -> Audit | None:
        """Of an audit, or of a demo that has one."""
        if isinstance(self.analysis, Demo):
            return self.analysis.audit
        return self.analysis if isinstance(self.analysis, Audit) else None

    @property
    def boost(self) -> Boost | None:
        """Of a boost, or of a demo that has one."""
        if isinstance(self.analysis, Demo):
            return self.analysis.boost
        return self.analysis if isinstance(self.analysis, Boost) else None


def read(result: Any) -> ResultFile:
    """The content of a ``result.json`` as objects.

    Raises :class:`StoreError` where it is not a springback result, is of another
    ``schema_version`` or ``kind``, a known key holds the wrong type, or it is too large to show.
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
    if not isinstance(kind, str) or kind not in ANALYSES:
        raise StoreError(
            "result.json is of an unknown kind: "
            + describe(repr(kind), ", ".join(KINDS), "name a folder that one of these jobs wrote")
        )
    require_moderate(result)
    try:
        parts = {key: clean(value) for key, value in result.items() if value is not None}
    except RecursionError as error:
        known = "objects and lists a few deep, as a springback job writes them"
        do = "name the folder that one wrote"
        raise StoreError("result.json: " + describe("nesting without end", known, do)) from error
    analysis = parts.get("analysis", {})
    return ResultFile(
        kind,
        read_part(dict, "provenance", parts.get("provenance", {}), kind),
        read_part(dict, "inputs", parts.get("inputs", {}), kind),
        read_part(tuple[Measurement, ...], "measurements", parts.get("measurements", []), kind),
        read_part(ANALYSES[kind], "analysis", _silent(analysis, kind), kind),
        read_part(Verdict, "verdict", parts["verdict"], kind) if "verdict" in parts else None,
    )


def _silent(analysis: Any, kind: str) -> Any:
    """``analysis`` with the names of what is null in it, which its class cannot tell from what is
    missing."""
    if kind not in ("audit", "boost", "demo") or not isinstance(analysis, Mapping):
        return analysis
    inner = dict(analysis)
    if kind == "demo":
        inner |= {job: _silent(inner[job], job) for job in ("audit", "boost") if inner.get(job)}
    return inner | {"silent": [key for key, value in analysis.items() if value is None]}
