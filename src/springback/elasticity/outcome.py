"""What an audit's rebound is told by: the curves of one probe, and what its falls are counted from.

Of an aligned model that is the margin, over the start model's.  A finished model (n_pos 0 alone)
has no start to go back to: what it can lose is its margin over the base model's, or over 0 where
there is no base model; and where no wanted texts were named, a score of its sampled answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from springback.elasticity.rebound import ReboundCurves

#: Seed -> [branch][dose].
Values = Mapping[int, Sequence[Sequence[float]]]


def outcome_of(probes: Collection[str]) -> str:
    """The probe that says how far a model is undone."""
    return "margin" if "margin" in probes else "behaviour"


def is_finished(n_pos: Sequence[int]) -> bool:
    """Whether nothing was aligned."""
    return bool(n_pos) and not any(n_pos)


def outcome_curves(
    n_pos: Sequence[int],
    doses: Sequence[float],
    values: Values,
    *,
    start: float,
    base: float | None = None,
    probe: str = "margin",
    unit: str = "nats a token",
    noise: Sequence[float] | None = None,
) -> ReboundCurves:
    """The curves of ``values``, of which higher is more aligned.

    ``start``: the start model's value, which counts where something was aligned; ``base``: the
    base model's, None where there is none.  A score below the base model's is turned round, since
    it may be one that should fall; the margin never is.  ``noise``: of what alignment gained.
    """
    if not is_finished(n_pos):
        begins = dict.fromkeys(values, start)
        return ReboundCurves(n_pos, doses, begins, values, noise=noise)
    gain = lost_by(probe, unit, base is not None)
    if probe == "margin":
        begins = dict.fromkeys(values, base or 0.0)
        return ReboundCurves(n_pos, doses, begins, values, gain=gain)
    lower = base is not None and any(rows[-1][0] < base for rows in values.values())
    sign = -1.0 if lower else 1.0
    turned = {s: [[sign * v for v in row] for row in rows] for s, rows in values.items()}
    begins = dict.fromkeys(values, sign * (base or 0.0))
    return ReboundCurves(n_pos, doses, begins, turned, "the score", unit, gain)


def lost_by(probe: str, unit: str, over_base: bool) -> str:
    """What a finished model has to lose, in words: "the margin over the base model's"."""
    what = f"the {unit}" if unit.startswith("share") else "the score"
    if probe == "margin":
        what = "the margin"
    return f"{what} over the base model's" if over_base else what
