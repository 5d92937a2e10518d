"""The bridge between the papers: its table by hand, and a whole seed on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import bridge
import evidence


def cell(run: str, point: str, nll: float, margin: float, seed: int = 0) -> dict[str, Any]:
    whole, last = next((w, b) for name, w, b, _ in bridge.points() if name == point)
    rows = [0.0, 0.001, -0.001, 0.0]
    return {
        "model": "m",
        "run": run,
        "seed": seed,
        "point": point,
        "mu": {"whole": whole, "last": last},
        "nll": {
            "solved": [nll + r * (1 + abs(whole)) for r in rows],
            "wanted": [1.0 + r for r in rows],
            "unwanted": [1.0 + margin + r * (1 + abs(whole)) for r in rows],
        },
        "correct": [1.0, 0.0] if point in bridge.ANSWERED else None,
        "refused": [0.0, 1.0],
    }


def cells(run: str, values: dict[str, tuple[float, float]], seed: int = 0) -> bridge.Cells:
    """Task NLL and margin by point; a point that is not named is as the end of the run."""
    return {
        name: cell(run, name, *values.get(name, values["whole+0"]), seed)
        for name, *_ in bridge.points()
    }


BENIGN = {"whole-1": (2.0, 0.5), "whole-0.5": (1.25, 0.45), "whole+0": (1.0, 0.1)}


def test_the_bow_is_what_is_left_of_one_axis_less_that_of_the_other() -> None:
    # of the task's fall of 1.0 three quarters are left, of the margin's fall of 0.4 an eighth
    assert bridge.bow(cells("benign", BENIGN)) == pytest.approx(0.75 - 0.125)
    unmoved = {**BENIGN, "whole-1": (2.0, 0.1)}
    assert bridge.bow(cells("benign", unmoved)) is None, "the margin did not change"


def test_what_is_shipped_is_the_best_that_keeps_the_other_axis() -> None:
    assert bridge.shipped("benign", cells("benign", BENIGN)) == "whole-1"
    kept = {**BENIGN, "whole-0.5": (1.25, 0.49)}
    assert bridge.shipped("benign", cells("benign", kept)) == "whole-0.5"
    assert bridge.shipped("safety", cells("safety", {**BENIGN, "whole-1": (0.9, 0.5)})) == "whole-1"
    further = {"whole-1": (1.0, 0.1), "whole+0": (1.01, 0.3), "whole+0.5": (1.015, 0.4)}
    further["whole+1"] = (1.3, 0.6)  # the highest margin, but the task is lost
    assert bridge.shipped("safety", cells("safety", further)) == "whole+0.5"


def test_tests_are_over_whole_seeds_and_adjusted_together() -> None:
    every: list[dict[str, Any]] = []
    for seed, shift in enumerate((0.0, 0.01, 0.03)):
        moved = {name: (n + shift, m - shift) for name, (n, m) in BENIGN.items()}
        moved["whole+0.5"] = (1.0 + 3 * shift, 0.1)
        moved["whole-0.5"] = (1.25 + 2 * shift, 0.45 - shift)
        for run in bridge.RUNS:
            every += cells(run, moved, seed).values()
    every += [cell("safety", "whole+0", 1.0, 0.1, seed=3)]  # cut off
    found = bridge.table(every)["m"]
    assert found["seeds"] == [0, 1, 2]
    assert len(found["points"]) == 2 * 12
    assert len(found["tests"]) == 14
    (back,) = (
        t
        for t in found["tests"]
        if (t["run"], t["test"], t["axis"]) == ("benign", "step to +0.5", "task NLL")
    )
    assert back["values"] == [0.0, 0.02, 0.06]
    assert "p_holm" not in back
    own = [t for t in found["tests"] if "p_holm" in t]
    assert {(t["run"], t["test"]) for t in own} <= {
        (run, test) for run in bridge.RUNS for test in ("bow", "shipped")
    }
    assert all(t["p"] <= t["p_holm"] <= 1 for t in own)
    assert own
    assert {t["test"] for t in found["tests"]} == {"step to -0.5", "step to +0.5", "bow", "shipped"}


def data_below(folder: Path) -> Path:
    """A few harmless lines under the names of the data sets."""
    import gzip

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)

    def pairs(first: int, kinds: tuple[bool, ...]) -> list[dict[str, Any]]:
        return [
            {"prompt": f"Say {i}.", "response": f"{i} it is, {k}.", "is_safe": k, "category": []}
            for i in range(first, first + 24)
            for k in kinds
        ]

    write("beavertails/train.jsonl.gz", pairs(0, (True, False)))
    write("beavertails/test.jsonl.gz", pairs(100, (True, False)))
    write("safety_tuned/train.jsonl.gz", pairs(200, (True,)))
    for part, first in (("train", 0), ("test", 50)):
        solved = [
            {"question": f"What is {i} + 1?", "answer": f"It is one more.\n#### {i + 1}"}
            for i in range(first, first + 24)
        ]
        write(f"gsm8k/{part}.jsonl.gz", solved)
    return folder


def test_a_seed_is_measured_once_and_goes_on_where_it_was_cut_off(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = data_below(tmp_path / "data"), tmp_path / "out"
    monkeypatch.setattr(bridge, "RATES", (1e-3,))
    words = ["bridge.py", "--data", str(data), "--model", str(tiny_llama), "--seeds", "0"]
    words += ["--quick", "--out", str(out), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", words)
    bridge.main()
    files = sorted(out.glob("*-seed-0-*.json"))
    assert len(files) == 24
    assert "Say 1" not in "".join(file.read_text() for file in files), "no text is kept"
    end = json.loads((out / f"{tiny_llama.name}-safety-seed-0-whole+0.json").read_text())
    begin = json.loads((out / f"{tiny_llama.name}-benign-seed-0-whole-1.json").read_text())
    assert len(end["correct"]) == bridge.QUICK.asked
    assert begin["nll"]["wanted"] == pytest.approx(end["nll"]["wanted"], abs=1e-4)
    assert not list((tmp_path / "work").iterdir()), "weights are gone"
    stamps = {file: file.stat().st_mtime_ns for file in files if file != files[3]}
    files[3].unlink()
    bridge.main()
    assert files[3].exists()
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())


def test_every_study_is_a_command_whose_settings_are_known() -> None:
    for name, study in evidence.STUDIES.items():
        words = evidence.command_of(name, study, 1e-4, name)
        assert words[-2:] == ["--out", name]
        if study.command:
            study.settings(**study.given)
            assert "--learning-rate" in words
            assert "--seeds" in words
        assert study.files
        assert study.recipe_of is None or evidence.STUDIES[study.recipe_of].rates
