"""Pages lead where they say, and name commands and flags that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from markdown_links import ROOT, anchors, faults, images, links, with_links
from springback.cli.app import app

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
#: Those that say what once was.
HISTORY = {"CHANGELOG.md", "docs/log.md"}
#: Its words are lm-eval's own.
NOT_OURS = "lm-eval"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert [*faults(page)] == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "raw.json").touch()
    (tmp_path / "docs" / "other.md").write_text("# One `thing`: it's *so*\n\n# Twice\n\n# Twice\n")
    fine = "[a](other.md#one-thing-its-so) [b](other.md#twice-1) ![c](../raw.json) [d](#here)"
    page = tmp_path / "docs" / "page.md"
    page.write_text(f"# Here\n\n{fine} [e](https://example.org/x) `[code](no.md)`\n")
    assert [*faults("docs/page.md", tmp_path)] == []
    dead = ("no.md", "other.md#three", "#there", "../../out.md", "/docs/other.md", "http://x.org")
    page.write_text("\n".join(f"[x]({target})" for target in dead))
    found = [fault.split(": ", 1)[1].split(" ")[0] for fault in faults("docs/page.md", tmp_path)]
    assert found == [*dead]


def test_code_holds_no_links_and_no_headings() -> None:
    text = "# A\n```\n# b\n[x](y)\n```\n[`c`](d) ![e](f.svg) ``[g](h)``\n"
    assert anchors(text) == {"a"}
    assert links(text) == ["d", "f.svg"]
    assert images(text) == ["f.svg"]
    changed = with_links(text, lambda target: f"../{target}")
    assert changed == text.replace("](d)", "](../d)").replace("](f.svg)", "](../f.svg)")


def test_every_chart_that_is_shown_has_its_result() -> None:
    shown = [
        place
        for page in PAGES
        for target in images((ROOT / page).read_text("utf-8"))
        if (place := (ROOT / page).parent / target).parent.name == "charts"
    ]
    assert shown
    assert [place for place in shown if not (place.parents[1] / "result.json").is_file()] == []


def test_every_command_and_flag_that_a_page_names_is_there() -> None:
    group: Any = typer.main.get_command(app)
    missing = [
        f"{page}: {line}"
        for page in PAGES
        if page not in HISTORY
        for line in commands((ROOT / page).read_text("utf-8"))
        if not is_known(group, line)
    ]
    assert missing == []


def test_a_command_that_is_not_there_is_seen() -> None:
    group: Any = typer.main.get_command(app)
    text = "`springback audti` `springback audit --sede 1`\n```\nspringback boost \\\n --erly\n```"
    listed = commands(text)
    assert [line.split()[1:3] for line in listed] == [
        ["audti"],
        ["audit", "--sede"],
        ["boost", "--erly"],
    ]
    assert not any(is_known(group, line) for line in listed)
    assert is_known(group, "springback theory springs --out x")


def commands(text: str) -> list[str]:
    """Lines of code, and spans of it, that begin with the program and a command."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
    return [one for one in (*spans, *lines) if re.match(r"springback [a-z]", one)]


def is_known(group: Any, line: str) -> bool:
    """Whether a line's command is there, with every flag that it names."""
    words = shlex.split(line.split(" #")[0].split(" && ")[0], posix=True)[1:]
    command: Any = group
    while words and hasattr(command, "commands"):
        command = command.commands.get(words.pop(0))
    if command is None or command.name == NOT_OURS:
        return command is not None
    flags = {flag for one in (command, group) for p in one.params for flag in _names(p)}
    named = [word.split("=")[0] for word in words if word.startswith("--") and " " not in word]
    return all(word in flags for word in named)


def _names(parameter: Any) -> list[str]:
    return ["--help", *parameter.opts, *parameter.secondary_opts]
