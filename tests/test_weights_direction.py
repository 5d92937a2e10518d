"""Which way and how far: several checkpoints, mu by group, low rank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from springback.errors import ModelError, StoreError
from springback.weights import Extrapolation, extrapolate, extrapolate_along
from springback.weights.direction import (
    group_of,
    mu_for,
    order_notes,
    read_mu,
    slope_weights,
    steps_of,
)
from springback.weights.lowrank import EXACT_COLUMNS, top_directions
from weights_files import Array, bf16, pair, plain, read_model, write_model


def line(root: Path, count: int, names: tuple[str, ...] = ("w",), seed: int = 0) -> list[Path]:
    """Random float32 checkpoints ``c0`` … of 6 by 4 matrices."""
    rng = np.random.default_rng(seed)

    def model() -> dict[str, tuple[str, Array]]:
        return {n: plain(rng.standard_normal((6, 4)).astype(np.float32)) for n in names}

    return [write_model(root / f"c{i}", model()) for i in range(count)]


def tensor(folder: Path, name: str = "w") -> Array:
    return read_model(folder)[name][1].astype(np.float64)


def test_slope_by_hand() -> None:
    # Steps 0, 1, 2: slope = (theta_3 - theta_1) / 2, last interval 1: half of (theta_3 - theta_1).
    assert slope_weights([0, 1, 2]) == (0.5, 0.0)
    # Steps 0, 1, 3: mean 4/3, spread 16/9 + 1/9 + 25/9 = 14/3; last interval 2.
    # w_i = 2 (4/3 - t_i) / (14/3) = 4/7 and 1/7.
    assert slope_weights([0, 1, 3]) == (4 / 7, 1 / 7)
    for steps in ([0, 1], [500, 1000], [0.1, 0.30000000004]):  # two: exactly ft - early
        assert slope_weights(steps) == (1.0,)


def test_the_slope_is_the_least_squares_one() -> None:
    steps, rng = [3.0, 5.0, 9.0, 10.0], np.random.default_rng(0)
    thetas = rng.standard_normal((4, 7))
    fitted = np.polyfit(steps, thetas, 1)[0] * (10 - 9)
    weights = slope_weights(steps)
    ours = sum(w * (thetas[-1] - t) for w, t in zip(weights, thetas[:-1], strict=True))
    np.testing.assert_allclose(ours, fitted, rtol=1e-12)


@pytest.mark.parametrize("steps", [[1.0], [1.0, 1.0], [2.0, 1.0], [0.0, float("nan")]])
def test_steps_must_rise(steps: list[float]) -> None:
    with pytest.raises(ModelError, match="two or more, rising"):
        slope_weights(steps)


def test_two_checkpoints_are_the_plain_extrapolation_to_the_byte(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    one = extrapolate(early, ft, 0.3, tmp_path / "one")
    two = extrapolate_along([early, ft], Extrapolation(0.3, steps=(5, 9)), tmp_path / "two")
    assert one == two
    for shard in sorted(p.name for p in (tmp_path / "one").glob("*.safetensors")):
        assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "two" / shard).read_bytes()


def test_three_checkpoints_move_along_the_slope(tmp_path: Path) -> None:
    folders = line(tmp_path, 3)
    report = extrapolate_along(folders, Extrapolation(0.4, steps=(0, 1, 3)), tmp_path / "out")
    a, b, c = (tensor(folder) for folder in folders)
    expected = c + 0.4 * (4 / 7 * (c - a) + 1 / 7 * (c - b))
    np.testing.assert_allclose(tensor(tmp_path / "out"), expected, rtol=2.0**-24, atol=1e-12)
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert record["direction"] == {"steps": [0.0, 1.0, 3.0], "low_rank": None}
    assert record["checkpoint 2"]["content_hash"] == report.other_hashes["checkpoint 2"]
    assert "3 checkpoints (steps 0, 1, 3)" in (tmp_path / "out/README.md").read_text()
    again = extrapolate_along(folders, Extrapolation(0.4, steps=(0, 1, 3)), tmp_path / "out")
    assert again == report
    with pytest.raises(StoreError, match="not the result of these inputs"):
        extrapolate_along(folders, Extrapolation(0.4, steps=(0, 1, 2)), tmp_path / "out")
    with pytest.raises(StoreError, match="not the result of these inputs"):
        extrapolate(folders[0], folders[2], 0.4, tmp_path / "out")


def test_steps_come_from_the_names_that_a_trainer_gives() -> None:
    names = ["run/checkpoint-100", "run/checkpoint-150", "run/checkpoint-400"]
    assert steps_of([Path(name) for name in names]) == (100, 150, 400)
    assert steps_of([Path("a"), Path("checkpoint-150"), Path("c")]) == (0, 1, 2)
    kept = ["run/early-100", "run/early-150", "run/checkpoint-400"]  # as KeepEarly names them
    assert steps_of([Path(name) for name in kept]) == (100, 150, 400)
    assert order_notes([Path("run/checkpoint-400"), Path("run/early-100")])
    assert not order_notes([Path("run/early-100"), Path("run/checkpoint-400")])


def test_checkpoints_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    for name in ("checkpoint-2", "checkpoint-1", "checkpoint-3"):
        write_model(tmp_path / name, {"w": plain(np.ones(2, np.float32))})
    folders = [tmp_path / name for name in ("checkpoint-2", "checkpoint-1", "checkpoint-3")]
    with pytest.raises(ModelError, match="steps 2, 1, 3"):
        extrapolate_along(folders, Extrapolation(0.1), tmp_path / "out")
    with pytest.raises(ModelError, match="2 steps"):
        extrapolate_along(folders, Extrapolation(0.1, steps=(1, 2)), tmp_path / "out")
    with pytest.raises(ModelError, match="two or more"):
        extrapolate_along(folders[:1], Extrapolation(0.1), tmp_path / "out")


def test_two_checkpoints_whose_names_say_they_are_swapped_are_taken_with_a_warning(
    tmp_path: Path,
) -> None:
    for name, value in (("checkpoint-500", 1.0), ("checkpoint-1000", 2.0)):
        write_model(tmp_path / name, {"w": plain(np.full(2, value, np.float32))})
    early, ft = tmp_path / "checkpoint-500", tmp_path / "checkpoint-1000"
    swapped = extrapolate_along([ft, early], Extrapolation(0.1), tmp_path / "a").warnings
    assert any("checkpoint-1000 is given as the earlier" in text for text in swapped)
    fine = extrapolate_along([early, ft], Extrapolation(0.1), tmp_path / "b").warnings
    assert not any("is given as the earlier" in text for text in fine)


def test_a_third_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folders = [*line(tmp_path, 2), write_model(tmp_path / "c2", {"v": bf16([1.0])})]
    with pytest.raises(ModelError, match="do not fit"):
        extrapolate_along(folders, Extrapolation(0.1), tmp_path / "out")


NAMES = {
    "model.layers.0.self_attn.q_proj.weight": "attention",
    "model.layers.0.self_attn.q_norm.weight": "norms",
    "model.layers.0.post_attention_layernorm.weight": "norms",
    "model.layers.0.mlp.gate_proj.weight": "mlp",
    "model.layers.0.block_sparse_moe.experts.3.w2.weight": "mlp",
    "model.embed_tokens.weight": "embeddings",
    "lm_head.weight": "embeddings",
    "model.norm.weight": "norms",
    "transformer.h.0.attn.c_attn.weight": "attention",
    "transformer.h.0.ln_1.bias": "norms",
    "transformer.wte.weight": "embeddings",
    "transformer.ln_f.weight": "norms",
    "gpt_neox.layers.0.attention.query_key_value.weight": "attention",
    "gpt_neox.embed_out.weight": "embeddings",
    "transformer.h.0.mlp.c_fc.weight": "mlp",
    "model.decoder.layers.0.fc1.weight": "mlp",
    "encoder.block.0.layer.1.DenseReluDense.wi.weight": "mlp",
    "backbone.layers.0.mixer.A_log": "other",
}


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_grouped_by_their_names(name: str) -> None:
    assert group_of(name) == NAMES[name]


def test_mu_is_one_number_or_one_a_group() -> None:
    assert read_mu("0.2") == 0.2
    assert read_mu("-1e-1") == -0.1
    assert read_mu(" attention=0.2, mlp=0.1") == {"attention": 0.2, "mlp": 0.1}
    assert mu_for({"mlp": 0.1}, "x.mlp.y") == 0.1
    assert mu_for({"mlp": 0.1}, "x.attn.y") == 0.0
    assert mu_for({"mlp": 0.1, "other": 0.3}, "x.attn.y") == 0.3
    for wrong in ("", "x", "0.1,0.2", "mlp=0.1,0.2", "mlp=", "mlp=1,mlp=2", "nan", "mlp=inf"):
        with pytest.raises(ModelError, match="allowed"):
            read_mu(wrong)
    with pytest.raises(ModelError, match="norms, embeddings, attention, mlp, other"):
        read_mu("heads=0.2")


def test_each_group_moves_by_its_own_mu_and_the_rest_stays(tmp_path: Path) -> None:
    names = ("a.self_attn.q_proj.weight", "a.mlp.up_proj.weight", "a.norm.weight", "a.mixer.D")
    folders = line(tmp_path, 2, names)
    how = Extrapolation({"attention": 0.5, "mlp": -1.0})
    report = extrapolate_along(folders, how, tmp_path / "out")
    old, new, got = (
        {n: tensor(folder, n) for n in names} for folder in (*folders, tmp_path / "out")
    )
    np.testing.assert_allclose(
        got[names[0]], new[names[0]] + 0.5 * (new[names[0]] - old[names[0]]), rtol=2.0**-24
    )
    np.testing.assert_allclose(got[names[1]], old[names[1]], rtol=2.0**-24)
    for name in names[2:]:
        np.testing.assert_array_equal(got[name], new[name])
    assert report.warnings == ("1 tensors are in no group and stay as they are: a.mixer.D",)
    assert report.changed_share == 0.5
    moved = extrapolate_along(folders, Extrapolation({"other": 0.5}), tmp_path / "other")
    assert "take mu 0.5: a.mixer.D" in moved.warnings[0]
    assert moved.changed_share == 1.0


def svd_step(early: Array, ft: Array, mu: float, k: int) -> Array:
    """theta_ft + mu * (best rank-k approximation of the update), by dense SVD."""
    u, s, vt = np.linalg.svd(ft - early, full_matrices=False)
    result: Array = ft + mu * (u[:, :k] * s[:k]) @ vt[:k]
    return result


def test_low_rank_moves_matrices_along_their_top_directions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def model() -> dict[str, tuple[str, Array]]:
        shapes = {"tall": (30, 7), "wide": (7, 30), "v": (9,), "cube": (2, 3, 4), "thin": (2, 9)}
        return {n: plain(rng.standard_normal(s).astype(np.float32)) for n, s in shapes.items()}

    folders = [write_model(tmp_path / name, model()) for name in ("early", "ft")]
    report = extrapolate_along(folders, Extrapolation(0.5, low_rank=2), tmp_path / "out")
    early, ft, got = (
        {n: t[1].astype(np.float64) for n, t in read_model(f).items()}
        for f in (*folders, tmp_path / "out")
    )
    for name in ("tall", "wide", "thin"):  # thin has rank 2: moves whole
        expected = svd_step(early[name], ft[name], 0.5, 2)
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-6)
    for name in ("v", "cube"):
        np.testing.assert_allclose(got[name], ft[name] + 0.5 * (ft[name] - early[name]), atol=1e-6)
    squares = [np.linalg.svd(ft[n] - early[n])[1] ** 2 for n in ("tall", "wide")]
    share = sum(s[:2].sum() for s in squares) / sum(s.sum() for s in squares)
    assert report.energy_kept == pytest.approx(share, rel=1e-9)
    assert report.warnings == (
        "1 tensors have more than two dimensions and take the whole step, not its top 2 "
        "directions: cube",
    )


def test_low_rank_of_many_pieces_and_threads_gives_the_same_bytes(tmp_path: Path) -> None:
    # 1200 x 1000 elements are three pieces, and more columns than are treated exactly.
    rng = np.random.default_rng(2)
    base = rng.standard_normal((1200, 1000)).astype(np.float32)
    update = sum(
        10.0 * 0.5**i * np.outer(rng.standard_normal(1200), rng.standard_normal(1000))
        for i in range(12)
    )
    early = write_model(tmp_path / "early", {"w": plain(base)})
    ft = write_model(tmp_path / "ft", {"w": plain((base + update).astype(np.float32))})
    for threads in (1, 3):
        how = Extrapolation(1.0, low_rank=3, threads=threads)
        report = extrapolate_along([early, ft], how, tmp_path / f"out{threads}")
    one, three = ((tmp_path / f"out{t}/model.safetensors").read_bytes() for t in (1, 3))
    assert one == three
    expected = svd_step(tensor(early), tensor(ft), 1.0, 3)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(tensor(tmp_path / "out1"), expected, rtol=0, atol=1e-5 * scale)
    assert report.energy_kept is not None
    assert 0.9 < report.energy_kept < 1.0


def test_top_directions_are_those_of_a_dense_svd() -> None:
    rng = np.random.default_rng(3)
    n = 2 * EXACT_COLUMNS
    u = np.linalg.qr(rng.standard_normal((300, 40)))[0]
    v = np.linalg.qr(rng.standard_normal((n, 40)))[0]
    matrix = (u * 0.7 ** np.arange(40)) @ v.T
    top = top_directions(lambda a, b: matrix[a:b], (300, n), 4, block=64, tolerance=1e-12)
    s = np.linalg.svd(matrix)[1]
    assert top.energy == pytest.approx((s**2).sum(), rel=1e-12)
    assert top.kept == pytest.approx((s[:4] ** 2).sum(), rel=1e-10)
    np.testing.assert_allclose(top.right.T @ top.right, np.eye(4), atol=1e-12)
    best = (u[:, :4] * s[:4]) @ v[:, :4].T
    np.testing.assert_allclose(top.project(matrix), best, atol=1e-6)


def test_no_update_has_no_directions_and_moves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still, vectors = rng.standard_normal((6, 5)), rng.standard_normal((2, 5))
    folders = [
        write_model(tmp_path / name, {"w": plain(still), "norm": plain(vector)})
        for name, vector in zip(("early", "ft"), vectors, strict=True)
    ]
    report = extrapolate_along(folders, Extrapolation(0.5, low_rank=1), tmp_path / "out")
    assert (report.changed_share, report.energy_kept) == (5 / 35, None)
    with pytest.raises(ModelError, match="no step to take"):
        extrapolate_along([folders[1]] * 2, Extrapolation(0.5, low_rank=1), tmp_path / "same")
    assert not (tmp_path / "same").exists()


def test_nan_in_a_low_rank_step_is_named(tmp_path: Path) -> None:
    spoilt = np.ones((5, 4), np.float32)
    spoilt[2, 2] = np.nan
    early = write_model(tmp_path / "early", {"w": plain(np.ones((5, 4), np.float32))})
    ft = write_model(tmp_path / "ft", {"w": plain(spoilt)})
    with pytest.raises(ModelError, match="w holds NaN or infinity in the fine-tuned model"):
        extrapolate_along([early, ft], Extrapolation(0.5, low_rank=1), tmp_path / "out")


def test_memory_stays_bounded_with_many_checkpoints(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        large = rng.standard_normal(40 << 18, dtype=np.float32)  # 40 MB
        write_model(tmp_path / f"c{i}", {"large": plain(large)})
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from springback.weights import Extrapolation, extrapolate_along\n"
        "extrapolate_along(sys.argv[1:-1], Extrapolation(0.5, threads=8), sys.argv[-1])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    folders = [str(tmp_path / f"c{i}") for i in range(6)]
    command = [sys.executable, "-W", "error", "-c", code, *folders, str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 20 < int(done.stdout) / 1024 < 150
