"""The audit's further experiments on a tiny model: opposite order, second alignment, attackers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from springback.cli.app import app
from springback.core import Row, Slice
from springback.errors import DataError, SpringbackError
from springback.jobs import config
from springback.jobs.audit.branches import PLAIN, Attack, attacks, perturbing_rows
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.pools import Data
from springback.jobs.audit.rows import load_data
from springback.jobs.audit.settings import AuditSettings
from springback.report import render
from springback.results.probe_info import PROBES
from springback.results.store import read_json


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    benign = tmp_path / "benign.jsonl"
    benign.write_text("".join(f'{{"text": "the sum of {n} and 1"}}\n' for n in range(20)))
    return AuditSettings(
        benign=str(benign),
        model=str(tiny_llama),
        n_pos=(4, 8),
        controls=(),
        doses=(4, 8),
        seeds=(0,),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=4,
        probes=("margin", "kl"),
        precision="float32",
    )


def records(result: Any, phase: str) -> list[dict[str, Any]]:
    return [m for m in result.data["measurements"] if m["tags"].get("phase") == phase]


def part(name: str, n: int) -> Slice:
    return Slice.of(name, name, [Row("text", "", f"{name} {i}") for i in range(n)])


def test_every_beginning_of_a_mixed_perturbation_has_the_share_of_benign_rows() -> None:
    """Share 0.25: rows 4, 8, 12, ... are benign; share 1: all of them."""
    none = part("held-out", 1)
    data = Data(none, part("unwanted", 16), none, none, benign=part("benign", 16))
    mixed = perturbing_rows(data, Attack(mix=0.25), 16, seed=3).rows
    kinds = [row.response.split()[0] for row in mixed]
    assert kinds == ["unwanted", "unwanted", "unwanted", "benign"] * 4
    assert len(set(mixed)) == 16
    alone = perturbing_rows(data, Attack(mix=1.0), 16, seed=3).rows
    assert all(row.response.startswith("benign") for row in alone)
    assert perturbing_rows(data, PLAIN, 8, 3).rows == perturbing_rows(data, PLAIN, 16, 3).rows[:8]


def test_a_larger_study_begins_with_the_rows_of_a_smaller_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "text number {n}"}}\n' for n in range(200)))
    other = tmp_path / "b.jsonl"
    other.write_text("".join(f'{{"text": "word number {n}"}}\n' for n in range(200)))
    for align, perturb in (("reviews:positive", "reviews:negative"), (str(path), str(other))):
        small = AuditSettings(
            align=align,
            perturb=perturb,
            n_pos=(8,),
            controls=(),
            doses=(8,),
            resistance_rows=4,
            holdout=5,
        )
        large = replace(
            small, n_pos=(16,), doses=(24,), experiments=("rebound", "resistance", "realign")
        )
        a, b = load_data(small), load_data(large)
        assert (a.wanted, a.unwanted) == (b.wanted, b.unwanted)
        for seed in (0, 1):
            assert b.aligning(seed, 16).rows[:8] == a.aligning(seed, 8).rows
            assert b.perturbing(seed, 24).rows[:8] == a.perturbing(seed, 8).rows
            assert b.reserved("align", "resistance", seed) == a.reserved(
                "align", "resistance", seed
            )
            used = [b.aligning(seed, 16), *(b.reserved("align", w, seed) for w in
                    ("resistance", "again"))]  # fmt: skip
            rows = [row for part in used for row in part.rows]
            assert len(set(rows)) == len(rows) == 16 + 16 + 16
        assert set(a.aligning(0, 8).rows) != set(a.aligning(1, 8).rows)
    with pytest.raises(DataError, match="needs 216 rows"):
        load_data(replace(small, n_pos=(200,)))


def test_attackers_have_a_name_and_none_is_the_study_itself() -> None:
    settings = AuditSettings(
        learning_rate=1e-5, attack_learning_rates=(1e-5, 3e-5), mix=(0.0, 0.5, 1.0)
    )
    assert [a.name for a in attacks(settings)] == [
        "learning rate 3e-05",
        "50 % benign",
        "benign only",
    ]


@pytest.mark.parametrize("algorithm", ["sft", "kto", "dpo"])
def test_another_draw_perturbs_with_other_rows_and_none_that_aligning_learned_against(
    tmp_path: Path, algorithm: str
) -> None:
    settings = AuditSettings(
        align=answers(tmp_path, "safe", "yes", list(range(60))),
        perturb=answers(tmp_path, "unsafe", "no", list(range(60))),
        algorithm=algorithm,
        n_pos=(24,),
        controls=(),
        doses=(16,),
        attack_seeds=(7,),
        holdout=4,
        resistance_rows=0,
    )
    data = load_data(settings)
    own = data.perturbing(0, 16).rows
    drawn = perturbing_rows(data, Attack(draw=7), 16, seed=0)
    assert len({*drawn.rows}) == len(drawn) == 16
    assert {*drawn.rows} != {*own}
    shorter = perturbing_rows(data, Attack(draw=7), 8, seed=0)
    assert shorter.rows == drawn.rows[:8]
    if algorithm != "sft":
        assert not {*drawn.rows} & {*data.reserved("perturb", "against align", 0).rows}


def test_the_command_line_plans_and_shows_a_study_without_running_it(
    settings: AuditSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.yaml"
    shown = CliRunner().invoke(app, ["audit", "--model", settings.model, "--show"])
    assert shown.exit_code == 0
    study.write_text(shown.output)
    flags = ["--n-pos", "8,16", "--doses", "8,16", "--seeds", "0,1", "--resistance-rows", "0"]
    flags += ["--max-tokens", "32", "--mix", "0.5", "--controls", "unaligned,neutral"]
    told = CliRunner().invoke(app, ["audit", "plan", str(study), *flags]).output.splitlines()
    head = ["run", "seeds", "runs", "done", "tokens", "trained", "tokens", "probed"]
    assert told[1].split() == [*head, "minutes", "left"]
    # By kind: seeds, runs, runs done.  A seed perturbs both branches and the mixed rows, and as
    # controls the start model and both branches on neutral rows.
    memory = next(i for i, line in enumerate(told) if line.startswith("memory of an audit"))
    counted = {line.split()[0]: line.split()[1:4] for line in told[2:memory]}
    assert counted == {
        "start": ["1", "1", "0"],
        "align": ["2", "2", "0"],
        "perturb": ["2", "12", "0"],
        "all": ["2", "15", "0"],
    }
    made = plan(config.build(AuditSettings, {**config.read_study(study), **settings_of(flags)}))
    assert 0 < made.training < made.seconds
    [left] = [line for line in told if line.startswith("what is left")]
    for words in ("% training, the rest probes", "B of memory", "MB of disk at the most"):
        assert words in left
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("springback")] == []


def settings_of(flags: list[str]) -> dict[str, Any]:
    return {
        k.removeprefix("--").replace("-", "_"): v
        for k, v in zip(flags[::2], flags[1::2], strict=True)
    }


def test_the_plan_names_exactly_the_runs_that_are_made(
    settings: AuditSettings, tmp_path: Path
) -> None:
    full = replace(
        settings,
        experiments=("rebound", "resistance", "symmetry", "realign"),
        attack_learning_rates=(3e-3,),
        attack_seeds=(7,),
        mix=(0.5,),
        n_pos=(4, 8),
    )
    before = plan(full, tmp_path / "out")
    assert not any(p.done for p in before.runs)
    assert not (tmp_path / "out").exists()
    result = audit(full, tmp_path / "out")
    made = {p.name for p in (tmp_path / "out" / "runs").iterdir()}
    sums = {name for name in made if name.startswith("resistance-")}
    assert {p.run.name for p in before.runs} == made - sums
    after = plan(full, tmp_path / "out")
    assert all(p.done for p in after.runs)
    assert after.waiting == ()
    assert not list((tmp_path / "out").glob("checkpoints/*/*")), "branch weights are pruned"
    # 2 doses x 2 probes from the last branch point of each attacker; the margin also by side
    assert {m["tags"]["attack"] for m in records(result, "attack")} == {
        "learning rate 0.003",
        "draw 7",
        "learning rate 0.003, draw 7",
        "50 % benign",
    }
    assert len(records(result, "attack")) == 4 * 2 * 4
    assert len(records(result, "realign")) == 2 * 4
    turned = [m for m in result.data["measurements"] if m["tags"].get("order") == "opposite"]
    assert len(turned) == 4 * (1 + 2 + 2 * 2)


@pytest.mark.parametrize("n_pos", [(8,), (4, 8, 12, 16)])
def test_weights_on_disk_stay_below_what_the_plan_announces(
    settings: AuditSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_pos: tuple[int, ...],
) -> None:
    full = replace(
        settings,
        n_pos=n_pos,
        doses=(4, 8, 12),
        experiments=("rebound", "resistance", "realign", "repair"),
        probes=("margin", "neutral_nll"),
        neutral="problems-text",
        utility_rows=2,
        repair_rows=8,
        resistance_rows=12,
        attack_learning_rates=(3e-3,),
        save_every=0.0,  # a state after every step
    )
    seen, remove = [0], shutil.rmtree

    def noted(*args: Any, **kwargs: Any) -> None:
        seen.append(sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors")))
        remove(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", noted)  # most is there before something goes
    audit(full, tmp_path / "out")
    # Files have headers beside the weights, and random numbers.
    assert 0.9 < max(seen) / plan(full, tmp_path / "out").disk < 1.1


def test_the_opposite_order_turns_the_margin_of_the_start_round(
    settings: AuditSettings, tmp_path: Path
) -> None:
    """margin = NLL(unwanted) - NLL(wanted): with the sides exchanged it changes its sign."""
    result = audit(
        replace(settings, experiments=("rebound", "symmetry"), probes=("margin",)),
        tmp_path / "out",
    )
    start = records(result, "start")
    here, there = (m["value"] for m in start if m["probe"] == "margin")
    assert there == pytest.approx(-here, abs=1e-6)
    sides = [(m["slice"], m["value"]) for m in start if m["probe"] == "nll"]
    assert [side for side, _ in sides] == ["wanted", "unwanted"] * 2
    assert sides[1][1] - sides[0][1] == pytest.approx(here)
    # The opposite order wants what this one does not.
    assert (sides[3][1], sides[2][1]) == pytest.approx((sides[0][1], sides[1][1]))
    assert result.data["analysis"]["resistance"] is None


def test_more_experiments_repeat_no_run_but_the_one_whose_weights_they_need(
    settings: AuditSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    audit(settings, out)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/run.json")}
    assert stamps
    more = replace(settings, experiments=("rebound", "resistance", "symmetry"), mix=(1.0,))
    audit(more, out)
    again = {p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert [name.partition("-")[0] for name in again] == ["align"]


def test_resistance_on_the_slices_is_a_variant_with_results_of_its_own(
    settings: AuditSettings, tmp_path: Path
) -> None:
    usual = audit(replace(settings, resistance_data="responses"), tmp_path / "out").data
    variant = audit(replace(settings, resistance_data="slices"), tmp_path / "out").data
    first, second = (data["analysis"]["resistance"] for data in (usual, variant))
    assert [p["pair"] for p in first["pairs"]] == [p["pair"] for p in second["pairs"]]
    assert first["pairs"][0]["forward"]["mean"] != second["pairs"][0]["forward"]["mean"]
    assert (first["data"], second["data"]) == ("responses", "slices")
    # It is labelled wherever it is told: records, questions of the verdict, card.
    for data, name in ((usual, "responses"), (variant, "slices")):
        said = [m["slice"] for m in data["measurements"] if m["tags"]["phase"] == "resistance"]
        assert {*said} == {name}
        asked = [
            p["question"] for p in data["verdict"]["parts"] if "the way forward" in p["question"]
        ]
        assert len(asked) == 3
        card = data["analysis"]["card"]
        told = [*asked, card["quantities"]["resistance_ratio"]["reason"]]
        told += [pair["reason"] for pair in card["pairs"].values()]
        assert all(("rows of the slices" in text) == (name == "slices") for text in told)


def test_whole_answers_are_told_by_arm_and_outcome(settings: AuditSettings, tmp_path: Path) -> None:
    settings = replace(settings, resistance_tokens=5, seeds=(0, 1))
    data = audit(settings, tmp_path / "out").data
    found = data["analysis"]["resistance"]
    assert (found["data"], found["loss"]) == ("answers", "final")
    assert [p["pair"] for p in found["sampled"]] == ["1-2", "2-3", "1-3"]
    values = {
        (m["tags"]["arm"], m["tags"]["pair"], m["probe"], m["tags"]["seed"]): m["value"]
        for m in data["measurements"]
        if m["tags"]["phase"] == "resistance"
    }
    # Two arms, three pairs, two seeds: three losses and one excess of two of them, two KL, each way
    assert len(values) == 2 * 3 * 2 * (4 + 2) * 2
    for arm, pairs in (("greedy", found["pairs"]), ("sampled", found["sampled"])):
        for pair in pairs:
            seeds = [(arm, pair["pair"], name) for name in ("loss_forward", "loss_mean_forward")]
            final, mean = ([values[(*key, s)] for s in (0, 1)] for key in seeds)
            assert pair["forward"]["mean"] == pytest.approx(sum(final) / 2)
            assert pair["mean_forward"]["mean"] == pytest.approx(sum(mean) / 2)
            key = (arm, pair["pair"])
            closed = [
                values[(*key, "kl_before_inverse", s)] - values[(*key, "kl_after_inverse", s)]
                for s in (0, 1)
            ]
            assert pair["kl_inverse"]["mean"] == pytest.approx(sum(closed) / 2)
            assert pair["kl_label"] in ("resists", "no resistance", "undecided")
    asked = [p["question"] for p in data["verdict"]["parts"] if "the way forward" in p["question"]]
    assert len(asked) == 3
    assert all(question.endswith("(whole answers, greedy)?") for question in asked)
    card = data["analysis"]["card"]["quantities"]["resistance_ratio"]
    assert "final loss of whole greedy answers; of sampled ones" in card["reason"]
    page = render(data)
    assert "whole greedy answers" in page
    assert "Resistance on greedy and on sampled answers" in page
    assert "sampled, 1-3" in page


#: Every probe of a model that is aligned: KL to a base model is of finished ones alone.
EVERY = tuple(name for name in PROBES if name != "base_kl")


def test_every_probe_is_measured_at_every_dose_and_shown_with_its_unit(
    settings: AuditSettings, tmp_path: Path
) -> None:
    texts = tmp_path / "neutral.jsonl"
    texts.write_text("".join(f'{{"text": "the thing is a {n}"}}\n' for n in range(6)))
    every = replace(
        settings,
        probes=EVERY,
        behaviour="refusal",
        neutral=str(texts),
        utility_rows=3,
        resistance_rows=0,
        n_pos=(8,),
    )
    result = audit(every, tmp_path / "out")
    found = {(m["probe"], m["checkpoint"]): m for m in result.data["measurements"]}
    for checkpoint in ("start", "align-8", "align-8+perturb-4", "align-8+perturb-8"):
        measured = {p for p, c in found if c == checkpoint}
        parts = {"nll", "way_back_cosine", "rates_bits_per_byte", "rates_rate", "rates_normalised"}
        assert measured - parts == set(EVERY)
    # Away from the start when aligned, and some of the way back after the perturbation.
    assert found["weight_change", "start"]["value"] == 0
    assert found["weight_change", "align-8"]["value"] > 0
    assert found["way_back", "align-8"]["value"] == 0
    assert -1 <= found["way_back_cosine", "align-8+perturb-8"]["value"] <= 1
    assert abs(found["reverse_kl", "start"]["value"]) < 1e-6
    shown = result.data["analysis"]["rebound"]["probes"]
    assert list(shown) == list(EVERY)
    assert shown["behaviour"]["title"] == "Sampled continuations by refusal"
    assert all(shown[p]["unit"] == found[p, "start"]["unit"] for p in EVERY)


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_a_grid_of_branches_equals_its_cells_run_one_by_one(
    settings: AuditSettings, tmp_path: Path, algorithm: str
) -> None:
    """Bit for bit in fp32: every cell of the grid as a study that has only this cell."""
    grid = replace(
        settings,
        algorithm=algorithm,
        experiments=("rebound",),
        prompt="Say:",
        max_tokens=40,
        resistance_rows=0,
    )
    whole = audit(grid, tmp_path / "grid").data["measurements"]
    shared = {(m["probe"], m["slice"], m["checkpoint"]): m["value"] for m in whole}
    for n_pos in (4, 8):
        for dose in (4, 8):
            cell = replace(grid, n_pos=(n_pos,), doses=(dose,))
            alone = audit(cell, tmp_path / f"{n_pos}-{dose}").data["measurements"]
            name = f"align-{n_pos}+perturb-{dose}"
            cells = [m for m in alone if m["checkpoint"] == name]
            assert [m["probe"] for m in cells] == ["nll", "nll", "margin", "kl"]
            for m in cells:
                assert m["value"] == shared[m["probe"], m["slice"], name]


def test_the_default_settings_pass_their_own_checks() -> None:
    made = check_settings(AuditSettings())
    assert made.precision in ("bf16-mixed", "float32")
    assert check_settings(AuditSettings(algorithm="simpo")).prompt == "Review:"


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "simpo", "rloo"])
def test_every_algorithm_aligns_in_a_study_that_resumes(
    settings: AuditSettings, tmp_path: Path, algorithm: str
) -> None:
    study = replace(
        settings,
        algorithm=algorithm,
        experiments=("rebound", "symmetry", "realign"),
        resistance_rows=0,
        max_tokens=48,
        prompt_tokens=4,
        generations=2,
        answer_tokens=4,
        probes=("margin",),
    )
    result = audit(study, tmp_path / "out")
    recipes = {
        run["kind"]: run["inputs"]["recipe"]["algorithm"]
        for run in map(read_json, tmp_path.glob("out/runs/*/run.json"))
        if "recipe" in run["inputs"]
    }
    assert recipes == {"align": algorithm, "perturb": "sft", "realign": algorithm}
    assert len(records(result, "realign")) == 2 * 3
    assert all(p.done for p in plan(study, tmp_path / "out").runs)


def test_an_adapter_is_trained_from_each_branch_and_the_start_comes_back(
    settings: AuditSettings, tmp_path: Path
) -> None:
    """With both orders in one process, the second starts from the start model again."""
    study = replace(settings, lora_rank=2, experiments=("rebound", "symmetry"))
    both = audit(study, tmp_path / "both")
    turned = replace(study, experiments=("rebound",), align=study.perturb, perturb=study.align)
    alone = audit(turned, tmp_path / "alone")
    opposite = [m for m in both.data["measurements"] if m["tags"].get("order") == "opposite"]
    values = {(m["probe"], m["checkpoint"]): m["value"] for m in opposite}
    assert values == {
        (m["probe"], m["checkpoint"]): m["value"] for m in records(alone, "start")
    } | {
        (m["probe"], m["checkpoint"]): m["value"]
        for phase in ("align", "perturb")
        for m in records(alone, phase)
    }
    assert values["kl", "align-8"] > 1e-4


def test_both_sides_may_answer_the_same_prompts_and_none_is_trained_and_held_out(
    tiny_llama: Path, tmp_path: Path
) -> None:
    for side, word in (("safe", "yes"), ("unsafe", "no")):
        (tmp_path / f"{side}.jsonl").write_text(
            "".join(f'{{"prompt": "ask {n}", "response": "{word} {n}"}}\n' for n in range(60))
        )
    settings = AuditSettings(
        model=str(tiny_llama),
        align=str(tmp_path / "safe.jsonl"),
        perturb=str(tmp_path / "unsafe.jsonl"),
        n_pos=(16,),
        controls=(),
        doses=(16,),
        holdout=10,
        resistance_rows=0,
    )
    data = load_data(settings)
    held = {row.prompt for part in (data.wanted, data.unwanted) for row in part.rows}
    trained = {row.prompt for part in (data.align, data.perturb) for row in part.rows}
    assert not held & trained


def answers(folder: Path, side: str, word: str, numbers: list[int]) -> str:
    path = folder / f"{side}.jsonl"
    path.write_text(
        "".join(f'{{"prompt": "ask {n}", "response": "{word} {n}"}}\n' for n in numbers)
    )
    return str(path)


@pytest.mark.parametrize("unpaired", [0, 20])
def test_rows_with_prompts_of_their_own_are_learned_in_pairs_that_serve_once(
    tmp_path: Path, unpaired: int
) -> None:
    """In the same order, or with prompts between them that only one side answers."""
    safe = answers(tmp_path, "safe", "yes", list(range(80)))
    unsafe = answers(tmp_path, "unsafe", "no", [*range(80), *range(100, 100 + unpaired)])
    small = AuditSettings(
        align=safe,
        perturb=unsafe,
        algorithm="dpo",
        n_pos=(8,),
        controls=(),
        doses=(8,),
        holdout=4,
        resistance_rows=2,
    )
    large = replace(
        small,
        n_pos=(16,),
        doses=(12,),
        experiments=("rebound", "resistance", "realign"),
        perturb_algorithm="simpo",
    )
    a, b = load_data(small), load_data(large)
    for seed in (0, 1):
        used: list[Row] = []
        for phase in ("align", "again", "perturb"):
            sides = ("perturb", "align") if phase == "perturb" else ("align", "perturb")
            theirs = b.reserved(sides[1], f"against {phase}", seed)
            ours = {
                "align": lambda seed: b.aligning(seed, 16),
                "again": lambda seed: b.reserved("align", "again", seed),
                "perturb": lambda seed: b.perturbing(seed, 12),
            }[phase](seed)
            assert [r.prompt for r in ours.rows] == [r.prompt for r in theirs.rows]
            assert len(ours) == (12 if phase == "perturb" else 16)
            used += [*ours.rows, *theirs.rows]
        used += b.reserved("align", "resistance", seed).rows
        assert len(set(used)) == len(used) == 2 * (16 + 16 + 12) + 8
        assert b.aligning(seed, 16).rows[:8] == a.aligning(seed, 8).rows
        # Perturbing by SFT takes the rows that it takes whatever the aligning algorithm is.
        plain = load_data(replace(small, algorithm="sft"))
        assert a.perturbing(seed, 8) == plain.perturbing(seed, 8)
        learned = {*a.aligning(seed, 8).rows, *a.reserved("perturb", "against align", seed).rows}
        assert not learned & {*a.perturbing(seed, 8).rows}
    with pytest.raises(DataError, match=r"dpo learns two answers .* needs 72 prompts"):
        load_data(replace(small, n_pos=(64,), resistance_rows=0, perturb=answers(
            tmp_path, "few", "no", [*range(30), *range(100, 170)])))  # fmt: skip


@pytest.mark.parametrize("algorithm", ["dpo", "simpo"])
def test_files_with_the_same_prompts_in_the_same_order_are_audited_with_pairs(
    settings: AuditSettings, tmp_path: Path, algorithm: str
) -> None:
    study = replace(
        settings,
        align=answers(tmp_path, "safe", "yes", list(range(60))),
        perturb=answers(tmp_path, "unsafe", "no", list(range(60))),
        algorithm=algorithm,
        perturb_algorithm="dpo",
        experiments=("rebound", "symmetry", "realign"),
        max_tokens=40,
        probes=("margin",),
    )
    result = audit(study, tmp_path / "out")
    assert len(records(result, "realign")) == 2 * 3
    assert len(records(result, "perturb")) == 8 * 3  # two branches, two doses, both orders


def test_rows_whose_prompt_leaves_no_room_are_left_out_and_counted(
    tiny_llama: Path, tmp_path: Path
) -> None:
    for side, word in (("safe", "yes"), ("unsafe", "no")):
        (tmp_path / f"{side}.jsonl").write_text(
            "".join(
                # Every third prompt is longer than the 48 tokens that a row may have.
                f'{{"prompt": "ask {"much " * 30 * (n % 3 == 0)}{n}", "response": "{word} {n}"}}\n'
                for n in range(90)
            )
        )
    settings = AuditSettings(
        model=str(tiny_llama),
        align=str(tmp_path / "safe.jsonl"),
        perturb=str(tmp_path / "unsafe.jsonl"),
        n_pos=(8,),
        controls=(),
        doses=(8,),
        seeds=(0,),
        batch_size=8,
        max_tokens=48,
        holdout=4,
        prompts=2,
        sample_tokens=2,
        probes=("margin",),
        resistance_rows=8,
        precision="float32",
    )
    result = audit(settings, tmp_path / "out")
    assert result.data["inputs"]["left_out"] == {settings.align: 30, settings.perturb: 30}
    assert plan(settings, tmp_path / "out").waiting == ()
    with pytest.raises(SpringbackError, match=r"30 have no room .* within --max-tokens"):
        audit(replace(settings, n_pos=(64,)), tmp_path / "more")
    with pytest.raises(SpringbackError, match=r"no row of .* has room for an answer within 16"):
        audit(replace(settings, max_tokens=16), tmp_path / "short")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probes": ("margin", "behaviour")}, "give both"),
        ({"probes": ("margin", "behaviour"), "behaviour": "taste"}, "allowed"),
        ({"algorithm": "prayer"}, "allowed: sft, dpo"),
        ({"algorithm": "dpo", "beta": -1.0}, "beta"),
        ({"perturb_algorithm": "kto", "mix": (0.5,)}, "leave out one"),
        ({"lora_rank": 2, "probes": ("margin", "way_back")}, "leave the probe out"),
        ({"mix": (1.5,)}, "shares from 0 to 1"),
        ({"experiments": ("rebound", "magic")}, "magic; allowed: rebound"),
        ({"experiments": ("resistance",)}, "rebound has to be among them"),
        ({"resistance_data": "dreams"}, "allowed: responses, slices"),
        ({"attack_learning_rates": (-1.0,)}, "above 0"),
        ({"attack_seeds": (0, 7)}, r"has \[0\], which --seeds has too"),
        ({"attack_seeds": (7,), "perturb_algorithm": "kto"}, "leave out one"),
        ({"epsilon": 0.0}, "above 0"),
    ],
)
def test_wrong_experiments_are_refused(
    settings: AuditSettings, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        audit(replace(settings, **change), tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()
