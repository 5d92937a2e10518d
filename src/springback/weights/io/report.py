"""Files beside extrapolated weights: springback.json with the report, the model card, configs."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from springback.core import to_jsonable
from springback.results.provenance import package_version
from springback.results.store import write_json, write_text
from springback.weights.io.folder import ADAPTER_CONFIG, inside, readable_json

OutputDtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(OutputDtype)

_Report = TypeVar("_Report")

RECORD = "springback.json"
KIND = "extrapolated"
SCHEMA_VERSION = 1

_COPIED_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken"})
#: Small files of the source that speak of the source: its training state, settings (which may hold
#: a token of the Hub), results, hashes and indexes.
_NOT_COPIED = re.compile(
    f"{RECORD}|{ADAPTER_CONFIG}|trainer_state.json|(training_)?args.json|"
    r"\w+_results.json|.*\.index(\.\w+)?\.json"
)
_TEMPLATES = "additional_chat_templates"
_DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass(frozen=True)
class ExtrapolationReport:
    """What :func:`springback.weights.extrapolate` wrote.

    ``parameters`` counts the elements of float tensors, ``changed_share`` is the share of them
    whose value differs from theta_ft.  ``rounding_error`` is ||written - exact|| / ||mu * delta||
    over all of them: 0 is perfect, 1 means that rounding moved the weights as far as the step
    did.  ``dtypes`` counts written tensors by dtype, ``bytes_written`` is the size of the weight
    files, the hashes are those of :func:`springback.weights.hash_weights` (``other_hashes``: of
    checkpoints in between and of the base of adapters).  ``energy_kept`` is the share of
    ||direction||^2 over matrices that a low-rank step keeps, None for a whole one.
    """

    tensors: int
    parameters: int
    changed_share: float
    rounding_error: float
    dtypes: Mapping[str, int]
    bytes_written: int
    early_hash: str
    ft_hash: str
    out_hash: str
    warnings: tuple[str, ...] = ()
    other_hashes: Mapping[str, str] = field(default_factory=dict)
    energy_kept: float | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """Content hash of everything that went in, by its label."""
        return {"early": self.early_hash, **self.other_hashes, "ft": self.ft_hash}


@dataclass(frozen=True)
class Source:
    """A model that went in: what to call it, its hub id if it lies in the hub's cache."""

    root: Path

    @property
    def hub_id(self) -> str | None:
        cache = self.root.parent.parent.name
        if self.root.parent.name == "snapshots" and cache.startswith("models--"):
            return cache.removeprefix("models--").replace("--", "/")
        return None

    @property
    def name(self) -> str:
        """Hub id and commit, or the folder's name alone: published files show no local path."""
        return f"{self.hub_id}@{self.root.name}" if self.hub_id else self.root.name


@dataclass(frozen=True)
class About:
    """Content of a record and a model card beside the report: settings, sources by label, text."""

    settings: Mapping[str, Any]
    sources: Mapping[str, Source]
    text: tuple[str, ...]


def copy_side_files(root: Path, folder: Path, dtype: str) -> tuple[str, ...]:
    """Copy tokenizer, configs and templates; write ``dtype`` into config.json unless ``auto``.

    Returns warnings.  Raises :class:`ModelError` for a link out of the folder.
    """
    warnings = []
    for name in side_files(root):
        source, target = inside(root, name), folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
        if name != "config.json":
            continue
        config = readable_json(source)
        if dtype != "auto" and isinstance(config, dict):
            if not _set_dtype(config, dtype):
                config["dtype"] = dtype
            write_text(target, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        if isinstance(config, dict) and "auto_map" in config:
            warnings.append(
                "config.json names code of its own (auto_map), which was not copied; "
                "copy the .py files yourself if you trust them"
            )
    return tuple(warnings)


def side_files(root: Path) -> Iterator[str]:
    """Names of the small files that go along, relative to ``root``, sorted."""
    names = [p.name for p in root.iterdir()]
    if (root / _TEMPLATES).is_dir():
        names += [f"{_TEMPLATES}/{p.name}" for p in (root / _TEMPLATES).iterdir()]
    for name in sorted(names):
        wanted = Path(name).suffix in _COPIED_SUFFIXES and not _NOT_COPIED.fullmatch(name)
        if wanted and not (root / name).is_dir():
            yield name


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Write ``changes`` into config.json, into the config of a model inside it where that has them.

    A key that changes to None goes.  Does nothing without a config.json.
    """
    path = folder / "config.json"
    config = readable_json(path) if path.exists() else None
    if not changes or not isinstance(config, dict):
        return
    inner = config.get("text_config")
    for key, value in changes.items():
        if isinstance(inner, dict) and key in inner:
            inner[key] = value
        if key in config or not (isinstance(inner, dict) and key in inner):
            config[key] = value
    config = {key: value for key, value in config.items() if changes.get(key, key) is not None}
    write_text(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _set_dtype(config: dict[str, Any], dtype: str) -> bool:
    """Replace every dtype that is named in a config, those of nested configs too."""
    replaced = False
    for key, value in config.items():
        if key in _DTYPE_KEYS and (value is None or isinstance(value, str)):
            config[key], replaced = dtype, True
        elif isinstance(value, dict):
            replaced = _set_dtype(value, dtype) or replaced
    return replaced


def write_record(
    folder: Path,
    report: Any,
    about: About,
    meta: Sequence[str],
    findings: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """``springback.json`` and the model card (``README.md``) of extrapolated weights or adapters.

    ``report``: a dataclass with ``hashes``, ``out_hash`` and ``warnings``.  ``meta``: lines of the
    card's metadata; ``findings``: lines of its list, without the warnings.  ``settings``: recorded
    behind those of ``about``.
    """
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **about.settings,
        **(settings or {}),
        **{
            label: {"name": source.name, "content_hash": report.hashes[label]}
            for label, source in about.sources.items()
        },
        "content_hash": report.out_hash,
        "report": to_jsonable(report),
        "versions": _versions(),
    }
    write_json(folder / RECORD, record)
    made_with = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        *_card_head(about, meta),
        *_source_table(about.sources, report.hashes, report.out_hash),
        "",
        *(f"- {finding}." for finding in findings),
        *(f"- Warning: {text}." for text in report.warnings),
        f"- Made with {made_with}.",
        "",
    ]
    write_text(folder / "README.md", "\n".join(lines))


def read_report(kind: type[_Report], record: Mapping[str, Any]) -> _Report:
    """The report of class ``kind`` in a ``springback.json``, lists as tuples.

    Raises KeyError or TypeError if it is not of that class.
    """
    stored = record["report"]
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in stored or (f.default, f.default_factory) == (MISSING, MISSING):
            value = stored[f.name]
            values[f.name] = tuple(value) if isinstance(value, list) else value
    if values["rounding_error"] is None:  # JSON has no infinity
        values["rounding_error"] = math.inf
    return kind(**values)


def _versions() -> dict[str, str | None]:
    """Versions of springback, numpy and Python."""
    return {
        "springback": package_version("springback"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def model_meta(folder: Path, about: About) -> list[str]:
    """Metadata of a model's card, a line each."""
    meta = ["library_name: transformers"] if (folder / "config.json").exists() else []
    if _writes_text(folder):
        meta.append("pipeline_tag: text-generation")
    base = about.sources.get("base", about.sources["ft"])
    if base.hub_id:  # the hub refuses a base_model that is not an id of its own
        meta.append(f"base_model: {json.dumps(base.hub_id)}")
    return meta


def _card_head(about: About, meta: Sequence[str]) -> list[str]:
    """Metadata, title and what was done, as lines of a model card."""
    tags = ["tags:", "- springback", "- model-extrapolation"]
    title = f"# {code(about.sources['ft'].name)}, extrapolated"
    return ["---", *meta, *tags, "---", "", title, "", *about.text, ""]


def _source_table(
    sources: Mapping[str, Source], hashes: Mapping[str, str], out_hash: str
) -> list[str]:
    """What went in and came out, with content hashes, as a Markdown table."""
    names = {"ft": "fine-tuned"}
    return [
        "| | model | content hash of the weights |",
        "|---|---|---|",
        *(
            f"| {names.get(label, label)} | {code(source.name)} | `{hashes[label]}` |"
            for label, source in sources.items()
        ),
        f"| this | | `{out_hash}` |",
    ]


def model_findings(report: ExtrapolationReport) -> list[str]:
    """Findings for the card of extrapolated full weights, without the final stop."""
    dtypes = ", ".join(f"{count} {name}" for name, count in sorted(report.dtypes.items()))
    findings = [
        f"Tensors: {dtypes}; {report.changed_share:.2%} of {report.parameters:,} parameters"
        " changed",
        f"Rounding error, as a share of the step: {report.rounding_error:.3g}",
    ]
    if report.energy_kept is not None:
        kept = f"{report.energy_kept:.2%} of the matrices' squared update"
        findings.append(f"The directions kept hold {kept}")
    return findings


def code(name: str) -> str:
    """A name as Markdown code that cannot break out of a table cell."""
    return "`" + name.replace("`", "'").replace("|", "/").replace("\n", " ") + "`"


def _writes_text(folder: Path) -> bool:
    path = folder / "config.json"
    config = readable_json(path) if path.exists() else None
    names = config.get("architectures") if isinstance(config, dict) else None
    return (
        bool(names) and str(names[0]).endswith("ForCausalLM") if isinstance(names, list) else False
    )
