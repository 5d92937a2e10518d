"""Training through accelerate in two processes on CPUs (gloo), DDP and FSDP: what one finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_runs import Killer, Stop
from springback.core import Checkpoint, Recipe, Row
from springback.errors import SpringbackError, TrainingError
from springback.jobs.audit.accelerate_config import read_launch
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.settings import AuditSettings
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import Model, load_model, load_tokenizer, resolve, trainable
from springback.models.placement import Placement
from springback.training import Marks, Resume, Trained, add_lora, finetune
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


RECIPE = Recipe(learning_rate=1e-3, batch_size=4, max_tokens=24, precision="float32")


def model_of(start: Checkpoint, recipe: Recipe) -> Model:
    """With an adapter it lies on a base in bfloat16."""
    if recipe.lora_rank is None:
        return load_model(start)
    model = load_model(start, Placement(torch.bfloat16, torch.device("cpu")))
    add_lora(model, recipe)
    return model


def rows_of(tokenizer: Any, n: int) -> list[Encoded]:
    texts = [Row("text", "", f"the thing number {i} {'and more ' * (i % 4)}") for i in range(n)]
    return encode_rows(tokenizer, texts, 24)


def test_every_row_of_a_batch_is_taken_once_and_no_process_is_idle() -> None:
    assert share([4, 5, 6], 0, 2) == [4, 6]
    assert share([4, 5, 6], 1, 2) == [5]
    assert share([4], 1, 2) == [4], "for its communication; it counts nothing there"


@pytest.mark.parametrize("rank", [None, 4], ids=["full", "lora"])
@pytest.mark.parametrize("spread", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_find_what_one_finds(
    spread: str,
    rank: int | None,
    tiny_llama: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last batch has one row, so one process has none of its own there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config.write_text(spread)
    start = resolve(tiny_llama)
    tokenizer = load_tokenizer(start)
    rows = rows_of(tokenizer, 9)
    recipe = replace(RECIPE, lora_rank=rank)
    one, two = (model_of(start, recipe) for _ in range(2))

    def total(_: int, model: Any) -> float:
        return float(sum(p.detach().double().abs().sum() for p in model.parameters()))

    marks = Marks((0, 4, 9), total)
    alone = finetune(one, tokenizer, rows, recipe, marks)
    launch = read_launch(str(config))
    assert (launch.processes, launch.cpu, launch.sharded) == (2, True, spread == FSDP)
    launch = replace(launch, checkpoint_activations=True)  # which changes nothing
    scratch = tmp_path / "apart"
    both = finetune_apart(
        two, start, tokenizer.pad_token_id, rows, recipe, launch, Resume(scratch), marks
    )
    assert both.losses == pytest.approx(alone.losses, rel=1e-5)
    assert both.tokens == alone.tokens
    assert both.marks == pytest.approx(alone.marks, rel=1e-6)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        # AdamW turns the rounding of a gradient near 0 into a part of a step of 1e-3.
        assert torch.allclose(a, b, atol=2e-4)
        assert float((a - b).detach().abs().mean()) < 1e-6
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("spread", "rank"), [(DDP, 4), (FSDP, None)], ids=["ddp-lora", "fsdp-full"]
)
def test_a_training_that_is_cut_off_goes_on(
    spread: str,
    rank: int | None,
    tiny_llama: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the bit, from the last state, and with every mark of both parts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config.write_text(spread)
    start = resolve(tiny_llama)
    tokenizer = load_tokenizer(start)
    rows, recipe = rows_of(tokenizer, 20), replace(RECIPE, lora_rank=rank)
    launch = read_launch(str(config))
    marks = Marks((0, 4, 16, 20), lambda n, m: {k: p.sum().item() for k, p in trainable(m).items()})

    def run(folder: Path, progress: Any = None) -> tuple[Trained, Model]:
        model = model_of(start, recipe)
        resume = Resume(folder, save_every=0.0)
        pad = tokenizer.pad_token_id
        done = finetune_apart(model, start, pad, rows, recipe, launch, resume, marks, progress)
        return done, model

    whole, plain = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", Killer(3))
    (state,) = (tmp_path / "cut" / "state").glob("step-*")
    assert int(state.name.removeprefix("step-")) >= 2
    counter = Killer(100)
    again, model = run(tmp_path / "cut", counter)
    assert 100 - counter.left < 5, "it began where it had been, which it says in one note"
    assert again == whole
    for name, parameter in trainable(plain).items():
        assert torch.equal(trainable(model)[name], parameter), name
    assert not (tmp_path / "cut").exists()


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
            Resume(tmp_path / "apart"),
        )


def test_a_config_is_checked_before_anything_is_trained(config: Path, tmp_path: Path) -> None:
    settings = AuditSettings(accelerate=str(config))
    check_settings(settings)
    check_settings(replace(settings, lora_rank=2))
    with pytest.raises(SpringbackError, match="it trains by sft: leave it out"):
        check_settings(replace(settings, algorithm="dpo"))
    with pytest.raises(SpringbackError, match="nf4; allowed: a base in bfloat16 or float32"):
        check_settings(replace(settings, lora_rank=2, quantize="nf4"))
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
