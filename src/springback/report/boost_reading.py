"""Reads a boost, and the cells of a reproduction that is made of boosts."""

from __future__ import annotations

from springback.report import boost_findings
from springback.report.node import Node, interval
from springback.report.schema import Boost, Candidate, Cell, Method
from springback.report.values import Interval


def _candidate(node: Node) -> Candidate:
    return Candidate(
        node.need("value").number(),
        node.optional("accuracy", interval),
        node.optional("nll", interval),
        node.optional("chosen", Node.flag) or False,
    )


def _method(node: Node) -> Method:
    return Method(
        node.need("method").text(),
        _strength(node, "mu"),
        _strength(node, "lambda"),
        node.optional("accuracy", interval),
        node.optional("nll", interval),
        node.optional("difference", interval),
        node.optional("nll_difference", interval),
        node.optional("verdict", Node.text),
        _first(node, "p_holm", "p_t_holm"),
        _first(node, "nll_p_holm", "nll_p_t_holm"),
        node.optional("cut", Node.finite),
    )


def _strength(node: Node, key: str) -> float | None:
    """A number; over seeds a list of them, which is one number where all chose the same."""
    found = node.get(key)
    if found is None or not isinstance(found.value, (list, tuple)):
        return node.optional(key, Node.finite)
    values = {item.number() for item in found.items()}
    return values.pop() if len(values) == 1 else None


def _first(node: Node, *keys: str) -> float | None:
    found = (node.optional(key, Node.finite) for key in keys)
    return next((value for value in found if value is not None), None)


#: Searches, in the order of the page.
SEARCHES = (
    "mu",
    "lambda",
    "cd_lambda",
    "lambda_early",
    "lambda_init",
    "lambda_other",
    "lambda_gated",
)


def boost(node: Node) -> Boost:
    search, diagnostics = node.get("search"), node.get("diagnostics")
    found = {k: c for k in SEARCHES if (c := search.every(k, _candidate))} if search else {}
    pairs = diagnostics.need("pairs").items() if diagnostics else []
    power = node.get("power")
    return Boost(
        search=found,
        methods=node.every("methods", _method) or None,
        floor=node.optional("floor", Node.text),
        silent=node.nulls(),
        power=power.optional("text", Node.text) if power else None,
        difficulty=node.optional("difficulty", boost_findings.difficulty),
        contrasts=tuple(map(boost_findings.contrast, pairs)),
        curve=_curve(pairs, found.get("lambda", ())),
        precheck=_precheck(node.get("precheck")),
        withheld=_withheld(node.get("nll_withheld")),
    )


def _curve(
    pairs: list[Node], searched: tuple[Candidate, ...]
) -> tuple[boost_findings.LambdaPoint, ...]:
    """EpiCoDe's prediction, with the changes of NLL and accuracy that the search for lambda saw."""
    node = next((p for p in pairs if p.value.get("method") == "EpiCoDe"), None)
    told = dict(boost_findings.predicted(node)) if node is not None else {}
    tried = {c.value: c for c in searched}
    plain = tried.get(0.0)

    def change(now: Interval | None, then: Interval | None) -> Interval | None:
        return (
            None if now is None or then is None else Interval(now.mean - then.mean, None, None, 1)
        )

    points = []
    for lam in sorted({*told, *tried}) if told else ():
        variance = Interval(told[lam], None, None, 1) if lam in told else None
        here = tried.get(lam)
        nll = change(here.nll, plain.nll) if here and plain else None
        accuracy = change(here.accuracy, plain.accuracy) if here and plain else None
        points.append(boost_findings.LambdaPoint(lam, variance, nll, accuracy))
    return tuple(points)


def _precheck(node: Node | None) -> tuple[str, ...]:
    """The call, then its reasons."""
    if node is None:
        return ()
    return (node.optional("label", Node.text) or "", *node.every("reasons", Node.text))


def _withheld(node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    told = {part: node.optional(part, Node.text) for part in ("validation", "test")}
    return {part: why for part, why in told.items() if why}


def cell(node: Node) -> Cell:
    return Cell(
        node.optional("name", Node.text) or "",
        node.every("methods", _method),
        node.optional("difficulty", boost_findings.difficulty),
        node.every("curve", boost_findings.lambda_point),
    )
