"""Protections and repair: the arithmetic by hand, and the study on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from springback.core import Row, Slice
from springback.errors import ModelError, SpringbackError
from springback.jobs.audit.branches import Attack, perturbing_rows
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.pools import Data
from springback.jobs.audit.protections import Protection as Shield
from springback.jobs.audit.protections import parse
from springback.jobs.audit.settings import AuditSettings
from springback.models.loading import load_model, resolve
from springback.models.task_vector import add_direction, scale_adapter
from springback.report import build, render
from springback.report.audit.protections import curves_charts
from springback.results.audit_schema import (
    Cost,
    DoseCurve,
    MarginLeft,
    ProtectedDose,
    Protection,
    Protections,
    Unprotected,
)
from springback.results.store import read_json
from springback.stats import Interval


def test_a_protection_is_read_from_its_name() -> None:
    assert parse("overbend") == Shield("overbend", 0.5)
    assert parse("overbend:0.25@8") == Shield("overbend", 0.25, 8)
    assert parse("mix:0.2").beside(8) == 2  # 2 of 10
    assert parse("mix:0.5").beside(8) == 8
    assert parse("mix:0.01").beside(8) == 1  # at least one
    for wrong in ("overbend:0", "overbend:x", "overbend:1@0", "mix:1", "mix:0.2@4", "prayer", ""):
        with pytest.raises(SpringbackError, match=r"--mitigate: .*allowed"):
            parse(wrong)


def test_mixed_batches_hold_the_unwanted_rows_of_the_plain_ones_and_aligning_rows_beside() -> None:
    def part(name: str, n: int) -> Slice:
        return Slice.of(name, name, [Row("text", "", f"{name} {i}") for i in range(n)])

    none = part("held-out", 1)
    data = Data(part("good", 32), part("bad", 8), none, none, back={"align": {"beside": 4}})
    rows = perturbing_rows(data, Attack(protection=parse("mix:0.2")), 8, 0, batch=4).rows
    plain = perturbing_rows(data, Attack(), 8, 0).rows
    # A share of 0.2 is one row beside four.
    assert [row.response.split()[0] for row in rows] == [*["bad"] * 4, "good"] * 2
    assert (*rows[0:4], *rows[5:9]) == plain
    assert rows[4] != rows[9]


def test_a_direction_is_added_exactly_and_along_its_top_directions_only(tiny_llama: Path) -> None:
    start = load_model(resolve(tiny_llama))
    model = load_model(resolve(tiny_llama))
    torch.manual_seed(0)
    ahead: dict[str, Tensor] = {}
    for name, p in start.named_parameters():
        one, two = torch.randn(p.shape[0], 1), torch.randn(1, p.shape[-1])
        ahead[name] = p.detach() + (one @ two if p.ndim == 2 else torch.ones_like(p))
    found = add_direction(model, ahead, start, 0.5)
    for name, p in model.named_parameters():
        begin = dict(start.named_parameters())[name].detach().double()
        exact = begin + 0.5 * (ahead[name].double() - begin)
        assert torch.equal(p.detach(), exact.float())
    assert found.kept == 1
    # Every difference is of rank 1 (to fp32), so one direction holds all of it ...
    low = load_model(resolve(tiny_llama))
    same = add_direction(low, ahead, start, 0.5, rank=1)
    assert same.kept == pytest.approx(1, abs=1e-9)
    for a, b in zip(low.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    # ... and of the sum of two equal orthogonal ones it holds half, which is what moves.
    name = "model.layers.0.self_attn.q_proj.weight"
    delta = torch.zeros_like(ahead[name])
    delta[0, 0] = delta[1, 1] = 1.0
    both = {n: p.detach() + (delta if n == name else 0) for n, p in start.named_parameters()}
    half = add_direction(load_model(resolve(tiny_llama)), both, start, 1.0, rank=1)
    assert half.kept == pytest.approx(0.5, abs=1e-6)
    assert half.norm == pytest.approx(1.0, abs=1e-6)


def test_what_cannot_be_added_is_refused(tiny_llama: Path) -> None:
    start = load_model(resolve(tiny_llama))
    own = {n: p.detach().clone() for n, p in start.named_parameters()}
    with pytest.raises(ModelError, match="rank 0"):
        add_direction(start, own, start, 1.0, rank=0)
    with pytest.raises(ModelError, match="no tensor"):
        add_direction(start, {}, start, 1.0)
    cut = {n: t[:1] for n, t in own.items()}
    with pytest.raises(ModelError, match="shapes"):
        add_direction(start, cut, start, 1.0)
    far = {n: torch.full_like(t, float("inf")) for n, t in own.items()}
    with pytest.raises(ModelError, match="not finite"):
        add_direction(start, far, load_model(resolve(tiny_llama)), 1.0)
    with pytest.raises(ModelError, match="no adapter"):
        scale_adapter(start, 1.5)


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    for name in ("benign", "neutral"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "{name} sum of {n} and 1"}}\n' for n in range(20))
        )
    return AuditSettings(
        benign=str(tmp_path / "benign.jsonl"),
        neutral=str(tmp_path / "neutral.jsonl"),
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
        utility_rows=4,
        resistance_rows=0,
        experiments=("rebound", "repair"),
        mitigate=("overbend:0.5", "overbend:0.5@2", "mix:0.2"),
        repair_rows=8,
        repair_mu=(0.5, 1.0),
        probes=("margin", "kl", "neutral_nll"),
        precision="float32",
    )


def test_a_study_measures_its_protections_and_its_repair_and_tells_of_them(
    settings: AuditSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = plan(settings, out)
    result = audit(settings, out)
    assert {p.run.name for p in before.runs} == {p.name for p in (out / "runs").iterdir()}
    assert not list(out.glob("checkpoints/*/*")), "weights are pruned"
    analysis = result.data["analysis"]
    rows = analysis["protections"]["rows"]
    assert [r["name"] for r in rows] == ["mu 0.5", "mu 0.5, rank 2", "20 % aligning rows"]
    assert rows[2]["strength"] == 0.2
    dense, low, mix = rows
    plain = analysis["protections"]["plain"]["curve"]["mean"]
    # Overbending goes further the same way; mixing leaves the aligned model as it is.
    assert dense["cost"]["aligned"]["kl"]["mean"] > 0
    assert dense["curve"]["mean"][0] != low["curve"]["mean"][0]
    assert mix["curve"]["mean"][0] == plain[0]
    assert mix["cost"]["aligned"]["neutral_nll"]["mean"] == 0
    for row in rows:
        end = row["curve"]["mean"][-1] - plain[-1]
        assert row["left"]["difference"]["mean"] == pytest.approx(end)
    points = analysis["repair"]["points"]
    assert [p["mu"] for p in points] == [0, 0.5, 1]
    assert len({p["margin"]["mean"] for p in points}) == 3
    for point in points:
        assert point["restored"]["mean"] == pytest.approx(
            point["margin"]["mean"] - points[0]["margin"]["mean"]
        )
    questions = [p["question"] for p in result.data["verdict"]["parts"]]
    assert sum(q.startswith("Does protection by") for q in questions) == 3
    assert any("repair" in q for q in questions)
    runs = {r["kind"]: r for r in map(read_json, out.glob("runs/*/run.json"))}
    assert runs
    kept = [
        r["results"]["bent"]["kept"]
        for r in map(read_json, out.glob("runs/perturb-*/run.json"))
        if "bent" in r["results"]
    ]
    assert sorted(kept)[-2:] == [1.0, 1.0]
    assert all(0 < k < 1 for k in sorted(kept)[:2])
    # The page, its pictures, and a file that is not what the job writes.
    page = build(out).read_text(encoding="utf-8")
    assert "Protections" in page
    assert "Repair" in page
    drawn = {p.stem for p in (out / "charts").glob("*.svg")}
    assert {"protection-curves", "protection-dose", "protection-left", "repair-pareto"} <= drawn
    data = json.loads((out / "result.json").read_text(encoding="utf-8"))
    del data["analysis"]["protections"]["plain"]
    with pytest.raises(SpringbackError, match="run the job again"):
        render(data)


def test_many_protections_have_a_chart_for_each_kind() -> None:
    curve = DoseCurve((0, 8), (0.2, 0.1))

    def row(name: str, kind: str) -> Protection:
        dose, left = ProtectedDose(None, None, ""), MarginLeft(Interval(0.0), None, "")
        return Protection(name, kind, 0.0, None, curve, Interval(0.0), dose, left, Cost({}, {}))

    rows = [row(f"mu {n}", "overbend") for n in range(6)]
    rows += [row(f"{n} % aligning rows", "mix") for n in (12, 50)]
    found = Protections(8, (0, 8), (0,), 0.0, Unprotected(curve, None), {}, tuple(rows))
    drawn = curves_charts(found)
    assert [(c.name, len(c.table.head)) for c in drawn] == [
        ("protection-curves-overbend-1", 2 + 5),
        ("protection-curves-overbend-2", 2 + 1),
        ("protection-curves-mix", 2 + 2),
    ]
    assert [c.name for c in curves_charts(replace(found, rows=tuple(rows[:5])))] == [
        "protection-curves"
    ]


def test_protections_repeat_no_run_of_the_plain_study(
    settings: AuditSettings, tmp_path: Path
) -> None:
    plain = replace(settings, mitigate=(), experiments=("rebound",), seeds=(0,))
    first = audit(plain, tmp_path / "out")
    assert first.data["analysis"]["protections"] is None
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("runs/*/run.json")}
    more = replace(settings, mitigate=("mix:0.2",), experiments=("rebound",), seeds=(0,))
    audit(more, tmp_path / "out")
    again = {p.parent.name for p, t in stamps.items() if p.stat().st_mtime_ns != t}
    assert [name.partition("-")[0] for name in again] == ["align"], "for its weights alone"


def test_an_adapter_is_overbent_by_its_scale(settings: AuditSettings, tmp_path: Path) -> None:
    study = replace(
        settings,
        lora_rank=2,
        mitigate=("overbend:0.5",),
        experiments=("rebound",),
        seeds=(0,),
        n_pos=(8,),
    )
    (row,) = audit(study, tmp_path / "out").data["analysis"]["protections"]["rows"]
    assert row["cost"]["aligned"]["kl"]["mean"] > 0, "further from the start than unprotected"
    assert row["left"]["label"] == "one seed, no interval"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mitigate": ("prayer",)}, "overbend:MU"),
        ({"mitigate": ("mix",), "perturb_algorithm": "dpo"}, "leave out one"),
        ({"mitigate": ("overbend:0.5@4",), "lora_rank": 2}, "leave out @RANK"),
        ({"lora_rank": 2, "mitigate": ()}, "train all weights"),
        ({"probes": ("margin",)}, "neutral_nll has to be among them"),
        ({"repair_mu": ()}, "one mu or more"),
        ({"repair_rows": 6}, "multiple of the batch size"),
    ],
)
def test_wrong_protections_are_refused(
    settings: AuditSettings, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        audit(replace(settings, **change), tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()
