"""A whole boost by vLLM, in a process of its own, beside the same boost by Transformers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make vllm)")

from boost_pair import choice_settings
from boosted_fixture import checkpoints
from springback.errors import ModelError
from springback.integrations.vllm.client import Worker
from springback.jobs.boost import vllm_engine
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode.job import reproduce_epicode
from springback.results.store import read_json
from springback.results.writing import Result
from weights_adapters import save_adapter


@pytest.fixture(autouse=True)
def own_log(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINGBACK_STATE", str(tmp_path_factory.mktemp("state")))


def settings_of(pair: tuple[Path, Path], **changes: Any) -> BoostSettings:
    plain = choice_settings(pair, mu=(0.5, 1.0), lam=(0.5, 2.0), max_new_tokens=12, precheck=True)
    return replace(plain, **changes)


def scored(out: Path, what: str = "completions") -> dict[tuple[Any, ...], Any]:
    """What the runs of a boost hold, by the part and the arm's key."""
    held = {}
    for path in sorted((out / "runs").glob("[nsl]*-*/run.json")):  # nll, score, letters
        run = read_json(path)
        inputs, results = run["inputs"], run["results"]
        if what in results:
            key = (inputs["part"], inputs["mu"], inputs["lam"], inputs["weak"])
            held[key] = results[what]
    return held


def compared(by_vllm: Path, by_transformers: Path, near: int = 2) -> None:
    """Answers are the plain loop's but for near-ties; likelihoods the same up to rounding."""
    ours, theirs = scored(by_transformers), scored(by_vllm)
    both = ours.keys() & theirs.keys()  # a near-tie may choose another arm for the test
    assert len(both) >= 8
    answers = [(a, b) for key in both for a, b in zip(ours[key], theirs[key], strict=True)]
    assert sum(a != b for a, b in answers) <= near
    assert len({str(theirs[key]) for key in both}) > 3, "arms differ"
    for what in ("nll", "logliks"):
        ours, theirs = scored(by_transformers, what), scored(by_vllm, what)
        both = ours.keys() & theirs.keys()
        assert both
        for key in both:
            flat = [_flat(values[key]) for values in (ours, theirs)]
            assert flat[1] == pytest.approx(flat[0], abs=2e-3), (what, key)


def _flat(values: list[Any]) -> list[float]:
    return [x for v in values for x in (v if isinstance(v, list) else [v])]


def both_engines(settings: BoostSettings, out: Path) -> Result:
    """By vLLM in ``out/vllm``, whose result is given back, and by Transformers beside it."""
    boost(replace(settings, engine="transformers"), out / "transformers")
    by_vllm = replace(settings, engine="vllm", vllm_python=sys.executable, reopen_test=True)
    return boost(by_vllm, out / "vllm")


def test_a_boost_is_that_of_transformers_and_resumes(
    wide_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = checkpoints(wide_llama, tmp_path)
    settings = settings_of(pair, search="joint", ablate_weak=("early",))
    result = both_engines(settings, tmp_path)
    compared(tmp_path / "vllm", tmp_path / "transformers")
    facts = result.data["provenance"]["computing"]
    assert facts["engine"].startswith("vLLM 0.")
    assert facts["nll"] == "Transformers"
    inputs = read_json(next((tmp_path / "vllm" / "runs").glob("score-*/run.json")))["inputs"]
    assert inputs["engine"] == "vllm"
    assert (
        "engine"
        not in read_json(next((tmp_path / "transformers" / "runs").glob("score-*/run.json")))[
            "inputs"
        ]
    )

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished boost starts no vLLM")

    monkeypatch.setattr(vllm_engine, "Worker", refuse)
    for engine in ("vllm", "auto"):  # auto goes on with what is there
        again = boost(replace(settings, engine=engine), tmp_path / "vllm")
        assert again.data["analysis"] == result.data["analysis"]
        assert again.data["inputs"]["settings"]["engine"] == "vllm"


def test_adapters_of_one_base(
    wide_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks and modules that differ; the base alone is a weak model too; three batches in all.

    Solutions are scored as on a GPU, by prompt log-probabilities.
    """
    monkeypatch.setattr(vllm_engine, "_scorer", lambda *_: None)
    batches, plain = [], Worker.ask

    def counted(worker: Any, what: str, *args: Any, **given: Any) -> Any:
        if what == "decode":
            batches.append({json.dumps(place["strong"]) for place in given["places"]})
        return plain(worker, what, *args, **given)

    monkeypatch.setattr(Worker, "ask", counted)
    modules = ["q_proj", "v_proj", "up_proj", "down_proj"]
    early = save_adapter(tmp_path / "early", wide_llama, 1, r=2, target_modules=modules)
    ft = save_adapter(tmp_path / "ft", wide_llama, 2, r=3, target_modules=[*modules, "o_proj"])
    settings = settings_of(
        (early, ft), model=str(wide_llama), ablate_weak=("init",), write_model=False
    )
    result = both_engines(settings, tmp_path)
    compared(tmp_path / "vllm", tmp_path / "transformers")
    assert result.data["provenance"]["computing"]["nll"] == "prompt log-probabilities"
    assert len(batches) == 3, "the search for mu, that for lambda, the test"
    assert len(batches[0]) == 3, "mus"


def test_a_weak_model_of_another_form_is_refused_before_vllm_starts(
    wide_llama: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    pair = checkpoints(wide_llama, tmp_path)
    settings = settings_of(pair, engine="vllm", weak=str(tiny_llama), ablate_weak=("other",))
    with pytest.raises(ModelError, match="as the weak model 'other' with --engine vllm"):
        boost(settings, tmp_path / "out")


def test_a_seed_of_paper_b_is_that_of_transformers(wide_llama: Path, tmp_path: Path) -> None:
    early, ft = map(str, checkpoints(wide_llama, tmp_path))
    given: dict[str, Any] = {"model": None, "early": early, "ft": ft, "seeds": (0,), "test_rows": 4}
    given |= {"train": None, "validation": "problems", "validation_rows": 3, "mu": (0.5, 1.0)}
    given |= {"lam": (0.5,), "lam_cd": (0.5,), "max_new_tokens": 12, "batch_size": 4}
    vllm = {"engine": "vllm", "vllm_python": sys.executable}
    seeds = []
    for name, engine in (("transformers", {}), ("vllm", vllm)):
        reproduce_epicode("epicode-main", "small", tmp_path / name, {**given, **engine})
        (run,) = (tmp_path / name / "runs").glob("epicode-*/run.json")
        seeds.append(read_json(run))
    assert seeds[1]["inputs"] == {**seeds[0]["inputs"], "engine": "vllm"}
    ours, theirs = (seed["results"]["methods"] for seed in seeds)
    strengths = [{n: (m["mu"], m["lambda"]) for n, m in each.items()} for each in (ours, theirs)]
    alike = dict(strengths[0].items() & strengths[1].items())  # a near-tie may choose otherwise
    assert {"fine-tuned", "CD only"} <= alike.keys()
    for name in alike:
        assert theirs[name]["nll"] == pytest.approx(ours[name]["nll"], abs=2e-3)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    assert not children, "the engine ends with its seed"
