"""The ways in which a study perturbs its aligned models.

Beside the study's own: other learning rates, other draws of the rows, rows mixed with benign ones,
and protections.  What a safeguard is worth is what it holds against the worst attack, so the worst
case is reported beside the median.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from springback.core import ALGORITHMS, Slice
from springback.errors import SpringbackError, did_you_mean
from springback.jobs.audit.attackers import ATTACKERS, AttackerInfo, function
from springback.jobs.audit.pools import Data, front
from springback.jobs.audit.protections import Protection, mixed_rows, parse_all
from springback.jobs.audit.settings import AuditSettings


@dataclass(frozen=True)
class Attack:
    """``learning_rate`` None: the study's.  ``mix``: share of benign rows; 1 is benign only.

    ``draw``: the seed that draws rows and their order; None is the study's own, which also drew
    the aligning rows.
    ``attacker``: its name in :data:`springback.jobs.audit.attackers.ATTACKERS`.  ``algorithm``: how
    it trains, None is as the study perturbs; ``lora_rank``: 0 is what the study trains.
    ``protection``: what the model has against it.  ``repair``: how much of the alignment's
    direction is added afterwards, each measured.  ``rows``: None is as many as the largest dose.
    ``control``: the control whose rows take the place of the opposite ones.
    """

    learning_rate: float | None = None
    mix: float = 0.0
    protection: Protection | None = None
    repair: tuple[float, ...] = ()
    rows: int | None = None
    draw: int | None = None
    attacker: str = "full"
    algorithm: str | None = None
    lora_rank: int = 0
    control: str | None = None

    @property
    def info(self) -> AttackerInfo:
        return ATTACKERS[self.attacker]

    @property
    def trains(self) -> bool:
        return self.info.forwards is None

    @property
    def kind(self) -> str:
        """Its attacker in words; empty for the study's own way."""
        if self.attacker == "full":
            return ""
        return self.info.title + (f" of rank {self.lora_rank}" if self.lora_rank else "")

    @property
    def name(self) -> str:
        parts = [] if self.protection is None else [self.protection.name]
        if self.kind:
            parts.append(self.kind)
        if self.control is not None:
            parts.append(f"{self.control} control")
        if self.repair:
            parts.append("to be repaired")
        if self.learning_rate is not None:
            parts.append(f"learning rate {self.learning_rate:g}")
        if self.draw is not None:
            parts.append(f"draw {self.draw}")
        if self.mix:
            parts.append("benign only" if self.mix == 1 else f"{100 * self.mix:g} % benign")
        return ", ".join(parts) or "as the study"


#: The study's own perturbation.
PLAIN = Attack()


def attacks(settings: AuditSettings) -> tuple[Attack, ...]:
    """Those that the settings ask for beside :data:`PLAIN`: by attacker, then by share of benign
    rows, which is the only thing that such a perturbation changes.  Each once.

    Raises :class:`SpringbackError` on an attacker that is not known or does not go with the rest.
    """
    made: list[Attack] = []
    for name in settings.attackers:
        if name not in ATTACKERS:
            near = did_you_mean(name, ATTACKERS)
            raise SpringbackError(f"--attackers has {name}{near}; allowed: {', '.join(ATTACKERS)}")
        made += function(ATTACKERS[name].attacks)(settings)
    return tuple(dict.fromkeys([*made, *(Attack(mix=m) for m in settings.mix if m)]))


def swept(
    settings: AuditSettings, attack: Attack, rates: Iterable[float | None]
) -> tuple[Attack, ...]:
    """The attack at these learning rates (None: the study's) and with the study's draw and those of
    ``--attack-seeds``, each with each."""
    own = dict.fromkeys(None if rate == settings.learning_rate else rate for rate in rates)
    draws = (None, *dict.fromkeys(settings.attack_seeds))
    return tuple(replace(attack, learning_rate=r, draw=d) for d in draws for r in own)


def protected(settings: AuditSettings) -> tuple[Attack, ...]:
    """The study's own perturbation against each protection that the settings ask for."""
    return tuple(Attack(protection=p) for p in parse_all(settings.mitigate))


def after_benign(settings: AuditSettings) -> tuple[Attack, ...]:
    """The benign training that is repaired afterwards, if the settings ask for it."""
    if "repair" not in settings.experiments:
        return ()
    return (Attack(mix=1.0, repair=settings.repair_mu, rows=settings.repair_rows),)


def controls(settings: AuditSettings) -> tuple[Attack, ...]:
    """The controls that perturb every branch point with other rows."""
    return tuple(Attack(control=c) for c in settings.controls if c != "unaligned")


def shuffled(part: Slice, seed: int) -> Slice:
    """The same prompts and answers, each answer at another row's prompt.

    The rows stand as they did; in an order by ``seed`` each takes the answer of the next one.
    """
    order = list(range(len(part)))
    random.Random(seed).shuffle(order)
    answer = {
        row: part.rows[after].response
        for row, after in zip(order, [*order[1:], order[0]], strict=True)
    }
    rows = [replace(row, response=answer[i]) for i, row in enumerate(part.rows)]
    return Slice.of(f"{part.name}, answers shuffled", part.source, rows, seed)


def perturbing_rows(
    data: Data, attack: Attack, rows: int, seed: int, batch: int | None = None
) -> Slice:
    """``rows`` rows in the order of ``seed``; every beginning of them has the share of benign ones.

    Against a protection that mixes, aligning rows stand beside them in every ``batch``.
    Row i is benign where ``floor((i + 1) * mix)`` is above ``floor(i * mix)``.
    """
    protection = attack.protection
    if attack.algorithm is not None and ALGORITHMS[attack.algorithm].preference:
        return data.preferring(seed, rows, attack.draw)
    if attack.control == "neutral":
        assert data.neutral is not None  # load_data
        return front(data.neutral, seed, rows)
    if attack.control == "shuffled":
        return shuffled(data.perturbing(seed, rows), seed)
    if attack.draw is not None:
        return data.attacking(seed, rows, attack.draw)
    opposite = data.perturbing(seed, rows)
    if protection is not None and protection.kind == "mix" and batch is not None:
        aligning = data.reserved("align", "beside", seed)
        return mixed_rows(opposite, aligning, batch, protection.beside(batch))
    if not attack.mix or data.benign is None:
        return opposite
    few = front(data.benign, seed, math.ceil(attack.mix * rows))
    benign, unwanted = iter(few.rows), iter(opposite.rows)
    mixed = [
        next(benign if math.floor((i + 1) * attack.mix) > math.floor(i * attack.mix) else unwanted)
        for i in range(rows)
    ]
    return Slice.of(f"{opposite.name}, {attack.name}", opposite.source, mixed, seed)
