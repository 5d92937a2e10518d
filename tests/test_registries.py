"""A probe, an algorithm and an attacker are a file and an entry each, outside the package too."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback.core import ALGORITHMS
from springback.errors import SpringbackError
from springback.jobs.audit.attackers import ATTACKERS
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.settings import AuditSettings
from springback.report import build
from springback.results.probe_info import PROBES

PROBE, ALGORITHM, ATTACKER = (
    Path(__file__).with_name(f"own_{what}.py") for what in ("probe", "algorithm", "attacker")
)


@pytest.fixture
def registered() -> Iterator[None]:
    """The probe, the algorithm and the attacker of the files, until the test ends."""
    tables: list[tuple[dict[str, Any], dict[str, Any]]]
    tables = [(table, dict(table)) for table in (PROBES, ALGORITHMS, ATTACKERS)]
    for file in (PROBE, ALGORITHM, ATTACKER):
        runpy.run_path(str(file))
    yield
    for table, before in tables:
        for name in [name for name in table if name not in before]:
            del table[name]


@pytest.fixture
def settings(tiny_llama: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(4, 64),
        controls=(),
        doses=(4,),
        seeds=(0,),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=32,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=0,
        probes=("margin", "first_token"),
        algorithm="hinge",
        precision="float32",
    )


def test_each_is_a_file_of_less_than_40_lines() -> None:
    for file in (PROBE, ALGORITHM, ATTACKER):
        assert len(file.read_text(encoding="utf-8").splitlines()) < 40


@pytest.mark.usefixtures("registered")
def test_an_audit_runs_with_a_probe_and_an_algorithm_from_outside(
    settings: AuditSettings, tmp_path: Path
) -> None:
    result = audit(settings, tmp_path / "out")
    assert result.data["inputs"]["settings"]["algorithm"] == "hinge"
    first, least, margins = (
        {m["checkpoint"]: m for m in result.data["measurements"] if m["probe"] == name}
        for name in ("first_token", "first_token_least", "margin")
    )
    assert set(first) == set(margins) == set(least)
    for checkpoint, measured in first.items():
        assert measured["unit"] == least[checkpoint]["unit"] == "probability"
        assert 0 < least[checkpoint]["value"] <= measured["value"] < 1
    assert margins["align-64"]["value"] > margins["start"]["value"]
    shown = result.data["analysis"]["rebound"]["probes"]
    assert shown["first_token"]["title"] == "Probability of the likeliest first token"
    page = build(result.folder).read_text(encoding="utf-8")
    assert "Probability of the likeliest first token" in page
    assert "Behind every prompt the likeliest token is looked up" in page
    assert "hinge" in page


@pytest.mark.usefixtures("registered")
def test_a_plan_counts_them_and_run_ids_hold_what_the_probe_depends_on(
    settings: AuditSettings, tmp_path: Path
) -> None:
    whole, without = (
        plan(replace(settings, probes=probes), tmp_path)
        for probes in (settings.probes, ("margin",))
    )
    # 4 prompts of 6 tokens more at every mark.
    marks = [2 * 1, 2, 1, 1]  # the start counts twice; n_pos; a dose from each
    more = [a.scored - b.scored for a, b in zip(whole.runs, without.runs, strict=True)]
    assert more == [24 * n for n in marks]
    first = whole.runs[0].run
    assert first.inputs["first_token"] == "softmax of the last position"
    # A pair is two rows, and there is no reference.
    by_pairs = plan(replace(settings, algorithm="simpo"), tmp_path)
    assert [p.trained for p in whole.runs] == [p.trained for p in by_pairs.runs]


@pytest.mark.usefixtures("registered")
def test_an_audit_runs_with_an_attacker_from_outside(
    settings: AuditSettings, tmp_path: Path
) -> None:
    attacked = replace(settings, algorithm="sft", n_pos=(4,), attackers=("noise",))
    before = plan(attacked, tmp_path / "out")
    assert before.runs[-1].trained == 0
    result = audit(attacked, tmp_path / "out")
    assert {p.run.name for p in before.runs} == {p.name for p in (tmp_path / "out/runs").iterdir()}
    swept = result.data["analysis"]["attackers"]
    assert [curve["name"] for curve in swept["curves"]] == ["as the study", "Noise"]
    assert swept["curves"][1]["points"][0]["fall"]["mean"] != 0
    assert "Noise" in build(result.folder).read_text(encoding="utf-8")


def test_what_is_not_registered_is_refused(settings: AuditSettings) -> None:
    with pytest.raises(SpringbackError, match=r"--probes is margin, first_token; allowed: margin"):
        check_settings(replace(settings, algorithm="sft"))
    with pytest.raises(SpringbackError, match=r"--algorithm has hinge; allowed: sft, dpo"):
        check_settings(replace(settings, probes=("margin",)))
    plain = replace(settings, probes=("margin",), algorithm="sft")
    with pytest.raises(SpringbackError, match=r"--attackers has noise; allowed: full, lora"):
        check_settings(replace(plain, attackers=("noise",)))
