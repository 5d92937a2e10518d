"""The falls against proportional decay at one rate: a second form of the stricter criterion (A3).

``rebound_judgement`` compares shares lost, fall over measured gain.  A gain that is small beside
its noise makes such a share wild, and a branch without a measured gain has none.  Here the heights
are fitted to whole curves instead, with one rate for all branches of a seed, and what is tested is
what that leaves over.
"""

from __future__ import annotations

from collections.abc import Sequence

from springback.elasticity.curves import (
    absolute_fall,
    bootstrap_slope,
    fit_proportional_decay,
    slope_on_log2,
)
from springback.elasticity.rebound import (
    Criterion,
    ReboundCurves,
    ReboundLabel,
    bounds_in_words,
    count_seeds,
    not_testable,
    reach,
    rebound_label,
    testable,
    where,
)


def excess_falls(curves: ReboundCurves, dose: float | None = None) -> dict[int, tuple[float, ...]]:
    """Seed -> by branch, how much more it fell than proportional decay at the seed's one rate.

    As a share of the branch's fitted height, at ``dose`` or the mean over the curve: fall of the
    residuals over ``gains0`` (see :func:`fit_proportional_decay`).  As a share, since a common
    shape that is not quite exponential leaves residuals in proportion to height, and these would
    pass for a trend.  Seeds in which a fitted height is not above 0 are left out: that branch did
    not align.  Raises :class:`~springback.errors.DataError` as :func:`absolute_fall`.
    """
    excess = {}
    for seed, branches in curves.margins.items():
        start = curves.start[seed]
        gains = [[margin - start for margin in row] for row in branches]
        fit = fit_proportional_decay(curves.doses, gains)
        if min(fit.gains0) > 0:
            # The fit is exact to about 1e-7: rounded, so that exact decay is no finding.
            excess[seed] = tuple(
                round(absolute_fall(curves.doses, row, dose) / height, 6)
                for row, height in zip(fit.residuals, fit.gains0, strict=True)
            )
    return excess


def decay_criterion(
    curves: ReboundCurves, *, dose: float | None = None, level: float = 0.95
) -> Criterion:
    """Does the fall steepen with n_pos beyond proportional decay at one rate?

    Slope of :func:`excess_falls` on log2 n_pos, one a seed, t over the seeds: ``shown`` above 0,
    ``opposite`` below.  Under proportional decay of three seeds with noise of 5 % of the smallest
    gain it was ``shown`` or ``opposite`` in 4 to 5 % of 300 simulated studies each, and in 4 to 7 %
    where all branches share a shape that is not exponential (``tests/test_proportional.py``).

    The branch of 0 is left out.  Raises :class:`~springback.errors.DataError` with fewer than two
    n_pos or as :func:`absolute_fall`.
    """
    usable = testable(curves.aligned())
    curves, why = usable.curves, usable.why
    excess: dict[int, Sequence[float]] = {**excess_falls(curves, dose)}
    left_out = len(curves.margins) - len(excess)
    note = (
        f" Left out: {count_seeds(left_out)}; alignment gained nothing there." if left_out else ""
    )
    if not excess:
        text = "In no seed did alignment raise the margin at every n_pos, so nothing can decay."
        return Criterion("not testable" if why else "did not align", None, text)
    slope = slope_on_log2(curves.n_pos, excess, level=level)
    label: ReboundLabel = "not testable" if why else rebound_label(slope)
    ends = {
        "shown": "steeper than proportional decay at one rate",
        "opposite": "slower than proportional decay at one rate",
        "undecided": "proportional decay at one rate is not ruled out",
        "one seed, no interval": "one seed shows a direction and proves nothing",
    }
    bounds = bounds_in_words(slope, level, lambda value: f"{100 * value:.3g}")
    sentence = (
        f"Over {count_seeds(slope.n)}, {where(curves, dose)}, the fall beyond proportional decay "
        f"fitted at one rate changes by {100 * slope.mean:+.3g} points of the gain per doubling of "
        f"{reach(curves)} ({bounds}): {not_testable(why) or ends[label]}.{note}{usable.note}"
    )
    bootstrap = bootstrap_slope(curves.n_pos, excess, level=level)
    return Criterion(label, slope, sentence, bootstrap)
