"""Where a job may write: over nothing that it reads, and over no other study's results."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from springback.core import Slice, to_jsonable
from springback.errors import StoreError
from springback.results.redaction import without_secrets
from springback.results.store import Store, read_json, require_file
from springback.results.texts import QUESTIONS, SAMPLES
from springback.settings import names_changing

RESULT_FILE = "result.json"
#: What every job writes at the top of its folder.
_TEXTS = tuple(f"{name}.{end}" for name in (QUESTIONS, SAMPLES) for end in ("csv", "parquet"))
_WRITTEN = (RESULT_FILE, "report.html", "card.json", "card.md", "card.html", *_TEXTS)


def require_apart(out: str | Path, settings: Any, names: Collection[str], *written: str) -> None:
    """Raise :class:`StoreError` where ``out`` can be no folder for results, or where a job in it
    would write over what it reads.

    ``names``: the settings that name models and data, one or several; those that are no path of
    this machine are passed over.  ``written``: what is written in ``out`` beside the result.
    """
    if not str(out):
        raise StoreError("--out is empty; name a folder")
    place = Path(os.path.realpath(out))
    outputs = [place / name for name in (*_WRITTEN, *written)]
    for name in names:
        value = getattr(settings, name) or ()
        for source in (value,) if isinstance(value, str) else value:
            for path in _paths(source):
                if path == place or any(map(path.is_relative_to, outputs)):
                    raise StoreError(
                        f"--out {out} would write over --{name.replace('_', '-')} {source}, which "
                        "is read; choose another folder"
                    )
    Store(out).require_place()


def _paths(source: str) -> Iterator[Path]:
    """Files and folders of this machine that ``source`` names: joined, with conditions, a split."""
    for text in {source, *(re.split(r"[?#]", part)[0] for part in source.split("+"))}:
        if text and "\0" not in text and os.path.exists(text):
            yield Path(os.path.realpath(text))


def require_same_kind(store: Store, kind: str) -> Mapping[str, Any]:
    """The inputs of the results in a job's folder; empty where there are none yet.

    Raises :class:`StoreError` where they are of another kind of job.
    """
    path = store.root / RESULT_FILE
    require_file(path)
    if not path.exists():
        return {}
    earlier = read_json(path)
    there = earlier.get("kind") if isinstance(earlier, dict) else None
    if there != kind:
        shown = f"of kind {there}" if isinstance(there, str) else "of no springback job"
        raise StoreError(
            f"{path} is a result {shown}, and {kind} would write over it; choose another --out"
        )
    inputs = earlier.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def require_same_study(
    store: Store,
    kind: str,
    settings: Any,
    models: Mapping[str, str],
    data: Mapping[str, Slice | None],
) -> None:
    """Raise :class:`StoreError` where the folder holds results of another model, other data or
    another training.

    ``models``: by setting the content hash of the weights.  More seeds, doses and probes of the
    same study are no other one.  They may take more rows of the same data too, or hold out others,
    so that data is another only if it is named otherwise as well, or all settings are the same.
    """
    earlier = require_same_kind(store, kind)
    before = earlier.get("settings")
    if not isinstance(before, dict):
        return
    now = without_secrets(to_jsonable(settings))
    for name in names_changing(type(settings), "training"):
        if name in ("model", "train"):  # compared by content: copies and moved paths go on
            continue
        if name in before and before[name] != now.get(name):
            raise StoreError(
                f"{store.root} holds the results of another study: --{name.replace('_', '-')} was "
                f"{before[name]}, and now is {now.get(name)}; choose another --out, or remove that "
                "folder"
            )
    kept = {name: _named(before, name) for name in before if name != "seeds"}
    edited = kept == {name: _named(now, name) for name in now if name != "seeds"}
    hashes = {name: part.content_hash for name, part in data.items() if part is not None}
    for name, given in {**models, **hashes}.items():
        part = earlier.get(name)
        known = part.get("content_hash") if isinstance(part, dict) else None
        if known in (None, given):
            continue
        if name in models or edited or _named(before, name) != _named(now, name):
            flag = name.replace("_", "-")
            raise StoreError(
                f"{store.root} holds the results of another study: --{flag} was "
                f"{before.get(name)} ({known[:12]}), and now is {now.get(name)} ({given[:12]}); "
                "choose another --out, or remove that folder"
            )


def _named(settings: Mapping[str, Any], name: str) -> Any:
    """What a setting names, whichever way a path is written; a task names data too."""
    value = settings.get(name)
    if isinstance(value, str) and value and "\0" not in value and os.path.exists(value):
        value = os.path.realpath(value)
    return (settings.get("task"), value)
