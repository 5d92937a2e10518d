"""What mkdocs does beyond ``docs/``: pages that stand elsewhere, pages made of the code, checks.

``make docs`` runs it in an environment of its own, with the core of springback, without torch.

- ``ARCHITECTURE.md`` and its like become pages, and files of the repository that a page links are
  copied along (results/, benchmarks/ and so on are otherwise left out).
- The commands' page is made of their ``--help``, the page of Python's names of their docstrings.
- A page that would load anything from elsewhere ends the build.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from markdown_links import in_repository, is_external, links, with_links

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

#: Path from the repository's root -> page of the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
COMMANDS, PYTHON = "reference/commands.md", "reference/python.md"

#: The public names by section of their page; all of them are there.
NAMES = {
    "Jobs": ("audit", "AuditSettings", "boost", "BoostSettings", "check", "CheckSettings"),
    "Results and errors": ("Result", "Measurement", "SpringbackError"),
    "Models": ("load", "Loaded", "generate", "GenerateSettings", "score", "ContrastModel"),
    "Weights": ("extrapolate",),
    "Compression": ("compress", "decompress", "CodecSettings"),
    "Nouns": ("Checkpoint", "Row", "Slice", "Recipe", "Run", "Trajectory"),
}
_LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon|modulepreload))[^>]*"
    r"\bhref=[\"']?(?:https?:)?//[^\s\"'>]+"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that ``docs/`` does not hold, and of the other files those that a page links."""
    for name, uri in PAGES.items():
        if uri != "index.md":
            text = (ROOT / name).read_text(encoding="utf-8")
            files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, COMMANDS, content=commands_page()))
    files.append(File.generated(config, PYTHON, content=python_page()))
    linked = {place for page in files.documentation_pages() for place in _linked(page)}
    kept = {"docs/results/README.md", *linked}
    for file in [*files]:
        if file.src_uri.startswith("results/") and f"docs/{file.src_uri}" not in kept:
            files.remove(file)
    for place in sorted(linked):
        if not place.startswith("docs/") and place not in PAGES and (ROOT / place).is_file():
            copied = File.generated(config, f"files/{place}", abs_src_path=str(ROOT / place))
            files.append(copied)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository, as links between pages of the site."""
    source = _source(page.file.src_uri)
    if source is None:
        return markdown

    def here(target: str) -> str:
        if is_external(target) or target.startswith("#"):
            return target
        place, anchor = in_repository(source, target), target.partition("#")[2]
        uri = PAGES.get(place) or (place[5:] if place.startswith("docs/") else f"files/{place}")
        shown = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{shown}#{anchor}" if anchor else shown

    return with_links(markdown, here)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Nothing is loaded from elsewhere: no font, no script, no picture."""
    if loaded := _LOADS.search(output):
        raise PluginError(f"{page.file.src_uri} would load from elsewhere: {loaded[0]}")
    return output


def _source(uri: str) -> str | None:
    """The path from the repository's root of a page; None of one that is made of the code."""
    if uri in (COMMANDS, PYTHON):
        return None
    elsewhere = {page: name for name, page in PAGES.items() if page != "index.md"}
    return elsewhere.get(uri, f"docs/{uri}")


def _linked(file: File) -> Iterator[str]:
    """Paths from the repository's root that a page links."""
    if source := _source(file.src_uri):
        for target in links(file.content_string):
            if not is_external(target) and not target.startswith("#"):
                yield in_repository(source, target)


def commands_page() -> str:
    """Every command with its ``--help``."""
    import typer.main

    from springback.cli.app import app

    lines = [
        "# Commands",
        "",
        "What each command's `--help` says. Flags that all commands take, study files, exit codes:",
        "[commands, files, exit codes](../guide/commands.md).",
    ]
    for name, text in _helps(typer.main.get_command(app), "springback"):
        lines += ["", f"## {name}", "", "```text", text.rstrip(), "```"]
    return "\n".join([*lines, ""])


def _helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Name and help of a command and of those below it."""
    context = type(command).context_class(command, info_name=name.split()[-1], parent=parent)
    context.max_content_width = context.terminal_width = 80
    yield name, command.get_help(context)
    for part, below in getattr(command, "commands", {}).items():
        yield from _helps(below, f"{name} {part}", context)


def python_page() -> str:
    """Every public name with its docstring, and the settings of the classes that have some."""
    import springback

    listed = [name for names in NAMES.values() for name in names]
    if sorted(listed) != sorted(set(springback.__all__) - {"__version__"}):
        raise PluginError("NAMES in tests/site_hooks.py are not the public names of springback")
    lines = [
        "# Python API",
        "",
        "The public names of the package. How they are used together:",
        "[From Python](../guide/python.md).",
    ]
    for section, names in NAMES.items():
        lines += ["", f"## {section}"]
        for name in names:
            lines += ["", *_entry(name, springback._HOMES[name])]
    return "\n".join([*lines, ""])


def _entry(name: str, home: str) -> list[str]:
    settings = _settings_of(name)
    lines = [
        f"::: {home}.{name}",
        "    options:",
        f"      heading: springback.{name}",
        f"      toc_label: {name}",
    ]
    if settings:
        alone = ("members", "show_signature", "separate_signature")
        lines += [*(f"      {option}: false" for option in alone), "", *_table(settings)]
    return lines


def _settings_of(name: str) -> Any:
    """The class with the settings of a public name, one that loads no torch; None without any."""
    import springback
    from springback.settings import GenerateOptions

    if name == "GenerateSettings":
        return GenerateOptions
    return getattr(springback, name) if name.endswith("Settings") else None


def _table(settings: Any) -> list[str]:
    """Every setting by group, with its default and what its flag's help says."""
    from springback.settings import owner_of

    lines, group = ["| setting | default | |", "|---|---|---|"], None
    for field in dataclasses.fields(settings):
        if (title := owner_of(settings, field.name).group) != group:
            group = title
            lines.append(f"| **{title}** | | |")
        default = "{}" if field.default is dataclasses.MISSING else repr(field.default)
        text = re.sub(r"([|<\[])", r"\\\1", field.metadata.get("help", ""))
        lines.append(f"| `{field.name}` | `{default}` | {text} |")
    return lines
