"""A real local Ray of several nodes for tests, and a display that kills one of them on the way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from springback.integrations.ray import ExecutorSettings
from springback.progress import Silent
from springback.results.store import read_json

#: Ray leaves sockets and processes to the end of the interpreter.
QUIETLY = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RAY = ExecutorSettings("ray", run_memory=0.2)
SMALL: dict[str, Any] = {"object_store_memory": 100 * 2**20, "include_dashboard": False}

#: The beginning of a file of a user's functions.  Where "armed" lies beside it, the first call
#: takes it, says on which node it is and waits there.
WAIT = """
import os
import time
from pathlib import Path

HERE = Path(__file__).parent


def wait():
    try:
        (HERE / "armed").rename(HERE / f"taken-{os.getpid()}")
    except FileNotFoundError:
        return
    import ray

    (HERE / "writing").write_text(ray.get_runtime_context().get_node_id())
    (HERE / "writing").rename(HERE / "struck")
    time.sleep(600)
"""


@contextlib.contextmanager
def three_nodes(state: Path) -> Iterator[Any]:
    """A head without cores and three nodes with one each; the store of objects is small.

    ``state``: where workers write down the test sets that they open.
    """
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPRINGBACK_STATE", str(state))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        for _ in range(3):
            made.add_node(num_cpus=1, **SMALL)
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def files_of(folder: Path) -> dict[str, Any]:
    """Every run's results, and the result file but for what tells of times and where it lies."""
    runs = {p.parent.name: read_json(p) for p in folder.glob("runs/*/run.json")}
    whole = read_json(folder / "result.json")
    del whole["provenance"]
    return {"runs": runs, "result": json.loads(json.dumps(whole).replace(str(folder), "OUT"))}


class Killer(Silent):
    """Kills the node of a run that is in a user's function, ``after`` runs being done.

    :data:`WAIT` says which node that is, and waits for the blow.
    """

    def __init__(self, cluster: Any, folder: Path, after: int) -> None:
        self.cluster, self.folder, self.after = cluster, folder, after
        self.done, self.armed, self.killed, self.told = 0, False, False, list[str]()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        if note:
            self.told.append(note)
        if self.done >= self.after and not self.armed:
            (self.folder / "armed").touch()
            self.armed = True
        struck = self.folder / "struck"
        if self.killed or not struck.exists():
            return
        (node,) = [n for n in self.cluster.list_all_nodes() if n.node_id == struck.read_text()]
        self.killed = True
        self.cluster.remove_node(node, allow_graceful=False)

    def note(self, text: str) -> None:
        self.told.append(text)
