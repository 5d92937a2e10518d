"""What is tested is what is pinned, and what the table in docs/ecosystem.md says."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pins() -> dict[str, str]:
    names = ("constraints.txt", "constraints-integrations.txt")
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    found = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in found}


def table() -> dict[str, str]:
    """Package and version of every row that begins with a name in code."""
    text = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", text, re.M)
    return {name.lower().replace("_", "-"): version for name, version in rows}


def test_the_table_says_the_pinned_versions() -> None:
    told, exact = table(), pins()
    assert {"lm-eval", "openai", "mlflow-skinny", "tensorboard", "peft", "trl"} <= set(told)
    assert told == {name: exact[name] for name in told}


@pytest.mark.skipif(
    "SPRINGBACK_INTEGRATIONS" not in os.environ, reason="not make integrations: versions may differ"
)
def test_every_package_of_the_table_is_installed_in_that_version() -> None:
    installed = {name: metadata.version(name).partition("+")[0] for name in table()}
    assert installed == table()
