"""The notebook of a boost, run by a real kernel; what its cells show is looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

for name in ("trl", "nbclient", "ipykernel", "pandas"):
    pytest.importorskip(name, reason=f"{name} is not installed (extra integrations)")

import nbformat
from nbclient import NotebookClient

# The kernel's client keeps sockets until it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "boost.ipynb"


@pytest.fixture(scope="module")
def cells(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The code cells with their outputs."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    folder = tmp_path_factory.mktemp("notebook")
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "SPRINGBACK_MODEL": str(tiny_llama),
        "SPRINGBACK_STATE": str(folder / "state"),
    }
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=env)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str = "text/html") -> list[str]:
    """What a cell displays, as HTML or as another kind."""
    return ["".join(out.data.get(kind, "")) for out in cell.outputs if "data" in out]


def printed(cell: Any) -> str:
    """Standard output; on standard error tqdm, loaded by Transformers, asks for ipywidgets."""
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_stages_were_drawn_and_left_their_seconds(cells: list[Any]) -> None:
    drawn = shown(cells[0])
    assert any(" s</div>" in text for text in drawn)
    assert not any("<progress" in text for text in drawn), "no bar is left standing"
    assert printed(cells[0]) == "", "nothing but what is displayed"


def test_the_result_shows_its_methods(cells: list[Any]) -> None:
    (page,) = [text for text in shown(cells[0]) if "<table>" in text]
    assert "<b>boost</b> in boost-notebook" in page
    for method in ("fine-tuned", "ME only", "CD only", "EpiCoDe"):
        assert f"<td>{method}</td>" in page


def test_a_wrong_setting_is_said(cells: list[Any]) -> None:
    assert printed(cells[1]).startswith("BoostSettings has no 'alpa' (did you mean alpha?)")


def test_tables_are_frames(cells: list[Any]) -> None:
    (methods,) = shown(cells[2])
    assert "accuracy_low" in methods
    assert "EpiCoDe" in methods
    (questions,) = shown(cells[3], "text/plain")
    sizes = [line.split()[-1] for line in questions.splitlines()[2:]]
    assert {*sizes} <= {"24", "48", "72", "96"}, "every run of the test has its 24 questions"
    assert sizes
    assert "accuracy" in printed(cells[4])
    assert "<boost in boost-notebook: " in printed(cells[4])
