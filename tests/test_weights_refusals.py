"""What extrapolate does not take, and what it leaves behind when it refuses: nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from springback.errors import ModelError, SpaceError, StoreError
from springback.weights import extrapolate, hash_weights, tensor_names
from weights_files import Tensor, bf16, pair, plain, read_model, write_file, write_model

INDEX = "model.safetensors.index.json"


def ones(*shape: int) -> Tensor:
    return plain(np.ones(shape, np.float32))


def refuse(early: Path, ft: Path, mu: float = 0.5, **settings: Any) -> str:
    """The message of the refusal; checks that it is one line and that no trace is left."""
    out = ft.parent / "out"
    before = set(ft.parent.iterdir())
    with pytest.raises(ModelError) as caught:
        extrapolate(early, ft, mu, out, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert set(ft.parent.iterdir()) == before
    return message


def two(root: Path, early: dict[str, Tensor], ft: dict[str, Tensor]) -> tuple[Path, Path]:
    return write_model(root / "early", early), write_model(root / "ft", ft)


def test_first_differences_in_names_shapes_and_dtypes_are_named(tmp_path: Path) -> None:
    early = {"a": ones(2), "b": ones(2), "c": ones(2), "d": bf16([1.0]), "e": ones(2), "f": ones(1)}
    ft = {"b": ones(2), "c": ones(1, 2), "d": ones(1), "e": ones(2), "f": ones(1), "g": ones(1)}
    message = refuse(*two(tmp_path, early, ft))
    assert f"a is only in {tmp_path / 'early'}" in message
    assert "c is float32 [2] in one and float32 [1, 2] in the other" in message
    assert "d is bfloat16 [1] in one and float32 [1] in the other" in message
    assert "and 1 more" in message  # g, which only ft has


def test_tensors_without_floats_must_be_equal(tmp_path: Path) -> None:
    early = {"w": ones(3), "ids": plain(np.array([1, 2, 3]))}
    ft = {"w": ones(3), "ids": plain(np.array([1, 2, 4]))}
    message = refuse(*two(tmp_path, early, ft))
    assert "ids holds no floats and differs" in message


def test_dtypes_that_have_no_arithmetic_here_are_named(tmp_path: Path) -> None:
    eight = {"w": ("F8_E4M3", np.ones(4, np.uint8))}
    message = refuse(*two(tmp_path, eight, eight))
    assert "w is f8_e4m3, which is not extrapolated" in message
    assert "dequantise" in message


@pytest.mark.parametrize("where", ["early", "ft"])
def test_nan_in_an_input_is_named_with_its_model(tmp_path: Path, where: str) -> None:
    spoilt = np.ones(100_000, np.float32)
    spoilt[99_999] = np.nan
    models = {side: {"fine": ones(3), "w": ones(100_000)} for side in ("early", "ft")}
    models[where]["w"] = plain(spoilt)
    message = refuse(*two(tmp_path, models["early"], models["ft"]))
    called = {"early": "the early model", "ft": "the fine-tuned model"}[where]
    assert message.startswith(f"w holds NaN or infinity in {called}")


def test_overflow_after_the_cast_is_named_and_float32_is_offered(tmp_path: Path) -> None:
    # 60000 + 0.5 * (60000 - 20000) = 80000: more than float16's 65504.
    early = {"fine": plain(np.ones(3, np.float16)), "w": plain(np.array([2e4], np.float16))}
    ft = {"fine": plain(np.ones(3, np.float16)), "w": plain(np.array([6e4], np.float16))}
    folders = two(tmp_path, early, ft)
    message = refuse(*folders)
    assert message.startswith("w overflows at mu 0.5")
    assert "--dtype float32" in message
    extrapolate(*folders, 0.5, tmp_path / "wide", dtype="float32")
    assert read_model(tmp_path / "wide")["w"][1].tolist() == [80000.0]


def test_refusal_in_the_second_shard_drops_the_first_one_too(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    tensors = read_model(ft)
    spoilt = tensors["d"][1].copy()
    spoilt[0, 0] = np.inf
    write_file(ft / "model-00002-of-00002.safetensors", {"c": tensors["c"], "d": plain(spoilt)})
    assert "d holds NaN or infinity in the fine-tuned model" in refuse(early, ft)


def _point_index_at(ft: Path, shard: str) -> None:
    index = json.loads((ft / INDEX).read_text())
    index["weight_map"]["a"] = shard
    (ft / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "sub/../../secret.safetensors",
        "/etc/secret.safetensors",
        "..\\secret.safetensors",
        "./model-00001-of-00002.safetensors",
        ".hidden.safetensors",
        "weights.bin",
        "",
        7,
    ],
)
def test_shard_names_may_not_leave_the_folder(tmp_path: Path, shard: str) -> None:
    early, ft = pair(tmp_path)
    write_file(tmp_path / "secret.safetensors", {"a": ones(40, 25)})
    _point_index_at(ft, shard)
    for use in (hash_weights, tensor_names):
        with pytest.raises(ModelError, match="names the shard"):
            use(ft)
    assert "inside the folder" in refuse(early, ft)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.json", INDEX])
def test_links_may_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    early, ft = pair(tmp_path)
    (ft / "tokenizer.json").write_text("{}")
    (ft / name).rename(tmp_path / "elsewhere")
    (ft / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="outside of the model folder"):
        extrapolate(early, ft, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    shard = ft / "model-00001-of-00002.safetensors"
    (ft / "real").mkdir()
    shard.rename(ft / "real" / "x.safetensors")
    shard.symlink_to("real/x.safetensors")
    extrapolate(early, ft, 0.0, tmp_path / "out")
    assert set(read_model(tmp_path / "out")) == set("abcd")


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    early, _ = pair(tmp_path)
    for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(b"not even a pickle")
        message = refuse(early, folder)
        assert name in message
        assert "can run code" in message
        with pytest.raises(ModelError, match="can run code"):
            hash_weights(folder)


def test_adapters_are_told_to_be_merged_first(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    (early / "adapter_config.json").write_text("{}")
    message = refuse(early, ft)
    assert "holds an adapter (adapter_config.json)" in message
    assert "merge" in message


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncate, "cannot read"),
        (_pointer, "git lfs pull"),
        (Path.unlink, "no weights in"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_bytes(b"\xff" * 64), "cannot read"),
        (lambda path: write_file(path, {}), "holds no tensors"),
    ],
)
def test_files_that_are_not_whole_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    early, ft = pair(tmp_path)
    spoil(early / "model.safetensors")
    assert said in refuse(early, ft)


def test_an_index_must_fit_its_shards(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    _point_index_at(ft, "model-00002-of-00002.safetensors")  # a lies in the first
    assert "says a is in model-00002" in refuse(early, ft)
    _point_index_at(ft, "model-00009-of-00002.safetensors")
    assert "model-00009-of-00002.safetensors is missing" in refuse(early, ft)
    (ft / INDEX).write_text("{}")
    assert "has no weight_map" in refuse(early, ft)
    (ft / INDEX).write_text("{")
    assert "cannot read" in refuse(early, ft)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    early, _ = pair(tmp_path)
    twice = write_model(tmp_path / "twice", {"a": ones(2), "b": ones(2)}, {"b": ones(2)})
    assert "tensor b is in model-00001" in refuse(early, twice)


def test_settings_outside_of_what_is_allowed_are_refused(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    assert "allowed: a finite number" in refuse(early, ft, float("nan"))
    assert "auto, float32, bfloat16, float16" in refuse(early, ft, dtype="int8")
    assert "allowed: 1 or more" in refuse(early, ft, threads=0)
    assert "which is not there" in refuse(early, tmp_path / "nowhere")
    assert "which is a file" in refuse(early / "model.safetensors", ft)


def test_an_existing_output_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    out = tmp_path / "out"
    extrapolate(early, ft, 0.5, out)
    other, _ = pair(tmp_path / "other", seed=5)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for sources, mu, dtype in (
        ((early, ft), 0.6, "auto"),
        ((early, ft), 0.5, "bfloat16"),
        ((other, ft), 0.5, "auto"),
    ):
        with pytest.raises(StoreError, match="not the result of these inputs"):
            extrapolate(*sources, mu, out, dtype=dtype)  # type: ignore[arg-type]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    for target in (ft, early):  # a model is no output folder
        with pytest.raises(StoreError, match="choose another --out"):
            extrapolate(early, ft, 0.5, target)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="choose another --out"):
        extrapolate(early, ft, 0.5, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_identical_result_is_reported_without_work_and_an_edited_one_is_not(
    tmp_path: Path,
) -> None:
    early, ft = pair(tmp_path)
    out = tmp_path / "out"
    first = extrapolate(early, ft, 0.5, out)
    stamps = {p.name: p.stat().st_mtime_ns for p in (out, *out.iterdir())}
    assert extrapolate(early, ft, 0.5, out) == first
    assert {p.name: p.stat().st_mtime_ns for p in (out, *out.iterdir())} == stamps
    shard = out / "model-00001-of-00002.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(StoreError, match="not the result of these inputs"):
        extrapolate(early, ft, 0.5, out)


def test_an_empty_output_folder_is_filled(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    (tmp_path / "out").mkdir()
    extrapolate(early, ft, 0.5, tmp_path / "out")
    assert set(read_model(tmp_path / "out")) == set("abcd")


def test_too_small_a_disk_is_noticed_before_anything_is_read(tmp_path: Path) -> None:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    ).encode()
    for name in ("early", "ft"):  # 4 TB, of which nothing is on the disk: a file of one hole
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        try:
            os.truncate(path, 8 + len(header) + (1 << 42))
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            pytest.skip("this file system does not hold files of 4 TB")
    with pytest.raises(SpaceError, match=r"needs 4398\.0 GB of disk"):
        extrapolate(tmp_path / "early", tmp_path / "ft", 0.5, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"early", "ft"}
