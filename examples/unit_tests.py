"""A metric: does the Python code that the model wrote pass the unit tests of its row?

springback boost ... --metric python:examples/unit_tests.py:passes

A row: {"question": "Write add(a, b).", "answer": "assert add(1, 2) == 3", "solution": "def ..."}.
``answer`` is Python that raises where something is wrong, ``solution`` what NLL is taken on.

Each answer runs in a process of its own.  Limited: time, memory, size of files, new processes (not
for root), the network (where Linux allows user namespaces); empty: environment, working folder,
site packages.  It is NO security boundary: the code has your rights, can read what you can read,
write where you may write, find the tests and cheat, and elsewhere reach the network.  For models
that you do not trust, run the whole boost in a container or a virtual machine.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile

SECONDS, MEMORY, FILES = 5, 1 << 30, 1 << 20
RUNNER = f"""
import contextlib, ctypes, json, resource, sys
given = json.load(sys.stdin)
with contextlib.suppress(AttributeError):  # a namespace without a network; not Linux: none
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)
limits = dict(CPU={SECONDS}, AS={MEMORY}, FSIZE={FILES}, CORE=0, NPROC=0)
for name, most in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
scope = {{"__name__": "answer"}}
exec(given.pop("code"), scope)
exec(given.pop("tests"), scope)
print("\\n" + given.pop("token"), flush=True)  # an answer that leaves early has not passed
"""


def passes(prompts: list[str], texts: list[str], answers: list[str]) -> list[bool]:
    blocks = [re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", t, re.DOTALL) for t in texts]
    codes = [found[-1] if found else text for found, text in zip(blocks, texts, strict=True)]
    return [run(code, tests) for code, tests in zip(codes, answers, strict=True)]


def run(code: str, tests: str) -> bool:
    given = {"code": code, "tests": tests, "token": (token := secrets.token_hex())}
    words, pipe = [sys.executable, "-I", "-S", "-c", RUNNER], subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            words, stdin=pipe, stdout=said, stderr=said, env={}, cwd=folder, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(json.dumps(given).encode(), timeout=2 * SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it started
        said.seek(0)
        return process.wait() == 0 and said.read().endswith(f"\n{token}\n".encode())
