"""Studies on a real local Ray of several nodes, one of them killed on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed (make integrations)")

from ray_cluster import QUIETLY, RAY, WAIT, Killer, files_of, three_nodes
from springback.cli.flags import _typed
from springback.errors import SpringbackError
from springback.integrations.ray import Task, check_tasks
from springback.integrations.ray.scheduler import connected, run_tasks
from springback.integrations.ray.shared_storage import Shared
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.progress import Progress, Silent
from springback.results.store import read_json

pytestmark = QUIETLY


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with three_nodes(tmp_path_factory.mktemp("state")) as made:
        yield made


#: Length of a text.
SCORER = f"""{WAIT}

def length(prompts, texts):
    wait()
    return [float(len(text)) for text in texts]
"""


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scorer") / "scorer.py"
    path.write_text(SCORER)
    return path


@pytest.fixture(scope="module")
def settings(tiny_llama: Path, scorer: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(8, 16),
        controls=(),
        doses=(8, 32),
        seeds=(0,),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=48,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=4,
        experiments=("rebound", "resistance", "realign"),
        mitigate=("overbend:0.5",),
        probes=("margin", "kl", "behaviour"),
        behaviour=f"python:{scorer}:length",
        precision="float32",
    )


@pytest.fixture(scope="module")
def here(settings: AuditSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study in one process."""
    return audit(settings, tmp_path_factory.mktemp("here") / "out").folder


def test_a_study_on_three_nodes_with_one_killed_finds_what_one_process_finds(
    cluster: Any, settings: AuditSettings, here: Path, scorer: Path, tmp_path: Path
) -> None:
    progress = Killer(cluster, scorer.parent, after=3)
    there = audit(settings, tmp_path / "out", progress, RAY).folder
    assert files_of(there) == files_of(here)
    assert progress.killed
    assert len(cluster.list_all_nodes()) == 3, "the head and two that are left"
    assert not list(there.glob("checkpoints/*/*")), "weights are pruned"
    record = read_json(there / "executor.json")
    assert record["lost_workers"] >= 1
    assert any("begins again" in text for text in progress.told)
    assert any(" | " in text or "/" in text for text in progress.told), "workers are told of"
    assert all(run["estimated"] > 0 and run["seconds"] >= 0 for run in record["runs"])
    # Finished runs are read: nothing is left to do, and nothing was written anew.
    stamps = {p: p.stat().st_mtime_ns for p in there.glob("runs/*/run.json")}
    audit(settings, there, Silent(), RAY)
    assert {p: p.stat().st_mtime_ns for p in there.glob("runs/*/run.json")} == stamps


def test_workers_without_a_common_folder_exchange_runs_by_an_address(
    cluster: Any, settings: AuditSettings, here: Path, tmp_path: Path
) -> None:
    url = f"file://{tmp_path / 'exchange'}"
    small = replace(settings, experiments=("rebound",), mitigate=())
    there = audit(small, tmp_path / "out", Silent(), replace(RAY, shared=url)).folder
    runs = files_of(there)["runs"]
    both = files_of(here)["runs"]
    assert len(runs) == 4
    assert {name: run for name, run in both.items() if name in runs} == runs
    assert not Shared(url).has("checkpoints"), "weights are dropped there too"


def trivial(progress: Progress) -> None:
    progress.stage("nothing", 1)


def fail(progress: Progress) -> None:
    raise SpringbackError("this run cannot be")


def mark(path: Path, progress: Progress) -> None:
    path.write_text("done")


def task(key: str, call: Callable[[Progress], Any], **more: Any) -> Task:
    return Task(key, key, call, **more)


def test_a_branch_begins_when_its_branch_point_is_there(cluster: Any, tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    point, branch, last = (tmp_path / name for name in ("point", "branch", "last"))

    def prefix(progress: Progress) -> None:
        point.write_text("there")
        end = time.monotonic() + 120  # the branch begins on another node while this goes on
        while not branch.exists() and time.monotonic() < end:
            time.sleep(0.05)
        if not branch.exists() or last.exists():
            raise SpringbackError("the branch did not begin, or the last did")

    tasks = [
        task("prefix", prefix),
        task("branch", partial(mark, branch), after=("prefix",), early=point.exists),
        task("last", partial(mark, last), after=("prefix",)),
    ]
    assert {o.key for o in run_tasks(tasks, RAY, Silent())} == {"prefix", "branch", "last"}


def test_an_error_stops_what_is_at_work_and_cancels_nothing_that_has_ended(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends this whole process where it is asked to cancel a task that is just ending."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cancelled, cancel = list[Any](), ray.cancel

    def noted(ref: Any, **how: Any) -> None:
        cancelled.append(ref)
        cancel(ref, **how)

    monkeypatch.setattr(ray, "cancel", noted)
    for _ in range(10):
        with pytest.raises(SpringbackError, match="this run cannot be"):
            run_tasks([task("a", fail), task("b", trivial, after=("a",))], RAY, Silent())
    assert not cancelled
    begun = tmp_path / "begun"

    def work(progress: Progress) -> None:
        begun.write_text(str(os.getpid()))
        time.sleep(120)

    def fail_beside(progress: Progress) -> None:
        while not begun.exists() or not begun.read_text():
            time.sleep(0.05)
        raise SpringbackError("this run cannot be")

    with pytest.raises(SpringbackError, match="this run cannot be"):
        run_tasks([task("long", work), task("short", fail_beside)], RAY, Silent())
    assert len(cancelled) == 1
    worker, end = Path(f"/proc/{begun.read_text()}"), time.monotonic() + 20
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.exists()


def die_once(path: Path, progress: Progress) -> None:
    if not path.exists():
        path.write_text("died")
        os._exit(1)


def die(progress: Progress) -> None:
    os._exit(1)


def test_a_lost_worker_is_replaced_until_too_many_were_lost(cluster: Any, tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (outcome,) = run_tasks([task("one", partial(die_once, tmp_path / "x"))], RAY, Silent())
    assert outcome.attempts == 2
    with pytest.raises(SpringbackError, match="2 workers were lost"):
        run_tasks([task("always", die)], replace(RAY, retries=1), Silent())


def test_what_no_node_has_is_refused_at_once(cluster: Any) -> None:
    with pytest.raises(SpringbackError, match=r"a run needs 64 CPU, .*lower --run-cpus"):
        run_tasks([task("large", trivial, cpus=64)], RAY, Silent())


def test_the_command_line_starts_a_ray_of_its_own(
    settings: AuditSettings, here: Path, tmp_path: Path
) -> None:
    """Beside the cluster, in a process of its own: what a user types."""
    names = ("model", "n_pos", "doses", "learning_rate", "batch_size", "max_tokens", "holdout")
    more = ("prompts", "prompt_tokens", "sample_tokens", "probes", "behaviour", "precision")
    flags = [
        f"--{name.replace('_', '-')}={_typed(getattr(settings, name))}" for name in (*names, *more)
    ]
    command = [sys.executable, "-m", "springback.cli", "audit", *flags]
    command += ["--seeds=0", "--experiments=rebound", "--controls=none"]
    command += ["--executor=ray", "--run-memory=0.2"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "runs on Ray, 1 nodes" in done.stderr
    runs = {p.parent.name: read_json(p) for p in tmp_path.glob("out/runs/*/run.json")}
    both = files_of(here)["runs"]
    assert len(runs) == 4
    assert {name: run for name, run in both.items() if name in runs} == runs
    assert (tmp_path / "out" / "executor.json").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", ":1", "ray://here:x"])
def test_an_address_where_nobody_listens_is_refused_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(SpringbackError, match="cannot reach --address"),
        connected(replace(RAY, address=address)),
    ):
        pass


def test_tasks_that_can_never_begin_are_refused() -> None:
    with pytest.raises(SpringbackError, match="each key once"):
        check_tasks([task("a", trivial), task("a", trivial)])
    with pytest.raises(SpringbackError, match="waits for b"):
        check_tasks([task("a", trivial, after=("b",))])
    with pytest.raises(SpringbackError, match="wait for each other"):
        check_tasks([task("a", trivial, after=("b",)), task("b", trivial, after=("a",))])


def test_a_sharded_model_is_extrapolated_by_workers_to_the_same_bytes(
    cluster: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    import torch

    from springback.integrations.ray.extrapolate import extrapolate_on_ray
    from springback.models.loading import load_model, resolve
    from springback.weights import Extrapolation, extrapolate_along

    model = load_model(resolve(tiny_llama))
    for name in ("early", "ft"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name, max_shard_size="100KB")
    both = [tmp_path / "early", tmp_path / "ft"]
    how = Extrapolation(0.3, low_rank=4)
    here = extrapolate_along(both, how, tmp_path / "here")
    there = extrapolate_on_ray(both, how, tmp_path / "there", RAY)
    assert there == here
    files = sorted(p.name for p in (tmp_path / "here").iterdir())
    assert len([n for n in files if n.endswith(".safetensors")]) > 2
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == files
    for name in files:
        if name != "springback.json":  # it names the folders
            one, two = ((tmp_path / side / name).read_bytes() for side in ("here", "there"))
            assert one == two, name
