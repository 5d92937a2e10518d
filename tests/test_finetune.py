"""Fine-tuning against a bare loop, branches against separate runs, resume against none."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_runs import Killer, Stop, interrupted, same, weights
from springback.core import Recipe, Row
from springback.errors import SpringbackError, TrainingError
from springback.models.encoding import Encoded, encode_rows, pad_batch
from springback.models.loading import Model, load_model, load_tokenizer, resolve
from springback.progress import Progress
from springback.training import Marks, Resume, Trained, finetune, plan_batches
from springback.training.trainer import State

RECIPE = Recipe(learning_rate=1e-3, batch_size=4, epochs=1, max_tokens=64, precision="float32")


@pytest.fixture
def start(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture(scope="module")
def rows(tiny_llama: Path) -> list[Encoded]:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    texts = [f"the {'heron ' * (n % 5 + 1)}sings at {n}" for n in range(24)]
    return encode_rows(tokenizer, [Row("text", "", t) for t in texts], 64)


def train(
    model: Model,
    tiny_llama: Path,
    rows: list[Encoded],
    recipe: Recipe = RECIPE,
    marks: Marks | None = None,
    resume: Resume | None = None,
    progress: Progress | None = None,
) -> Trained:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    return finetune(model, tokenizer, rows, recipe, marks, resume, progress)


def test_equals_a_bare_loop(start: Model, tiny_llama: Path, rows: list[Encoded]) -> None:
    bare = copy.deepcopy(start)
    bare.train()
    optimizer = torch.optim.AdamW(
        bare.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    losses = []
    for at in range(0, 24, 4):
        batch = pad_batch(rows, range(at, at + 4), 3)
        loss = bare(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        losses.append(float(loss.detach()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    before = weights(start)
    done = train(start, tiny_llama, rows)
    # To rounding: the loss takes its logits in chunks (tests/test_head_loss.py).
    assert done.losses == pytest.approx(losses, rel=1e-5)
    after = weights(start)
    for name, weight in weights(bare).items():
        torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(after[n], w) for n, w in before.items())


def test_a_branch_point_equals_a_run_of_that_length(
    start: Model, tiny_llama: Path, rows: list[Encoded]
) -> None:
    separate = copy.deepcopy(start)
    found: dict[int, dict[str, Tensor]] = {}

    def keep(examples: int, model: Model) -> None:
        found[examples] = weights(model)

    train(start, tiny_llama, rows, marks=Marks((0, 8, 24), keep))
    train(separate, tiny_llama, rows[:8])
    assert sorted(found) == [0, 8, 24]
    assert all(torch.equal(found[8][n], w) for n, w in weights(separate).items())


@pytest.mark.parametrize("stop_after", [1, 3, 5])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_resume_ends_in_the_same_weights(
    start: Model,
    tiny_llama: Path,
    rows: list[Encoded],
    tmp_path: Path,
    stop_after: int,
    schedule: str,
) -> None:
    recipe = Recipe(
        learning_rate=1e-3,
        batch_size=4,
        epochs=2,
        max_tokens=64,
        precision="float32",
        schedule=schedule,
    )
    whole, again = copy.deepcopy(start), copy.deepcopy(start)
    marks = Marks((4, 24, 48), lambda n, m: float(next(m.parameters()).detach().sum()))
    expected = train(whole, tiny_llama, rows, recipe, marks=marks)

    resume = Resume(tmp_path / "state", save_every=0.0)
    with pytest.raises(Stop):
        train(
            start, tiny_llama, rows, recipe, marks=marks, resume=resume, progress=Killer(stop_after)
        )
    assert len(list((tmp_path / "state").glob("step-*"))) == 1
    done = train(again, tiny_llama, rows, recipe, marks=marks, resume=resume)
    assert done == expected
    assert all(torch.equal(w, weights(again)[n]) for n, w in weights(whole).items())


@pytest.fixture
def with_dropout(tmp_path: Path) -> Model:
    """A model that draws random numbers in training, as GPT-2 does."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2)
        )


def test_resume_repeats_what_dropout_draws(
    with_dropout: Model, tiny_llama: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    assert with_dropout.config.resid_pdrop > 0

    def run(model: Model, **how: Any) -> Trained:
        return train(model, tiny_llama, rows, **how)

    (expected, whole), (done, again) = interrupted(with_dropout, run, tmp_path)
    assert done == expected
    assert same(weights(whole), weights(again))


def test_a_mark_that_draws_does_not_change_the_run(
    with_dropout: Model, tiny_llama: Path, rows: list[Encoded]
) -> None:
    marked = copy.deepcopy(with_dropout)
    marks = Marks((0, 4, 8), lambda n, m: float(torch.rand(3).sum()))
    expected = train(with_dropout, tiny_llama, rows)
    assert train(marked, tiny_llama, rows, marks=marks).losses == expected.losses
    assert same(weights(with_dropout), weights(marked))


def test_weights_that_are_no_numbers_at_the_end_stop_the_run(
    start: Model, tiny_llama: Path, rows: list[Encoded]
) -> None:
    *_, last = start.parameters()
    spoil: Any = last.register_hook
    spoil(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="last step"):
        train(start, tiny_llama, rows[:4])


def test_what_is_there_is_set_aside_from_the_collector_while_a_run_lasts(
    start: Model, tiny_llama: Path, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = gc.get_freeze_count()  # by these tests
    gc.unfreeze()
    monkeypatch.setattr("springback.training.run._callers_own", False)
    try:
        seen: list[int] = []
        marks = Marks((4,), lambda n, m: seen.append(gc.get_freeze_count()))
        train(start, tiny_llama, rows[:4], marks=marks)
        assert seen[0] > 10_000
        assert gc.get_freeze_count() == 0
        gc.freeze()  # a caller's own stays
        mine = gc.get_freeze_count()
        train(start, tiny_llama, rows[:4])
        assert 0 < gc.get_freeze_count() <= mine
    finally:
        if aside and not gc.get_freeze_count():
            gc.freeze()


def test_a_state_is_saved_a_step_early_where_one_more_would_lose_a_minute(
    start: Model, tiny_llama: Path, rows: list[Encoded], tmp_path: Path, monkeypatch: Any
) -> None:
    """A state every 45 s: of steps of 25 s every second, of 40 s every one (80 s are too many)."""
    seconds, saved = [0.0], []
    monkeypatch.setattr("springback.training.trainer.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr(State, "save", lambda state: saved.append((state.step, seconds[0])))

    class Slow(Killer):
        """Steps of ``left`` seconds."""

        def advance(self, steps: int = 1, note: str = "") -> None:
            seconds[0] += self.left

    every_one = [(n, 40.0 * n) for n in range(1, 6)]  # not after the last: the run is done then
    for length, expected in ((25, [(2, 50.0), (4, 100.0)]), (40, every_one)):
        seconds[0] = 0.0
        saved.clear()
        train(start, tiny_llama, rows, progress=Slow(length))
        assert saved == expected


def test_state_of_another_run_is_not_taken(
    start: Model, tiny_llama: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    fresh, resume = copy.deepcopy(start), Resume(tmp_path / "state", save_every=0.0)
    train(start, tiny_llama, rows, resume=resume)
    assert list((tmp_path / "state").glob("step-*"))
    other = Recipe(learning_rate=2e-3, batch_size=4, max_tokens=64, precision="float32")
    plain = copy.deepcopy(fresh)
    assert train(fresh, tiny_llama, rows, other, resume=resume) == train(
        plain, tiny_llama, rows, other
    )


def test_resume_state_is_safetensors_and_json_only(
    start: Model, tiny_llama: Path, rows: list[Encoded], tmp_path: Path
) -> None:
    train(start, tiny_llama, rows, resume=Resume(tmp_path / "state", save_every=0.0))
    kinds = {p.suffix for p in (tmp_path / "state").rglob("*") if p.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_master_weights_stay_fp32_under_autocast(
    start: Model, tiny_llama: Path, rows: list[Encoded]
) -> None:
    before = weights(start)
    recipe = Recipe(learning_rate=1e-5, batch_size=4, max_tokens=64, precision="bf16-mixed")
    train(start, tiny_llama, rows, recipe)
    assert {p.dtype for p in start.parameters()} == {torch.float32}
    name = next(iter(before))
    changed = weights(start)[name] != before[name]
    # Every used embedding moves, although 1e-5 is far below bf16's step at weights of 0.2.
    assert int(changed.any(-1).sum()) >= 20


def test_batches_keep_order_first_then_shuffle_and_do_not_cross_epochs() -> None:
    batches = plan_batches(5, Recipe(batch_size=2, epochs=2, seed=1))
    assert batches[:3] == [[0, 1], [2, 3], [4]]
    assert sorted(i for b in batches[3:] for i in b) == [0, 1, 2, 3, 4]
    assert [len(b) for b in batches[3:]] == [2, 2, 1]


def test_nan_loss_stops_with_advice(start: Model, tiny_llama: Path, rows: list[Encoded]) -> None:
    with torch.no_grad():
        next(start.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(start, tiny_llama, rows)


def test_marks_between_batches_only(start: Model, tiny_llama: Path, rows: list[Encoded]) -> None:
    with pytest.raises(SpringbackError, match="multiples of the batch size"):
        train(start, tiny_llama, rows, marks=Marks((6,), lambda n, m: None))


@pytest.mark.parametrize(
    "change", [{"algorithm": "magic"}, {"schedule": "zigzag"}, {"learning_rate": 0.0}]
)
def test_bad_recipes_are_refused(
    start: Model, tiny_llama: Path, rows: list[Encoded], change: dict[str, object]
) -> None:
    from dataclasses import replace

    with pytest.raises(SpringbackError, match="allowed"):
        train(start, tiny_llama, rows, replace(RECIPE, **change))  # type: ignore[arg-type]
