"""Where a study's time goes: the share outside training and forward passes.

The audit of the quick demo (`springback demo --quick`), SmolLM2-135M: time by part as its result
has it, and beside it how much of probing and sampling are calls of the model.  What is left of them
(log-probabilities, choosing tokens, word lists) counts as outside, with loading, saving and all
that has no part of its own.  Aim: at most 0.15 outside.

    OMP_NUM_THREADS=2 python benchmarks/study_time.py --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from springback.jobs.audit.job import audit
from springback.jobs.demo import AUDIT_QUICK
from springback.progress import Silent
from springback.results.provenance import now, provenance
from springback.results.store import write_json

RESULT = Path(__file__).parent / "results" / "study_time.json"
AIM = 0.15


class Passes:
    """Seconds in calls of a model under inference."""

    def __init__(self) -> None:
        self.seconds = 0.0
        call = LlamaForCausalLM.__call__

        def timed_call(model: Any, *args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic()
            out = call(model, *args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if torch.is_inference_mode_enabled():  # what trains has gradients
                self.seconds += time.monotonic() - begin
            return out

        setattr(LlamaForCausalLM, "__call__", timed_call)  # noqa: B010  (mypy: a method)


def one_round(passes: Passes) -> dict[str, Any]:
    passes.seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="springback-bench-") as folder:
        data = audit(AUDIT_QUICK, folder, Silent()).data
    facts = data["provenance"]
    whole = sum(facts["time"].values())
    outside = whole - facts["time"]["training"] - passes.seconds
    return {
        "seconds": facts["seconds"],
        "by_part": facts["time"],
        "forward_passes": round(passes.seconds, 1),
        "outside": round(outside / whole, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    started, passes = now(), Passes()
    made = [one_round(passes) for _ in range(options.rounds)]
    share = statistics.median(each["outside"] for each in made)
    write_json(
        options.out,
        {
            "provenance": provenance(started=started, finished=now()),
            "rounds": made,
            "outside": share,
            "aim": AIM,
            "reached": share <= AIM,
        },
    )
    for each in made:
        print(each)
    print(f"outside training and forward passes: {share:.3f} (aim: {AIM})")


if __name__ == "__main__":
    main()
