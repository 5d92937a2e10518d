"""Names of what can be reproduced.  Light, for the help."""

from __future__ import annotations

#: What ``springback reproduce`` knows (:mod:`springback.jobs.papers.reproductions`).
REPRODUCTIONS = (
    "elasticity-resistance",
    "elasticity-rebound",
    "elasticity-dose",
    "elasticity-algorithms",
    "elasticity-symmetry",
    "elasticity-size",
    "elasticity-pretraining",
    "overbend",
)


#: Its studies without a model (:mod:`springback.jobs.papers.theory.job`).
THEORY = ("elasticity-theorem", "elasticity-pareto", "elasticity-springs")
