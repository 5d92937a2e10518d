"""Protections against later perturbation, measured beside the unprotected model.

``overbend:MU``: the aligned weights are moved further along the alignment, by MU times its length,
before they are perturbed; ``overbend:MU@K`` moves each matrix along the top K singular directions
of the alignment only.  ``mix:SHARE``: later training carries that share of aligning rows beside
its own (what paper A proposes for the pre-training stage, here for later fine-tuning).
``project`` and ``project:K``: each of its updates loses its part along the way back from the
aligned weights to the start's (:mod:`springback.training.projection`); whoever trains has to agree.
Repair is the move of overbending made afterwards: the alignment's direction is added to a model
after benign training.
"""

from __future__ import annotations

from dataclasses import dataclass

from springback.core import Slice
from springback.errors import SpringbackError, describe

#: What a bare name stands for.
DEFAULT_STRENGTH = {"overbend": 0.5, "mix": 0.2, "project": 1.0}


@dataclass(frozen=True)
class Protection:
    """``strength``: mu of overbending, the share of aligning rows, or how much of an update's part
    along the way back is taken out.  ``rank``: None is dense."""

    kind: str
    strength: float
    rank: int | None = None

    @property
    def name(self) -> str:
        if self.kind == "mix":
            return f"{100 * self.strength:g} % aligning rows"
        kind = "projected updates" if self.kind == "project" else f"mu {self.strength:g}"
        return kind + (f", rank {self.rank}" if self.rank else "")

    def beside(self, batch: int) -> int:
        """Aligning rows beside every ``batch`` others: one at least, so the share is rounded."""
        if self.kind != "mix":
            return 0
        return max(1, round(batch * self.strength / (1 - self.strength)))


def parse(text: str) -> Protection:
    """``overbend``, ``overbend:0.5``, ``overbend:0.5@8``, ``mix:0.2``, ``project``, ``project:8``.

    Raises :class:`SpringbackError` on anything else.
    """
    kind, _, rest = text.partition(":")
    value, low_rank, rank = rest.partition("@") if kind != "project" else ("", rest, rest)
    try:
        strength = float(value) if value else DEFAULT_STRENGTH[kind]
        protection = Protection(kind, strength, int(rank) if low_rank else None)
    except (KeyError, ValueError):
        protection = Protection("", 0.0)
    good = protection.kind in ("overbend", "project") and 0 < protection.strength < float("inf")
    good &= protection.rank is None or protection.rank >= 1
    if not (good or (protection.kind == "mix" and 0 < protection.strength < 1 and not low_rank)):
        raise SpringbackError(
            "--mitigate: "
            + describe(
                repr(text),
                "overbend:MU (above 0), overbend:MU@RANK, mix:SHARE (inside 0 to 1), project, "
                "project:RANK",
                "name some of these, such as overbend:0.5,mix:0.2",
            )
        )
    return protection


def parse_all(texts: tuple[str, ...]) -> tuple[Protection, ...]:
    """Each once, in the order given."""
    return tuple(dict.fromkeys(map(parse, texts)))


def most_beside(texts: tuple[str, ...], batch: int, dose: int) -> int:
    """The most aligning rows that any of the protections sets beside ``dose`` perturbing rows."""
    return dose // batch * max((p.beside(batch) for p in parse_all(texts)), default=0)


def mixed_rows(opposite: Slice, aligning: Slice, batch: int, beside: int) -> Slice:
    """Batches of ``batch`` rows of ``opposite`` with ``beside`` of ``aligning`` at each one's end.

    The steps, and the unwanted rows that each of them sees, are those of the unprotected run.
    """
    rows = []
    for begin in range(0, len(opposite), batch):
        first = begin // batch * beside
        rows += [*opposite.rows[begin : begin + batch], *aligning.rows[first : first + beside]]
    return Slice.of(f"{opposite.name}+{aligning.name}", opposite.source, rows, opposite.seed)
