"""Resistance as the paper has it: every pair, both ways alike but for the target (section A2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from springback import probes
from springback.core import Recipe, Run
from springback.jobs.audit import resistance, runs
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.encoding import Encoded
from springback.progress import Silent
from springback.results.store import Store
from springback.training import Trained

ROWS = 4


class Watched(Study):
    """A study that notes what each run is trained on, and the NLL with which it begins."""

    seen: dict[Any, tuple[list[Encoded], float, Recipe]]

    def train(self, run: Run, rows: Any, recipe: Recipe, marks: Any = None) -> Trained:
        way = (run.inputs.get("source"), run.inputs.get("target"))
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
        **changes,
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
    scores = probes.nll(study.work, rows, study.tokenizer, study.precision)
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
