"""A hundredth of the fuzzers, and that they see what they are there to see."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fuzz.kinds  # noqa: F401  enters them
from fuzz import campaign, kills
from fuzz.harness import KINDS, Bench, Kind, Trial, command, run_case
from springback.data import records
from springback.weights import direction

#: Cases in CI of kinds that take seconds each; of the others a hundredth of their share.
SLOW = {"resume": 1}
CASES = [(name, SLOW.get(name, max(1, round(kind.share / 100)))) for name, kind in KINDS.items()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize(("name", "number"), CASES, ids=[name for name, _ in CASES])
def test_damaged_inputs_are_answered_or_refused(name: str, number: int, bench: Bench) -> None:
    # Seeds that `make fuzz` does not have, so that both try more together.
    outcomes = [run_case(name, 1_000_000 + seed, bench) for seed in range(number)]
    assert [o for o in outcomes if o.wrong] == []


def test_a_whole_campaign_has_ten_thousand_cases_and_this_file_a_hundredth() -> None:
    assert sum(kind.share for kind in KINDS.values()) == campaign.WHOLE
    assert len(campaign.plan(campaign.WHOLE)) == campaign.WHOLE
    assert sum(number for _, number in CASES) >= campaign.WHOLE / 100


def test_a_case_is_the_same_each_time(bench: Bench) -> None:
    first, second = (run_case("shards", 5, bench) for _ in range(2))
    assert first == second
    assert first != run_case("shards", 6, bench)


@pytest.mark.parametrize("name", ["extrapolate", "extrapolate, adapters", "compress"])
def test_kills_change_nothing_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    count = kills.trial(name, 3, tmp_path)
    assert count.kills == 3
    assert count.wrong == []


def test_a_file_that_a_killed_process_left_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = kills._finish

    def leaves(words: list[object], place: Path) -> float:
        seconds = finish(words, place)
        if place.name != "whole":
            (place / ".out.1234.tmp").mkdir()
        return seconds

    monkeypatch.setattr(kills, "_finish", leaves)
    (wrong, *_) = kills.trial("extrapolate", 1, tmp_path).wrong or [""]
    assert ".out.1234.tmp" in wrong


@pytest.mark.parametrize("seed", [737, 1067, 1469])
def test_arrow_files_whose_lengths_lie_do_not_end_the_process(seed: int, tmp_path: Path) -> None:
    """Three that did: by a segmentation fault, an abort and a bus error."""
    (outcome,) = campaign.run([("data", seed)], tmp_path)
    assert " as arrow: " in outcome.damage
    assert not outcome.wrong


def _case(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> str:
    def make(rng: random.Random, bench: Bench, folder: Path) -> Trial:
        return trial

    monkeypatch.setitem(KINDS, "planted", Kind(make, 1))
    return run_case("planted", 0, Bench(tmp_path), **how).result


def test_a_traceback_a_hang_and_what_was_left_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("weight_map")

    words = ("extrapolate", tmp_path / "a", tmp_path / "b", "--mu", "1", "--out", tmp_path / "o")
    refused = Trial("", lambda: command(*words))
    assert _case(refused, tmp_path, monkeypatch) == "refused"
    left = Trial("", lambda: command(*words), absent=(tmp_path / "left",))
    (tmp_path / "left").mkdir()
    assert _case(left, tmp_path, monkeypatch) == "half-written"
    with monkeypatch.context() as patched:
        patched.setattr("springback.cli.extrapolate._resolve", fail)
        assert _case(refused, tmp_path, monkeypatch) == "traceback"
        patched.setattr("springback.cli.extrapolate._resolve", lambda *_: time.sleep(30))
        assert _case(refused, tmp_path, monkeypatch, seconds=0.2) == "hang"


def test_a_wrong_output_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the wrong length: every case that is accepted is wrong."""
    accepted = [s for s in range(24) if run_case("model", s, bench).result == "accepted"]
    read = direction.read_mu
    monkeypatch.setattr(direction, "read_mu", lambda text: read(str(float(text) * 1.01)))
    assert [run_case("model", s, bench).result for s in accepted].count("wrong") >= 3


def test_a_row_that_is_passed_over_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(text: str, source: str) -> Iterator[records.Record]:
        for number, line in enumerate(text.split("\n"), start=1):
            if isinstance(value := json.loads(line), dict):
                yield records.Record(f"line {number}", value)

    first = [run_case("data", seed, bench) for seed in range(250)]
    refused = [o.seed for o in first if o.result == "refused" and "as jsonl" in o.damage]
    monkeypatch.setattr(records, "_lines", lenient)
    assert "wrong" in {run_case("data", seed, bench).result for seed in refused}


def test_a_case_that_ends_its_process_is_reported_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(rng: random.Random, bench: Bench, folder: Path) -> Trial:
        deadly = rng.random() < 0.5
        return Trial("", (lambda: os._exit(9)) if deadly else (lambda: None))

    monkeypatch.setitem(KINDS, "planted", Kind(make, 1))
    outcomes = list(campaign.run([("planted", seed) for seed in range(6)], tmp_path))
    assert [o.seed for o in outcomes] == list(range(6))
    assert {o.result for o in outcomes} == {"died", "accepted"}
    counts = campaign.summary(outcomes)["planted"]
    assert counts["wrong"] == {"died": len(counts["wrong_cases"])}
    assert counts["accepted"] == 6 - len(counts["wrong_cases"])
