"""The charts of ``docs/results`` that pages show: drawn from the results beside them.

``make charts`` draws them anew, where the drawing has changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from markdown_links import ROOT, in_repository, is_external, links

RESULTS = ROOT / "docs" / "results"


def _linked() -> dict[str, set[str]]:
    charts: dict[str, set[str]] = {}
    for page in sorted(ROOT.glob("docs/**/*.md")):
        name = page.relative_to(ROOT).as_posix()
        for target in links(page.read_text(encoding="utf-8")):
            place = ROOT / in_repository(name, target)
            if not is_external(target) and place.parent.name == "charts":
                charts.setdefault(place.parents[1].name, set()).add(place.name)
    return charts


#: Folder in ``docs/results`` -> names of its charts that some page shows or links.
LINKED = _linked()


def draw(name: str, out: Path) -> Path:
    """Draws the charts of ``docs/results/name`` in ``out``, and returns their folder."""
    from springback.report import build

    shutil.copy(RESULTS / name / "result.json", out)
    build(out)
    return out / "charts"


if __name__ == "__main__":
    for name, charts in LINKED.items():
        with TemporaryDirectory() as out:
            drawn = draw(name, Path(out))
            for chart in sorted(charts):
                shutil.copy(drawn / chart, RESULTS / name / "charts")
