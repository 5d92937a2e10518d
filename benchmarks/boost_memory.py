"""Peak of anonymous memory (RssAnon) of a boost that only decodes, against one model's weights.

Claims, above a process that has only imported torch and Transformers (with its auto classes and
Trainer): at most 2.15 times one model's weights and the planned caches for two full checkpoints,
1.25 times for two adapters of rank 16.  Each case is a process of its own, sampled every
5 ms.  The pair is synthetic (a little seeded noise; random adapters), which memory does not see.

``--src DIR`` measures another version's package with the same pair and questions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "boost_memory.json"
RANK, QUESTIONS, NEW = 16, 4, 16
ALLOWED = {"full": 2.15, "adapters": 1.25}
CASES = ("full bfloat16", "full float32", "adapters bfloat16", "adapters float32")


def anonymous() -> int:
    """Bytes of this process that are no pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("no RssAnon in /proc/self/status")


@contextmanager
def peak_anonymous() -> Iterator[list[int]]:
    """The largest RssAnon (bytes) while the block runs."""
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def make_inputs(model: str, work: Path) -> None:
    """Questions with bare answers, the model, an early one beside it, two adapters on it."""
    import torch
    from safetensors.torch import load_file, save_file

    from springback.data import load_slice
    from springback.models.loading import resolve

    for part in ("validation", "test"):
        rows = load_slice("problems", limit=QUESTIONS, split=part).rows
        lines = [json.dumps({"question": r.prompt, "answer": r.answer}) for r in rows]
        (work / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    base, generator = Path(resolve(model).path), torch.Generator().manual_seed(0)
    for name in ("early", "ft"):
        shutil.copytree(base, work / name)
    file = work / "early" / "model.safetensors"
    tensors = load_file(file)
    for name in [n for n in tensors if n.endswith("o_proj.weight")]:
        noise = torch.randn(tensors[name].shape, generator=generator) * 1e-3
        tensors[name] = (tensors[name].float() + noise).to(tensors[name].dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    linear = {n: t.shape for n, t in tensors.items() if n.endswith("proj.weight")}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
        "base_model_name_or_path": str(work / "ft"),
        "target_modules": sorted({n.split(".")[-2] for n in linear}),
    }  # fmt: skip
    for name in ("early-adapter", "ft-adapter"):
        factors = {}
        for tensor, (high, wide) in linear.items():
            module = "base_model.model." + tensor.removesuffix(".weight")
            for part, shape in (("A", (RANK, wide)), ("B", (high, RANK))):
                factors[f"{module}.lora_{part}.weight"] = 0.01 * torch.randn(
                    shape, generator=generator
                )
        (work / name).mkdir()
        save_file(factors, work / name / "adapter_model.safetensors")
        (work / name / "adapter_config.json").write_text(json.dumps(config))


def measured(case: str, work: Path, before: int) -> dict[str, Any]:
    """One boost, in a process that holds nothing else."""
    from springback.jobs.boost.job import boost
    from springback.jobs.boost.settings import BoostSettings

    kind, dtype = case.split()
    ending = "-adapter" if kind == "adapters" else ""
    how: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    known = {f.name for f in fields(BoostSettings)}  # an older version computes in fp32 alone
    settings = BoostSettings(
        early=str(work / f"early{ending}"),
        ft=str(work / f"ft{ending}"),
        validation=str(work / "validation.jsonl"),
        test=str(work / "test.jsonl"),
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.2,),
        positive=True,
        precheck=False,
        write_model=False,
        reopen_test=True,
        max_new_tokens=NEW,
        batch_size=QUESTIONS,
        **{name: value for name, value in how.items() if name in known},
    )
    with tempfile.TemporaryDirectory(dir=work) as out, peak_anonymous() as peak:
        boost(settings, Path(out) / "boost")
    return {"peak_anonymous": peak[0], "libraries": before, "used": peak[0] - before}


def planned(case: str, work: Path) -> dict[str, int]:
    """Bytes of one model's weights and of the caches, in the dtype that is computed in."""
    from springback.core import Checkpoint
    from springback.data import load_slice
    from springback.models.encoding import encode_prompt
    from springback.models.loading import load_tokenizer, read_configs
    from springback.models.memory import cache_bytes, weight_bytes

    folder, dtype = work / "ft", case.split()[1]
    tokenizer = load_tokenizer(Checkpoint(str(folder)))
    rows = [r for p in ("validation", "test") for r in load_slice(str(work / f"{p}.jsonl")).rows]
    columns = NEW + max(len(encode_prompt(tokenizer, row, None)) for row in rows)
    config = read_configs(folder).config
    caches = 2 * cache_bytes(config, QUESTIONS, columns, dtype)
    return {"weights": weight_bytes(folder, dtype), "caches": caches}


def child(case: str, work: Path) -> None:
    import torch  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        Trainer,
    )

    print(json.dumps(measured(case, work, anonymous())))


def compared(case: str, work: Path, src: Path | None) -> dict[str, Any]:
    """A case, measured in a process of its own and held against its plan."""
    environment = {**os.environ, **({"PYTHONPATH": str(src)} if src else {})}
    command = [sys.executable, __file__, "--child", case, "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    run, plan = json.loads(done.stdout.splitlines()[-1]), planned(case, work)
    allowed = ALLOWED[case.split()[0]]
    ratio = (run["used"] - plan["caches"]) / plan["weights"]
    return {**run, **plan, "models": ratio, "allowed": allowed, "holds": ratio <= allowed}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-q5")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--src", type=Path, help="src/ of another version")
    parser.add_argument("--work", type=Path, help="keep the inputs here")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.work)
        return
    from springback.results.provenance import now, provenance
    from springback.results.store import write_json

    started, cases = now(), {}
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "ft").exists():
            make_inputs(options.model, work)
        for case in options.cases:
            one = cases[case] = compared(case, work, options.src)
            print(f"{case}: {one['used'] / 1e9:.2f} GB, {one['models']:.2f} times the weights")
            result = {
                "claim": "at most 2.15 times (full), 1.25 times (adapters) the weights, and caches",
                "holds": all(each["holds"] for each in cases.values()),
                "model": options.model,
                "version": "another" if options.src else "this",
                "questions": QUESTIONS,
                "new_tokens": NEW,
                "rank": RANK,
                "cases": cases,
                "provenance": provenance(started=started, finished=now()),
            }
            write_json(options.out, result)  # after every case: a cut-off run keeps what it has
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
