"""The studies behind the findings, each by one command that goes on wherever it was cut off.

    python benchmarks/evidence.py --list
    python benchmarks/evidence.py epicode-gsm8k-494m --data DATA --work WORK
    python benchmarks/evidence.py epicode-gsm8k-494m --data DATA --work WORK --plan
    python benchmarks/evidence.py epicode-gsm8k-494m --work WORK --collect docs/results

A study is an ordinary springback command, which is printed and run in WORK; what it needs of DATA
(a folder with gsm8k, logiqa, imdb, beavertails, safety_tuned, alpaca) is copied there first, so
that results name no other place.  Before it comes a pilot on a seed that is left out afterwards,
from half of the rows at most.  The learning rate is the one with the lowest NLL of what the
training teaches: of validation solutions, or of the aligning rows when each is first trained on
(one epoch), but for the first 128.  Neither accuracy, a gain of a method, a fall nor a text that
the study reports has a say.  A rate at the edge of those tried is told as that.  Rates that are
tried already stand in WORK/NAME-pilot.json; that file, and WORK/NAME with its ``runs``, may be
carried to another machine.  --collect copies a finished study's small files.

Test questions are the same for every seed, so that intervals are over questions and seeds both.

All settings and rates below were fixed before anything was measured; fewer test questions and seeds
were taken after the first pilots, before any text that a study reports was read.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

from springback.jobs.audit.settings import AuditSettings
from springback.jobs.papers.epicode.settings import EpicodeSettings
from springback.results.store import Store, clear_folder, read_json, write_json

PILOT = 100
HALF_BILLION = "qwen2.5-coder-0.5b-q5"
#: Adapters, computed in bf16: what two cores can do with half a billion weights.
ADAPTERS = {"model": HALF_BILLION, "lora_rank": 8, "dtype": "bfloat16", "precision": "bf16-mixed"}
ADAPTER_RATES, RATES = (1e-4, 3e-4, 1e-3), (1e-5, 3e-5, 1e-4)

BOOST = {
    **ADAPTERS,
    "train_rows": 512,
    "validation_rows": 96,
    "batch_size": 96,
    "mu": (0.1, 0.2, 0.4, 0.8),
    "lam": (0.2, 0.5, 1.0),
    "lam_cd": (0.1, 0.2, 0.5),
    "rewind": (0.25, 0.5, 1.0),
}
GSM8K = {
    "task": "gsm8k",
    "train": "gsm8k/train.jsonl.gz",
    "validation": "gsm8k/train.jsonl.gz",
    "test": "gsm8k/test-256.jsonl.gz",
    "test_rows": 256,
    "max_tokens": 384,
    "max_new_tokens": 192,
}
LOGIQA = {
    "task": "logiqa",
    "train": "logiqa/train.jsonl.gz",
    # The set's own for this has D as the answer of 42 %, of training and test rows 26 and 29 %.
    "validation": "logiqa/train.jsonl.gz",
    "test": "logiqa/test.jsonl.gz",
    "test_rows": 326,
    "max_tokens": 512,
    "max_new_tokens": 4,
}
AUDIT = {
    "n_pos": (128, 512, 1024),
    "doses": (16, 32, 64, 128),
    "experiments": ("rebound",),
    "resistance_rows": 0,
    "controls": ("unaligned", "neutral"),
    "max_tokens": 128,
    "holdout": 64,
    "prompts": 32,
    "utility_rows": 16,
}
#: The placebo of reviews is reviews of both kinds, of safety instructions of every kind, whose
#: answers are a quarter shorter.  Reviews move the margin by little: four times the held-out texts.
IMDB = {
    **AUDIT,
    "n_pos": (512, 1024),
    "doses": (32, 128),
    "holdout": 256,
    "align": "imdb/train.jsonl.gz?label=positive",
    "perturb": "imdb/train.jsonl.gz?label=negative",
    "benign": "imdb/test.jsonl.gz",
    "probes": ("margin", "kl", "bits_per_byte", "sentiment", "neutral_nll"),
}
SAFETY = {
    **AUDIT,
    "align": "beavertails/train.jsonl.gz?is_safe=true+safety_tuned/train.jsonl.gz",
    "perturb": "beavertails/train.jsonl.gz?is_safe=false",
    "benign": "alpaca/train.jsonl.gz",
    "probes": ("margin", "kl", "bits_per_byte", "behaviour", "neutral_nll"),
    "behaviour": "refusal",
}
#: Of a few rows, to see that a study works from end to end.
QUICK_BOOST = {
    "train_rows": 6,
    "validation_rows": 3,
    "test_rows": 4,
    "train_batch_size": 3,
    "mu": (0.2,),
    "lam": (0.5,),
    "lam_cd": (0.5,),
    "rewind": (0.5, 1.0),
    "max_new_tokens": 2,
    "max_tokens": 4096,
    "seeds": (0, 1),
    "dtype": "float32",
    "precision": "float32",
}
QUICK_AUDIT = {
    "n_pos": (8, 16),
    "doses": (8,),
    "seeds": (0,),
    "holdout": 4,
    "prompts": 2,
    "utility_rows": 2,
    "sample_tokens": 2,
    "dtype": "float32",
    "precision": "float32",
}


@dataclass(frozen=True)
class Study:
    """``command`` of springback (empty: of ``bridge.py``), and its settings but for the learning
    rate, which is one of ``rates``.  ``recipe_of``: another study whose learning rate it takes.
    ``minutes``: planned, of two idle cores (AVX-512 bf16), and of its pilot: by what a thread took
    here for a batch of this model, and by the tokens that springback's own plan counts."""

    command: tuple[str, ...]
    given: Mapping[str, Any]
    minutes: str
    rates: tuple[float, ...] = ()
    recipe_of: str | None = None
    needs: tuple[str, ...] = field(default=())

    @property
    def settings(self) -> type[Any]:
        return EpicodeSettings if "reproduce" in self.command else AuditSettings

    def flags(self, given: Mapping[str, Any]) -> list[str]:
        named = {f.name: f.metadata.get("flag") or f.name for f in fields(self.settings)}
        flags = []
        for name, value in given.items():
            listed = isinstance(value, tuple)
            text = ",".join(map(_number, value)) if listed else _number(value)
            flags += [f"--{named[name].replace('_', '-')}", text]
        return flags

    @property
    def files(self) -> list[str]:
        """The data that it reads, as paths below DATA."""
        found = re.findall(r"\w+/[\w-]+\.jsonl\.gz", " ".join(map(str, self.given.values())))
        return [*dict.fromkeys((*found, *self.needs))]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _boost(name: str, data: Mapping[str, Any], seeds: tuple[int, ...], minutes: str) -> Study:
    given = {**BOOST, **data, "seeds": seeds}
    return Study(("reproduce", name), given, minutes, ADAPTER_RATES)


def _audit(model: str, data: Mapping[str, Any], seeds: tuple[int, ...], minutes: str) -> Study:
    if model == HALF_BILLION:
        return Study(("audit",), {**data, **ADAPTERS, "seeds": seeds}, minutes, ADAPTER_RATES)
    return Study(("audit",), {**data, "model": model, "seeds": seeds}, minutes, RATES)


MAIN = _boost("epicode-main", GSM8K, (0, 1, 2, 3, 4), "5 x 55, pilot 20")
ONE_SEED = {**MAIN.given, "seeds": (0,)}
BRIDGED = (
    "gsm8k/train.jsonl.gz",
    "gsm8k/test.jsonl.gz",
    "beavertails/train.jsonl.gz",
    "beavertails/test.jsonl.gz",
    "safety_tuned/train.jsonl.gz",
)
STUDIES = {
    "epicode-gsm8k-494m": MAIN,
    "epicode-logiqa-494m": _boost("epicode-main", LOGIQA, (0, 1, 2), "3 x 45, pilot 24"),
    "epicode-weak-model-494m": Study(
        ("reproduce", "epicode-weak-model"),
        {**ONE_SEED, "rewind": (), "ablate_weak": ("early", "init")},
        "65",
        recipe_of="epicode-gsm8k-494m",
    ),
    "epicode-theory-494m": Study(
        ("reproduce", "epicode-theory"),
        {
            **ONE_SEED,
            "rewind": (),
            "train_rows": 96,
            "train_batch_size": 4,
            "lam": (0.25, 0.5, 1.0, 2.0),
        },
        "65",
        recipe_of="epicode-gsm8k-494m",
    ),
    # For a GPU: full weights.
    "epicode-gsm8k-494m-full": Study(
        ("reproduce", "epicode-main"),
        {**ONE_SEED, "lora_rank": 0, "batch_size": 128, "dtype": "float32"},
        "not planned: for a GPU",
        RATES,
    ),
    "rebound-imdb-135m": _audit("smollm2-135m", IMDB, (0, 1, 2), "3 x 24, pilot 10"),
    "rebound-safety-135m": _audit("smollm2-135m", SAFETY, (0, 1, 2), "3 x 20, pilot 8"),
    "rebound-safety-494m": _audit(HALF_BILLION, SAFETY, (0, 1), "2 x 30, pilot 12"),
    "rebound-safety-270m": _audit("gemma3-270m", SAFETY, (0, 1), "2 x 40, pilot 15"),
    "rebound-imdb-494m": _audit(HALF_BILLION, IMDB, (0, 1), "2 x 40, pilot 12"),
    "rebound-imdb-270m": _audit("gemma3-270m", IMDB, (0, 1), "2 x 50, pilot 15"),
    "bridge-135m": Study((), {"model": "smollm2-135m"}, "5 x 30, pilot 20", needs=BRIDGED),
    # Adapters are merged into every point: in bf16 that would be rounded by as much as a step.
    "bridge-494m": Study(
        (),
        {"model": HALF_BILLION, "lora-rank": 8, "dtype": "float32"},
        "5 x 130, pilot 60",
        needs=BRIDGED,
    ),
}


def quick(study: Study, model: str) -> Study:
    """The study on ``model`` and a few rows."""
    if not study.command:
        return replace(study, given={**study.given, "model": model, "dtype": "float32"})
    small = QUICK_BOOST if study.settings is EpicodeSettings else QUICK_AUDIT
    given = {**study.given, **small, "model": model}
    if not study.given.get("rewind", True):
        given["rewind"] = ()
    if "epicode-theory" in study.command:
        given |= {"train_rows": 3}
    return replace(study, given=given)


def pilot(name: str, study: Study, work: Path) -> float:
    """The learning rate, by a seed that is left out."""
    file = work / f"{name}-pilot.json"
    kept: dict[str, float] = read_json(file) if file.exists() else {}
    for rate in study.rates:
        if f"{rate:g}" in kept:
            continue
        given = {**study.given, "learning_rate": rate, "seeds": (PILOT,)}
        folder = work / f"{name}-pilot"
        tried = _tried_boost if study.settings is EpicodeSettings else _tried_audit
        kept[f"{rate:g}"] = tried(study, given, folder)
        write_json(file, kept)
        clear_folder(folder)
        print(f"{name}: pilot at {rate:g}: {kept[f'{rate:g}']:.4f} nats a token", flush=True)
    return float(min(kept, key=kept.__getitem__))


def _tried_boost(study: Study, given: Mapping[str, Any], folder: Path) -> float:
    """NLL of the validation solutions under the model fine-tuned on half of the rows."""
    from springback.jobs.boost.arm import Arm
    from springback.jobs.boost.checkpoints import make_pair
    from springback.jobs.boost.checks import check_settings, load_data
    from springback.jobs.boost.questions import question_format
    from springback.jobs.boost.scoring import Scoring
    from springback.jobs.papers.epicode.plan import settings_of
    from springback.progress import Lines

    given = {**given, "train_rows": max(1, given["train_rows"] // 2)}
    every = settings_of(study.command[1], "small", given)
    settings = check_settings(every.one(PILOT, every.model, every.task))
    data = load_data(settings)
    with Store(folder).locked() as store:
        shown = question_format(settings).render(data.train) if data.train else None
        pair = make_pair(settings, shown, store, Lines())
        job = Scoring(settings, pair.line, store, Lines(), pair.weak, data.train)
        plain = Arm("fine-tuned", 0, 0, None)
        return fmean(job.nll_all([plain], data.validation, "validation")[0])


def _tried_audit(_: Study, given: Mapping[str, Any], folder: Path) -> float:
    """NLL of the aligning rows before each is trained on, but for the first of them."""
    from springback.jobs.audit.job import audit
    from springback.progress import Lines

    settings = AuditSettings(**given)
    rows = max(settings.n_pos) // 2
    settings = replace(
        settings,
        n_pos=(rows,),
        doses=settings.doses[:1],
        controls=(),
        probes=("margin",),
        behaviour=None,
    )
    audit(settings, folder, Lines())
    (aligning,) = folder.glob("runs/align-*/run.json")
    losses = read_json(aligning)["results"]["losses"]
    return fmean(losses[min(128, rows // 2) // settings.batch_size :])


def copy_data(study: Study, data: Path, work: Path) -> None:
    """NAME-N.jsonl.gz: the first N rows of NAME.jsonl.gz."""
    for name in study.files:
        if (work / name).exists():
            continue
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        cut = re.fullmatch(r"(.*)-([0-9]+)(\.jsonl\.gz)", name)
        if cut is None:
            shutil.copyfile(data / name, work / name)
            continue
        with gzip.open(data / f"{cut[1]}{cut[3]}") as whole:
            lines = [next(whole) for _ in range(int(cut[2]))]
        (work / name).write_bytes(gzip.compress(b"".join(lines), mtime=0))


def command_of(
    name: str, study: Study, rate: float | None, out: str, quickly: bool = False
) -> list[str]:
    """As it is typed in WORK."""
    if not study.command:
        flags = [f"--{key}" for key in study.given]
        values = [
            ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in study.given.values()
        ]
        given = [word for pair in zip(flags, values, strict=True) for word in pair]
        more = ["--quick"] if quickly else []
        return ["bridge.py", "--data", ".", *given, *more, "--work", f"{name}-work", "--out", out]
    settings = {name: value for name, value in study.given.items() if value != ()}
    if rate is not None:
        settings["learning_rate"] = rate
    return ["springback", *study.command, *study.flags(settings), "--out", out]


def run(words: list[str], work: Path) -> NoReturn:
    """In place of this process, so that whoever stops this one stops the study."""
    print(" ".join(words), flush=True)
    script = Path(__file__).resolve().parent / "bridge.py"
    if words[0] == "springback":
        script = Path(sys.executable).with_name("springback")
    os.chdir(work)
    os.execv(sys.executable, [sys.executable, str(script), *words[1:]])


def collect(name: str, work: Path, into: Path) -> int:
    """Copy result, pages, charts and finished runs of a study, and its pilot; how many files."""
    count = 0
    wanted = ("*.json", "*.md", "*.svg", "runs/*/run.json", "charts/*.svg")
    for path in sorted({p for pattern in wanted for p in (work / name).glob(pattern)}):
        target = into / name / path.relative_to(work / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        count += 1
    if (work / f"{name}-pilot.json").exists():
        shutil.copyfile(work / f"{name}-pilot.json", into / name / "pilot.json")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", choices=[*STUDIES])
    parser.add_argument("--list", action="store_true", help="the studies and their planned time")
    parser.add_argument("--data", type=Path, help="folder with the data sets")
    parser.add_argument("--work", type=Path, default=Path("evidence-work"))
    parser.add_argument("--plan", action="store_true", help="only springback's own plan of it")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="copy its small files there")
    parser.add_argument(
        "--engine", help="what decodes a study of paper B: vllm has seeds of its own"
    )
    parser.add_argument("--quick", metavar="MODEL", help="a few rows on a small model: it works")
    parser.add_argument("--out", help="ignored; make bench names it")
    args = parser.parse_args()
    if args.study is None:
        for name, study in STUDIES.items():
            command = " ".join(study.command) or "bridge.py"
            print(f"{name:26} {study.minutes:24} {command}")
        return 0
    name, study, work = args.study, STUDIES[args.study], args.work
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    if args.collect:
        print(f"{collect(name, work, args.collect)} files are in {args.collect / name}")
        return 0
    if args.data:
        copy_data(study, args.data, work)
    elif missing := [file for file in study.files if not (work / file).exists()]:
        raise SystemExit(f"--data FOLDER is needed: {', '.join(missing)} are not in {work} yet")
    of_recipe = STUDIES[study.recipe_of] if study.recipe_of else study
    if args.quick:
        study, of_recipe = quick(study, args.quick), quick(of_recipe, args.quick)
    if args.engine:
        if study.settings is not EpicodeSettings:
            parser.error(f"--engine with {name}, which is no study of paper B; leave it out")
        study = replace(study, given={**study.given, "engine": args.engine})
    if args.plan:
        rate = of_recipe.rates[0] if of_recipe.rates else None
        run([*command_of(name, study, rate, name, bool(args.quick)), "--plan"], work)
    rate = None
    if of_recipe.rates:
        with contextlib.chdir(work):
            rate = pilot(study.recipe_of or name, of_recipe, Path())
    run(command_of(name, study, rate, name, bool(args.quick)), work)


if __name__ == "__main__":
    sys.exit(main())
