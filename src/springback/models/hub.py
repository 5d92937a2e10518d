"""Folders of models and adapters: here, or fetched from the hub.  Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from springback.errors import ModelError, describe
from springback.weights.adapters.reading import check_bases, open_adapter
from springback.weights.io.folder import ADAPTER_CONFIG, inside, readable_json

#: How names of models in four or eight bits end, which adapters trained on these have as base.
_QUANTISED = re.compile(r"(-unsloth)?-(bnb-)?[48]bit$", re.IGNORECASE)
#: What a model folder needs; weights as safetensors only.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
#: Second copies of the weights, in formats of other software, that some repositories hold.
COPIES = ("consolidated*.safetensors", "original/*", "metal/*", "onnx/*")


def looks_like_hub_id(name: str) -> bool:
    """``org/name``, and nothing of that name lies here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """A hub id and its revision, which may stand behind it: ``org/name@revision``.

    Anything that is no hub id stays as it is.  Raises :class:`ModelError` for two revisions.
    """
    plain, separator, pinned = name.partition("@")
    if not separator or not looks_like_hub_id(name):
        return name, revision
    if revision is not None or not pinned or not plain:
        asked = f" and the revision {revision!r}" if revision is not None else ""
        raise ModelError(
            describe(f"{name!r}{asked}", "one revision: org/name@revision", "name it once")
        )
    return plain, pinned


def download(name: str, revision: str | None = None) -> Path:
    """The snapshot folder of a hub id; it is named after the commit.

    Raises :class:`ModelError` if the hub (or its cache, offline) does not give it.
    """
    try:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(PATTERNS),
            ignore_patterns=list(COPIES),
        )
        return Path(folder)
    except Exception as error:  # the hub client raises many unrelated classes
        raise ModelError(
            f"'{name}' is no folder here and the hub did not give it ({type(error).__name__}); "
            "check the spelling, the network or your hub login"
        ) from error


def folder_here(name: str) -> Path | None:
    """The folder of a model where nothing has to be fetched for it; None where it is not here."""
    from springback.models.builtin import BUILTIN, builtin_folder

    folder: Path | None = builtin_folder(BUILTIN[name]) if name in BUILTIN else Path(name)
    if looks_like_hub_id(name):
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return None
        repository, revision = split_revision(name)
        config = try_to_load_from_cache(repository, "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder is not None and folder.is_dir() else None


def base_of(adapters: Sequence[Path], given: str | Path | None = None) -> Path:
    """The folder of the base of adapters: as ``given``, else as their own settings name it.

    Raises :class:`ModelError` where they name none or different ones, and for a base whose weights
    are quantised, which nothing can be added to exactly.
    """
    how = "name it with --base (boost: --model; in Python: base)"
    name, revision = str(given or ""), None
    if not given:
        settings = readable_json(inside(adapters[-1].resolve(), ADAPTER_CONFIG))
        if not isinstance(settings, dict):
            raise ModelError(f"{adapters[-1] / ADAPTER_CONFIG} is no JSON object; save it again")
        name = str(settings.get("base_model_name_or_path") or "")
        revision = settings.get("revision")
        if len(adapters) > 1:
            check_bases([open_adapter(folder, dora=True) for folder in adapters])
    if not name:
        raise ModelError(f"{adapters[-1]} does not say which base it is for; {how}")
    whole = _QUANTISED.sub("", name)
    instead = f"{whole if whole != name else 'the model that it was made of'}; {how}"
    if whole != name and not Path(name).is_dir():
        raise ModelError(f"the base {name} is quantised; allowed: the base in full, {instead}")
    try:
        folder = local_folder(name, revision)
    except ModelError as error:
        if given:
            raise
        raise ModelError(f"the base of {adapters[-1]}: {error}; if it has moved, {how}") from error
    config = folder / "config.json"
    facts = readable_json(inside(folder.resolve(), config.name)) if config.exists() else {}
    if isinstance(facts, dict) and facts.get("quantization_config"):
        raise ModelError(f"the base {name} is quantised; allowed: the base in full, {instead}")
    return folder


def nothing_at(name: str) -> str:
    """What is wrong with a path that is no folder."""
    return f"no model at '{name}'{', which is a file' if Path(name).is_file() else ''}"


def local_folder(name: str, revision: str | None = None) -> Path:
    """A folder as it is, a built-in model's, or a hub id fetched at ``revision``, which may also
    stand in ``name`` (``org/name@revision``); raises :class:`ModelError`."""
    if Path(name).is_dir():
        if revision is not None:
            raise ModelError(
                f"{name} is a folder, and the revision {revision!r} is for a hub id; leave it out"
            )
        return Path(name)
    if not looks_like_hub_id(name):
        from springback.models.builtin import BUILTIN, fetch_builtin  # loads torch

        if name in BUILTIN:
            return fetch_builtin(name)
        raise ModelError(
            f"{nothing_at(name)}; allowed: a folder, or a hub id such as org/name; name one"
        )
    return download(*split_revision(name, revision))
