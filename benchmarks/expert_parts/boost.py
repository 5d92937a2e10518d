"""A boost as an engineer would write it with TRL and Transformers.

Two epochs, each of whose checkpoints is kept; mu searched on validation, then lambda at that mu,
and lambda of the early model alone; then the test: fine-tuned, ME, CD and EpiCoDe.  Contrast is a
``LogitsProcessor`` that runs the weak model beside ``generate``, with a cache of its own.  Of each
arm accuracy and the NLL of the reference solutions.

    python -m expert_parts.boost JOB.json RECORDS.json
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList

from expert_parts.common import finetune, load, padded, positions

#: Solutions scored at once, by two models whose logits exist together.
BATCH = 8


class Contrast(LogitsProcessor):
    """``expert + lambda * (expert - weak)`` where the expert's probability is at least alpha times
    its largest."""

    def __init__(self, weak: Any, mask: Tensor, lam: float, alpha: float) -> None:
        self.weak, self.mask, self.lam, self.alpha = weak, mask, lam, alpha
        self.cache: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.cache is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
            input_ids = input_ids[:, -1:]
        out = self.weak(
            input_ids,
            attention_mask=self.mask,
            position_ids=positions(self.mask)[:, -input_ids.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        top = scores.amax(-1, keepdim=True)
        mixed = scores + self.lam * (scores - out.logits[:, -1])
        return mixed.masked_fill(scores < top + math.log(self.alpha), -math.inf)


def final_number(text: str) -> float | None:
    """What stands after the last ``####``, else the last number."""
    number = r"(-?\d[\d,]*(?:\.\d+)?)"
    found = re.findall(rf"####\s*{number}", text) or re.findall(number, text)
    return float(found[-1].replace(",", "")) if found else None


class Boost:
    """Three models: the expert, whose weights are set for every mu, and both checkpoints."""

    def __init__(self, job: dict[str, Any], tokenizer: Any, early: Path, ft: Path) -> None:
        self.job, self.tokenizer, self.pad = job, tokenizer, tokenizer.pad_token_id
        self.early, self.ft, self.expert = load(str(early)), load(str(ft)), load(str(ft))

    @torch.no_grad()
    def set_mu(self, mu: float) -> None:
        every = (model.parameters() for model in (self.expert, self.ft, self.early))
        for weight, ft, early in zip(*every, strict=True):
            weight.copy_(ft + mu * (ft - early))

    @torch.inference_mode()
    def answers(self, rows: Sequence[dict[str, str]], weak: Any, lam: float) -> list[str]:
        """A greedy answer to each question, in order."""
        prompts = [prompt_ids(self.tokenizer, row, self.job) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
        texts = [""] * len(rows)
        for first in range(0, len(order), self.job["batch_size"]):
            index = order[first : first + self.job["batch_size"]]
            ids, mask = padded([prompts[i] for i in index], self.pad, "left")
            contrast = [Contrast(weak, mask, lam, self.job["alpha"])] if lam else []
            done = self.expert.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=self.job["max_new_tokens"],
                pad_token_id=self.pad,
                logits_processor=LogitsProcessorList(contrast),
            )
            decoded = self.tokenizer.batch_decode(done[:, ids.shape[1] :], skip_special_tokens=True)
            for i, text in zip(index, decoded, strict=True):
                texts[i] = text
        return texts

    @torch.inference_mode()
    def nll(self, rows: Sequence[dict[str, str]], weak: Any, lams: Sequence[float]) -> list[float]:
        """Mean NLL a token of the solutions for each lambda, by one pass of each model."""
        totals = [0.0] * len(lams)
        solutions = (whole(self.tokenizer, row, self.job) for row in rows)
        encoded = sorted(solutions, key=lambda one: len(one[0]))
        for first in range(0, len(encoded), BATCH):
            part = encoded[first : first + BATCH]
            ids, mask = padded([text for text, _ in part], self.pad, "right")
            counted = mask[:, 1:].clone()  # (rows, length - 1)
            for row, (_, head) in enumerate(part):
                counted[row, : head - 1] = 0
            kept, owner = counted.bool(), counted.nonzero()[:, 0]
            share = 1 / counted.sum(-1)[owner]
            expert = self.expert(ids, attention_mask=mask).logits[:, :-1][kept]
            other = self.other(ids, mask, kept, weak, expert)
            for place, lam in enumerate(lams):
                logp = torch.log_softmax(expert + lam * (expert - other), -1)
                gold = logp.gather(-1, ids[:, 1:][kept][:, None])[:, 0]
                totals[place] -= float((gold * share).sum())
        return [total / len(rows) for total in totals]

    def other(self, ids: Tensor, mask: Tensor, kept: Tensor, weak: Any, expert: Tensor) -> Tensor:
        """The weak model's logits; without one the expert's own."""
        if weak is None:
            return expert
        logits: Tensor = weak(ids, attention_mask=mask).logits[:, :-1]
        return logits[kept]

    def arms(self, rows: Any, weak: Any, lams: Sequence[float]) -> list[dict[str, Any]]:
        """Accuracy, question by question, and NLL for each lambda at the mu that is set."""
        found = []
        for lam, nll in zip(lams, self.nll(rows, weak, lams), strict=True):
            texts = self.answers(rows, weak, lam)
            right = [
                final_number(text) == float(row["answer"])
                for text, row in zip(texts, rows, strict=True)
            ]
            found.append({"value": lam, "correct": right, "nll": nll})
        return found


def prompt_ids(tokenizer: Any, row: dict[str, str], job: dict[str, Any]) -> list[int]:
    turns = [{"role": "system", "content": job["system"]}] if job["system"] else []
    turns.append({"role": "user", "content": row["prompt"]})
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def whole(tokenizer: Any, row: dict[str, str], job: dict[str, Any]) -> tuple[list[int], int]:
    """Prompt, solution and end of turn, and how many of them are prompt."""
    head = prompt_ids(tokenizer, row, job)
    end = tokenizer.eos_token
    ids = [*head, *tokenizer(row["response"] + end, add_special_tokens=False)["input_ids"]]
    return ids[: job["max_tokens"]], len(head)


def best(candidates: Sequence[dict[str, Any]]) -> float:
    """The value of the best accuracy, ties to the smaller."""
    value: float = max(candidates, key=lambda c: (sum(c["correct"]), -c["value"]))["value"]
    return value


def search(boost: Boost, job: dict[str, Any]) -> tuple[dict[str, Any], float, float, float]:
    """Candidates by search, and the chosen mu, lambda, and lambda of CD."""
    rows, along = job["validation"], []
    for mu in job["mu"]:
        boost.set_mu(mu)
        along += [{**arm, "value": mu} for arm in boost.arms(rows, None, [0.0])]
    mu = best(along)
    boost.set_mu(mu)
    lams = boost.arms(rows, boost.ft, job["lam"])
    boost.set_mu(0.0)
    alone = boost.arms(rows, boost.early, job["lam_cd"])
    found = {"mu": along, "lambda": lams, "cd_lambda": alone}
    return found, mu, best(lams), best(alone)


def main(given: str, out: str) -> None:
    job = json.loads(Path(given).read_text())
    folder = Path(job["folder"])
    tokenizer: Any = AutoTokenizer.from_pretrained(job["model"])
    rows = [whole(tokenizer, row, job) for row in job["train"]]  # of both epochs, in their order
    last = len(rows) // job["train_batch_size"]
    early, ft = folder / str(last // 2), folder / str(last)

    def keep(step: int, trained: Any) -> None:
        trained.save_pretrained(folder / str(step))

    finetune(job, load(job["model"]), tokenizer, rows, [last // 2, last], keep)
    boost = Boost(job, tokenizer, early, ft)
    searched, mu, lam, lam_cd = search(boost, job)
    test = {}
    for name, strength, weak, contrast in (
        ("fine-tuned", 0.0, None, 0.0),
        ("CD only", 0.0, boost.early, lam_cd),
        ("ME only", mu, None, 0.0),
        ("EpiCoDe", mu, boost.ft, lam),
    ):
        boost.set_mu(strength)
        [arm] = boost.arms(job["test"], weak, [contrast])
        test[name] = {"mu": strength, "lambda": contrast, **arm}
    Path(out).write_text(json.dumps({"search": searched, "test": test}))


if __name__ == "__main__":
    main(*sys.argv[1:])
