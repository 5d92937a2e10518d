"""The audit's compression rates of three sets: by hand, on a tiny model, and on the page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback.core import to_jsonable
from springback.errors import SpringbackError
from springback.jobs.audit import rebound
from springback.jobs.audit.analysis import rates as audit_rates
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit
from springback.jobs.audit.rows import load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.encoding import Encoded
from springback.probes import TextNLL, rates
from springback.progress import Silent
from springback.report import build
from springback.results.audit_schema import Rates
from springback.results.store import Store


def test_a_rate_is_bits_a_counted_token_and_the_normalised_one_takes_off_log_m() -> None:
    """8 bits over 4 tokens and 2 bytes, M = 4: 2 bits/token, 4 bits/byte, 2 - 2 = 0."""
    bits = math.log(2)
    found = rates.measured([TextNLL(3 * bits, 1, 1), TextNLL(5 * bits, 3, 1)], 4)
    assert found == pytest.approx({"bits_per_byte": 4.0, "rate": 2.0, "normalised": 0.0})


def test_leaves_are_the_different_beginnings_of_counted_tokens() -> None:
    """Counted: 5 6 7, 5 6 8, 5 6, 9.  Depth 2: 56 and 9-end; depth 3: also 567, 568, 56-end."""
    rows = [
        Encoded((1, 5, 6, 7), 1, 3),
        Encoded((1, 5, 6, 8), 1, 3),
        Encoded((2, 3, 5, 6), 2, 2),
        Encoded((1, 9), 1, 1),
    ]
    assert rates.rate_set(rows, 2).leaves == 2
    assert rates.rate_set(rows, 3).leaves == 4


def _at(pretraining: float, aligning: float, perturbing: float = 0.0) -> dict[str, Any]:
    sets = {"pretraining": pretraining, "aligning": aligning, "perturbing": perturbing}
    return {"rates": {"value": pretraining, "sets": {n: {"rate": r} for n, r in sets.items()}}}


def _rebounds() -> dict[int, dict[str, Any]]:
    """Over 8 opposite examples the pre-training set gains 0.1 or 0.2 bits, the aligning set loses
    0.4 and 0.8 (first mark): k = 4 in both seeds; at the end 2 in one and 8 in the other."""
    return {
        0: {
            "aligned": {16: _at(3.2, 2.0)},
            "perturbed": {16: {8: _at(3.1, 2.4), 16: _at(3.0, 2.4)}},
        },
        1: {
            "aligned": {16: _at(3.2, 2.0)},
            "perturbed": {16: {8: _at(3.0, 2.8), 16: _at(3.1, 2.8)}},
        },
    }


def test_slopes_and_the_fitted_k_by_hand() -> None:
    start = {"probes": _at(3.0, 2.5)}
    align, perturb = audit_rates.trajectories((16,), (8, 16), start, _rebounds())
    assert (align.examples, perturb.examples) == ((0, 16), (0, 8, 16))
    told = audit_rates._summary(perturb).sets
    assert told["aligning"].first_per_example.mean == pytest.approx(0.6 / 8)
    assert told["pretraining"].per_example.mean == pytest.approx(-0.15 / 16)
    assert [c.mean for c in told["aligning"].change] == pytest.approx([0, 0.6, 0.6])
    fitted = to_jsonable(audit_rates._fitted(perturb, 320.0))
    assert fitted["first"]["k"]["mean"] == pytest.approx(4.0)
    assert fitted["first"]["opposite"] == 1.0
    assert fitted["all"]["by_seed"] == pytest.approx([2.0, 8.0])
    assert fitted["all"]["k"]["mean"] == pytest.approx(4.0)
    assert fitted["volumes"] == 20.0
    # While aligning, the pre-training set lost 0.2 and the aligning set gained 0.5.
    other = to_jsonable(audit_rates._fitted(align, 0.0))
    assert other["all"]["k"]["mean"] == pytest.approx(2.5)


def test_no_k_is_claimed_where_both_rates_move_one_way() -> None:
    found = _rebounds()
    found[1]["perturbed"][16][8] = _at(3.3, 2.8)
    paths = audit_rates.trajectories((16,), (8, 16), {"probes": _at(3.0, 2.5)}, found)
    fitted = audit_rates._fitted(paths[-1], 0.0)
    assert fitted.first.k is None
    assert fitted.first.opposite == 0.5
    told = Rates(
        depth=2,
        trajectories=tuple(audit_rates._summary(p) for p in paths),
        k=tuple(audit_rates._fitted(p, 0.0) for p in paths),
    )
    (part,) = audit_rates.parts(told)
    assert part.label == "no k"
    assert "50 % of the seeds" in part.text
    assert audit_rates.parts(None) == []


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    texts = tmp_path / "before.jsonl"
    texts.write_text("".join(f'{{"text": "the sum of {n} and {n + 3}"}}\n' for n in range(12)))
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(4, 8),
        controls=(),
        doses=(4, 8),
        seeds=(0, 1),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=0,
        probes=("margin", "rates"),
        pretraining=str(texts),
        pretraining_volume=800.0,
        utility_rows=6,
        precision="float32",
    )


def test_an_audit_follows_three_rates_and_draws_them(
    settings: AuditSettings, tmp_path: Path
) -> None:
    result = audit(settings, tmp_path / "out")
    found = result.data["analysis"]["rates"]
    assert [s["name"] for s in found["sets"]] == list(audit_rates.SETS)
    assert found["sets"][0]["texts"] == 6
    assert [(p["phase"], p["n_pos"]) for p in found["trajectories"]] == [
        ("align", 8),
        ("perturb", 4),
        ("perturb", 8),
    ]
    assert found["k"][-1]["volumes"] == 100.0
    # The recorded rates make the changes of the analysis.
    rate = {
        (m["checkpoint"], m["slice"], m["tags"].get("seed")): m["value"]
        for m in result.data["measurements"]
        if m["probe"] == "rates_rate"
    }
    moved = [
        rate["align-8+perturb-8", "aligning", s] - rate["align-8", "aligning", s] for s in (0, 1)
    ]
    last = found["trajectories"][-1]["sets"]["aligning"]["change"][-1]
    assert last["mean"] == pytest.approx(sum(moved) / 2)
    for one in found["sets"]:
        off = math.log2(one["leaves"])
        assert one["start"]["normalised"] == pytest.approx(one["start"]["rate"] - off)
    questions = [p["question"] for p in result.data["verdict"]["parts"]]
    assert "Whose rate moves, and by what k?" in questions
    page = build(result.folder).read_text(encoding="utf-8")
    assert "Whose rate moves how much" in page
    drawn = {path.stem for path in (result.folder / "charts").glob("*.svg")}
    assert {"alignment-rates", "rebound-rates-sets", "rebound-rates-each"} <= drawn


def test_runs_without_the_probe_keep_their_ids(settings: AuditSettings, tmp_path: Path) -> None:
    def start_id(changed: AuditSettings) -> str:
        s = check_settings(changed)
        return rebound.start_run().identity(Study(s, load_data(s), Store(tmp_path), Silent())).id

    plain = replace(settings, probes=("margin",))
    other = replace(plain, pretraining="problems-text", rate_depth=2, pretraining_volume=0.0)
    assert start_id(plain) == start_id(other)
    assert start_id(settings) != start_id(replace(settings, rate_depth=2))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rate_depth": 0}, "--rate-depth"), ({"pretraining_volume": -1.0}, "--pretraining-volume")],
)
def test_settings_of_the_rates_are_checked(
    settings: AuditSettings, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpringbackError, match=said):
        check_settings(replace(settings, **change))
