"""Plans of models that are not at hand: the sums by hand, and a plan from a measured run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from springback.errors import SpringbackError, StoreError
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import plan
from springback.jobs.audit.plan_by_size import (
    MACHINES,
    Architecture,
    amount,
    architecture,
    calibrated,
    large_plan,
    make,
)
from springback.jobs.audit.plan_settings import LargeSettings
from springback.jobs.audit.settings import AuditSettings

STUDY = AuditSettings(
    n_pos=(8, 16),
    controls=(),
    doses=(8, 16),
    seeds=(0, 1),
    holdout=4,
    max_tokens=10,
    batch_size=8,
    probes=("margin",),
    experiments=("rebound",),
    resistance_rows=0,
    precision="float32",
)


def test_runs_and_tokens_by_hand() -> None:
    """A probe scores 2 x 4 texts of 10 tokens.  A seed: 16 rows, then twice 16; 2 + 2 x 2 marks."""
    found = amount(STUDY)
    assert found.runs == 1 + 2 * 3
    assert found.trained == 2 * (16 + 2 * 16) * 10
    assert found.scored == 80 * (2 + 2 * (2 + 2 * 2))


def test_resistance_by_hand_on_responses_and_on_slices() -> None:
    """Of a seed: 3 slices of 8 rows of 10 tokens, then 6 times 8 rows that lead to another one."""
    plain, both = amount(STUDY), replace(STUDY, resistance_rows=8, prompt_tokens=2, sample_tokens=3)
    for kind, row in (("responses", 2 + 3), ("slices", 10)):
        found = amount(replace(both, resistance_data=kind))
        assert found.trained - plain.trained == 2 * (3 * 8 * 10 + 6 * 8 * row)
        assert found.scored - plain.scored == 2 * 3 * 8 * (row + 3 * 3)


def test_resistance_by_hand_on_whole_answers() -> None:
    """Of a seed: 3 slices of 8 rows of 10 tokens, then twice 6 times 8 rows of 2 + 5 tokens.

    Sampled at three times the cost of scoring: two arms of 8 answers of 5 tokens, and one text of 3
    tokens to one prompt of four.  Scored: both arms of answers under their model, each run's rows
    once more, and three times the text of 2 + 3 tokens.
    """
    settings = replace(STUDY, prompts=4, prompt_tokens=2, sample_tokens=3)
    plain = amount(settings)
    found = amount(
        replace(settings, resistance_rows=8, resistance_data="answers", resistance_tokens=5)
    )
    assert found.trained - plain.trained == 2 * (3 * 8 * 10 + 12 * 8 * 7)
    slices = 3 * (2 * 8 * (7 + 3 * 5) + 3 * 3)
    assert found.scored - plain.scored == 2 * (slices + 12 * (8 * 7 + 3 * 5))


def test_the_counts_are_those_of_the_plan_of_a_model_at_hand(
    tiny_llama: Path, tmp_path: Path
) -> None:
    full = replace(
        STUDY,
        model=str(tiny_llama),
        experiments=("rebound", "resistance", "symmetry", "realign", "repair"),
        resistance_rows=8,
        mitigate=("overbend:0.5", "mix:0.2"),
        mix=(0.5,),
        probes=("margin", "kl", "neutral_nll"),
        repair_rows=16,
        utility_rows=4,
        max_tokens=24,
    )
    there = plan(full, tmp_path / "out")
    found = amount(check_settings(full))
    assert found.runs == len(there.runs)
    # Rows are taken as long as --max-tokens there, and as they are here.
    lengths = sum(p.trained for p in there.runs) / found.trained
    assert 0.5 < lengths <= 1.0


def test_time_memory_disk_and_cost_by_hand() -> None:
    model = Architecture("toy", 1e9, 10, 100)
    machine = replace(MACHINES["h100"], train=1e13, score=1e12, memory=1e12, disk=1e9)
    found = large_plan(STUDY, model, machine, 2, 3.0)
    work = 6 * 960 * 1e9 / 1e13 + 2 * 80 * 14 * 1e9 / 1e12
    # Moved: the start once, then for each seed 2 branch points written and 2 read; twice at first.
    moved = (1 + 2 * (2 + 2)) * 4e9 / 1e9 + 2 * 4e9 / 1e9
    assert found.seconds == pytest.approx(work / 2 + moved)
    assert found.memory == pytest.approx(20e9 + 34 * 80 * 10 * 100)
    assert found.disk == pytest.approx((2 + 6) * 4e9)
    assert found.cost == pytest.approx(found.seconds / 3600 * 2 * 3)
    adapter = large_plan(replace(STUDY, lora_rank=8), model, machine, 2, 0.0)
    assert adapter.memory < found.memory
    assert adapter.cost is None


def test_devices_are_as_few_as_hold_the_model() -> None:
    assert large_plan(STUDY, architecture("1B"), MACHINES["h100"], 0, 0).devices == 1
    # 20 bytes x 70.6e9 weights = 1.4 TB; 68 GB of each: 21, so 32.
    assert large_plan(STUDY, architecture("70b"), MACHINES["h100"], 0, 0).devices == 32
    with pytest.raises(SpringbackError, match=r"needs 1,4\d\d GB, so 21 or more of h100"):
        large_plan(STUDY, architecture("70B"), MACHINES["h100"], 8, 0)


def test_a_finished_audit_calibrates_the_speed(tiny_llama: Path, tmp_path: Path) -> None:
    settings = replace(STUDY, model=str(tiny_llama))
    data = {
        "kind": "audit",
        "provenance": {"seconds": 50.0},
        "inputs": {"settings": {"model": str(tiny_llama)}},
    }
    data["inputs"]["settings"] |= {  # type: ignore[index]
        name: getattr(settings, name)
        for name in ("n_pos", "doses", "seeds", "holdout", "max_tokens", "batch_size", "probes",
                     "experiments", "resistance_rows", "precision")
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(data))
    machine = calibrated(MACHINES["cpu"], tmp_path)
    assert machine.measured
    from springback.models.loading import count_parameters, resolve

    weights = count_parameters(resolve(tiny_llama))
    work = amount(check_settings(settings))
    took = weights * (6 * work.trained / machine.train + 2 * work.scored / machine.score)
    assert took == pytest.approx(50.0)
    text = make(settings, LargeSettings(size=("1B", "405B"), hardware="cpu", like=str(tmp_path)))
    assert "measured: 50 s" in text
    assert "405B" in text
    data["provenance"]["runs"] = {"made": 2, "read": 5}  # type: ignore[index]
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(StoreError, match="cover 2 of 7 runs"):
        calibrated(MACHINES["cpu"], tmp_path)


def test_what_is_assumed_is_said_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    text = make(STUDY, LargeSettings(size=("7B",), price=2.0))
    assert "assumed: 35 % and 15 % of peak" in text
    assert "Good to a factor" in text
    assert architecture("3B").weights == 3e9
    for wrong in ("0B", "many", "1e9", "-7B"):
        with pytest.raises(SpringbackError, match="--size"):
            architecture(wrong)
    with pytest.raises(SpringbackError, match="--hardware is abacus"):
        make(STUDY, LargeSettings(size=("7B",), hardware="abacus"))
    with pytest.raises(SpringbackError, match="no result"):
        make(STUDY, LargeSettings(size=("7B",), like=str(tmp_path)))


def test_the_command_line_plans_and_refuses() -> None:
    from typer.testing import CliRunner

    from springback.cli.app import app

    done = CliRunner().invoke(app, ["audit", "plan", "--size", "1B,7B", "--price", "2"])
    assert done.exit_code == 0
    assert "7B" in done.output
    wrong = CliRunner().invoke(app, ["audit", "--size", "1B"])
    assert isinstance(wrong.exception, SpringbackError)
    assert "springback audit plan --size" in str(wrong.exception)
    for flags in (["--executor", "slurm"], ["--address", "here:1"], ["--run-cpus", "0"]):
        for command in ("audit", "boost"):
            refused = CliRunner().invoke(app, [command, *flags])
            assert isinstance(refused.exception, SpringbackError)
            assert flags[0] in str(refused.exception)
