"""Ctrl-C, SIGTERM and SIGHUP: a line, the exit code, no trace, whenever the signal comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

MAIN = "import sys; from springback.cli import main; main()"
#: Takes the place of the command line, in which it sleeps; the first word says where.
SLOW = """
import sys, time, types
from springback.cli import main
fake = types.ModuleType("springback.cli.app")
def work():
    print("ready", flush=True)
    {body}
fake.main = work
sys.modules["springback.cli.app"] = fake
main()
"""
BODIES = {
    "in the work": "time.sleep(30)",
    "typer swallows it": "\n    ".join(
        ["try: time.sleep(30)", "except KeyboardInterrupt: sys.exit(130)"]
    ),
    "a library makes another error of it": "\n    ".join(
        ["try: time.sleep(30)", "except KeyboardInterrupt: raise ImportError('half loaded')"]
    ),
    "in a destructor": "\n    ".join(
        ["class Slow:", "    def __del__(self): time.sleep(30)", "Slow()", "time.sleep(30)"]
    ),
}


def _heed() -> None:
    """What runs the tests may ignore some: nohup SIGHUP, a shell's background SIGINT."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed,
    )


def stopped(
    body: str, signals: Sequence[signal.Signals], word: str = "audit"
) -> tuple[int, str, float]:
    process = start(SLOW.format(body=body), word)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors, time.monotonic() - began


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    ("number", "code", "begin"),
    [
        (signal.SIGINT, 130, "interrupted; "),
        (signal.SIGTERM, 143, "stopped by SIGTERM; "),
        (signal.SIGHUP, 129, "stopped by SIGHUP; "),
    ],
)
def test_a_signal_has_one_line_and_its_exit_code(
    number: signal.Signals, code: int, begin: str, body: str
) -> None:
    returned, errors, seconds = stopped(body, [number])
    assert returned == code
    assert errors == f"{begin}the same command goes on where it was\n"
    assert seconds < 10


def test_a_second_signal_ends_at_once() -> None:
    body = "\n    ".join(["try: time.sleep(30)", "finally: time.sleep(30)"])
    returned, errors, seconds = stopped(body, [signal.SIGINT, signal.SIGINT], "compress")
    assert returned == 130
    assert errors == "interrupted; nothing was written\n"
    assert seconds < 10


def test_work_that_ended_in_spite_of_a_signal_counts_as_done() -> None:
    body = "\n    ".join(["try: time.sleep(30)", "except KeyboardInterrupt: pass"])
    assert stopped(body, [signal.SIGTERM])[:2] == (0, "")


def test_what_was_ignored_stays_ignored() -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += SLOW.format(body="import os; os.kill(os.getpid(), signal.SIGHUP)")
    process = start(code, "audit")
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 0


def test_a_signal_before_anything_heavy_is_loaded_shows_no_trace() -> None:
    # The signal comes when the entry point is entered: sooner the process is not ours.
    hook = (
        "import os, signal, sys\n"
        "class Early:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == {name!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Early())\n"
    )
    for name in ("springback.cli.app", "typer", "springback.jobs.audit.settings"):
        process = start(hook.format(name=name) + MAIN, "extrapolate")
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130, name
        assert errors == "interrupted; the same command goes on where it was\n", name
