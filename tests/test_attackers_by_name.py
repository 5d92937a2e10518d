"""Attackers by name: each does what it says, on one axis of cost, and the worst is bounded."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from springback.cli.app import main
from springback.core import to_jsonable
from springback.errors import DataError, ModelError, SpringbackError
from springback.jobs.audit.analysis import attack_curves, findings
from springback.jobs.audit.attackers import ATTACKERS
from springback.jobs.audit.branches import Attack, attacks
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.protections import Protection, parse
from springback.jobs.audit.settings import AuditSettings
from springback.models import ablation
from springback.models.loading import Model, load_model, resolve
from springback.progress import Silent
from springback.report import build
from springback.results.audit_schema import AttackCurve, AttackPoint
from springback.results.schema import read
from springback.results.store import read_json
from springback.stats import Interval
from springback.training.projection import alignment_directions, way_back_blocked

PROMPTS = [[1, 5, 9, 4], [7, 2, 30], [11, 12, 13, 14, 15], [3, 44, 8]]
EVERY = ("full", "lora", "benign", "orpo", "ablation", "search")


@pytest.fixture
def model(tiny_llama: Path) -> Model:
    return load_model(resolve(tiny_llama))


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    """Both sides answer the same prompts; benign rows answer others."""
    answers = {"align": "a calm answer to {}", "perturb": "A LOUD ANSWER TO {}"}
    for side, answer in answers.items():
        rows = [{"prompt": f"say {n}", "response": answer.format(n)} for n in range(40)]
        (tmp_path / f"{side}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"prompt": f"count {n}", "response": f"{n} and {n + 1}"} for n in range(20)]
    (tmp_path / "benign.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return AuditSettings(
        model=str(tiny_llama),
        align=str(tmp_path / "align.jsonl"),
        perturb=str(tmp_path / "perturb.jsonl"),
        benign=str(tmp_path / "benign.jsonl"),
        experiments=("rebound",),
        n_pos=(8,),
        controls=(),
        doses=(4, 8),
        seeds=(0,),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=40,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        utility_rows=4,
        resistance_rows=0,
        probes=("margin", "neutral_nll"),
        precision="float32",
    )


def flags(settings: AuditSettings) -> list[str]:
    """The settings that differ from the defaults, as a user writes them."""
    given, usual = to_jsonable(settings), to_jsonable(AuditSettings())
    words = []
    for name, value in given.items():
        if value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    return words


# Refusal ablation.


def mean_last(model: Model, prompts: list[list[int]], layer: int) -> np.ndarray[Any, Any]:
    last = []
    for ids in prompts:
        out = model(torch.tensor([ids]), output_hidden_states=True)
        last.append(out.hidden_states[layer][0, -1].detach().double().numpy())
    mean: np.ndarray[Any, Any] = np.mean(last, axis=0)
    return mean


def test_ablation_projects_the_difference_of_means_out_of_all_that_writes(model: Model) -> None:
    layer = 1
    expected = mean_last(model, PROMPTS[:2], layer) - mean_last(model, PROMPTS[2:], layer)
    states = [ablation.mean_states(model, part) for part in (PROMPTS[:2], PROMPTS[2:])]
    difference = (states[0] - states[1])[layer]
    assert np.allclose(difference.numpy(), expected, atol=1e-6)
    r = expected / np.linalg.norm(expected)
    before = {n: p.detach().double().numpy().copy() for n, p in model.named_parameters()}
    ablation.remove_direction(model, ablation.unit(difference), PROMPTS[0])
    projector = np.eye(len(r)) - np.outer(r, r)
    for name, parameter in model.named_parameters():
        old, new = before[name], parameter.detach().double().numpy()
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert np.allclose(new, projector @ old, atol=1e-6), name
        elif name.endswith("embed_tokens.weight"):
            assert np.allclose(new, old @ projector, atol=1e-6), name
        else:
            assert np.array_equal(new, old), name
    out = model(torch.tensor([PROMPTS[3]]), output_hidden_states=True)
    for state in out.hidden_states[:-1]:
        assert float((state[0].detach().double() @ torch.from_numpy(r)).abs().max()) < 1e-5


def test_what_chooses_the_layer_sees_the_model_as_the_weights_will_make_it(model: Model) -> None:
    r = ablation.unit(torch.randn(model.config.hidden_size, dtype=torch.float64))
    ids = torch.tensor([PROMPTS[2]])
    plain = model(ids, output_hidden_states=True).hidden_states
    with ablation.without(model, r):
        hooked = model(ids, output_hidden_states=True).hidden_states
    again = model(ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    ablation.remove_direction(model, r, PROMPTS[0])
    edited = model(ids, output_hidden_states=True).hidden_states
    for a, b in zip(hooked, edited, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(plain[1], edited[1], atol=1e-5)


def test_a_model_that_writes_elsewhere_too_is_refused(model: Model) -> None:
    r = ablation.unit(torch.randn(model.config.hidden_size, dtype=torch.float64))
    block: Any = model.get_submodule("model.layers.0.mlp")
    # As a norm behind the block does: what is written is no longer what the projection writes.
    block.register_forward_hook(lambda module, args, out: out * torch.arange(out.shape[-1]))
    with pytest.raises(ModelError, match="leave it out of --attackers"):
        ablation.remove_direction(model, r, PROMPTS[0])
    with pytest.raises(ModelError, match="prompts of two kinds"):
        ablation.unit(torch.zeros(4))


# Projected updates.


def _stepped(model: Model, directions: Any = None) -> None:
    """Two steps of AdamW on one text."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(2):
        ids = torch.tensor([PROMPTS[2]])
        loss: Any = model(ids, labels=ids).loss
        loss.backward()
        if directions is None:
            optimizer.step()
        else:
            with way_back_blocked(model, directions):
                optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("rank", [None, 2])
def test_an_update_loses_its_part_along_the_way_back_and_nothing_else(
    model: Model, tiny_llama: Path, rank: int | None
) -> None:
    torch.manual_seed(0)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    aligned = {n: p + 0.1 * torch.randn_like(p) for n, p in start.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(aligned[name])
    directions = alignment_directions(model, aligned, start, rank)
    other = load_model(resolve(tiny_llama))
    other.load_state_dict(model.state_dict())
    optimizer, free = (torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (model, other))
    for m in (model, other):
        ids = torch.tensor([PROMPTS[2]])
        loss: Any = m(ids, labels=ids).loss
        loss.backward()
    free.step()
    with way_back_blocked(model, directions):
        optimizer.step()
    plain, changed = dict(other.named_parameters()), 0
    for name, parameter in model.named_parameters():
        begin = aligned[name].double().numpy()
        update = plain[name].detach().double().numpy() - begin
        d = begin - start[name].double().numpy()
        if rank is None or d.ndim != 2:
            back = min(0.0, float((update * d).sum())) / float((d * d).sum())
            expected = update - back * d
        else:
            u, _, v = np.linalg.svd(d, full_matrices=False)
            parts = [min(0.0, float(u[:, i] @ update @ v[i])) for i in range(rank)]
            expected = update - sum(c * np.outer(u[:, i], v[i]) for i, c in enumerate(parts))
        found = parameter.detach().double().numpy() - begin
        assert np.allclose(found, expected, atol=2e-7), name
        changed += not np.allclose(expected, update, atol=1e-6)
    assert changed
    with pytest.raises(ModelError, match="rank 0"):
        alignment_directions(model, aligned, start, 0)
    with pytest.raises(ModelError, match="no tensor"):
        alignment_directions(model, {}, start, None)


def test_outside_its_block_an_optimizer_steps_as_ever(model: Model, tiny_llama: Path) -> None:
    other = load_model(resolve(tiny_llama))
    start = {n: p.detach() - 1.0 for n, p in model.named_parameters()}
    aligned = {n: p.detach().clone() for n, p in model.named_parameters()}
    with way_back_blocked(model, alignment_directions(model, aligned, start, None)):
        pass
    _stepped(model)
    _stepped(other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_projected_updates_are_named_and_never_lead_back(
    settings: AuditSettings, tmp_path: Path
) -> None:
    assert parse("project") == Protection("project", 1.0)
    assert parse("project:8") == Protection("project", 1.0, 8)
    for wrong in ("project:0", "project:x", "project:0.5", "project:1@2"):
        with pytest.raises(SpringbackError, match="project:RANK"):
            parse(wrong)
    study = replace(
        settings,
        probes=("margin", "way_back"),
        mitigate=("project", "project:1"),
        learning_rate=3e-3,
    )
    before = plan(study, tmp_path / "out")
    assert any(part.name == "way back" for part in before.parts)
    result = audit(study, tmp_path / "out")
    rows = result.data["analysis"]["protections"]["rows"]
    assert [row["name"] for row in rows] == ["projected updates", "projected updates, rank 1"]
    ways = {
        m["tags"].get("protection"): m["value"]
        for m in result.data["measurements"]
        if m["probe"] == "way_back" and m["tags"].get("n_neg") == 8
    }
    assert ways["projected updates"] <= min(0.0, ways[None]) + 1e-6
    assert ways["projected updates, rank 1"] not in (ways[None], ways["projected updates"])
    assert "Projected: every update" in build(result.folder).read_text(encoding="utf-8")


def test_a_finished_model_is_attacked_without_wanted_texts_and_protected_by_its_base(
    settings: AuditSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    file = base / "model.safetensors"
    torch.manual_seed(0)
    weights = {name: w + 0.02 * torch.randn_like(w) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    finished = replace(settings, n_pos=(0,), base=str(base), learning_rate=3e-3)
    study = replace(
        finished,
        align="",
        probes=("unwanted_nll", "behaviour", "neutral_nll"),
        behaviour="refusal",
        attackers=("ablation", "benign"),
    )
    swept = audit(study, tmp_path / "attacked").data["analysis"]["attackers"]
    names = ["as the study", "Ablation", "benign only"]
    assert [curve["name"] for curve in swept["curves"]] == names
    assert all(point["fall"] for curve in swept["curves"] for point in curve["points"])
    result = audit(replace(finished, mitigate=("project",)), tmp_path / "protected")
    margins = {
        m["tags"].get("protection"): m["value"]
        for m in result.data["measurements"]
        if m["probe"] == "margin" and m["tags"].get("n_neg") == 8
    }
    assert len(set(margins.values())) == 2, "the projection changes what is learned"
    without_base, without_wanted = replace(finished, base=None), study
    for asked, words in ((without_base, "no --base"), (without_wanted, "no wanted texts")):
        with pytest.raises(SpringbackError, match=words):
            check_settings(replace(asked, mitigate=("project",)))


# The registry, and what the settings ask for.


def test_every_attacker_gives_attacks_with_names_of_their_own(settings: AuditSettings) -> None:
    assert tuple(ATTACKERS) == EVERY
    asked = replace(settings, attackers=EVERY, attack_learning_rates=(1e-3, 3e-3))
    names = [attack.name for attack in attacks(asked)]
    assert names == [
        "learning rate 0.003",
        "LoRA of rank 8",
        "LoRA of rank 8, learning rate 0.003",
        "benign only",
        "ORPO",
        "ORPO, learning rate 0.003",
        "Ablation",
    ]
    drawn = replace(asked, attackers=("ablation",), attack_seeds=(7,), attack_learning_rates=())
    assert [attack.name for attack in attacks(drawn)] == ["Ablation", "Ablation, draw 7"]
    searched = replace(settings, attackers=("search",))
    assert [attack.learning_rate for attack in attacks(searched)] == [3e-3, 1e-2, None, 3e-3, 1e-2]
    # What stood before stays what it was.
    assert attacks(settings) == ()
    both = replace(settings, mix=(0.5, 1.0), attackers=("benign",))
    assert attacks(both) == (Attack(mix=1.0), Attack(mix=0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attackers": ("prayer",)}, "has prayer; allowed: full, lora"),
        ({"attackers": ("lora",), "attack_lora_rank": 0}, "--attack-lora-rank is 0"),
        ({"attackers": ("lora",), "lora_rank": 2}, "--lora-rank 2"),
        ({"attackers": ("lora",), "dtype": "bfloat16"}, "measured in float32"),
        ({"attackers": ("lora",), "probes": ("margin", "way_back")}, "--probes way_back"),
        ({"attackers": ("search",), "probes": ("margin",)}, "neutral_nll or choice"),
        ({"attackers": ("ablation",), "lora_rank": 2}, "train all weights"),
        ({"attackers": ("benign",), "perturb_algorithm": "dpo"}, "--attackers benign with"),
        ({"utility_bound": 0.0}, "--utility-bound is 0"),
        ({"mitigate": ("project",), "lora_rank": 2}, "--lora-rank 2"),
        ({"mitigate": ("project",), "n_pos": (0,)}, "--n-pos 0 and no --base"),
    ],
)
def test_what_does_not_go_together_is_refused(
    settings: AuditSettings, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        check_settings(replace(settings, **change))


def test_rows_that_do_not_fit_are_refused_before_anything_is_trained(
    settings: AuditSettings, tmp_path: Path
) -> None:
    texts = [{"text": f"a sum of {n}"} for n in range(20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    other = [{"prompt": f"tell {n}", "response": f"Loud {n}"} for n in range(40)]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, other)))
    wrong = {
        "answers to the same prompts": {"perturb": "other.jsonl", "attackers": ("orpo",)},
        "harmless prompts": {"benign": "texts.jsonl", "attackers": ("ablation",)},
    }
    for words, change in wrong.items():
        given: dict[str, Any] = {
            key: str(tmp_path / value) if isinstance(value, str) else value
            for key, value in change.items()
        }
        with pytest.raises(DataError, match=words):
            audit(replace(settings, **given), tmp_path / "out")
        assert not (tmp_path / "out" / "runs").exists()


# From the shell, all of them.


@pytest.mark.parametrize("n_pos", [8, 0])
def test_every_attacker_runs_from_the_shell_and_stands_on_one_axis(
    settings: AuditSettings, tmp_path: Path, n_pos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(settings, n_pos=(n_pos,), attackers=EVERY)
    before, out = plan(study, tmp_path / "out"), tmp_path / "out"
    command = ["springback", "audit", *flags(study), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    made = {path.name: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    assert {planned.run.name for planned in before.runs} == {*made}
    data = json.loads((out / "result.json").read_text(encoding="utf-8"))
    swept = data["analysis"]["attackers"]
    curves = {curve["name"]: curve for curve in swept["curves"]}
    assert {curve["attacker"] for curve in curves.values()} == {
        ATTACKERS[name].title for name in EVERY if name != "search"
    }
    full, lora, pairs = (
        [point["cost"] for point in curves[name]["points"]]
        for name in ("as the study", "LoRA of rank 8", "ORPO")
    )
    assert full[0] < full[1] < pairs[1]
    assert [a / b for a, b in zip(lora, full, strict=True)] == pytest.approx([2 / 3] * 2)
    few, many = (point["cost"] for point in curves["Ablation"]["points"])
    assert 0 < few < many < full[1]
    # Each changed the model, and none of them the one that the next begins with.
    falls = [curve["points"][-1]["fall"]["mean"] for curve in curves.values()]
    assert len(set(falls)) == len(falls)
    assert 0 not in falls
    bounded = swept["bounded"]
    assert bounded["points"] == sum(len(curve["points"]) for curve in curves.values())
    assert 0 <= bounded["within"] <= bounded["points"]
    # Read again, shown, and made again without a run.
    assert read(data)
    page = build(out).read_text(encoding="utf-8")
    assert "Every attack by its cost" in page
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert made == {path.name: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    for path in out.glob("runs/perturb-*/run.json"):
        results = read_json(path)["results"]
        if "layers" in results:
            assert results["layers"] == {"4": 1, "8": 1}
            assert results["losses"] == []


def test_an_adapter_is_taken_out_again_and_runs_keep_their_ids(
    settings: AuditSettings, tmp_path: Path
) -> None:
    plain = plan(settings, tmp_path)
    asked = plan(replace(settings, attackers=("lora", "orpo", "ablation")), tmp_path)
    names = [[planned.run.name for planned in one.runs] for one in (plain, asked)]
    assert names[1][: len(names[0])] == names[0]
    share, benign = (
        plan(replace(settings, **change), tmp_path).runs[-1]
        for change in ({"mix": (1.0,)}, {"attackers": ("benign",)})
    )
    assert share.run.name == benign.run.name
    tokens = [planned.trained for planned in asked.runs]
    study, lora, _, orpo, ablated = tokens[2:]
    assert lora == pytest.approx(2 / 3 * study, abs=1)
    assert orpo == 2 * study
    assert ablated == 0
    assert asked.runs[-1].scored > asked.runs[2].scored / 2


class CutOff(Silent):
    """Ends the work, as a kill does, at the second step of an attack by LoRA."""

    made: int | None = None

    def stage(self, title: str, total: int) -> None:
        self.made = 0 if "LoRA" in title else None

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.made is not None:
            self.made += steps
            if self.made > 1:
                raise KeyboardInterrupt


def test_an_attack_by_lora_that_was_cut_off_goes_on_to_the_same_numbers(
    settings: AuditSettings, tmp_path: Path
) -> None:
    study = replace(settings, n_pos=(0,), attackers=("lora",), save_every=0.0, probes=("margin",))
    whole = audit(study, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        audit(study, tmp_path / "cut", CutOff())
    assert list((tmp_path / "cut" / "partial").glob("perturb-*/step-00000001"))
    again = audit(study, tmp_path / "cut")
    assert again.data["measurements"] == whole.data["measurements"]


# What is said of them, by hand.


def probes(nll: float | None = None, choice: float | None = None) -> dict[str, Any]:
    made = {"neutral_nll": nll, "choice": choice}
    return {name: {"value": value} for name, value in made.items() if value is not None}


def test_utility_lost_is_the_larger_of_what_was_measured() -> None:
    lost = attack_curves.utility_lost
    assert lost(probes(), probes()) is None
    # A token's mean probability falls by a tenth.
    assert lost(probes(2.0), probes(2.0 - math.log(0.9))) == pytest.approx(0.1)
    assert lost(probes(2.0), probes(1.0)) == pytest.approx(1 - math.e)
    assert lost(probes(choice=0.5), probes(choice=0.4)) == pytest.approx(0.2)
    assert lost(probes(2.0, 0.5), probes(2.0, 0.45)) == pytest.approx(0.1)


def test_the_worst_within_the_bound_is_the_worst_of_those_that_cost_little() -> None:
    def curve(name: str, *points: tuple[float, float, float | None]) -> AttackCurve:
        made = [
            AttackPoint(8 * i, cost, Interval(share), Interval(share), lost)
            for i, (cost, share, lost) in enumerate(points, start=1)
        ]
        return AttackCurve(name, name, tuple(made))

    tried = (
        curve("study", (10, 0.2, 0.0), (20, 0.5, 0.1)),
        curve("rough", (10, 0.7, 0.2), (20, 0.9, 0.5)),
        curve("cheap", (5, 0.5, 0.05)),
    )
    found = attack_curves.within_bound(AuditSettings(probes=("margin", "choice")), tried)
    assert found is not None
    assert (found.name, found.within, found.points) == ("cheap", 3, 5)
    part = findings._within_bound(found, "the gain")
    assert part.label == "50 % of the gain"
    assert "worst of 3 of 5 points" in part.text
    loose = attack_curves.within_bound(AuditSettings(utility_bound=0.3), tried)
    assert loose is not None
    assert (loose.name, loose.within) == ("rough", 4)
    none = attack_curves.within_bound(AuditSettings(utility_bound=0.01), tried[1:])
    assert none is not None
    assert none.point is None
    assert findings._within_bound(none, "the gain").label == "every one costs more"
    unmeasured = (curve("study", (1, 0.1, None)),)
    assert attack_curves.within_bound(AuditSettings(), unmeasured) is None
