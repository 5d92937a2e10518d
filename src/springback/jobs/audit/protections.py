"""Protections against later perturbation, measured beside the unprotected model.

``overbend:MU``: the aligned weights are moved further along the alignment, by MU times its length,
before they are perturbed; ``overbend:MU@K`` moves each matrix along the top K singular directions
of the alignment only.  ``mix:SHARE``: later training carries that share of aligning rows beside
its own (what paper A proposes for the pre-training stage, here for later fine-tuning).  Repair is
overbending afterwards: the alignment's direction is added to a model that benign training wore.
"""

from __future__ import annotations

from dataclasses import dataclass

from springback.core import Slice
from springback.errors import SpringbackError, describe

KINDS = ("overbend", "mix")
#: What a bare name stands for.
USUAL = {"overbend": 0.5, "mix": 0.2}


@dataclass(frozen=True)
class Protection:
    """``strength``: mu of overbending, or the share of aligning rows.  ``rank``: None is dense."""

    kind: str
    strength: float
    rank: int | None = None

    @property
    def name(self) -> str:
        if self.kind == "mix":
            return f"{100 * self.strength:g} % aligning rows"
        return f"mu {self.strength:g}" + (f", rank {self.rank}" if self.rank else "")

    def beside(self, batch: int) -> int:
        """Aligning rows beside every ``batch`` others: one at least, so the share is rounded."""
        if self.kind != "mix":
            return 0
        return max(1, round(batch * self.strength / (1 - self.strength)))


def parse(text: str) -> Protection:
    """``overbend``, ``overbend:0.5``, ``overbend:0.5@8`` or ``mix:0.2``.

    Raises :class:`SpringbackError` on anything else.
    """
    kind, _, rest = text.partition(":")
    value, at, rank = rest.partition("@")
    try:
        found = Protection(
            kind,
            float(value) if value else USUAL[kind],
            int(rank) if at else None,
        )
    except (KeyError, ValueError):
        found = Protection("", 0.0)
    good = found.kind == "overbend" and 0 < found.strength < float("inf")
    good &= found.rank is None or found.rank >= 1
    if not (good or (found.kind == "mix" and 0 < found.strength < 1 and not at)):
        raise SpringbackError(
            "--mitigate: "
            + describe(
                repr(text),
                "overbend:MU (above 0), overbend:MU@RANK, mix:SHARE (inside 0 to 1)",
                "name some of these, such as overbend:0.5,mix:0.2",
            )
        )
    return found


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
    for at in range(0, len(opposite), batch):
        first = at // batch * beside
        rows += [*opposite.rows[at : at + batch], *aligning.rows[first : first + beside]]
    return Slice.of(f"{opposite.name}+{aligning.name}", opposite.source, rows, opposite.seed)
