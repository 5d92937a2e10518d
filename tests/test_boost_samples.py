"""A boost on several sampled answers a question: coupled noise, expected accuracy, its power."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from boost_pair import save_pair
from springback.decoding import DecodeSettings, decode
from springback.errors import SpringbackError
from springback.jobs.boost.analysis.power import power_table, sampled_score
from springback.jobs.boost.analysis.seeds import Answers, SeedResult, across, over_questions
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Boost, boost
from springback.jobs.boost.search import Letters, Tried, choose_first
from springback.jobs.boost.settings import BoostSettings
from springback.models.loading import load_model, resolve
from springback.progress import Silent
from springback.report import build
from springback.results.schema import read
from springback.results.store import Store, read_json
from springback.stats import paired_t


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    body = "def even(prompts, texts, answers):\n    return [len(t) % 2 == 0 for t in texts]\n"
    (root / "metric.py").write_text(body, "utf-8")
    return save_pair(tiny_llama, root, torch.float32)


@pytest.fixture
def settings(pair: tuple[Path, Path]) -> BoostSettings:
    early, ft = map(str, pair)
    return BoostSettings(
        early=early,
        ft=ft,
        validation="problems",
        test="problems",
        validation_rows=3,
        test_rows=6,
        # Random models give no right numbers: any answer with an even number of letters is.
        metric=f"python:{pair[0].parent / 'metric.py'}:even",
        mu=(0.5,),
        lam=(1.0,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=4,
        batch_size=4,
        precheck=False,
        samples=3,
    )


def job_of(settings: BoostSettings, out: Path) -> Boost:
    line = (resolve(settings.early or ""), resolve(settings.ft or ""))
    return Boost(check_settings(settings), line, Store(out), Silent())


def test_samples_at_temperature_1_unless_it_says_otherwise(settings: BoostSettings) -> None:
    assert check_settings(settings).temperature == 1.0
    assert check_settings(replace(settings, temperature=0.7)).temperature == 0.7
    assert check_settings(replace(settings, samples=1)).temperature is None
    assert check_settings(replace(settings, samples=1, temperature=0.0)).temperature is None
    for change in ({"temperature": 0.0}, {"temperature": -1.0}, {"samples": 0}):
        with pytest.raises(SpringbackError, match=r"--temperature is|--samples is"):
            check_settings(replace(settings, **change))


def test_ids_say_samples_only_where_they_are_asked_for(
    settings: BoostSettings, tmp_path: Path
) -> None:
    arm = Arm("ME only", 0.5, 0.0, None)
    test, ids = load_data(check_settings(settings)).test, set()
    changes: list[dict[str, Any]] = [{}, {"samples": 4}, {"temperature": 0.5}, {"seed": 1}]
    for change in changes:
        job = job_of(replace(settings, **change), tmp_path)
        ids.add(job.run("score", arm, test, "test", job.sampled).id)
        greedy = job_of(replace(settings, samples=1), tmp_path)
        assert greedy.sampled is None
        plain = job.run("score", arm, test, "test").id
        assert plain == greedy.run("score", arm, test, "test", greedy.sampled).id
    assert len({*ids, plain}) == 5


def test_every_arm_draws_with_the_same_noise(
    settings: BoostSettings, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Sample k of question i is what the plain loop draws, alone, with noise k n + i: whatever the
    batch, and whatever the arm."""
    job = job_of(settings, tmp_path)
    test = load_data(job.settings).test
    arms = [Arm("ME only", 0.0, 0.0, None), Arm("CD only", 0.0, 0.5, "early")]
    models = [load_model(resolve(str(folder))) for folder in pair]
    prompts, how = job._prompts(test), job._how(test)
    for arm in arms:
        tried = job.score(arm, test, "test")
        run = job.run("score", arm, test, "test", job.sampled)
        texts = (job.store.results(run) or {})["completions"]
        assert len(texts) == 18
        for sample, question in ((0, 0), (1, 4), (2, 5)):
            number = sample * len(test) + question
            alone: DecodeSettings = replace(
                how, lam=arm.lam, temperature=1.0, keyed_noise=True, batch_size=1
            )
            [ids] = decode(models[1], [prompts[question]], alone, models[0], numbers=[number])
            assert job.tokenizer.decode(ids, skip_special_tokens=True) == texts[number]
            assert tried.sampled[question][sample] == (len(texts[number]) % 2 == 0)
        assert tried.correct == tuple(sum(answers) / 3 for answers in tried.sampled)
        assert len(set(texts)) > 6, "samples differ"


def test_a_boost_on_samples(settings: BoostSettings, tmp_path: Path) -> None:
    """Its table from the stored answers, by hand."""
    boost(settings, tmp_path / "out")
    record = read_json(tmp_path / "out" / "result.json")
    read(record)
    stored = [read_json(f) for f in (tmp_path / "out" / "runs").glob("score-*/run.json")]
    test = [r for r in stored if r["inputs"]["part"] == "test"]
    assert all(r["inputs"]["sampled"] == {"samples": 3, "seed": 0, "temperature": 1.0}
               for r in stored if "sampled" in r["inputs"])  # fmt: skip
    assert sum("sampled" not in r["inputs"] for r in test) == 2, "greedy answers of the two"

    def scores(mu: float, lam: float) -> list[float]:
        [run] = [
            r
            for r in test
            if (r["inputs"]["mu"], r["inputs"]["lam"]) == (mu, lam) and "sampled" in r["inputs"]
        ]
        correct: list[float] = run["results"]["correct"]
        return correct

    analysis: dict[str, Any] = record["analysis"]
    rows = {row["method"]: row for row in analysis["methods"]}
    old, new = scores(0.0, 0.0), scores(0.5, 1.0)
    row = rows["EpiCoDe"]
    assert rows["fine-tuned"]["accuracy"]["mean"] == pytest.approx(fmean(old))
    assert row["difference"]["mean"] == pytest.approx(fmean(new) - fmean(old))
    assert row["p"] == paired_t(new, old)
    assert (row["won"], row["lost"]) == (
        sum(a > b for a, b in zip(new, old, strict=True)),
        sum(a < b for a, b in zip(new, old, strict=True)),
    )
    assert [p["k"] for p in row["sampled"]["pass_at"]] == [2, 3]
    assert row["sampled"]["samples"] == 3
    table = {entry["score"]: entry for entry in analysis["power"]["table"]}
    gaps = [a - b for a, b in zip(new, old, strict=True)]
    assert table["3 samples"]["deviation"] == pytest.approx(stdev(gaps))
    assert table["3 samples"]["needed"] == [
        math.ceil(7.848879734 * (stdev(gaps) / gain) ** 2) for gain in (0.01, 0.02, 0.05)
    ]
    page = build(tmp_path / "out").read_text("utf-8")
    assert "pass@3" in page
    assert "Questions that show a gain" in page


def tried(*answers: str) -> Tried:
    """Samples of each question as 1 and 0."""
    sampled = tuple(tuple(c == "1" for c in given) for given in answers)
    return Tried(0.0, tuple(sum(s) / len(s) for s in sampled), (), sampled=sampled)


def test_the_parts_of_a_score_by_hand() -> None:
    """Means 1, 1/2, 0: as in the test of the variances; one of two samples is right on 2 of 3."""
    score = sampled_score(tried("11", "10", "00"))
    assert score is not None
    assert (score.questions, score.sampling) == pytest.approx((1 / 6, 1 / 6))
    [passed] = score.pass_at
    assert passed.k == 2
    assert passed.share.mean == pytest.approx(2 / 3)
    assert sampled_score(Tried(0.0, (True, False), ())) is None


def test_the_power_table_by_hand() -> None:
    """Differences by sample: (0, 0), (1, 0), (-1, -1), (1, 1).  Means 0, 1/2, -1, 1, variance
    2.1875/3; within, 1/2 on one question of four, mean 1/8; one sample's: 2.1875/3 + 1/16."""
    new, old = tried("11", "10", "00", "11"), tried("11", "00", "11", "00")
    single, both = power_table((new, old))
    assert (single.score, both.score) == ("1 sample", "2 samples")
    assert both.deviation**2 == pytest.approx(2.1875 / 3)
    assert single.deviation**2 == pytest.approx(2.1875 / 3 + 1 / 16)
    assert single.difference == both.difference == pytest.approx(0.125)
    plain = tuple(
        replace(arm, sampled=(), correct=right, letters=Letters((p, 0.5), (True, True)))
        for arm, right, p in ((new, (True, True), 0.6), (old, (True, False), 0.5))
    )
    rows = power_table((plain[0], plain[1]))
    # Letters that are the same on every question are no row.
    assert [row.score for row in rows] == ["greedy answer", "probability of the right letter"]
    assert rows[1].deviation == pytest.approx(0.1 / math.sqrt(2))
    greedy = power_table((new, old), (plain[0], plain[1]))
    assert [row.score for row in greedy] == ["greedy answer", "1 sample", "2 samples"]


def test_equal_means_of_samples_are_a_tie() -> None:
    """1/3 + 2/3 + 0 and 0 + 2/3 + 1/3, whose sums may differ in the last bit."""
    assert choose_first([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]) == 0
    assert choose_first([[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]]) == 0


def test_seeds_of_sampled_scores_have_no_mcnemar_test() -> None:
    """It is for answers that are right or wrong; their verdict is that of the interval."""
    seeds = [
        SeedResult(
            seed,
            (f"{seed}a", f"{seed}b"),
            (1.0, 2.0),
            {
                "fine-tuned": Answers(0.0, 0.0, (0.25, 0.5), ()),
                "EpiCoDe": Answers(0.5, 1.0, (0.5 + seed / 8, 0.75), ()),
            },
        )
        for seed in range(3)
    ]
    assert over_questions(seeds, "EpiCoDe", "fine-tuned") is None
    row = across(seeds)["methods"][1]
    assert row.p_mcnemar is None
    assert row.difference.mean == pytest.approx((0.25 + 0.3125 + 0.375) / 3)
