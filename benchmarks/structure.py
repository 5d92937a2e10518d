"""Count the house: files, lines, entries at the top, import arrows and circles between files.

No claim, but the numbers of the table in ARCHITECTURE.md.  ``--source`` counts another state of the
tree, say one unpacked by ``git archive``.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Mapping
from pathlib import Path

from springback.results.provenance import now, provenance
from springback.results.store import write_json

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from import_graph import arrows, read_package, unit_of  # noqa: E402  (found by the line above)

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if first is not None and ast.get_docstring(node, clean=False) is not None:
                lines |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def code_lines(source: str) -> int:
    """Lines with code: no blanks, no comments, no docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(ast.parse(source)))


def circles(uses: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of two and more files that all reach each other by imports."""
    reach = {name: _reached(name, uses) for name in uses}
    groups = {frozenset(n for n in reach[name] if name in reach[n]) for name in uses}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reached(start: str, uses: Mapping[str, set[str]]) -> set[str]:
    seen, open_ = {start}, [start]
    while open_:
        for target in uses[open_.pop()] - seen:
            seen.add(target)
            open_.append(target)
    return seen


def count(source: Path) -> dict[str, object]:
    """The counts of the package that lies in ``source``."""
    modules = read_package(source)
    uses = arrows(modules)
    own = {n: {t for t in targets if t != "springback"} for n, targets in uses.items()}
    top = [p for p in source.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    rooms = {(unit_of(a), unit_of(b)) for a, targets in own.items() for b in targets}
    return {
        "files": len(modules),
        "lines": sum(m.source.count("\n") for m in modules.values()),
        "code_lines": sum(code_lines(m.source) for m in modules.values()),
        "entries_at_the_top": len(top),
        "arrows_between_files": sum(len(targets) for targets in own.values()),
        "arrows_between_entries": sum(a != b for a, b in rooms),
        "circles_of_files": circles(own),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT / "src" / "springback")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/structure.json")
    given = parser.parse_args()
    started = now()
    counts = count(given.source)
    for name, value in counts.items():
        print(f"{name}: {value}")
    write_json(
        given.out, {"provenance": provenance(started=started, finished=now()), "counts": counts}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
