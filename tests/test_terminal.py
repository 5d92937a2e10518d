"""What others wrote, names above all, steers no terminal and forges no line or page."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models_fixture import series_result
from report_fixture import audit_result
from springback.cli.app import main
from springback.cli.progress import Bars
from springback.cli.say import say, say_block
from springback.core import printable
from springback.progress import Lines
from springback.report import render
from springback.results.reading import clean

#: Colour, a title, the 8-bit escape, a bell, deletion, overrides of direction, forged lines.
EVIL = "a\x1b[31mb\x1b]0;c\x07d\x9b2Je\x7ff\u202eg\u2066h\u2069i\u2028j\rk\nerror: forged"


def steering(text: str) -> set[str]:
    """The characters of ``text`` that would steer a terminal; line breaks and tabs may stay."""
    odd = {c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp")} - {"\n", "\t"}
    return odd | {c for c in text if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLI", "PDI")}


def test_what_steers_is_spelt_out() -> None:
    shown = printable(EVIL)
    assert not steering(shown)
    assert "\n" not in shown
    assert r"a\x1b[31mb\x1b]0;c\x07d\x9b2Je\x7ff\u202eg\u2066h" in shown
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    for plain in ("für Zoë 好 🙂 → −1", "שלום", "\u200fمرحبا"):
        assert printable(plain) == plain


def test_commands_print_no_name_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say(EVIL, err=True)
    say_block(EVIL)
    out, err = capsys.readouterr()
    assert not steering(out + err)
    assert out.splitlines()[0].endswith(r"error: forged")
    assert len(err.splitlines()) == 1


def test_progress_prints_no_name_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(every=0)
    lines.stage(EVIL, 2)
    lines.advance(note=EVIL)
    lines.note(EVIL)
    err = capsys.readouterr().err
    assert not steering(err)
    assert len(err.splitlines()) == 3


def test_bars_print_no_name_as_it_is_and_read_no_markup() -> None:
    bars = Bars()
    bars.console.file = io.StringIO()
    bars.stage(f"[/nothing] {EVIL}", 2)
    bars.advance(note=f"[/nothing] {EVIL}")
    bars.note(EVIL)
    bars.close()
    shown = bars.console.file.getvalue()
    assert not steering(shown)
    assert "[/nothing]" in shown


@pytest.fixture
def springback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in ``tmp_path``: its exit code, what it prints and its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["springback", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def evil_names(value: Any) -> Any:
    """``value`` with :data:`EVIL` behind every string but those that choose a form."""
    if isinstance(value, dict):
        return {k: v if k in ("kind", "phase") else evil_names(v) for k, v in value.items()}
    if isinstance(value, list):
        return [evil_names(v) for v in value]
    return value + EVIL if isinstance(value, str) and " " in value else value


def test_an_error_is_one_line_whatever_it_names(tmp_path: Path, springback: Any) -> None:
    name = EVIL.replace("\n", "").replace("\r", "")
    (tmp_path / name).mkdir()
    for arguments in (
        ("report", name),
        ("compare", name, name),
        ("generate", name, "hello"),
        ("extrapolate", name, name, "--mu", "0.1", "--out", "x"),
        ("audit", f"{name}.yaml"),
        ("boost", "--task", name),
        ("report", f"{name}\nerror: forged"),
    ):
        code, out, err = springback(*arguments)
        assert code == 2, (arguments, err)
        assert not steering(out + err)
        assert [line[:6] for line in err.splitlines()] == ["error:"]


@pytest.mark.parametrize("make", [audit_result, series_result])
def test_the_page_holds_no_name_as_it_is(make: Any) -> None:
    page = render(evil_names(make()))
    assert steering(page) <= {"\r", "\u2028"}  # which a browser takes for spaces


def test_every_character_that_no_page_may_hold_is_replaced() -> None:
    for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0xD800, 0xDFFF, 0xFFFE, 0x10FFFF, 0x202E):
        kept = chr(code) in "\t\n\r"
        assert clean(f"a{chr(code)}b") == (f"a{chr(code)}b" if kept else "a\ufffdb")
    assert clean("für Zoë 好 🙂 \uffff") == "für Zoë 好 🙂 \ufffd"


def test_a_comparison_prints_no_name_as_it_is(tmp_path: Path, springback: Any) -> None:
    for name in ("a", "b"):
        result = audit_result()
        result["inputs"]["model"] = {"path": name + EVIL}
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    code, out, err = springback("compare", "a", "b")
    assert code == 0, err
    assert not steering(out)
    assert not any(line.startswith("error") for line in out.splitlines())
