"""The boost's side of vLLM's process: a small real process stands in for it, and is cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from springback.errors import SpringbackError
from springback.integrations.vllm import client
from springback.integrations.vllm.client import PROTOCOL, Place, Weights, Worker
from springback.integrations.vllm.environment import VARIABLE, find_python, python_of_vllm

#: A worker as vLLM's: echoes what it is asked for, and falls ill by name.
STAND_IN = f"""
import json, os, sys, time
print("loading something", file=sys.stderr, flush=True)
print(json.dumps({{"protocol": {PROTOCOL}}}), flush=True)
for line in sys.stdin:
    given = json.loads(line)
    ask = given.pop("ask")
    if ask == "exit":
        print("RuntimeError: no room for the cache", file=sys.stderr, flush=True)
        os._exit(3)
    if ask == "kill":
        os.kill(os.getpid(), 9)
    if ask == "sleep":
        time.sleep(60)
    if ask == "noise":
        print("no message", flush=True)
    if ask == "fail":
        print(json.dumps({{"error": "failed with ValueError: too long"}}), flush=True)
        continue
    if ask == "count":
        for _ in range(3):
            print(json.dumps({{"done": 2}}), flush=True)
    if ask == "parts":
        for arm in (1, 0):
            print(json.dumps({{"done": 2}}), flush=True)
            print(json.dumps({{"part": [arm, [[5]]]}}), flush=True)
    print(json.dumps({{"answer": [ask, given, os.getpid()]}}), flush=True)
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A "Python" that runs the stand-in, whatever module it is asked for."""
    module = tmp_path / "stand_in.py"
    module.write_text(STAND_IN)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
    script.chmod(0o755)
    return script


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_and_how_many_are_finished(python: Path) -> None:
    worker = Worker(python, model="m")
    finished: list[int] = []
    ask, given, pid = worker.ask("count", finished.append, prompts=[[1, 2]])
    assert (ask, given, finished) == ("count", {"prompts": [[1, 2]]}, [2, 2, 2])
    worker.close()
    assert not alive(pid)
    worker.close()


def test_parts_of_an_answer_come_when_they_are_whole(python: Path) -> None:
    worker = Worker(python)
    heard: list[Any] = []
    worker.ask("parts", heard.append, part=heard.append)
    assert heard == [2, [1, [[5]]], 2, [0, [[5]]]]
    worker.close()


def test_weights_are_set_where_they_changed(python: Path) -> None:
    worker = Worker(python)
    asked: list[str] = []
    plain = worker.ask

    def counted(what: str, *args: Any, **given: Any) -> Any:
        asked.append(what)
        return plain(what, *args, **given)

    worker.ask = counted  # type: ignore[method-assign]
    for mu in (0.5, 0.5, 1.0):
        worker.place(Place(Weights(("a", "b"), (mu,))))
    assert asked == ["place", "place"]
    worker.close()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("exit", r"ended by itself \(status 3\).*RuntimeError: no room for the cache"),
        ("kill", r"ended by itself \(signal SIGKILL, as where memory runs out\)"),
        ("fail", "failed with ValueError: too long"),
        ("noise", "wrote what is no message: no message"),
    ],
)
def test_a_worker_that_fails_is_one_clear_error(python: Path, what: str, told: str) -> None:
    worker = Worker(python)
    pid = worker.ask("hello")[2]
    with pytest.raises(SpringbackError, match=told) as error:
        worker.ask(what)
    assert "\n" not in str(error.value)
    assert "--engine transformers" in str(error.value)
    assert not alive(pid)


def test_a_worker_that_says_nothing_is_ended(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LAST_RESORT", 0.2)
    worker = Worker(python, silence=0.5)
    pid = worker.ask("hello", silence=10)[2]
    with pytest.raises(SpringbackError, match=r"said nothing for 0\.5 seconds"):
        worker.ask("sleep")
    assert not alive(pid)


def test_another_version_of_the_plugin_is_said(python: Path) -> None:
    module = python.parent / "stand_in.py"
    module.write_text(STAND_IN.replace(f'"protocol": {PROTOCOL}', '"protocol": 0'))
    with pytest.raises(SpringbackError, match=f"speaks version 0 of .*, this side {PROTOCOL}"):
        Worker(python)


def test_a_python_without_the_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MODULE", "springback.integrations.vllm.no_such_worker")
    with pytest.raises(SpringbackError, match="No module named"):
        Worker(Path(sys.executable))


def test_the_worker_ends_with_a_boost_that_is_killed(python: Path, tmp_path: Path) -> None:
    """By SIGKILL, which nothing of ours outlives."""
    source = (
        "from pathlib import Path; import time\n"
        "from springback.integrations.vllm.client import Worker\n"
        f"worker = Worker(Path({str(python)!r}))\n"
        "print(worker.ask('hello')[2], flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as boost:
        assert boost.stdout is not None
        pid = int(boost.stdout.readline())
        boost.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_where_vllm_is_looked_for(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag, the variable, this Python, what ``make vllm`` made; each really asked."""
    has = tmp_path / "cache" / "springback" / "vllm" / "bin" / "python"
    has.parent.mkdir(parents=True)
    told = '{"vllm": true, "springback": true, "version": "1.2"}'
    has.write_text(f"#!/bin/sh\necho '{told}'\n")
    has.chmod(0o755)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    for named, lacking in (
        (sys.executable, "which has no vllm; allowed: the Python of an environment with vLLM"),
        (str(tmp_path / "none"), "which does not run as Python"),
        (str(tmp_path), "which does not run as Python"),
    ):
        with pytest.raises(SpringbackError, match=lacking):
            find_python(named)
    with pytest.raises(SpringbackError, match="without a Python that has vLLM; allowed: this one"):
        find_python()
    assert python_of_vllm() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_python() == (has, "1.2")
    monkeypatch.setenv(VARIABLE, sys.executable)
    with pytest.raises(SpringbackError, match=f"{VARIABLE} .*, which has no vllm"):
        find_python()
    assert find_python(str(has)) == (has, "1.2")
