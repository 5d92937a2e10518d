"""Are the fast decoder's tokens those of the plain loop?  Mismatches, and which are near-ties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from decode_parts.pairs import Answers, Subject
from springback.decoding import DecodeSettings, Speculation, Work, contrast, decode, decode_fast
from springback.decoding.sampling import penalised

NEAR = 1e-4


@torch.inference_mode()
def nearness(subject: Subject, context: list[int], settings: DecodeSettings) -> dict[str, float]:
    """How close the plain loop's choice after ``context`` was: logits, whole text in one pass.

    ``gap``: between its two best scores; ``edge``: of the token closest to the threshold of
    plausibility.
    """
    ids = torch.tensor([context], device=subject.expert.device)
    raw = subject.expert(input_ids=ids, logits_to_keep=1).logits[0, -1:]
    strong = penalised(raw, [context], settings)
    weak = subject.amateur(input_ids=ids, logits_to_keep=1).logits[0, -1:]
    scores = contrast.combine(strong, weak, settings.lam, settings.alpha)[0]
    best = scores.topk(2).values
    edge = (strong[0] - (strong.max() + math.log(settings.alpha))).abs().min()
    return {"gap": float(best[0] - best[1]), "edge": float(edge)}


def compare(
    subject: Subject, prompts: Answers, settings: DecodeSettings, speculation: Speculation
) -> dict[str, Any]:
    """Both decoders on the same prompts.

    After the first difference an answer goes its own way, so tokens are compared up to it.  It is
    excused if the gap or the edge is under 1e-4.  Sampled differences are not excused.
    """
    speculation = replace(speculation, cache=subject.cache)
    truth = decode(subject.expert, prompts, settings, subject.amateur)
    found = decode_fast(subject.expert, prompts, settings, subject.amateur, speculation=speculation)
    compared, differences = 0, []
    for prompt, a, b in zip(prompts, truth, found.answers, strict=True):
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if same is None and len(a) != len(b):
            same = min(len(a), len(b))
        if same is None:
            compared += len(a) + 1
            continue
        compared += same + 1
        near = nearness(subject, prompt + a[:same], settings)
        excused = settings.temperature == 0 and min(near.values()) < NEAR
        differences.append({"position": same, "excused": excused, **near})
    work: Work = found.work
    return {
        "prompts": len(prompts),
        "tokens_compared": compared,
        "differences": len(differences),
        "excused": sum(d["excused"] for d in differences),
        "not_excused": sum(not d["excused"] for d in differences),
        "details": differences,
        "contested": work.contested_share,
    }


def other_settings(subject: Subject) -> Iterator[tuple[str, DecodeSettings, Speculation]]:
    """A handful of prompts goes through each of these."""
    s = subject.settings
    for lam in (0.25, 1.0, 4.0):
        for alpha in (0.01, 0.1, 0.5):
            yield f"lambda {lam}, alpha {alpha}", replace(s, lam=lam, alpha=alpha), Speculation()
    for draft in ("none", "amateur"):
        yield f"draft {draft}", s, Speculation(draft)
    yield "asked at once", s, Speculation(defer=0)
    yield "draft length 6", s, Speculation("ngram", 6)
    yield "repetition penalty", replace(s, repetition_penalty=1.2), Speculation()
    sampled = replace(s, temperature=0.8, seed=3)
    yield "sampled", sampled, Speculation()
    yield "sampled, amateur drafts", sampled, Speculation("amateur")
    yield "sampled, filters", replace(sampled, top_k=50, top_p=0.9, min_p=0.02), Speculation()


def settings_table(subject: Subject, prompts: Answers) -> list[dict[str, Any]]:
    found = []
    for name, settings, speculation in other_settings(subject):
        row = {"setting": name, **compare(subject, prompts, settings, speculation)}
        found.append(row)
        print({k: v for k, v in row.items() if k != "details"}, flush=True)
    return found
