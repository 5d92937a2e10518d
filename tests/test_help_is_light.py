"""Help and import answer at once: nothing heavy is loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "accelerate",
    "constriction",
    "datasets",
    "fastapi",
    "gguf",
    "huggingface_hub",
    "lm_eval",
    "mlflow",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "uvicorn",
    "vaderSentiment",
    "yaml",
}
COMMANDS: tuple[str, ...] = (
    "demo",
    "audit",
    "boost",
    "check",
    "compare",
    "extrapolate",
    "generate",
    "doctor",
    "report",
    "theory",
    "serve",
    "track",
    "push",
    "clean",
    "compress",
    "decompress",
)

# Does what the console script does, then writes down what was loaded.  argv: file, arguments.
_RUN = """
import json, sys
loaded = sys.argv[1]
sys.argv = ["springback", *sys.argv[2:]]
from springback.cli import main
try:
    main()
finally:
    with open(loaded, "w") as file:
        json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
def test_help_loads_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(_RUN, str(tmp_path / "loaded"), *arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    loaded = set(json.loads((tmp_path / "loaded").read_text()))
    assert "springback" in loaded  # the list is of the right process
    assert not loaded & HEAVY


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "springback.cli", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    missing = [command for command in COMMANDS if command not in done.stdout.split()]
    assert missing == []


def test_import_loads_nothing_heavy() -> None:
    done = run("import sys, springback; print(*{n.split('.')[0] for n in sys.modules})")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "springback" in loaded
    assert not loaded & HEAVY
