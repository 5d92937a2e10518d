"""Resistance as the paper has it: every pair, both ways alike but for the target (section A2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from springback import probes
from springback.core import Recipe, Run
from springback.jobs.audit import resistance, runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.encoding import Encoded
from springback.models.stored_model import in_memory
from springback.progress import Silent
from springback.results.store import Store
from springback.training import Trained

ROWS = 4
#: Where whole answers are cut.
CUT = 5


class Watched(Study):
    """A study that notes what each run is trained on, and the NLL with which it begins."""

    seen: dict[Any, tuple[list[Encoded], float, Recipe]]

    def train(self, run: Run, rows: Any, recipe: Recipe, marks: Any = None) -> Trained:
        way: tuple[Any, ...] = (run.inputs.get("source"), run.inputs.get("target"))
        if "arm" in run.inputs:
            way += (run.inputs["arm"],)
        self.seen[way] = list(rows), nll(self, rows), recipe
        return super().train(run, rows, recipe, marks)


def study_of(tiny_llama: Path, out: Path, **changes: Any) -> Watched:
    settings = AuditSettings(
        model=str(tiny_llama),
        n_pos=(4,),
        controls=(),
        doses=(4,),
        seeds=(0,),
        learning_rate=1e-2,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=ROWS,
        probes=("margin",),
        precision="float32",
        **{"resistance_data": "responses", **changes},
    )
    settings = check_settings(settings)
    prompt_filter = PromptFilter(settings)
    study = Watched(
        settings,
        load_data(settings, prompt_filter),
        Store(out),
        Silent(),
        prompt_filter=prompt_filter,
    )
    study.seen = {}
    return study


def nll(study: Study, rows: Sequence[Encoded]) -> float:
    """Of the working model, nats a token over all rows."""
    scores = probes.nll(in_memory(study.work), rows, study.tokenizer, study.precision)
    return sum(s.nats for s in scores) / sum(s.tokens for s in scores)


@pytest.fixture(scope="module")
def watched(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """The trainings of one seed with their data, what was found, and what the chain left."""
    study = study_of(tiny_llama, tmp_path_factory.mktemp("out"))
    runs.make(study, resistance.runs(study.settings, 0))
    found = resistance.read_seed(study, 0)
    chain = {k: resistance.slice_run(study.settings, 0, k).results(study) for k in (1, 2, 3)}
    return study, found, chain


def test_every_pair_is_trained_both_ways_on_the_targets_responses_to_the_same_prompts(
    watched: tuple[Any, Any, Any],
) -> None:
    study, found, chain = watched
    assert list(found) == ["1-2", "2-3", "1-3"]
    ways = {way: seen for way, seen in study.seen.items() if way != (None, None)}
    assert set(ways) == {(1, 2), (2, 1), (2, 3), (3, 2), (1, 3), (3, 1)}
    prompts = resistance._prompts(study, 0)
    for (_, target), (rows, _, recipe) in ways.items():
        assert recipe == study.settings.recipe(0)
        assert [list(row.ids[: row.start]) for row in rows] == prompts
        assert [list(row.ids[row.start :]) for row in rows] == chain[target]["responses"]
        assert [row.counted for row in rows] == [study.settings.sample_tokens] * ROWS
    assert len({str(chain[k]["responses"]) for k in (1, 2, 3)}) == 3


def test_prompts_and_slices_share_no_row_with_each_other_or_with_aligning(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = study_of(tiny_llama, tmp_path)
    parts = [*resistance._slices(study, 0), study.data.aligning(0, 4), study.data.wanted]
    rows = [row for part in parts for row in part.rows]
    assert len({*rows}) == len(rows) == 4 * ROWS + 4 + 4


def test_the_loss_begins_at_the_sources_nll_and_the_excess_is_over_the_targets_own(
    watched: tuple[Any, Any, Any],
) -> None:
    """One batch a run here: its loss is the source's NLL of the target's responses."""
    study, found, chain = watched
    for k, l in resistance.PAIRS:  # noqa: E741  (the paper's letters)
        got = found[f"{k}-{l}"]
        for way, source, target in (("forward", k, l), ("inverse", l, k)):
            _, begins, _ = study.seen[source, target]
            assert got[way] == pytest.approx(begins, rel=1e-5)
            excess = got[way] - chain[target]["own_nll"]
            assert got[f"excess_{way}"] == pytest.approx(excess)


def test_a_targets_own_nll_is_that_of_its_responses_under_it(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = study_of(tiny_llama, tmp_path)
    run = resistance.slice_run(study.settings, 0, 1)
    run.make(study)
    found = run.results(study)
    rows = resistance._data(study, 0, 1, found["responses"])
    study.reset(0, study.store.checkpoint(run.identity(study), "end"))
    assert found["own_nll"] == pytest.approx(nll(study, rows))


def test_the_variant_trains_on_the_rows_of_the_targets_slice(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = study_of(tiny_llama, tmp_path, resistance_data="slices")
    for target in (1, 2, 3):
        rows = resistance._data(study, 0, target, [])
        assert rows == study.encode(resistance._slices(study, 0)[target - 1])
    plain = study_of(tiny_llama, tmp_path)
    assert resistance.sum_run(study, 0).id != resistance.sum_run(plain, 0).id


def whole_answers(tiny_llama: Path, out: Path, **changes: Any) -> Watched:
    return study_of(tiny_llama, out, resistance_data="answers", resistance_tokens=CUT, **changes)


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """As ``watched``, of whole answers."""
    study = whole_answers(tiny_llama, tmp_path_factory.mktemp("whole"))
    listed = resistance.runs(study.settings, 0)
    runs.make(study, listed)
    found = resistance.read_seed(study, 0)
    return study, found, {run: run.results(study) for run in listed}


def test_whole_answers_are_trained_on_in_two_arms_greedy_and_sampled(
    whole: tuple[Any, Any, Any],
) -> None:
    study, _, results = whole
    chain = {run.stage: found for run, found in results.items() if run.phase == "slice"}
    toward = [run for run in results if run.phase == "toward"]
    assert len(toward) == 2 * 6
    prompts = resistance._prompts(study, 0)
    (end,) = resistance._end_tokens(study)
    for run in toward:
        rows, _, recipe = study.seen[run.stage, run.target, run.arm]
        assert recipe == study.settings.recipe(0)
        assert [list(row.ids[: row.start]) for row in rows] == prompts
        answers = chain[run.target][run.arm]["responses"]
        for row, answer in zip(rows, answers, strict=True):
            ended = [] if len(answer) == CUT else [end]
            assert list(row.ids[row.start :]) == [*answer, *ended]
            assert len(answer) <= CUT
    first = chain[1]
    assert first["greedy"]["responses"] != first["sampled"]["responses"]


def test_greedy_answers_are_the_models_most_probable_tokens(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = whole_answers(tiny_llama, tmp_path)
    run = resistance.slice_run(study.settings, 0, 1)
    run.make(study)
    model = in_memory(study.reset(0, study.store.checkpoint(run.identity(study), "end")))
    answers = run.results(study)["greedy"]["responses"]
    for prompt, answer in zip(resistance._prompts(study, 0), answers, strict=True):
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == answer


def test_an_answer_that_ends_is_learned_with_its_end_and_one_that_is_cut_without(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = whole_answers(tiny_llama, tmp_path)
    (end,) = resistance._end_tokens(study)
    assert end == study.tokenizer.eos_token_id
    answers = [[5, 6], [5, 6, 7, 8, 9], [], [5, 6, 7, 8]]
    rows = resistance._data(study, 0, 1, answers)
    learned = [list(row.ids[row.start :]) for row in rows]
    assert learned == [[5, 6, end], [5, 6, 7, 8, 9], [end], [5, 6, 7, 8, end]]


def test_the_final_loss_is_that_of_all_rows_after_training_and_the_mean_that_of_the_steps(
    whole: tuple[Any, Any, Any],
) -> None:
    """One batch a run: the mean loss is the source's NLL; training has lowered the final one."""
    study, found, results = whole
    assert list(found) == ["1-2", "2-3", "1-3"]
    for run, result in results.items():
        if run.phase == "slice":
            continue
        rows, begins, _ = study.seen[run.stage, run.target, run.arm]
        pair = "-".join(map(str, sorted((run.stage, run.target))))
        way = "forward" if run.stage < run.target else "inverse"
        prefix = "" if run.arm == "greedy" else "sampled_"
        own = run.reads[0].results(study)[run.arm]["own_nll"]
        got = {name: found[pair][f"{prefix}{name}{way}"] for name in ("", "mean_", "excess_")}
        assert got["mean_"] == pytest.approx(begins, rel=1e-5)
        assert got[""] == result["final"] < got["mean_"]
        assert got["excess_"] == pytest.approx(got[""] - own)
        assert found[pair][f"{prefix}mean_excess_{way}"] == pytest.approx(got["mean_"] - own)
        assert sum(row.counted for row in rows) > 0
    last = next(run for run in reversed(list(results)) if run.phase == "toward")
    rows, _, _ = study.seen[last.stage, last.target, last.arm]
    # The working model is still as the last run left it.
    assert results[last]["final"] == pytest.approx(nll(study, rows))


def test_kl_to_the_target_is_taken_on_texts_of_the_target_before_and_after(
    whole: tuple[Any, Any, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    """By the whole vocabulary, computed here anew; nothing of the texts was trained on."""
    _, found, _ = whole
    study = whole_answers(tiny_llama, tmp_path)
    first, second = (resistance.slice_run(study.settings, 0, k) for k in (1, 2))
    for run in (first, second):
        run.make(study)
    texts = second.results(study)["texts"]
    prompts = study.prompts[:1]  # a quarter of four
    assert [len(text) for text in texts] == [study.settings.sample_tokens] * len(prompts)
    each = []
    for prompt, text in zip(prompts, texts, strict=True):
        logs = []
        for run in (second, first):
            model = in_memory(study.reset(0, study.store.checkpoint(run.identity(study), "end")))
            logits = model(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
            logs.append(torch.log_softmax(logits.double(), -1).detach())
        each.append(float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()))
    before = sum(each) / len(each)
    for arm in ("", "sampled_"):
        assert found["1-2"][f"{arm}kl_before_forward"] == pytest.approx(before, rel=1e-3)
        after = found["1-2"][f"{arm}kl_after_forward"]
        assert after != found["1-2"][f"{arm}kl_before_forward"]


def test_the_targets_weights_are_kept_until_the_last_run_towards_it(
    tiny_llama: Path, tmp_path: Path
) -> None:
    study = whole_answers(tiny_llama, tmp_path)
    listed = resistance.runs(study.settings, 0)
    needed = runs.needed_by(listed[-1:])
    assert {weights.run.stage for weights in needed} == {1, 3}
    runs.make(study, listed)
    assert not list(tmp_path.glob("checkpoints/*/*"))


def test_whole_answers_have_ids_of_their_own_and_responses_keep_theirs(
    tiny_llama: Path, tmp_path: Path
) -> None:
    inputs = {}
    for data in ("responses", "answers"):
        study = study_of(tiny_llama, tmp_path, resistance_data=data)
        run = resistance.slice_run(study.settings, 0, 1)
        inputs[data] = run.identity(study).inputs
    more = inputs["answers"].keys() - inputs["responses"].keys()
    assert more == {"data", "answers"}
    longer = whole_answers(tiny_llama, tmp_path)
    assert resistance.sum_run(longer, 0).id != resistance.sum_run(study, 0).id
