"""Where an answer ends, for vLLM: it stops at the end tokens of tokenizer and generation config."""

from __future__ import annotations

from typing import Any

from springback.core import Row
from springback.integrations.vllm.folder import Folder
from springback.models.encoding import stop_ids
from springback.models.loading import Tokenizer, end_ids_of, read_configs


def generation_config(folder: Folder, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The generation config of ``folder`` with every end token that springback stops at.

    None where what vLLM reads by itself names them all.
    """
    ends = stop_ids(tokenizer, Row("chat", "", ""), read_configs(folder.model, folder.adapter))
    stored = read_configs(folder.model).generation_config
    if {tokenizer.eos_token_id, *end_ids_of(stored)}.issuperset(ends):
        return None
    return {**stored.to_diff_dict(), "eos_token_id": list(ends)}
