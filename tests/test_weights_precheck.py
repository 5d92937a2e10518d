"""The numbers of the pre-check by hand, and what is called of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from springback.errors import ModelError
from springback.weights import Precheck, check_line, judge
from springback.weights.io.stream import PIECE
from springback.weights.precheck import r2_of_line
from weights_files import Array, bf16, plain, write_model


def save(root: Path, thetas: list[Array]) -> list[Path]:
    """Checkpoints with one matrix each."""
    return [
        write_model(root / f"c{i}", {"w": plain(t.astype(np.float32))})
        for i, t in enumerate(thetas)
    ]


def test_norms_cosines_and_r2_by_hand(tmp_path: Path) -> None:
    # Updates (3, 0) and (3, 4): norms 3 and 5, cosine 9 / 15; theta_3 = (6, 4, 1).
    folders = save(tmp_path, [np.array(t) for t in ([0, 0, 1], [3, 0, 1], [6, 4, 1])])
    found = check_line(folders)
    assert found.steps == (0, 1, 2)
    assert found.parameters == 3
    assert found.norms == pytest.approx((3, 5))
    assert found.relative == pytest.approx((3 / math.sqrt(53), 5 / math.sqrt(53)))
    assert found.cosines == pytest.approx((0.6,))
    # First weight 0, 3, 6: on its line.  Second 0, 0, 4: mean 4/3, slope 2; squares about the mean
    # 2 * 16/9 + 64/9 = 32/3, along the line 2 * 4 = 8.  R^2 = (18 + 8) / (18 + 32/3).
    assert found.r2 == pytest.approx((18 + 8) / (18 + 32 / 3))
    assert found.rank1 is None  # no matrix


def test_a_straight_run_has_r2_one_and_a_random_walk_of_three_has_three_quarters(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    start, move = rng.standard_normal((2, 40, 30))
    folders = save(tmp_path, [start + t * move for t in (0, 1, 4)])
    straight = check_line(folders, steps=(0, 1, 4))
    assert straight.r2 == pytest.approx(1)
    assert straight.cosines == pytest.approx((1,))
    walk = r2_of_line(np.array([[2.0, 1, 0], [1, 1, 0], [0, 0, 0]]), (0, 1, 2))
    assert walk == pytest.approx(0.75)
    assert check_line(folders, steps=(0, 1, 2)).r2_walk == pytest.approx(0.75)


def test_rank_one_share_is_that_of_dense_svd_over_all_matrices(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shapes = {"a": (30, 20), "b": (8, 300), "v": (9,)}
    models = [
        {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(2)
    ]
    folders = [
        write_model(tmp_path / f"c{i}", {n: plain(t) for n, t in model.items()})
        for i, model in enumerate(models)
    ]
    squares = [np.linalg.svd(models[1][n].astype(float) - models[0][n])[1] ** 2 for n in ("a", "b")]
    share = sum(s[0] for s in squares) / sum(s.sum() for s in squares)
    found = check_line(folders)
    assert found.rank1 == pytest.approx(share, rel=1e-3)
    assert (found.r2, found.r2_walk, found.cosines) == (None, None, ())


def test_tensors_of_several_pieces_and_narrow_dtypes_are_summed_alike(tmp_path: Path) -> None:
    size = 2 * PIECE + 7
    for name, value in (("early", 1.0), ("ft", 1.5)):
        write_model(tmp_path / name, {"w": bf16(np.full(size, value)), "n": plain(np.arange(3))})
    for threads in (1, 3):
        found = check_line([tmp_path / "early", tmp_path / "ft"], threads=threads)
        assert found.norms == pytest.approx((0.5 * math.sqrt(size),))
        assert found.relative == pytest.approx((1 / 3,))
        assert found.parameters == size


def test_nan_and_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folders = save(tmp_path, [np.ones((3, 3)), np.full((3, 3), np.nan)])
    with pytest.raises(ModelError, match="w holds NaN or infinity"):
        check_line(folders)
    folders[1] = write_model(tmp_path / "other", {"w": plain(np.ones(2, np.float32))})
    with pytest.raises(ModelError, match="do not fit"):
        check_line(folders)


GOOD = Precheck((0, 1, 2), 10, (1.0, 1.0), (0.01, 0.01), (0.9,), 0.98, 0.75, 0.5)
FALLS = {-0.5: [2.2, 2.4], 0.0: [2.0, 2.2], 0.5: [1.9, 2.11], 1.0: [2.1, 2.3]}

CALLS: dict[str, tuple[Precheck, Any, str, str]] = {
    "straight": (GOOD, None, "safe", "R^2 0.980"),
    "straight, NLL falls": (GOOD, FALLS, "safe", "mu 0.5 is 0.0950 nats"),
    "NLL rises": (GOOD, {0.0: [1.0], 0.5: [1.1]}, "no gain expected", "lowest at mu 0"),
    "NLL falls the other way": (GOOD, {-0.5: [0.9], 0.0: [1.0]}, "no gain expected", "mu -0.5"),
    "NLL falls by noise": (
        GOOD,
        {0.0: [1.0, 2.0], 0.5: [0.7, 2.2]},
        "no gain expected",
        "within 2 standard errors",
    ),
    "no update": (replace(GOOD, norms=(1.0, 0.0)), FALLS, "no gain expected", "are equal"),
    "turns back": (replace(GOOD, cosines=(-0.2,)), FALLS, "risky", "turns back"),
    "a walk": (replace(GOOD, r2=0.8), None, "risky", "do not move on a line"),
    "large": (replace(GOOD, relative=(0.1, 0.2)), None, "risky", "is large: 20.0%"),
    "two": (replace(GOOD, cosines=(), r2=None, r2_walk=None), None, "risky", "give a third"),
    "two, NLL falls": (replace(GOOD, cosines=(), r2=None, r2_walk=None), FALLS, "safe", "0.0950"),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_follow_the_written_rules(case: str) -> None:
    check, nll, label, reason = CALLS[case]
    call = judge(check, nll)
    assert call.label == label
    assert any(reason in text for text in call.reasons), call.reasons
