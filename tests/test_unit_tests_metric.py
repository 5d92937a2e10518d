"""The example metric that runs a model's code against unit tests, in a process with limits."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from springback.core import Row
from springback.data import load_rows
from springback.jobs.boost.questions import QuestionFormat, question_format
from springback.jobs.boost.settings import BoostSettings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "unit_tests.py"
TESTS = "assert add(1, 2) == 3\nassert add(0, 0) == 0"
RIGHT = "def add(a, b):\n    return a + b"


@pytest.fixture(scope="module")
def how() -> QuestionFormat:
    return question_format(BoostSettings(metric=f"python:{EXAMPLE}:passes"))


def passes(how: QuestionFormat, *texts: str, tests: str = TESTS) -> list[bool | float]:
    return how.grade([Row("qa", "Write add.", "", answer=tests)] * len(texts), texts)


def test_code_is_judged_by_the_tests_of_its_row(how: QuestionFormat, tmp_path: Path) -> None:
    row = {"question": "Write add(a, b).", "answer": TESTS, "solution": RIGHT}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (loaded,) = load_rows(str(tmp_path / "rows.jsonl"))
    assert loaded.answer == TESTS
    fenced = f"Try:\n```python\ndef add(a, b): return 0\n```\nNo:\n```python\n{RIGHT}\n```\nDone."
    texts = [RIGHT, fenced, "def add(a, b): return a - b", "add = ", "I cannot.", ""]
    assert how.grade([loaded] * 6, texts) == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "print('passed'); raise SystemExit",
        "x = bytearray(1 << 31)",
        "open('large', 'wb').write(bytes(1 << 22))",
        "print('x' * (1 << 22))",
    ],
)
def test_leaving_early_or_taking_too_much_is_no_pass(how: QuestionFormat, code: str) -> None:
    assert passes(how, f"{code}\n{RIGHT}") == [False]


def test_time_is_limited_and_what_was_started_ends(how: QuestionFormat) -> None:
    began = time.monotonic()
    assert passes(how, f"while True: pass\n{RIGHT}") == [False]
    assert time.monotonic() - began < 30


def test_environment_folder_and_packages_are_empty(
    how: QuestionFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    tests = (
        "import os, sys\n"
        "assert 'SECRET' not in os.environ\n"
        "assert os.listdir() == []\n"
        "open('mine', 'w').write('x')\n"
        "assert not any('site-packages' in p for p in sys.path)\n"
    )
    assert passes(how, RIGHT, RIGHT, tests=tests) == [True, True], "and each begins anew"


def test_the_network_is_away_where_the_kernel_allows_that(how: QuestionFormat) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\n"
        reached = passes(how, RIGHT, tests=reach)
    unshare = "import ctypes; exit(ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) != 0)"
    allowed = subprocess.run([sys.executable, "-c", unshare], check=False).returncode == 0
    assert reached == [not allowed]


def test_it_says_what_it_does_not_keep_in() -> None:
    assert "NO security boundary" in EXAMPLE.read_text()
