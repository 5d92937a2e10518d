"""Paper B's theory: formulas by hand, known errors found again, real logits the plain way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from springback import probes
from springback.core import Row
from springback.errors import DataError, ModelError
from springback.models.encoding import encode_rows
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.probes.errors_of_logits import _sums
from springback.theory.logit_errors import TextErrors, best_lambda, estimate, variance_factor


def test_variance_by_hand() -> None:
    # k = 2, rho = 0.75, lambda = 0.5: 2.25 - 2 * 0.75 * 2 * 0.5 * 1.5 + 0.25 * 4 = 1.0
    assert variance_factor(0.5, 2.0, 0.75) == pytest.approx(1.0)
    # rho k = 1.5; best (1.5 - 1) / (1 - 3 + 4) = 0.25; there 1.5625 - 0.9375 + 0.25 = 0.875
    assert best_lambda(2.0, 0.75) == pytest.approx(0.25)
    assert variance_factor(0.25, 2.0, 0.75) == pytest.approx(0.875)
    assert variance_factor(0.0, 3.0, -0.5) == 1.0


@given(st.floats(0, 3), st.floats(1, 4))
def test_the_papers_two_cases(lam: float, k: float) -> None:
    assert math.sqrt(variance_factor(lam, k, 1.0)) == pytest.approx(
        abs(1 - lam * (k - 1)), abs=1e-6
    )
    assert variance_factor(lam, k, 0.0) == pytest.approx((1 + lam) ** 2 + lam**2 * k**2)


@given(st.floats(0.1, 4), st.floats(-1, 1))
def test_contrast_helps_if_and_only_if_rho_k_is_above_one(k: float, rho: float) -> None:
    if abs(rho * k - 1) < 1e-3 or 1 - 2 * rho * k + k * k < 1e-6:
        return
    best = best_lambda(k, rho)
    assert best is not None
    assert (best > 0) == (rho * k > 1)
    least = variance_factor(best, k, rho)
    for step in (-0.01, 0.01):
        if best + step >= 0:
            assert variance_factor(best + step, k, rho) >= least - 1e-12
    assert (variance_factor(1e-4, k, rho) < 1) == (rho * k > 1)


def test_equal_errors_leave_nothing_to_choose_and_nonsense_is_refused() -> None:
    assert best_lambda(1.0, 1.0) is None
    for k, rho in ((-1.0, 0.0), (1.0, 1.5), (math.inf, 0.0)):
        with pytest.raises(DataError, match="rho from -1 to 1"):
            variance_factor(0.5, k, rho)


def simulated(
    texts: int, eps: float, k: float, rho: float, seed: int = 0
) -> tuple[list[TextErrors], list[float]]:
    """Errors through the code that measures them: logits of a best model plus known errors.

    Every position has 5 tokens near the top and 20 far below; also the factor by which the error's
    variance changes at lambda = 0.3 on the very same logits.
    """
    rng = np.random.default_rng(seed)
    found: list[TextErrors] = []
    ratios: list[float] = []
    for _ in range(texts):
        best = np.full((40, 25), -50.0)
        best[:, :5] = 0.0
        one, two = rng.standard_normal((2, 40, 25))
        strong = eps * one
        weak = k * eps * (rho * one + math.sqrt(1 - rho**2) * two)
        # A constant a position, as logits have: it must not count.
        shift = 10 * rng.standard_normal((3, 40, 1))
        a, b, c = (
            torch.tensor(best + e + s) for e, s in zip((strong, weak, 0 * one), shift, strict=True)
        )
        sums = _sums(a, b, c, 1e-6).sum(0).tolist()
        found.append(TextErrors(*sums[:3], *map(round, sums[3:])))
        mixed = (1.3 * strong - 0.3 * weak)[:, :5]
        ratios.append(float((mixed - mixed.mean(1, keepdims=True)).var() / sums[0] * 200))
    return found, ratios


def test_known_errors_are_found_again() -> None:
    texts, ratios = simulated(60, eps=0.4, k=1.6, rho=0.8)
    found = estimate(texts)
    assert found.k is not None
    assert found.rho is not None
    assert found.rho_k is not None
    assert found.best_lambda is not None
    # 60 * 40 * 4 = 9,600 degrees of freedom: relative error of a variance sqrt(2 / 9600) = 1.4 %
    assert found.eps.mean == pytest.approx(0.4, rel=0.03)
    assert found.k.mean == pytest.approx(1.6, rel=0.03)
    assert found.rho.mean == pytest.approx(0.8, abs=0.02)
    assert found.rho_k.mean == pytest.approx(1.28, abs=0.04)
    # (1.28 - 1) / (1 - 2.56 + 2.56) = 0.28
    assert found.best_lambda.mean == pytest.approx(0.28, abs=0.04)
    assert found.helps is True
    assert found.contested.mean == 1.0
    (factor,) = found.factors([0.3]) or (math.nan,)
    assert factor == pytest.approx(float(np.mean(ratios)), rel=0.01)


def test_intervals_cover_the_known_values() -> None:
    covered = {"eps": 0, "k": 0, "rho": 0}
    for seed in range(120):
        found = estimate(simulated(12, 0.5, 1.3, 0.6, seed)[0], resamples=300)
        for name, true in (("eps", 0.5), ("k", 1.3), ("rho", 0.6)):
            bounds = getattr(found, name).bounds
            covered[name] += bounds[0] <= true <= bounds[1]
    # The percentile bootstrap of 12 texts covers a little less than 95 %; standard error 2 points.
    assert all(0.84 <= hits / 120 <= 1.0 for hits in covered.values()), covered


def test_what_cannot_be_said_is_not_said() -> None:
    with pytest.raises(DataError, match="two tokens are plausible"):
        estimate([TextErrors(0, 0, 0, 0, 9, 0)])
    exact = estimate([TextErrors(0.0, 1.0, 0.0, 4, 9, 2), TextErrors(0.0, 1.0, 0.0, 4, 9, 2)])
    assert exact.eps.mean == 0
    assert exact.k is None
    assert exact.helps is None
    assert exact.factors([0.5]) is None
    one = estimate([TextErrors(1.0, 4.0, 1.5, 4, 9, 2)])
    assert one.rho_k is not None
    assert (one.rho_k.mean, one.rho_k.bounds, one.helps) == (1.5, None, None)


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_errors_of_models_are_those_of_the_plain_way(tiny_llama: Path, batch_tokens: int) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    models = [load_model(resolve(tiny_llama)) for _ in range(3)]
    for seed, model in enumerate(models[1:]):
        torch.manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * torch.randn_like(p))
    texts = [Row("text", "", "the thing"), Row("pair", "a heron?", "the other heron sings")]
    rows = encode_rows(tokenizer, texts, 64)
    found = probes.logit_errors(
        (models[0], models[1], models[2]),
        rows,
        tokenizer,
        0.2,
        probes.Precision("float32", batch_tokens),
    )
    for row, told in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = [
                m(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1] for m in models
            ]
        strong = weak = cross = 0.0
        freedom = contested = 0
        for s, w, b in zip(*logits, strict=True):
            open_ = s.softmax(-1) >= 0.2 * s.softmax(-1).max()
            a, c = ((x - b)[open_].double() for x in (s, w))
            a, c = a - a.mean(), c - c.mean()
            strong, weak, cross = (
                strong + float(a @ a),
                weak + float(c @ c),
                cross + float(a @ c),
            )
            freedom += int(open_.sum()) - 1
            contested += int(open_.sum()) > 1
        assert (told.freedom, told.contested) == (freedom, contested)
        assert told.positions == row.counted
        assert (told.strong, told.weak, told.cross) == pytest.approx(
            (strong, weak, cross), rel=1e-4
        )
    assert found[1].contested > 0


def test_another_vocabulary_is_refused(tiny_llama: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer, model = load_tokenizer(resolve(tiny_llama)), load_model(resolve(tiny_llama))
    config = LlamaConfig.from_pretrained(tiny_llama)
    config.vocab_size += 8
    other = LlamaForCausalLM(config)
    rows = encode_rows(tokenizer, [Row("text", "", "the thing")], 64)
    with pytest.raises(ModelError, match="vocabularies of 300, 300, 308"):
        probes.logit_errors((model, model, other), rows, tokenizer)
