"""Does elasticity grow with alignment, size and volume, beyond what any model would show?

Models from scratch, so that "pre-trained" is true: two sizes, kept at three volumes of film
reviews, aligned on 0 to 2048 positive reviews and perturbed with negative ones, with a placebo
(reviews of both kinds, none of which was pre-trained on) from every aligned model.

All of this was fixed before anything was measured:

- Sizes, volumes, rows, doses and seeds are the constants below.  The learning rate of a size is
  the one of ``RATES`` with the lowest NLL of held-out positive reviews, mean over the aligned
  models of the middle volume, on a pilot seed that is left out afterwards.  No fall is looked at.
- With m(n, d) the margin after n aligning and d perturbing rows, in nats a token, and D the
  largest dose, the outcomes of a model (size, volume, seed) and an n above 0 are:
  ``beyond unaligned``: (m(n, 0) - m(n, D)) - (m(0, 0) - m(0, D)), the fall beyond what the negative
  reviews teach the unaligned model; ``beyond placebo``: the same against the placebo from the same
  aligned model; ``share lost``: 1 - (m(n, D) - m(0, D)) / (m(n, 0) - m(0, 0)), the share of the
  gain that is gone, equal for every n under proportional decay; ``half dose``: log2 of the dose at
  which half of that gain is gone, by straight lines between doses, at least the first and at most
  twice the last dose; ``kl``: KL to the pre-trained model after D perturbing rows less that before
  them, negative where the model moves back.
- Each outcome against each of log2 n, log2 size and log2 volume: one least-squares fit a seed, its
  slopes over the seeds by Student's t, all 15 tests adjusted by Holm.  A cell whose gain is not
  above 0 has no share and no half dose; a seed with fewer than four left has no slope.  An axis is
  not testable where the gain's interval over the seeds includes 0 at every n.

Every measured model is a small file in --out; these count as done on any machine, so the study can
be cut off and divided.  A seed takes about an hour of one core.

    python benchmarks/elasticity_from_scratch.py --imdb imdb/train.jsonl.gz
    python benchmarks/elasticity_from_scratch.py --imdb imdb/train.jsonl.gz --seeds 3,4
    python benchmarks/elasticity_from_scratch.py --table
"""

from __future__ import annotations

import argparse
import gzip
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from springback.data import load_slice
from springback.elasticity.seed_tests import t_pvalue
from springback.jobs.audit.job import audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.papers.pretrain import Pretraining, pretrain_once
from springback.jobs.papers.scale.job import shape_of
from springback.models.from_scratch import small_tokenizer
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import Store, read_json, write_json
from springback.stats import holm, mean_interval

RESULTS = Path(__file__).parent / "results" / "elasticity_from_scratch"
SIZES = ("128x4", "256x8")
VOLUMES = (1024, 4096, 16384)
N_POS = (0, 128, 512, 2048)
DOSES = (8, 16, 32, 64, 128, 256, 512)
SEEDS = (0, 1, 2, 3, 4)
PILOT, RATES = 100, (3e-4, 1e-3, 3e-3)
VOCABULARY, PRETRAINING_RATE = 4096, 2e-3
#: Rows of the file, in its order: for pre-training, for the placebo, for aligning and perturbing.
PARTS = {"pretraining": (0, 17000), "neutral": (17000, 18000), "study": (18000, 24000)}

STUDY = AuditSettings(
    n_pos=N_POS,
    doses=DOSES,
    batch_size=8,
    max_tokens=64,
    holdout=64,
    prompts=32,
    experiments=("rebound",),
    resistance_rows=0,
    probes=("margin", "kl", "neutral_nll"),
    controls=("neutral",),
    precision="float32",
    device="cpu",
)
OUTCOMES = ("beyond unaligned", "beyond placebo", "share lost", "half dose", "kl")
AXES = ("n_pos", "size", "volume")


def parts_of(imdb: Path, work: Path) -> dict[str, Path]:
    """The file's three parts, apart, so that no row is trained on and pre-trained on."""
    with gzip.open(imdb, "rt", encoding="utf-8") as opened:
        lines = opened.readlines()
    files = {}
    for name, (first, end) in PARTS.items():
        if len(lines) < end:
            raise SystemExit(f"{imdb} has {len(lines)} rows; {end} are needed")
        files[name] = work / f"{name}.jsonl"
        files[name].write_text("".join(lines[first:end]), encoding="utf-8")
    return files


def pretrained(
    size: str, volumes: tuple[int, ...], seed: int, files: dict[str, Path], store: Store
) -> dict[int, Path]:
    """Volume -> folder of the model; text, tokenizer, weights and order belong to the seed."""
    every = load_slice(str(files["pretraining"]), limit=max(VOLUMES), seed=7919 + seed)
    tokenizer = store.below("checkpoints", f"tokenizer-{seed}")
    if not tokenizer.exists():
        small_tokenizer([row.response for row in every.rows], VOCABULARY, tokenizer)
    run = Pretraining(
        volumes,
        every.take(max(volumes)),
        shape_of(size),
        7919 + seed,
        PRETRAINING_RATE,
        str(tokenizer),
        f"{every.content_hash[:20]}-{VOCABULARY}",
    )
    pretrain_once(run, store, Lines())
    return run.folders(store)


def study_of(files: dict[str, Path], seed: int, rate: float) -> AuditSettings:
    study = str(files["study"])
    return replace(
        STUDY,
        align=f"{study}?label=positive",
        perturb=f"{study}?label=negative",
        benign=str(files["neutral"]),
        neutral=str(files["neutral"]),
        seeds=(seed,),
        learning_rate=rate,
    )


def pilot(files: dict[str, Path], store: Store, out: Path) -> dict[str, float]:
    """Size -> learning rate, by the NLL of held-out positive reviews once aligned."""
    file = out / "pilot.json"
    kept: dict[str, Any] = read_json(file) if file.exists() else {}
    for size in SIZES:
        for rate in RATES:
            if f"{rate:g}" in kept.setdefault(size, {}):
                continue
            folder = pretrained(size, (VOLUMES[1],), PILOT, files, store)[VOLUMES[1]]
            settings = replace(
                study_of(files, PILOT, rate),
                model=str(folder),
                n_pos=N_POS[1:],
                doses=DOSES[:1],
                controls=(),
            )
            found = audit(settings, store.below(f"pilot-{size}-{rate:g}"), Lines())
            aligned = [
                m["value"]
                for m in found.data["measurements"]
                if (m["probe"], m["slice"], m["tags"]["phase"]) == ("nll", "wanted", "align")
            ]
            kept[size][f"{rate:g}"] = fmean(aligned)
            write_json(file, kept)
    return {size: float(min(kept[size], key=kept[size].__getitem__)) for size in SIZES}


def measure(
    size: str, volume: int, seed: int, rate: float, model: Path, files: dict[str, Path], work: Path
) -> dict[str, Any]:
    """Margin, KL and NLL of neutral rows by n_pos and dose, and the margins under the placebo."""
    started = now()
    settings = replace(study_of(files, seed, rate), model=str(model))
    found = audit(settings, work / f"{size}-{volume}-seed-{seed}", Lines())
    cell: dict[str, Any] = {
        "size": size,
        "weights": shape_of(size).parameters,
        "volume": volume,
        "seed": seed,
        "learning_rate": rate,
    }
    for probe in ("margin", "kl", "neutral_nll"):
        for m in found.data["measurements"]:
            tags = m["tags"]
            if m["probe"] != probe or tags["phase"] not in ("start", "align", "perturb", "control"):
                continue
            control, n, dose = tags.get("control"), tags.get("n_pos", 0), tags.get("n_neg", 0)
            kind = probe if control is None else f"{probe} {control}"
            cell.setdefault(kind, {}).setdefault(str(n), {})[str(dose)] = m["value"]
    return cell | {"provenance": provenance(started=started, finished=now())}


def left(cell: dict[str, Any], n: int, dose: int, kind: str = "margin") -> float:
    """A measured value; dose 0 of a control is that of the aligned model itself."""
    known = cell[kind][str(n)]
    return float(known[str(dose)] if str(dose) in known else cell["margin"][str(n)][str(dose)])


def half_dose(cell: dict[str, Any], n: int, gain: float) -> float:
    """log2 of the dose at which half of the gain is gone, within the doses as said above."""
    before, above = 0, gain
    for dose in DOSES:
        remaining = left(cell, n, dose) - left(cell, 0, dose)
        if remaining <= gain / 2:
            share = (above - gain / 2) / (above - remaining)
            return math.log2(max(DOSES[0], before + share * (dose - before)))
        before, above = dose, remaining
    return math.log2(2 * DOSES[-1])


def outcomes(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each aligned model of a cell: axes, gain and the five outcomes."""
    rows, last = [], DOSES[-1]
    unaligned = left(cell, 0, 0) - left(cell, 0, last)
    for n in N_POS[1:]:
        gain = left(cell, n, 0) - left(cell, 0, 0)
        fall = left(cell, n, 0) - left(cell, n, last)
        placebo = left(cell, n, 0) - left(cell, n, last, "margin neutral")
        gone = 1 - (left(cell, n, last) - left(cell, 0, last)) / gain if gain > 0 else None
        rows.append(
            {
                "seed": cell["seed"],
                "size": cell["size"],
                "volume": cell["volume"],
                "n_pos": n,
                "log2": [math.log2(v) for v in (n, cell["weights"], cell["volume"])],
                "gain": gain,
                "fall": fall,
                "beyond unaligned": fall - unaligned,
                "beyond placebo": fall - placebo,
                "share lost": gone,
                "half dose": half_dose(cell, n, gain) if gain > 0 else None,
                "kl": left(cell, n, last, "kl") - left(cell, n, 0, "kl"),
            }
        )
    return rows


def slopes(rows: list[dict[str, Any]], outcome: str) -> tuple[float, ...] | None:
    """Of one seed: change of an outcome for each doubling of rows, size and volume."""
    known = [row for row in rows if row[outcome] is not None]
    design = np.array([[1.0, *row["log2"]] for row in known])
    if len(known) < 4 or np.linalg.matrix_rank(design) < 4:
        return None
    fit = np.linalg.lstsq(design, np.array([row[outcome] for row in known]), rcond=None)[0]
    return tuple(float(v) for v in fit[1:])


def table(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Tests and means over the seeds of which every cell is there."""
    whole = len(SIZES) * len(VOLUMES)
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for cell in cells:
        by_seed.setdefault(cell["seed"], []).append(cell)
    seeds = {s: [r for c in them for r in outcomes(c)] for s, them in by_seed.items()}
    seeds = {s: rows for s, rows in sorted(seeds.items()) if len(by_seed[s]) == whole}
    rows = [row for them in seeds.values() for row in them]
    tests: list[dict[str, Any]] = []
    for outcome in OUTCOMES:
        fits = [fit for them in seeds.values() if (fit := slopes(them, outcome))]
        for axis, by_axis in zip(AXES, zip(*fits, strict=True), strict=False):
            tests.append(
                {
                    "outcome": outcome,
                    "axis": axis,
                    "per_doubling": mean_interval(by_axis).to_dict(),
                    "p": t_pvalue(by_axis),
                }
            )
    known = [test for test in tests if test["p"] is not None]
    for test, adjusted in zip(known, holm([t["p"] for t in known]) if known else (), strict=True):
        test["p_holm"] = adjusted
    means = []
    for size in SIZES:
        for volume in VOLUMES:
            for n in N_POS[1:]:
                here = [
                    r for r in rows if (r["size"], r["volume"], r["n_pos"]) == (size, volume, n)
                ]
                row: dict[str, Any] = {"size": size, "volume": volume, "n_pos": n}
                for name in ("gain", "fall", *OUTCOMES):
                    values = [r[name] for r in here if r[name] is not None]
                    row[name] = mean_interval(values).to_dict() if values else None
                means.append(row)
    return {"seeds": list(seeds), "tests": tests, "means": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--imdb", type=Path, help="the film reviews, as gzip JSON lines")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("elasticity-from-scratch-work"))
    parser.add_argument("--table", action="store_true", help="only the table of what is there")
    args = parser.parse_args()
    if not args.table:
        if args.imdb is None:
            print("needs --imdb to measure, --table reads what is there: left out")
            return
        args.out.mkdir(parents=True, exist_ok=True)
        args.work.mkdir(parents=True, exist_ok=True)
        files = parts_of(args.imdb, args.work)
        store = Store(args.work / "models")
        with store.locked():
            rates = pilot(files, store, args.out)
            for seed in map(int, args.seeds.split(",")):
                for size in SIZES:
                    names = {v: args.out / f"{size}-{v}-seed-{seed}.json" for v in VOLUMES}
                    wanted = [v for v, file in names.items() if not file.exists()]
                    if not wanted:
                        continue
                    folders = pretrained(size, VOLUMES, seed, files, store)
                    for volume in wanted:
                        cell = measure(
                            size, volume, seed, rates[size], folders[volume], files, args.work
                        )
                        write_json(names[volume], cell)
    cells = [read_json(file) for file in sorted(args.out.glob("*-seed-*.json"))]
    if not cells:
        raise SystemExit(f"nothing measured in {args.out} yet")
    found = table(cells)
    write_json(args.out / "table.json", found)
    print(f"seeds that are whole: {found['seeds']}")
    for test in found["tests"]:
        slope = test["per_doubling"]
        print(f"{test['outcome']:17} {test['axis']:7} {slope['mean']:+.4f}  p {test.get('p_holm')}")


if __name__ == "__main__":
    main()
