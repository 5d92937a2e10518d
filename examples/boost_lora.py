"""Extrapolate a LoRA run, search mu and lambda on validation questions, write the adapters.

    python examples/boost_lora.py BASE EARLY_ADAPTER LAST_ADAPTER QUESTIONS.jsonl [OUT]

QUESTIONS has rows of question and answer (a number). Both adapters are of one run, such as two
checkpoints that the trainer left (KeepEarly keeps an early one).
"""

import sys
from pathlib import Path

import springback
from springback.weights import (
    AdapterExtrapolation,
    Contrast,
    extrapolate_adapters,
    write_adapter_pair,
)


def main(base: str, early: str, last: str, questions: str, out: str = "boost-of-lora") -> None:
    settings = springback.BoostSettings(
        model=base,
        early=early,
        ft=last,
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
    best, folders = methods["EpiCoDe"], [Path(early), Path(last)]
    how, adapter = AdapterExtrapolation(mu=best["mu"] or 0.0), Path(out) / "adapter"
    if lam := best["lambda"]:
        write_adapter_pair(folders, how, Contrast(lam, settings.alpha), adapter)
        print(f"adapters: {adapter}, a pair on one base, for springback.generate and serve")
    else:
        made = extrapolate_adapters(folders, how, adapter)
        print(f"adapter: {adapter}, rank {made.rank}, for PeftModel.from_pretrained and vLLM")


if __name__ == "__main__":
    main(*sys.argv[1:])
