"""A whole audit and a whole boost beside scripts that an engineer would write in an afternoon.

The scripts are ``expert_parts/audit.py`` and ``boost.py``: TRL's ``SFTTrainer`` (or, as ``--experts
transformers``, Transformers' ``Trainer``), ``generate`` in left-padded batches with caches, a
``LogitsProcessor`` that contrasts; nothing of springback.  Same model, rows, order, recipe,
precision and quantities.  Whole processes, in turns, the order changing every round; the ratio is
taken within a round.  Aim: at most 0.5 of the script's time.

That it is equal work is checked: NLL at every point of the audit, KL and sentiment within the error
of their samples; NLL of both searches and of the fine-tuned model on test.  Left out of the
springback jobs is what the scripts have not: resistance, the pre-check, the written model.  0 is no
candidate of the boost, so every arm is decoded whatever is chosen.  Still more than in the scripts:
intervals and tests, the report, states to resume from, one more arm on test (ME, equal step).

    python benchmarks/expert_script.py --rounds 3
    python benchmarks/expert_script.py --size small --rounds 1 --out FILE.json    # a dry run

Broken off, it goes on with what is left when called again with the same --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from springback.core import Slice
from springback.jobs.audit.checks import check_settings as check_audit
from springback.jobs.audit.rows import load_data as audit_data
from springback.jobs.audit.settings import BARE, AuditSettings
from springback.jobs.boost.checks import check_settings as check_boost
from springback.jobs.boost.checks import load_data as boost_data
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.demo import SYSTEM
from springback.models.loading import resolve
from springback.results.provenance import now, provenance
from springback.results.store import read_json, write_json
from springback.training import plan_batches

HERE = Path(__file__).parent
RESULT = HERE / "results" / "expert_script.json"
AIM = 0.5
OURS = "springback"
EXPERTS = ("trl", "transformers")
#: How far the same NLL may lie apart, nats a token: bf16 rounds otherwise in another loss.
NLL_APART = 0.02
#: Standard errors that sampled quantities may lie apart.
ERRORS = 3.0
#: Beside the settings of `springback audit` and `boost`; small is for a dry run.
AUDITS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"n_pos": (8, 16), "doses": (8,), "holdout": 4, "prompts": 4, "sample_tokens": 6},
}
BOOSTS: dict[str, dict[str, Any]] = {
    "default": {"train_rows": 192, "validation_rows": 32, "test_rows": 64, "max_new_tokens": 72},
    "small": {
        "train_rows": 16,
        "validation_rows": 3,
        "test_rows": 4,
        "max_new_tokens": 12,
        "mu": (0.2, 0.4),
        "lam": (0.5,),
        "lam_cd": (0.2,),
    },
}
PROBES = ("margin", "kl", "sentiment")


def audit_settings(model: str, size: str) -> AuditSettings:
    """``springback audit`` as it is without flags, the rebound alone."""
    alone: dict[str, Any] = {**BARE, "probes": PROBES, "experiments": ("rebound",)}
    return check_audit(AuditSettings(model=model, resistance_rows=0, **alone, **AUDITS[size]))


def boost_settings(model: str, size: str) -> BoostSettings:
    """A boost on the demo's questions, with the candidates of ``springback boost``."""
    return check_boost(
        BoostSettings(
            model=model,
            train="problems:1",
            validation="problems:1",
            test="problems:1",
            system=SYSTEM,
            max_tokens=192,
            choose_by="best",
            positive=True,
            precheck=False,
            write_model=False,
            reopen_test=True,
            **BOOSTS[size],
        )
    )


def audit_job(s: AuditSettings) -> dict[str, Any]:
    """What the script is told: texts in the order of our runs, and the settings."""
    data, [seed] = audit_data(s), s.seeds
    rows = {
        "align": data.aligning(seed, max(s.n_pos)),
        "perturb": data.perturbing(seed, max(s.doses)),
        "wanted": data.wanted,
        "unwanted": data.unwanted,
    }
    names = ("n_pos", "doses", "prompts", "prompt_tokens", "sample_tokens", "max_tokens")
    return {
        **{name: [row.response for row in part.rows] for name, part in rows.items()},
        **{name: getattr(s, name) for name in names},
        **_training(s.model, s.recipe(seed)),
    }


def boost_job(s: BoostSettings) -> dict[str, Any]:
    """As :func:`audit_job`; the rows of both epochs in the order of our batches."""
    data, recipe = boost_data(s), s.recipe()
    assert data.train is not None
    assert s.model is not None
    order = [i for batch in plan_batches(len(data.train), recipe) for i in batch]
    if len(data.train) % recipe.batch_size:
        raise SystemExit(f"{len(data.train)} rows are no whole batches of {recipe.batch_size}")
    train = _texts(data.train)
    names = ("mu", "lam", "lam_cd", "alpha", "system", "batch_size", "max_new_tokens", "max_tokens")
    return {
        "train": [train[i] for i in order],
        "validation": _texts(data.validation),
        "test": _texts(data.test),
        **{name: getattr(s, name) for name in names},
        **_training(s.model, recipe),
    }


def _texts(part: Slice) -> list[dict[str, Any]]:
    return [
        {name: getattr(row, name) for name in ("prompt", "response", "answer")} for row in part.rows
    ]


def _training(model: str, recipe: Any) -> dict[str, Any]:
    return {
        "model": resolve(model).path,
        "train_batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "precision": recipe.precision,
        "seed": recipe.seed,
    }


def process(command: list[str]) -> dict[str, float]:
    """Seconds, processor seconds and peak resident bytes of a whole process; raises if it fails."""
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    surroundings = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **surroundings},
    )
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"ended with status {child.returncode}: {' '.join(command)}")
    computing = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "cpu_seconds": computing, "peak_bytes": 1024.0 * used.ru_maxrss}


def one(kind: str, arm: str, settings: Any, job: Mapping[str, Any]) -> dict[str, Any]:
    """One arm in a fresh folder: what it took, and its numbers."""
    with tempfile.TemporaryDirectory(prefix="springback-bench-") as scratch:
        folder = Path(scratch)
        if arm == OURS:
            study = folder / "study.yaml"  # JSON is YAML
            usual = vars(type(settings)())
            given = {k: v for k, v in vars(settings).items() if v != usual[k]}
            study.write_text(json.dumps(given))
            out = folder / "out"
            words = [kind, str(study), "--out", str(out)]
            took = process([sys.executable, "-m", "springback.cli", *words])
            result = read_json(out / "result.json")
            return {**took, "time": result["provenance"]["time"], "numbers": NUMBERS[kind](result)}
        given_to, records = folder / "job.json", folder / "records.json"
        given_to.write_text(json.dumps({**job, "trainer": arm, "folder": str(folder / "models")}))
        script = f"expert_parts.{kind}"
        took = process([sys.executable, "-m", script, str(given_to), str(records)])
        return {**took, "numbers": json.loads(records.read_text())}


def audit_numbers(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Our measurements as the script records them: one entry a model."""
    by_model: dict[str, dict[str, Any]] = {}
    for m in result["measurements"]:
        tags = {k: m["tags"][k] for k in ("phase", "n_pos", "n_neg") if k in m["tags"]}
        if tags["phase"] == "perturb" and not tags["n_pos"] and not tags["n_neg"]:
            continue  # the start model once more
        kept = by_model.setdefault(json.dumps(tags), tags)
        kept[m["slice"] if m["probe"] == "nll" else m["probe"]] = m["value"]
    return list(by_model.values())


def boost_numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """Our searches and tests, by the names that the script uses."""
    analysis = result["analysis"]
    search = {
        name: [
            {"value": c["value"], "accuracy": c["accuracy"]["mean"], "nll": c["nll"]["mean"]}
            for c in candidates
        ]
        for name, candidates in analysis["search"].items()
    }
    test = {
        m["method"]: {
            "mu": m["mu"],
            "lambda": m["lambda"],
            "accuracy": m["accuracy"]["mean"],
            "nll": m["nll"]["mean"],
        }
        for m in analysis["methods"]
    }
    return {"search": search, "test": test}


NUMBERS: dict[str, Any] = {"audit": audit_numbers, "boost": boost_numbers}


def audit_agreement(ours: Any, theirs: Any) -> dict[str, Any]:
    """How far both lie apart, at most, over all models: NLL and margin in nats a token, KL and
    sentiment in standard errors of the difference."""
    keys = ("phase", "n_pos", "n_neg")
    mine = {tuple(m.get(k) for k in keys): m for m in ours}
    pairs = [(mine[tuple(m.get(k) for k in keys)], m) for m in theirs]
    apart = {
        name: max(abs(a[name] - b[name]) for a, b in pairs)
        for name in ("wanted", "unwanted", "margin")
    }
    # Two samples of the same size: the error of a difference is sqrt(2) times one's.
    sampled = {
        name: max(
            (
                abs(a[name] - b[name]) / (2**0.5 * b[f"{name}_error"])
                for a, b in pairs
                if b[f"{name}_error"]
            ),
            default=0.0,
        )
        for name in ("kl", "sentiment")
    }
    holds = max(apart["wanted"], apart["unwanted"]) <= NLL_APART
    holds = holds and len(pairs) == len(mine) and max(sampled.values()) <= ERRORS
    return {"models": len(pairs), "nats": apart, "errors": sampled, "holds": holds}


def boost_agreement(ours: Any, theirs: Any) -> dict[str, Any]:
    """How far NLL lies apart, at most, nats a token, and accuracy, wherever both are of one arm:
    the searches for mu and for lambda of CD, and the fine-tuned model on test."""
    pairs = [
        pair
        for name in ("mu", "cd_lambda")
        for pair in zip(ours["search"][name], theirs["search"][name], strict=True)
    ]
    if any(a["value"] != b["value"] for a, b in pairs):
        raise SystemExit("both searched other candidates")
    for name, one_arm in theirs["test"].items():
        mine = ours["test"][name]
        if (mine["mu"], mine["lambda"]) == (one_arm["mu"], one_arm["lambda"]):
            pairs.append((mine, one_arm))
    nll = max(abs(a["nll"] - b["nll"]) for a, b in pairs)
    right = max(abs(a["accuracy"] - statistics.fmean(b["correct"])) for a, b in pairs)
    return {"arms": len(pairs), "nats": nll, "accuracy": right, "holds": nll <= NLL_APART}


AGREEMENT: dict[str, Any] = {"audit": audit_agreement, "boost": boost_agreement}


def summary(kind: str, rounds: list[dict[str, Any]], experts: tuple[str, ...]) -> dict[str, Any]:
    """Ratios within rounds, their medians, and the largest disagreement."""
    found: dict[str, Any] = {}
    for expert in experts:
        ratios = {
            name: [r[OURS][name] / r[expert][name] for r in rounds]
            for name in ("seconds", "cpu_seconds", "peak_bytes")
        }
        agreed = [AGREEMENT[kind](r[OURS]["numbers"], r[expert]["numbers"]) for r in rounds]
        median = statistics.median(ratios["seconds"])
        found[expert] = {
            "ratios": ratios,
            "median": {name: statistics.median(each) for name, each in ratios.items()},
            "aim": AIM,
            "reached": median <= AIM,
            "agreement": agreed,
            "equal_work": all(each["holds"] for each in agreed),
        }
    return found


def begun(args: argparse.Namespace, inputs: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rounds of a call with these inputs that was broken off; a finished file begins anew."""
    if not args.out.exists():
        return {}
    before = read_json(args.out)
    if before["finished"]:
        return {}
    if before["inputs"] != json.loads(json.dumps(inputs)):
        raise SystemExit(f"{args.out} was begun with other flags or code; take another --out")
    rounds: dict[str, list[dict[str, Any]]] = before["rounds"]
    return rounds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", default="audit,boost", help="some of audit, boost")
    parser.add_argument("--experts", default="trl", help=f"some of {', '.join(EXPERTS)}")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--size", choices=sorted(AUDITS), default="default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def main() -> None:
    args, started = arguments(), now()
    experts, kinds = tuple(args.experts.split(",")), args.jobs.split(",")
    inputs = {k: v for k, v in vars(args).items() if k not in ("out", "rounds")}
    inputs["revision"] = provenance(started=started, finished=now())["git_revision"]
    rounds = begun(args, inputs)
    settings: dict[str, Any] = {
        "audit": audit_settings(args.model, args.size),
        "boost": boost_settings(args.model, args.size),
    }
    jobs = {"audit": audit_job(settings["audit"]), "boost": boost_job(settings["boost"])}

    def write(finished: bool) -> dict[str, Any]:
        # What a finished round took; one that is not is there to go on with.
        whole = {k: [r for r in rounds[k] if len(r) == 1 + len(experts)] for k in rounds}
        made = {
            "inputs": inputs,
            "finished": finished,
            "summary": {k: summary(k, r, experts) for k, r in whole.items() if r},
            "rounds": rounds,
            "provenance": provenance(started=started, finished=now()),
        }
        write_json(args.out, made)
        return made

    for number in range(args.rounds):
        for kind in kinds:
            done = rounds.setdefault(kind, [])
            if len(done) <= number:
                done.append({})
            arms = (OURS, *experts)
            for arm in arms[:: -1 if number % 2 else 1]:
                if arm not in done[number]:
                    done[number][arm] = one(kind, arm, settings[kind], jobs[kind])
                    print(
                        f"{kind} {number + 1}, {arm}: {done[number][arm]['seconds']:.1f} s",
                        flush=True,
                    )
                    write(False)
    for kind, by_expert in write(True)["summary"].items():
        for expert, one_of in by_expert.items():
            ratio, equal = one_of["median"]["seconds"], one_of["equal_work"]
            print(f"{kind}: {ratio:.2f} of {expert}'s time (aim {AIM}); equal work: {equal}")


if __name__ == "__main__":
    main()
