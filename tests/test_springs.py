"""Springs: elongations and n-gram optima by hand, tiny Llamas on a tree, the study and its page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from springback import theory
from springback.cli.app import app
from springback.errors import DataError, SpringbackError, StoreError
from springback.jobs.papers.theory.leaf_model import LeafModels, Tree, fit_joint, fit_stream
from springback.jobs.papers.theory.settings import SpringsSettings
from springback.jobs.papers.theory.springs import springs_study
from springback.models.from_scratch import Shape
from springback.report import build, render
from springback.results.writing import geometric
from springback.theory import Elongation, Sets

SMALL = SpringsSettings(
    arrangements=("opposed kinds", "independent"),
    symbols=3,
    length=2,
    hidden=8,
    layers=1,
    k=(1.0, 4.0),
    doses=(0.5, 1.0),
    seeds=(0, 1),
    steps=40,
    aligning=64,
    pretraining_batch=32,
)


def test_elongations_make_products_a_fitted_k_and_a_balance() -> None:
    """Volumes 10, 1, 0.5 and changes -0.1, 0.8, -2: products -1, 0.8, -1."""
    e = Elongation((10.0, 1.0, 0.5), (-0.1, 0.8, -2.0))
    assert e.products == pytest.approx((-1.0, 0.8, -1.0))
    assert e.fitted_k == pytest.approx(8.0)
    assert e.balance == pytest.approx(-0.2 / 1.8)
    assert e.total == pytest.approx(-1.2 / 2.8)
    assert e.third == pytest.approx(1.25)
    still = Elongation((10.0, 1.0, 0.5), (0.0, 0.0, 0.0))
    assert math.isnan(still.fitted_k)
    assert math.isnan(still.third)
    assert (still.balance, still.total) == (0.0, 0.0)


def test_costs_of_the_best_unigram_and_bigram_by_hand() -> None:
    """Half 00, a quarter 01 and 10: symbol 0 has 3/4 of all places."""
    paths = theory.responses(2, 2)
    assert paths.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    weights = np.array([0.5, 0.25, 0.25, 0.0])
    one = theory.ngram_costs(paths, weights, 0)
    assert one == pytest.approx(
        [-2 * math.log(0.75), *[-math.log(0.75 * 0.25)] * 2, -2 * math.log(0.25)]
    )
    # A bigram sees all of a response of two symbols: minus the log of each weight.
    two = theory.ngram_costs(paths, weights, 1)
    assert two[:3] == pytest.approx([math.log(2), math.log(4), math.log(4)])
    assert math.isinf(two[3])
    for bad in (-1, 2):
        with pytest.raises(DataError, match="order"):
            theory.ngram_costs(paths, weights, bad)
    with pytest.raises(DataError, match="responses"):
        theory.responses(100, 10)


def test_opposed_kinds_by_hand() -> None:
    """k = 3, l = 1: D2's leaf falls from 2.5/4 to 2.5/5 of the joint weight."""
    half = np.array([0.5, 0.5])
    sets = Sets(half, np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    e = theory.predicted(sets, 3.0, 1.0, theory.responses(2, 1), 0)
    two, three = math.log(0.625 / 0.5), math.log(0.375 / 0.5)
    assert e.changes == pytest.approx(((two + three) / 2, two, three))
    assert e.volumes == (3.0, 1.0, 1.0)


def test_the_model_first_by_hand() -> None:
    """k = 1, l = 1, two leaves: the joint share of the first goes from 5/8 to 1/2."""
    sets = Sets(np.array([0.5, 0.5]), np.array([0.75, 0.25]), np.array([0.25, 0.75]))

    def kl(share: float, own: float) -> float:
        return share * math.log(share / own) + (1 - share) * math.log((1 - share) / (1 - own))

    expected = [kl(0.5, own) - kl(0.625, own) for own in (0.5, 0.75, 0.25)]
    assert theory.model_first(sets, 1.0, 1.0) == pytest.approx(expected)


def test_with_the_model_first_disjoint_sets_have_no_elongation_but_d1s() -> None:
    whole, second, third = theory.three_parts(np.array([1.0]), np.random.default_rng(0))
    one, two, three = theory.model_first(Sets(whole, second, third), 3.0, 1.0)
    # Weights 1/4, 1/2, 1/4 become 1/5, 2/5, 2/5; each KL is to thirds.
    before = 0.5 * math.log(0.25) + 0.5 * math.log(0.5)
    after = 0.2 * math.log(0.2) + 0.8 * math.log(0.4)
    assert one == pytest.approx(after - before)
    assert math.isnan(two)
    assert math.isnan(three)


def test_with_the_model_first_there_is_no_balance_even_at_small_l() -> None:
    """Nothing is stationary there: D2's product is far from minus D1's as l goes to 0."""
    sets = _sets(0, 27)
    one, two, _ = theory.model_first(sets, 10.0, 1e-6)
    assert abs(10.0 * one + two) > 0.1 * (abs(10.0 * one) + abs(two))


def _sets(seed: int, leaves: int) -> Sets:
    rng = np.random.default_rng(seed)
    one, two, three = rng.dirichlet(np.ones(leaves), size=3)
    return Sets(one, two, three)


def test_without_a_bound_the_prediction_is_the_theorems() -> None:
    sets, paths = _sets(0, 27), theory.responses(3, 3)
    e = theory.predicted(sets, 20.0, 0.3, paths, 2)
    before, after = theory.rates(sets, 20.0, 0.0), theory.rates(sets, 20.0, 0.3)
    expected = [(b - a) * math.log(2) for a, b in zip(before, after, strict=True)]
    assert e.changes[:2] == pytest.approx(expected)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_any_model_at_its_optimum_keeps_both_bounds_and_the_balance_at_small_l(order: int) -> None:
    paths = theory.responses(3, 3)
    for seed in range(5):
        sets = _sets(seed, 27)
        for k in (1.0, 30.0):
            one, two, three = theory.predicted(sets, k, 0.5, paths, order).products
            assert one + two >= 0
            assert one + two + three <= 0
        small = theory.predicted(sets, 10.0, 1e-5, paths, order)
        assert abs(small.balance) < 1e-2
        assert small.third < 1e-2  # n3 d3 is of second order in l


def test_a_geometric_mean_needs_values_above_zero() -> None:
    found = geometric([1.0, 100.0])
    assert found is not None
    assert found.mean == pytest.approx(10.0)
    assert geometric([1.0, -2.0]) is None
    assert geometric([1.0, math.nan]) is None
    assert geometric([]) is None


def test_a_stack_of_models_trains_each_as_if_alone() -> None:
    tree, shape = Tree(2, 3), Shape(8, 1, 2)
    leaves = np.array([_sets(0, 8).p1, _sets(1, 8).p1])
    both = LeafModels(tree, shape, [3, 3])
    assert np.exp(-both.exact_costs()).sum(axis=1) == pytest.approx([1.0, 1.0])
    fit_joint(both, leaves, 12, 5e-3)
    for i in range(2):
        alone = LeafModels(tree, shape, [3])
        fit_joint(alone, leaves[i : i + 1], 12, 5e-3)
        assert alone.exact_costs()[0] == pytest.approx(both.exact_costs()[i], abs=1e-4)
        both_again = LeafModels(tree, shape, [0])
        both_again.load([alone.copied()])
        assert (both_again.exact_costs() == alone.exact_costs()).all()


def test_training_comes_near_the_known_optimum_and_streams_tell_what_was_seen() -> None:
    own = _sets(0, 4).p1
    models = LeafModels(Tree(2, 2), Shape(16, 1, 2), [0])
    entropy = -float((own * np.log(own)).sum())
    before = theory.mean_cost(own, models.exact_costs()[0]) - entropy
    fit_joint(models, own[None], 150, 1e-2)
    after = theory.mean_cost(own, models.exact_costs()[0]) - entropy
    assert 0 <= after < 1e-3 < before
    seen: list[int] = []
    fit_stream(models, own, [4, 4, 2], 1e-3, np.random.default_rng(0), seen.append)
    assert seen == [4, 8, 10]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return springs_study(SMALL, tmp_path_factory.mktemp("springs")).folder


def read(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_the_study_has_both_arms_with_prediction_noise_and_bounds(study: Path) -> None:
    data = read(study)
    assert (data["schema_version"], data["kind"]) == (1, "theory")
    found = data["analysis"]["springs"]
    # 2 arms, 2 arrangements, 2 k, 2 l
    assert len(found["cells"]) == 16
    assert len(found["scaling"]) == 8
    assert len(found["controls"]) == 2 * 2 * 2 * 2
    assert len(found["noise"]) == 8
    assert found["gap"]["trainings"] == 2 * 3 * 2 * 3  # arrangements, seeds + 1, k, l and 0
    cell = found["cells"][0]
    assert cell["seeds"] == [0, 1]
    products = [n * c["mean"] for n, c in zip((1, 1, 0.5), cell["changes"], strict=True)]
    assert [p["mean"] for p in cell["products"]] == pytest.approx(products)
    assert found["bounds"]["cells"] == 2 * 3 * 2 * 2
    # Exact optima of the unbound model and the cells' predictions are one thing.
    control = next(c for c in found["controls"] if c["order"] == 1)
    assert control["changes"] == cell["predicted"]["changes"]
    marks = [m for m in data["measurements"] if m["tags"]["arm"] == "sequence"]
    assert len(marks) == 2 * 3 * 2 * 2 * 3
    assert len(data["verdict"]["parts"]) == 4
    # Neither arrangement is the theorem's; opposed kinds have no KL with the model first.
    assert {c["premises"] for c in found["cells"]} == {False}
    first = {row["arrangement"]: row for row in found["model_first"]}
    assert len(found["model_first"]) == 2 * 2 * 2
    assert [c is None for c in first["opposed kinds"]["changes"]] == [False, True, True]
    assert None not in first["independent"]["changes"]


def test_three_parts_are_within_the_premises_below_a_half(tmp_path: Path) -> None:
    settings = replace(SMALL, arrangements=("three parts",), doses=(0.25, 0.5), seeds=(0,))
    settings = replace(settings, steps=4, batch_size=16)
    found = springs_study(settings, tmp_path).data["analysis"]["springs"]
    assert {c["l"]: c["premises"] for c in found["cells"]} == {0.25: True, 0.5: False}
    # D1 has a third of its mass on D3's kind: the exact optimum is the theorem's.
    cell = next(c for c in found["cells"] if (c["k"], c["l"]) == (4, 0.25))
    joined = math.log((4 / 3 + 1) / 5), math.log((4 / 3 + 1) / 5.25)
    assert cell["predicted"]["changes"][1]["mean"] == pytest.approx(joined[0] - joined[1])
    page = build(tmp_path).read_text(encoding="utf-8")
    assert "Within the theorem" in page
    assert "infinite for D2 and D3" in page


def test_finished_trainings_are_read_and_more_seeds_add_only_theirs(study: Path) -> None:
    runs = {p: p.stat().st_mtime_ns for p in (study / "runs").glob("*/run.json")}
    before = read(study)["analysis"]
    assert springs_study(SMALL, study).data["analysis"] == before
    assert {p: p.stat().st_mtime_ns for p in (study / "runs").glob("*/run.json")} == runs
    springs_study(replace(SMALL, seeds=(0,)), study)
    assert len(list((study / "runs").glob("*/run.json"))) == len(runs)


def test_the_page_and_pictures_of_the_springs(study: Path) -> None:
    springs_study(SMALL, study)
    page = build(study).read_text(encoding="utf-8")
    assert "The three products" in page
    drawn = {path.stem for path in (study / "charts").glob("*.svg")}
    assert {"theory-springs-balance", "theory-springs-products-1", "theory-springs-exact"} <= drawn
    data = read(study)
    del data["analysis"]["springs"]["gap"]
    with pytest.raises(StoreError, match="form that springback theory writes"):
        render(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arrangements": ("sideways",)}, "--arrangements"),
        ({"k": ()}, "--k"),
        ({"k": (0.01,)}, "multiples of 0.5"),
        ({"doses": (0.3,)}, "multiples of 0.5"),
        ({"seeds": (1, 1)}, "--seeds"),
        ({"seeds": (-1, 1)}, "--seeds: given: .* allowed: 0 or more each"),
        ({"heads": 3}, "--heads"),
        ({"share": 1.0}, "--share"),
        ({"steps": 0}, "--steps"),
        ({"aligning": 65}, "--aligning"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpringbackError, match=said):
        springs_study(replace(SMALL, **change), tmp_path)


def test_the_command_writes_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--arrangements independent --symbols 2 --length 2 --hidden 8 --layers 1 --k 1 --l 1"
    more = "--seeds 0 --steps 2 --aligning 32 --pretraining-batch 32"
    command = ["theory", "springs", *flags.split(), *more.split(), "--out", str(tmp_path)]
    app(args=command, prog_name="springback", standalone_mode=False)
    assert read(tmp_path)["inputs"]["settings"]["k"] == [1]
    assert "report:" in capsys.readouterr().out
