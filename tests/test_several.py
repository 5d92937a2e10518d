"""Several audits side by side: series of models, finished folders, reproductions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from springback.errors import SpringbackError
from springback.jobs.audit.job import audit
from springback.jobs.audit.plan import outline
from springback.jobs.audit.series import NamedStudy, by_model, series, slug
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.papers.claims import SCALES
from springback.jobs.papers.pretrain import corpus
from springback.jobs.papers.reproduce import plan, reproduce, settings_of
from springback.jobs.papers.reproductions import REPRODUCTIONS
from springback.jobs.papers.settings import REPRODUCTIONS as NAMES
from springback.models.from_scratch import Shape, fresh_model, save_model
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.report import build
from springback.results.cards import read_cards


@pytest.fixture
def settings() -> AuditSettings:
    return AuditSettings(
        n_pos=(4, 8),
        controls=(),
        doses=(4, 8),
        seeds=(0, 1),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        resistance_rows=4,
        probes=("margin", "kl"),
        precision="float32",
    )


def test_a_series_measures_every_model_and_compares_them(
    settings: AuditSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tokenizer = load_tokenizer(resolve(tiny_llama))
    save_model(fresh_model(tokenizer, Shape(16, 1, 2), seed=1), tokenizer, other)
    both = replace(settings, series=(str(tiny_llama), str(other)))
    analysis = series(both, tmp_path / "out").data["analysis"]
    names = [entry["name"] for entry in analysis["models"]]
    assert names == [str(tiny_llama), str(other)]
    for entry in analysis["models"]:
        alone = json.loads((tmp_path / "out" / entry["folder"] / "result.json").read_text())
        assert alone["analysis"]["card"] == entry["card"]
    gains = [d for d in analysis["comparison"]["differences"] if d["quantity"] == "gain"]
    assert [(d["a"], d["b"]) for d in gains] == [tuple(names)]
    values = [entry["card"]["quantities"]["gain"]["value"] for entry in analysis["models"]]
    assert gains[0]["value"] == pytest.approx(values[0] - values[1])
    folders = [tmp_path / "out" / entry["folder"] for entry in analysis["models"]]
    assert "Elasticity compared" in read_cards(folders).to_markdown()


def test_an_entry_of_a_series_may_carry_a_revision() -> None:
    studies = by_model(AuditSettings(series=("org/name@step-5", "org/name")))
    assert [(s.settings.model, s.settings.revision) for s in studies] == [
        ("org/name", "step-5"),
        ("org/name", None),
    ]
    assert slug("org/name@step-5") == "org-name-step-5"
    assert slug("../../x") == "x"


def test_wrong_series_and_folders_are_refused(settings: AuditSettings, tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match="two or more"):
        by_model(AuditSettings(series=("one",)))
    with pytest.raises(SpringbackError, match="two audits or more"):
        read_cards([tmp_path])
    with pytest.raises(SpringbackError, match=r"no result\.json"):
        read_cards([tmp_path, tmp_path / "b"])
    with pytest.raises(SpringbackError, match="measures one model"):
        audit(replace(settings, series=("a", "b")), tmp_path / "out")


def test_every_reproduction_has_studies_at_both_scales() -> None:
    assert tuple(REPRODUCTIONS) == NAMES
    for name, what in REPRODUCTIONS.items():
        for scale in SCALES:
            begin = settings_of(name, scale, {})
            studies = (what.small if scale == "small" else what.paper)(begin)
            assert studies or what.volumes
            assert len({slug(s.name) for s in studies}) == len(studies)
    assert settings_of("elasticity-dose", "small", {"seeds": "5"}).seeds == (5,)
    with pytest.raises(SpringbackError, match="allowed: elasticity-resistance"):
        settings_of("elasticity-magic", "small", {})
    with pytest.raises(SpringbackError, match="allowed: small, paper"):
        settings_of("elasticity-dose", "huge", {})


def test_a_reproduction_takes_the_users_data_and_models() -> None:
    def of(name: str, scale: str = "small", **given: str) -> list[NamedStudy]:
        return REPRODUCTIONS[name].studies(scale, settings_of(name, scale, given), given)

    mine = {"align": "safe.jsonl+more.jsonl", "perturb": "unsafe.jsonl", "n_pos": "256,512"}
    first, turned = (study.settings for study in of("elasticity-symmetry", **mine))
    assert (first.align, first.perturb) == (mine["align"], mine["perturb"])
    assert (turned.align, turned.perturb) == (mine["perturb"], mine["align"])
    assert first.n_pos == turned.n_pos == (256, 512)
    for name in NAMES:
        for study in of(name, "paper", **mine):
            assert {study.settings.align, study.settings.perturb} == {
                mine["align"],
                mine["perturb"],
            }
    # On its own data the paper's rebound is on two sets, and the dose on the one of its table.
    names = [study.name for study in of("elasticity-rebound", "paper")]
    assert [name.rpartition(", ")[2] for name in names] == ["IMDb", "IMDb", *["BeaverTails"] * 2]
    (dose, _) = of("elasticity-dose", "paper")
    assert dose.settings.align == "PKU-Alignment/BeaverTails#330k_train?is_safe=true"
    models = [s.settings.model for s in of("elasticity-size", series="a,b")]
    assert models == [s.settings.model for s in of("elasticity-pretraining", series="a,b")]
    assert models == ["a", "b"]
    (alone,) = of("elasticity-rebound", model="mine")
    assert alone.settings.model == "mine"
    for name in ("elasticity-size", "elasticity-pretraining"):
        with pytest.raises(SpringbackError, match="allowed: --series A,B"):
            of(name, model="mine")


def test_a_reproduction_puts_published_beside_measured(
    settings: AuditSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny_llama),
        "batch_size": 4,
        "max_tokens": 24,
        "holdout": 4,
        "prompts": 4,
        "resistance_rows": 4,
        "precision": "float32",
        "seeds": (0, 1),
    }
    result = reproduce("elasticity-resistance", "small", tmp_path / "out", given)
    analysis = result.data["analysis"]
    assert result.data["kind"] == "reproduce"
    assert analysis["published"]["rows"][0][0] == "Llama2-7B"
    ((study, seeds, ratio, *pairs),) = analysis["measured"]["rows"]
    assert (study, seeds) == (str(tiny_llama), "2")
    card = analysis["studies"][0]["card"]
    assert f"{card['quantities']['resistance_ratio']['value']:.3g}" in ratio
    losses = json.loads(next(tmp_path.glob("out/studies/*/result.json")).read_text())
    for cell, pair in zip(pairs, losses["analysis"]["resistance"]["pairs"], strict=True):
        both = f"{pair['inverse']['mean']:.3f} against {pair['forward']['mean']:.3f}; "
        assert cell.startswith(both)  # as the paper's table has them
        assert cell.endswith(pair["label"])
    page = (tmp_path / "out" / "reproduce.md").read_text()
    assert "0.159 against 0.202" in page
    assert ratio in page


def test_the_dose_is_told_by_amount_of_alignment_as_in_the_papers_table(
    tiny_llama: Path, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny_llama),
        "n_pos": (4, 8),
        "doses": (4, 8),
        "seeds": (0, 1),
        "batch_size": 4,
        "max_tokens": 24,
        "holdout": 4,
        "prompts": 4,
        "prompt_tokens": 4,
        "sample_tokens": 4,
        "resistance_rows": 0,
        "precision": "float32",
        "learning_rate": 1e-3,
    }
    result = reproduce("elasticity-dose", "small", tmp_path, given)
    measured = result.data["analysis"]["measured"]
    assert measured["columns"] == ["study", "aligned on 4", "aligned on 8"]
    alone = json.loads(next(tmp_path.glob("studies/*/result.json")).read_text())["analysis"]
    name = result.data["analysis"]["studies"][0]["name"]
    rows = {row[0].removeprefix(f"{name}: "): row[1:] for row in measured["rows"]}
    assert list(rows) == [
        "KL after alignment, nats/token",
        "reverse KL after alignment, nats/token",
        "until half of the gain in margin",
        "until all of the gain in margin",
        "until KL to the start model at most 0.01 nats a token",
        "until KL to the start model at most 0.01 nats a token, on the model's own texts",
    ]
    aligned = alone["rebound"]["probes"]["kl"]["aligned"]
    for cell, at in zip(rows["KL after alignment, nats/token"], aligned, strict=True):
        assert cell.startswith(f"{at['mean']:.3g} (")
    doses = alone["doses_to_undo"]["kl"]["at"]
    until = rows["until KL to the start model at most 0.01 nats a token"]
    assert all(cell.startswith(at["words"]) for cell, at in zip(until, doses, strict=True))
    page = (tmp_path / "reproduce.md").read_text()
    assert "| Llama2-7B: unsafe examples needed | 961 | 844 | 801 | 729 |" in page
    assert f"| {measured['rows'][0][0]} | {measured['rows'][0][1]} |" in page
    build(result.folder)


def test_an_outline_counts_runs_and_the_most_tokens_without_a_model() -> None:
    """Two seeds, two branch points and one attacker: 2 aligning and 6 perturbing runs.

    A pair of rows of 32 tokens and the reference's pass over both: 64 + 2 * 32 / 3 = 85 1/3 tokens;
    16 of them 1,365, rounded.  Resistance: 3 slices of 8 rows, 6 runs a seed on 8 answers of 36.
    Whole answers: 12 runs a seed on 8 of 12 + 20.
    """
    settings = AuditSettings(
        model="nowhere/at-all",
        n_pos=(8, 16),
        controls=(),
        doses=(8, 24),
        seeds=(0, 1),
        algorithm="dpo",
        attack_learning_rates=(3e-5,),
        experiments=("rebound", "resistance", "symmetry"),
        resistance_rows=8,
        resistance_data="responses",
        max_tokens=32,
    )
    told = outline(settings)
    for line in (
        "  2 x align: at most 2,731 tokens",
        "  6 x perturb: at most 4,608 tokens",
        "  6 x slice: at most 1,536 tokens",
        " 12 x toward: at most 3,456 tokens",
        "  2 x align, opposite order: at most 2,731 tokens",
        "  4 x perturb, opposite order: at most 3,072 tokens",
    ):
        assert f"  {line}" in told.splitlines()
    assert "in all at most 18,133 tokens" in told
    whole = replace(settings, resistance_data="answers", resistance_tokens=20)
    assert "   24 x toward: at most 6,144 tokens" in outline(whole).splitlines()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_reproduction_has_a_plan_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scale: str
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path / "cache"))
    what, begin = REPRODUCTIONS[name], settings_of(name, scale, {})
    told = plan(name, scale, tmp_path / "out")
    assert told.startswith(what.question)
    for study in what.studies(scale, begin, {}):
        assert f"model:    {study.settings.model}" in told
        assert study.settings.align in told
    assert told.count("in all at most") == max(1, len(what.studies(scale, begin, {})))
    assert not list(tmp_path.iterdir())


def test_a_reproductions_plan_is_that_of_its_audits_where_the_model_is_here(
    settings: AuditSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny_llama),
        "batch_size": 4,
        "max_tokens": 24,
        "n_pos": (4,),
        "doses": (4,),
    }
    told = plan("elasticity-symmetry", "small", tmp_path, given)
    assert told.count("what is left: about") == 2
    assert "tokens trained" in told
    assert not list(tmp_path.iterdir())


def test_all_five_algorithms_land_in_one_chart_with_a_gain_or_a_word_for_none(
    tiny_llama: Path, tmp_path: Path
) -> None:
    given = {
        "model": str(tiny_llama),
        "n_pos": (4,),
        "doses": (4,),
        "seeds": (0, 1),
        "batch_size": 4,
        "max_tokens": 32,
        "prompt_tokens": 4,
        "answer_tokens": 4,
        "holdout": 4,
        "prompts": 4,
        "probes": ("margin",),
        "precision": "float32",
        "learning_rate": 1e-3,
    }
    result = reproduce("elasticity-algorithms", "small", tmp_path, given)
    others = ("dpo", "kto", "simpo", "rloo")
    names = ["sft", *others, *(f"sft, reversed by {name}" for name in others)]
    studies = result.data["analysis"]["studies"]
    assert [s["name"] for s in studies] == names
    recipes = {
        name: {
            (phase, run["inputs"]["recipe"]["algorithm"])
            for phase in ("align", "perturb")
            for file in (tmp_path / study["folder"]).glob(f"runs/{phase}-*/run.json")
            if (run := json.loads(file.read_text()))
        }
        for name, study in zip(names, studies, strict=True)
    }
    assert recipes == {
        **{name: {("align", name), ("perturb", "sft")} for name in ("sft", *others)},
        **{f"sft, reversed by {name}": {("align", "sft"), ("perturb", name)} for name in others},
    }
    build(result.folder)
    for entry in studies:
        gain = entry["card"]["quantities"]["gain"]
        assert gain["label"] in ("aligned", "hardly aligned", "did not align")
        if gain["label"] == "aligned":
            assert gain["low"] is not None
            assert gain["low"] > 0
    page = (tmp_path / "report.html").read_text()
    chart = page[page.index('id="models-gain"') :]
    chart = chart[: chart.index("</figure>")]
    assert all(f'<th scope="row">{name}</th>' in chart for name in names)


def test_a_smaller_corpus_begins_a_larger_one_and_a_fresh_model_is_its_seed(
    tiny_llama: Path, tmp_path: Path
) -> None:
    assert corpus(30).rows == corpus(60).rows[:30]
    tokenizer = load_tokenizer(resolve(tiny_llama))
    shape = Shape(16, 1, 2)
    first, again, third = (fresh_model(tokenizer, shape, seed) for seed in (1, 1, 2))
    same = dict(again.named_parameters())
    assert all(torch.equal(p, same[n]) for n, p in first.named_parameters())
    other = dict(third.named_parameters())
    assert any(not torch.equal(p, other[n]) for n, p in first.named_parameters())
    save_model(first, tokenizer, tmp_path / "m")
    loaded = dict(load_model(resolve(tmp_path / "m")).named_parameters())
    assert all(torch.equal(p, loaded[n]) for n, p in first.named_parameters())
