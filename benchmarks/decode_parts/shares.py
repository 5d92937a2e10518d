"""Where the time goes: seconds inside each model and its head, and the rest, which is ours.

Hooks on the modules take the time, so recorded graphs and compiled models, which run no modules,
show up as the rest: profile the dynamic cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from decode_parts.arms import ALONE, arms, tokens_of
from decode_parts.pairs import Answers, Subject
from springback.decoding.lora_pair import twin_of
from springback.decoding.ragged_cache import CachedModel

OURS = ("lazy", "deferred, n-gram")
PARTS = ("expert", "amateur", "both", "head", "rest")


@dataclass
class Clock:
    """Seconds by part; a head's are not counted in its model's."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)

    def begin(self, module: Any) -> None:
        self.begun[id(module)] = self._now()

    def end(self, module: Any, part: str, inside: str | None = None) -> None:
        took = self._now() - self.begun[id(module)]
        self.seconds[part] = self.seconds.get(part, 0.0) + took
        if inside is not None:
            self.seconds[inside] = self.seconds.get(inside, 0.0) - took

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else only launches would be timed
        return time.perf_counter()


@contextmanager
def watched(clock: Clock, models: dict[str, Any]) -> Iterator[None]:
    """``clock`` runs while a module of ``models`` (by part) does."""
    hooks: list[Any] = []

    def watch(module: Any, part: str, inside: str | None) -> None:
        hooks.append(module.register_forward_pre_hook(lambda m, _: clock.begin(m)))
        hooks.append(module.register_forward_hook(lambda m, *_: clock.end(m, part, inside)))

    for part, model in models.items():
        watch(model, part, None)
        watch(model.get_output_embeddings(), "head", part)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def shares(subject: Subject, prompts: Answers, repeats: int) -> list[dict[str, Any]]:
    """One row an arm: milliseconds a token of every part, and its share; medians over repeats.

    ``rest``: bookkeeping outside the models, in Python or in operations on logits; in the arm
    ``one model`` it is that of Transformers' generate.
    """
    models = {"expert": subject.expert, "amateur": subject.amateur}
    both = twin_of(subject.expert, subject.amateur)
    if both is not None:
        models["both"] = both
    jobs = arms(subject)
    rows = []
    for name in (ALONE, *OURS):
        runs: list[dict[str, float]] = []
        jobs[name](prompts[:1])
        for _ in range(repeats):
            clock = Clock()
            with watched(clock, models):
                begin = time.perf_counter()
                answers, _ = jobs[name](prompts)
                whole = time.perf_counter() - begin
            spent = {**dict.fromkeys(PARTS, 0.0), **clock.seconds}
            spent["rest"] = whole - sum(clock.seconds.values())
            runs.append({p: 1e3 * s / tokens_of(answers) for p, s in spent.items()})
        middle = {p: statistics.median(run[p] for run in runs) for p in PARTS}
        total = sum(middle.values())
        row: dict[str, Any] = {"arm": name, "ms_per_token": total, "ms": middle}
        row["share"] = {p: ms / total for p, ms in middle.items()}
        rows.append(row)
    rows.append({"arm": "a step without arithmetic", "ms_per_token": dispatch(subject, repeats)})
    for row in rows:
        print({k: _short(v) for k, v in row.items()}, flush=True)
    return rows


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: round(v, 3) for k, v in value.items() if v}
    return round(value, 3) if isinstance(value, float) else value


@torch.inference_mode()
def dispatch(subject: Subject, repeats: int) -> float:
    """Milliseconds of one step of a Llama as deep as the expert and as narrow as can be.

    That much of a step is Python and launching: what graphs or a compiler may save.
    """
    layers = int(subject.expert.config.get_text_config().num_hidden_layers)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    model: Any = LlamaForCausalLM(config).to(subject.expert.device, subject.expert.dtype).eval()
    half, times = CachedModel(model, 1), []
    half.run([0], [[1] * 128], 1)
    for _ in range(20 * max(repeats, 1)):
        begin = time.perf_counter()
        half.run([0], [[1]], 1).cpu()
        times.append(1e3 * (time.perf_counter() - begin))
        half.roll_back(0, 128)
    return statistics.median(times)
