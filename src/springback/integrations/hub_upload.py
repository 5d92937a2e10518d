"""Upload a model folder, adapter or boosted folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, metadata_load

from springback.errors import ModelError, SpringbackError, describe
from springback.models.quiet import one_line

#: What goes up: weights, configuration, tokenizer, card, and the code of ``custom_generate``.
PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.md",
    "custom_generate/*.py",
)
_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
#: Keys of a card that the Hub checks, and the type it wants of each.
_TEXTS = ("library_name", "pipeline_tag", "license")


def check_card(folder: Path) -> None:
    """Raise :class:`ModelError` where the Hub would refuse the card's metadata.

    Its own check needs the network; this is the part of it that our cards touch: the block is
    there and parses, texts are texts, tags a list of texts, ``base_model`` ids and no paths.
    """
    path = folder / "README.md"
    if not path.exists():
        raise ModelError(f"{folder} has no README.md; write the folder again, or write a card")
    try:
        data: dict[str, Any] = metadata_load(path) or {}
    except Exception as error:
        raise ModelError(f"the metadata of {path} cannot be read: {one_line(error)}") from error
    faults = [k for k in _TEXTS if k in data and not (isinstance(data[k], str) and data[k])]
    tags = data.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        faults.append("tags")
    base = data.get("base_model") or []
    if not all(_ID.fullmatch(str(b)) for b in (base if isinstance(base, list) else [base])):
        faults.append("base_model")
    if not data:
        faults.append("no metadata block")
    if faults:
        raise ModelError(
            describe(
                f"{path} with {', '.join(faults)}",
                "metadata as the Hub takes it (texts; base_model as org/name)",
                "mend the block between the lines of ---",
            )
        )


def check_name(repository: str) -> None:
    """Raise :class:`SpringbackError` for what is no name of a repository."""
    if not _ID.fullmatch(repository):
        raise SpringbackError(describe(f"repository {repository!r}", "org/name", "name one"))


def push(
    folder: str | Path,
    repository: str,
    private: bool = True,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload ``folder`` to ``repository`` (``org/name``), made if it is not there; its address.

    Private unless said otherwise.  The token is the Hub client's own (``hf auth login`` or
    HF_TOKEN).  Raises :class:`SpringbackError` on a folder that is no model, a card that the Hub
    would refuse, or what the Hub answers.
    """
    folder = Path(folder)
    check_name(repository)
    named = ("config.json", "adapter_config.json")
    weights = list(folder.glob("*.safetensors"))
    if not weights or not any((folder / name).exists() for name in named):
        raise ModelError(
            describe(folder, "a folder with safetensors and a config", "name a model or adapter")
        )
    check_card(folder)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            allow_patterns=list(PATTERNS) + [f"*/{p}" for p in PATTERNS],
            commit_message=message or "Upload with springback",
        )
    except Exception as error:  # the client raises many unrelated classes
        raise SpringbackError(
            f"the Hub did not take {repository}: {one_line(error)}; "
            "check the name, the network and your login (hf auth login)"
        ) from error
    return str(done.commit_url)
