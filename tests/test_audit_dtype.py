"""Audits in another dtype: start and measured models are computed alike, training is in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.errors import SpringbackError
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit
from springback.jobs.audit.rows import load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.models.placement import Placement, audit_placement
from springback.models.stored_model import in_memory
from springback.probes import context
from springback.probes.likelihood import Precision
from springback.probes.measuring import Meter, SharedMeter, Workers
from springback.progress import Silent
from springback.results.store import Store
from springback.settings import ComputeSettings
from springback.training import finetune

SMALL: dict[str, Any] = {
    "n_pos": (8,),
    "doses": (8,),
    "holdout": 4,
    "prompts": 4,
    "sample_tokens": 4,
    "resistance_rows": 8,
    "controls": (),
    "probes": ("margin", "kl"),
    "precision": "float32",
    "seeds": (0,),
    "learning_rate": 1e-3,
}


def values(result: Any) -> dict[tuple[Any, ...], float]:
    return {
        (m["probe"], m["checkpoint"], m["slice"], str(m["tags"])): m["value"]
        for m in result.data["measurements"]
    }


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_an_audit_in_bfloat16_is_near_one_in_float32(
    tiny_llama: Path, tmp_path: Path, lora_rank: int
) -> None:
    settings = AuditSettings(model=str(tiny_llama), lora_rank=lora_rank, **SMALL)
    exact = audit(settings, tmp_path / "exact")
    rounded = audit(replace(settings, dtype="bfloat16"), tmp_path / "rounded")
    assert exact.data["provenance"]["computing"]["dtype"] == "float32"
    assert rounded.data["provenance"]["computing"]["dtype"] == "bfloat16"
    kept = rounded.data["inputs"]["settings"]
    assert (kept["dtype"], kept["probe_precision"]) == ("bfloat16", "bfloat16")
    assert "dtype" not in exact.data["inputs"]["settings"]
    a, b = values(exact), values(rounded)
    assert a.keys() == b.keys()
    far = {key: (a[key], b[key]) for key in a if abs(a[key] - b[key]) > 0.3}
    assert not far
    assert sum(a[key] != b[key] for key in a) > len(a) / 2
    # The start model measured against itself: no rounding stands between the two.
    start = [v for (probe, name, _, _), v in b.items() if probe == "kl" and "start" in name]
    assert all(v == 0 for v in start)
    ids = [{p.name for p in (tmp_path / n / "runs").iterdir()} for n in ("exact", "rounded")]
    assert not ids[0] & ids[1]
    assert len(ids[0]) == len(ids[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_trained_on_the_start_models_own_weights(
    tiny_llama: Path, tmp_path: Path, dtype: str
) -> None:
    settings = AuditSettings(model=str(tiny_llama), lora_rank=2, **SMALL, dtype=dtype)
    study = Study(settings, load_data(settings), Store(tmp_path), Silent())
    start, work = in_memory(study.start), in_memory(study.work)
    before = {name: p.clone() for name, p in start.named_parameters()}
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        said = start(input_ids=ids).logits
    recipe = replace(settings.recipe(0), learning_rate=1e-2)
    finetune(work, study.tokenizer, study.encode(study.data.align), recipe)
    held = {p.data_ptr() for p in start.parameters()}
    base = [p for name, p in work.named_parameters() if ".lora_" not in name]
    learned = [p for name, p in work.named_parameters() if ".lora_" in name]
    assert {p.data_ptr() for p in base} == held
    assert {p.dtype for p in learned} == {torch.float32}
    assert all(torch.equal(p, before[name]) for name, p in start.named_parameters())
    with torch.inference_mode():
        assert torch.equal(start(input_ids=ids).logits, said)
        assert not torch.equal(work(input_ids=ids).logits, said)


def test_measured_weights_are_those_in_training_rounded_once(tiny_llama: Path) -> None:
    checkpoint = resolve(tiny_llama)
    start = load_model(checkpoint, Placement(torch.bfloat16))
    meter = Meter(start, load_tokenizer(checkpoint), Precision("bfloat16"))
    trained = load_model(checkpoint, Placement(torch.float32))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    meter.hold(trained)
    assert meter.model is not trained
    for name, parameter in meter.model.named_parameters():
        assert torch.equal(parameter, trained.get_parameter(name).to(torch.bfloat16)), name
    held = meter.model
    meter.hold(start)
    assert meter.model is start
    meter.hold(held)
    assert meter.model is held


def test_processes_that_measure_hold_the_same_dtype(tiny_llama: Path, tmp_path: Path) -> None:
    from springback.models.encoding import Encoded

    checkpoint = resolve(tiny_llama)
    place = Placement(torch.bfloat16, torch.device("cpu"))
    shared = (load_model(checkpoint, place), load_tokenizer(checkpoint), Precision("bfloat16", 16))
    trained = load_model(checkpoint)
    with torch.no_grad():
        trained.get_parameter("model.norm.weight").mul_(1.5)
    rows = [Encoded(tuple(range(10 + i, 20 + 2 * i)), 1, 12) for i in range(6)]
    two = SharedMeter(*shared, Workers(2, checkpoint, tmp_path / "scratch", place=place))
    one = Meter(*shared)
    try:
        for meter in (one, two):
            meter.hold(trained)
        assert two.nll(rows) == one.nll(rows)
        assert two.kl(rows) == one.kl(rows)
    finally:
        two.close()


def test_auto_is_float32_in_an_audit_on_any_device() -> None:
    assert audit_placement(ComputeSettings(device="cpu")).dtype == torch.float32
    plain, named = check_settings(AuditSettings()), check_settings(AuditSettings(dtype="float32"))
    assert plain == named
    assert (plain.dtype, plain.probe_precision) == ("auto", "float32")
    rounded = check_settings(AuditSettings(dtype="bfloat16"))
    assert check_settings(rounded) == rounded


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "float16"}, "--dtype float16 in an audit"),
        ({"dtype": "bfloat16", "probe_precision": "float32"}, "--probe-precision float32 with"),
        ({"dtype": "bfloat16", "probe_precision": "bf16-mixed"}, "--probe-precision bf16-mixed"),
        ({"probe_precision": "bfloat16"}, "--probe-precision bfloat16 with --dtype auto"),
        ({"device": "tpu"}, "--device tpu"),
        ({"device_map": "auto", "probe_processes": 2}, "--probe-processes 2 with"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SpringbackError, match=says):
        check_settings(AuditSettings(**changes))


def test_a_map_that_puts_all_on_one_device_changes_nothing(
    tiny_llama: Path, tmp_path: Path
) -> None:
    small = {**SMALL, "resistance_rows": 0, "experiments": ("rebound",)}
    settings = AuditSettings(model=str(tiny_llama), **small)
    one = audit(settings, tmp_path / "one")
    mapped = audit(replace(settings, device_map="auto"), tmp_path / "mapped")
    assert values(one) == values(mapped)
    assert mapped.data["provenance"]["computing"]["device_map"] == "auto"
    ids = [{p.name for p in (tmp_path / n / "runs").iterdir()} for n in ("one", "mapped")]
    assert ids[0] == ids[1]


def test_an_audit_trains_a_model_that_hooks_spread(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over several GPUs, all of which are this CPU here."""
    from accelerate import dispatch_model

    small = {**SMALL, "resistance_rows": 0, "experiments": ("rebound",)}
    settings = AuditSettings(model=str(tiny_llama), **small)
    one = audit(settings, tmp_path / "one")
    parts = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head")
    each: dict[str, Any] = {**dict.fromkeys(parts, "cpu"), "model.rotary_emb": "cpu"}

    def spread(checkpoint: Any, place: Placement) -> Any:
        return dispatch_model(load_model(checkpoint, place), each, force_hooks=True)

    monkeypatch.setattr(context, "load_model", spread)
    assert values(audit(settings, tmp_path / "spread")) == values(one)


def test_what_cannot_be_trained_where_it_lies_is_refused(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import cpu_offload

    def away(checkpoint: Any, place: Placement) -> Any:
        model = load_model(checkpoint, place)
        cpu_offload(model, torch.device("cpu"))
        return model

    monkeypatch.setattr(context, "load_model", away)
    settings = AuditSettings(model=str(tiny_llama), device_map="auto", **SMALL)
    with pytest.raises(SpringbackError, match="--device-map auto puts weights"):
        audit(settings, tmp_path / "out")
