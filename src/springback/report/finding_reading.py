"""Reads what an audit found beside curves and losses; see :mod:`springback.report.findings`."""

from __future__ import annotations

from dataclasses import replace

from springback.report.findings import (
    AtCount,
    Attackers,
    Branch,
    DoseAt,
    Doses,
    Mixed,
    Phases,
    RateFit,
    RateMoves,
    RatePath,
    Rates,
    RateSet,
    Realign,
    Sweep,
    Trend,
)
from springback.report.node import Node, interval
from springback.report.values import Estimate, Interval

#: The doses that the page knows, in its order.
DOSES = ("half", "all", "kl", "reverse_kl")
TWO_LINES = "two lines"


def bounded(node: Node) -> Estimate:
    """A mean over seeds of which censored ones are known as a range only."""
    numbers = (node.optional(k, Node.finite) for k in ("at_least", "at_most", "low", "high"))
    at_least, at_most, low, high = numbers
    if not node.optional("censored", Node.whole):
        return Estimate(at_least, low, high)
    return Estimate(None, low, high, at_least, at_most)


def doses(node: Node) -> tuple[Doses, ...]:
    return tuple(_doses(key, found) for key in DOSES if (found := node.get(key)) is not None)


def _doses(key: str, node: Node) -> Doses:
    return Doses(
        key,
        node.optional("what", Node.text) or key.replace("_", " "),
        node.optional("largest", Node.finite),
        node.every("at", _dose_at),
        node.optional("trend", _trend),
    )


def _dose_at(node: Node) -> DoseAt:
    return DoseAt(
        node.need("n_pos").whole(),
        node.optional("mean", bounded),
        node.optional("words", Node.text) or "",
    )


def _trend(node: Node) -> Trend:
    return Trend(
        node.optional("label", Node.text) or "",
        node.optional("slope", bounded),
        node.optional("sentence", Node.text) or "",
    )


def phases(node: Node) -> Phases:
    branches = node.get("branches")
    decay = node.get("decay")
    return Phases(
        tuple(
            _branch(key, child)
            for key in (branches.mapping() if branches else ())
            if branches and (child := branches.get(key)) is not None
        ),
        decay.optional("slope", interval) if decay else None,
        (decay.optional("label", Node.text) or "") if decay else "",
    )


def _branch(n_pos: str, node: Node) -> Branch:
    if not (n_pos.isascii() and n_pos.isdigit()):
        raise Node(n_pos, node.path).bad("a number of examples as its key")
    criteria = node.get("aicc")
    aicc = {
        key: value
        for key in (criteria.mapping() if criteria else ())
        if criteria and (value := criteria.optional(key, Node.finite)) is not None
    }
    single = min((k for k in aicc if k != TWO_LINES), key=aicc.__getitem__, default="")
    lead = aicc[single] - aicc[TWO_LINES] if single and TWO_LINES in aicc else None
    slopes = tuple(v.number() for v in found.items()) if (found := node.get("slopes")) else ()
    return Branch(
        int(n_pos),
        node.optional("label", Node.text) or "",
        single,
        lead,
        _breakpoint(node),
        (slopes[0], slopes[1]) if len(slopes) == 2 else None,
    )


def _breakpoint(node: Node) -> Interval | None:
    point = node.optional("breakpoint", Node.finite)
    if point is None:
        return None
    over = node.optional("interval", interval)
    return Interval(point, None, None, 1) if over is None else replace(over, mean=point)


def attackers(node: Node) -> Attackers:
    return Attackers(
        node.optional("share", _sweep),
        node.optional("dose", _sweep),
        node.every("mixed", _mixed),
        node.optional("n_pos", Node.whole),
    )


def _sweep(node: Node) -> Sweep:
    return Sweep(
        node.optional("worst", Node.finite),
        node.optional("worst_by", Node.text) or "",
        node.optional("median", Node.finite),
        node.optional("median_by", Node.text) or "",
        node.optional("typical", bounded) or Estimate(None),
        node.optional("attackers", Node.whole) or 0,
        node.optional("left_out", Node.whole) or 0,
    )


def _mixed(node: Node) -> Mixed:
    return Mixed(
        node.need("name").text(),
        node.optional("fall", interval),
        node.optional("share_lost", interval),
    )


def realign(node: Node) -> Realign:
    return Realign(node.every("counts", _at_count), node.optional("examples", interval))


def _at_count(node: Node) -> AtCount:
    return AtCount(
        node.need("count").number(),
        node.optional("first", interval),
        node.optional("second", interval),
        node.optional("difference", interval),
    )


def rates(node: Node) -> Rates:
    return Rates(
        node.need("depth").whole(),
        node.every("sets", _rate_set),
        node.every("trajectories", _rate_path),
        node.every("k", _rate_fit),
    )


def _rate_set(node: Node) -> RateSet:
    start = node.need("start")
    return RateSet(
        node.need("name").text(),
        node.need("source").text(),
        node.need("texts").whole(),
        node.need("leaves").whole(),
        start.need("bits_per_byte").number(),
        start.need("rate").number(),
        start.need("normalised").number(),
    )


def _rate_path(node: Node) -> RatePath:
    sets = node.need("sets")
    examples = tuple(item.number() for item in node.need("examples").items())
    return RatePath(
        node.need("phase").text(),
        node.need("n_pos").whole(),
        examples,
        tuple(_rate_moves(key, sets.need(key), len(examples)) for key in sets.mapping()),
    )


def _rate_moves(name: str, node: Node, marks: int) -> RateMoves:
    changes = tuple(_known(item) for item in node.need("change").items())
    if len(changes) != marks:
        raise node.need("change").bad(f"as many intervals as there are marks ({marks})")
    return RateMoves(
        name,
        changes,
        _known(node.need("first_per_example")),
        _known(node.need("per_example")),
    )


def _known(node: Node) -> Interval:
    found = interval(node)
    if found is None:
        raise node.bad("an interval with a mean")
    return found


def _rate_fit(node: Node) -> RateFit:
    first = node.need("first")
    return RateFit(
        node.need("phase").text(),
        node.need("n_pos").whole(),
        first.need("examples").number(),
        first.optional("k", interval),
        first.need("opposite").number(),
        node.optional("volumes", Node.finite),
    )
