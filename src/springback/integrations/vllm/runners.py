"""vLLM's two model runners, V1 and V2: which this version has, and what each needs of a pair.

vLLM chooses one for each engine (``VLLM_USE_V2_MODEL_RUNNER`` overrules it) and asks it for logits
processors of its own interface.  Who is in which row of a batch the V1 runner tells those
processors; the V2 runner tells them only after the logits are computed, but before that it tells a
model's own state (:mod:`springback.integrations.vllm.pair_state`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from springback.integrations.vllm.folder import PROCESSOR, SIDES, strengths_of

#: Where the interface of a runner's logits processors is.
_INTERFACES = {
    1: "vllm.v1.sample.logits_processor",
    2: "vllm.v1.worker.gpu.sample.logits_processor",
}
Strengths = tuple[float | None, float | None]
#: Weights of a line's adapters in the strong model, and in the weak one where there is any.
Sides = tuple[Sequence[float], Sequence[float] | None]


@functools.cache
def interfaces() -> Mapping[int, Any]:
    """The class that a logits processor has to be, by runner; those that are installed."""
    known = {}
    for runner, module in _INTERFACES.items():
        try:
            known[runner] = importlib.import_module(module).LogitsProcessor
        except (ImportError, AttributeError):
            continue
    return known


def chosen(vllm_config: Any) -> int:
    """The runner of an engine: 1 or 2."""
    return 2 if getattr(vllm_config, "use_v2_model_runner", False) else 1


def fault(vllm_config: Any) -> tuple[str, str, str] | None:
    """Why strengths by request cannot be had with the runner in use: given, allowed, what to do."""
    runner, known = chosen(vllm_config), interfaces()
    if runner in known:
        return None
    given = f"lambda by request with vLLM's V{runner} model runner, whose logits processors are "
    given += "none that springback knows"
    if not known:
        return given, "vLLM 0.32", f"install it, or leave {PROCESSOR} out"
    allowed = " or ".join(f"its V{other} runner" for other in known)
    return given, allowed, f"set VLLM_USE_V2_MODEL_RUNNER={int(2 in known)}"


def asked_for(params: Any) -> Strengths | None:
    """What a request asks for in ``vllm_xargs``; None where it leaves all to the folder."""
    strengths = strengths_of(params.extra_args)
    return None if strengths == (None, None) else strengths


def sides_of(params: Any) -> Sides | None:
    """What a request of a boost names; unchecked, and of any form where a user named it."""
    sides: Sides | None = (params.extra_args or {}).get(SIDES)
    return sides
