"""Which engine decodes a boost: names, what each cannot do, and what ``auto`` is in a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from boost_pair import save_pair
from springback.cli.app import app
from springback.core import Checkpoint, Row, Run, Slice
from springback.errors import SpringbackError
from springback.integrations.server.settings import ServeSettings, engine_of
from springback.integrations.vllm.environment import VARIABLE, find_python
from springback.jobs.boost.checkpoints import Pair
from springback.jobs.boost.checks import check_settings, check_values, refuse
from springback.jobs.boost.engine import check_engine, chosen_engine, refuse_executor
from springback.jobs.boost.job import Boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.test_set_log import _opening, hash_of_test
from springback.jobs.papers.epicode.plan import check as check_epicode
from springback.jobs.papers.epicode.settings import EpicodeSettings
from springback.models.loading import resolve
from springback.progress import Silent
from springback.results.store import Store
from springback.settings import ENGINES, engine_named

PLAIN = BoostSettings(model="smollm2-135m", train="problems")


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What says that it has vLLM, where the variable names it."""
    path = tmp_path / "python"
    told = json.dumps({"vllm": True, "springback": True, "version": "1.2"})
    path.write_text(f"#!/bin/sh\necho '{told}'\n")
    path.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_boost_and_serve_name_engines_alike() -> None:
    assert [engine_named(name) for name in (*ENGINES, "builtin")] == [*ENGINES, "transformers"]
    assert check_values(replace(PLAIN, engine="builtin")).engine == "transformers"
    assert engine_of(ServeSettings(engine="builtin")) == "transformers"
    for name in ("vlllm", ""):
        with pytest.raises(SpringbackError, match="allowed: auto, transformers, vllm"):
            check_values(replace(PLAIN, engine=name))
    assert ENGINES == ("auto", "transformers", "vllm")


@pytest.mark.parametrize(
    ("change", "given"),
    [
        ({"samples": 4}, "--samples 4 with --engine vllm, which cannot draw the same noise"),
        ({"temperature": 0.7}, "--temperature 0.7 with --engine vllm"),
        ({"gate": "top:0.9"}, "--gate top:0.9 with"),
        ({"baselines": True}, "--baselines with"),
        ({"reference": "smollm2-135m"}, "--reference with"),
        ({"device": "cuda:1"}, "--device cuda:1 with --engine vllm, which takes CUDA_VISIBLE"),
        ({"device_map": "auto"}, "--device-map auto with"),
    ],
)
def test_what_vllm_cannot_do_is_refused_by_name(
    change: dict[str, Any], given: str, tmp_path: Path, python: Path
) -> None:
    """Before anything is loaded or written; ``auto`` takes the other engine then."""
    with pytest.raises(SpringbackError, match=given):
        refuse(replace(PLAIN, engine="vllm", **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    wanted = check_values(replace(PLAIN, **change))
    assert chosen_engine(wanted, Store(tmp_path / "out"), cuda=True).engine == "transformers"


def test_a_base_in_4_bit_is_refused_with_vllm() -> None:
    with pytest.raises(SpringbackError, match="--quantize nf4 with --engine vllm"):
        check_engine(replace(PLAIN, engine="vllm", quantize="nf4"))


@pytest.mark.usefixtures("no_vllm")
def test_vllm_that_is_not_there_is_refused(tmp_path: Path) -> None:
    words = ["boost", "--model", "smollm2-135m", "--train", "problems", "--engine", "vllm"]
    words += ["--validation", "problems", "--test", "problems", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, SpringbackError)
    assert "name one, or use --engine transformers" in str(result.exception)
    with pytest.raises(SpringbackError, match="--vllm-python with --engine transformers"):
        check_values(replace(PLAIN, engine="transformers", vllm_python="x"))
    with pytest.raises(SpringbackError, match="--executor ray with --engine vllm"):
        refuse_executor(replace(PLAIN, engine="vllm"), True)
    epicode = EpicodeSettings(model="smollm2-135m", engine="vllm")
    with pytest.raises(SpringbackError, match="epicode-theory with --engine vllm"):
        check_epicode(epicode, theory=True)
    with pytest.raises(SpringbackError, match="--executor ray with --engine vllm"):
        check_epicode(epicode, spread=True)
    with pytest.raises(SpringbackError, match="--smaller x with --engine vllm"):
        check_epicode(replace(epicode, smaller="x"))


def scored(store: Store, **inputs: Any) -> None:
    store.commit(Run.of("score", n=len(list(store.root.glob("runs/*"))), **inputs), {"correct": []})


def test_auto_is_vllm_where_there_is_cuda_and_it_is_found(tmp_path: Path, python: Path) -> None:
    store = Store(tmp_path / "out")
    for cuda, spread, engine in (
        (True, False, "vllm"),
        (False, False, "transformers"),
        (True, True, "transformers"),
    ):
        assert chosen_engine(PLAIN, store, cuda, spread).engine == engine
    named = replace(PLAIN, vllm_python=str(python))
    assert chosen_engine(named, store, True) == replace(named, engine="vllm")
    python.write_text("#!/bin/sh\nexit 1\n")
    assert chosen_engine(PLAIN, store, True).engine == "transformers"


@pytest.mark.parametrize("engine", ["vllm", "auto"])
def test_its_python_is_asked_once_in_a_boost(
    engine: str, tiny_llama: Path, tmp_path: Path, python: Path
) -> None:
    """Before torch, by the job, by the engine and by that of a second pair: until it changes."""
    asked = tmp_path / "asked"
    python.write_text(python.read_text().replace("echo", f"echo x >> {asked}\necho", 1))
    early, ft = save_pair(tiny_llama, tmp_path, torch.float32)
    settings = replace(PLAIN, model=None, train=None, early=str(early), ft=str(ft), engine=engine)
    settings = replace(settings, validation="problems", test="problems")
    refuse(settings, tmp_path / "out")
    store = Store(tmp_path / "out")
    chosen = chosen_engine(check_settings(settings), store, cuda=True)
    for line in ((early, ft), (ft, early)):
        job = Boost(chosen, tuple(map(resolve, line)), store, Silent())
        assert job.engine.describe()["engine"] == "vLLM 1.2"
    assert asked.read_text() == "x\n"
    python.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SpringbackError, match="which does not run as Python"):
        find_python()


def test_auto_goes_on_with_what_made_a_folders_runs(tmp_path: Path, python: Path) -> None:
    for inputs, engine in (({}, "transformers"), ({"engine": "vllm"}, "vllm")):
        store = Store(tmp_path / engine)
        with store.locked():
            scored(store, **inputs)
        for cuda in (True, False):
            assert chosen_engine(PLAIN, store, cuda).engine == engine
    by_vllm = Store(tmp_path / "vllm")
    with pytest.raises(SpringbackError, match="--samples 2 with --engine vllm"):
        chosen_engine(replace(PLAIN, samples=2), by_vllm, True)
    explicit = replace(PLAIN, engine="transformers")
    assert chosen_engine(explicit, by_vllm, True) == explicit
    python.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SpringbackError, match="which does not run as Python"):
        chosen_engine(PLAIN, by_vllm, True)


def test_transformers_by_name_is_no_other_opening_of_a_test_set() -> None:
    test = Slice.of("t", "t", [Row("qa", "q", "", answer="1")], 0)
    pair = Pair((Checkpoint("a", content_hash="a"), Checkpoint("b", content_hash="b")))
    assert hash_of_test(test) == _opening(PLAIN, pair, test)[0]
    auto, named, vllm = (_opening(replace(PLAIN, engine=engine), pair, test) for engine in ENGINES)
    assert auto == named != vllm
