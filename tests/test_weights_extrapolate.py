"""What extrapolate writes, against plain float32 arithmetic on whole arrays."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from springback.core import content_hash
from springback.errors import ModelError
from springback.weights import extrapolate, hash_weights, tensor_names
from springback.weights.io.stream import PIECE
from weights_files import Array, bf16, pair, plain, read_model, values, write_model


def reference(early: Array, ft: Array, mu: float) -> Array:
    """theta_ft + mu * (theta_ft - theta_early), written down as it stands."""
    a, b = early.astype(np.float32), ft.astype(np.float32)
    result: Array = b + np.float32(mu) * (b - a)
    return result


def _bf16_random(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    wide = rng.standard_normal(shape).astype(np.float32).view(np.uint32) & 0xFFFF0000
    return bf16(wide.view(np.float32))


def test_float32_result_is_the_formula(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    report = extrapolate(early, ft, 0.3, tmp_path / "out")
    old, new, got = (read_model(f) for f in (early, ft, tmp_path / "out"))
    for name in "abcd":
        expected = reference(old[name][1], new[name][1], 0.3)
        # Three float32 roundings of numbers below 8 in the reference, one in ours.
        np.testing.assert_allclose(got[name][1], expected, rtol=0, atol=4 * 8 * 2.0**-24)
    assert (report.tensors, report.parameters, report.dtypes) == (4, 4000, {"float32": 4})
    assert report.changed_share > 0.99
    assert report.rounding_error < 1e-5
    assert report.warnings == ()


def test_each_tensor_keeps_its_dtype_and_non_floats_are_copied(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ids = plain(np.arange(7, dtype=np.int64))
    mask = plain(np.array([True, False, True]))  # three bytes: what follows is not aligned

    def model() -> dict[str, Any]:
        return {
            "mask": mask,
            "w32": plain(rng.standard_normal((5, 3)).astype(np.float32)),
            "w16": plain(rng.standard_normal(9).astype(np.float16)),
            "wbf": _bf16_random(rng, (33,)),
            "w64": plain(rng.standard_normal(4)),
            "scalar": plain(np.array(rng.standard_normal(), np.float32)),
            "empty": plain(np.empty((0, 4), np.float32)),
            "ids": ids,
        }

    early, ft = model(), model()
    folders = write_model(tmp_path / "early", early), write_model(tmp_path / "ft", ft)
    report = extrapolate(*folders, 0.5, tmp_path / "out")
    got = read_model(tmp_path / "out")
    assert list(got) == list(ft)
    assert {n: (t[0], t[1].shape) for n, t in got.items()} == {
        n: (t[0], t[1].shape) for n, t in ft.items()
    }
    for name, bits in (("w32", 24), ("scalar", 24), ("w16", 11), ("wbf", 8), ("w64", 24)):
        expected = reference(values(early[name]), values(ft[name]), 0.5)
        # Half a unit in the last place of the dtype, and the float32 error of the reference.
        np.testing.assert_allclose(values(got[name]), expected, rtol=2.0**-bits, atol=2e-6)
    for name in ("ids", "mask", "empty"):
        assert got[name][1].tobytes() == ft[name][1].tobytes()
    assert report.parameters == 15 + 9 + 33 + 4 + 1 + 0
    assert report.dtypes == {
        "bfloat16": 1,
        "bool": 1,
        "float16": 1,
        "float32": 3,
        "float64": 1,
        "int64": 1,
    }


def test_mu_zero_reproduces_the_fine_tuned_file_to_the_byte(tmp_path: Path) -> None:
    odd = np.array([-0.0, 0.0, 1e-45, -3e38, 1.5], np.float32)
    bits = np.arange(0x7C00, dtype=np.uint16).view(np.float16)  # every finite positive float16
    ft = {"a": plain(odd), "b": plain(bits), "c": bf16([-0.0, 1.0]), "n": plain(np.arange(3))}
    early = {
        "a": plain(-1 - np.abs(odd)),  # -0.0 + 0 * (-0.0 + 1) would be 0.0
        "b": plain(-bits),
        "c": bf16([-2.0, 3.0]),
        "n": plain(np.arange(3)),
    }
    folders = write_model(tmp_path / "early", early), write_model(tmp_path / "ft", ft)
    report = extrapolate(*folders, 0, tmp_path / "out")
    written = (tmp_path / "out/model.safetensors").read_bytes()
    assert written == (tmp_path / "ft/model.safetensors").read_bytes()
    assert (report.changed_share, report.rounding_error) == (0.0, 0.0)
    assert report.out_hash == report.ft_hash != report.early_hash


def test_mu_minus_one_gives_the_early_model_back(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    extrapolate(early, ft, -1.0, tmp_path / "out")
    old, got = read_model(early), read_model(tmp_path / "out")
    for name in "abcd":
        np.testing.assert_allclose(got[name][1], old[name][1], rtol=2.0**-23, atol=0)


def test_output_is_sharded_as_the_fine_tuned_model_whatever_early_is(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    tensors = read_model(early)
    halves = [{n: tensors[n] for n in part} for part in ("da", "cb")]
    other = write_model(tmp_path / "other", *halves)
    for name, first in (("one", early), ("two", other)):
        extrapolate(first, ft, 0.3, tmp_path / name)
    index = "model.safetensors.index.json"
    assert (tmp_path / "one" / index).read_bytes() == (ft / index).read_bytes()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard in shards:
        one, two = ((tmp_path / name / shard).read_bytes() for name in ("one", "two"))
        assert one == two
    listed = {p.name for p in (tmp_path / "one").iterdir()}
    assert listed == {*shards, index, "springback.json", "README.md"}


def test_one_dtype_on_request_in_weights_index_and_config(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    config = {"torch_dtype": "float32", "text_config": {"dtype": "float32"}, "hidden_size": 3}
    (ft / "config.json").write_text(json.dumps(config))
    extrapolate(early, ft, 0.3, tmp_path / "out", dtype="bfloat16")
    old, new, got = (read_model(f) for f in (early, ft, tmp_path / "out"))
    for name in "abcd":
        exact = reference(old[name][1], new[name][1], 0.3)
        theirs = torch.from_numpy(exact).to(torch.bfloat16).view(torch.int16).numpy()
        assert got[name][0] == "BF16"
        # The reference's own float32 error may tip a tie: at most the neighbouring value.
        assert np.abs(got[name][1].view(np.int16).astype(int) - theirs).max() <= 1
        assert np.mean(got[name][1].view(np.int16) != theirs) < 0.01
    with safe_open(tmp_path / "out/model-00001-of-00002.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written == {
        "torch_dtype": "bfloat16",
        "text_config": {"dtype": "bfloat16"},
        "hidden_size": 3,
    }
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4000 * 2


def test_config_without_a_dtype_gets_the_one_that_was_asked_for(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    (ft / "config.json").write_text('{"hidden_size": 3}')
    extrapolate(early, ft, 0.3, tmp_path / "out", dtype="float16")
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written == {"hidden_size": 3, "dtype": "float16"}


def test_a_tensor_of_several_pieces_is_the_same_for_any_number_of_threads(tmp_path: Path) -> None:
    early, ft = pair(tmp_path, shape=(2 * PIECE + 5,), names="ab")
    reports = [
        extrapolate(early, ft, 0.7, tmp_path / f"out{threads}", threads=threads)
        for threads in (1, 4)
    ]
    assert reports[0] == reports[1]
    old, new, got = (read_model(f) for f in (early, ft, tmp_path / "out1"))
    for name in "ab":
        expected = reference(old[name][1], new[name][1], 0.7)
        np.testing.assert_allclose(got[name][1], expected, rtol=0, atol=4 * 8 * 2.0**-24)
        assert read_model(tmp_path / "out4")[name][1].tobytes() == got[name][1].tobytes()


def test_a_header_that_lists_tensors_in_another_order_than_their_bytes(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    path = early / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])
    header = json.dumps(dict(reversed(table.items()))).encode()
    assert len(header) == length
    turned = tmp_path / "turned" / "model.safetensors"
    turned.parent.mkdir()
    turned.write_bytes(raw[:8] + header + raw[8 + length :])
    report = extrapolate(ft, turned.parent, 0.0, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == turned.read_bytes()
    assert report.out_hash == hash_weights(tmp_path / "out")
    extrapolate(ft, turned.parent, 0.0, tmp_path / "half", dtype="float16")
    got = read_model(tmp_path / "half")
    assert list(got) == list("abcd")
    for name, (_, array) in read_model(early).items():
        np.testing.assert_array_equal(got[name][1], array.astype(np.float16))


def test_report_by_hand_and_warning_when_rounding_eats_the_step(tmp_path: Path) -> None:
    # mu * delta = 0.25 * (2^-8, 0.5, 0) = (2^-10, 0.125, 0).  Written: 1.0 (rounded away),
    # 2.125 (exact), 3.0.  Error 2^-10, step sqrt(2^-20 + 2^-6).
    old = write_model(tmp_path / "early", {"w": bf16([1 - 2**-8, 1.5, 3.0])})
    new = write_model(tmp_path / "ft", {"w": bf16([1.0, 2.0, 3.0])})
    report = extrapolate(old, new, 0.25, tmp_path / "out")
    assert values(read_model(tmp_path / "out")["w"]).tolist() == [1.0, 2.125, 3.0]
    assert report.changed_share == 1 / 3
    assert report.rounding_error == pytest.approx(2**-10 / math.sqrt(2**-20 + 2**-6), rel=1e-12)
    assert report.warnings == ()
    assert report.bytes_written == (tmp_path / "out/model.safetensors").stat().st_size

    small = write_model(tmp_path / "small", {"w": bf16([1 - 2**-8, 2.0, 3.0])})
    lost = extrapolate(small, new, 0.25, tmp_path / "lost")  # only the step that is rounded away
    assert (lost.changed_share, lost.rounding_error) == (0.0, 1.0)
    assert "rounding to bfloat16" in lost.warnings[0]
    assert "--dtype float32" in lost.warnings[0]
    kept = extrapolate(small, new, 0.25, tmp_path / "kept", dtype="float32")
    assert (kept.rounding_error, kept.warnings) == (0.0, ())
    assert read_model(tmp_path / "kept")["w"][1].tolist() == [1 + 2**-10, 2.0, 3.0]


def test_equal_checkpoints_are_named_as_such(tmp_path: Path) -> None:
    _, ft = pair(tmp_path)
    with pytest.raises(ModelError, match="same weights"):
        extrapolate(ft, ft, 0.5, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"early", "ft"}


def test_hashes_are_of_names_and_bytes_and_stand_in_the_report(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    report = extrapolate(early, ft, 0.3, tmp_path / "out")
    for folder, said in (
        (early, report.early_hash),
        (ft, report.ft_hash),
        (tmp_path / "out", report.out_hash),
    ):
        files = sorted(folder.glob("*.safetensors"))
        pairs = [[p.name, hashlib.sha256(p.read_bytes()).hexdigest()] for p in files]
        assert said == hash_weights(folder) == content_hash(pairs)
    before = hash_weights(early)
    (early / "config.json").write_text("{}")  # not a weight file
    assert hash_weights(early) == before
    raw = bytearray((early / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (early / "model.safetensors").write_bytes(raw)
    assert hash_weights(early) != before


def test_adapter_hash_covers_its_config(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_model(adapter, {"w": plain(np.ones(3, np.float32))})
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    seen = set()
    for alpha in (8, 16):
        (adapter / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        seen.add(hash_weights(adapter))
    assert len(seen) == 2


def test_tensor_names_reads_headers(tmp_path: Path) -> None:
    model = {"w": bf16([[1.0, 2.0]]), "n": plain(np.arange(3))}
    assert tensor_names(write_model(tmp_path / "m", model)) == {
        "w": ((1, 2), "bfloat16"),
        "n": ((3,), "int64"),
    }


def test_small_files_come_from_the_fine_tuned_model_and_code_does_not(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    wanted = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "merges.txt",
        "qwen.tiktoken",
        "additional_chat_templates/tool.jinja",
    ]
    unwanted = ["modeling_x.py", "training_args.bin", "trainer_state.json", "optimizer.pt"]
    (ft / "additional_chat_templates").mkdir()
    for name in (*wanted, *unwanted):
        (ft / name).write_text(json.dumps({"from": name, "auto_map": {}}))
    (early / "special_tokens_map.json").write_text("{}")
    report = extrapolate(early, ft, 0.3, tmp_path / "out")
    for name in wanted:
        assert (tmp_path / "out" / name).read_bytes() == (ft / name).read_bytes()
    for name in (*unwanted, "special_tokens_map.json"):
        assert not (tmp_path / "out" / name).exists()
    assert any("auto_map" in text for text in report.warnings)


def test_springback_json_says_what_went_in(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    report = extrapolate(early, ft, 0.3, tmp_path / "out", dtype="float32")
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert (record["kind"], record["mu"], record["dtype"]) == ("extrapolated", 0.3, "float32")
    assert record["early"] == {"name": "early", "content_hash": hash_weights(early)}
    assert record["ft"] == {"name": "ft", "content_hash": hash_weights(ft)}
    assert record["content_hash"] == hash_weights(tmp_path / "out")
    assert record["report"]["changed_share"] == report.changed_share
    assert set(record["versions"]) == {"springback", "numpy", "python"}
    assert str(tmp_path) not in json.dumps(record)  # folders above are not published


def test_model_card_metadata_is_read_by_the_hub_library(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    (ft / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    report = extrapolate(early, ft, 0.3, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["springback", "model-extrapolation"],
    }
    for said in (report.early_hash, report.ft_hash, report.out_hash, "mu = 0.3"):
        assert said in card.text


def _as_snapshot(folder: Path, cache: Path, repo: str) -> Path:
    """``folder`` as the hub's cache keeps it: blobs, and links to them under snapshots."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for path in folder.iterdir():
        blob = root / "blobs" / hashlib.sha256(path.name.encode()).hexdigest()
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_snapshot_of_the_hub_cache_is_a_model_folder(tmp_path: Path) -> None:
    early, ft = pair(tmp_path)
    (ft / "config.json").write_text("{}")
    snapshot = _as_snapshot(ft, tmp_path / "hub", "some-org/some-model")
    plainly = extrapolate(early, ft, 0.3, tmp_path / "plain")
    linked = extrapolate(early, snapshot, 0.3, tmp_path / "out")
    assert linked == plainly
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert ModelCard.load(tmp_path / "out/README.md").data.base_model == "some-org/some-model"
    record = json.loads((tmp_path / "out/springback.json").read_text())
    assert record["ft"]["name"] == "some-org/some-model@0123abcd"
