"""The model in memory at mu is the model that extrapolate writes, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from boost_pair import save_pair
from springback import probes
from springback.core import Row
from springback.errors import ModelError
from springback.models.checkpoint_pair import CheckpointPair
from springback.models.encoding import encode_rows
from springback.models.loading import load_model, resolve
from springback.probes.along_mu import nll_along_mu
from springback.weights import extrapolate, tensor_names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sweep_is_bit_for_bit_what_extrapolate_writes(
    tiny_llama: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    folders = save_pair(tiny_llama, tmp_path, dtype)
    sweep = CheckpointPair(*(resolve(folder) for folder in folders))
    assert {d for _, d in tensor_names(folders[1]).values()} == {str(dtype).split(".")[1]}
    for mu in (0.3, -0.7, 0.0, 1.9):
        extrapolate(*folders, mu, tmp_path / f"out{mu}")
        written = dict(load_model(resolve(tmp_path / f"out{mu}")).named_parameters())
        for name, weight in sweep.at(mu).named_parameters():
            assert torch.equal(weight.view(torch.int32), written[name].view(torch.int32)), name


def test_nll_along_mu_is_the_nll_of_each_extrapolated_model(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folders = save_pair(tiny_llama, tmp_path, torch.float32)
    sweep = CheckpointPair(*(resolve(folder) for folder in folders))
    texts = [Row("text", "", text) for text in ("the thing in her hand", "a hero")]
    rows = encode_rows(sweep.tokenizer, texts, 32)
    sweep.at(0.3)
    found = nll_along_mu(sweep, rows, (1.0, -0.5))
    assert list(found) == [-0.5, 0.0, 1.0]
    assert sweep.mu == 0.3  # put back
    weak: tuple[Literal["early", "ft"], ...] = ("early", "ft")
    early, ft = (probes.nll(sweep.weak(name), rows, sweep.tokenizer) for name in weak)
    assert found[0.0] == [score.per_token for score in ft]
    extrapolate(*folders, 1.0, tmp_path / "out")
    beyond = probes.nll(load_model(resolve(tmp_path / "out")), rows, sweep.tokenizer)
    assert found[1.0] == [score.per_token for score in beyond]
    assert found[0.0] != [score.per_token for score in early]


def test_an_earlier_checkpoint_without_a_tokenizer_has_that_of_the_last(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """A Trainer that was given none leaves checkpoints without; only the end result has one."""
    folders = save_pair(tiny_llama, tmp_path, torch.float32)
    for file in folders[0].glob("*token*"):
        file.unlink()
    pair = CheckpointPair(*(resolve(folder) for folder in folders))
    extrapolate(*folders, 0.5, tmp_path / "out")
    written = dict(load_model(resolve(tmp_path / "out")).named_parameters())
    for name, weight in pair.at(0.5).named_parameters():
        assert torch.equal(weight, written[name]), name
    for file in folders[1].glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer of .*/ft: it holds none; allowed"):
        CheckpointPair(*(resolve(folder) for folder in folders))


def test_pairs_of_embeddings_that_are_one_at_first(tiny_llama: Path, tmp_path: Path) -> None:
    """Untied by the last checkpoint, or tied in both and stored under the two names."""
    early, ft = save_pair(tiny_llama, tmp_path, torch.float32)
    tied = load_file(early / "model.safetensors")
    tied.pop("lm_head.weight", None)
    save_file(tied, early / "model.safetensors", {"format": "pt"})
    config = json.loads((early / "config.json").read_text()) | {"tie_word_embeddings": True}
    (early / "config.json").write_text(json.dumps(config))
    embedding = "model.embed_tokens.weight"
    for names in ((embedding, "lm_head.weight"), ("lm_head.weight",)):
        other = load_file(ft / "model.safetensors")
        rows = {
            name: other.pop(name, tied[embedding] + 0.1) for name in (embedding, "lm_head.weight")
        }
        save_file(
            {**other, **{n: rows[n] for n in names}}, ft / "model.safetensors", {"format": "pt"}
        )
        config["tie_word_embeddings"] = len(names) == 1
        (ft / "config.json").write_text(json.dumps(config))
        pair = CheckpointPair(resolve(early), resolve(ft))
        got = pair.at(0.5).state_dict()
        for name in names:
            torch.testing.assert_close(got[name], rows[name] + 0.5 * (rows[name] - tied[embedding]))
        weak = pair.weak("early").state_dict()
        assert torch.equal(weak["lm_head.weight"], tied[embedding])
