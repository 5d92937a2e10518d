"""Where does extrapolation help, do nothing, or harm, and does the pre-check know it before?

Cells: 3 learning rates x 3 numbers of training rows x 3 seeds.  Each trains SmolLM2-135M for three
epochs on built-in word problems of one step; the last two epochs' checkpoints are the pair, all
three the line of the pre-check.

* The call, from validation only: ``weights.judge`` on the line and the NLL along mu
  (``jobs.precheck``, what ``springback boost`` prints).  Its sign: "safe" says that it helps, "no
  gain expected" that it does not (so harm), "risky" that it harms.  Fixed before anything was run.
* The outcome, on test questions: the candidate mu above 0 with the lowest validation NLL (so one is
  always taken) against mu = 0, gold-solution NLL and accuracy, paired by question.

A regime (a rate and a number of rows) is put together over its seeds by t on their mean
differences, at 95 %: it "helps" where the interval of NLL lies below 0, "harms" where above it,
else "nothing" is shown; likewise for accuracy.  Its call is that of most of its seeds.  NLL decides
the map, since it tells small differences from noise; accuracy stands beside it.  Goal: of the
regimes that differ from 0 the call has the sign right in 80 %; with fewer than five it is
"not testable".

Finished cells are kept in --out and a second call goes on from there; parts of the map made
elsewhere can be joined with --join FILE.  A cell takes four to seven minutes on one core.  --tiny
runs one small cell, to see that it works; --only N stops after N new cells.  The map is drawn
beside the result file, as an SVG of the same name.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.core import to_jsonable
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Boost
from springback.jobs.boost.precheck import precheck
from springback.jobs.boost.settings import BoostSettings
from springback.progress import Lines
from springback.report.drawing import panel, style
from springback.report.theme import LIGHT
from springback.results.provenance import now, provenance
from springback.results.store import Store, read_json, write_json
from springback.stats import Interval, mean_interval, paired_interval

RESULT = Path(__file__).parent / "results" / "regime_map.json"
RATES = (1e-5, 4e-5, 1.6e-4)
ROWS = (16, 48, 96)
SEEDS = (0, 1, 2)
MUS = (0.1, 0.2, 0.4, 0.8)
SETTINGS = BoostSettings(
    model="smollm2-135m",
    train="problems:1",
    validation="problems:1",
    test="problems:1",
    validation_rows=32,
    test_rows=64,
    epochs=3,
    train_batch_size=8,
    mu=MUS,
    positive=True,
    reopen_test=True,
    write_model=False,
    max_new_tokens=72,
    max_tokens=192,
    batch_size=64,
    system="Solve the problem.",
    # One precision on every machine, so that the map can be made on several.
    precision="float32",
)
TINY: dict[str, Any] = {"validation_rows": 4, "test_rows": 4, "max_new_tokens": 8}
SIGNS = {"safe": "helps", "no gain expected": "harms", "risky": "harms"}
#: Fewer regimes that differ from 0 tell nothing about a share of 80 %.
LEAST = 5
GOAL = 0.8


def measure(settings: BoostSettings, work: Path) -> dict[str, Any]:
    """One cell: the pre-check's call, and what the best mu above 0 does on test."""
    progress, settings = Lines(), check_settings(settings)
    data = load_data(settings)
    with Store(work).locked() as store:
        pair = make_pair(settings, data.train, store, progress)
        job = Boost(settings, (pair.early, pair.ft), store, progress)
        call = precheck(job, pair.line, data.validation)
        arms = [Arm("ME only", mu, 0, None) for mu in settings.mu]
        nll = job.nll_all(arms, data.validation, "validation")
        means = {arm.mu: statistics.fmean(n) for arm, n in zip(arms, nll, strict=True)}
        mu = min(means, key=lambda m: (means[m], m))
        plain, moved = (job.score(Arm("ME only", m, 0, None), data.test, "test") for m in (0.0, mu))
    right = [[float(c) for c in tried.correct] for tried in (moved, plain)]
    return {
        "call": call,
        "mu": mu,
        "validation_nll": {f"{m:g}": v for m, v in means.items()},
        "accuracy": [statistics.fmean(right[1]), statistics.fmean(right[0])],
        "nll": [statistics.fmean(plain.nll), statistics.fmean(moved.nll)],
        "nll_difference": paired_interval(moved.nll, plain.nll).to_dict(),
        "accuracy_difference": paired_interval(*right).to_dict(),
    }


def outcome(interval: Interval, better_below: bool) -> str:
    """helps, harms or nothing."""
    if interval.low is None or interval.high is None or interval.low <= 0 <= interval.high:
        return "nothing"
    return "helps" if (interval.high < 0) == better_below else "harms"


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Every regime whose seeds are all done, and how often the call had the sign right."""
    regimes: dict[str, Any] = {}
    for rate in RATES:
        for rows in ROWS:
            keys = [f"{rate:g} / {rows} rows / seed {seed}" for seed in SEEDS]
            got = [cells[key] for key in keys if key in cells]
            if len(got) < len(SEEDS):
                continue
            nll = mean_interval([c["nll_difference"]["mean"] for c in got])
            accuracy = mean_interval([c["accuracy_difference"]["mean"] for c in got])
            calls = Counter(c["call"]["label"] for c in got)
            signs = Counter(SIGNS[c["call"]["label"]] for c in got)
            regimes[f"{rate:g} / {rows} rows"] = {
                "outcome": outcome(nll, better_below=True),
                "outcome_accuracy": outcome(accuracy, better_below=False),
                "called": max(signs, key=lambda s: signs[s]),
                "calls": dict(calls),
                "nll_difference": nll.to_dict(),
                "accuracy_difference": accuracy.to_dict(),
                "fine_tuned_accuracy": statistics.fmean(c["accuracy"][0] for c in got),
                "mu": [c["mu"] for c in got],
            }
    return {"regimes": regimes, "by_nll": score(regimes, "outcome"),
            "by_accuracy": score(regimes, "outcome_accuracy")}  # fmt: skip


def score(regimes: dict[str, Any], key: str) -> dict[str, Any]:
    """Share of right signs among the regimes that differ from 0."""
    told = [r for r in regimes.values() if r[key] != "nothing"]
    right = sum(r["called"] == r[key] for r in told)
    whole = len(regimes) == len(RATES) * len(ROWS)
    if not whole:
        verdict = f"{len(regimes)} of {len(RATES) * len(ROWS)} regimes done"
    elif len(told) < LEAST:
        verdict = "not testable"
    else:
        verdict = "goal met" if right >= GOAL * len(told) else "goal missed"
    return {"differ": len(told), "right": right, "verdict": verdict}


def draw(regimes: dict[str, Any], file: Path) -> None:
    """A field for each regime: change of NLL with its interval, of accuracy, outcome and call."""
    from matplotlib.patches import Rectangle

    colours = {"helps": LIGHT["good"], "harms": LIGHT["bad"], "nothing": LIGHT["muted"]}
    title, unit = "Where extrapolation helps", "change of NLL at the best mu above 0, nats a token"
    with style("regime-map"):
        figure, (axes,) = panel(title, [unit], plot_height=270, left=66)
        for x, rows in enumerate(ROWS):
            for y, rate in enumerate(RATES):
                if (found := regimes.get(f"{rate:g} / {rows} rows")) is None:
                    continue
                nll, right = found["nll_difference"], found["accuracy_difference"]
                colour = colours[found["outcome"]]
                ends = "no interval"
                if nll["low"] is not None:
                    ends = f"{nll['low']:+.3f} to {nll['high']:+.3f}"
                axes.add_patch(
                    Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, color=colour, alpha=0.16)
                )
                for at, text, size in (
                    (0.80, f"{nll['mean']:+.3f}", 14),
                    (0.60, ends, 9),
                    (0.40, f"{found['outcome']}; called: {found['called']}", 8.5),
                    (0.20, f"accuracy {100 * right['mean']:+.1f} points", 9),
                ):
                    axes.text(x + 0.5, y + at, text, ha="center", va="center", fontsize=size,
                              color=colour if size > 9 else LIGHT["ink"])  # fmt: skip
        axes.set(
            xlim=(0, len(ROWS)),
            ylim=(0, len(RATES)),
            xlabel="across: training rows; up: learning rate",
        )
        axes.set_xticks([i + 0.5 for i in range(len(ROWS))], [str(rows) for rows in ROWS])
        axes.set_yticks([i + 0.5 for i in range(len(RATES))], [f"{rate:g}" for rate in RATES])
        axes.grid(False)
        figure.savefig(file, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--join", type=Path, nargs="*", default=[], help="Result files to add.")
    parser.add_argument("--only", type=int, default=None, help="Stop after this many new cells.")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", default=SETTINGS.model)
    options = parser.parse_args()
    cells: dict[str, Any] = {}
    for file in [*options.join, options.out]:
        if not file.exists():
            continue
        found = read_json(file)
        if (found["model"], found["settings"]) != (options.model, to_jsonable(SETTINGS)):
            parser.error(
                f"{file} has other settings or another model; give another --out or --join"
            )
        cells |= found["cells"]

    def write() -> None:
        record = {
            "model": options.model,
            "settings": SETTINGS,
            "signs": SIGNS,
            "summary": summary(cells),
            "cells": cells,
        }
        write_json(options.out, record)

    plan = [(rate, rows, seed) for seed in SEEDS for rate in RATES for rows in ROWS]
    if options.tiny:
        plan = [(RATES[1], 8, 0)]
    fresh = 0
    for rate, rows, seed in plan:
        key = f"{rate:g} / {rows} rows / seed {seed}"
        if key in cells:
            continue
        if options.only is not None and fresh >= options.only:
            break
        Lines().note(f"{key}: {fresh + 1} new")
        started = now()
        work = Path(tempfile.mkdtemp(prefix="regime-map-"))
        one = replace(SETTINGS, learning_rate=rate, train_rows=rows, seed=seed, model=options.model)
        try:
            found = measure(replace(one, **TINY) if options.tiny else one, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        cells[key] = {**found, "provenance": provenance(started=started, finished=now())}
        fresh += 1
        write()
    write()
    draw(summary(cells)["regimes"], options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
