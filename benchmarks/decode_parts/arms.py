"""Ways to decode the same prompts, and their time a token in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from decode_parts.pairs import Answers, Subject
from springback.decoding import (
    ContrastModel,
    DecodeSettings,
    Speculation,
    Work,
    cpu_matmul,
    decode,
    decode_fast,
)

Arm = Callable[[Answers], tuple[Answers, Work | None]]
ALONE = "one model"
PLAIN = "plain pair"


def transformers_generate(
    model: Any, prompts: Answers, settings: DecodeSettings, **options: Any
) -> Answers:
    """Transformers' own generate, one batch at a time, as a user of one model runs it."""
    found: Answers = []
    for at in range(0, len(prompts), settings.batch_size):
        chunk = prompts[at : at + settings.batch_size]
        longest = max(map(len, chunk))
        ids = torch.tensor([[settings.pad_id] * (longest - len(p)) + p for p in chunk])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in chunk])
        out = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=list(settings.stop_ids) or None,
            suppress_tokens=list(settings.forbidden_ids) or None,
            pad_token_id=settings.pad_id,
            **options,
        )
        for row in out[:, longest:].tolist():
            ends = [i for i, token in enumerate(row) if token in settings.stop_ids]
            found.append(row[: ends[0]] if ends else row)
    return found


def arms(subject: Subject) -> dict[str, Arm]:
    """By name.  All but the ones called ``one model`` give the pair's tokens."""
    expert, amateur, settings = subject.expert, subject.amateur, subject.settings
    alone = replace(settings, lam=0.0)
    model = ContrastModel.from_pair(expert, amateur, settings.lam, settings.alpha)

    def fast(how: DecodeSettings, **speculation: Any) -> Arm:
        def run(prompts: Answers) -> tuple[Answers, Work | None]:
            found = decode_fast(
                expert,
                prompts,
                how,
                amateur,
                speculation=Speculation(cache=subject.cache, **speculation),
            )
            return found.answers, found.work

        return run

    def plain(prompts: Answers) -> tuple[Answers, Work | None]:
        work = Work()
        return decode(expert, prompts, settings, amateur, work=work), work

    def linear(arm: Arm) -> Arm:
        """The same with PyTorch's own matrix products, as an ablation of decoding/cpu_matmul.py."""

        def run(prompts: Answers) -> tuple[Answers, Work | None]:
            with patch.object(cpu_matmul, "_measured", lambda layers: frozenset()):
                return arm(prompts)

        return run

    # On a GPU a static cache lets Transformers compile the model: that is the fair baseline there.
    fixed = {"cache_implementation": "static"} if subject.cache != "dynamic" else {}
    found: dict[str, Arm] = {
        ALONE: lambda prompts: (transformers_generate(expert, prompts, settings, **fixed), None),
        "one model, fast decoder": fast(alone, draft="none"),
        "one model, n-gram": fast(alone, draft="ngram"),
        PLAIN: plain,
        "lazy": fast(settings, draft="none", defer=0),
        "lazy, n-gram": fast(settings, draft="ngram", defer=0),
        "lazy, amateur drafts": fast(settings, draft="amateur"),
        "deferred": fast(settings, draft="none"),
        "deferred, n-gram": fast(settings, draft="ngram"),
        "deferred, n-gram, PyTorch's products": linear(fast(settings, draft="ngram")),
        "ContrastModel": lambda p: (transformers_generate(model, p, settings), None),
    }
    if settings.batch_size == 1:
        found["ContrastModel, assisted by n-grams"] = lambda p: (
            transformers_generate(model, p, settings, prompt_lookup_num_tokens=4),
            None,
        )
        found["ContrastModel, assisted by the amateur"] = lambda p: (
            transformers_generate(model, p, settings, assistant_model=amateur),
            None,
        )
    return found


def counted(work: Work, tokens: int) -> dict[str, Any]:
    """Statistics of one run a token, and what reading the weights alone would cost.

    ``bytes_ratio``: weights read, as a multiple of one model's one call a token.  A call of the
    amateur reads as much as one of the expert; a joint call reads once.
    """
    calls = work.expert_calls + work.amateur_calls - work.joint_calls
    return {
        "expert_calls_per_token": work.expert_calls / tokens,
        "amateur_calls_per_token": work.amateur_calls / tokens,
        "bytes_ratio": calls / tokens,
        "contested": work.contested / tokens,
        "accepted": work.acceptance,
        "drafted_per_token": work.drafted / tokens,
        "deferred": work.deferred / tokens,
        "overruled": work.overruled / work.deferred if work.deferred else None,
    }


def in_turns(
    jobs: Mapping[str, Arm], prompts: Answers, repeats: int
) -> tuple[dict[str, list[float]], dict[str, tuple[Answers, Work | None]]]:
    """Milliseconds a token of every repeat, and the last answers.

    All arms run in turn, and the turns are repeated, so that a slow phase of the machine falls on
    all of them.  One turn on the first prompts warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    last: dict[str, tuple[Answers, Work | None]] = {}
    for job in jobs.values():
        job(prompts[:1])
    for _ in range(repeats):
        for name, job in jobs.items():
            begin = time.perf_counter()
            last[name] = job(prompts)
            times[name].append(1e3 * (time.perf_counter() - begin) / tokens_of(last[name][0]))
    return times, last


def tokens_of(answers: Sequence[Sequence[int]]) -> int:
    """Tokens decoded: a stop token, too, has to be (an answer at its limit has none: 1 % off)."""
    return sum(len(a) + 1 for a in answers)


def timed(subject: Subject, prompts: Answers, repeats: int, only: Sequence[str] = ()) -> Any:
    """One row an arm: medians, and the median of the ratio to one model within a repeat."""
    jobs = {n: j for n, j in arms(subject).items() if not only or n in (ALONE, PLAIN, *only)}
    times, last = in_turns(jobs, prompts, repeats)
    truth = last[PLAIN][0]
    rows = []
    for name, (answers, work) in last.items():
        ratios = [a / b for a, b in zip(times[name], times[ALONE], strict=True)]
        row: dict[str, Any] = {
            "arm": name,
            "ms_per_token": statistics.median(times[name]),
            "ratio_to_one_model": statistics.median(ratios),
            "same_as_plain_pair": sum(a == b for a, b in zip(answers, truth, strict=True)),
            "answers": len(truth),
            "all_ms_per_token": times[name],
        }
        if work is not None:
            row.update(counted(work, tokens_of(answers)))
        rows.append(row)
    return rows
