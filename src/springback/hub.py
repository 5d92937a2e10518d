"""Folders of models and adapters: here, or fetched from the hub.  Loads no torch."""

from __future__ import annotations

from pathlib import Path

from springback.errors import ModelError

#: What a model folder needs; weights as safetensors only.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


def looks_like_hub_id(name: str) -> bool:
    """``org/name``, and nothing of that name lies here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def download(name: str, revision: str | None = None) -> Path:
    """The snapshot folder of a hub id; it is named after the commit.

    Raises :class:`ModelError` if the hub (or its cache, offline) does not give it.
    """
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the hub client raises many unrelated classes
        raise ModelError(
            f"'{name}' is no folder here and the hub did not give it ({type(error).__name__}); "
            "check the spelling, the network or your hub login"
        ) from error


def local_folder(name: str, revision: str | None = None) -> Path:
    """A folder as it is, or a hub id fetched at ``revision``; raises :class:`ModelError`."""
    if Path(name).is_dir():
        if revision is not None:
            raise ModelError(
                f"{name} is a folder, and the revision {revision!r} is for a hub id; leave it out"
            )
        return Path(name)
    if not looks_like_hub_id(name):
        raise ModelError(
            f"no model at '{name}'; allowed: a folder, or a hub id such as org/name; name one"
        )
    return download(name, revision)
