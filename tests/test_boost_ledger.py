"""A test set is opened once: openings are recorded, and others are refused unless asked for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from springback.core import Checkpoint, Row, Slice
from springback.errors import SpringbackError, StoreError
from springback.jobs.boost.checkpoints import Pair
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.test_set_log import (
    LOG_FILE,
    hash_of_test,
    open_test,
    require_openable,
    state_folder,
)
from springback.results.boost_schema import Opening
from springback.results.store import Store

BASE = BoostSettings(model="m", train="t.jsonl", validation="v.jsonl", test="x.jsonl")
TEST = Slice.of("x", "x.jsonl", [Row("qa", f"{n} + 1?", "", str(n + 1)) for n in range(5)])


def pair(ft: str = "ft") -> Pair:
    return Pair((Checkpoint("a", content_hash="early"), Checkpoint("b", content_hash=ft)))


def opened(
    settings: BoostSettings, out: Path, weights: str = "ft", test: Slice = TEST
) -> tuple[int, int, bool]:
    found = open_test(settings, pair(weights), test, Store(out))
    return found.count, found.number, found.reopened


def test_the_same_command_is_the_same_opening(tmp_path: Path) -> None:
    """Also after a kill, in another folder, and with what does not change an answer."""
    assert opened(BASE, tmp_path / "a") == (1, 1, False)
    assert opened(BASE, tmp_path / "a") == (1, 1, False)
    assert opened(BASE, tmp_path / "b") == (1, 1, False)
    assert opened(replace(BASE, write_model=False), tmp_path / "a") == (1, 1, False)


@pytest.mark.parametrize(
    "change", [{"mu": (0.3,)}, {"max_new_tokens": 9}, {"epochs": 3}, {"gate": "top:0.9"}]
)
def test_other_settings_are_refused_unless_asked_for(
    tmp_path: Path, change: dict[str, object]
) -> None:
    opened(BASE, tmp_path / "a")
    other = replace(BASE, **change)  # type: ignore[arg-type]
    weights = "longer" if "epochs" in change else "ft"
    for out in ("a", "b"):  # another folder does not hide it
        with pytest.raises(SpringbackError, match="--reopen-test"):
            opened(other, tmp_path / out, weights)
    assert not (tmp_path / "b" / LOG_FILE).exists(), "what was refused was not opened"
    asked = replace(other, reopen_test=True)
    assert opened(asked, tmp_path / "b", weights) == (2, 2, True)
    assert opened(asked, tmp_path / "b", weights) == (2, 2, True)
    assert opened(BASE, tmp_path / "a") == (2, 1, False), "the first one hears of the second"


def test_what_opening_would_refuse_is_told_before_and_writes_nothing(tmp_path: Path) -> None:
    require_openable(BASE, pair(), TEST, Store(tmp_path / "a"))
    assert opened(BASE, tmp_path / "b") == (1, 1, False), "looking is no opening"
    other = replace(BASE, alpha=0.2)
    with pytest.raises(SpringbackError, match="--reopen-test"):
        require_openable(other, pair(), TEST, Store(tmp_path / "a"))
    require_openable(replace(other, reopen_test=True), pair(), TEST, Store(tmp_path / "a"))
    require_openable(replace(BASE, seed=1), pair("of seed 1"), TEST, Store(tmp_path / "a"))
    assert not (tmp_path / "a" / LOG_FILE).exists()
    assert opened(BASE, tmp_path / "b") == (1, 1, False)


def test_another_seed_is_counted_and_not_refused(tmp_path: Path) -> None:
    opened(BASE, tmp_path / "a")
    assert opened(replace(BASE, seed=1), tmp_path / "b", "of seed 1") == (2, 2, False)


def test_another_given_pair_is_another_setting(tmp_path: Path) -> None:
    given = replace(BASE, model=None, train=None, early="a", ft="b")
    opened(given, tmp_path / "a")
    with pytest.raises(SpringbackError, match="other settings"):
        opened(replace(given, ft="c"), tmp_path / "a", "another")


def test_a_pair_that_was_trained_here_may_be_given_again(tmp_path: Path) -> None:
    """The same weights, asked the same: nothing new is seen."""
    opened(BASE, tmp_path / "a")
    given = replace(BASE, model=None, train=None, early="a", ft="b")
    assert opened(given, tmp_path / "b") == (1, 1, False)


def test_a_test_set_is_its_questions_in_any_order(tmp_path: Path) -> None:
    shuffled = Slice.of("y", "y.jsonl", reversed(TEST.rows), seed=3)
    assert hash_of_test(shuffled) == hash_of_test(TEST)
    assert hash_of_test(TEST.take(4)) != hash_of_test(TEST)
    opened(BASE, tmp_path / "a")
    with pytest.raises(SpringbackError, match="other settings"):
        opened(replace(BASE, test="y.jsonl"), tmp_path / "b", test=shuffled)


def test_the_folder_remembers_where_the_user_has_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SPRINGBACK_STATE", str(blocked / "below"))
    assert opened(BASE, tmp_path / "a") == (1, 1, False)
    with pytest.raises(SpringbackError, match="other settings"):
        opened(replace(BASE, alpha=0.2), tmp_path / "a")


def test_a_ledger_that_was_edited_is_refused(tmp_path: Path) -> None:
    opened(BASE, tmp_path / "a")
    (tmp_path / "a" / LOG_FILE).write_text(json.dumps({hash_of_test(TEST): ["x"]}))
    with pytest.raises(StoreError, match="not a record of openings"):
        opened(BASE, tmp_path / "a")


def test_where_the_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPRINGBACK_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert state_folder() == Path("/x/springback")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_folder() == Path(os.path.expanduser("~/.local/state/springback"))


def test_the_count_is_told_in_words() -> None:
    assert "opened once" in Opening("t", 1, 1, False).words
    assert "opened 3 times" in Opening("t", 3, 2, True).words
