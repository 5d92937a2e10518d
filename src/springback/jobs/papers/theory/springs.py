"""``springback theory springs``: the elasticity invariant on real trainings of tiny Llamas.

Two arms.  Joint: a model trained from scratch on D1 + D2 beside one on D1 + D2 + D3, from the
same weights; that is the theorem's premise.  Sequence: pre-training on D1, aligning on D2,
perturbing with D3, each response seen once; that is what the paper concludes about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from springback import theory
from springback.core import Measurement, to_jsonable
from springback.jobs.papers.theory import springs_analysis, springs_arms
from springback.jobs.papers.theory.job import refuse_wrong
from springback.jobs.papers.theory.settings import SpringsSettings
from springback.jobs.papers.theory.theorem import ARRANGEMENTS
from springback.progress import Progress, default_progress
from springback.results.places import require_same_kind
from springback.results.store import Store
from springback.results.theory_schema import Theory
from springback.results.writing import Clock, Result, check_positive, write_result


def springs_study(
    settings: SpringsSettings | None = None,
    out: str | Path = "springback-theory-springs",
    progress: Progress | None = None,
) -> Result:
    """Train both arms, set the elongations against k and against what is known exactly.

    Writes ``out/result.json`` of kind "theory"; trainings that were done are read from their run.
    Raises :class:`SpringbackError` for settings that make no sense.
    """
    s, clock, progress = (
        settings or SpringsSettings(),
        Clock.start(),
        progress or default_progress(),
    )
    check(s)
    with Store(out).locked() as store:
        require_same_kind(store, "theory")
        joint, sequence = springs_arms.train(store, s, progress)
        progress.close()
        analysis = springs_analysis.analyse(s, joint, sequence)
        return write_result(
            store,
            "theory",
            clock,
            inputs={"settings": to_jsonable(s)},
            measurements=_measurements(joint, sequence),
            analysis=Theory(springs=analysis),
            verdict=springs_analysis.verdict(analysis),
        )


def check(s: SpringsSettings) -> None:
    """Raise :class:`SpringbackError` on what cannot be trained."""
    names = ("symbols", "length", "hidden", "layers", "heads", "steps", "aligning", "batch_size")
    more = ("pretraining_batch", "joint_rate", "learning_rate", "exponent")
    check_positive({name.replace("_", "-"): getattr(s, name) for name in (*names, *more)})
    theory.responses(s.symbols, s.length)
    steps = [d * s.aligning / s.batch_size for d in s.doses]
    unknown = [a for a in s.arrangements if a not in ARRANGEMENTS]
    seen = [k * s.aligning for k in s.k]
    refuse_wrong(
        (
            "arrangements",
            s.arrangements,
            ", ".join(ARRANGEMENTS),
            bool(unknown) or not s.arrangements,
        ),
        ("k", s.k, "one or more above 0", not s.k or min(s.k) <= 0),
        ("l", s.doses, "one or more above 0", not s.doses or min(s.doses) <= 0),
        ("seeds", s.seeds, "one or more different ones", not s.seeds or _twice(s.seeds)),
        ("seeds", s.seeds, "0 or more each", min(s.seeds, default=0) < 0),
        ("symbols", s.symbols, "2 or more", s.symbols < 2),
        ("share", s.share, "inside (0, 1)", not 0 < s.share < 1),
        ("heads", s.heads, f"a divisor of --hidden {s.hidden}, with an even rest", _odd(s)),
        ("aligning", s.aligning, f"a multiple of {s.batch_size}", bool(s.aligning % s.batch_size)),
        (
            "l",
            s.doses,
            f"whole steps: multiples of {s.batch_size / s.aligning:g}",
            any(abs(v - round(v)) > 1e-9 for v in steps),
        ),
        (
            "k",
            s.k,
            f"whole steps: multiples of {s.pretraining_batch / s.aligning:g}",
            any(abs(v / s.pretraining_batch - round(v / s.pretraining_batch)) > 1e-9 for v in seen),
        ),
    )


def _twice(values: tuple[int, ...]) -> bool:
    return len(set(values)) < len(values)


def _odd(s: SpringsSettings) -> bool:
    """Rotary positions turn pairs of numbers, so a head's width is even."""
    return bool(s.hidden % s.heads) or bool(s.hidden // s.heads % 2)


def _measurements(joint: list[dict[str, Any]], sequence: list[dict[str, Any]]) -> list[Measurement]:
    measurements = []
    for arm, rows in (("joint", joint), ("sequence", sequence)):
        for row in rows:
            keys = ("arrangement", "seed", "repeat", "k", "l")
            tags = {"study": "springs", "arm": arm, **{key: row[key] for key in keys}}
            for i, value in enumerate(row["changes"] or ()):
                which = f"D{i + 1}"
                measurements.append(
                    Measurement("elongation", arm, which, float(value), "nats/response", tags=tags)
                )
    return measurements
