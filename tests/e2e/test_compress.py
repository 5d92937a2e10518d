"""The coder on the real model through the command line, and 10,000 files on a tiny one."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

import warm_start
from codec_fixture import SMALL, blocks_of, pack, random_bytes, unpack
from springback import probes
from springback.compression.files import scored_rows
from springback.compression.model import load_codec_model
from springback.compression.settings import CodecSettings
from springback.data import load_slice


def run(*words: str, cwd: Path) -> warm_start.Done:
    return warm_start.run(words, cwd, cwd.parent)


def test_ten_thousand_random_files_come_back(tiny_llama: Path, tmp_path: Path) -> None:
    """Byte strings, texts, and texts with bytes in them, each in a container of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "tiniest"
    shutil.copytree(tiny_llama, folder)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    codec = load_codec_model(folder)
    rng = random.Random(0)
    coded = 0
    for _ in range(10_000):
        data = random_bytes(rng, 100)
        whole = pack(codec, data, SMALL)
        assert unpack(codec, whole) == data
        coded += any(block.groups for block in blocks_of(whole))
    assert coded > 5_000  # most went through the model, the others were no text


@pytest.fixture(scope="module")
def reviews() -> bytes:
    rows = load_slice("reviews:positive", limit=200, seed=0).rows
    return "\n\n".join(row.response for row in rows).encode()[:12_000]


def test_the_real_model_compresses_and_restores_a_text(reviews: bytes, tmp_path: Path) -> None:
    data = reviews + b"\xff\xfe bytes \x00 at the end"
    (tmp_path / "in").write_bytes(data)
    words = ["--chunk", "128", "--batch", "48"]
    done = run("compress", "in", "--out", "c", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c").stat().st_size < len(data) / 4
    done = run("decompress", "c", "--out", "back", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == data

    # The coded size is the one that bits per byte predicts.
    settings = CodecSettings(chunk=128, batch=48)
    codec = load_codec_model()
    rows = scored_rows(codec, data, settings)
    predicted = probes.bits_per_byte(probes.nll(codec.model, rows, codec.tokenizer))
    blocks = blocks_of((tmp_path / "c").read_bytes())
    bits = 8 * sum(len(group.coded) for block in blocks for group in block.groups)
    measured = bits / (len(data) - sum(block.raw_bytes for block in blocks))
    assert measured == pytest.approx(predicted, rel=0.005)


def test_a_damaged_file_and_another_model_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"The film was good. " * 3)
    model = ["--model", str(tiny_llama)]
    assert run("compress", "in", "--out", "c", *model, cwd=tmp_path).returncode == 0
    done = run("decompress", "c", "--out", "back", cwd=tmp_path)  # the built-in model
    assert done.returncode == 2
    assert f"with the model '{tiny_llama.name}'" in done.stderr
    whole = bytearray((tmp_path / "c").read_bytes())
    whole[len(whole) // 2] ^= 4
    (tmp_path / "c").write_bytes(whole)
    done = run("decompress", "c", "--out", "back", *model, cwd=tmp_path)
    assert done.returncode == 2
    assert "damaged or cut short" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "in"]
