"""A boost in the dtype and on the device that are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boost_pair import save_pair
from springback.errors import SpringbackError
from springback.jobs.boost.checks import check_settings
from springback.jobs.boost.job import Arm, Boost, boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode import seed
from springback.models.loading import resolve
from springback.progress import Silent
from springback.results.store import Store


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> BoostSettings:
    early, ft = save_pair(tiny_llama, tmp_path, torch.bfloat16)
    return BoostSettings(
        early=str(early),
        ft=str(ft),
        validation="problems",
        test="problems",
        validation_rows=2,
        test_rows=2,
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        max_new_tokens=3,
        precheck=False,
        write_model=False,
    )


def job_of(settings: BoostSettings, folder: Path) -> Boost:
    pair = resolve(settings.early or ""), resolve(settings.ft or "")
    return Boost(check_settings(settings), pair, Store(folder), Silent())


def ids(settings: BoostSettings, folder: Path) -> set[str]:
    from springback.jobs.boost.checks import load_data

    job, rows = job_of(settings, folder), load_data(settings).validation
    return {job.run(kind, Arm("x", 0.5, 0.5, "ft"), rows, "test").id for kind in ("score", "nll")}


def test_the_dtype_is_part_of_a_run_where_it_is_not_float32(
    settings: BoostSettings, tmp_path: Path
) -> None:
    plain = ids(settings, tmp_path / "a")
    assert plain == ids(replace(settings, dtype="float32", device="cpu"), tmp_path / "a")
    assert not plain & ids(replace(settings, dtype="bfloat16"), tmp_path / "a")
    seeds = [seed.plan("epicode", replace(settings, dtype=d)).run.id for d in
             ("auto", "float32", "bfloat16")]  # fmt: skip
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_boost_in_bfloat16(settings: BoostSettings, tmp_path: Path) -> None:
    """Both models are held in it; what is extrapolated is the same, whatever computes."""
    half = replace(settings, dtype="bfloat16")
    job = job_of(half, tmp_path / "a")
    for model in (job.sweep.at(0.5), job.sweep.weak("ft")):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    data: dict[str, Any] = boost(half, tmp_path / "b").data
    assert data["provenance"]["computing"]["dtype"] == "bfloat16"
    assert data["inputs"]["settings"]["dtype"] == "bfloat16"
    again = boost(half, tmp_path / "b").data
    assert again["analysis"] == data["analysis"]
    assert not again["provenance"]["runs"]["made"]
    plain = boost(replace(settings, reopen_test=True), tmp_path / "c").data
    assert "dtype" not in plain["inputs"]["settings"]
    nll = [d["analysis"]["methods"][0]["nll"]["mean"] for d in (data, plain)]
    assert nll[0] == pytest.approx(nll[1], rel=0.05)


@pytest.mark.parametrize(
    "change", [{"dtype": "int8"}, {"device": "cuda:99"}, {"device_map": "everywhere"}]
)
def test_what_is_not_there_is_refused_before_it_starts(
    settings: BoostSettings, tmp_path: Path, change: dict[str, str]
) -> None:
    with pytest.raises(SpringbackError, match=f"--{next(iter(change)).replace('_', '-')}"):
        boost(replace(settings, **change), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "runs").exists()


def test_the_batch_is_fitted_to_the_memory_and_kept(
    settings: BoostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed study keeps the number, on a machine with more memory too: tokens may depend on
    it.  The record of the opened test does not."""
    from springback.jobs.boost import scoring
    from springback.jobs.boost.batches import row_bytes, rows_at_once
    from springback.jobs.boost.checks import load_data

    auto = replace(settings, batch_size="auto", validation_rows=6)
    rows, free = load_data(auto).validation, [0]
    monkeypatch.setattr(scoring, "available_bytes", lambda device: free[0])
    job = job_of(auto, tmp_path / "a")
    config = job.sweep.configs.config
    longest = max(map(len, job._prompts(rows)))
    row = row_bytes(config, longest, 3, 2, torch.float32)
    free[0] = job.sweep.to_load + int(3.5 * row / 0.8)
    assert job.batch_size(rows) == 3
    free[0] = 1 << 40
    assert job_of(auto, tmp_path / "a").batch_size(rows) == 3
    assert job_of(auto, tmp_path / "b").batch_size(rows) == 6, "all that there are"
    run = job.run("score", Arm("x", 0.5, 0.5, "ft"), rows, "validation")
    assert run.inputs["decode"] == [3, 3]
    free[0] = 0
    assert job_of(auto, tmp_path / "c").batch_size(rows) == 1
    assert rows_at_once(10_000, 100, 1000) == 80
    # Keys and values of two models, two lambdas, every layer.
    text = config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    numbers = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    caches = 2 * 2 * numbers * 4 * (longest + 3)
    assert caches < row < 3 * caches + 1_000_000
    data: dict[str, Any] = boost(replace(auto, batch_size="auto"), tmp_path / "d").data
    assert data["inputs"]["settings"]["batch_size"] == "auto"
