"""Make a boosted folder whole for others: code to decode it, a model card that the hub accepts."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from springback.data import QUESTION
from springback.errors import ModelError, describe
from springback.models.loading import BOOST_FILE
from springback.results.store import below, read_json, write_text

#: Where Transformers looks for a folder's own ``generate``.
CODE = "custom_generate/generate.py"
_HEADING = "## How to use"


def complete(folder: str | Path) -> None:
    """Add ``custom_generate/generate.py`` and a section of the card to a boosted folder.

    Nothing changes when it is called again.  Raises :class:`ModelError` for another folder.
    """
    folder = Path(folder)
    facts = read_json(folder / BOOST_FILE) if (folder / BOOST_FILE).exists() else {}
    if facts.get("kind") != "boosted":
        raise ModelError(
            describe(folder, "a folder that springback boost wrote", "name its model/ folder")
        )
    source = resources.files("springback.integrations").joinpath("custom_generate.py")
    below(folder, "custom_generate")
    write_text(folder / CODE, source.read_text(encoding="utf-8"))
    _extend_card(folder, facts)


def _extend_card(folder: Path, facts: dict[str, object]) -> None:
    """Tags and a section of how to use the folder, below what the card already says."""
    path = folder / "README.md"
    card = ModelCard(path.read_text(encoding="utf-8") if path.exists() else "---\n---\n")
    data: Any = card.data
    tags = [*(data.tags or [])]
    data.tags = [*tags, *(t for t in ("springback", "custom_generate") if t not in tags)]
    data.library_name = data.library_name or "transformers"
    data.pipeline_tag = data.pipeline_tag or "text-generation"
    card.text = card.text.partition(_HEADING)[0].rstrip() + "\n\n" + _usage(folder, facts)
    write_text(path, str(card).rstrip() + "\n")


def _usage(folder: Path, facts: dict[str, object]) -> str:
    lam, alpha = facts.get("lambda") or 0, facts.get("alpha")
    if not lam:
        return (
            f"{_HEADING}\n\nIt was chosen without contrast (lambda 0), so it is used as any model "
            f"of Transformers is.\n{_frame(folder, facts)}"
        )
    system = facts.get("system")
    measured_with = f"\nThe system message it was measured with: `{system}`\n" if system else ""
    measured_with += _frame(folder, facts)
    return f"""{_HEADING}

It was measured with contrastive decoding against the weak model in `{facts.get("amateur")}/`
(lambda {lam:g}, alpha {alpha:g}). Loaded plainly, it decodes without. With springback:

```python
import springback

springback.generate("FOLDER", ["a prompt"])
```

With Transformers alone, whose `trust_remote_code` runs `{CODE}` of this folder (read it first):

```python
from transformers import pipeline

pipe = pipeline("text-generation", model="FOLDER", trust_remote_code=True)
```
{measured_with}"""


def _frame(folder: Path, facts: dict[str, object]) -> str:
    """How a question stood in the prompts it was measured with; empty if it was the user's message.

    springback frames it by itself; in Transformers the caller does.
    """
    template, where = str(facts.get("prompt_template") or QUESTION), "user messages"
    if not _has_chat_template(folder):
        template, where = f"Question: {template}\nAnswer:", "prompts (there is no chat template)"
    if template == QUESTION:
        return ""
    fence = "~" * (3 + max((len(run) for run in re.findall("~+", template)), default=0))
    return (
        f"\nThe {where} it was measured with had this form (springback makes it of a question; "
        f"with Transformers write it out):\n\n{fence}text\n{template}\n{fence}\n"
    )


def _has_chat_template(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    template = read_json(settings).get("chat_template") if settings.exists() else None
    named = folder / "additional_chat_templates"
    return bool(template) or (folder / "chat_template.jinja").exists() or named.is_dir()
