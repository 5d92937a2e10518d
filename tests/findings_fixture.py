"""What an audit writes beside curves and losses, from simulated falls that can be followed by hand.

Falls are straight lines: a model aligned on ``n`` examples loses all of its gain at the dose
``UNDO[n] + 16 * seed``, half of it at half that dose.
"""

from __future__ import annotations

from typing import Any

from elasticity_fixture import audit_result as simulated
from report_fixture import audit_result, interval, rebound
from springback import elasticity
from springback.core import to_jsonable
from springback.elasticity import Attacker, Doses, ReboundCurves
from springback.results.cards import card_of_result

N_POS = (64, 128, 256)
#: Nine doses with 0, so that phases are judged.
DOSES = (0, 32, 64, 96, 128, 160, 192, 224, 256)
UNDO = {64: 400, 128: 240, 256: 160}
GAIN = {64: 0.1, 128: 0.2, 256: 0.4}
START = -0.02
#: Where the simulated fall of two phases slows down.
KINK = 96


def curves(seeds: int) -> ReboundCurves:
    values = {
        s: [[START + GAIN[n] * (1 - d / (UNDO[n] + 16 * s)) for d in DOSES] for n in N_POS]
        for s in range(seeds)
    }
    return ReboundCurves(N_POS, DOSES, dict.fromkeys(range(seeds), START), values)


def _kinked(seeds: int) -> ReboundCurves:
    """Falls by 0.3 nats/token per 100 examples up to the kink, by 0.05 after it."""
    values = {
        s: [
            [0.5 + 0.01 * s - 0.003 * min(d, KINK) - 0.0005 * max(d - KINK, 0) for d in DOSES]
            for _ in N_POS
        ]
        for s in range(seeds)
    }
    return ReboundCurves(N_POS, DOSES, dict.fromkeys(range(seeds), 0.0), values)


def _doses(found: Doses) -> dict[str, Any]:
    """As ``jobs/audit_findings.py`` writes them."""
    return {
        "what": found.what,
        "largest": found.largest,
        "at": [{**to_jsonable(at), "words": at.words()} for at in elasticity.doses_at(found)],
        "by_seed": to_jsonable(found.by_seed),
        "trend": to_jsonable(elasticity.dose_trend(found)),
    }


def doses_to_undo(seeds: int) -> dict[str, Any]:
    """Half is reached always, all in part; the KL of 64 falls under 0.01 at 192, others never."""
    falling = curves(seeds)
    reached = [0.08, *(0.01 * 192 / d for d in DOSES[1:])]
    kl = {s: [reached, [0.1] * 9, [0.2 - 0.01 * s] * 9] for s in range(seeds)}
    back = elasticity.kl_doses(N_POS, DOSES, kl)
    return {
        "half": _doses(elasticity.doses_to_lose_gain(falling, "half")),
        "all": _doses(elasticity.doses_to_lose_gain(falling, "all")),
        "kl": _doses(back),
        "reverse_kl": _doses(back),
    }


def attackers(seeds: int) -> dict[str, Any]:
    """Learning rate 3e-05 takes back 10 % more of the gain for each seed, 1e-05 half as much.

    Only the stronger one undoes all, at 200 examples less 20 a seed.
    """
    tried = []
    for s in range(seeds):
        reached = elasticity.first_crossing([0, 200 - 20 * s], [1.0, 0.0], 0.0)
        never = elasticity.first_crossing([0, 256], [1.0, 0.4], 0.0)
        tried.append(Attacker(3e-5, s, 0.8 + 0.1 * s, reached))
        tried.append(Attacker(1e-5, s, 0.4 + 0.05 * s, never))
    mixed = [
        {"name": "50 % benign", "mix": 0.5, "fall": 0.061, "share_lost": 0.47},
        {"name": "benign only", "mix": 1.0, "fall": 0.004, "share_lost": 0.03},
    ]
    half = 0.01 if seeds > 1 else None
    return {
        **to_jsonable(elasticity.attack_summary(tried, largest=256)),
        "mixed": [
            {
                **m,
                "fall": interval(float(str(m["fall"])), half, seeds),
                "share_lost": interval(float(str(m["share_lost"])), half, seeds),
            }
            for m in mixed
        ],
        "n_pos": 256,
    }


def realign(seeds: int) -> Any:
    """The first gains 0.1, 0.2 and 0.4; the second, from 0.05 up, 0.16, 0.3 and 0.5."""
    first = {s: [0.0, 0.1, 0.2, 0.4 + 0.01 * s] for s in range(seeds)}
    second = {s: [0.05, 0.21, 0.35, 0.55 - 0.01 * s] for s in range(seeds)}
    return to_jsonable(elasticity.realignment([0, *N_POS], first, second))


def opposite(seeds: int) -> dict[str, Any]:
    """The rebound of the opposite order: the margin begins on the other side of 0."""
    found = rebound(seeds)
    margin = found["probes"]["margin"]
    margin["start"] = interval(0.021, 0.003 if seeds > 1 else None)
    for curve in margin["curves"]:
        for key in ("mean", "low", "high"):
            curve[key] = None if curve[key] is None else [v * 0.9 + 0.04 for v in curve[key]]
    for row in (*found["gain"], *found["fall"]):
        for key in ("mean", "low", "high"):
            row[key] = None if row[key] is None else row[key] * 0.9
    return found


def findings(seeds: int = 3) -> dict[str, Any]:
    """All that older files lack."""
    several = ReboundCurves(*_parts(curves(seeds)))
    card = card_of_result(simulated("smollm2-135m", (0.4, 0.5, 0.6)[:seeds]))
    return {
        "doses_to_undo": doses_to_undo(seeds),
        "phases": {
            "branches": to_jsonable(elasticity.branch_phases(_kinked(seeds))),
            "decay": to_jsonable(elasticity.decay_criterion(several, dose=256)),
        },
        "attackers": attackers(seeds),
        "realign": realign(seeds),
        "symmetry": opposite(seeds),
        "card": card.to_dict(),
    }


def _parts(c: ReboundCurves) -> tuple[Any, ...]:
    return c.n_pos, c.doses, c.start, c.margins


def full_audit(seeds: int = 3) -> dict[str, Any]:
    """An audit's result file with every finding, and as many parts of its verdict."""
    result = audit_result(seeds)
    result["analysis"] |= findings(seeds)
    more = [
        {"question": f"Question {i}?", "label": "undecided", "text": f"Sentence {i}."}
        for i in range(8)
    ]
    result["verdict"]["parts"] += more
    return result
