"""Bits and sums of the extrapolation step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from springback.weights.arithmetic import decode, encode, step


def _bf16_bits(values: list[float]) -> list[int]:
    out = np.empty(2 * len(values), np.uint8)
    encode(np.array(values, np.float64), "BF16", out)
    return [int(bits) for bits in out.view(np.uint16)]


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    # 1.0 is 0x3F80 and the next bfloat16 is 1 + 2^-7 = 0x3F81.
    half = 2.0**-8
    assert _bf16_bits([1.0, 1 + half, 1 + half + 2**-20, 1 + half - 2**-20]) == [
        0x3F80,
        0x3F80,  # the tie goes to the even neighbour below
        0x3F81,
        0x3F80,
    ]
    assert _bf16_bits([1 + 3 * half]) == [0x3F82]  # between 0x3F81 and 0x3F82: even is above
    assert _bf16_bits([-1 - half, -0.0, 0.0]) == [0xBF80, 0x8000, 0x0000]


def test_bfloat16_overflow_is_infinity() -> None:
    largest = (2 - 2**-7) * 2.0**127  # 0x7F7F; half a step above it rounds to infinity
    assert _bf16_bits([largest, largest + 2.0**119]) == [0x7F7F, 0x7F80]


def test_every_16_bit_pattern_is_decoded_as_torch_does_and_encoded_back() -> None:
    patterns = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    for code, kind in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        ours = decode(patterns.view(np.uint8), code)
        theirs = torch.from_numpy(patterns.view(np.int16).copy()).view(kind).double().numpy()
        np.testing.assert_array_equal(ours, theirs)
        finite = np.isfinite(ours)
        back = np.empty(patterns.nbytes, np.uint8)
        encode(np.where(finite, ours, 0.0), code, back)
        np.testing.assert_array_equal(back.view(np.uint16)[finite], patterns[finite])


def test_bfloat16_encoding_agrees_with_torch_on_random_floats() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    floats = bits.view(np.float32)
    floats = floats[np.isfinite(floats)]
    out = np.empty(2 * floats.size, np.uint8)
    encode(floats.astype(np.float64), "BF16", out)
    theirs = torch.from_numpy(floats).to(torch.bfloat16).view(torch.int16).numpy()
    np.testing.assert_array_equal(out.view(np.int16), theirs)


def test_one_step_and_its_sums_by_hand() -> None:
    early = np.array([1.0, 2.0, -4.0], np.float32)
    ft = np.array([1.5, 2.0, -3.0], np.float32)
    # delta = (0.5, 0, 1), mu * delta = (0.25, 0, 0.5): two of three values change.
    raw, tally = step([(1.0, early.view(np.uint8))], ft.view(np.uint8), 0.5, ("F32", "F32", "F32"))
    assert raw.view(np.float32).tolist() == [1.75, 2.0, -2.5]
    assert (tally.parameters, tally.changed) == (3, 2)
    assert tally.step_sq == 0.25**2 + 0.5**2
    assert tally.error_sq == 0.0


def test_a_step_that_bfloat16_rounds_away_is_counted_as_lost() -> None:
    # Below 1.0 bfloat16 is spaced by 2^-8, above by 2^-7.  From 1 - 2^-8 to 1 with mu = 1/4 the
    # exact result is 1 + 2^-10, a quarter of the way at most to a neighbour: 1.0 is written.
    early = np.array([0x3F7F], np.uint16)
    ft = np.array([0x3F80], np.uint16)
    raw, tally = step(
        [(1.0, early.view(np.uint8))], ft.view(np.uint8), 0.25, ("BF16", "BF16", "BF16")
    )
    assert raw.view(np.uint16).tolist() == [0x3F80]
    assert tally.changed == 0
    assert tally.step_sq == tally.error_sq == (2.0**-10) ** 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_show_in_the_sums_even_at_mu_zero(bad: float) -> None:
    good = np.ones(100, np.float32)
    spoilt = good.copy()
    spoilt[70] = bad
    for early, ft in ((good, spoilt), (spoilt, good), (spoilt, spoilt)):
        for mu in (0.0, 0.5):
            _, tally = step(
                [(1.0, early.view(np.uint8))], ft.view(np.uint8), mu, ("F32", "F32", "F32")
            )
            assert not tally.finite


def test_overflow_in_the_output_dtype_shows_in_the_sums() -> None:
    early, ft = np.array([1.0], np.float32), np.array([1e5], np.float32)
    for code, finite in (("F32", True), ("BF16", True), ("F16", False)):  # float16 ends at 65504
        _, tally = step([(1.0, early.view(np.uint8))], ft.view(np.uint8), 1.0, ("F32", "F32", code))
        assert tally.finite is finite
