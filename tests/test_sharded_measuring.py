"""Models sharded over two processes (FSDP2, gloo): read in parts, measured as one process does."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Row
from springback.errors import SpringbackError
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.plan import memory_of
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.hardware import architecture
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import (
    WEIGHTS_FILE,
    Model,
    load_model,
    load_tokenizer,
    resolve,
    save_weights,
)
from springback.models.placement import Placement
from springback.models.stored_model import StoredModel
from springback.probes.behaviour import SampleSettings
from springback.probes.likelihood import Precision
from springback.probes.measuring import Meter
from springback.probes.sharded import ShardedMeter
from springback.progress import Silent
from springback.training.launch import Launch
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
    checkpoint, dtype = resolve(tiny_llama), getattr(torch, request.param)
    given = load_tokenizer(checkpoint), Precision(request.param, batch_tokens=64)
    start = StoredModel(checkpoint, dtype)
    sharded = ShardedMeter(start, *given, read_launch(str(config)), tmp_path / "scratch")
    yield Meter(load_model(checkpoint, Placement(dtype, torch.device("cpu"))), *given), sharded
    sharded.close()
    assert sharded._child.returncode == 0
    assert not any((tmp_path / "scratch").iterdir())


def moved(checkpoint: Path, seed: int = 3) -> Model:
    model = load_model(resolve(checkpoint))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_values_are_those_of_one_process_to_the_bit(
    meters: tuple[Meter, ShardedMeter], tiny_llama: Path, tmp_path: Path
) -> None:
    """Of the start model, of one in training, and of another checkpoint, as the base of a finished
    model is."""
    one, two = meters
    whole = sum(p.numel() for p in one.start.parameters())
    held = two.held()
    assert len(held) == 2
    assert sum(held) == whole
    assert max(held) < 0.55 * whole
    rows = rows_of(one.tokenizer, 12)
    prompts = [row.ids[:4] for row in rows[:3]]
    trained, base = moved(tiny_llama), tmp_path / "base"
    save_weights(trained, tmp_path / "trained")
    shutil.copytree(tiny_llama, base)
    moved(tiny_llama, 4).save_pretrained(base)
    start, dtype = two.start, one.start.dtype
    file = tmp_path / "trained" / WEIGHTS_FILE
    models: list[tuple[Model, StoredModel]] = [
        (one.start, start),
        (trained, replace(start, file=file)),
        (
            load_model(resolve(base), Placement(dtype, torch.device("cpu"))),
            StoredModel(resolve(base), dtype),
        ),
        (one.start, start),
    ]
    for in_one, in_files in models:
        one.hold(in_one)
        two.hold(in_files)
        assert two.nll(rows) == one.nll(rows)
        assert two.kl(rows) == one.kl(rows)
        if in_files.checkpoint != start.checkpoint:
            continue
        assert two.kl_to_itself(rows) == one.kl_to_itself(rows)
        assert two.reverse_kl(rows) == one.reverse_kl(rows)
        for settings in (SampleSettings(6), SampleSettings(5, exact_length=True, seed=4)):
            assert two.sample(prompts, settings) == one.sample(prompts, settings)
    assert any(one.kl(rows)) is False
    assert two.start_nll(rows, 40) == one.start_nll(rows, 40)
    targets: list[Callable[[], list[float]]] = []
    for (in_one, in_files), keep in zip(models[1:3], (sys.maxsize, 0), strict=True):
        one.hold(in_one)
        two.hold(in_files)
        targets += [meter.kl_to_held(rows, keep) for meter in meters]
    one.hold(models[0][0])
    two.hold(start)
    from_trained, its_twin, from_base, its_other_twin = (target() for target in targets)
    assert its_twin == from_trained
    assert its_other_twin == from_base
    assert min(*from_trained, *from_base) > 0


def test_processes_that_fail_are_told_of_in_a_line(tiny_llama: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    launch = read_launch(str(config))
    config.write_text("num_processes: 1\ndistributed_type: NONSENSE\n")
    checkpoint = resolve(tiny_llama)
    tokenizer, start = load_tokenizer(checkpoint), StoredModel(checkpoint, torch.float32)
    meter = ShardedMeter(start, tokenizer, Precision(), launch, tmp_path / "scratch")
    with pytest.raises(SpringbackError, match=r"ended with status .*leave --accelerate out"):
        meter.nll(rows_of(tokenizer, 2))
    meter.close()


def merged_experts(folder: Path, like: Path) -> Path:
    """A model whose experts lie in its file one by one, and in memory as one tensor."""
    from transformers import MixtralConfig, MixtralForCausalLM

    shutil.copytree(like, folder)
    (folder / "model.safetensors").unlink()
    config = MixtralConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def test_processes_beside_those_that_hold_the_shards_are_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """FSDP of whole files alone: where every process holds the model they go together."""
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    settings = AuditSettings(
        model=str(tiny_llama), n_pos=(8,), doses=(8,), holdout=4, prompts=4, seeds=(0,),
        controls=(), experiments=("rebound",), accelerate=str(config), probe_processes=3,
    )  # fmt: skip
    given = r"given: --probe-processes 3 with --accelerate .*two\.yaml \(FSDP\).*; leave"
    for job in (plan, audit):
        with pytest.raises(SpringbackError, match=given):
            job(settings, tmp_path / "out")
    assert not list((tmp_path / "out").glob("runs/*"))
    plan(replace(settings, probe_processes=1), tmp_path / "out")
    config.write_text(FSDP.replace("FSDP\n", "MULTI_CPU\n").partition("fsdp_config")[0])
    plan(settings, tmp_path / "out")
    config.write_text(FSDP)
    experts = merged_experts(tmp_path / "experts", tiny_llama)
    plan(replace(settings, model=str(experts)), tmp_path / "out")


class Census(Silent):
    """Progress that counts the bytes of weights in this process whenever the study goes on."""

    def __init__(self) -> None:
        self.before, self.most = self.now(), 0

    def now(self) -> int:
        return sum(
            each.nbytes
            for each in gc.get_objects()
            if isinstance(each, torch.nn.Parameter) and each.device.type != "meta"
        )

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.most = max(self.most, self.now() - self.before)

    def stage(self, title: str, total: int) -> None:
        self.advance()


def test_an_audit_is_trained_and_measured_sharded(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start model to the bit, what was trained to the rounding of its gradients' sums.

    The study's own process holds no weights at any time, and plans none.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = tmp_path / "two.yaml"
    config.write_text(FSDP)
    settings = AuditSettings(
        model=str(tiny_llama), n_pos=(8,), doses=(8,), holdout=4, prompts=4, sample_tokens=4,
        resistance_rows=0, controls=(), seeds=(0,),
        probes=("margin", "kl", "reverse_kl", "weight_change", "way_back"),
        precision="float32", learning_rate=1e-3, device="cpu",
    )  # fmt: skip
    apart = replace(settings, accelerate=str(config))
    in_one, in_two = Census(), Census()
    one = audit(settings, tmp_path / "one", in_one)
    gc.collect()
    in_two.before = in_two.now()
    two = audit(apart, tmp_path / "two", in_two)
    whole = sum(p.nbytes for p in load_model(resolve(tiny_llama)).parameters())
    assert in_one.most >= 2 * whole, "what counts sees models"
    assert in_two.most == 0
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
    assert not list((tmp_path / "two").rglob(".*-*.tmp"))
    planned = {part.name: part.bytes for part in plan(apart, tmp_path / "planned").parts}
    alone = {part.name: part.bytes for part in plan(settings, tmp_path / "planned").parts}
    for part in ("start model", "weights in training", "gradients", "moments"):
        assert abs(planned[part] - alone[part]) < 8, "once in all, a half in each process"
    assert planned["layers gathered"] > 0


def test_a_plan_counts_what_a_card_holds() -> None:
    """Of eight billion weights a quarter on each of four, and copies of a layer at a time."""
    launch, shape = Launch(Path("four.yaml"), 4, cpu=False, sharded=True), architecture("8B")

    def planned(**changes: Any) -> dict[str, int]:
        settings = AuditSettings(precision="bf16-mixed", **changes)
        return {part.name: part.bytes for part in memory_of(settings, shape, False, None, launch)}

    plain, spared = planned(), planned(checkpoint_activations=True)
    for name, size in (("start model", 4), ("weights in training", 4), ("moments", 8)):
        assert plain[name] == spared[name] == size * int(shape.weights) // 4
    assert plain["weights in bf16"] > 1.8 * shape.weights
    assert spared["weights in bf16"] < 0.4 * shape.weights
    assert sum(spared.values()) < 60e9 < sum(plain.values()) < 80e9
