"""Which files a source on this disk is: one, those of a folder, or those of a pattern."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from springback.data.compressed import PACKED
from springback.errors import DataError

#: Endings that are read, and further ones that mark a source as a path and no hub id.
TABLES = {".csv": ",", ".tsv": "\t"}
ARROW = (".parquet", ".arrow")
READ = (".jsonl", ".ndjson", ".json", *TABLES, *ARROW)
OTHER = (*PACKED, ".txt", ".zip", ".xlsx", ".pkl", ".pt", ".md")

#: What splits are called in names of files and folders, and what `datasets` calls them.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SPLIT = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(_SPLITS)})(?![A-Za-z0-9])", re.IGNORECASE)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
#: Files beside data that are none.
_BESIDE = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")


def suffix_of(path: Path) -> str:
    """The ending that says how a file is read, in small letters, without ``.gz`` and the like."""
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return name.suffix.lower()


def local_files(source: str) -> list[Path] | None:
    """The files of a source that is on this disk; None where nothing is.

    A folder stands for its data files, or those in ``data`` or in folders called like splits; one
    that ``datasets`` saved for the files it names.  ``#split`` behind it chooses among several.
    A pattern holds ``*`` or ``[...]``.

    Raises :class:`springback.errors.DataError` where a folder or a pattern holds no data, several
    splits, or files of several kinds, which may be the same rows twice.
    """
    expanded = os.path.expanduser(source)
    path = Path(expanded)
    if path.is_file():
        return [path]
    place, mark, split = expanded.rpartition("#")
    if path.is_dir():
        files = _of_folder(path)
    elif mark and Path(place).is_dir():
        every = _of_folder(Path(place))
        files = {f: name for f, name in every.items() if name == _SPLITS.get(split.lower(), split)}
        if not files:
            there = ", ".join(sorted({name for name in every.values() if name})) or "none"
            raise DataError(
                f"{source!r} has no split {split!r}; allowed: {there}; name one of these"
            )
    elif "*" in source or "[" in source:
        matches = [Path(match) for match in sorted(glob.glob(expanded, recursive=True))]
        files = {f: _split_of(f) for f in matches if f.is_file() and f.name not in _BESIDE}
        if not files:
            return None
    else:
        return None
    return _of_one_kind(source, files)


def is_local(source: str) -> bool:
    """Whether a source, without its conditions, is on this disk."""
    try:
        return local_files(source) is not None
    except DataError:  # it is there; what is wrong with it is said when it is read
        return True
    except (OSError, ValueError):
        return False


def _of_folder(folder: Path) -> dict[Path, str | None]:
    """The data files of a folder, each with its split."""
    if (folder / "state.json").is_file():
        return dict.fromkeys(_saved(folder))
    if files := _data_files(folder) or _data_files(folder / "data"):
        return {file: _split_of(file) for file in files}
    below: dict[Path, str | None] = {}
    for one in sorted(one for one in folder.iterdir() if one.is_dir()):
        if (one / "state.json").is_file():
            below |= dict.fromkeys(_saved(one), _SPLITS.get(one.name, one.name))
        elif one.name.lower() in _SPLITS:
            below |= dict.fromkeys(_data_files(one), _SPLITS[one.name.lower()])
    return below


def _data_files(folder: Path) -> list[Path]:
    """The files right in a folder that may be data, by name; none if there is no such folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    hidden = (".", "_")
    return [
        file
        for file in files
        if suffix_of(file) in READ
        and not file.name.startswith(hidden)
        and file.name not in _BESIDE
        and file.is_file()
    ]


def _saved(folder: Path) -> list[Path]:
    """The files of a data set that ``datasets`` saved; an earlier one may have left others."""
    state = str(folder / "state.json")
    try:
        files = json.loads(Path(state).read_text(encoding="utf-8"))["_data_files"]
        names = [str(one["filename"]) for one in files]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{state!r} does not say which files the data set has; save it again with "
            "save_to_disk, or name its .arrow files by a pattern"
        ) from error
    if outside := [name for name in names if Path(name).name != name]:
        raise DataError(
            f"{state!r} names {outside[0][:60]!r}; allowed: files beside it; save the data set "
            "again with save_to_disk"
        )
    return [folder / name for name in names]


def _split_of(path: Path) -> str | None:
    """The split that the name of a file (``train-00000-of-00002``) or its folder says."""
    if shard := _SHARD.match(path.name):
        return _SPLITS.get(shard[1].lower(), shard[1])
    match = _SPLIT.search(path.name)
    return _SPLITS.get(match[1].lower() if match else path.parent.name.lower())


def _of_one_kind(source: str, files: Mapping[Path, str | None]) -> list[Path]:
    """All of the files, which must be of one split and have one ending."""
    if not files:
        raise DataError(
            f"{source!r} is a folder; allowed: a data file, or a folder with data files "
            f"({', '.join(READ)}); name a file, or the folder that they are in"
        )
    splits = list(dict.fromkeys(name or "files that name none" for name in files.values()))
    if len(splits) > 1:
        raise DataError(
            f"{source!r} holds several splits ({', '.join(splits)}); allowed: one; write "
            "FOLDER#SPLIT, or name its files by a pattern (FOLDER/NAME*)"
        )
    if len(endings := sorted({suffix_of(file) for file in files})) > 1:
        raise DataError(
            f"{source!r} holds files of several kinds ({', '.join(endings)}), which may be the "
            f"same rows; allowed: one; name its files by a pattern (*{endings[0]})"
        )
    return list(files)
