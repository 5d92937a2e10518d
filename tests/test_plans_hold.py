"""Plans: stages, memory by part, this machine timed, memory errors explained, what fits where."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from springback import inference
from springback.cli.app import app
from springback.decoding.lambda_grid import BLOCK_LOGITS
from springback.errors import SpaceError, SpringbackError
from springback.jobs import calibrate, fits, speeds
from springback.jobs.audit.job import audit
from springback.jobs.audit.job import plan as audit_plan
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost import plan_at_hand, transformers_engine
from springback.jobs.boost.job import boost
from springback.jobs.boost.plan import PRECHECK_MUS, Load, Tokens, phases_of, rows_of, stages
from springback.jobs.boost.precheck import ROWS
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.hardware import MACHINES, architecture
from springback.jobs.plan_lines import memory_lines
from springback.models import memory_parts
from springback.models.memory import Architecture, read_architecture
from springback.models.memory_parts import (
    Answering,
    Scored,
    Training,
    audit_parts,
    boost_parts,
    pair_weights,
    scoring_parts,
    total,
    training_parts,
)
from springback.models.out_of_memory import is_out_of_memory, memory_explained
from springback.probes.along_mu import MUS
from springback.probes.likelihood import CHUNK, Precision
from springback.training.memory import chunked_loss, microbatches

TOY = Architecture("toy", 1e9, 10, 100, 400, 100, 50, 50, 1000)
DOCS = Path(__file__).resolve().parents[1] / "docs"


def settings_of(tiny_llama: Path, **changes: Any) -> BoostSettings:
    small = BoostSettings(
        model=str(tiny_llama),
        train="problems",
        validation="problems",
        test="problems",
        train_rows=8,
        validation_rows=4,
        test_rows=6,
        max_new_tokens=8,
        precision="float32",
    )
    return replace(small, **changes)


def test_constants_are_those_of_the_code_that_they_describe() -> None:
    assert memory_parts.AT_ONCE == microbatches.AT_ONCE
    assert 2 * int(microbatches.AT_ONCE * microbatches.IN_TWO) == memory_parts.IN_TWO
    assert memory_parts.LOSS_CHUNK == chunked_loss.CHUNK
    assert Precision().batch_tokens == memory_parts.SCORED_TOKENS
    assert memory_parts.SCORED_CHUNK == CHUNK
    assert memory_parts.BLOCK_LOGITS == BLOCK_LOGITS
    assert memory_parts.KEPT_STATES == transformers_engine.STATES
    assert (len(MUS), ROWS) == (PRECHECK_MUS, 64)


def test_stages_of_a_boost_by_hand() -> None:
    """Mu 0 and 2 more, one lambda of each; 5 questions in batches of 2, answers of 4 and at most 7
    tokens, prompts of 10, with their solutions 20."""
    settings = BoostSettings(
        early="a", ft="b", mu=(0.1, 0.2), lam=(1.0,), lam_cd=(0.5,), batch_size=2,
        ablate_weak=("early",), gate="top:0.9",
    )  # fmt: skip
    load = Load(
        {"validation": 5, "test": 3, "train": 0},
        Tokens(10, 12), Tokens(4, 7), Tokens(20, 25), Tokens(0, 0),
    )  # fmt: skip
    by_name = {stage.name: stage for stage in stages(settings, load)}
    assert "training" not in by_name
    assert by_name["pre-check"].scored == 12 * 5 * 20
    mu = by_name["search of mu"]
    assert (mu.arms, mu.questions, mu.passes, mu.decoded) == (3, 5, 3 * 3 * 7, 3 * 5 * 4)
    assert mu.scored == 5 * (3 * 10 + 3 * 20)
    assert by_name["search of lambda"].passes == 1 * 2 * 3 * 7
    assert by_name["further searches"].arms == 2
    assert by_name["test, two models"].arms == 4
    assert by_name["test, two models"].decoded == 4 * 2 * 3 * 4
    joint = {s.name: s for s in stages(replace(settings, search="joint"), load)}
    assert joint["search of both"].arms == 3 * 1
    narrow = {s.name: s for s in stages(replace(settings, narrow=1), load)}
    assert narrow["search of mu"].arms == 2
    trained = replace(settings, early=None, ft=None, model="m", train="t", epochs=3)
    learned = replace(load, rows={**load.rows, "train": 8}, learned=Tokens(30, 40))
    assert stages(trained, learned)[0].trained == 3 * 8 * 30


def test_parts_by_hand() -> None:
    strong, weak = pair_weights(TOY, "bfloat16")
    assert strong.bytes == weak.bytes == 2e9
    base, adapters = pair_weights(TOY, "float32", 1e6)
    assert (base.bytes, adapters.bytes) == (4e9, 16e6)
    few = Answering(3, 5, 2, Scored(10))
    parts = {p.name: p.bytes for p in boost_parts(TOY, "float32", few)}
    assert parts["hidden states kept"] == 2 * 10 * 100 * 4
    many = {p.name: p.bytes for p in boost_parts(TOY, "float32", Answering(30, 600, 100))}
    assert many["caches"] == 2 * 10 * 30 * 700 * 100 * 4
    assert "hidden states kept" not in many
    (logits, _) = scoring_parts(TOY, "bfloat16", 2, Scored(400, 0.5))
    assert logits.bytes == 3 * 200 * 1000 * 2 + 6 * 200 * 1000 * 4
    trained = {p.name: p.bytes for p in training_parts(TOY, Training(8, 64, True))}
    assert (trained["weights in training"], trained["moments"]) == (4e9, 8e9)
    assert trained["weights in bf16"] == 2 * (1e9 - 1000 * 100)
    assert trained["logits of the loss"] == 224 * 1000 * 6
    assert Training(8, 64, True).at_once == 256
    assert Training(16, 320, True).at_once == 384
    assert Training(16, 320, True, cpu=False).at_once == 16 * 320
    audited = {p.name: p.bytes for p in audit_parts(TOY, Training(8, 64, False), 100)}
    assert audited["start model"] == 4e9
    assert audited["start distribution"] == 100 * 1000 * 4
    lora = {p.name: p.bytes for p in training_parts(TOY, Training(8, 64, False, 4))}
    assert lora["gradients"] == 4 * TOY.adapter_weights(4)
    rounded = Training(8, 64, False, dtype="bfloat16")
    audited = {p.name: p.bytes for p in audit_parts(TOY, rounded)}
    assert audited["start model"] == audited["measured model"] == 2e9
    assert audited["weights in training"] == 4e9
    adapter = {p.name: p.bytes for p in audit_parts(TOY, replace(rounded, rank=4))}
    assert adapter["weights in training"] == 2e9  # the start model's own, held once
    assert "start model" not in adapter
    assert "measured model" not in adapter


def test_a_boost_at_hand_is_planned_without_its_weights(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPRINGBACK_STATE", str(tmp_path / "state"))
    made = plan_at_hand.plan(settings_of(tiny_llama))
    assert made.stages[0].name == "training"
    assert made.stages[-1].questions == 6
    assert len(made.seconds) == len(made.stages)
    shape = read_architecture(tiny_llama)
    weights = {p.name: p.bytes for p in made.phases["searching and testing"]}
    assert weights["strong model"] == weights["weak model"] == 4 * shape.weights
    assert made.memory == max(map(total, made.phases.values()))
    assert "by a quick product" in made.speeds
    text = str(made)
    for words in ("memory of training, by part", "strong model", "all of it", "free:"):
        assert words in text
    assert list(tmp_path.iterdir()) == []  # no test set was opened, nothing was written


def test_both_commands_plan_in_both_spellings(tiny_llama: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    flags = ["--model", str(tiny_llama), "--train", "problems", "--validation", "problems"]
    flags += ["--test", "problems", "--validation-rows", "4", "--test-rows", "4"]
    for line in (["boost", "plan", *flags], ["boost", "--plan", *flags]):
        done = run(app, line)
        assert done.exit_code == 0, done.output
        assert "memory of searching and testing, by part:" in done.output
    out = ["--model", str(tiny_llama), "--out", str(tmp_path / "out")]
    for line in (["audit", "plan", *out], ["audit", "--plan", *out]):
        done = run(app, line)
        assert done.exit_code == 0, done.output
        assert "memory of an audit, by part:" in done.output
    assert not (tmp_path / "out").exists()
    for line, words in (
        (["boost", "twice"], "cannot read the study file 'twice'"),
        (["boost", "--size", "7B"], "springback boost plan --size"),
        (["audit", "--calibrate"], "springback audit plan --calibrate"),
        (["boost", "plan", "--size", "7B", "--hardware", "abacus"], "--hardware is abacus"),
        (["boost", "plan", "--size", "70B", "--gpus", "1"], "--gpus is 1"),
    ):
        error = run(app, line).exception
        assert isinstance(error, SpringbackError)
        assert words in str(error)


def test_sizes_are_planned_without_torch() -> None:
    code = (
        "import sys; from springback.cli.app import app\n"
        "app(['boost', '--plan', '--size', '1B,70B', '--price', '2'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "70B full" in done.stdout
    assert "70B adapters" in done.stdout
    assert "memory, by part" in done.stdout


def test_an_audits_memory_is_that_of_its_parts(tiny_llama: Path, tmp_path: Path) -> None:
    settings = AuditSettings(model=str(tiny_llama), seeds=(0,), precision="float32")
    made = audit_plan(settings, tmp_path / "out")
    assert made.memory == total(made.parts)
    assert {"start model", "gradients", "moments", "libraries"} <= {p.name for p in made.parts}
    lines = memory_lines({"an audit": made.parts}, made.memory - 1_000_000)
    assert lines[-1].endswith("1 MB too little")


def test_this_machine_is_timed_once_and_plans_say_so(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    monkeypatch.setattr(calibrate, "WRITTEN", 1 << 16)
    assert speeds.kept_speeds("float32", "float32") is None
    timed = calibrate.calibrate(read_architecture(tiny_llama, "tiny"), "float32")
    for value in (timed.train, timed.score, timed.step, timed.row, timed.disk):
        assert 0 < value < math.inf
    assert speeds.known_speeds("float32") == timed
    assert "measured on " in timed.source
    assert timed.source.count("tiny") == 1
    assert speeds.kept_speeds("bf16-mixed", "float32") is None
    assert "measured on " in str(plan_at_hand.plan(settings_of(tiny_llama)))
    (kept,) = (tmp_path / "speeds").iterdir()
    for damage in ("{", json.dumps({"train": -1}), json.dumps([1])):
        kept.write_text(damage)
        assert speeds.kept_speeds("float32", "float32") is None
        assert "by a quick product" in speeds.known_speeds("float32").source


def test_a_plan_by_size_is_of_this_machine_once_it_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGBACK_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    monkeypatch.setattr(calibrate, "WRITTEN", 1 << 16)
    for command in ("boost", "audit"):
        done = CliRunner().invoke(app, [command, "plan", "--size", "1M", "--calibrate"])
        assert done.exit_code == 0, done.output
        assert "measured on " in done.output
        assert "two layers of 1M" in done.output
    elsewhere = ["boost", "plan", "--size", "1M", "--calibrate", "--hardware", "h200"]
    assert "assumed: 35 %" in CliRunner().invoke(app, elsewhere).output


def test_running_out_of_memory_says_what_was_needed() -> None:
    def ended(error: BaseException, cause: BaseException | None = None) -> SpaceError:
        with pytest.raises(SpaceError) as caught, memory_explained("boost", parts):
            raise error from cause
        return caught.value

    def parts() -> memory_parts.Parts:
        return (*boost_parts(TOY, "float32", Answering(8, 50, 50)), memory_parts.libraries())

    torch_words = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
    for error in (MemoryError(), RuntimeError(torch_words), ValueError("so")):
        cause = MemoryError() if isinstance(error, ValueError) else None
        text = str(ended(error, cause))
        for words in ("it needs 8.4 GB", "strong model 4.0 GB", "free on", "--dtype bfloat16",
                      "--batch-size", "--device-map auto", "springback doctor"):  # fmt: skip
            assert words in text
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match=r"shapes"), memory_explained("boost", parts):
        raise RuntimeError("shapes differ")

    def broken() -> memory_parts.Parts:
        raise ValueError

    with pytest.raises(SpaceError, match=r"not enough memory: "), memory_explained("audit", broken):
        raise MemoryError


def test_jobs_and_generate_explain_it(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    loaded = inference.load(tiny_llama)
    monkeypatch.setattr(inference, "decode_fast", full)
    with pytest.raises(SpaceError, match=r"generate: not enough memory: it needs .*caches"):
        inference.generate(loaded, ["a", "b"])
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(SpaceError, match=r"generate: not enough memory: it needs .*strong model"):
        inference.load(tiny_llama)
    with pytest.raises(SpaceError, match=r"boost: not enough memory: it needs .*--batch-size"):
        boost(settings_of(tiny_llama), tmp_path / "boost")
    study = AuditSettings(model=str(tiny_llama), seeds=(0,), precision="float32")
    with pytest.raises(SpaceError, match=r"audit: not enough memory: it needs .*--lora-rank"):
        audit(study, tmp_path / "audit")


def test_the_table_of_what_fits_where_is_the_plans() -> None:
    assert "\n".join(fits.table()) in (DOCS / "costs.md").read_text(encoding="utf-8")
    assert fits.where(20e9) == "24"
    assert fits.where(21e9) == "80"
    assert fits.where(400e9) == "4 x 141"
    small, large = (fits.largest_here(n, "cuda") for n in (4_000_000_000, 400_000_000_000))
    assert small["audit, all weights"] == "135M"
    assert large["boost, full checkpoints"] == "70B"
    assert fits.largest_here(1, "cpu") == dict.fromkeys(small, "none")


def test_a_boost_by_size_is_the_parts_of_the_table() -> None:
    shape = architecture("8B")
    parts = phases_of(BoostSettings(), shape, rows_of(BoostSettings()), "bfloat16", cpu=False)
    assert total(parts["searching and testing"]) == total(
        fits.jobs("bfloat16", cpu=False)["boost, full checkpoints"](shape)
    )
    assert MACHINES["h200"].memory == fits.CARDS[-1] * 1e9
