"""The probes of a study: what several of them need is computed once, and none changes another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from springback import probes
from springback.jobs.audit.checks import check_settings
from springback.jobs.audit.rows import PromptFilter, load_data
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.models.stored_model import in_memory
from springback.progress import Silent
from springback.results.store import Store

SHARING = ("margin", "bits_per_byte", "sentiment", "behaviour", "neutral_nll", "rates")


@pytest.fixture
def settings(tiny_llama: Path, tmp_path: Path) -> AuditSettings:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "the thing is a {n}"}}\n' for n in range(6)))
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(4,),
        controls=(),
        doses=(4,),
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        resistance_rows=0,
        probes=SHARING,
        behaviour="vader",
        neutral=str(texts),
        pretraining=str(texts),
        utility_rows=4,
        precision="float32",
    )


def study_of(settings: AuditSettings, out: Path) -> Study:
    settings = check_settings(settings)
    prompt_filter = PromptFilter(settings)
    return Study(
        settings,
        load_data(settings, prompt_filter),
        Store(out),
        Silent(),
        prompt_filter=prompt_filter,
    )


def test_texts_are_sampled_once_and_no_text_is_scored_twice(
    settings: AuditSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        plain = getattr(probes.Meter, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(probes.Meter, name, call)

    counted("sample")
    counted("nll")
    study = study_of(settings, tmp_path)
    found = study.measure(study.start)
    assert calls == {"sample": 1, "nll": 3}  # wanted, unwanted, neutral
    assert found["behaviour"]["value"] == found["sentiment"]["value"]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(f'{{"text": "another {n} of them"}}\n' for n in range(6)))
    calls.clear()
    apart = study_of(replace(settings, pretraining=str(other)), tmp_path)
    different = apart.measure(apart.start)
    assert calls["nll"] == 4
    assert different["neutral_nll"] == found["neutral_nll"]
    assert different["rates"]["value"] != found["rates"]["value"]


def test_every_probe_says_beside_others_what_it_says_alone(
    settings: AuditSettings, tmp_path: Path
) -> None:
    """Bit for bit."""
    together = study_of(settings, tmp_path)
    found = together.measure(together.start)
    assert list(found) == list(SHARING)
    for probe in SHARING[1:]:
        behaviour = "vader" if probe == "behaviour" else None
        alone = replace(settings, probes=("margin", probe), behaviour=behaviour)
        study = study_of(alone, tmp_path)
        assert study.measure(study.start) == {name: found[name] for name in ("margin", probe)}
    rows = together.encode(together.rows_of(settings.neutral))
    start = in_memory(together.start)
    each = probes.neutral_nll(start, rows, together.tokenizer, together.precision)
    assert found["neutral_nll"]["per_example"] == each
