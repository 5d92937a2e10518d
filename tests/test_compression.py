"""Any bytes in, the same bytes out; and a clear word where that cannot be."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import springback
from codec_fixture import SMALL, TEXT, pack, packed, random_bytes, unpack
from springback import probes
from springback.compression import container
from springback.compression.files import scored_rows
from springback.compression.model import CodecModel, load_codec_model
from springback.compression.settings import CodecSettings
from springback.errors import CodecError, ModelError, SpaceError, SpringbackError
from springback.models.encoding import text_bytes

LONG = (TEXT * 30 + "He is in the thing that the king said.\n" * 50).encode()


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> CodecModel:
    return load_codec_model(tiny_llama)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_bytes(TEXT.encode())
    return path


@given(data=st.binary(max_size=80))
@example(data=b"")
@example(data=b"\xc3")
@example(data=bytes(range(256)))
@settings(max_examples=60)
def test_bytes_come_back(codec: CodecModel, data: bytes) -> None:
    assert unpack(codec, pack(codec, data)) == data


@given(text=st.text(max_size=40))
@example(text="<|im_start|>user\n<pad>")
@example(text="e\u0301 é \ufb01 \u00a0  \r\n\t x")  # forms that a normaliser would change
@settings(max_examples=60)
def test_texts_come_back(codec: CodecModel, text: str) -> None:
    assert unpack(codec, pack(codec, text.encode())) == text.encode()


def test_many_random_strings_come_back(codec: CodecModel) -> None:
    """40 each in its own container, and 500 in one; tests/e2e has 10,000, each in its own."""
    rng = random.Random(1)
    strings = [random_bytes(rng, 80) for _ in range(500)]
    for data in strings[:40]:
        assert unpack(codec, pack(codec, data)) == data
    large = dataclasses.replace(SMALL, chunk=16, batch=4096)
    assert unpack(codec, pack(codec, b"".join(strings), large)) == b"".join(strings)


def test_blocks_are_coded_apart_and_characters_not_cut(
    codec: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springback.compression.files.BLOCK", 101)
    data = ("世界 🎉 é " * 40).encode() + b"\xe4\xb8"
    whole, found = packed(codec, data)
    assert unpack(codec, whole) == data
    assert found.raw_bytes == 2  # the character at the end that is none, and nothing else


@pytest.mark.parametrize("chunk", [1, 7, 64, 511])
def test_every_chunk_length_and_batch_gives_the_same_bytes(codec: CodecModel, chunk: int) -> None:
    data = LONG[:90]
    for batch in (1, 3, 64):
        made = CodecSettings(chunk=chunk, batch=batch, threads=1)
        assert unpack(codec, pack(codec, data, made)) == data


def test_coding_and_decoding_call_the_model_alike(codec: CodecModel) -> None:
    """Shape by shape and bit by bit: the same inputs and the same logits in both directions."""
    calls: list[tuple[torch.Size, float]] = []

    def note(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        calls.append((kwargs["input_ids"].shape, float(out.logits.double().sum())))

    handle = codec.model.register_forward_hook(note, with_kwargs=True)
    whole = pack(codec, LONG[:1000])
    coding, calls[:] = list(calls), []
    assert unpack(codec, whole) == LONG[:1000]
    handle.remove()
    assert calls == coding
    assert {shape[1] for shape, _ in calls} == {1}  # a token of each row a step, no blocks
    assert len({shape[0] for shape, _ in calls}) > 1  # rows did leave the batch


def test_coded_size_is_what_bits_per_byte_predicts(codec: CodecModel) -> None:
    made = CodecSettings(chunk=128, batch=64, threads=1)
    found = packed(codec, LONG, made)[1]
    rows = scored_rows(codec, LONG, made)
    assert sum(r.text_bytes for r in rows) == len(LONG) == found.original_bytes
    predicted = probes.bits_per_byte(probes.nll(codec.model, rows, codec.tokenizer))
    assert found.coded_bits_per_byte == pytest.approx(predicted, rel=0.005)
    # Header, tables and checksums are what the container has on top.
    assert 0 < found.container_bytes - found.coded_bytes < 200


def test_bytes_of_a_text_are_counted_whatever_the_cut(codec: CodecModel) -> None:
    """A token may be a part of a character: 'é世' is 2 + 3 bytes, a token each."""
    ids = codec.tokenizer("é世", add_special_tokens=False)["input_ids"]
    assert len(ids) == 5
    assert [text_bytes(codec.tokenizer, ids[:n]) for n in range(6)] == [0, 1, 2, 3, 4, 5]
    end = codec.tokenizer.eos_token_id
    assert text_bytes(codec.tokenizer, [*ids[:1], end]) == 1
    assert text_bytes(codec.tokenizer, codec.tokenizer("the \ufffd")["input_ids"]) == 7


def test_an_easy_text_becomes_smaller(codec: CodecModel, tmp_path: Path) -> None:
    """A model that knows the text: one bigram table in the embedding would do; here a bias is
    enough, since the text is one letter."""
    from transformers import LlamaForCausalLM

    folder = tmp_path / "biased"
    shutil.copytree(codec.model.config._name_or_path, folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    letter = codec.tokenizer.convert_tokens_to_ids("n")
    model.config.tie_word_embeddings = False
    head = torch.zeros_like(model.lm_head.weight)
    head[letter] = model.model.norm.weight * 0 + 1
    model.lm_head.weight = torch.nn.Parameter(head)
    with torch.no_grad():  # hidden states become all positive: their sum is the letter's logit
        model.model.norm.weight.fill_(0.5)
        model.model.embed_tokens.weight.abs_()
    model.save_pretrained(folder)
    data = b"n" * 2000
    biased = load_codec_model(folder)
    whole, found = packed(biased, data)
    assert unpack(biased, whole) == data
    assert found.bits_per_byte < 8


def _with_other_weights(source: Path, target: Path, change: float) -> Path:
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["model.norm.weight"] += change
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_another_model_is_refused_before_it_is_loaded(
    tiny_llama: Path, file: Path, tmp_path: Path
) -> None:
    other = _with_other_weights(tiny_llama, tmp_path / "other", 0.01)
    springback.compress(file, tmp_path / "c", tiny_llama, SMALL)
    with pytest.raises(CodecError, match=f"with the model '{tiny_llama.name}'.*not with"):
        springback.decompress(tmp_path / "c", tmp_path / "back", other)
    assert not (tmp_path / "back").exists()


def test_another_tokenizer_is_refused(codec: CodecModel) -> None:
    other = dataclasses.replace(codec, tokens=bytes(16))
    with pytest.raises(CodecError, match="another tokenizer"):
        unpack(other, pack(codec, b"the king"))


def test_other_arithmetic_is_detected_and_leaves_nothing(
    codec: CodecModel, tiny_llama: Path, tmp_path: Path
) -> None:
    """A model that claims the same hash and computes slightly other numbers, as other hardware."""
    drifted = load_codec_model(_with_other_weights(tiny_llama, tmp_path / "other", 1e-3))
    drifted = dataclasses.replace(drifted, weights=codec.weights)
    with pytest.raises(CodecError, match="differ in low bits"):
        unpack(drifted, pack(codec, LONG[:1500]))


def test_threads_are_those_of_the_container(codec: CodecModel) -> None:
    seen: set[int] = set()
    handle = codec.model.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        whole = pack(codec, b"the king said", dataclasses.replace(SMALL, threads=2))
        assert unpack(codec, whole) == b"the king said"
    finally:
        handle.remove()
    assert seen == {2}
    assert torch.get_num_threads() == before


def test_dtype_is_that_of_the_container(
    codec: CodecModel, tiny_llama: Path, file: Path, tmp_path: Path
) -> None:
    narrow = dataclasses.replace(SMALL, dtype="bfloat16")
    springback.compress(file, tmp_path / "c", tiny_llama, narrow)
    with pytest.raises(CodecError, match="dtype bfloat16, this is float32"):
        unpack(codec, (tmp_path / "c").read_bytes())
    springback.decompress(tmp_path / "c", tmp_path / "back", tiny_llama)
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_a_sliding_window_codes_too(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shutil.copytree(tiny_llama, tmp_path / "window")
    config = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.3,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "window")
    codec = load_codec_model(tmp_path / "window")
    made = CodecSettings(chunk=40, batch=8, threads=1)
    assert unpack(codec, pack(codec, LONG[:500], made)) == LONG[:500]


def test_chunks_longer_than_the_model_reads_are_cut(codec: CodecModel) -> None:
    made = CodecSettings(chunk=100_000, batch=4, threads=1)
    whole, found = packed(codec, LONG[:700], made)
    assert found.chunks == 2  # the tiny model reads 512 tokens
    assert unpack(codec, whole) == LONG[:700]


def test_a_batch_that_does_not_fit_is_refused(
    codec: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springback.compression.model.available_memory", lambda: 1000)
    with pytest.raises(SpaceError, match="lower --batch or --chunk"):
        pack(codec, LONG)


def test_a_verified_file_was_decoded(tiny_llama: Path, file: Path, tmp_path: Path) -> None:
    made = dataclasses.replace(SMALL, verify=True)
    found = springback.compress(file, tmp_path / "c", tiny_llama, made)
    assert found.verified
    assert springback.decompress(tmp_path / "c", tmp_path / "back", tiny_llama) == len(
        file.read_bytes()
    )


@pytest.fixture
def noisy(codec: CodecModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that does not compute the same thing twice."""

    def noise(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out + 0.1 * torch.rand_like(out)

    model: Any = codec.model
    handle = model.get_output_embeddings().register_forward_hook(noise)
    monkeypatch.setattr("springback.compression.files.load_codec_model", lambda *_: codec)
    yield
    handle.remove()


@pytest.mark.usefixtures("noisy")
def test_what_fails_to_verify_never_appears(file: Path, tmp_path: Path) -> None:
    made = dataclasses.replace(SMALL, verify=True)
    with pytest.raises(CodecError, match="differ in low bits"):
        springback.compress(file, tmp_path / "c", settings=made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt"]


@pytest.mark.usefixtures("noisy")
def test_what_fails_to_decode_leaves_the_old_file(file: Path, tmp_path: Path) -> None:
    springback.compress(file, tmp_path / "c", settings=SMALL)
    (tmp_path / "back").write_bytes(b"old")
    with pytest.raises(CodecError):
        springback.decompress(tmp_path / "c", tmp_path / "back", force=True)
    assert (tmp_path / "back").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "c", "in.txt"]


def test_paths_that_cannot_be_used_are_refused_before_a_model_is_loaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "springback.compression.files.load_codec_model", None
    )  # would raise TypeError
    (tmp_path / "there").write_bytes(b"old")
    for given_, out, says in (
        (tmp_path / "nowhere", tmp_path / "c", "no such file"),
        (tmp_path, tmp_path / "c", "is a folder"),
        (file, tmp_path, "is a folder"),
        (file, file, "is the file to read"),
        (file, tmp_path / "there", "add --force"),
    ):
        with pytest.raises(SpringbackError, match=says):
            springback.compress(given_, out)
        with pytest.raises(SpringbackError, match=says):
            springback.decompress(given_, out)
    with pytest.raises(CodecError, match="not a compressed file"):
        springback.decompress(file, tmp_path / "back")
    assert (tmp_path / "there").read_bytes() == b"old"


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"chunk": 0}, {"batch": -1}, {"threads": 0}, {"dtype": "int8"}):
        with pytest.raises(SpringbackError, match="allowed"):
            CodecSettings(**bad)


def test_a_model_that_gives_no_numbers_is_refused(codec: CodecModel) -> None:
    model: Any = codec.model
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, args, out: out * float("nan")
    )
    try:
        with pytest.raises(ModelError, match="not all finite"):
            pack(codec, b"the king")
    finally:
        handle.remove()


def test_the_container_names_its_model_without_its_path(
    tiny_llama: Path, file: Path, tmp_path: Path
) -> None:
    springback.compress(file, tmp_path / "c", tiny_llama, SMALL)
    data = (tmp_path / "c").read_bytes()
    assert str(tiny_llama.parent).encode() not in data
    assert tiny_llama.name.encode() in data
    assert data[len(container.MAGIC)] == container.VERSION
