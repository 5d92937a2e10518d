"""The life-cycle study: its statistics by hand, and the whole of it on very small models."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from springback.cli.app import main
from springback.errors import SpringbackError
from springback.jobs.papers.scale.analysis import analyse, verdict
from springback.jobs.papers.scale.job import scale_study, settings_of, shape_of
from springback.jobs.papers.scale.plan import plan
from springback.jobs.papers.scale.settings import CELL, ScaleSettings
from springback.models.from_scratch import Shape, small_tokenizer
from springback.report import build, render


def cell(size: str, parameters: int, volume: int, seed: int, fall: float) -> dict[str, Any]:
    return {
        "size": size,
        "parameters": parameters,
        "volume": volume,
        "seed": seed,
        "neutral_nll": 3.0,
        "gain": 1.0,
        "fall": fall,
        "share_lost": fall,
        "half_dose": None,
        "censored": True,
    }


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_no_control_is_trained_since_no_quantity_reads_one(scale: str) -> None:
    assert settings_of(scale, {"sizes": ("16x1", "32x1")})[1].controls == ()


def test_trends_and_thresholds_by_hand() -> None:
    """fall = 0.1 log2(volume) + noise of the seed, nothing of size: one doubling is 0.1."""
    settings = ScaleSettings(sizes=("16x1", "32x1"), volumes=(16, 32, 64))
    cells = [
        cell(size, parameters, volume, seed, 0.1 * step * (1 + 0.01 * seed) + seed)
        for seed in range(4)
        for size, parameters in (("16x1", 4096), ("32x1", 16384))
        for step, volume in enumerate((16, 32, 64))
    ]
    life = analyse("small", settings, CELL, cells).life_cycle
    assert life is not None
    trends = {(t.quantity, t.axis): t for t in life.trends}
    # Seeds 0 to 3 have slopes 0.1, 0.101, 0.102, 0.103.
    assert trends["fall", "volume"].slope.mean == pytest.approx(0.1015)
    assert trends["fall", "volume"].label == "grows"
    assert trends["fall", "size"].slope.mean == pytest.approx(0, abs=1e-12)
    steps = [s for s in life.steps if s.quantity == "fall" and s.axis == "volume"]
    assert [s.difference.mean for s in steps] == pytest.approx([0.1015, 0.203])
    thresholds = {(t.quantity, t.axis): t.at for t in life.thresholds}
    assert thresholds["fall", "volume"] == 32
    assert thresholds["fall", "size"] is None
    told = verdict(life)
    assert "with volume grows" in told.text


def test_a_size_is_width_and_depth() -> None:
    assert shape_of("64x3") == Shape(64, 3, 4)
    assert shape_of("256x8") == Shape(256, 8, 4)
    assert shape_of("32x2").parameters == 2 * 16 * 32**2
    for wrong in ("64", "x3", "60x2", "0x1", "64x0", "264x2", "-16x2", ""):
        with pytest.raises(SpringbackError, match="WIDTHxLAYERS"):
            shape_of(wrong)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sizes": ("64x3",)}, "two different ones"),
        ({"volumes": "100,200"}, "multiples of the batch of 16"),
        ({"vocabulary": 100}, "256 are the bytes"),
        ({"model": "smollm2-135m"}, "makes models of its own"),
        ({"doses": (3,)}, "multiples of the batch size"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match=words):
        scale_study("small", tmp_path / "out", given)
    assert not (tmp_path / "out" / "runs").exists()
    with pytest.raises(SpringbackError, match="small, paper"):
        settings_of("huge", {})


def test_the_same_texts_make_the_same_tokenizer(tmp_path: Path) -> None:
    texts = [f"the film number {n} was good, the actors too" for n in range(40)]
    for name in ("a", "b"):
        small_tokenizer(texts, 300, tmp_path / name)
    one, two = ((tmp_path / n / "tokenizer.json").read_text() for n in ("a", "b"))
    assert one == two
    assert len(json.loads(one)["model"]["vocab"]) <= 300


def test_every_size_and_volume_is_measured_and_nothing_is_done_twice(tmp_path: Path) -> None:
    for name in ("good", "bad", "text"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "a {name} thing, the {n}th of them"}}\n' for n in range(40))
        )
    given = {
        "align": str(tmp_path / "good.jsonl"),
        "perturb": str(tmp_path / "bad.jsonl"),
        "corpus": str(tmp_path / "text.jsonl"),
        "sizes": ("16x1", "32x1"),
        "volumes": (16, 32),
        "vocabulary": 320,
        "seeds": (0, 1),
        "n_pos": (8,),
        "controls": (),
        "doses": (8,),
        "holdout": 4,
        "prompts": 4,
        "utility_rows": 4,
        "max_tokens": 48,
        "probes": ("margin", "neutral_nll"),
    }
    out = tmp_path / "out"
    before = plan("small", out, given).splitlines()
    assert not out.exists(), "a plan writes nothing"
    # Two seeds of 32 rows of 128 tokens, and 2 x 2 studies of (8 + 8) rows of 48.
    trained = 2 * 32 * 128 + 4 * (8 + 8) * 48
    assert before[3].split()[:7] == ["16x1", "9,216", "2", "0", "4", "0", f"{trained:,}"]
    assert before[5].split()[:6] == ["all", "4", "0", "8", "0", f"{2 * trained:,}"]
    assert re.fullmatch(
        r"what is left: about \d+ min, (\d+\.\d GB|\d+ MB) of memory, .*", before[6]
    )
    data = scale_study("small", out, given).data
    after = plan("small", out, given).splitlines()
    assert after[5].split()[:5] == ["all", "4", "4", "8", "8"]
    later = {**given, "save_every": 9.0}
    assert plan("small", out, later).splitlines()[5].split()[:5] == ["all", "4", "4", "8", "8"]
    life = data["analysis"]["life_cycle"]
    assert [(c["size"], c["volume"], c["n"]) for c in life["cells"]] == [
        (size, volume, 2) for size in ("16x1", "32x1") for volume in (16, 32)
    ]
    assert len(data["measurements"]) >= 2 * 8
    assert len(list((out / "runs").iterdir())) == 4  # a pre-training for each size and seed
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("**/run.json")}
    again = scale_study("small", out, given).data
    assert again["analysis"] == data["analysis"]
    assert {p: p.stat().st_mtime_ns for p in out.glob("**/run.json")} == stamps
    # Measured elsewhere, a seed at a time: the studies' results are enough to go on from.
    apart = tmp_path / "apart"
    for seed in (0, 1):
        alone = tmp_path / f"seed-{seed}"
        scale_study("small", alone, {**given, "seeds": (seed,)})
        for file in alone.glob("studies/*/result.json"):
            (apart / file.relative_to(alone)).parent.mkdir(parents=True)
            shutil.copy(file, apart / file.relative_to(alone))
    assert plan("small", apart, given).splitlines()[5].split()[:5] == ["all", "4", "4", "8", "8"]
    assert scale_study("small", apart, given).data["analysis"] == data["analysis"]
    assert not list(apart.glob("checkpoints/*"))
    page = build(out).read_text(encoding="utf-8")
    assert "Along pre-training" in page
    assert {"life-fall-volume", "life-fall-size"} <= {p.stem for p in (out / "charts").iterdir()}
    assert "## Trends" in (out / "reproduce.md").read_text(encoding="utf-8")
    del data["analysis"]["life_cycle"]["trends"]
    with pytest.raises(SpringbackError, match="run the job again"):
        render(data)


def test_the_plan_of_the_larger_scale_needs_no_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["elasticity-scale", "--plan", "--scale", "paper", "--executor", "ray"]
    monkeypatch.setattr("sys.argv", ["springback", "reproduce", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert re.search(r"^all +20 +0 +100 +0 ", said, re.MULTILINE)
    assert not list(tmp_path.iterdir())
