"""The search of a boost on a tiny pair: stages, joint, narrowing, one standard error, rivals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Run
from springback.errors import ModelError, SpringbackError
from springback.jobs.boost.checks import check_settings, load_data, weak_label
from springback.jobs.boost.job import Arm, Boost, boost
from springback.jobs.boost.search import Tried, candidates, choose, choose_first, lowest
from springback.jobs.boost.settings import BoostSettings
from springback.models.loading import fit_vocabulary, load_model, load_tokenizer, resolve
from springback.progress import Silent
from springback.report import build
from springback.results.store import Store

Settings = Callable[..., BoostSettings]


def moved(source: Path, out: Path, seed: int, vocabulary: int | None = None) -> Path:
    """A copy of a model with its weights moved a little, as a step of training would."""
    checkpoint = resolve(source)
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * p.std() * torch.randn(p.shape, generator=generator))
    if vocabulary:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def models(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    early = moved(tiny_llama, root / "early", 1)
    body = "def even(prompts, texts, answers):\n    return [len(t) % 2 == 0 for t in texts]\n"
    (root / "metric.py").write_text(body, "utf-8")
    return {
        "metric": f"python:{root / 'metric.py'}:even",
        "init": str(tiny_llama),
        "early": str(early),
        "ft": str(moved(early, root / "ft", 2)),
        "other": str(moved(tiny_llama, root / "wide", 3, vocabulary=320)),
    }


@pytest.fixture
def made(models: dict[str, str]) -> Settings:
    def make(**changes: Any) -> BoostSettings:
        base = BoostSettings(
            early=models["early"],
            ft=models["ft"],
            validation="problems",
            test="problems",
            validation_rows=4,
            test_rows=4,
            # Random models give no right numbers: any answer with an even number of letters is.
            metric=models["metric"],
            mu=(0.5, 1.0),
            lam=(0.5, 1.0),
            lam_cd=(0.5,),
            max_new_tokens=8,
            batch_size=4,
            precheck=False,
        )
        return replace(base, **changes)

    return make


def job_of(settings: BoostSettings, models: dict[str, str], store: Store) -> Boost:
    pair = (resolve(models["early"]), resolve(models["ft"]))
    weak = {name: resolve(models[name]) for name in ("init", "other")}
    return Boost(check_settings(settings), pair, store, Silent(), weak)


def tried(*correct: str, nll: float = 1.0) -> list[Tried]:
    """Candidates 0, 1, 2, … with answers written as 1 and 0."""
    rows = [tuple(c == "1" for c in answers) for answers in correct]
    return [Tried(float(i), row, (nll,) * len(row)) for i, row in enumerate(rows)]


def test_one_standard_error_takes_the_smallest_value_that_keeps_up() -> None:
    """Best: 3/4.  Value 0 has 2/4 and differs in one answer of four: differences 1, 0, 0, 0, mean
    0.25, standard deviation 0.5, error 0.5/2 = 0.25: within it.  Without the rule the best wins.
    """
    points = tried("1100", "1110")
    assert choose(points).value == 1
    assert choose(points, one_se=True).value == 0
    # Three answers behind of four: mean 0.75, deviation 0.5, error 0.25: not within it.
    assert choose(tried("1000", "1111"), one_se=True).value == 1
    # The order of the list does not count, the value does.
    assert choose(list(reversed(points)), one_se=True).value == 0
    assert choose_first([[True, False], [False, True]]) == 0, "ties go to the first"


def test_the_lowest_nll_are_kept_in_their_order() -> None:
    """Means 3, 1, 2, 1: the two lowest are the second and the fourth; of one, the second."""
    nll = [[3.0], [1.0], [2.0], [1.0]]
    assert lowest(nll, 2) == [1, 3]
    assert lowest(nll, 1) == [1]


def test_positive_candidates_leave_zero_out() -> None:
    assert candidates((0.0, 0.4, 0.1), "mu", positive=True) == (0.1, 0.4)
    with pytest.raises(SpringbackError, match="no candidate above 0"):
        candidates((0.0,), "mu", positive=True)


def test_a_run_at_default_settings_keeps_its_id(
    made: Settings, models: dict[str, str], tmp_path: Path
) -> None:
    """Finished runs of earlier versions are found again: these were all inputs they had."""
    settings = made(metric="number")
    job = job_of(settings, models, Store(tmp_path / "out"))
    questions = load_data(settings).validation
    expected = Run.of(
        "score",
        early=job.early.content_hash,
        ft=job.ft.content_hash,
        questions=questions.content_hash,
        part="validation",
        metric="number",
        alpha=0.1,
        decode=[8, 4],
        system=None,
        max_tokens=512,
        mu=0.5,
        lam=1.0,
        weak="ft",
    )
    arm = Arm("EpiCoDe", 0.5, 1.0, "ft")
    assert job.run("score", arm, job.format.render(questions), "validation").id == expected.id


def scores(found: Sequence[Tried]) -> list[tuple[float, tuple[float, ...]]]:
    return [(t.value, t.correct) for t in found]


def test_candidates_scored_together_are_those_scored_alone(
    made: Settings, models: dict[str, str], tmp_path: Path
) -> None:
    """Answers, grades and NLL; every weak model; with and without a gate."""
    settings = made(weak=models["other"])
    together = job_of(settings, models, Store(tmp_path / "a"))
    alone = job_of(settings, models, Store(tmp_path / "b"))
    questions = load_data(settings).validation
    arms = [Arm("x", 0.5, lam, weak) for weak in ("ft", "init", "other") for lam in (0, 1.0, 4.0)]
    arms += [Arm("x", 0.5, lam, "ft", "top:0.5") for lam in (1.0, 4.0)]
    both = together.score_all(arms, questions, "validation")
    for arm, one in zip(arms, both, strict=True):
        expected = alone.score(arm, questions, "validation")
        assert scores([one]) == scores([expected])
        assert one.nll == pytest.approx(expected.nll, rel=1e-5)
        run = alone.run("score", arm, questions, "validation")
        texts = [job.store.results(run) for job in (together, alone)]
        assert texts[0] is not None
        assert texts[1] is not None
        assert texts[0]["completions"] == texts[1]["completions"]
    ids = {alone.run("score", arm, questions, "validation").id for arm in arms}
    assert len(ids) == len(arms) - 2, "lambda 0 is one run, whoever the weak model is"


def test_solutions_are_read_once_by_each_model(
    made: Settings, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NLL of every lambda comes from what the search for mu read, and is the same; other
    questions are read anew."""
    settings = made(validation_rows=6)
    job = job_of(settings, models, Store(tmp_path / "a"))
    plain = job_of(settings, models, Store(tmp_path / "b"))
    monkeypatch.setattr(plain.engine, "_states_pair", lambda key, kept: (None, None))
    data = load_data(settings)
    mus = [Arm("ME only", mu, 0, None) for mu in (0.0, 0.5, 1.0)]
    lams = [Arm("EpiCoDe", 1.0, lam, "ft") for lam in (0.5, 1.0)]
    runs: list[str] = []
    both: dict[str, Any] = {"expert": job.sweep.at(0.0), "ft": job.sweep.weak("ft")}
    for name, model in both.items():
        layers: Any = model.get_decoder()
        layers.register_forward_hook(lambda *_, name=name: runs.append(name))

    def same(arms: list[Arm], part: str) -> bool:
        """Up to rounding: what the questions begin with is read apart."""
        both = (j.nll_all(arms, getattr(data, part), part) for j in (job, plain))
        return all(a == pytest.approx(b, rel=1e-5) for a, b in zip(*both, strict=True))

    assert same(mus, "validation")
    assert set(runs) == {"expert"}
    runs.clear()
    assert same(lams, "validation")
    assert runs == []
    assert same(lams, "test")
    assert set(runs) == {"expert", "ft"}


def test_every_method_asked_for_is_in_the_table(
    made: Settings, models: dict[str, str], tmp_path: Path
) -> None:
    settings = made(
        model=models["init"],
        weak=models["other"],
        ablate_weak=("init", "early", "ft"),
        gate="top:0.9",
    )
    data = boost(settings, tmp_path / "out").data
    assert [row["method"] for row in data["analysis"]["methods"]] == [
        "fine-tuned",
        "ME only",
        "CD only",
        "EpiCoDe",
        "EpiCoDe, weak early",
        "EpiCoDe, weak init",
        "EpiCoDe, weak wide",
        "EpiCoDe, gated",
    ]
    search = data["analysis"]["search"]
    for name in ("mu", "lambda", "lambda_early", "lambda_init", "lambda_other", "lambda_gated"):
        assert [p["value"] for p in search[name]] == [0.0, 0.5, 1.0]
        assert sum(p["chosen"] for p in search[name]) == 1
    assert data["inputs"]["init"]["path"] == models["init"]
    assert data["inputs"]["weak"]["path"] == models["other"]


def test_a_joint_search_tries_every_pair(
    made: Settings, models: dict[str, str], tmp_path: Path
) -> None:
    settings = made(search="joint", write_model=False)
    analysis = boost(settings, tmp_path / "out").data["analysis"]
    grid = {(p["mu"], p["lambda"]): p for p in analysis["joint"]}
    assert set(grid) == {(mu, lam) for mu in (0, 0.5, 1) for lam in (0, 0.5, 1)}
    best = max(grid, key=lambda p: (grid[p]["accuracy"]["mean"], -p[0], -p[1]))
    assert [p for p in grid if grid[p]["chosen"]] == [best]
    row = next(r for r in analysis["methods"] if r["method"] == "EpiCoDe")
    assert (row["mu"], row["lambda"]) == best
    # The pairs are those that arms scored one by one give.
    job = job_of(made(), models, Store(tmp_path / "alone"))
    questions = load_data(made()).validation
    for (mu, lam), point in grid.items():
        alone = job.score(Arm("x", mu, lam, "ft"), questions, "validation")
        assert point["accuracy"]["mean"] == pytest.approx(alone.accuracy)


def test_narrowing_decodes_the_lowest_nll_and_zero(
    made: Settings, models: dict[str, str], tmp_path: Path
) -> None:
    """Of four candidates with --narrow 1: the one of the lowest NLL, and 0.  Its NLL is the one
    that scoring the candidate gives."""
    settings = made(narrow=1, mu=(0.25, 0.5, 1.0), write_model=False)
    analysis = boost(settings, tmp_path / "out").data["analysis"]
    points = analysis["narrowed"]["mu"]
    assert [p["value"] for p in points] == [0.0, 0.25, 0.5, 1.0]
    best = min(points, key=lambda p: p["nll"])["value"]
    assert [p["value"] for p in points if p["kept"]] == sorted({0.0, best})
    assert [p["value"] for p in analysis["search"]["mu"]] == sorted({0.0, best})
    job = job_of(settings, models, Store(tmp_path / "alone"))
    questions = load_data(settings).validation
    for point in points:
        nll = job.score(Arm("x", point["value"], 0, None), questions, "validation").nll
        assert point["nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-6)


def test_the_precheck_comes_first_and_is_in_the_result(made: Settings, tmp_path: Path) -> None:
    told: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            told.append(text)

        def stage(self, title: str, total: int) -> None:
            told.append(title)

    settings = made(precheck=True, write_model=False)
    data = boost(settings, tmp_path / "out", Listening()).data
    check = data["analysis"]["precheck"]
    assert data["verdict"]["parts"][-1]["label"] == check["label"]
    note = next(t for t in told if t.startswith(f"pre-check: {check['label']}"))
    assert check["label"] in note
    assert told.index(note) < next(i for i, t in enumerate(told) if t.startswith("validation"))
    said = "\n".join(told)
    norm = check["line"]["norms"][0]
    assert f"pre-check: update 1: norm {norm:.4g}, " in said
    assert f"share of the direction in rank 1: {100 * check['line']['rank1']:.1f} %" in said
    first = check["nll"][0]
    assert f"NLL along mu, nats a token: {first['nll']:.4f} at -0.5, " in said
    assert len(check["line"]["norms"]) == 1
    by_mu = {p["mu"]: p for p in check["nll"]}
    assert by_mu[0.0]["difference"] == 0
    assert by_mu[2.0]["difference"] == pytest.approx(by_mu[2.0]["nll"] - by_mu[0.0]["nll"])
    again = boost(settings, tmp_path / "out", Listening()).data["analysis"]["precheck"]
    assert again == check
    assert told.count("NLL along mu") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search": "random"}, "--search"),
        ({"narrow": -1}, "--narrow"),
        ({"ablate_weak": ("late",)}, "--ablate-weak"),
        ({"ablate_weak": ("init",)}, "name it with --model"),
        ({"ablate_weak": ("other",)}, "name it with --weak"),
        ({"gate": "always"}, "--gate"),
        ({"lam": (0.0,), "positive": True}, "--lambda has no candidate"),
        ({"difficulty": (120.0, 60.0)}, "--difficulty: given: 120,60; allowed: rising"),
        ({"tolerance": float("nan")}, "--tolerance is nan"),
        ({"max_tokens": 0}, "--max-tokens is 0"),
        ({"validation_rows": 0}, "--validation-rows is 0"),
        ({"train_batch_size": 0}, "--train-batch-size is 0"),
        ({"precision": "int3"}, "precision 'int3'; allowed: bf16-mixed, float32"),
        ({"seed": -1}, "seed -1; allowed: 0 to"),
        ({"reference": "nowhere"}, "no model at 'nowhere'"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    made: Settings, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        boost(made(**change), tmp_path / "out")
    assert not (tmp_path / "out").exists(), "refused before anything is trained or decoded"


def test_a_second_look_at_the_test_is_refused_and_a_resumed_one_is_not(
    made: Settings, tmp_path: Path
) -> None:
    """Nothing is answered before the refusal; with --reopen-test the result says how often."""
    settings = made(mu=(0.5,), lam=(0.5,), write_model=False)
    first = boost(settings, tmp_path / "a").data
    assert first["analysis"]["test_openings"]["count"] == 1
    assert "opened once" in first["verdict"]["text"]
    again = boost(settings, tmp_path / "a").data
    assert again["analysis"] == first["analysis"]
    other = replace(settings, alpha=0.3)
    with pytest.raises(SpringbackError, match="--reopen-test"):
        boost(other, tmp_path / "b")
    assert not (tmp_path / "b").exists(), "refused before the search"
    seen = boost(replace(other, reopen_test=True), tmp_path / "b").data
    assert seen["analysis"]["test_openings"] == {
        "test": first["analysis"]["test_openings"]["test"],
        "count": 2,
        "number": 2,
        "reopened": True,
    }
    assert "opened 2 times" in seen["verdict"]["text"]
    assert "opened 2 times" in build(tmp_path / "b").read_text("utf-8")


def test_show_prompt_tells_how_a_question_is_asked_and_read(
    made: Settings,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from springback.cli import main

    words = ["--early", models["early"], "--ft", models["ft"], "--validation", "problems"]
    words += ["--test", "problems", "--prompt-template", "Q: {question}", "--extract", "x(.)"]
    monkeypatch.setattr(sys, "argv", ["springback", "boost", *words, "--show-prompt"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    shown = capsys.readouterr().out
    question = load_data(made()).validation.rows[0]
    assert f"<|im_start|>user\nQ: {question.prompt}<|im_end|>" in shown
    assert f"answer:          {question.answer}" in shown
    assert "extract:         x(.)" in shown
    monkeypatch.setattr(sys, "argv", ["springback", "boost", *words[:4]])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "no --validation and no --test" in capsys.readouterr().err


def test_a_padded_vocabulary_is_fitted_and_no_token_is_lost(models: dict[str, str]) -> None:
    wide, plain = load_model(resolve(models["other"])), load_model(resolve(models["init"]))
    ids = torch.tensor([[5, 6, 7]])
    before = wide(ids).logits
    assert torch.equal(fit_vocabulary(wide, 300, 268, "wide")(ids).logits, before[..., :300])
    narrow = plain(ids).logits
    padded = fit_vocabulary(plain, 310, 268, "plain")(ids).logits
    assert torch.equal(padded[..., :300], narrow)
    assert not padded[..., 300:].any()
    with pytest.raises(ModelError, match="a logit for every token"):
        fit_vocabulary(plain, 200, 268, "plain")


@pytest.mark.parametrize("name", ["early", "init", "other", "ft"])
def test_a_weak_model_named_like_another_method_has_a_row_of_its_own(name: str) -> None:
    assert weak_label(f"path/to/{name}") == f"{name} (--weak)"
    assert weak_label(f"path/to/{name}-model") == f"{name}-model"
