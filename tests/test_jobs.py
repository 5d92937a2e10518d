"""Both jobs, whole, on a tiny model: results, resume, reuse, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.errors import DataError, ModelError, SpringbackError
from springback.inference import load
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.checks import load_data
from springback.jobs.boost.job import boost
from springback.jobs.boost.search import Tried, candidates, choose
from springback.jobs.boost.settings import BoostSettings
from springback.models.checkpoint_pair import CheckpointPair
from springback.models.loading import load_model, resolve
from springback.weights import extrapolate


@pytest.fixture
def audit_settings(tiny_llama: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(8, 16),
        controls=(),
        doses=(4, 8),
        seeds=(0, 1),
        learning_rate=1e-3,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=4,
        precision="float32",
        save_every=0.0,
    )


@pytest.fixture
def boost_settings(tiny_llama: Path) -> BoostSettings:
    return BoostSettings(
        model=str(tiny_llama),
        train="problems",
        train_rows=16,
        validation_rows=6,
        test_rows=6,
        mu=(0.5,),
        lam=(1.0,),
        lam_cd=(0.5,),
        max_new_tokens=6,
        max_tokens=320,
        batch_size=4,
        learning_rate=1e-3,
        train_batch_size=4,
        precision="float32",
    )


def findings(result: Any) -> dict[str, Any]:
    """Everything that must not depend on time or interruptions."""
    return {k: v for k, v in result.data.items() if k != "provenance"}


class Stop(Exception):
    """Stands for the end of the process."""


class StopAt:
    """Progress that ends the job at the n-th step: state on disk is all that is left."""

    def __init__(self, n: int) -> None:
        self.left = n

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop

    def stage(self, title: str, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def interrupted(job: Callable[[Any], Any], points: list[int]) -> Any:
    for point in points:
        with pytest.raises(Stop):
            job(StopAt(point))
    return job(StopAt(10**9))


def test_audit_measures_every_probe_at_every_dose(
    audit_settings: AuditSettings, tmp_path: Path
) -> None:
    result = audit(audit_settings, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "result.json").read_text())
    assert data["schema_version"] == 1
    assert data["kind"] == "audit"
    assert findings(result) == {k: v for k, v in data.items() if k != "provenance"}
    tags = [
        (m["probe"], m["tags"].get("seed"), m["tags"].get("n_neg")) for m in data["measurements"]
    ]
    for probe in ("margin", "kl", "bits_per_byte", "sentiment"):
        # start, then 2 seeds x 2 branch points x (dose 0 and 2 doses)
        assert sum(t[0] == probe for t in tags) == 1 + 2 * 2 * 3
    assert len(data["analysis"]["resistance"]["pairs"]) == 3
    starts = [m for m in data["measurements"] if m["probe"] == "kl" and m["checkpoint"] == "start"]
    assert starts[0]["value"] == pytest.approx(0, abs=1e-6)
    assert not list((tmp_path / "out").glob("checkpoints/*/*")), "branch weights are pruned"


def test_results_say_where_the_time_went(
    audit_settings: AuditSettings, boost_settings: BoostSettings, tmp_path: Path
) -> None:
    """All of it, also of runs that another call made."""
    jobs: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
        "audit": (partial(audit, audit_settings), {"probing", "sampling"}),
        "boost": (partial(boost, boost_settings), {"decoding", "scoring"}),
    }
    for name, (job, further) in jobs.items():
        out, parts = tmp_path / name, {"training", "loading", "saving", *further}
        first = job(out).data["provenance"]
        assert parts <= {name for name, seconds in first["time"].items() if seconds > 0}
        assert sum(first["time"].values()) == pytest.approx(first["seconds"], abs=2)
        again = job(out).data["provenance"]
        assert again["seconds"] < first["seconds"]
        assert again["time"]["training"] == pytest.approx(first["time"]["training"], abs=0.5)


def test_audit_resumes_to_the_same_result(audit_settings: AuditSettings, tmp_path: Path) -> None:
    whole = audit(audit_settings, tmp_path / "whole")
    cut = interrupted(lambda p: audit(audit_settings, tmp_path / "cut", p), [2, 3, 9, 14])
    assert findings(cut) == findings(whole)


def test_audit_with_more_seeds_repeats_nothing(
    audit_settings: AuditSettings, tmp_path: Path
) -> None:
    audit(replace(audit_settings, seeds=(0,)), tmp_path)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/run.json")}
    more = audit(audit_settings, tmp_path)
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    assert more.data["analysis"]["rebound"]["seeds"] == [0, 1]


def test_alignment_raises_the_margin_and_the_opposite_lowers_it(
    audit_settings: AuditSettings, tmp_path: Path
) -> None:
    # Words and digits: two kinds of text that a random model learns to tell apart at once.
    words, digits = tmp_path / "words.jsonl", tmp_path / "digits.jsonl"
    words.write_text("".join(f'{{"text": "the thing sings a {n:b}"}}\n' for n in range(80)))
    digits.write_text("".join(f'{{"text": "{n * n * 7919:020d}"}}\n' for n in range(80)))
    settings = replace(audit_settings, seeds=(0,), resistance_rows=0, n_pos=(64,), doses=(64,))
    settings = replace(settings, align=str(words), perturb=str(digits))
    rebound = audit(settings, tmp_path / "out").data["analysis"]["rebound"]
    assert rebound["gain"][0]["mean"] > 0
    assert rebound["fall"][0]["mean"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"doses": (3,)}, "multiples of the batch size"),
        ({"probes": ("kl",)}, "margin"),
        ({"probes": ("margin", "taste")}, "allowed"),
        ({"seeds": ()}, "at least one"),
        ({"learning_rate": -1.0}, "above 0"),
        ({"align": "no/such/file.jsonl"}, "no such file"),
        ({"perturb": "reviews:positive"}, "reviews:positive"),
    ],
)
def test_audit_refuses_before_it_starts(
    audit_settings: AuditSettings, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpringbackError, match=words):
        audit(replace(audit_settings, **change), tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()


def test_boost_writes_a_table_and_resumes_to_it(
    boost_settings: BoostSettings, tmp_path: Path
) -> None:
    whole = boost(boost_settings, tmp_path / "whole")
    cut = interrupted(lambda p: boost(boost_settings, tmp_path / "cut", p), [3, 7, 12])

    def without_paths(result: Any) -> dict[str, Any]:
        found = findings(result)
        for key in ("early", "ft"):
            found["inputs"][key].pop("path")
        return found

    assert without_paths(cut) == without_paths(whole)
    methods = [row["method"] for row in whole.data["analysis"]["methods"]]
    assert all(0 <= row["cut"] <= 1 for row in whole.data["analysis"]["methods"])
    assert methods == ["fine-tuned", "ME only", "CD only", "EpiCoDe"]


def test_boost_takes_two_checkpoints_and_its_folder_decodes(
    boost_settings: BoostSettings, tmp_path: Path
) -> None:
    """The boosted folder gives exactly the completions that the test was graded on."""
    from springback import generate
    from springback.jobs.boost.export import Strengths, write_boosted

    trained = boost(boost_settings, tmp_path / "a").data["inputs"]
    early, ft = resolve(trained["early"]["path"]), resolve(trained["ft"]["path"])
    write_boosted((early, ft), Strengths(0.5, 1.0, 0.1), tmp_path / "model", "Be brief.")
    loaded = load(tmp_path / "model")
    assert (loaded.lam, loaded.alpha) == (1.0, 0.1)
    assert loaded.system == "Be brief."
    assert loaded.amateur is not None
    sweep = CheckpointPair(early, ft)
    expert = dict(sweep.at(0.5).named_parameters())
    for name, weight in loaded.expert.named_parameters():
        torch.testing.assert_close(weight, expert[name], rtol=0, atol=1e-6)
    assert len(generate(loaded, ["the thing"], max_new_tokens=4)) == 1
    settings = replace(
        boost_settings, model=None, train=None, early=early.path, ft=ft.path, train_rows=None
    )
    again = boost(settings, tmp_path / "b").data
    assert again["inputs"]["ft"]["content_hash"] == trained["ft"]["content_hash"]


def test_sweep_equals_the_streamed_extrapolation(
    boost_settings: BoostSettings, tmp_path: Path
) -> None:
    trained = boost(boost_settings, tmp_path / "a").data["inputs"]
    early, ft = resolve(trained["early"]["path"]), resolve(trained["ft"]["path"])
    extrapolate(early.path, ft.path, 0.3, tmp_path / "x")
    written = dict(load_model(resolve(tmp_path / "x")).named_parameters())
    sweep = CheckpointPair(early, ft)
    sweep.at(0.7)
    for name, weight in sweep.at(0.3).named_parameters():
        torch.testing.assert_close(weight, written[name], rtol=1e-6, atol=1e-7)


def sums(path: Path, n: int) -> str:
    path.write_text("".join(f'{{"question": "{i} + 1?", "answer": "{i + 1}"}}\n' for i in range(n)))
    return str(path)


def test_boost_refuses_the_same_rows_in_validation_and_test(
    boost_settings: BoostSettings, tmp_path: Path
) -> None:
    settings = replace(
        boost_settings,
        validation=sums(tmp_path / "a.jsonl", 5),
        test=sums(tmp_path / "b.jsonl", 5),
        validation_rows=None,
        test_rows=None,
    )
    with pytest.raises(DataError, match="are also in"):
        boost(settings, tmp_path / "out")


def test_boost_splits_one_file_and_more_training_rows_leave_the_held_out_ones(
    boost_settings: BoostSettings, tmp_path: Path
) -> None:
    path = sums(tmp_path / "a.jsonl", 40)
    settings = replace(boost_settings, train=path, validation=path, test=path)
    parts = load_data(replace(settings, train_rows=8))
    more = load_data(replace(settings, train_rows=None))
    assert parts.train is not None
    assert more.train is not None
    assert (len(parts.test), len(parts.validation), len(parts.train)) == (6, 6, 8)
    assert (more.test, more.validation) == (parts.test, parts.validation)
    assert more.train.rows[:8] == parts.train.rows
    everything = {*more.train.rows, *more.test.rows, *more.validation.rows}
    assert len(more.train) == 28
    assert len(everything) == 40
    with pytest.raises(DataError, match="28 are left"):
        load_data(replace(settings, train_rows=29))


def test_boost_refuses_one_checkpoint_twice_and_other_shapes(
    boost_settings: BoostSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    pair = replace(
        boost_settings, model=None, train=None, early=str(tiny_llama), ft=str(tiny_llama)
    )
    with pytest.raises(SpringbackError, match="same weights"):
        boost(pair, tmp_path / "out")
    config = LlamaConfig.from_pretrained(tiny_llama)
    config.intermediate_size = 96
    other = tmp_path / "other"
    LlamaForCausalLM(config).save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (other / name).write_bytes((tiny_llama / name).read_bytes())
    with pytest.raises(ModelError, match="do not fit"):
        boost(replace(pair, ft=str(other)), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"early": "x"}, None),
        ({"metric": "beauty"}, "allowed"),
        ({"mu": (-0.1,)}, "from 0 up"),
        ({"alpha": 0.0}, "allowed"),
        ({"epochs": 1}, "--epochs is 1; boost needs at least 2"),
        ({"model": None}, "either"),
        ({"model": "no-such-model"}, "no model"),
    ],
)
def test_boost_refuses_bad_settings(
    boost_settings: BoostSettings, tmp_path: Path, change: dict[str, Any], words: str | None
) -> None:
    settings = replace(boost_settings, **change)
    if words is None:  # an early checkpoint without its fine-tuned one is no pair, but raw data is
        settings = replace(settings, train=None)
        words = "either"
    with pytest.raises(SpringbackError, match=words):
        boost(settings, tmp_path / "out")


def test_search_ties_go_to_the_smaller_value() -> None:
    """0: 2/3, 0.1: 2/3, 0.2: 1/3 -> 0.  With 0.1 at 3/3 -> 0.1."""
    nll = (1.0, 1.0, 1.0)
    a = Tried(0.0, (True, True, False), nll)
    b = Tried(0.1, (False, True, True), nll)
    c = Tried(0.2, (False, False, True), nll)
    assert choose([a, b, c]).value == 0.0
    assert choose([a, Tried(0.1, (True, True, True), nll), c]).value == 0.1
    assert candidates((0.4, 0.1, 0.1), "mu") == (0.0, 0.1, 0.4)
