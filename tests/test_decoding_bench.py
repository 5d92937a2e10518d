"""What the benchmark reports of a run: shares of time that add up, and refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from decode_parts.pairs import tiny_subject, with_limit
from decode_parts.shares import PARTS, shares


def test_shares_of_time_add_up_and_the_amateur_takes_part() -> None:
    subject = with_limit(tiny_subject(1.0), 8)
    rows = {row["arm"]: row for row in shares(subject, subject.prompts("", 2), 1)}
    for arm in ("one model", "lazy", "deferred, n-gram"):
        ms = rows[arm]["ms"]
        assert set(ms) == set(PARTS)
        assert sum(rows[arm]["share"].values()) == pytest.approx(1)
        assert min(ms["expert"], ms["head"], ms["rest"]) > 0
        assert ms["both"] == 0, "no adapters here"
    assert rows["one model"]["ms"]["amateur"] == 0 < rows["lazy"]["ms"]["amateur"]
    assert 0 < rows["a step without arithmetic"]["ms_per_token"] < 1000


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no CUDA device"):
        tiny_subject(1.0).to("float32", "cuda")
