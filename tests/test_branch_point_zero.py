"""Branch point 0 is the start model: perturbed as it is, without a gain, and on no slope."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback import elasticity
from springback.errors import SpringbackError
from springback.jobs.audit import runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.settings import AuditSettings
from springback.results.cards import card_of_result
from springback.results.schema import read


@pytest.fixture
def settings(tiny_llama: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        experiments=("rebound",),
        n_pos=(0, 4, 8),
        controls=("unaligned",),  # which is branch point 0
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
        probes=("margin", "kl"),
        precision="float32",
    )


def values(result: Any, **tags: Any) -> list[float]:
    return [
        record["value"]
        for record in result.data["measurements"]
        if record["probe"] == "margin" and tags.items() <= record["tags"].items()
    ]


def test_beside_others_it_changes_nothing_of_theirs(
    settings: AuditSettings, tmp_path: Path
) -> None:
    result = audit(settings, tmp_path / "out")
    made = result.data["provenance"]["runs"]["made"]
    assert made == 1 + 2 * (1 + 3)
    without = audit(replace(settings, n_pos=(4, 8)), tmp_path / "out")
    assert without.data["provenance"]["runs"]["made"] == 0  # the same ids
    here, there = (r.data["analysis"] for r in (result, without))
    for name in ("slope", "fall_dose"):
        assert here["rebound"][name] == there["rebound"][name]
    for name in ("gain", "fall", "share_lost", "half_dose"):
        assert here["rebound"][name][1:] == there["rebound"][name]
    assert here["phases"]["decay"] == there["phases"]["decay"]
    for kind, doses in here["doses_to_undo"].items():
        assert doses["trend"] == there["doses_to_undo"][kind]["trend"]
    ignored = {"study", "n_pos"}
    cards = [{k: v for k, v in a["card"].items() if k not in ignored} for a in (here, there)]
    assert cards[0] == cards[1]
    read(result.data)


def test_its_curve_begins_at_the_start_model(settings: AuditSettings, tmp_path: Path) -> None:
    result = audit(settings, tmp_path / "out")
    (start,) = values(result, phase="start")
    assert values(result, phase="perturb", n_pos=0, n_neg=0) == [start, start]
    curve = result.data["analysis"]["rebound"]["probes"]["margin"]["curves"][0]
    assert (curve["n_pos"], curve["dose"]) == (0, [0, 4, 8])
    assert curve["mean"][0] == pytest.approx(start)
    fall = result.data["analysis"]["rebound"]["fall"][0]
    last = values(result, phase="perturb", n_pos=0, n_neg=8)
    assert fall["mean"] == pytest.approx(start - sum(last) / 2)
    # No gain, so nothing that is a part of one.
    rebound, undo = (result.data["analysis"][k] for k in ("rebound", "doses_to_undo"))
    assert rebound["gain"][0]["mean"] is None
    assert rebound["share_lost"][0]["mean"] is None
    assert rebound["half_dose"][0] == {"n_pos": 0, "value": None, "censored": False}
    for kind in ("half", "all", "kl"):
        assert undo[kind]["at"][0]["mean"] is None, kind
    assert not values(result, phase="align", n_pos=0)
    # The file alone makes the same card.
    made = card_of_result(result.data).to_dict()
    assert made == result.data["analysis"]["card"]


def test_alone_it_aligns_nothing(settings: AuditSettings, tmp_path: Path) -> None:
    alone = replace(settings, n_pos=(0,))
    listed = runs.of(alone)
    assert [run.phase for run in listed] == ["start", "perturb", "perturb"]
    assert all(run.starts_from is None for run in listed)
    assert runs.most_weights(listed) == 0
    assert len(plan(alone, tmp_path / "out").waiting) == 3
    result = audit(alone, tmp_path / "out")
    assert result.data["analysis"]["rebound"]["slope"] is None
    both = audit(settings, tmp_path / "out")  # its runs are those of a study with more of them
    assert both.data["provenance"]["runs"]["read"] == 3


def test_slopes_leave_it_out() -> None:
    curves = elasticity.ReboundCurves(
        (0, 100, 200), (0, 8), {0: 0.0, 1: 0.0}, {s: [[0, -1], [1, 0.5], [2, 0.8]] for s in (0, 1)}
    )
    assert curves.aligned().n_pos == [100, 200]
    judged = elasticity.rebound_judgement(curves, dose=8)
    assert judged.paper.slope is not None
    assert judged.paper.slope.mean == pytest.approx(0.7)  # 1.2 - 0.5 for one doubling
    assert judged.strict.slope is not None
    assert judged.strict.slope.mean == pytest.approx(0.1)  # 0.6 - 0.5
    assert not elasticity.several_sizes((0, 64))
    assert elasticity.several_sizes((0, 64, 128))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experiments": ("rebound", "realign")}, "realign with --n-pos 0"),
        ({"experiments": ("rebound", "symmetry")}, "symmetry with --n-pos 0"),
        (
            {"experiments": ("rebound", "repair"), "probes": ("margin", "neutral_nll")},
            "repair with --n-pos 0",
        ),
        ({"mitigate": ("overbend:0.5",)}, "--mitigate overbend with --n-pos 0"),
        ({"n_pos": (-4,)}, r"--n-pos has \[-4\]; allowed are 0 \(the model as it is\)"),
        ({"doses": (0, 4)}, r"--doses has \[0\]; allowed are multiples"),
    ],
)
def test_what_needs_an_alignment_says_so(
    settings: AuditSettings, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        check_settings(replace(settings, **({"n_pos": (0,)} | change)))
