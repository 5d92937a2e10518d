"""Probes over several processes: the values of one process, to the bit."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from springback.core import Row
from springback.errors import SpringbackError
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.encoding import encode_rows, scoring_groups
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.probes import Meter, Precision, SampleSettings, SharedMeter, Workers
from springback.progress import Silent
from springback.results.store import Store


def moved(model: Any) -> Any:
    """Another model of the same shape."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return other


def ends(process: int) -> bool:
    """Whether it ends within half a minute; one that nobody has reaped has no command line."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if not Path(f"/proc/{process}/cmdline").read_bytes():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_rows_of_some_groups_make_these_groups_again(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(resolve(tiny_llama))
    texts = [Row("text", "", "the thing " * (1 + n * n % 7)) for n in range(20)]
    rows = encode_rows(tokenizer, texts, 40)
    groups = scoring_groups(rows, 64)
    assert len(groups) > 5
    some = sorted(i for group in groups[1::3] for i in group)
    again = scoring_groups([rows[i] for i in some], 64)
    assert [[some[i] for i in group] for group in again] == groups[1::3]


def test_three_processes_measure_what_one_measures(tiny_llama: Path, tmp_path: Path) -> None:
    checkpoint, precision = resolve(tiny_llama), Precision(batch_tokens=64)
    start, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    texts = [Row("text", "", f"the thing {n} " + "and more " * (n % 5)) for n in range(11)]
    rows = encode_rows(tokenizer, texts, 40)
    prompts = [list(row.ids[: 3 + n % 3]) for n, row in enumerate(rows)]
    sampling = SampleSettings(new_tokens=6, seed=3, batch_size=2)
    one = Meter(start, tokenizer, precision)
    three = SharedMeter(start, tokenizer, precision, Workers(3, checkpoint, tmp_path / "scratch"))
    try:
        for model in (start, moved(start), start):
            for meter in (one, three):
                meter.hold(model)
            assert three.nll(rows) == one.nll(rows)
            assert three.nll(rows[:1]) == one.nll(rows[:1]), "two of three have nothing to do"
            assert three.kl(rows) == one.kl(rows)
            assert three.reverse_kl(rows) == one.reverse_kl(rows)
            assert three.sample(prompts, sampling) == one.sample(prompts, sampling)
        assert not list((tmp_path / "scratch").iterdir())
        # Each really did its part: without one of them there is nothing.
        (worker,) = three.pools[1]._processes
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SpringbackError, match="one of 3 measuring processes ended"):
            three.nll(rows)
        (other,) = three.pools[0]._processes
    finally:
        three.close()
    assert ends(other), "they end with their meter"


LEFT_BEHIND = """
import sys, time
from pathlib import Path
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.probes import Precision, SharedMeter, Workers

if __name__ == "__main__":
    checkpoint = resolve(sys.argv[1])
    workers = Workers(2, checkpoint, Path(sys.argv[2]))
    meter = SharedMeter(
        load_model(checkpoint), load_tokenizer(checkpoint), Precision(), workers
    )
    meter.hold(meter.start)
    print(*meter.pools[0]._processes, flush=True)
    time.sleep(60)
"""


def test_no_process_outlives_the_one_that_started_it(tiny_llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LEFT_BEHIND)
    command = [sys.executable, str(script), str(tiny_llama), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        worker = int(first.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        first.kill()
    assert ends(worker)


def test_a_study_measures_over_processes_as_in_one(tiny_llama: Path, tmp_path: Path) -> None:
    one = check_settings(
        AuditSettings(
            model=str(tiny_llama),
            n_pos=(8,),
            controls=(),
            doses=(8,),
            seeds=(0,),
            max_tokens=48,
            holdout=24,
            prompts=40,
            prompt_tokens=6,
            sample_tokens=6,
            utility_rows=6,
            experiments=("rebound",),
            probes=("margin", "kl", "reverse_kl", "bits_per_byte", "neutral_nll", "choice"),
        )
    )
    found, ids = [], []
    for settings in (one, replace(one, probe_processes=2)):
        prompt_filter = PromptFilter(settings)
        study = Study(
            settings,
            load_data(settings, prompt_filter),
            Store(tmp_path),
            Silent(),
            prompt_filter=prompt_filter,
        )
        try:
            found.append([study.measure(model) for model in (study.start, moved(study.start))])
        finally:
            study.close()
        ids.append(study.probe_inputs())
    assert found[0] == found[1]
    assert found[0][0]["margin"] != found[0][1]["margin"]
    assert ids[0] == ids[1], "a run's id does not say how many processes measured"


def test_processes_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpringbackError, match="probe-processes"):
        check_settings(AuditSettings(probe_processes=0))
    with pytest.raises(SpringbackError, match="--probe-processes 2 with --lora-rank 4"):
        check_settings(AuditSettings(probe_processes=2, lora_rank=4))
