"""A boosted folder decodes with Transformers alone as springback decodes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import springback
from boosted_fixture import ALPHA, LAM, boosted
from springback.decoding import ContrastModel, DecodeSettings, decode
from springback.errors import ModelError
from springback.integrations.boosted_folder import CODE, complete
from springback.integrations.custom_generate import Contrast

PROMPTS = [[10, 20, 30, 10, 20], [40, 50, 60, 70, 80, 90, 40], [12, 13]]


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = boosted(tiny_llama, tmp_path_factory.mktemp("boosted"))
    complete(made)
    return made


@pytest.fixture(scope="module")
def trusted(folder: Path) -> Any:
    """The model as somebody without springback loads it; fp64, so that no tie is tipped."""
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float64)


def generate(model: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """New tokens of a left-padded batch; ends are not treated."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[3] * (longest - len(p)) + p for p in prompts])
    held = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 3}
    found: list[list[int]] = model.generate(ids, **{**held, **options})[:, longest:].tolist()
    return found


def plain(folder: Path, prompts: list[list[int]], **changes: Any) -> list[list[int]]:
    """The plain two-model loop, the truth."""
    loaded = springback.load(folder)
    assert loaded.amateur is not None
    held: dict[str, Any] = {"max_new_tokens": 12, "lam": LAM, "alpha": ALPHA, **changes}
    return decode(loaded.expert.double(), prompts, DecodeSettings(**held), loaded.amateur.double())


def test_tokens_are_those_of_the_plain_loop(folder: Path, trusted: Any) -> None:
    expected = plain(folder, PROMPTS)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    assert generate(bare, PROMPTS) != expected, "contrast must matter"
    assert generate(trusted, PROMPTS) == expected
    assert generate(trusted, PROMPTS, use_cache=False) == expected


def test_penalties_come_before_the_contrast(folder: Path, trusted: Any) -> None:
    expected = plain(folder, PROMPTS, repetition_penalty=1.5)
    assert expected != plain(folder, PROMPTS)
    assert generate(trusted, PROMPTS[:1], repetition_penalty=1.5) == expected[:1]


def test_speculation_and_beams_read_the_right_tokens(folder: Path, trusted: Any) -> None:
    assert generate(trusted, PROMPTS[:1], prompt_lookup_num_tokens=4) == plain(folder, PROMPTS[:1])
    loaded = springback.load(folder)
    assert loaded.amateur is not None
    expert, amateur = loaded.expert.double(), loaded.amateur.double()
    pair = ContrastModel.from_pair(expert, amateur, LAM, ALPHA)
    beams = {"num_beams": 3, "num_return_sequences": 2}  # beams swap rows under the cache
    assert generate(trusted, PROMPTS[1:2], **beams) == generate(pair, PROMPTS[1:2], **beams)


def test_the_amateur_rests_where_one_token_is_plausible(trusted: Any) -> None:
    contrast = Contrast(trusted, 1.0, 0.5, None)
    lone = torch.tensor([[9.0, 1.0, 2.0]], dtype=torch.float64)
    found = contrast(torch.tensor([[5, 6]]), lone)
    assert contrast.calls == 0
    # the top keeps its score; the others lie STEP below it, in the expert's order: 9 - 1000 - 8, -7
    assert found.tolist() == [[9.0, -999.0, -998.0]]


def test_a_pipeline_needs_nothing_but_trust(folder: Path) -> None:
    pipe = pipeline(
        "text-generation", model=str(folder), trust_remote_code=True, dtype=torch.float64
    )
    told = pipe("the thing", max_new_tokens=8, do_sample=False, return_full_text=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = plain(folder, [tokenizer("the thing")["input_ids"]], max_new_tokens=8, stop_ids=(2,))
    assert told[0]["generated_text"] == tokenizer.decode(ids[0], skip_special_tokens=True)


def test_it_runs_where_springback_is_not(folder: Path) -> None:
    code = (
        "import sys, torch; sys.modules['springback'] = None\n"
        "from transformers import AutoModelForCausalLM as A\n"
        f"m = A.from_pretrained({str(folder)!r}, trust_remote_code=True, dtype=torch.float64)\n"
        "ids = torch.tensor([[10, 20, 30, 10, 20]])\n"
        "out = m.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None,"
        " pad_token_id=3)\n"
        "print(out[0, 5:].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(plain(folder, PROMPTS[:1])[0])


def test_nothing_runs_without_trust(folder: Path) -> None:
    (folder / CODE).rename(folder / "aside.txt")
    try:
        (folder / CODE).write_text("raise RuntimeError('was run')\n")
        springback.generate(folder, ["a"], max_new_tokens=2)
        AutoModelForCausalLM.from_pretrained(folder)
    finally:
        (folder / "aside.txt").rename(folder / CODE)


def test_a_folder_without_contrast_decodes_plainly(tiny_llama: Path, tmp_path: Path) -> None:
    made = boosted(tiny_llama, tmp_path, lam=0.0)
    complete(made)
    found = AutoModelForCausalLM.from_pretrained(made, trust_remote_code=True)
    bare = AutoModelForCausalLM.from_pretrained(made)
    assert generate(found, PROMPTS) == generate(bare, PROMPTS)


def test_another_folder_is_refused(tiny_llama: Path, trusted: Any) -> None:
    with pytest.raises(ModelError, match="allowed: a folder that springback boost wrote"):
        complete(tiny_llama)
    with pytest.raises(ValueError, match="allowed: a folder that springback boost wrote"):
        generate(trusted, PROMPTS, boosted_folder=str(tiny_llama))


def test_the_card_says_how_and_stays_the_same(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    card: Any = ModelCard(text)
    assert {"springback", "custom_generate"} <= set(card.data.tags)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert "lambda 1.5, alpha 0.05" in card.text
    complete(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
