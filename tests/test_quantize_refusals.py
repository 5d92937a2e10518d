"""``--quantize nf4``: what it cannot be with is refused without torch, and plans count it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from springback.core import Run
from springback.errors import MissingExtraError, SpringbackError
from springback.integrations.server.settings import ServeSettings, check
from springback.jobs.audit.checks import check_values
from springback.jobs.audit.plan import memory_of
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.checks import refuse
from springback.jobs.boost.plan import phases_of, rows_of
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.check.checks import check_settings as check_of
from springback.jobs.check.settings import CheckSettings
from springback.jobs.hardware import architecture
from springback.models.memory import held_bytes
from springback.models.memory_parts import total
from springback.models.names import require_compute
from springback.models.placement import Placement
from springback.settings import ComputeSettings

HERE = importlib.util.find_spec("bitsandbytes") is not None
LORA = AuditSettings(quantize="nf4", lora_rank=8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (replace(LORA, lora_rank=0), "an audit of all weights; allowed: .*add --lora-rank 16"),
        (replace(LORA, quantize="nf5"), "--quantize nf5; allowed: nf4; or leave it out"),
        (replace(LORA, quantize="int8"), "--quantize int8; allowed: nf4; or leave it out"),
        (replace(LORA, dtype="float16"), "--quantize nf4 with --dtype float16; allowed: auto"),
        (replace(LORA, device_map="auto"), "nf4 with --device-map; allowed: one device"),
        (replace(LORA, device="mps"), "nf4 with --device mps; allowed: cpu, cuda"),
        (replace(LORA, probe_processes=2), "--probe-processes 2 with --lora-rank 8"),
        (replace(LORA, probe_precision="bf16-mixed"), "--probe-precision bf16-mixed"),
    ],
)
def test_an_audit_refuses_it_with_the_reason(settings: AuditSettings, says: str) -> None:
    if "probe-precision" in says and not HERE:
        pytest.skip("bitsandbytes is not installed (extra nf4): that is said first")
    with pytest.raises(SpringbackError, match=says):
        check_values(settings)


def test_other_jobs_refuse_it_with_the_reason(tiny_llama: Path, tmp_path: Path) -> None:
    trained = BoostSettings(model=str(tiny_llama), train="problems", quantize="nf4")
    checked = CheckSettings(base=str(tiny_llama), tuned=str(tiny_llama), quantize="nf4")
    needs = r"needs the package 'bitsandbytes'.*pip install 'springback\[nf4\]'"
    with pytest.raises(
        SpringbackError, match=needs if not HERE else "--train, which trains on a base in full"
    ):
        refuse(trained, tmp_path / "out")
    with pytest.raises(SpringbackError, match=needs if not HERE else "nf4 in a check; allowed"):
        check_of(checked, tmp_path / "out")
    served = ServeSettings(engine="vllm", quantize="nf4")
    with pytest.raises(SpringbackError, match="nf4 with vLLM; allowed: --engine builtin"):
        check(served)


@pytest.mark.skipif(HERE, reason="bitsandbytes is installed")
def test_what_is_missing_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'springback\[nf4\]'"):
        require_compute(ComputeSettings(quantize="nf4"))


def test_run_ids_hold_it_only_where_it_is_asked_for() -> None:
    plain, rounded = Placement(), Placement(quantize="nf4")
    assert plain.inputs() == {}
    assert rounded.inputs() == {"quantize": "nf4"}
    assert Run.of("align", **plain.inputs()).id == Run.of("align").id
    assert "quantize" not in plain.describe()


def test_plans_count_4_bit_below_adapters() -> None:
    shape = architecture("8B")
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    nf4 = held_bytes(shape, "bfloat16", "nf4")
    assert nf4 == pytest.approx((shape.weights - tables) * 0.5159 + 2 * tables, rel=1e-3)
    lora = AuditSettings(lora_rank=16, dtype="bfloat16", precision="bf16-mixed")
    on_bf16 = memory_of(lora, shape, False)
    on_nf4 = memory_of(replace(lora, quantize="nf4"), shape, False)
    saved = total(on_bf16) - total(on_nf4)
    assert saved > 0.9 * (held_bytes(shape, "bfloat16") - nf4)
    boost = BoostSettings()
    adapter = shape.adapter_weights(16)
    phases = [
        phases_of(replace(boost, quantize=q), shape, rows_of(boost), "bfloat16", adapter, False)
        for q in (None, "nf4")
    ]
    (plain,), (packed,) = ([total(p) for p in phase.values()] for phase in phases)
    assert plain - packed == held_bytes(shape, "bfloat16") - nf4
