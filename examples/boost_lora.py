"""Extrapolate a LoRA run, search mu and lambda on validation questions, write the adapter.

    python examples/boost_lora.py BASE EARLY_ADAPTER LAST_ADAPTER QUESTIONS.jsonl [OUT]

QUESTIONS has rows of question and answer (a number). Both adapters are of one run, such as two
checkpoints that the trainer left (KeepEarly keeps an early one).
"""

import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import springback
from springback.weights import AdapterExtrapolation, extrapolate_adapters


def merged(base: str, adapter: str, folder: Path) -> str:
    """Base and adapter as one plain model, since boost wants whole weights."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


def main(base: str, early: str, last: str, questions: str, out: str = "boost-of-lora") -> None:
    settings = springback.BoostSettings(
        early=merged(base, early, Path(out) / "early"),
        ft=merged(base, last, Path(out) / "ft"),
        validation=questions,
        test=questions,  # one file for both is split by the seed
        validation_rows=8,
        test_rows=8,
        max_new_tokens=16,
    )
    result = springback.boost(settings, out)
    print(result.verdict)
    methods = {row["method"]: row for row in result.data["analysis"]["methods"]}
    for name, row in methods.items():
        print(name, row["accuracy"]["mean"], row["verdict"])
    if mu := methods["ME only"]["mu"]:
        how = AdapterExtrapolation(mu=mu)
        made = extrapolate_adapters([Path(early), Path(last)], how, Path(out) / "adapter")
        print(f"adapter: {out}/adapter, rank {made.rank}, for PeftModel.from_pretrained and vLLM")


if __name__ == "__main__":
    main(*sys.argv[1:])
