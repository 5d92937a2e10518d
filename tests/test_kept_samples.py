"""An audit's sampled texts: kept only where ``--keep-samples`` asks for it, and shown by dose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from springback import AuditSettings, audit
from springback.errors import SpringbackError
from springback.report import build
from springback.results.store import read_json
from springback.results.texts import read_texts


@pytest.fixture(scope="module")
def settings(tiny_llama: Path) -> AuditSettings:
    return AuditSettings(
        model=str(tiny_llama),
        n_pos=(0, 4),
        controls=(),
        doses=(4, 8),
        seeds=(0,),
        experiments=("rebound",),
        learning_rate=1e-2,
        batch_size=4,
        max_tokens=24,
        holdout=4,
        prompts=4,
        prompt_tokens=6,
        sample_tokens=6,
        probes=("margin", "behaviour"),
        behaviour="refusal",
        precision="float32",
    )


def runs_of(out: Path) -> dict[str, str]:
    return {p.parent.name: p.read_text("utf-8") for p in sorted(out.glob("runs/*/run.json"))}


@pytest.fixture(scope="module")
def without(settings: AuditSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("without") / "out"
    audit(settings, out)
    return out


@pytest.fixture(scope="module")
def kept(settings: AuditSettings, without: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "out"
    audit(replace(settings, keep_samples=True), out)
    return out


def test_without_the_flag_no_text_is_stored_and_nothing_says_so(without: Path) -> None:
    assert not (without / "samples.csv").exists()
    assert all('"texts"' not in run for run in runs_of(without).values())
    assert "keep_samples" not in (without / "result.json").read_text("utf-8")
    assert "keep_samples" not in "".join(runs_of(without).values())
    assert 'id="samples"' not in build(without).read_text("utf-8")


def test_the_flag_keeps_the_texts_of_every_dose_and_changes_no_number(
    kept: Path, without: Path
) -> None:
    asked = read_texts(kept, "samples")
    assert asked is not None
    assert len(asked) == 4
    assert list(asked[0].answers) == [
        "start model",
        "start model, then 4 of the opposite",
        "start model, then 8 of the opposite",
        "aligned on 4",
        "aligned on 4, then 4 of the opposite",
        "aligned on 4, then 8 of the opposite",
    ]
    assert any(answer.text for one in asked for answer in one.answers.values())
    texts = [one.answers["aligned on 4, then 8 of the opposite"].text for one in asked]
    results = [read_json(kept / "runs" / run / "run.json")["results"] for run in runs_of(kept)]
    stored = [r["marks"]["8"]["behaviour"] for r in results if "8" in r.get("marks", {})]
    assert any(len(s["texts"]) == len(texts) for s in stored)
    one, two = (read_json(folder / "result.json") for folder in (kept, without))
    assert one["analysis"]["rebound"] == two["analysis"]["rebound"]
    assert one["analysis"]["card"]["study"] == two["analysis"]["card"]["study"]
    assert all(text not in (kept / "result.json").read_text("utf-8") for text in texts if text)


def test_the_page_has_them_folded_with_a_warning(kept: Path) -> None:
    html = build(kept).read_text("utf-8")
    section = html[html.index('id="samples"') :].partition("</section>")[0]
    assert "these texts may be harmful" in section
    assert section.index("<details") < section.index('class="texts"')
    assert 'href="samples.csv"' in section


def test_runs_without_texts_are_made_anew_and_their_ids_stay(
    settings: AuditSettings, without: Path, kept: Path
) -> None:
    assert not runs_of(without).keys() & {
        name for name, run in runs_of(kept).items() if '"texts"' in run
    }


def test_the_table_goes_when_the_flag_does(settings: AuditSettings, kept: Path) -> None:
    audit(settings, kept)
    assert not (kept / "samples.csv").exists()
    assert not (kept / "samples.parquet").exists()
    assert 'id="samples"' not in build(kept).read_text("utf-8")


def test_keeping_what_nothing_samples_is_refused(settings: AuditSettings, tmp_path: Path) -> None:
    nothing = replace(settings, keep_samples=True, probes=("margin",), behaviour=None)
    with pytest.raises(SpringbackError, match="none of which samples; allowed: with sentiment"):
        audit(nothing, tmp_path / "out")
    assert not (tmp_path / "out").exists()
