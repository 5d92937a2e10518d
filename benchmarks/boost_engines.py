"""A boost by vLLM beside the same boost by Transformers: time, start of the engine included, choice
and tokens.

A LoRA pair of ``--model`` is trained once on GSM8K; then each engine boosts it on the same
validation and test questions in the same dtype, in a process of its own, one after the other.
Seconds are those that all runs of a boost took, from their records: a boost that was broken off
goes on, and so does this script.  Each engine's answers choose what it tries next and what it
tests, so the arms that both tried are compared by themselves as well.

Where answers to a question differ, the scores of both first differing tokens are read off the
models of Transformers, in this dtype and in fp32: what rounding moves such a gap by is the size of
a near-tie.

    python benchmarks/boost_engines.py --data gsm8k --work FOLDER

``--data``: a folder with ``train.jsonl.gz`` and ``test.jsonl.gz`` (question, answer).  vLLM is
found as ``springback boost --engine vllm`` finds it (``make vllm``).  Without either (``make
bench``) it says so and ends.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json

RESULT = Path(__file__).parent / "results" / "boost_engines.json"
AIM = 0.5
ENGINES = ("vllm", "transformers")
CHILD = """
import json, sys
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.progress import Lines
boost(BoostSettings(**json.loads(sys.argv[1])), sys.argv[2], Lines())
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with GSM8K")
    parser.add_argument("--work", type=Path, help="pair and boosts; goes on there")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-q5")
    parser.add_argument("--train-rows", type=int, default=256)
    parser.add_argument("--validation-rows", type=int, default=64)
    parser.add_argument("--test-rows", type=int, default=128)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--batch", type=int, default=32, help="questions at once (Transformers)")
    parser.add_argument("--vllm-batch", type=int, default=128, help="answers at once (vLLM)")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--mu", default="0.1,0.2,0.4,0.8", help="candidates")
    parser.add_argument("--lam", default="0.5,1,2", help="candidates")
    parser.add_argument("--ties", type=int, default=40, help="differing answers to look into")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def parts(args: argparse.Namespace) -> dict[str, Path]:
    """The rows as files: training and validation from the front of train, test from test's."""
    held = {}
    sizes = {"train": args.train_rows, "validation": args.validation_rows}
    with gzip.open(args.data / "train.jsonl.gz", "rt") as lines:
        for name, count in sizes.items():
            held[name] = [next(lines) for _ in range(count)]
    with gzip.open(args.data / "test.jsonl.gz", "rt") as lines:
        held["test"] = [next(lines) for _ in range(args.test_rows)]
    files = {}
    for name, rows in held.items():
        files[name] = args.work / f"{name}.jsonl"
        files[name].write_text("".join(rows))
    return files


def trained_pair(args: argparse.Namespace, rows: Path) -> tuple[Path, Path]:
    """The adapters after each of two epochs, trained once."""
    folders = (args.work / "pair" / "early", args.work / "pair" / "ft")
    if all((folder / "adapter_config.json").exists() for folder in folders):
        return folders
    import torch

    from springback.core import Recipe
    from springback.data import load_slice
    from springback.jobs.boost.questions import question_format
    from springback.jobs.boost.settings import BoostSettings
    from springback.models.encoding import encode_rows
    from springback.models.loading import load_model, load_tokenizer, resolve
    from springback.models.placement import Placement
    from springback.training import Marks, Resume, add_lora, finetune

    recipe = Recipe(learning_rate=2e-4, batch_size=8, epochs=2, max_tokens=384, lora_rank=8)
    base = resolve(args.model)
    tokenizer = load_tokenizer(base)
    model = load_model(base, Placement(torch.bfloat16))
    shown = question_format(BoostSettings(task="gsm8k")).render(load_slice(str(rows)))
    lora = add_lora(model, recipe)

    def keep(examples: int, _: object) -> dict[str, str]:
        folder = folders[int(examples > len(shown))]
        lora.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {}

    marks = Marks((len(shown), 2 * len(shown)), keep)
    texts = encode_rows(tokenizer, shown.rows, recipe.max_tokens)
    resume = Resume(args.work / "pair" / "partial")
    finetune(model, tokenizer, texts, recipe, marks, resume, Lines())
    return folders


def settings_of(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    """What a boost is told, but for where its data and pair are."""
    return {
        "engine": engine,
        "dtype": args.dtype,
        "batch_size": args.vllm_batch if engine == "vllm" else args.batch,
        "max_new_tokens": args.max_new_tokens,
        "mu": [float(value) for value in args.mu.split(",")],
        "lam": [float(value) for value in args.lam.split(",")],
        "task": "gsm8k",
        "precheck": False,
        "reopen_test": True,
        "write_model": False,
    }


def scored(out: Path) -> dict[str, dict[str, Any]]:
    """Results of a boost's arms, and the seconds each took, by part, mu, lambda and weak model.
    What is decoded together counts for the arm that is finished first."""
    held = {}
    for path in sorted((out / "runs").glob("score-*/run.json")):
        run = read_json(path)
        inputs = run["inputs"]
        key = "{part}, mu {mu:g}, lambda {lam:g}, weak {weak}".format(**inputs)
        arm = {k: inputs[k] for k in ("mu", "lam", "weak")}
        seconds = sum(read_json(path.with_name("made.json"))["parts"].values())
        held[key] = {**run["results"], "arm": arm, "seconds": seconds}
    return held


def differing(ours: list[str], theirs: list[str]) -> Iterator[int]:
    return (i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)


class Ties:
    """Scores of the models of Transformers where answers part."""

    def __init__(self, args: argparse.Namespace, given: dict[str, Any], dtype: str) -> None:
        from springback.jobs.boost.checkpoints import make_pair
        from springback.jobs.boost.checks import check_settings, load_data
        from springback.jobs.boost.scoring import Scoring
        from springback.jobs.boost.settings import BoostSettings
        from springback.progress import Silent
        from springback.results.store import Store

        settings = check_settings(BoostSettings(**{**given, "dtype": dtype}))
        self.data, self.alpha = load_data(settings), settings.alpha
        store = Store(args.work / f"ties-{dtype}")
        pair = make_pair(settings, None, store, Silent())
        self.job = Scoring(settings, pair.line, store, Silent(), pair.weak)

    def gap(self, arm: dict[str, Any], part: str, row: int, ours: str, theirs: str) -> float:
        """How far the score of their first other token is below that of ours; 0 where the texts
        part in no token that can be told."""
        import torch

        from springback.decoding import contrast
        from springback.jobs.boost.transformers_engine import TransformersEngine

        job = self.job
        rendered = job.format.render(getattr(self.data, part))
        prompt = job._prompts(rendered)[row]
        ids = [job.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (ours, theirs)]
        same = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), None)
        if same is None:
            return 0.0
        read = torch.tensor([[*prompt, *ids[0][:same]]])
        engine = job.engine
        assert isinstance(engine, TransformersEngine)
        with torch.inference_mode():
            expert, weak = engine._models(arm)
            scores = expert(read).logits[0, -1].float()
            if weak is not None:
                other = weak(read).logits[0, -1].float()
                scores = contrast.stepped(scores, other, arm["lam"], self.alpha)
        return float(scores[ids[0][same]] - scores[ids[1][same]])


def compared(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """Answers of both engines by arm, and the scores where they part."""
    ours, theirs = scored(args.work / "transformers"), scored(args.work / "vllm")
    arms: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    ties: dict[str, Ties] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        texts = [held[key]["completions"] for held in (ours, theirs)]
        rows = list(differing(*texts))
        accuracy = {
            name: sum(held[key]["correct"]) / len(held[key]["correct"])
            for name, held in (("transformers", ours), ("vllm", theirs))
        }
        nll = [held[key]["nll"] for held in (ours, theirs)]
        moved = max((abs(a - b) for a, b in zip(*nll, strict=True)), default=None)
        arms.append(
            {
                "arm": key,
                "answers": len(texts[0]),
                "differ": len(rows),
                "accuracy": accuracy,
                "largest_difference_of_nll": moved,
            }
        )
        # From every arm some, so that all kinds of arms are looked into.
        for row in rows[: max(1, args.ties // max(1, len(ours)))]:
            ties = ties or {dtype: Ties(args, given, dtype) for dtype in (args.dtype, "float32")}
            asked = ours[key]["arm"], key.partition(",")[0], row, texts[0][row], texts[1][row]
            gap, exact = (ties[dtype].gap(*asked) for dtype in (args.dtype, "float32"))
            gaps.append({"arm": key, "row": row, "gap": gap, "gap_in_float32": exact})
    moved_by = sorted(abs(g["gap"] - g["gap_in_float32"]) for g in gaps)
    rounding = moved_by[-1] if moved_by else 0.0
    return {
        "arms": arms,
        "answers": sum(a["answers"] for a in arms),
        "differ": sum(a["differ"] for a in arms),
        "looked_into": len(gaps),
        "rounding_moves_gaps_by": {"median": moved_by[len(moved_by) // 2], "most": rounding}
        if moved_by
        else None,
        "near_ties": sum(abs(g["gap"]) <= rounding for g in gaps),
        "largest_gap": max((abs(g["gap"]) for g in gaps), default=0.0),
        "gaps": gaps,
    }


def common_seconds(args: argparse.Namespace) -> dict[str, Any]:
    """What each engine took for the arms that both tried, its start included."""
    held = {engine: scored(args.work / engine) for engine in ENGINES}
    keys = sorted(set.intersection(*(set(arms) for arms in held.values())))
    seconds = {engine: sum(arms[key]["seconds"] for key in keys) for engine, arms in held.items()}
    return {"arms": keys, "seconds": seconds, "ratio": seconds["vllm"] / seconds["transformers"]}


def seconds_of(result: dict[str, Any]) -> float:
    """What its runs took and what was done beside them, whichever process did it."""
    return float(sum(result["provenance"]["time"].values()))


def chosen(result: dict[str, Any]) -> dict[str, list[float]]:
    return {m["method"]: [m["mu"], m["lambda"]] for m in result["analysis"]["methods"]}


def main() -> None:
    args, started = arguments(), now()
    if args.data is None or args.work is None:
        print("needs --data and --work: left out (see the head of this file)")
        return
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    files = parts(args)
    early, ft = trained_pair(args, files["train"])
    given = {"early": str(early), "ft": str(ft)}
    given |= {name: str(files[name]) for name in ("validation", "test", "train")}
    rows = {"validation_rows": args.validation_rows, "test_rows": args.test_rows}
    boosts = {}
    for engine in ENGINES:
        settings = {**given, **rows, **settings_of(args, engine)}
        if not (args.work / engine / "result.json").exists():
            words = [sys.executable, "-c", CHILD, json.dumps(settings), str(args.work / engine)]
            subprocess.run(words, check=True)
        result = read_json(args.work / engine / "result.json")
        boosts[engine] = {
            "seconds": seconds_of(result),
            "time": result["provenance"]["time"],
            "chosen": chosen(result),
            "verdict": result["verdict"]["label"],
            "computing": result["provenance"]["computing"],
        }
    ratio = boosts["vllm"]["seconds"] / boosts["transformers"]["seconds"]
    plain = {**given, **rows, **settings_of(args, "transformers")}
    report = {
        "inputs": {k: v for k, v in vars(args).items() if k not in ("data", "work", "out")},
        "boosts": boosts,
        "ratio": ratio,
        "arms_of_both": common_seconds(args),
        "aim": AIM,
        "same_choice": boosts["vllm"]["chosen"] == boosts["transformers"]["chosen"],
        "tokens": compared(args, plain),
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(args.out, report)
    both = report["arms_of_both"]["ratio"]
    print(f"vLLM takes {ratio:.2f} of the time, {both:.2f} for the same arms (aim {AIM})")
    print({k: v for k, v in report["tokens"].items() if k not in ("arms", "gaps")})


if __name__ == "__main__":
    main()
