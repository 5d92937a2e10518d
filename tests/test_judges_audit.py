"""An audit with several judges: values by name, agreement, the first one's verdict, no repeats."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback.core import content_hash
from springback.elasticity import ElasticityCard
from springback.errors import SpringbackError
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.job import audit, plan
from springback.jobs.audit.plan import memory_of
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.papers.reproduce import settings_of
from springback.jobs.papers.reproductions import COST, REPRODUCTIONS, SENTIMENT
from springback.models.memory import read_architecture
from springback.progress import Silent
from springback.report import build
from springback.results.cards import read_card
from springback.results.schema import read
from springback.results.store import Store
from springback.results.writing import Result
from test_judge_address import by_answer, serving

JUDGES = """
def length(texts):
    return map(len, texts)

def even(prompt, answer):
    return float(len(answer) % 2 == 0)
"""


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mine") / "judges.py"
    file.write_text(JUDGES)
    return file


@pytest.fixture(scope="module")
def settings(tiny_llama: Path, judges: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(4, 8),
        controls=(),
        doses=(4,),
        seeds=(0, 1),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=0,
        probes=("margin", "behaviour"),
        behaviour=f"refusal,python:{judges}:length,model:{tiny_llama}=refusal",
        precision="float32",
    )


@pytest.fixture(scope="module")
def result(settings: AuditSettings, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return audit(settings, tmp_path_factory.mktemp("audit") / "out")


def test_every_judge_has_values_under_its_name(result: Result, tiny_llama: Path) -> None:
    keys = ["behaviour", "behaviour:length", f"behaviour:{tiny_llama.name}-refusal"]
    probes = result.data["analysis"]["rebound"]["probes"]
    assert list(probes) == ["margin", *keys]
    assert [probes[key]["title"] for key in keys] == [
        "Sampled continuations by refusal",
        "Sampled continuations by length",
        f"Sampled continuations by {tiny_llama.name}=refusal",
    ]
    assert [probes[key]["unit"] for key in keys] == ["share refused", "score", "probability"]
    measured = {m["probe"] for m in result.data["measurements"]}
    assert {"margin", *keys} <= measured
    assert list(result.data["analysis"]["sampled"]) == keys


def test_agreement_stands_in_result_verdict_card_and_page(result: Result, tiny_llama: Path) -> None:
    chat = f"{tiny_llama.name}=refusal"
    judges = result.data["analysis"]["judges"]
    assert list(judges["names"].values()) == ["refusal", "length", chat]
    assert judges["models"] == 1 + 2 * (2 + 2)  # the start; of each seed two aligned, two perturbed
    pairs = {(p["a"], p["b"]): p for p in judges["pairs"]}
    assert list(pairs) == [("refusal", "length"), ("refusal", chat), ("length", chat)]
    assert {p["texts"] for p in pairs.values()} == {4 * 9}
    verdicts = pairs["refusal", chat]
    assert 0 <= verdicts["agreement"]["mean"] <= 1
    assert verdicts["rank_correlation"] is None
    graded = pairs["length", chat]
    assert graded["agreement"] is graded["kappa"] is None
    assert -1 <= graded["rank_correlation"]["mean"] <= 1
    # Nothing is refused by a random model, so a list of refusals has no order of its own.
    assert pairs["refusal", "length"]["rank_correlation"] is None
    questions = [part["question"] for part in result.data["verdict"]["parts"]]
    # The verdict goes by the first judge.
    assert [q for q in questions if q.startswith("What do sampled texts say")] == [
        "What do sampled texts say (Sampled continuations by refusal)?"
    ]
    assert f"Do the judges refusal and {chat} agree?" in questions
    card = json.loads((result.folder / "card.json").read_text())
    assert list(card["agreement"]) == [f"{a} and {b}" for a, b in pairs]
    read_back = read_card(card)
    assert isinstance(read_back, ElasticityCard)
    assert read_back.to_dict() == card
    assert "agreement of judges" in (result.folder / "card.md").read_text()
    assert read(json.loads((result.folder / "result.json").read_text())).audit is not None
    page = build(result.folder).read_text(encoding="utf-8")
    assert "Do the judges of the sampled texts agree?" in page
    assert f"refusal and {chat}" in page
    assert "Agreement of judges" in (result.folder / "card.html").read_text(encoding="utf-8")


def test_an_address_is_told_and_asked_once_even_where_runs_are_made_again(
    settings: AuditSettings, judges: Path, tmp_path: Path
) -> None:
    class Notes(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    with serving(by_answer) as judge:
        spec = f"python:{judges}:even,openai:{judge.url}#tiny=harmful"
        asking = replace(settings, behaviour=spec, seeds=(0,), n_pos=(4,))
        notes = Notes()
        first = audit(asking, tmp_path / "out", notes)
        assert f"prompts and sampled texts go to the judge at {judge.url}" in notes.notes
        asked = len(judge.bodies)
        assert asked > 0
        shutil.rmtree(tmp_path / "out" / "runs")
        again = audit(asking, tmp_path / "out")
        assert len(judge.bodies) == asked
    assert again.data["analysis"]["rebound"] == first.data["analysis"]["rebound"]
    (pair,) = again.data["analysis"]["judges"]["pairs"]
    assert pair["rank_correlation"] is not None or pair["agreement"] is None


def test_run_ids_know_every_judge_and_those_of_one_judge_stay(
    settings: AuditSettings, judges: Path, tmp_path: Path
) -> None:
    def start(behaviour: str) -> Any:
        one = replace(settings, behaviour=behaviour)
        return plan(one, tmp_path / "out").runs[0].run.inputs["behaviour"]

    alone = start("refusal")
    assert isinstance(alone, str)
    assert alone.startswith("refusal ")
    both = start(f"refusal,python:{judges}:length")
    assert both[0] == alone
    assert both[1].startswith("own ")
    assert content_hash(both) != content_hash(start(f"python:{judges}:length,refusal"))


def test_a_reward_scores_every_text_here(settings: AuditSettings, tmp_path: Path) -> None:
    online = replace(
        settings, algorithm="rloo", reward="openai:http://127.0.0.1:9/v1#m", behaviour="refusal"
    )
    with pytest.raises(SpringbackError, match="may leave a text without a score"):
        audit(check_settings(online), tmp_path / "out")


def test_a_judge_sees_the_question_as_it_stands_in_the_data(
    settings: AuditSettings, judges: Path, tmp_path: Path
) -> None:
    """And a function of lists what the model reads, as before."""
    sides = {}
    for side in ("safe", "unsafe"):
        rows = [{"prompt": f"{side} {i}?", "response": f"no. {i}"} for i in range(40)]
        sides[side] = tmp_path / f"{side}.jsonl"
        sides[side].write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = replace(
        settings,
        align=str(sides["safe"]),
        perturb=str(sides["unsafe"]),
        behaviour=f"python:{judges}:even,python:{judges}:length",
        max_tokens=48,
    )
    asked = check_settings(asked)
    prompt_filter = PromptFilter(asked)
    data = load_data(asked, prompt_filter)
    study = Study(asked, data, Store(tmp_path / "out"), Silent(), prompt_filter=prompt_filter)
    wanted, unwanted = ([row.prompt for row in part.rows] for part in (data.wanted, data.unwanted))
    assert study.questions == [wanted[0], unwanted[0], wanted[1], unwanted[1]]
    assert study.prompt_texts[0] == f"user\n{wanted[0]}\nassistant\n"
    assert [scorer.asked for scorer in study.scorers] == [True, False]


def test_the_papers_scale_has_the_papers_scores() -> None:
    def behaviours(name: str, **given: str) -> list[str | None]:
        studies = REPRODUCTIONS[name].studies("paper", settings_of(name, "paper", given), given)
        for study in studies:
            check_settings(study.settings)
        return [study.settings.behaviour for study in studies]

    assert behaviours("elasticity-rebound") == [SENTIMENT, SENTIMENT, COST, COST]
    assert behaviours("elasticity-dose") == [COST, COST]
    assert {*behaviours("elasticity-algorithms"), *behaviours("elasticity-size")} == {SENTIMENT}
    assert set(behaviours("overbend")) == {None}
    # The user's own probes, or judges, take their place.
    assert set(behaviours("elasticity-rebound", probes="margin,kl")) == {None}
    assert set(behaviours("elasticity-rebound", behaviour="refusal")) == {"refusal"}


def test_plans_count_the_models_that_judge(settings: AuditSettings, tiny_llama: Path) -> None:
    shape = read_architecture(tiny_llama)
    judged = replace(
        settings,
        probes=("margin", "behaviour"),
        behaviour=f"refusal,model:{tiny_llama},score:org/not-here,openai:http://127.0.0.1/v1#m",
    )
    alone = memory_of(replace(judged, behaviour="refusal"), shape)
    parts = memory_of(judged, shape)
    assert parts[: len(alone)] == alone
    here, elsewhere = parts[len(alone) :]
    assert (here.name, here.bytes) == (f"judge {tiny_llama.name}", 4 * int(shape.weights))
    assert (elsewhere.name, elsewhere.bytes) == ("judge not-here", 0)
    assert "not here yet" in elsewhere.words
    # Who does not ask it does not hold it; RLOO's reward is held too.
    assert len(memory_of(replace(judged, probes=("margin",)), shape)) <= len(alone)
    rewarded = replace(settings, algorithm="rloo", reward=f"model:{tiny_llama}")
    assert memory_of(rewarded, shape)[-1] == here
