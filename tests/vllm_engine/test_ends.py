"""Where an answer ends in vLLM: at every token where springback's own decoding ends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from vllm import SamplingParams

from served_fixture import Served
from springback.jobs.boost.export import Strengths, write_boosted
from springback.models.loading import resolve
from turns_fixture import END, EOS, rename_ends, talking

PROMPT = "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n"


def first_answer(engine: Any) -> tuple[str, list[int]]:
    how = SamplingParams(temperature=0.0, max_tokens=6, skip_special_tokens=True)
    [found] = engine.generate([PROMPT], how, use_tqdm=False)
    return found.outputs[0].text, list(found.outputs[0].token_ids)


def test_a_pair_stops_at_what_only_its_config_names(
    tiny_tokenizer: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """As boost writes the folder, and as it is with a generation config that names no end."""
    early = talking(tmp_path / "early", tiny_tokenizer)
    ft = talking(tmp_path / "ft", tiny_tokenizer, sure=1.5)
    folder = tmp_path / "model"
    write_boosted((resolve(early), resolve(ft)), Strengths(0.5, 0.5, 0.1), folder)
    text, ids = first_answer(start(folder))
    assert (text, ids[-1], len(ids)) == ("7", END, 2)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    rename_ends(bare, (), (EOS, END))
    text, ids = first_answer(start(bare))
    assert (text, ids[-1], len(ids)) == ("7", END, 2)


def test_a_served_model_stops_there_too(tiny_tokenizer: Path, tmp_path: Path) -> None:
    folder = talking(tmp_path / "m", tiny_tokenizer)
    rename_ends(folder, (), (EOS, END))
    words = ("--name", "tiny", "--vllm", "--enforce-eager --max-model-len 128")
    server = Served(str(folder), *words)
    try:
        messages: Any = [{"role": "user", "content": "3 + 4?"}]
        told = server.client.chat.completions.create(model="tiny", messages=messages, max_tokens=6)
        assert told.choices[0].message.content == "7"
        assert told.choices[0].finish_reason == "stop"
    finally:
        server.process.terminate()
        server.process.wait(120)
        server.close()
