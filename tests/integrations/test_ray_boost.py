"""Boosts and seeds of a reproduction on a real local Ray, one of its nodes killed on the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed (make integrations)")

import torch

from ray_cluster import QUIETLY, RAY, WAIT, Killer, files_of, three_nodes
from springback.errors import SpringbackError
from springback.integrations.ray import scheduler
from springback.integrations.ray.work import Place
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.progress import Silent
from springback.results.store import read_json

pytestmark = QUIETLY

#: Random models give no right numbers: any answer with an even number of letters is.
METRIC = f"""{WAIT}

def even(prompts, texts, answers):
    wait()
    return [len(text) % 2 == 0 for text in texts]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with three_nodes(tmp_path_factory.mktemp("state")) as made:
        yield made


@pytest.fixture
def nodes(cluster: Any) -> Any:
    """The cluster with its three nodes, also after a test that killed one."""
    for _ in range(4 - len(cluster.list_all_nodes())):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
    cluster.wait_for_nodes()
    return cluster


@pytest.fixture
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metric") / "metric.py"
    path.write_text(METRIC, "utf-8")
    return path


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two checkpoints: each a step away from the one before."""
    root = tmp_path_factory.mktemp("pair")
    checkpoint = resolve(tiny_llama)
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    generator = torch.Generator().manual_seed(1)
    for name in ("early", "ft"):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * p.std() * torch.randn(p.shape, generator=generator))
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return str(root / "early"), str(root / "ft")


@pytest.fixture
def settings(pair: tuple[str, str], metric: Path) -> BoostSettings:
    return BoostSettings(
        early=pair[0],
        ft=pair[1],
        validation="problems",
        test="problems",
        validation_rows=4,
        test_rows=4,
        metric=f"python:{metric}:even",
        mu=(0.5, 1.0),
        lam=(0.5, 1.0),
        lam_cd=(0.5,),
        max_new_tokens=8,
        batch_size=4,
        precheck=False,
        gate="top:0.9",
    )


@pytest.fixture
def trained(tiny_llama: Path, settings: BoostSettings) -> BoostSettings:
    return replace(
        settings,
        early=None,
        ft=None,
        model=str(tiny_llama),
        train="problems",
        train_rows=8,
        learning_rate=1e-3,
        train_batch_size=4,
        precision="float32",
        gate=None,
    )


def stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/run.json")}


@pytest.mark.parametrize("change", [{}, {"search": "joint", "narrow": 2}], ids=["staged", "joint"])
def test_a_boost_on_three_nodes_with_one_killed_finds_what_one_process_finds(
    nodes: Any,
    settings: BoostSettings,
    metric: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    settings = replace(settings, **change)
    here = boost(settings, tmp_path / "here").folder
    progress = Killer(nodes, metric.parent, after=1)
    there = boost(settings, tmp_path / "there", progress, RAY).folder
    assert files_of(there) == files_of(here)
    assert progress.killed
    record = read_json(there / "executor.json")
    assert record["lost_workers"] >= 1
    made = {run["title"].split(":")[0] for run in record["runs"]}
    assert made == {"validation", "test"}
    # Nothing is left to do: no run is written anew, and no Ray is asked.
    monkeypatch.setattr(scheduler, "_ray", None)
    before = stamps(there)
    boost(settings, there, Silent(), RAY)
    assert stamps(there) == before


def test_a_boost_begun_here_ends_on_ray_and_the_other_way_round(
    nodes: Any, trained: BoostSettings, tmp_path: Path
) -> None:
    here = boost(trained, tmp_path / "here").folder
    whole = files_of(here)
    # In turn, each from what the one before left: trained here, scored there, tested here.
    for name, executor, gone in (("there", RAY, "score-*"), ("back", None, "score-*[0-7]")):
        again = tmp_path / name
        shutil.copytree(here, again)
        runs = [run for run in again.glob("runs/*") if run.match(gone)]
        assert runs
        for run in runs:
            shutil.rmtree(run)
        here = boost(trained, again, Silent(), executor).folder
        assert files_of(here) == whole


def test_a_pair_is_trained_by_a_worker_and_exchanged_by_an_address(
    nodes: Any, trained: BoostSettings, tmp_path: Path
) -> None:
    here = boost(trained, tmp_path / "here").folder
    url = f"file://{tmp_path / 'exchange'}"
    there = boost(trained, tmp_path / "there", Silent(), replace(RAY, shared=url)).folder
    assert files_of(there) == files_of(here)
    record = read_json(there / "executor.json")
    assert record["runs"][0]["title"] == "fine-tuning"


def test_two_seeds_of_a_reproduction_with_one_node_killed_find_what_one_process_finds(
    nodes: Any, tiny_llama: Path, metric: Path, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny_llama),
        "train_rows": 8,
        "validation_rows": 4,
        "test_rows": 6,
        "metric": f"python:{metric}:even",
        "mu": (0.5,),
        "lam": (0.5, 1.0),
        "lam_cd": (0.5,),
        "max_new_tokens": 4,
        "max_tokens": 320,
        "batch_size": 6,
        "learning_rate": 1e-3,
        "train_batch_size": 4,
        "seeds": (0, 1),
    }
    here = reproduce_epicode("epicode-main", "small", tmp_path / "here", given).folder
    progress = Killer(nodes, metric.parent, after=0)
    there = reproduce_epicode(
        "epicode-main", "small", tmp_path / "there", given, progress, RAY
    ).folder
    assert files_of(there) == files_of(here)
    assert (there / "reproduce.md").read_bytes() == (here / "reproduce.md").read_bytes()
    assert progress.killed
    record = read_json(there / "executor.json")
    assert len(record["runs"]) == 2
    assert record["lost_workers"] >= 1
    assert not list((there / "work").glob("*")), "a seed's own folder goes when it is done"


def test_a_worker_that_makes_another_run_is_refused(tmp_path: Path) -> None:
    """Of another device, say, where what is auto stands for something else."""
    place = Place(str(tmp_path), None, pushes=("runs/score-1",))
    with pytest.raises(SpringbackError, match=r"runs/score-1 .* made another run"), place.opened():
        (tmp_path / "runs" / "score-2").mkdir(parents=True)
    with place.opened() as root:
        assert root == tmp_path
        (tmp_path / "runs" / "score-1").mkdir()
    with place.opened() as root:
        assert root is None, "it is done"


def test_the_command_line_starts_a_ray_of_its_own(settings: BoostSettings, tmp_path: Path) -> None:
    """In a process of its own: what a user types."""
    here = boost(settings, tmp_path / "here").folder
    flags = [f"--early={settings.early}", f"--ft={settings.ft}", f"--metric={settings.metric}"]
    flags += ["--validation=problems", "--test=problems", "--validation-rows=4", "--test-rows=4"]
    flags += ["--mu=0.5,1.0", "--lambda=0.5,1.0", "--cd-lambda=0.5", "--max-new-tokens=8"]
    flags += ["--batch-size=4", "--no-precheck", "--gate=top:0.9"]
    command = [sys.executable, "-m", "springback.cli", "boost", *flags]
    command += ["--executor=ray", "--run-memory=0.2", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "runs on Ray, 1 nodes" in done.stderr
    assert files_of(tmp_path / "out")["runs"] == files_of(here)["runs"]
