"""A boost over all checkpoints of a run: found, spanned, chosen among, and written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from boost_pair import save_pair
from springback.core import Checkpoint
from springback.decoding.adapter_pair import AdapterPair
from springback.decoding.lora_pair import LoraLinear
from springback.errors import ModelError, SpringbackError
from springback.jobs.boost.job import boost
from springback.jobs.boost.run_search import BEST
from springback.jobs.boost.settings import BoostSettings
from springback.models.checkpoint_pair import CheckpointPair
from springback.models.loading import resolve
from springback.models.placement import Placement
from springback.models.run_folder import checkpoints_of
from springback.results.store import read_json
from springback.results.texts import read_texts
from springback.weights import Extrapolation, extrapolate_along
from springback.weights.adapters.extrapolation import AdapterExtrapolation, extrapolate_adapters
from springback.weights.adapters.precheck import adapter_products
from springback.weights.precheck import inner_products
from springback.weights.span import (
    Point,
    coordinates,
    decay_shares,
    on_line,
    points_of_run,
    shares_of,
)
from weights_adapters import merged, save_adapter


@pytest.fixture(scope="module")
def run(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints as a Trainer leaves them, and the last one again in the folder itself."""
    folder = tmp_path_factory.mktemp("run")
    pairs = [save_pair(Path(tiny_llama), folder / f"p{i}", torch.float32) for i in range(2)]
    for step, source in ((5, pairs[0][0]), (100, pairs[0][1]), (20, pairs[1][1])):
        shutil.copytree(source, folder / f"checkpoint-{step}")
    weights = load_file(folder / "checkpoint-20" / "model.safetensors")
    torch.manual_seed(5)
    moved = {n: w + 0.02 * torch.randn_like(w) for n, w in weights.items()}
    save_file(moved, folder / "checkpoint-20" / "model.safetensors", {"format": "pt"})
    for pair in (folder / "p0", folder / "p1"):
        shutil.rmtree(pair)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_checkpoints_are_found_in_the_order_of_training(run: Path, tmp_path: Path) -> None:
    names = [path.name for path in checkpoints_of([run])]
    assert names == ["checkpoint-5", "checkpoint-20", "checkpoint-100"]
    ended = tmp_path / "ended"
    shutil.copytree(run, ended)
    for file in (run / "checkpoint-100").iterdir():
        shutil.copy(file, ended / file.name)
    assert len(checkpoints_of([ended])) == 3, "the last checkpoint again"
    for file in (run / "checkpoint-5").iterdir():
        shutil.copy(file, ended / file.name)
    assert checkpoints_of([ended])[-1] == ended
    (ended / "checkpoint-7").mkdir()
    (ended / "runs").mkdir()
    assert len(checkpoints_of([ended])) == 4, "a folder without weights is none"
    assert checkpoints_of(["b", "a"]) == [Path("b"), Path("a")], "named ones are as given"


@pytest.mark.parametrize("keep", [0, 1])
def test_too_few_checkpoints_are_refused(run: Path, tmp_path: Path, keep: int) -> None:
    if keep:
        shutil.copytree(run / "checkpoint-5", tmp_path / "checkpoint-5")
    with pytest.raises(ModelError, match=f"{keep} checkpoint"):
        checkpoints_of([tmp_path])
    with pytest.raises(ModelError, match="no folder"):
        checkpoints_of([tmp_path / "none"])


def test_points_of_three_checkpoints_by_hand() -> None:
    points = {p.name: p.weights for p in points_of_run((0, 1, 2), ("a", "b", "c"), (0.0, 0.4))}
    assert points["fine-tuned"] == (0, 0)
    assert points["mu 0.4"] == (0, 0.4)
    assert points["rewind 0.5"] == (0, -0.5)
    assert points["a"] == (-1, 0)
    assert points["b"] == (0, -1)
    assert points["average of the last 3"] == pytest.approx((-1 / 3, -1 / 3))
    # The slope through 0, 1, 2 is (c - a) / 2: w_a = 1/2, w_b = 0.
    assert points["least squares, mu 0.4"] == pytest.approx((0.2, 0.0))
    shares = decay_shares(3)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(math.sqrt(1 / 3))
    assert points["average, 1-sqrt"] == pytest.approx((-shares[0], -shares[1]))
    assert len(set(points.values())) == len(points), "each point once"
    two = points_of_run((0, 1), ("a", "b"), (0.2,))
    assert [p.name for p in two] == ["fine-tuned", "mu 0.2", "rewind 0.25", "rewind 0.5", "a"]


def test_coordinates_have_the_distances_of_the_weights(run: Path) -> None:
    folders = checkpoints_of([run])
    points = points_of_run((5, 20, 100), [f.name for f in folders], (0.3,))
    places = coordinates(points, inner_products(folders))
    tensors = [torch.cat([w.double().flatten() for w in weights_of(f).values()]) for f in folders]
    spots = [torch.tensor(shares_of(p.weights)).double() @ torch.stack(tensors) for p in points]
    unit = float((tensors[2] - tensors[1]).norm())
    for i in range(len(points)):
        for j in range(i):
            expected = float((spots[i] - spots[j]).norm()) / unit
            assert np.linalg.norm(places[i] - places[j]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shares", [(1, 1, 1), (0.5, -1.0, 2.0), (0, 3, 0)])
def test_a_point_in_memory_is_the_folder_that_is_written(
    run: Path, tmp_path: Path, shares: Sequence[float]
) -> None:
    folders = checkpoints_of([run])
    extrapolate_along(folders, Extrapolation(1.0, shares=tuple(shares)), tmp_path / "out")
    written = weights_of(tmp_path / "out")
    tensors = [weights_of(folder) for folder in folders]
    total = sum(shares)
    for name, tensor in written.items():
        exact = sum(s / total * t[name].double() for s, t in zip(shares, tensors, strict=True))
        assert torch.allclose(tensor.double(), exact, atol=1e-7)  # type: ignore[arg-type]
    before, early, ft = map(resolve, folders)
    pair = CheckpointPair(early, ft, before=[before])
    point = tuple(-s / total for s in shares[:-1])
    for at in (0.0, point, 0.5, point):
        model = pair.at(at)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.cpu(), written[name]), name
    pair.at(0.0)
    last = weights_of(folders[-1])
    assert all(torch.equal(p.cpu(), last[n]) for n, p in pair.at(0.0).named_parameters())


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.0, -1.0, 0.0), (1.0, math.nan, 0.0)])
def test_weights_that_are_none_are_refused(
    run: Path, tmp_path: Path, shares: tuple[float, ...]
) -> None:
    with pytest.raises(ModelError, match="not 0 together"):
        extrapolate_along(checkpoints_of([run]), Extrapolation(1.0, shares=shares), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.fixture
def settings(run: Path) -> BoostSettings:
    return BoostSettings(
        run=(str(run),),
        validation="problems",
        test="problems",
        validation_rows=4,
        test_rows=4,
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        max_new_tokens=6,
        batch_size=4,
        precheck=False,
        reopen_test=True,
    )


def letters(folder: Path) -> str:
    """A metric under which random answers differ: an even number of letters is right."""
    file = folder / "metric.py"
    file.write_text(
        "def even(prompts, texts, answers):\n"
        "    return [float(sum(map(str.isalpha, t)) % 2 == 0) for t in texts]\n"
    )
    return f"python:{file}:even"


def test_every_point_is_a_candidate_and_the_choice_is_written(
    settings: BoostSettings, run: Path, tmp_path: Path
) -> None:
    settings = replace(settings, metric=letters(tmp_path), choose_by="nll")
    result = boost(settings, tmp_path / "out").data
    analysis = result["analysis"]
    candidates = analysis["search"]["run"]
    names = [c["name"] for c in candidates]
    assert names[0] == "fine-tuned"
    assert {"checkpoint-5", "checkpoint-20", "average of the last 3"} <= set(names)
    best = min(candidates, key=lambda c: c["nll"]["mean"])
    record = analysis["run"]
    assert record["checkpoints"] == ["checkpoint-5", "checkpoint-20", "checkpoint-100"]
    assert record["steps"] == [5, 20, 100]
    assert record["norms"][-1] == 1
    assert record["chosen"] == best["name"]
    assert [c["chosen"] for c in candidates].count(True) == 1
    if record["shares"] is not None and record["chosen"] != "fine-tuned":
        assert sum(record["shares"]) == pytest.approx(1)
        assert BEST in [m["method"] for m in analysis["methods"]]
        written = weights_of(tmp_path / "out" / "model")
        folders = checkpoints_of([run])
        for name, tensor in written.items():
            parts = [
                s * weights_of(f)[name].double()
                for s, f in zip(record["shares"], folders, strict=True)
            ]
            assert torch.allclose(tensor.double(), torch.stack(parts).sum(0), atol=1e-6)
        assert record["chosen"] in result["verdict"]["text"]
    asked = read_texts(tmp_path / "out", "questions")
    assert asked is not None
    for method in analysis["methods"]:
        answers = [one.answers[method["method"]] for one in asked]
        scores = [answer.score for answer in answers if answer.score is not None]
        assert sum(scores) / 4 == pytest.approx(method["accuracy"]["mean"])
        assert [answer.cut for answer in answers].count(True) / 4 == pytest.approx(method["cut"])
    assert all(one.prompt and one.answers["fine-tuned"].text for one in asked)
    again = boost(settings, tmp_path / "out").data
    assert json.dumps(again["analysis"]) == json.dumps(analysis)
    assert read_texts(tmp_path / "out", "questions") == asked


def test_points_have_runs_of_their_own(settings: BoostSettings, tmp_path: Path) -> None:
    boost(replace(settings, write_model=False), tmp_path / "out")
    inputs = [
        read_json(file)["inputs"] for file in (tmp_path / "out" / "runs").glob("score-*/run.json")
    ]
    points = [i["point"] for i in inputs if "point" in i]
    assert len({tuple(p) for p in points}) == len(points) >= 4
    assert all(len(i["before"]) == 1 for i in inputs if "point" in i)


@pytest.mark.parametrize(
    "changes", [{"early": "x", "ft": "y"}, {"model": "smollm2-135m", "train": "problems"}]
)
def test_a_run_beside_other_checkpoints_is_refused(
    settings: BoostSettings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(SpringbackError, match="run"):
        boost(replace(settings, **changes), tmp_path / "out")


def test_a_run_of_adapters_shares_one_base(tiny_llama: Path, tmp_path: Path) -> None:
    """Points are adapters of all ranks together, in memory and as written."""
    run = [
        save_adapter(tmp_path / f"checkpoint-{i}", Path(tiny_llama), i, r=i + 1) for i in range(3)
    ]
    lines = [Checkpoint(str(tiny_llama), adapter=str(folder)) for folder in run]
    pair = AdapterPair(*lines[1:], before=lines[:1], place=Placement(torch.float32))
    shares = (0.25, 0.25, 0.5)
    extrapolate_adapters(run, AdapterExtrapolation(1.0, shares=shares), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "weights 0.25, 0.25, 0.5" in card, "a point, and no step past the last adapter"
    assert "theta_ep" not in card
    expected = merged(tiny_llama, tmp_path / "out")
    every = [merged(tiny_llama, folder) for folder in run]
    model = pair.at((-0.25, -0.25))
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            weight = (module.weight + (module.a[0] @ module.b[0]).T).double()
            key = f"{name}.weight"
            by_hand = sum(s * e[key] for s, e in zip(shares, every, strict=True))
            torch.testing.assert_close(weight, expected[key], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(weight, by_hand, rtol=1e-5, atol=1e-6)
    gram = adapter_products(run)
    flat = [torch.cat([w.flatten() for w in e.values()]) for e in every]
    for i in range(2):
        for j in range(2):
            product = (flat[i] - flat[2]) @ (flat[j] - flat[2])
            assert gram[i, j] == pytest.approx(float(product), rel=1e-5)
    settings = BoostSettings(
        run=tuple(map(str, run)),
        model=str(tiny_llama),
        validation="problems",
        test="problems",
        validation_rows=4,
        test_rows=4,
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        max_new_tokens=4,
        choose_by="nll",
        reopen_test=True,
    )
    result = boost(settings, tmp_path / "boost").data
    record = result["analysis"]["run"]
    assert record["checkpoints"] == ["checkpoint-0", "checkpoint-1", "checkpoint-2"]
    assert not list((tmp_path / "boost").rglob("model-*.safetensors")), "nothing is merged"
    if result["inputs"]["boosted"]:
        assert (tmp_path / "boost" / "model" / "adapter_model.safetensors").exists()


def test_a_point_on_the_line_is_the_run_of_its_mu() -> None:
    from springback.jobs.boost.arm import Arm

    assert Arm("", 0.4, 0, None, point=on_line(0.4, 3)).key() == Arm("", 0.4, 0, None).key()
    assert "point" in Arm("", 0.0, 0, None, point=(-0.5, 0.0)).key()
    assert Point("x", (0.0,)).weights == (0.0,)


def test_the_best_checkpoint_is_one_of_the_run(
    settings: BoostSettings, run: Path, tmp_path: Path
) -> None:
    """Samples and baselines beside the points of a run; its checkpoints are scored once."""
    given = replace(settings, metric=letters(tmp_path), baselines=True, samples=2)
    analysis = boost(given, tmp_path / "out").data["analysis"]
    checkpoints = {c["name"]: c["accuracy"] for c in analysis["search"]["checkpoint"]}
    assert list(checkpoints) == ["checkpoint-100", "checkpoint-20", "checkpoint-5"]
    points = {c["name"]: c["accuracy"] for c in analysis["search"]["run"]}
    assert checkpoints["checkpoint-5"] == points["checkpoint-5"]
    assert checkpoints["checkpoint-100"] == points["fine-tuned"]
    methods = {m["method"]: m for m in analysis["methods"]}
    assert {"majority of 3 samples", "average of probabilities", "best checkpoint"} <= set(methods)
    assert methods["fine-tuned"]["sampled"]["samples"] == 2
