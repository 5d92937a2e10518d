"""language-model-arithmetic (github.com/eth-sri/language-model-arithmetic) on the same pair.

It is written for Transformers 4 and used as it is, from a clone.  What it needs here: its package
without ``__init__`` (which imports its evaluation), caches handed over in the form it knows, and
three small packages: ``pip install --no-deps --target DIR loguru dill fuzzywuzzy``.

Its formula has no plausibility test, so its tokens are not ours; calls and time are compared.
Prompts on which its speculation ends in an error are left out of every arm, and counted.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from decode_parts.arms import ALONE, arms, counted, tokens_of
from decode_parts.pairs import Subject

NAMES = ("expert", "amateur")


class OldCache:
    """A model that takes and gives keys and values as lists, as Transformers 4 did."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls = model, 0
        self.name_or_path = model.name_or_path  # it loads its tokenizer from there
        self.config, self.device = model.config, model.device

    def eval(self) -> OldCache:
        return self

    def __call__(self, past_key_values: Any = None, **given: Any) -> Any:
        self.calls += 1
        cache = DynamicCache(config=self.config)
        for layer, (keys, values) in enumerate(past_key_values or []):
            cache.update(keys, values, layer)
        mask = given["attention_mask"]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -given["input_ids"].shape[1] :]
        out = self.model(**given, past_key_values=cache, position_ids=positions)
        layers: list[Any] = list(cache.layers)
        out.past_key_values = [[layer.keys, layer.values] for layer in layers]
        return out


def library(clone: Path) -> tuple[Any, Any]:
    """(ModelArithmetic, PromptedLLM) of a clone."""
    folder = clone / "src" / "model_arithmetic"
    if not folder.is_dir():
        raise SystemExit(f"{clone} is no clone of language-model-arithmetic: no {folder}")
    package = types.ModuleType("model_arithmetic")
    package.__path__ = [str(folder)]
    sys.modules["model_arithmetic"] = package
    trl: Any = importlib.import_module("trl")
    if not hasattr(trl, "AutoModelForCausalLMWithValueHead"):
        trl.AutoModelForCausalLMWithValueHead = None  # imported by name, not used here
    utils: Any = importlib.import_module("model_arithmetic.utils")
    utils.ENABLE_LOGGING = False
    whole = importlib.import_module("model_arithmetic.model_arithmetic")
    parts = importlib.import_module("model_arithmetic.runnable_operators")
    return whole.ModelArithmetic, parts.PromptedLLM


class Peer:
    """Its decoder of a pair: greedy, with the amateur run every ``factor`` tokens.

    With ``factor`` 1 both run at every token, without speculation.
    """

    def __init__(self, clone: Path, subject: Subject, factor: int) -> None:
        arithmetic, llm = library(clone)
        self.subject, self.factor = subject, factor
        self.models = [
            OldCache(subject.expert),
            OldCache(subject.amateur),
        ]
        strong, weak = (
            llm(
                "",
                model=model,
                model_name=name,
                prompt_template=lambda _, text: text,
                speculative_factor=f,
            )
            for model, name, f in zip(self.models, NAMES, (1, factor), strict=True)
        )
        lam = subject.settings.lam
        self.whole = arithmetic(
            strong + lam * (strong - weak),
            default_model=NAMES[0],
            dtype=subject.expert.dtype,
            tokenizer=subject.tokenizer,
        )

    @torch.inference_mode()
    def run(self, prompts: list[list[int]]) -> dict[str, Any]:
        """Milliseconds a token and calls of each model a token."""
        tokenizer, most = self.subject.tokenizer, self.subject.settings.max_new_tokens
        for model in self.models:
            model.calls = 0
        tokens, begin = 0, time.perf_counter()
        for ids in prompts:
            torch.manual_seed(0)  # it draws at every test of a drafted token, at temperature 0 too
            own = ids[1:] if ids[0] == tokenizer.bos_token_id else ids  # it puts one before
            text = tokenizer.decode(own)
            [answer] = self.whole.generate_text(
                [text],
                max_new_tokens=most,
                temperature=0,
                do_speculation=self.factor > 1,
                batch_size=1,
                stop_texts=[tokenizer.decode([i]) for i in self.subject.settings.stop_ids],
            )
            tokens += max(len(tokenizer(answer, add_special_tokens=False)["input_ids"]), 1)
        return {
            "ms_per_token": 1e3 * (time.perf_counter() - begin) / tokens,
            "expert_calls_per_token": self.models[0].calls / tokens,
            "amateur_calls_per_token": self.models[1].calls / tokens,
        }

    def works(self, ids: list[int]) -> bool:
        """Whether it answers at all: where it rejects a token though both distributions are the
        same, it divides nothing by nothing and draws from that."""
        try:
            self.run([ids])
        except RuntimeError as error:
            if "probability tensor" not in str(error):
                raise
            return False
        return True


def peers(clone: Path, subject: Subject, prompts: list[list[int]], repeats: int) -> dict[str, Any]:
    """Theirs with three factors and ours, in turns; one row an arm."""
    theirs = {f"language-model-arithmetic, factor {f}": Peer(clone, subject, f) for f in (1, 4, 8)}
    ours = arms(subject)
    kept = [ids for ids in prompts if all(peer.works(ids) for peer in theirs.values())]
    if not kept:
        raise SystemExit("language-model-arithmetic answers none of these prompts")
    rows: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(repeats + 1):  # the first is for warming up
        some = kept if repeat else kept[:1]
        for name, peer in theirs.items():
            rows.setdefault(name, []).append(peer.run(some))
        for name in (ALONE, "lazy", "deferred, n-gram"):
            begin = time.perf_counter()
            answers, work = ours[name](some)
            tokens = tokens_of(answers)
            row = {"ms_per_token": 1e3 * (time.perf_counter() - begin) / tokens}
            rows.setdefault(name, []).append(row | (counted(work, tokens) if work else {}))
    found: dict[str, Any] = {}
    for name, each in rows.items():
        times = [row["ms_per_token"] for row in each[1:]]
        alone = [row["ms_per_token"] for row in rows[ALONE][1:]]
        ratio = statistics.median(a / b for a, b in zip(times, alone, strict=True))
        middle = {"ms_per_token": statistics.median(times), "ratio_to_one_model": ratio}
        found[name] = {**each[-1], **middle, "all_ms_per_token": times}
    return {"prompts": len(kept), "prompts_left_out": len(prompts) - len(kept), "arms": found}
