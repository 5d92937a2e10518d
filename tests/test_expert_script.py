"""The scripts that a whole audit and a whole boost are timed against do the same work."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import expert_script as bench
from expert_parts import audit as script_audit
from expert_parts import boost as script_boost
from springback.jobs.audit.job import audit
from springback.jobs.boost.job import boost
from springback.progress import Silent

# What other libraries warn about in a script of theirs.
pytestmark = pytest.mark.filterwarnings("default")


def by_script(main: Any, job: dict[str, Any], trainer: str, folder: Path) -> Any:
    given, out = folder / "job.json", folder / "records.json"
    given.write_text(json.dumps({**job, "trainer": trainer, "folder": str(folder / "models")}))
    main(str(given), str(out))
    return json.loads(out.read_text())


@pytest.mark.parametrize("trainer", bench.EXPERTS)
def test_the_audit_measures_the_same(tiny_llama: Path, tmp_path: Path, trainer: str) -> None:
    settings = bench.audit_settings(str(tiny_llama), "small")
    settings = replace(settings, learning_rate=1e-3, precision="float32")
    theirs = by_script(script_audit.main, bench.audit_job(settings), trainer, tmp_path)
    ours = bench.audit_numbers(audit(settings, tmp_path / "out", Silent()).data)
    agreed = bench.audit_agreement(ours, theirs)
    assert agreed["models"] == len(ours) == 6  # start, two branch points, three perturbed
    assert max(agreed["nats"].values()) < 1e-3
    moved = [abs(m["wanted"] - theirs[0]["wanted"]) for m in theirs[1:]]
    assert min(moved) > 1e-2, "nothing was trained"


def test_the_boost_measures_the_same(tiny_llama: Path, tmp_path: Path) -> None:
    settings = bench.boost_settings(str(tiny_llama), "small")
    settings = replace(settings, learning_rate=1e-3, precision="float32", max_tokens=512)
    theirs = by_script(script_boost.main, bench.boost_job(settings), "transformers", tmp_path)
    ours = bench.boost_numbers(boost(settings, tmp_path / "out", Silent()).data)
    agreed = bench.boost_agreement(ours, theirs)
    assert agreed["holds"]
    assert agreed["nats"] < 1e-3
    assert agreed["accuracy"] == 0
    assert agreed["arms"] >= 5  # two candidates of mu, one of CD, and at least two on test


def test_other_work_is_seen() -> None:
    model = {"phase": "start", "wanted": 1.0, "unwanted": 2.0, "margin": 1.0}
    model |= {"kl": 0.0, "sentiment": 0.1}
    errors = {"kl_error": 0.0, "sentiment_error": 0.05}
    assert bench.audit_agreement([model], [{**model, **errors}])["holds"]
    assert not bench.audit_agreement([model], [{**model, **errors, "unwanted": 2.1}])["holds"]
    assert not bench.audit_agreement([model], [{**model, **errors, "sentiment": 0.5}])["holds"]
    again = {**model, "phase": "align"}
    assert not bench.audit_agreement([model, again], [{**model, **errors}])["holds"]


def test_a_call_that_was_broken_off_goes_on_with_what_is_left(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order of the arms, what stays of the first call, and the ratios within rounds."""
    seconds = {"springback": iter([1.0, 2.0]), "trl": iter([4.0, 4.0])}
    ran: list[str] = []

    def one(kind: str, arm: str, settings: Any, job: Any) -> dict[str, Any]:
        if len(ran) == 3 and arm not in ran[3:]:
            ran.append(arm)
            raise KeyboardInterrupt
        ran.append(arm)
        took = next(seconds[arm])
        return {"seconds": took, "cpu_seconds": took, "peak_bytes": took, "numbers": []}

    def agreed(ours: Any, theirs: Any) -> dict[str, bool]:
        return {"holds": True}

    monkeypatch.setattr(bench, "one", one)
    monkeypatch.setitem(bench.AGREEMENT, "audit", agreed)
    out = tmp_path / "result.json"
    words = ["expert_script.py", "--jobs", "audit", "--size", "small", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--model", str(tiny_llama), "--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    before = json.loads(out.read_text())
    assert before["finished"] is False
    assert before["summary"]["audit"]["trl"]["ratios"]["seconds"] == [0.25]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--experts", "transformers"])
    with pytest.raises(SystemExit, match="begun with other flags"):
        bench.main()
    monkeypatch.setattr(sys, "argv", sys.argv[:-2])
    bench.main()
    assert ran == ["springback", "trl", "trl", "springback", "springback"]
    after = json.loads(out.read_text())
    assert after["finished"] is True
    assert after["rounds"]["audit"][0] == before["rounds"]["audit"][0]
    of_trl = after["summary"]["audit"]["trl"]
    assert of_trl["ratios"]["seconds"] == [0.25, 0.5]
    assert of_trl["median"]["seconds"] == 0.375
    assert of_trl["reached"] is True
