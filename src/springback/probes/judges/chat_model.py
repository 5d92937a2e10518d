"""The judge that is a chat model on this machine: how likely it says yes to a rubric's question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from springback.core import Row
from springback.errors import ModelError, SpringbackError
from springback.models.encoding import encode_prompt
from springback.models.loading import Tokenizer, load_model, load_tokenizer, resolve
from springback.probes.judges.rubrics import split_rubric
from springback.probes.judges.scorer import Scorer


def chat_model(spec: str) -> Scorer:
    """The scorer of ``model:MODEL[=RUBRIC]``.

    The score is p(yes) / (p(yes) + p(no)) of the first token of the reply, each summed over its
    spellings; nothing is sampled, and texts are read one by one, so it does not depend on others.
    """
    name, rubric = split_rubric(spec.removeprefix("model:"), spec)
    checkpoint = resolve(name)
    tokenizer = load_tokenizer(checkpoint)
    yes, no = label_tokens(tokenizer, checkpoint.path)
    model: Any = load_model(checkpoint)
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0))

    @torch.inference_mode()
    def numbers(prompts: list[str], texts: list[str]) -> list[float]:
        each = []
        for prompt, text in zip(prompts, texts, strict=True):
            ids = encode_prompt(tokenizer, Row("qa", rubric.about(prompt, text), ""))
            if longest and len(ids) > longest:
                raise SpringbackError(
                    f"the judge {name} reads {longest} tokens and a question to it has {len(ids)}; "
                    "allowed: a model with a longer context; take one, or lower --sample-tokens"
                )
            tokens = torch.tensor([ids], device=model.device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1].double()
            said = torch.stack([logits[list(kind)].logsumexp(0) for kind in (yes, no)])
            each.append(float(said.softmax(0)[0]))
        return each

    return Scorer(
        f"{Path(name).name}={rubric.name}",
        "probability",
        f"higher = more surely yes ({rubric.name})",
        f"model {checkpoint.content_hash} {rubric.hash}",
        numbers,
        cut=0.5,
        asked=True,
    )


def label_tokens(tokenizer: Tokenizer, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the tokens that a reply of yes, and one of no, begins with, in its spellings."""
    yes, no = (
        {
            ids[0]
            for form in (word, word.lower(), word.upper())
            for text in (form, f" {form}")
            if (ids := tokenizer(text, add_special_tokens=False)["input_ids"])
        }
        for word in ("Yes", "No")
    )
    if not (yes - no and no - yes):
        raise ModelError(
            f"the tokenizer of {path} begins yes and no with the same token; allowed: one that "
            "tells them apart; take another model as a judge"
        )
    return tuple(sorted(yes - no)), tuple(sorted(no - yes))
