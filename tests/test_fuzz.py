"""A hundredth of the fuzzers, and that they see what they are there to see."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

import fuzz.kinds  # noqa: F401  enters them
from fuzz import campaign
from fuzz.harness import KINDS, Bench, Kind, Trial, command, run_case

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
    from springback.weights import direction

    before = {s: run_case("model", s, bench).result for s in range(40)}
    assert "accepted" in before.values()
    read = direction.read_mu
    monkeypatch.setattr(direction, "read_mu", lambda text: read(str(float(text) * 1.01)))
    after = {s: run_case("model", s, bench).result for s in range(40)}
    wrong = [s for s in after if after[s] == "wrong"]
    assert len(wrong) >= 3
    assert all(before[s] == "accepted" for s in wrong)


def test_reading_past_the_checksum_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from springback.data import records

    def lenient(path: Path, source: str) -> bytes:
        import zlib

        raw = path.read_bytes()
        return zlib.decompressobj(31).decompress(raw) if raw[:2] == b"\x1f\x8b" else raw

    monkeypatch.setattr(records, "_inflate", lenient)
    assert {run_case("data", s, bench).result for s in range(150)} >= {"wrong"}


def test_a_case_that_ends_its_process_is_reported_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def make(rng: random.Random, bench: Bench, folder: Path) -> Trial:
        deadly = rng.random() < 0.5
        return Trial("", (lambda: os._exit(9)) if deadly else (lambda: None))

    monkeypatch.setitem(KINDS, "planted", Kind(make, 1))
    outcomes = list(campaign.run([("planted", seed) for seed in range(6)], tmp_path))
    assert [o.seed for o in outcomes] == list(range(6))
    assert {o.result for o in outcomes} == {"died", "accepted"}
    assert [o["result"] for o in campaign.summary(outcomes, 1)["wrong"]] == [
        "died" for o in outcomes if o.result == "died"
    ]
