"""Training through accelerate in two processes on CPUs (gloo), DDP and FSDP: what one finds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from springback.models.stored_model import AnyModel, StoredModel, parameters_to_read
from springback.training import Marks, Resume, Trained, add_lora, finetune
from springback.training.batches import share
from springback.training.distributed import finetune_apart
from springback.training.launch import Launch

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
    """Rounded to bfloat16; what is trained of it is in float32."""
    model = load_model(start, Placement(torch.bfloat16, torch.device("cpu")))
    if recipe.lora_rank is not None:
        add_lora(model, recipe)
        return model
    whole: Any = model
    return cast(Model, whole.float())


def sums(_: int, model: AnyModel) -> dict[str, float]:
    """Of each parameter's lengths."""
    with parameters_to_read(model) as parameters:
        return {n: float(p.detach().double().abs().sum()) for n, p in parameters.items()}


#: The last batch has one row, so one process has none of its own there.
MARKS = Marks((0, 4, 16, 17), sums)


@dataclass
class Apart:
    """A training in two processes that nothing interrupts, and what it takes to do it again."""

    start: Checkpoint
    recipe: Recipe
    launch: Launch
    rows: list[Encoded]
    pad: int
    trained: Trained
    model: Model

    def again(self, model: AnyModel, folder: Path, progress: Any = None) -> Trained:
        resume = Resume(folder, save_every=0.0)
        given = (self.start, self.pad, self.rows, self.recipe, self.launch, resume)
        return finetune_apart(model, *given, MARKS, progress)


@pytest.fixture(scope="module")
def apart(
    tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, int | None], Apart]]:
    """Each once, as several tests look at it."""
    folder = tmp_path_factory.mktemp("apart")
    start = resolve(tiny_llama)
    tokenizer = load_tokenizer(start)

    @functools.cache
    def make(spread: str, rank: int | None) -> Apart:
        config = folder / f"{'ddp' if spread == DDP else 'fsdp'}.yaml"
        config.write_text(spread)
        launch = read_launch(str(config))
        assert (launch.processes, launch.cpu, launch.sharded) == (2, True, spread == FSDP)
        launch = replace(launch, checkpoint_activations=True)  # which changes nothing
        recipe, rows = replace(RECIPE, lora_rank=rank), rows_of(tokenizer, 17)
        model, pad = model_of(start, recipe), tokenizer.pad_token_id
        scratch = folder / f"{config.stem}-{rank}"
        given = (model, start, pad, rows, recipe, launch, Resume(scratch), MARKS)
        done = Apart(start, recipe, launch, rows, pad, finetune_apart(*given), model)
        assert not scratch.exists()
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield make


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
    spread: str, rank: int | None, apart: Callable[[str, int | None], Apart]
) -> None:
    two = apart(spread, rank)
    one, both = model_of(two.start, two.recipe), two.trained
    alone = finetune(one, load_tokenizer(two.start), two.rows, two.recipe, MARKS)
    assert both.losses == pytest.approx(alone.losses, rel=1e-5)
    assert both.tokens == alone.tokens
    assert both.marks.keys() == alone.marks.keys()
    for n, lengths in alone.marks.items():
        assert sum(both.marks[n].values()) == pytest.approx(sum(lengths.values()), rel=1e-6)
    for a, b in zip(one.parameters(), two.model.parameters(), strict=True):
        # AdamW turns the rounding of a gradient near 0 into a part of a step of 1e-3.
        assert torch.allclose(a, b, atol=2e-4)
        assert float((a - b).detach().abs().mean()) < 1e-6


@pytest.mark.parametrize(
    ("spread", "rank"), [(DDP, 4), (FSDP, None)], ids=["ddp-lora", "fsdp-full"]
)
def test_a_training_that_is_cut_off_goes_on(
    spread: str, rank: int | None, apart: Callable[[str, int | None], Apart], tmp_path: Path
) -> None:
    """To the bit, from the last state, with every mark of both parts; and so where this process has
    the model in files alone, as a study that is sharded does."""
    whole, folder = apart(spread, rank), tmp_path / "cut"
    (tmp_path / "files").mkdir()

    def fresh() -> AnyModel:
        if rank is not None:
            return model_of(whole.start, whole.recipe)
        return StoredModel(whole.start, torch.bfloat16, tmp_path / "files")

    with pytest.raises(Stop):
        whole.again(fresh(), folder, Killer(3))
    (state,) = (folder / "state").glob("step-*")
    assert int(state.name.removeprefix("step-")) >= 2
    counter, model = Killer(100), fresh()
    again = whole.again(model, folder, counter)
    assert 100 - counter.left < 5, "it began where it had been, which it says in one note"
    assert again == whole.trained
    with parameters_to_read(model) as parameters:
        for name, parameter in trainable(whole.model).items():
            assert torch.equal(parameters[name], parameter), name
    assert not folder.exists()


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
