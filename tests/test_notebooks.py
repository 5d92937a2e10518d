"""In a notebook: bars that draw, results that show themselves, settings that are checked."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import springback
from springback import AuditSettings, BoostSettings, SpringbackError
from springback.cli import progress as bars
from springback.compression.settings import CodecSettings
from springback.errors import MissingExtraError
from springback.progress import Silent, default_progress
from springback.results.store import Store
from springback.results.writing import Result

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def committed(name: str) -> Result:
    folder = RESULTS / name
    return Result(folder, json.loads((folder / "result.json").read_text()))


class Shell:
    """What IPython gives in a notebook: a shell with a kernel, and a display with handles."""

    kernel = object()

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str, display_id: bool = False) -> Any:
        self.shown.append(text)
        return types.SimpleNamespace(update=self.shown.append) if display_id else None


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell()
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    vars(ipython).update(get_ipython=lambda: made, display=display)
    vars(display).update(HTML=str, display=made.display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return made


def test_a_notebook_gets_bars_by_default(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars.NotebookBars, "EVERY", 0.0)
    progress = default_progress()
    progress.stage("training <b>", 4)
    progress.advance(3, "loss 1.5")
    progress.note("a & b")
    progress.close()
    begun, advanced, noted, closed = shell.shown
    assert "training &lt;b&gt;" in begun
    assert "<progress value='0' max='4'>" in begun
    assert "<progress value='3' max='4'>" in advanced
    assert "3/4 loss 1.5" in advanced
    assert noted == "<div>a &amp; b</div>"
    assert "training &lt;b&gt;: 0 s" in closed
    assert "<progress" not in closed


def test_a_script_and_a_terminals_shell_without_a_terminal_are_silent(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(shell, "kernel", None, raising=False)
    assert isinstance(default_progress(), Silent)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(default_progress(), Silent)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(default_progress(), bars.Bars)


def test_a_result_is_short_and_shows_its_table() -> None:
    result = committed("gsm8k-boost")
    assert repr(result).startswith("<boost in ")
    assert "\n" not in repr(result)
    assert len(repr(result)) < 600
    page = result._repr_html_()
    assert "<table>" in page
    assert "<td>EpiCoDe</td>" in page
    audit = committed("audit-default")
    assert audit.verdict.split()[0] in audit._repr_html_()


def test_what_a_model_is_called_is_no_html(tmp_path: Path) -> None:
    data = {"kind": "audit", "verdict": {"text": "<script>\x1b[31m"}, "analysis": {}}
    result = Result(tmp_path / "<b>", data)
    assert "<script>" not in result._repr_html_()
    assert "<b></p>" not in result._repr_html_()
    assert "\x1b" not in repr(result) + result._repr_html_()


def test_tables_as_frames() -> None:
    result = committed("gsm8k-boost")
    frame = result.to_frame()
    assert len(frame) == len(result.data["measurements"])
    assert {"probe", "value", "unit", "method", "mu"} <= set(frame.columns)
    methods = result.to_frame("methods").set_index("method")
    first = result.data["analysis"]["methods"][1]
    assert methods.loc[first["method"], "accuracy"] == first["accuracy"]["mean"]
    assert methods.loc[first["method"], "difference_low"] == first["difference"]["low"]


def test_questions_come_from_the_runs(tmp_path: Path) -> None:
    run = springback.Run.of("score", mu=0.5, lam=0.0, part="test", weak=None)
    with Store(tmp_path).locked() as store:
        found = {"correct": [1.0, 0.0, 1.0], "nll": [0.1, 0.2, 0.3], "texts": ["a", "b", "c"]}
        store.commit(run, {**found, "cut": 0, "losses": [1.0]})
    data = {"kind": "boost", "verdict": {"text": ""}, "analysis": {}, "measurements": []}
    frame = Result(tmp_path, data).to_frame("questions")
    assert list(frame["question"]) == [0, 1, 2]
    assert list(frame["correct"]) == [1.0, 0.0, 1.0]
    assert list(frame["nll"]) == [0.1, 0.2, 0.3]
    assert set(frame["mu"]) == {0.5}
    assert "losses" not in frame.columns


def test_a_table_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = committed("audit-default")
    with pytest.raises(SpringbackError, match=r"'method' \(did you mean methods\?\)"):
        audit.to_frame("method")  # type: ignore[arg-type]
    with pytest.raises(SpringbackError, match="has no methods"):
        audit.to_frame("methods")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'springback\[data\]'"):
        audit.to_frame()


def test_cards_and_comparisons_are_short() -> None:
    from springback.results.cards import card_of_result

    card = card_of_result(committed("audit-default").data)
    assert repr(card).startswith("<elasticity card of ")
    assert "\n" not in repr(card)
    assert card._repr_markdown_() == card.to_markdown()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"n_pos": 64}, (64,)),
        ({"seeds": 0}, (0,)),
        ({"seeds": [0, 1]}, (0, 1)),
        ({"seeds": range(3)}, (0, 1, 2)),
        ({"seeds": np.arange(2)}, (0, 1)),
        ({"probes": "margin"}, ("margin",)),
        ({"mix": np.float64(0.5)}, (0.5,)),
        ({"model": Path("a") / "b"}, str(Path("a") / "b")),
        ({"batch_size": np.int64(4)}, 4),
        ({"learning_rate": 1}, 1),
        ({"base": None}, None),
    ],
)
def test_settings_take_what_is_meant(given: dict[str, Any], made: Any) -> None:
    (name,) = given
    value = getattr(AuditSettings(**given), name)
    assert value == made
    assert type(value) is type(made)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_poss": 3}, r"AuditSettings has no 'n_poss' \(did you mean n_pos\?\); allowed: model"),
        ({"n_pos": "64"}, "n_pos is '64'; give one or a tuple of whole numbers"),
        ({"n_pos": (64, 1.5)}, r"n_pos is \(64, 1.5\); give one or a tuple of whole numbers"),
        ({"seeds": None}, "seeds is None"),
        ({"batch_size": 2.5}, "batch_size is 2.5; give a whole number"),
        ({"batch_size": True}, "batch_size is True; give a whole number"),
        ({"learning_rate": "1e-5"}, "learning_rate is '1e-5'; give a number"),
        ({"model": 3}, "model is 3; give a text"),
        ({"base": 3}, "base is 3; give a text or None"),
        ({"fields": "text"}, "fields is 'text'; give a mapping of texts"),
        ({"system_in_user": 1}, "system_in_user is 1; give True or False"),
    ],
)
def test_settings_are_checked_when_they_are_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpringbackError, match=said):
        AuditSettings(**given)
    with pytest.raises(SpringbackError, match=said):
        replace(AuditSettings(), **given)


def test_other_settings_likewise() -> None:
    assert BoostSettings(batch_size="auto").batch_size == "auto"
    with pytest.raises(SpringbackError, match="batch_size is 'many'; give a whole number or 'auto"):
        BoostSettings(batch_size="many")  # type: ignore[arg-type]
    with pytest.raises(SpringbackError, match="chunk is '3'"):
        CodecSettings(chunk="3")  # type: ignore[arg-type]
    settings = springback.GenerateSettings(stop="\n", on_text=print)  # type: ignore[arg-type]
    assert settings.stop == ("\n",)


def test_settings_that_were_right_stay_the_same() -> None:
    same = AuditSettings(seeds=[0, 1, 2], n_pos=[64, 128, 256])  # type: ignore[arg-type]
    assert same == AuditSettings()
    assert hash(same.n_pos) == hash(AuditSettings().n_pos)


def test_checking_loads_nothing() -> None:
    code = (
        "import sys, springback; springback.AuditSettings(seeds=0); "
        "print(*{'pydantic', 'numpy', 'torch', 'rich', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
