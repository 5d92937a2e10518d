"""compress and decompress, from their words to their files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from springback.cli import main


def springback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    """Exit code, output and errors of ``springback WORDS``, in this process."""
    monkeypatch.setattr(sys, "argv", ["springback", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_file_there_and_back(
    tiny_llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = "The king is in the thing. 世界\n".encode() * 4 + b"\xff\x00\xfe"
    (tmp_path / "in").write_bytes(data)
    flags = ("--model", tiny_llama, "--chunk", 16, "--threads", 1, "--verify")
    words = ("compress", tmp_path / "in", *flags, "--out", tmp_path / "sub" / "c")
    code, out, err = springback(capsys, monkeypatch, *words)
    assert code == 0, err
    size = (tmp_path / "sub" / "c").stat().st_size
    assert f"{size} bytes of {len(data)}, {8 * size / len(data):.3f} bits a byte" in out
    assert "3 bytes not as text, verified" in out
    back = ("decompress", tmp_path / "sub" / "c", "--model", tiny_llama, "--out", tmp_path / "back")
    code, out, err = springback(capsys, monkeypatch, *back)
    assert (code, out) == (0, f"{tmp_path / 'back'}: {len(data)} bytes\n"), err
    assert (tmp_path / "back").read_bytes() == data
    code, out, err = springback(capsys, monkeypatch, *back)
    assert code == 2
    assert "add --force" in err
    assert springback(capsys, monkeypatch, *back, "--force")[0] == 0


def test_a_bad_container_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_bytes(b"\x89SBC\x01" + bytes(100))
    words = ("decompress", tmp_path / "c", "--out", tmp_path / "back")
    code, out, err = springback(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "damaged or cut short" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"text")
    monkeypatch.setitem(sys.modules, "constriction", None)  # makes the import fail
    words = ("compress", tmp_path / "in", "--out", tmp_path / "c")
    code, _, err = springback(capsys, monkeypatch, *words)
    assert code == 2
    assert "pip install 'springback[compress]'" in err
