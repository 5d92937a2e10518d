"""``springback demo``: both jobs on the built-in model and data, one report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.core import Measurement
from springback.errors import SpringbackError, describe
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import BARE, AuditSettings
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.models.loading import release_memory
from springback.progress import Progress, default_progress
from springback.results.places import require_same_kind
from springback.results.store import Store, require_space
from springback.results.writing import Clock, Result, write_result

#: A short system message: the template's own would be a third of every question's tokens.
SYSTEM = "Solve the problem."

#: Three short seeds, so that the curve has an interval; resistance would take as long again.
AUDIT = AuditSettings(
    **BARE,
    n_pos=(32, 64),
    doses=(8, 16),
    holdout=16,
    prompts=8,
    sample_tokens=16,
    experiments=("rebound",),
    resistance_rows=0,
)
SEEDS = 3
#: One seed of everything, to see that it runs.
AUDIT_QUICK = replace(
    AUDIT,
    n_pos=(16, 32),
    doses=(16,),
    holdout=8,
    prompts=8,
    experiments=AuditSettings.experiments,
    resistance_rows=8,
    resistance_tokens=8,
    sample_tokens=8,
)
#: Rows, learning rate and candidates were chosen on seeds 0 to 4 and reported on others
#: (benchmarks/demo_regime.py).
BOOST = BoostSettings(
    model="smollm2-135m",
    train="problems:1",
    train_rows=192,
    learning_rate=5e-6,
    validation="problems:1",
    validation_rows=32,
    test="problems:1",
    test_rows=48,  # one batch
    mu=(0.2, 0.4, 0.8),
    lam=(0.5,),
    lam_cd=(0.2,),
    max_new_tokens=72,
    max_tokens=192,
    batch_size=48,
    system=SYSTEM,
    precheck=False,  # a minute, a tenth of the demo
    write_model=False,
    # A demo proves nothing about a model of the user's: it may be shown as often as one likes.
    reopen_test=True,
)
BOOST_QUICK = replace(
    BOOST,
    train_rows=16,
    train_batch_size=8,
    validation_rows=6,
    test_rows=8,
    mu=(0.2,),
    lam=(0.5,),
    lam_cd=(0.2,),
    max_new_tokens=40,
)


def demo(
    out: str | Path = "springback-demo",
    *,
    quick: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Audit on film reviews, boost on word problems; ``out/result.json`` holds both.

    The parts lie in ``out/audit`` and ``out/boost``.  The same seed gives the same numbers: demo k
    takes seeds 3k, 3k + 1 and 3k + 2 of the audit (``quick``: k alone) and seed k of the boost.
    """
    clock, progress = Clock.start(), progress or default_progress()
    seeds = (seed,) if quick else tuple(range(SEEDS * seed, SEEDS * (seed + 1)))
    last = 2**32 // SEEDS - 1
    if not 0 <= seed <= last:
        raise SpringbackError(describe(f"seed {seed}", f"0 to {last}", "change the seed"))
    audit_settings = replace(AUDIT_QUICK if quick else AUDIT, seeds=seeds)
    boost_settings = replace(BOOST_QUICK if quick else BOOST, seed=seed)
    with Store(out).locked() as store:
        require_same_kind(store, "demo")
        require_space(store.root, 7_000_000_000, "the demo")
        minutes = "about 2 minutes" if quick else "7 to 8 minutes"
        progress.note(
            "demo: an audit on film reviews, then a boost on word problems, with SmolLM2-135M-"
            f"Instruct; {minutes} on 2 cores, 8 GB of memory, up to 7 GB of disk while it runs"
        )
        audited = audit(audit_settings, store.below("audit"), progress)
        release_memory()
        boosted = boost(boost_settings, store.below("boost"), progress)
        parts = {"audit": audited.data, "boost": boosted.data}
        return write_result(
            store,
            "demo",
            clock,
            inputs={name: data["inputs"] for name, data in parts.items()},
            measurements=[m for name, data in parts.items() for m in _tagged(name, data)],
            analysis={name: data["analysis"] for name, data in parts.items()},
            verdict=_verdict(parts),
            computing={n: data["provenance"].get("computing") for n, data in parts.items()},
            jobs=(audited, boosted),
        )


def _tagged(job: str, data: dict[str, Any]) -> list[Measurement]:
    return [
        Measurement(**{**measured, "tags": {**measured["tags"], "job": job}})
        for measured in data["measurements"]
    ]


def _verdict(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    verdicts = {name: data["verdict"] for name, data in parts.items()}
    return {
        "label": "; ".join(f"{name}: {v['label']}" for name, v in verdicts.items()),
        "text": " ".join(v["text"] for v in verdicts.values()),
        "parts": [part for v in verdicts.values() for part in v["parts"]],
    }
