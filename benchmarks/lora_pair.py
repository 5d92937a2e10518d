"""Train a LoRA pair for ``equal_step.py``: adapters after the last two epochs, in FOLDER/epoch-N.

    python benchmarks/lora_pair.py --model qwen2.5-coder-0.5b-q5 --data train.jsonl.gz --out FOLDER

Without a model and data (``make bench``) it says so and ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from springback.core import Recipe
from springback.data import load_slice
from springback.models.encoding import encode_rows
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.progress import Lines
from springback.training import Marks, add_lora, finetune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapters")
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    if not (o.model and o.data):
        print("needs --model and --data: left out (see the head of this file)")
        return
    start = resolve(o.model)
    tokenizer, model = load_tokenizer(start), load_model(start)
    recipe = Recipe(
        lora_rank=o.rank,
        learning_rate=o.learning_rate,
        batch_size=o.batch_size,
        epochs=o.epochs,
        seed=o.seed,
        max_tokens=o.max_tokens,
        precision=o.precision,
    )
    rows = load_slice(o.data, limit=o.rows, seed=o.seed)
    encoded = encode_rows(tokenizer, rows.rows, o.max_tokens)
    print(f"{sum(len(row.ids) for row in encoded)} tokens an epoch", flush=True)
    lora = add_lora(model, recipe)

    def keep(examples: int, trained: object) -> dict[str, str]:
        lora.save_pretrained(o.out / f"epoch-{examples // o.rows}")
        return {}

    marks = Marks(tuple(o.rows * epoch for epoch in range(1, o.epochs + 1)), keep)
    done = finetune(model, tokenizer, encoded, recipe, marks, progress=Lines())
    print(f"losses {[round(loss, 3) for loss in done.losses]}")


if __name__ == "__main__":
    main()
