"""A boosted folder is a plain model folder to others; boost says where that loses the contrast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import springback
from boost_pair import choice_settings, save_pair
from springback.core import Checkpoint
from springback.jobs.boost.export import Strengths, write_boosted
from springback.jobs.boost.job import boost
from springback.progress import Silent
from springback.weights.io.folder import tensor_names


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_without_contrast_it_is_as_the_fine_tuned_folder_to_others(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """What converters read: the same tensors and architecture, and nothing in between."""
    early, ft = save_pair(tiny_llama, tmp_path, torch.float32)
    out = tmp_path / "model"
    write_boosted([Checkpoint(str(early)), Checkpoint(str(ft))], Strengths(0.5, 0, 0.1), out)
    assert tensor_names(out) == tensor_names(ft)
    assert {p.name for p in out.glob("*.safetensors")} == {p.name for p in ft.glob("*.safetensors")}
    plain, ids = AutoModelForCausalLM.from_pretrained(out), torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        expected = springback.load(str(out)).expert(ids).logits
        assert torch.equal(plain(ids).logits, expected)


@pytest.mark.parametrize("lam", [1.0, 0.0])
def test_boost_says_what_a_plain_load_loses(tiny_llama: Path, tmp_path: Path, lam: float) -> None:
    pair, notes = save_pair(tiny_llama, tmp_path / "pair", torch.float32), Notes()
    settings = choice_settings(pair, keep_pair=True, positive=lam > 0, lam=(lam,))
    boost(settings, tmp_path / "out", notes)
    warnings = [note for note in notes.notes if "was measured with contrast" in note]
    assert len(warnings) == (lam > 0)
    assert all("trust_remote_code" in note for note in warnings)
