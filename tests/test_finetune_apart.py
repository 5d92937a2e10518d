"""Training through accelerate in two processes on CPUs (gloo), DDP and FSDP: what one finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Recipe, Row
from springback.errors import SpringbackError, TrainingError
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.training import Marks, finetune
from springback.training.batches import share
from springback.training.distributed import Launch, finetune_apart

pytest.importorskip("accelerate", reason="accelerate is not installed (extra train)")


DDP = "distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n"
FSDP = """\
distributed_type: FSDP
num_processes: 2
use_cpu: true
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(DDP)
    return path


def rows_of(tokenizer: Any, n: int) -> list[Encoded]:
    texts = [Row("text", "", f"the thing number {i} {'and more ' * (i % 4)}") for i in range(n)]
    return encode_rows(tokenizer, texts, 24)


def test_every_row_of_a_batch_is_taken_once_and_no_process_is_idle() -> None:
    assert share([4, 5, 6], 0, 2) == [4, 6]
    assert share([4, 5, 6], 1, 2) == [5]
    assert share([4], 1, 2) == [4], "for its communication; it counts nothing there"


@pytest.mark.parametrize("spread", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_find_what_one_finds(
    spread: str, tiny_llama: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch has one row, so one process has none of its own there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config.write_text(spread)
    start = resolve(tiny_llama)
    tokenizer = load_tokenizer(start)
    rows = rows_of(tokenizer, 9)
    recipe = Recipe(learning_rate=1e-3, batch_size=4, max_tokens=24, precision="float32")
    one, two = load_model(start), load_model(start)

    def total(_: int, model: Any) -> float:
        return float(sum(p.detach().double().abs().sum() for p in model.parameters()))

    marks = Marks((0, 4, 9), total)
    alone = finetune(one, tokenizer, rows, recipe, marks)
    launch = read_launch(str(config))
    assert (launch.processes, launch.cpu, launch.sharded) == (2, True, spread == FSDP)
    launch = replace(launch, checkpoint_activations=True)  # which changes nothing
    scratch = tmp_path / "apart"
    both = finetune_apart(two, start, tokenizer.pad_token_id, rows, recipe, launch, scratch, marks)
    assert both.losses == pytest.approx(alone.losses, rel=1e-5)
    assert both.tokens == alone.tokens
    assert both.marks == pytest.approx(alone.marks, rel=1e-6)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        # AdamW turns the rounding of a gradient near 0 into a part of a step of 1e-3.
        assert torch.allclose(a, b, atol=2e-4)
        assert float((a - b).detach().abs().mean()) < 1e-6
    assert not scratch.exists()


def test_processes_that_fail_are_told_of_in_a_line(tiny_llama: Path, tmp_path: Path) -> None:
    start = resolve(tiny_llama)
    tokenizer = load_tokenizer(start)
    broken = tmp_path / "broken.yaml"
    broken.write_text("num_processes: 1\ndistributed_type: NONSENSE\n")
    with pytest.raises(TrainingError, match=r"ended with status .*leave --accelerate out"):
        finetune_apart(
            load_model(start),
            start,
            0,
            rows_of(tokenizer, 2),
            Recipe(batch_size=2, precision="float32"),
            Launch(broken, 1, False),
            tmp_path / "apart",
        )


def test_a_config_is_checked_before_anything_is_trained(config: Path, tmp_path: Path) -> None:
    settings = AuditSettings(accelerate=str(config))
    check_settings(settings)
    with pytest.raises(SpringbackError, match="trains all weights by sft"):
        check_settings(replace(settings, lora_rank=2))
    with pytest.raises(SpringbackError, match="trains all weights by sft"):
        check_settings(replace(settings, algorithm="dpo"))
    for written, words in (
        ("use_cpu: true\n", "num_processes None"),
        (DDP.replace("MULTI_CPU", "DEEPSPEED"), "distributed_type DEEPSPEED; allowed: MULTI_CPU"),
        (DDP + "num_machines: 2\n", "num_machines 2; .*--executor ray"),
        (DDP + "parallelism_config: {parallelism_config_tp_size: 2}\n", "parallelism_config"),
        (FSDP.replace("version: 2", "version: 1"), "fsdp_version 1 with use_cpu; allowed: 2"),
    ):
        config.write_text(written)
        with pytest.raises(SpringbackError, match=words):
            check_settings(settings)
    with pytest.raises(SpringbackError, match="cannot read"):
        check_settings(replace(settings, accelerate=str(tmp_path / "none.yaml")))
