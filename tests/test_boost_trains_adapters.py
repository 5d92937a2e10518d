"""A boost, and paper B's reproductions, that train LoRA adapters; the step back; letters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Checkpoint, Recipe, Slice
from springback.data import load_slice
from springback.decoding.adapter_pair import AdapterPair
from springback.errors import SpringbackError
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.epochs import train_epochs
from springback.jobs.boost.job import boost
from springback.jobs.boost.plan_at_hand import plan as boost_plan
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.clean import find
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.jobs.papers.epicode.plan import settings_of
from springback.jobs.papers.epicode.plan_at_hand import plan
from springback.jobs.papers.epicode.seed import plan as seed_plan
from springback.models.loading import resolve
from springback.progress import Silent
from springback.results.store import Store, read_json
from springback.weights.adapters.merging import merge_each
from test_jobs import Stop, StopAt


@pytest.fixture
def given(tiny_llama: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_llama),
        "train_rows": 4,
        "validation_rows": 3,
        "test_rows": 4,
        "mu": (0.5,),
        "lam": (0.5,),
        "lam_cd": (0.5,),
        "rewind": (1.0, 0.5),
        "max_new_tokens": 3,
        "max_tokens": 320,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "train_batch_size": 2,
        "lora_rank": 2,
        "seeds": (0,),
    }


def settings_for(given: dict[str, Any], **change: Any) -> BoostSettings:
    every = settings_of("epicode-main", "small", given)
    return replace(every.one(0, every.model, None), **change)


def test_a_boost_trains_adapters_and_what_it_writes_is_one(
    given: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_for(given, write_model=True, keep_pair=True)
    found = boost(settings, tmp_path / "out").data
    kept = sorted(
        path.parent.name for path in (tmp_path / "out").glob("checkpoints/*/*/adapter_config.json")
    )
    assert kept == ["epoch-1", "epoch-2"]
    assert not list((tmp_path / "out").glob("checkpoints/*/*/model*.safetensors"))
    assert found["inputs"]["ft"]["adapter"]
    assert list((tmp_path / "out" / "model").rglob("adapter_config.json"))
    assert not [one for one in find(tmp_path / "out").spare if one.what == "weights"]
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").glob("*/run.json")}
    boost(settings, tmp_path / "out")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_killed_training_of_adapters_goes_on_to_the_same_weights(
    given: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    rows = load_slice("problems", limit=4)
    recipe = Recipe(lora_rank=2, batch_size=1, epochs=2, learning_rate=1e-2, max_tokens=320)
    start = resolve(tiny_llama)

    def ends(folder: str, progress: Any) -> list[str]:
        with Store(tmp_path / folder).locked() as store:
            done = train_epochs(start, rows, recipe, store, progress)
        return [point.checkpoint.content_hash for point in done.points]

    with pytest.raises(Stop):
        ends("a", StopAt(6))
    assert ends("a", Silent()) == ends("b", Silent())


def test_rewind_is_a_method_with_a_search_of_its_own(given: dict[str, Any], tmp_path: Path) -> None:
    """-1 is the early checkpoint, to rounding; ties go to the smaller step."""
    given["lora_rank"] = 0
    found = boost(settings_for(given), tmp_path).data["analysis"]
    tried = found["search"]["rewind"]
    assert [c["value"] for c in tried] == [-0.5, -1.0]
    (row,) = (r for r in found["methods"] if r["method"] == "rewind")
    assert row["mu"] == next(c["value"] for c in tried if c["chosen"])
    if tried[0]["accuracy"]["mean"] == tried[1]["accuracy"]["mean"]:
        assert row["mu"] == -0.5
    for shares in ((0.0,), (1.5,), (-0.5,)):
        with pytest.raises(SpringbackError, match=r"--rewind has .* above 0 and at most 1"):
            check_settings(settings_for({**given, "rewind": shares}))


def test_another_runs_adapter_is_the_weak_model_as_it_was_trained(
    given: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    """As the theory's reference is: not the bare base, which lies at the same path."""
    settings = check_settings(settings_for(given))
    rows = load_data(settings).train
    assert rows is not None
    with Store(tmp_path).locked() as store:
        pair = make_pair(settings, rows, store, Silent())
        more = Slice.of("more", "problems", load_slice("problems", limit=8, seed=3).rows)
        other = train_epochs(resolve(tiny_llama), more, settings.recipe(), store, Silent())
        reference = other.points[-1].checkpoint
    models = AdapterPair(pair.early, pair.ft)
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        bare = models.weak(
            Checkpoint(str(tiny_llama), content_hash=resolve(tiny_llama).content_hash)
        )
        base = bare(ids).logits.clone()
        trained = models.weak(reference)(ids).logits.clone()
        adapters = [str(point.checkpoint.adapter) for point in other.points]
        (_, whole) = merge_each(adapters, tiny_llama, tmp_path / "merged")
        expected = models.weak(Checkpoint(str(whole)))(ids).logits
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(trained, base, atol=1e-3)


def test_the_papers_table_of_adapters_with_every_weak_model(
    given: dict[str, Any], tmp_path: Path
) -> None:
    wanted = {**given, "ablate_weak": ("early", "init")}
    cell = reproduce_epicode("epicode-main", "small", tmp_path, wanted).data["analysis"]["cells"][0]
    names = [row["method"] for row in cell["methods"]]
    assert {"rewind", "EpiCoDe, weak early", "EpiCoDe, weak init", "ME, equal step"} <= {*names}
    assert "letter_probability" not in cell["methods"][0]
    with pytest.raises(SpringbackError, match=r"--smaller .* with --lora-rank 2"):
        reproduce_epicode("epicode-main", "small", tmp_path, {**given, "smaller": given["model"]})


def test_the_theory_has_a_reference_that_is_an_adapter(
    given: dict[str, Any], tmp_path: Path
) -> None:
    wanted = {**given, "rewind": (), "train_rows": 2, "seeds": (0,)}
    cell = reproduce_epicode("epicode-theory", "small", tmp_path, wanted).data["analysis"]["cells"][
        0
    ]
    assert cell["reference"]["adapter"]
    assert cell["seeds"][0]["predicted"] in ("helps", "does not help", "undecided")


def choices(file: Path, first: int) -> str:
    rows = [
        {"question": f"What is {i} + 1?", "choices": [str(i), str(i + 1), "9", "7"], "answer": 1}
        for i in range(first, first + 8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_choices_are_trained_in_their_template_and_scored_by_letter_too(
    given: dict[str, Any], tmp_path: Path
) -> None:
    files = {
        part: choices(tmp_path / f"{part}.jsonl", 10 * i)
        for i, part in enumerate(("train", "validation", "test"))
    }
    wanted = {**given, **files, "task": "logiqa", "seeds": (0, 1), "max_new_tokens": 2}
    found = reproduce_epicode("epicode-main", "small", tmp_path / "out", wanted).data["analysis"]
    rows = {row["method"]: row for row in found["cells"][0]["methods"]}
    assert 0 < rows["fine-tuned"]["letter_probability"]["mean"] < 1
    moved = (
        rows["ME only"]["letter_probability"]["mean"]
        - rows["fine-tuned"]["letter_probability"]["mean"]
    )
    assert rows["ME only"]["letter_difference"]["mean"] == pytest.approx(moved)
    assert 0 <= rows["ME only"]["letter_p_t_holm"] <= 1
    assert "probability of the right letter, %" in found["measured"]["columns"]
    every = settings_of("epicode-main", "small", wanted)
    inputs = seed_plan("epicode", every.one(0, every.model, "logiqa")).run.inputs
    assert inputs["shown"] != inputs["train"], "learned as it is asked: in the task's template"
    for run in (tmp_path / "out" / "runs").glob("*/run.json"):
        assert len(read_json(run)["results"]["methods"]["EpiCoDe"]["letters"]) == 4


def test_plans_count_adapters_and_say_how_long_the_seeds_take(given: dict[str, Any]) -> None:
    adapters, whole = (boost_plan(settings_for({**given, "lora_rank": rank})) for rank in (2, 0))
    assert adapters.disk < whole.disk
    (training,) = (stage for stage in adapters.stages if stage.name == "training")
    assert (training.share, whole.stages[0].share) == (2 / 3, 1.0)
    assert {s.name: s.arms for s in adapters.stages}["search of rewind"] == 2
    assert "tiny-llama" in plan("epicode-main", "small", given, timed=True)[-1]
    assert (
        "a seed takes about 1 min, 1 of them"
        in plan("epicode-theory", "small", given, timed=True)[-1]
    )
