"""A result says where its time went: every moment once, by part, over all runs it rests on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from springback.core import Run
from springback.report.text import shares_of_time
from springback.results.store import Store
from springback.results.timing import Timer, sum_of_parts, timed


class Clock:
    """One that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_of_an_inner_part_is_not_the_outer_ones() -> None:
    clock = Clock()
    timer = Timer(clock)
    clock.now = 1.0
    with timer.part("training"):
        clock.now = 3.0
        with timer.part("probing"):
            clock.now = 7.0
        clock.now = 15.0
    assert timer.take() == {"other": 1.0, "training": 10.0, "probing": 4.0}
    clock.now = 16.0
    assert timer.take() == {"other": 1.0}


def test_a_part_that_fails_ends_too() -> None:
    clock = Clock()
    timer = Timer(clock)

    def load() -> None:
        with timer.part("loading"):
            clock.now = 2.0
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        load()
    clock.now = 5.0
    assert timer.take() == {"other": 3.0, "loading": 2.0}


def test_a_method_may_be_a_part() -> None:
    class Work:
        def __init__(self, timer: Timer) -> None:
            self.timer = timer

        @timed("saving")
        def save(self, until: float) -> str:
            clock.now = until
            return "kept"

    clock = Clock()
    timer = Timer(clock)
    assert Work(timer).save(until=4.0) == "kept"
    assert timer.take() == {"other": 0.0, "saving": 4.0}


def test_runs_bring_their_time_whoever_made_them(tmp_path: Path) -> None:
    run, other = Run.of("align", seed=0), Run.of("align", seed=1)
    store, clock = Store(tmp_path), Clock()
    store.timer = Timer(clock)
    with store.timer.part("training"):
        clock.now = 40.0
    store.commit(run, {})
    later = Store(tmp_path)
    later.timer = Timer(clock)
    later.results(run)
    with later.timer.part("sampling"):
        clock.now = 50.0
    later.commit(other, {})
    clock.now = 52.0
    assert later.time_by_part() == {"training": 40.0, "sampling": 10.0, "other": 2.0}


@pytest.mark.parametrize("parts", [None, [1], {"training": "long"}, {"training": -1.0}, 7])
def test_damaged_notes_of_a_run_count_nothing(tmp_path: Path, parts: Any) -> None:
    run = Run.of("align", seed=0)
    Store(tmp_path).commit(run, {})
    file = tmp_path / "runs" / run.name / "made.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "parts": parts}))
    store, clock = Store(tmp_path), Clock()
    store.timer = Timer(clock)
    store.results(run)
    assert store.time_by_part() == {"other": 0.0}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"training": 90.0, "probing": 30.0}, "training 75 % (1 min 30 s), probing 25 % (30 s)"),
        ({"other": 0.1, "training": 99.9}, "training 100 % (1 min 40 s)"),
        ({"training": 0.0}, ""),
        ({"training": "long"}, ""),
        ({}, ""),
        (None, ""),
        ([3], ""),
    ],
)
def test_time_in_words(parts: Any, text: str) -> None:
    assert shares_of_time(parts) == text


def test_a_result_of_several_jobs_has_the_time_of_all_of_them() -> None:
    jobs: list[dict[str, float]] = [
        {"training": 40.0, "other": 2.5},
        {"training": 1.25, "sampling": 9.0},
        {},  # written before there were parts
    ]
    assert list(sum_of_parts(jobs).items()) == [
        ("training", 41.25),
        ("sampling", 9.0),
        ("other", 2.5),
    ]
