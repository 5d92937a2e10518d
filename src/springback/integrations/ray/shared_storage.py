"""Runs and weights exchanged through any fsspec address, for workers that share no file system.

A folder counts as there when its marker is: files first, then ``<folder>.whole``.  Object stores
have no renaming, so that is what stands for it.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from springback.errors import MissingExtraError, StoreError
from springback.results.redaction import redacted
from springback.results.store import below, require_file, require_plain, whole_folder

MARKER = ".whole"


class Shared:
    """Folders below ``url``, by the same relative names as in a store."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
            from fsspec.implementations.local import LocalFileSystem
        except ModuleNotFoundError as error:
            raise MissingExtraError("fsspec", "ray", "--shared") from error
        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
            self.local = isinstance(self.files, LocalFileSystem)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"--shared is {redacted(url)} ({redacted(str(error))}); allowed: an address that "
                "fsspec knows, such as file:///mnt/runs or s3://bucket/folder; "
                "install what it needs"
            ) from error

    def _at(self, name: str) -> str:
        if self.local:  # others may plant links in a folder that is shared
            place = below(Path(self.root), str(PurePath(name).parent)) / PurePath(name).name
            if place.is_symlink() or not place.is_dir():
                require_file(place)
        return f"{str(self.root).rstrip('/')}/{name}"

    def has(self, name: str) -> bool:
        exists: Any = self.files.exists(self._at(name + MARKER))
        return bool(exists)

    def push(self, root: Path, name: str) -> None:
        """Upload the folder ``root/name``; does nothing where it is there already."""
        if self.has(name):
            return
        folder = below(root, name)
        require_plain(folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                place = self._at(f"{name}/{path.relative_to(folder).as_posix()}")
                self.files.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
                self.files.put_file(str(path), place)
        with self.files.open(self._at(name + MARKER), "wb"):
            pass

    def pull(self, root: Path, name: str) -> bool:
        """Download the folder to ``root/name``, whole or not at all; False if it is not there."""
        folder = below(root, name)
        if folder.exists():
            return True
        if not self.has(name):
            return False
        base = self._at(name).rstrip("/")
        with whole_folder(folder) as tmp:
            for place in self.files.find(base):
                inside = str(place)[len(base) + 1 :] if str(place).startswith(base) else ""
                if not inside:  # a file system that answers with other prefixes than it was asked
                    inside = str(place).split(f"/{name}/", 1)[1]
                target = tmp / inside
                if not target.resolve().is_relative_to(tmp.resolve()):
                    raise StoreError(f"{place} leads out of its folder; clean {base}")
                target.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(place, str(target))
        return True

    def drop(self, name: str) -> None:
        """Forget the folder; the marker goes first."""
        for place, deep in ((self._at(name + MARKER), False), (self._at(name), True)):
            if self.files.exists(place):
                self.files.rm(place, recursive=deep)
