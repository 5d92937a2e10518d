"""The judge that is a Transformers text classifier."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from springback.core import Checkpoint
from springback.models.loading import Model, Tokenizer, load_tokenizer, resolve
from springback.probes.judges.loading import load_judge
from springback.probes.judges.naming import classifier_parts, refuse_regression, require_label
from springback.probes.judges.scorer import Scorer

#: Texts that a classifier reads at a time.
CLASSIFIER_BATCH = 32


def classifier(spec: str) -> Scorer:
    """The scorer of ``hf:MODEL[=LABEL][+prompt][+share]``."""
    name, label, options = classifier_parts(spec)
    checkpoint = resolve(name)
    tokenizer = load_tokenizer(checkpoint)
    model = _load_classifier(checkpoint)
    labels = {int(i): str(text) for i, text in (model.config.id2label or {}).items()}
    wanted = label or labels[max(labels)]
    require_label(spec, name, wanted, labels)
    index = next(i for i, text in labels.items() if text == wanted)

    def numbers(prompts: list[str], texts: list[str]) -> list[float]:
        pairs = prompts if "prompt" in options else None
        each = _probabilities(model, tokenizer, texts, pairs)
        if "share" not in options:
            return each[:, index].tolist()
        if each.shape[1] == 1:
            return (each[:, 0] >= 0.5).double().tolist()
        return (each.argmax(-1) == index).double().tolist()

    behind = "".join(f"+{option}" for option in options)
    share = "share" in options
    return Scorer(
        f"{Path(name).name}={wanted}{behind}",
        f"share {wanted}" if share else "probability",
        f"higher = more often {wanted}" if share else f"higher = more surely {wanted}",
        " ".join((f"hf {checkpoint.content_hash} {wanted}", *options)),
        numbers,
        cut=0.5,
        asked="prompt" in options,
    )


def _load_classifier(checkpoint: Checkpoint) -> Model:
    """A sequence classifier in evaluation mode, fp32; refuses one whose head is not in the file."""
    model = load_judge(
        AutoModelForSequenceClassification,
        checkpoint,
        "a text classifier",
        "{path} is no text classifier: its file lacks {missing}; allowed: a model saved with its "
        "classification head; name another",
    )
    refuse_regression(checkpoint.path, model.config.problem_type)
    return model


@torch.inference_mode()
def _probabilities(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> torch.Tensor:
    """Probability of every label for every text (texts, labels), float64 on the CPU.

    With ``prompts`` each is read as a pair, as the tokenizer joins pairs; of one that is too long
    the longer part is cut.  One output, or labels that do not exclude each other: sigmoid; else
    softmax.
    """
    if model.config.pad_token_id is None:  # needed to find each text's last token
        model.config.pad_token_id = tokenizer.pad_token_id
    independent = (
        model.config.problem_type == "multi_label_classification" or model.config.num_labels == 1
    )
    limit = _longest_input(model, tokenizer)
    sides = [texts] if prompts is None else [prompts, texts]
    batches = [torch.zeros(0, len(model.config.id2label or {}), dtype=torch.float64)]
    for first in range(0, len(texts), CLASSIFIER_BATCH):
        # An empty text would have no token at all.
        which = slice(first, first + CLASSIFIER_BATCH)
        part = [[text or " " for text in side[which]] for side in sides]
        batch = tokenizer(
            *part, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        logits = model(**batch).logits.cpu().double()  # (texts, labels)
        batches.append(logits.sigmoid() if independent else logits.softmax(-1))
    return torch.cat(batches)


def _longest_input(model: Model, tokenizer: Tokenizer) -> int:
    """Tokens that a classifier can read: what its tokenizer says, at most its number of places."""
    places = int(getattr(model.config, "max_position_embeddings", sys.maxsize))
    for module in model.modules():
        # RoBERTa counts places from behind the padding token's id, so fewer can be used.
        if isinstance(module, nn.Embedding) and module.num_embeddings == places:
            places -= 0 if module.padding_idx is None else module.padding_idx + 1
            break
    # A tokenizer without a limit gives 1e30, which is too large for the tokenizers library.
    return min(places, int(tokenizer.model_max_length), 1_000_000)
