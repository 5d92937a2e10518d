"""Weight geometry, with numbers derived by hand and on a real (tiny) model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from springback import probes
from springback.errors import ModelError
from springback.models.loading import Model, load_model, resolve, save_weights


def weights(*values: float) -> dict[str, Tensor]:
    """One vector, told over two tensors: the first value, and the others."""
    return {"a": torch.tensor([[values[0]]]), "b": torch.tensor(values[1:])}


def test_norm_of_the_change_by_hand() -> None:
    """(5, 2, 6) - (1, 2, 3) = (4, 0, 3): length 5; the start's: sqrt(1 + 4 + 9)."""
    found = probes.weight_change(weights(5, 2, 6), weights(1, 2, 3))
    assert found.norm == 5.0
    assert found.start_norm == pytest.approx(math.sqrt(14), rel=1e-15)
    assert found.relative == pytest.approx(5 / math.sqrt(14), rel=1e-15)
    assert found.parameters == 3


def test_way_back_by_hand() -> None:
    """Start (0, 0, 0), aligned (3, 4, 0), model (3, 0, 0): later (0, -4, 0), way (-3, -4, 0).

    Product 16, lengths 4 and 5: cosine 16 / 20, projection 16 / 25 of the way.
    """
    found = probes.way_back(weights(3, 0, 0), weights(3, 4, 0), weights(0, 0, 0))
    assert (found.later_norm, found.way_norm, found.product) == (4.0, 5.0, 16.0)
    assert found.cosine == pytest.approx(0.8, rel=1e-15)
    assert found.share == pytest.approx(0.64, rel=1e-15)


@pytest.mark.parametrize(
    ("model", "cosine", "share"),
    [
        ((1, 1, 1), 1.0, 1.0),  # all the way back: aligned - start is (2, 4, 4)
        ((2, 3, 3), 1.0, 0.5),  # half of it
        ((5, 9, 9), -1.0, -1.0),  # as far on
        ((3, 6, 4), 0.0, 0.0),  # aside: (0, 1, -1) is at right angles to (2, 4, 4)
        ((3, 5, 5), math.nan, 0.0),  # nothing happened
    ],
)
def test_way_back_has_its_signs(model: tuple[int, ...], cosine: float, share: float) -> None:
    found = probes.way_back(weights(*model), weights(3, 5, 5), weights(1, 1, 1))
    assert found.cosine == pytest.approx(cosine, abs=1e-15, nan_ok=True)
    assert found.share == pytest.approx(share, abs=1e-15)


def test_without_a_way_there_is_no_share() -> None:
    found = probes.way_back(weights(3, 0, 0), weights(1, 0, 0), weights(1, 0, 0))
    assert math.isnan(found.cosine)
    assert math.isnan(found.share)
    assert math.isnan(probes.weight_change(weights(1, 1, 1), weights(0, 0, 0)).relative)


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 22])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.geometry, "BLOCK", block)
    found = probes.way_back(weights(3, 0, 0), weights(3, 4, 0), weights(0, 0, 0))
    assert (found.later_norm, found.way_norm, found.product) == (4.0, 5.0, 16.0)


def test_sums_do_not_lose_small_changes() -> None:
    """A million changes of 1e-4 (the nearest fp32 above 1): length 1e-4 * 1e3, to 1e-12."""
    step = float(torch.tensor(1.0 + 1e-4)) - 1.0
    start = {"a": torch.ones(1000, 1000)}
    model = {"a": torch.ones(1000, 1000) + 1e-4}
    assert probes.weight_change(model, start).norm == pytest.approx(step * 1000, rel=1e-12)


def test_bf16_tensors_are_taken_exactly() -> None:
    """1 + 2**-7 is the bf16 after 1."""
    start = {"a": torch.ones(4, dtype=torch.bfloat16)}
    model = {"a": torch.full((4,), 1 + 2**-7)}
    assert probes.weight_change(model, start).norm == 2**-6


@pytest.fixture(scope="module")
def three(tiny_llama: Path) -> tuple[Model, Model, Model]:
    """Start, aligned and later model."""
    made = [load_model(resolve(tiny_llama)) for _ in range(3)]
    torch.manual_seed(1)
    with torch.no_grad():
        for p, q in zip(made[1].parameters(), made[2].parameters(), strict=True):
            p.add_(0.1 * torch.randn_like(p))
            q.copy_(p - 0.02 * torch.randn_like(p) - 0.05 * (p - 0.0))
    return made[0], made[1], made[2]


def flat(model: Model) -> Tensor:
    """Every weight once, as one fp64 vector: the tied head is the embedding."""
    state: Mapping[str, Tensor] = model.state_dict()
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    return torch.cat([t.double().reshape(-1) for n, t in state.items() if n != "lm_head.weight"])


def test_a_tied_model_counts_its_embedding_once(three: tuple[Model, Model, Model]) -> None:
    start, aligned, model = three
    change = probes.weight_change(model, start)
    assert change.parameters == len(flat(start))
    assert change.norm == pytest.approx(float((flat(model) - flat(start)).norm()), rel=1e-12)
    back = probes.way_back(model, aligned, start)
    later, way = flat(model) - flat(aligned), flat(start) - flat(aligned)
    expected = float(torch.nn.functional.cosine_similarity(later, way, dim=0))
    assert abs(expected) > 0.1
    assert back.cosine == pytest.approx(expected, rel=1e-12)
    assert back.share == pytest.approx(float(later @ way / (way @ way)), rel=1e-12)
    # A state dict names the tied tensor twice.
    named_twice = probes.way_back(model, aligned.state_dict(), start)
    assert named_twice == back


def test_a_branch_point_on_disk_equals_the_model_in_memory(
    three: tuple[Model, Model, Model], tmp_path: Path
) -> None:
    start, aligned, model = three
    save_weights(aligned, tmp_path / "branch")
    with probes.stored_weights(tmp_path / "branch") as stored:
        assert probes.way_back(model, stored, start) == probes.way_back(model, aligned, start)
        assert probes.weight_change(stored, start) == probes.weight_change(aligned, start)
        assert "no such tensor" not in stored
        assert len(stored) == len(list(model.parameters()))


def test_models_are_left_as_they_were(three: tuple[Model, Model, Model]) -> None:
    before = [flat(m).clone() for m in three]
    probes.way_back(three[2], three[1], three[0])
    assert all(torch.equal(flat(m), b) for m, b in zip(three, before, strict=True))
    assert all(p.requires_grad and p.grad is None for p in three[2].parameters())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": torch.ones(1, 1)}, "1 tensors are in one model and not in the other, first b"),
        ({**weights(1, 2, 3), "c": torch.ones(1)}, "first c; use checkpoints of one run"),
        ({"a": torch.ones(1), "b": torch.ones(2)}, r"tensor a has shapes \(1, 1\) and \(1,\)"),
    ],
)
def test_models_of_other_form_are_refused(other: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        probes.weight_change(weights(1, 2, 3), other)


def test_a_missing_or_damaged_branch_point_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="allowed: a folder that save_weights wrote"),
        probes.stored_weights(tmp_path),
    ):
        pass
    (tmp_path / "weights.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")
    with pytest.raises(ModelError, match="cannot read"), probes.stored_weights(tmp_path):
        pass
