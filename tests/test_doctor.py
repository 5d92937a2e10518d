from __future__ import annotations

import sys
from pathlib import Path

import pytest

from springback.cli import doctor
from springback.cli.doctor import Finding, cpu_finding, diagnose, extra_finding, extra_packages
from springback.integrations.vllm.environment import VARIABLE
from springback.models import builtin


def named(findings: list[Finding], name: str) -> Finding:
    (found,) = [f for f in findings if f.name == name]
    return found


def test_where_vllm_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    monkeypatch.setenv(VARIABLE, str(python))
    lacking = doctor._vllm()
    assert lacking.ok, "a choice"
    assert f"{VARIABLE} {python}, which does not run as Python" in lacking.value
    assert "make vllm" in lacking.advice
    told = '{"vllm": true, "springback": true, "version": "1.2"}'
    python.write_text(f"#!/bin/sh\necho '{told}'\n")
    python.chmod(0o755)
    assert doctor._vllm().value == f"1.2, {python}"


def test_a_working_installation_has_no_fault_in_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    findings = diagnose()
    for name in ("springback", "python", "torch", "transformers", "device", "cache"):
        assert named(findings, name).ok, name
    assert named(findings, "torch").value.split(".")[0].isdigit()
    assert (
        "processors" in named(findings, "device").value or "cuda" in named(findings, "device").value
    )


def test_every_fault_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    # Nothing fits into a machine that must have a thousand terabytes free.
    monkeypatch.setattr(doctor, "DEMO_MEMORY", 10**15)
    monkeypatch.setattr(doctor, "DEMO_DISK", 10**15)
    faults = [f for f in diagnose() if not f.ok]
    assert {"memory", "disk of the cache", "disk here"} <= {f.name for f in faults}
    assert all(f.advice for f in faults)


def test_a_torch_that_does_not_load_is_a_finding_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "springback.models.loading", None)  # makes the import fail
    device = named(diagnose(), "device")
    assert not device.ok
    assert "ImportError" in device.value or "ModuleNotFoundError" in device.value


def test_cache_size_and_a_missing_then_ready_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x" * 3_000_000)
    findings = diagnose()
    assert named(findings, "cache").value == f"{tmp_path}, 3 MB"
    assert not named(findings, "model smollm2-135m").value.startswith("ready")
    folder = builtin.builtin_folder(builtin.BUILTIN["smollm2-135m"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert named(diagnose(), "model smollm2-135m").value == f"ready, {folder}"


def test_a_cpu_without_bf16_is_told_what_to_expect() -> None:
    assert "amx_bf16" in cpu_finding(frozenset({"sse", "amx_bf16"})).value
    plain = cpu_finding(frozenset({"sse"}))
    assert plain.ok
    assert "float32" in plain.advice


def test_extras_are_read_from_metadata() -> None:
    lines = [
        "numpy>=1",
        "peft>=0.17; extra == 'train'",
        'a-b.c; python_version > "3" and extra == "x-y"',
    ]
    assert extra_packages(lines) == {"train": ["peft"], "x-y": ["a-b.c"]}


def test_a_missing_optional_extra_is_no_fault_but_a_missing_demo_part_is() -> None:
    gone = ["numpy", "no-such-package-anywhere"]
    assert extra_finding("vllm", ["numpy"]) == Finding("extra vllm", "installed", True, "")
    optional = extra_finding("vllm", gone)
    assert optional.ok
    assert optional.value == "missing: no-such-package-anywhere"
    needed = extra_finding("train", gone)
    assert not needed.ok
    assert needed.advice == "pip install 'springback[train]'"
