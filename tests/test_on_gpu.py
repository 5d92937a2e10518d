"""On a GPU the same numbers come out as on the CPU, to rounding.  Skipped where there is none."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from decode_fixture import amateur, expert, prompts
from finetune_runs import recipe, rows_for, weights
from springback import probes
from springback.core import Row
from springback.decoding import DecodeSettings, decode, decode_fast, decode_variants
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows, pad_batch
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from springback.results.store import read_json
from springback.theory.logit_errors import TextErrors
from springback.training import Examples, Prompt, Resume, finetune

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


@pytest.fixture(scope="module")
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama)).cpu()


@pytest.fixture(scope="module")
def other(start: Model) -> Model:
    moved = copy.deepcopy(start)
    torch.manual_seed(4)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.01 * torch.randn_like(p))
    return moved


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[Encoded]:
    texts = ["the thing", "a heron in the 1970s", "ing", "the other heron sings"]
    asked = [Row("pair", "a heron?", t) for t in texts]
    return encode_rows(tokenizer, [*(Row("text", "", t) for t in texts), *asked], 64)


def both(model: Model) -> tuple[Model, Model]:
    """The model, and a copy of it on the GPU."""
    return model, copy.deepcopy(model).cuda()  # type: ignore[call-arg]


def test_a_model_is_loaded_onto_the_gpu(tiny_llama: Path) -> None:
    assert load_model(resolve(tiny_llama)).device.type == "cuda"


def test_likelihood_and_divergence(
    start: Model, other: Model, rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    found: list[list[float]] = []
    for one, two in zip(both(start), both(other), strict=True):
        here = [s.nats for s in probes.nll(two, rows, tokenizer)]
        for scores in probes.pair_nll(one, two, rows, tokenizer, [0.0, 0.7]).values():
            here += [s.nats for s in scores]
        here += [s.nats for s in probes.pair_nll_masked((one, two), rows, tokenizer, 0.7)]
        kept = probes.StartDistribution(one, rows, tokenizer)
        here += kept.kl(two)
        here += probes.StartDistribution(one, rows, tokenizer, keep_bytes=0).kl(two)
        assert all(abs(k) < 1e-6 for k in kept.kl_to_itself())
        three: list[TextErrors] = probes.logit_errors((one, two, one), rows, tokenizer)
        here += [e.weak for e in three]
        found.append(here)
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-5)


def test_weights_are_compared_where_they_are(start: Model, other: Model) -> None:
    (a, b), (c, d) = both(start), both(other)
    assert probes.weight_change(d, b).norm == pytest.approx(probes.weight_change(c, a).norm)
    assert probes.way_back(d, c, b).later_norm == 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_decoders_agree_and_equal_the_cpu(temperature: float) -> None:
    how = DecodeSettings(
        max_new_tokens=10, stop_ids=(7, 19), keyed_noise=True, seed=11, temperature=temperature
    )
    how, asked = replace(how, lam=0.5, batch_size=4), prompts(8)
    (a, a_there), (b, b_there) = both(expert()), both(amateur())
    plain = decode(a, asked, how, b)
    assert decode(a_there, asked, how, b_there) == plain
    assert decode_fast(a_there, asked, how, b_there).answers == plain
    if temperature == 0:
        assert decode_variants((a_there, b_there), asked, how, [0.5, 1.0])[0][0.5] == plain


def trained(model: Model, tokenizer: Tokenizer, algorithm: str, **changes: Any) -> Any:
    rows: Any = Examples(rows_for(algorithm, 12)) if algorithm != "rloo" else None
    if rows is None:
        asked = [Prompt((5 + n % 3, 40 + n, 60), f"{n}") for n in range(8)]
        rows = Examples(asked, reward=lambda _, texts: [float(len(t)) for t in texts])
        changes = {"beta": 0.1, "batch_size": 2, "generations": 4, "new_tokens": 5, **changes}
    resume = changes.pop("resume", None)
    return finetune(model, tokenizer, rows, recipe(algorithm, **changes), resume=resume)


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "simpo", "rloo"])
def test_training(start: Model, tokenizer: Tokenizer, algorithm: str, tmp_path: Path) -> None:
    there = copy.deepcopy(start).cuda()  # type: ignore[call-arg]
    done = trained(there, tokenizer, algorithm, resume=Resume(tmp_path, 0.0))
    assert all(p.device.type == "cuda" for p in there.parameters())
    assert any(not torch.equal(p.cpu(), weights(start)[n]) for n, p in weights(there).items())
    mixed = copy.deepcopy(start).cuda()  # type: ignore[call-arg]
    coarse = trained(mixed, tokenizer, algorithm, precision="bf16-mixed")
    assert coarse.losses == pytest.approx(done.losses, abs=0.1)


def test_sft_equals_a_bare_loop(start: Model, tokenizer: Tokenizer, rows: list[Encoded]) -> None:
    there = copy.deepcopy(start).cuda()  # type: ignore[call-arg]
    bare = copy.deepcopy(there).train()
    optimizer = torch.optim.AdamW(
        bare.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    losses = []
    for at in range(0, 8, 4):
        batch = pad_batch(rows, range(at, at + 4), int(tokenizer.pad_token_id))
        parts = (batch.input_ids, batch.attention_mask, batch.labels)
        ids, mask, labels = (part.cuda() for part in parts)
        loss = bare(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    done = finetune(there, tokenizer, rows, recipe("sft"))
    assert list(done.losses) == pytest.approx(losses, rel=1e-4)
    for name, value in weights(there).items():
        torch.testing.assert_close(value, weights(bare)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 4])
def test_an_audit(tiny_llama: Path, tmp_path: Path, rank: int) -> None:
    given: dict[str, Any] = {
        "model": str(tiny_llama),
        "n_pos": (8, 16),
        "doses": (4, 8),
        "seeds": (0,),
        "learning_rate": 1e-3,
        "batch_size": 4,
        "max_tokens": 24,
        "holdout": 4,
        "prompts": 4,
        "prompt_tokens": 6,
        "sample_tokens": 6,
        "resistance_rows": 4,
        "experiments": ("rebound", "resistance", "symmetry", "realign")
        + (() if rank else ("repair",)),
        "mitigate": ("overbend:0.5", "mix:0.25"),
        "mix": (0.5,),
        "attack_learning_rates": (3e-3,),
        "repair_rows": 8,
        "lora_rank": rank,
        "probes": ("margin", "kl", "bits_per_byte", "reverse_kl", "sentiment", "neutral_nll"),
        "utility_rows": 4,
        "precision": "float32",
    }
    audit(AuditSettings(**given), tmp_path / "gpu")
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(given))  # which is YAML too
    subprocess.run(
        [sys.executable, "-m", "springback.cli", "audit", study, "--out", tmp_path / "cpu"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    here, there = (margins(read_json(tmp_path / d / "result.json")) for d in ("cpu", "gpu"))
    assert len(set(here)) > 20, "each branch, dose and protection has a margin of its own"
    assert there == pytest.approx(here, abs=2e-3)


def margins(result: Any) -> list[float]:
    """Every margin that was measured, in order."""
    return [m["value"] for m in result["measurements"] if m["probe"] == "margin"]
