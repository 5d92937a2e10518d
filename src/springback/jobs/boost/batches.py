"""``--batch-size auto``: as many questions at once as the memory allows, counted beforehand."""

from __future__ import annotations

from typing import Any

from springback.models.memory import cache_bytes, logits_bytes, pass_bytes

#: Of the memory that can be had, what is planned for; the rest is for what is not counted.
SHARE = 0.8
#: More rows than this are no faster.
MOST = 256
#: Tensors of logits that are there at once: of both models, in fp32 and while they are combined.
_LOGITS = 6


def row_bytes(config: Any, prompt: int, new: int, forks: int, dtype: Any) -> int:
    """Of one question while it is decoded: caches of both models, logits, the prompt's pass.

    ``prompt`` and ``new``: tokens, at most; ``forks``: answers that a question may have at once,
    one a lambda.
    """
    caches = 2 * cache_bytes(config, forks, prompt + new, dtype, windows=False)
    # A buffer that grows is copied, one layer at a time.
    growing = 2 * caches // max(1, int(config.get_text_config().num_hidden_layers))
    logits = _LOGITS * logits_bytes(config, forks)
    return caches + growing + logits + pass_bytes(config, prompt, dtype)


def rows_at_once(available: int, a_row: int, questions: int) -> int:
    """Rows of so many bytes each that fit into ``available`` bytes, at least one."""
    return max(1, min(int(SHARE * available) // a_row, questions, MOST))
