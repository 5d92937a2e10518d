"""Models sharded over two processes (FSDP2, gloo): read in parts, measured as one process does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Row
from springback.errors import SpringbackError
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import Model, load_model, load_tokenizer, resolve
from springback.models.placement import Placement
from springback.probes.behaviour import SampleSettings
from springback.probes.likelihood import Precision
from springback.probes.measuring import Meter
from springback.probes.sharded import ShardedMeter
from test_finetune_apart import FSDP

pytest.importorskip("accelerate", reason="accelerate is not installed (extra train)")


def rows_of(tokenizer: Any, n: int) -> list[Encoded]:
    texts = [Row("text", "", f"the thing number {i} {'and more ' * (i % 4)}") for i in range(n)]
    return encode_rows(tokenizer, texts, 24)


@pytest.fixture(params=["float32", "bfloat16"])
def meters(
    request: pytest.FixtureRequest,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Meter, ShardedMeter]]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    checkpoint = resolve(tiny_llama)
    place = Placement(getattr(torch, request.param), torch.device("cpu"))
    given = (
        load_model(checkpoint, place),
        load_tokenizer(checkpoint),
        Precision(request.param, batch_tokens=64),
    )
    sharded = ShardedMeter(*given, read_launch(str(config)), checkpoint, tmp_path / "scratch")
    yield Meter(*given), sharded
    sharded.close()
    assert sharded._child.returncode == 0
    assert not any((tmp_path / "scratch").iterdir())


def moved(checkpoint: Path) -> Model:
    model = load_model(resolve(checkpoint))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_values_are_those_of_one_process_to_the_bit(
    meters: tuple[Meter, ShardedMeter], tiny_llama: Path
) -> None:
    one, two = meters
    whole = sum(p.numel() for p in one.start.parameters())
    held = two.held()
    assert len(held) == 2
    assert sum(held) == whole
    assert max(held) < 0.55 * whole
    rows = rows_of(one.tokenizer, 12)
    prompts = [row.ids[:4] for row in rows[:3]]
    for model in (one.start, moved(tiny_llama), one.start):
        for meter in meters:
            meter.hold(model)
        assert two.nll(rows) == one.nll(rows)
        assert two.kl(rows) == one.kl(rows)
        assert two.kl_to_itself(rows) == one.kl_to_itself(rows)
        assert two.reverse_kl(rows) == one.reverse_kl(rows)
        for settings in (SampleSettings(6), SampleSettings(5, exact_length=True, seed=4)):
            assert two.sample(prompts, settings) == one.sample(prompts, settings)
    assert any(one.kl(rows)) is False


def test_processes_that_fail_are_told_of_in_a_line(tiny_llama: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    launch = read_launch(str(config))
    config.write_text("num_processes: 1\ndistributed_type: NONSENSE\n")
    checkpoint = resolve(tiny_llama)
    given = load_model(checkpoint), load_tokenizer(checkpoint), Precision()
    meter = ShardedMeter(*given, launch, checkpoint, tmp_path / "scratch")
    with pytest.raises(SpringbackError, match=r"ended with status .*leave --accelerate out"):
        meter.nll(rows_of(given[1], 2))
    meter.close()


def test_an_audit_is_trained_and_measured_sharded(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start model to the bit, what was trained to the rounding of its gradients' sums."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    settings = AuditSettings(
        model=str(tiny_llama), n_pos=(8,), doses=(8,), holdout=4, prompts=4, sample_tokens=4,
        resistance_rows=0, controls=(), probes=("margin", "kl", "reverse_kl"), seeds=(0,),
        precision="float32", learning_rate=1e-3, device="cpu",
    )  # fmt: skip
    one = audit(settings, tmp_path / "one")
    two = audit(replace(settings, accelerate=str(config)), tmp_path / "two")
    values: list[dict[str, float]] = [
        {str((m["probe"], m["slice"], m["tags"])): m["value"] for m in result.data["measurements"]}
        for result in (one, two)
    ]
    assert values[0].keys() == values[1].keys()
    assert values[1] == pytest.approx(values[0], abs=1e-3)
    starts = [
        [m["value"] for m in result.data["measurements"] if "start" in m["checkpoint"]]
        for result in (one, two)
    ]
    assert starts[0]
    assert starts[0] == starts[1]
    assert not list((tmp_path / "two").rglob(".measured-*"))
