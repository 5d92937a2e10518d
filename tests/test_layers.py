"""Imports point downward only.

Layers, from the bottom: (1) nouns and errors, standard library only; (2) pure maths and files;
(3) what runs a model; (4) the jobs, and beside them the report; (5) what people touch.
Within a layer modules may use each other as long as no circle arises.  All imports count: those
inside functions and under TYPE_CHECKING too, since they tell what a module knows about.
"""

from __future__ import annotations

import graphlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from import_graph import Module, imports, read_package, unit_of

SOURCE = Path(__file__).resolve().parents[1] / "src" / "springback"

LAYERS: dict[int, tuple[str, ...]] = {
    1: ("core", "errors", "progress", "settings"),
    2: ("results", "data", "stats", "elasticity", "weights", "theory"),
    3: ("models", "training", "decoding", "probes", "inference", "compression", "integrations"),
    4: ("jobs", "report"),
    5: ("cli", "__init__", "__main__"),
}
LAYER = {unit: layer for layer, units in LAYERS.items() for unit in units}

#: The report reads result files and nothing else, so that it can be rebuilt anywhere.
ONLY = {"report": {"core", "errors", "results"}}
#: Pairs in one layer that do not know of each other.
APART = {("jobs", "report")}

_TWO_AND_THREE = {*LAYERS[2], *LAYERS[3]}
#: Where each third-party library may be imported: units, or single files by their dotted name below
#: springback; one that is not listed may be nowhere.
THIRD_PARTY: dict[str, set[str]] = {
    "numpy": {*_TWO_AND_THREE, *LAYERS[4]},
    "scipy": _TWO_AND_THREE,
    "torch": {*LAYERS[3], "jobs.papers.theory.leaf_model"},
    "safetensors": {*LAYERS[3], "weights"},
    "transformers": {*LAYERS[3], "jobs.papers.theory.leaf_model"},
    "tokenizers": {"models"},
    "huggingface_hub": set(LAYERS[3]),
    "accelerate": set(LAYERS[3]),
    "bitsandbytes": {"models"},
    "peft": set(LAYERS[3]),
    "trl": set(LAYERS[3]),
    "gguf": set(LAYERS[3]),
    "constriction": {"compression"},
    "datasets": {*LAYERS[3], "data"},
    "ray": {"integrations"},
    "fsspec": {"integrations"},
    "pyarrow": {*LAYERS[3], "data", "results"},
    "math_verify": {"data.grading.math_worker"},
    "vaderSentiment": _TWO_AND_THREE - {"stats", "elasticity"},
    "fastapi": {"integrations", "cli"},
    "starlette": {"integrations"},
    "uvicorn": {"integrations", "cli"},
    "lm_eval": {"integrations", "cli"},
    "vllm": {"integrations"},
    "mlflow": {"integrations"},
    "wandb": {"integrations"},
    "pydantic": {"results", "jobs", "integrations"},
    "yaml": {"jobs"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "IPython": {"cli"},
    "pandas": {"results"},
}


def own_fault(unit: str, target: str) -> str | None:
    """What is wrong with ``unit`` importing the module ``target`` of ours, if anything."""
    other = unit_of(target)
    if unit == other:
        return None
    if other not in LAYER:
        return f"imports {target}, which has no layer"
    if LAYER[other] > LAYER[unit]:
        return f"(layer {LAYER[unit]}) imports upward: {target} (layer {LAYER[other]})"
    if unit in ONLY and other not in ONLY[unit]:
        return f"may import only {', '.join(sorted(ONLY[unit]))}, not {target}"
    if (unit, other) in APART or (other, unit) in APART:
        return f"imports sideways: {target}"
    return None


def foreign_fault(module: Module, target: str) -> str | None:
    """What is wrong with ``module`` importing somebody else's module ``target``, if anything."""
    top = target.split(".")[0]
    allowed = THIRD_PARTY.get(top, set())
    if top in sys.stdlib_module_names or {module.unit, module.below} & allowed:
        return None
    if top not in THIRD_PARTY:
        return f"imports {top}, which is not listed in THIRD_PARTY"
    return f"imports {top}, allowed in {', '.join(sorted(THIRD_PARTY[top]))} only"


def faults(modules: Mapping[str, Module]) -> list[str]:
    """One line for each import that breaks the rules, each module without a layer, each circle."""
    found: list[str] = []
    uses: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {name: set() for name in modules}
    for module in modules.values():
        if module.unit not in LAYER:
            found.append(f"{module.name} has no layer: add {module.unit} to LAYERS")
            continue
        below = uses.setdefault(module.unit, set())
        for line, target in imports(module, modules):
            ours = target == "springback" or target.startswith("springback.")
            fault = own_fault(module.unit, target) if ours else foreign_fault(module, target)
            if fault:
                found.append(f"{module.name}:{line} {fault}")
            if ours and unit_of(target) != module.unit:
                below.add(unit_of(target))
            elif target in modules and target != "springback":
                files[module.name].add(target)
    return [*found, *circles(uses), *circles(files)]


def circles(uses: Mapping[str, set[str]]) -> list[str]:
    """One line for the first circle among units or files, if there is one.

    A package's ``__init__`` that gathers the names of its files counts as a file: a file of the
    package that imports from it goes in a circle.
    """
    try:
        graphlib.TopologicalSorter(uses).prepare()
    except graphlib.CycleError as error:
        return [f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}"]
    return []


def test_every_module_keeps_to_its_layer() -> None:
    modules = read_package(SOURCE)
    assert {"springback", "springback.core", "springback.results.store"} <= set(modules)
    assert faults(modules) == []


def test_no_module_has_the_name_of_a_public_function() -> None:
    """It would take the function's place in the package once it is imported (docs/decisions.md)."""
    functions = {"audit", "boost", "check", "compare", "compress", "decompress", "demo"}
    functions |= {"extrapolate", "generate", "load", "score"}
    assert not functions & {module.unit for module in read_package(SOURCE).values()}


def with_module(name: str, source: str, **others: str) -> list[str]:
    """The faults of a small package that has ``springback.<name>`` in it."""
    sources = {"core": "", "results": "", "models": "", "jobs.audit": "", "report": "", "cli": ""}
    sources |= {key.replace("__", "."): text for key, text in others.items()} | {name: source}
    modules = {f"springback.{n}": Module(f"springback.{n}", text) for n, text in sources.items()}
    modules["springback"] = Module("springback", "", is_package=True)
    return faults(modules)


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("results", "import springback.models", "imports upward: springback.models"),
        ("results", "from springback import models", "imports upward: springback.models"),
        ("results", "from . import models", "imports upward: springback.models"),
        ("results", "from .models import load", "imports upward: springback.models"),
        ("jobs.demo", "from ..cli import main", "imports upward: springback.cli"),
        ("results", "from springback import audit", "imports upward: springback"),
        ("results", "def f():\n    from springback.cli import main", "results:2 (layer 2)"),
        (
            "results",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import springback.cli",
            "results:3 (layer 2)",
        ),
        ("results", "import importlib\nimportlib.import_module('springback.cli')", "upward"),
        ("jobs.demo", "from springback.report import write", "imports sideways"),
        ("report", "from springback.jobs.audit.job import Audit", "may import only"),
        ("report", "import springback.models", "may import only core, errors, results"),
        ("shiny", "", "springback.shiny has no layer"),
        ("core", "import numpy", "imports numpy, allowed in"),
        ("stats", "import torch.nn.functional as F", "imports torch, allowed in"),
        ("jobs.demo", "from torch import Tensor", "imports torch, allowed in"),
        ("report", "import transformers", "imports transformers, allowed in"),
        ("cli", "import matplotlib.pyplot as plt", "allowed in report only"),
        ("models", "import leftpad", "imports leftpad, which is not listed"),
    ],
)
def test_the_check_finds_a_bad_module(name: str, source: str, fault: str) -> None:
    found = with_module(name, source)
    assert len(found) == 1, found
    assert fault in found[0]


def test_trl_stands_behind_one_module() -> None:
    """Much of it is experimental there, so whatever changes is mended in one place."""
    package = read_package(SOURCE)
    users = {
        name
        for name, module in package.items()
        if any(dotted.split(".")[0] == "trl" for _, dotted in imports(module, package))
    }
    assert users == {"springback.training.preference"}


def test_the_check_finds_a_circle() -> None:
    found = with_module(
        "stats", "from springback import results", results="import springback.stats"
    )
    assert found == ["imports go in a circle: stats -> results -> stats"] or found == [
        "imports go in a circle: results -> stats -> results"
    ]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("results", "import json\nfrom springback.core import Run"),
        ("models", "import torch\nfrom springback import results"),
        ("jobs.demo", "from springback.jobs import audit\nfrom springback.models import load"),
        ("report", "import matplotlib\nimport numpy\nfrom springback.results import read_json"),
        (
            "cli",
            "import typer\nfrom springback import report\nimport springback.jobs.audit.job",
        ),
        ("decoding", "import torch"),
    ],
)
def test_the_check_lets_a_good_module_pass(name: str, source: str) -> None:
    assert with_module(name, source) == []
