"""DPO on conversational preferences, watched: elasticity and accuracy while it trains.

    python examples/dpo_conversations.py MODEL PREFERENCES.jsonl QUESTIONS.jsonl [OUT]

PREFERENCES has TRL's conversational rows: prompt, chosen and rejected, each a list of messages with
role and content. QUESTIONS has rows of question and answer (a number).
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from springback.data import load_slice
from springback.integrations.trainer_callbacks import (
    AccuracyCallback,
    Asked,
    ElasticityCallback,
    Held,
    KeepEarly,
)


def main(model: str, preferences: str, questions: str, out: str = "dpo-of-mine") -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    where: dict[str, Any] = {"use_cpu": not torch.cuda.is_available()}
    where["bf16"] = not where["use_cpu"]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=DPOConfig(out, num_train_epochs=2, logging_steps=1, report_to="none", **where),
        train_dataset=Dataset.from_json(preferences),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    # The same preferences as springback reads them; hold rows out in earnest.
    held = load_slice(preferences, limit=8).rows
    unwanted = [replace(row, response=row.rejected or "") for row in held]
    ElasticityCallback(tokenizer, Held(held, unwanted), every=4).watch(trainer)
    AccuracyCallback(tokenizer, questions, 4, Asked(max_new_tokens=16), rows=4).watch(trainer)
    keep = KeepEarly(epoch=1)
    trainer.add_callback(keep)
    trainer.train()
    trainer.save_model(str(Path(out) / "last"))
    for line in trainer.state.log_history:
        seen = {k: round(v, 4) for k, v in line.items() if k.startswith(("elasticity", "accuracy"))}
        if seen:
            print(line["step"], seen)
    print(f"springback boost --early {keep.folder} --ft {Path(out) / 'last'} --model {model} ...")


if __name__ == "__main__":
    main(*sys.argv[1:])
