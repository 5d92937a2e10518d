"""Promises about the whole process: memory, no torch, and models that Transformers loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from springback.weights import extrapolate, tensor_names
from weights_files import plain, read_model, write_model

MEGABYTE = 1 << 20


def run_apart(code: str, *args: object) -> str:
    """Output of ``code`` in a Python of its own."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_no_torch_and_no_transformers_on_this_path(tmp_path: Path) -> None:
    folders = [
        write_model(tmp_path / name, {"w": plain(np.full(3, value, np.float32))})
        for name, value in (("early", 1), ("ft", 2))
    ]
    code = (
        "import sys\n"
        "from springback.weights import extrapolate\n"
        "extrapolate(*sys.argv[1:3], 0.5, sys.argv[3])\n"
        "print([m for m in ('torch', 'transformers', 'ml_dtypes', 'scipy') if m in sys.modules])\n"
    )
    assert run_apart(code, *folders, tmp_path / "out").strip() == "[]"


def test_memory_stays_far_below_the_largest_tensor(tmp_path: Path) -> None:
    # Two models of 100 MB, 90 MB of it one tensor; the promise would allow 2 * 90 + 150 MB.
    rng = np.random.default_rng(0)
    for name in ("early", "ft"):
        large = rng.standard_normal(90 * MEGABYTE // 4, dtype=np.float32)
        small = rng.standard_normal(10 * MEGABYTE // 4, dtype=np.float32)
        write_model(tmp_path / name, {"large": plain(large), "small": plain(small)})
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from springback.weights import extrapolate\n"
        "extrapolate(*sys.argv[1:3], 0.5, sys.argv[3], threads=8)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    peak = int(run_apart(code, tmp_path / "early", tmp_path / "ft", tmp_path / "out"))
    assert 20 < peak / 1024 < 150  # MB resident, mapped files and the interpreter included


def test_result_loads_in_transformers_and_equals_state_dict_arithmetic(
    tmp_path: Path, tiny_llama: Path
) -> None:
    early = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    later = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in later.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    later.save_pretrained(tmp_path / "ft", max_shard_size="100KB")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "ft")
    assert len(list((tmp_path / "ft").glob("*.safetensors"))) > 1
    extrapolate(tiny_llama, tmp_path / "ft", 0.3, tmp_path / "out")

    # Tied: the output layer is the embedding, and the file holds it once, with every padded row.
    stored = tensor_names(tmp_path / "out")
    assert "lm_head.weight" not in stored
    assert stored["model.embed_tokens.weight"][0][0] == early.config.vocab_size
    got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert got.lm_head.weight is got.model.embed_tokens.weight
    old, new, made = early.state_dict(), later.state_dict(), got.state_dict()
    assert made.keys() == new.keys()
    for name, weight in made.items():
        torch.testing.assert_close(
            weight, new[name] + 0.3 * (new[name] - old[name]), rtol=0, atol=1e-6
        )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("the thing")["input_ids"]
    with torch.no_grad():
        assert bool(torch.isfinite(got(input_ids=torch.tensor([[1, 2, 3]])).logits).all())


def test_transformers_loads_the_dtype_that_was_asked_for(tmp_path: Path, tiny_llama: Path) -> None:
    ft = {n: (code, 2 * array) for n, (code, array) in read_model(tiny_llama).items()}
    write_model(tmp_path / "ft", ft)
    shutil.copyfile(tiny_llama / "config.json", tmp_path / "ft" / "config.json")
    extrapolate(tiny_llama, tmp_path / "ft", 0.5, tmp_path / "out", dtype="bfloat16")
    got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {weight.dtype for weight in got.parameters()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert {code for code, _ in read_model(tmp_path / "out").values()} == {"BF16"}
