"""An audit as an engineer would write it with TRL and Transformers.

One training on the wanted rows, whose branch points are kept, and from each of these and from the
start model one training on the unwanted rows.  On the way, at every branch point and dose: NLL of
held-out texts of both kinds and their margin, KL to the start model on texts that it wrote, exact
over the vocabulary, and VADER's score of sampled texts.

    python -m expert_parts.audit JOB.json RECORDS.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from expert_parts.common import finetune, load, padded, positions

#: Texts scored at once.
BATCH = 16


class Probes:
    """What every model is measured with."""

    def __init__(self, job: dict[str, Any], tokenizer: Any) -> None:
        self.tokenizer, self.pad, self.new = tokenizer, tokenizer.pad_token_id, job["sample_tokens"]
        # A model of its own: the trainer's forward pass stays under autocast in its callbacks.
        self.model = load(job["model"])
        self.vader = SentimentIntensityAnalyzer()
        self.wanted, self.unwanted = (
            [encode(tokenizer, text, job) for text in job[side]] for side in ("wanted", "unwanted")
        )
        both = [row for pair in zip(self.wanted, self.unwanted, strict=True) for row in pair]
        prompts = [row[: job["prompt_tokens"]] for row in both[: job["prompts"]]]
        self.ids, self.mask = padded(prompts, self.pad, "left")
        self.texts = self.sample(0, exact=True)  # (prompts, prompt and new tokens)
        self.text_mask = torch.cat([self.mask, torch.ones(len(prompts), self.new).long()], 1)
        self.start = self.log_probs()

    @torch.inference_mode()
    def sample(self, seed: int, exact: bool = False) -> Tensor:
        """Prompts with a sampled continuation; ``exact``: none ends early."""
        torch.manual_seed(seed)
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        least = {"min_new_tokens": self.new} if exact else {}
        sampled: Tensor = self.model.generate(
            self.ids,
            attention_mask=self.mask,
            max_new_tokens=self.new,
            pad_token_id=self.pad,
            **how,
            **least,
        )
        return sampled

    @torch.inference_mode()
    def log_probs(self) -> Tensor:
        """Log-probabilities at the new tokens of the start's texts (prompts, new, vocabulary)."""
        out = self.model(
            self.texts,
            attention_mask=self.text_mask,
            position_ids=positions(self.text_mask),
            logits_to_keep=self.new + 1,
        )
        return torch.log_softmax(out.logits[:, :-1], -1)

    @torch.inference_mode()
    def nll(self, rows: Sequence[list[int]]) -> float:
        """Mean NLL a token over the texts, each of which counts the same."""
        total, ordered = 0.0, sorted(rows, key=len)
        for first in range(0, len(ordered), BATCH):
            ids, mask = padded(ordered[first : first + BATCH], self.pad, "right")
            logits = self.model(ids, attention_mask=mask).logits[:, :-1]
            counted = mask[:, 1:]
            losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * counted
            total += float((losses.sum(-1) / counted.sum(-1)).sum())
        return total / len(rows)

    @torch.inference_mode()
    def measure(self, model: Any, **tags: Any) -> dict[str, Any]:
        """Every quantity of ``model``, with what it is."""
        self.model.load_state_dict(model.state_dict())
        wanted, unwanted = self.nll(self.wanted), self.nll(self.unwanted)
        here = self.log_probs()
        kl = (self.start.exp() * (self.start - here)).sum(-1).mean(-1)  # (prompts,)
        new = self.sample(1)[:, self.ids.shape[1] :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        scores = torch.tensor([self.vader.polarity_scores(text)["compound"] for text in texts])
        return {
            **tags,
            "wanted": wanted,
            "unwanted": unwanted,
            "margin": unwanted - wanted,
            "kl": float(kl.mean()),
            "kl_error": float(kl.std() / len(kl) ** 0.5),
            "sentiment": float(scores.mean()),
            "sentiment_error": float(scores.std() / len(scores) ** 0.5),
        }


def encode(tokenizer: Any, text: str, job: dict[str, Any]) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return [*ids, tokenizer.eos_token_id][: job["max_tokens"]]


def main(given: str, out: str) -> None:
    job = json.loads(Path(given).read_text())
    folder, batch = Path(job["folder"]), job["train_batch_size"]
    tokenizer: Any = AutoTokenizer.from_pretrained(job["model"])
    probes = Probes(job, tokenizer)
    # The first token of a bare text is predicted from nothing.
    align, perturb = (
        [(encode(tokenizer, text, job), 1) for text in job[side]] for side in ("align", "perturb")
    )
    model = load(job["model"])
    records = [probes.measure(model, phase="start")]

    def keep(step: int, trained: Any) -> None:
        trained.save_pretrained(folder / str(step * batch))
        records.append(probes.measure(trained, phase="align", n_pos=step * batch, n_neg=0))

    finetune(job, model, tokenizer, align, [n // batch for n in job["n_pos"]], keep)
    for n_pos in [0, *job["n_pos"]]:
        model = load(str(folder / str(n_pos)) if n_pos else job["model"])

        def measure(step: int, trained: Any, n_pos: int = n_pos) -> None:
            tags = {"phase": "perturb", "n_pos": n_pos, "n_neg": step * batch}
            records.append(probes.measure(trained, **tags))

        finetune(job, model, tokenizer, perturb, [n // batch for n in job["doses"]], measure)
    Path(out).write_text(json.dumps(records))


if __name__ == "__main__":
    main(*sys.argv[1:])
