"""What samples and letters are worth on a pair: questions that a gain takes, by kind of score.

The fine-tuned model and EpiCoDe at given strengths answer built-in choice questions: greedily, in
several coupled samples, and by the log-likelihood of the letters.  From the spread of the
differences of this pair follow the questions that 1, 2 and 5 points take
(``jobs/boost/analysis/power.py``).  Nothing is chosen.  ``--work`` keeps the runs, so that a second
call goes on from there.

    python benchmarks/sampled_scores.py --early EPOCH-1 --ft EPOCH-2 --work DIR
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from springback.core import to_jsonable
from springback.jobs.boost.analysis.power import power_table, sampled_score
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.settings import BoostSettings
from springback.models.loading import resolve
from springback.progress import Silent
from springback.results.provenance import now, provenance
from springback.results.store import Store, write_json
from springback.stats import paired_interval, spread_of

RESULT = Path(__file__).parent / "results" / "sampled_scores.json"
ARMS = {"fine-tuned": Arm("fine-tuned", 0, 0, None), "EpiCoDe": Arm("EpiCoDe", 0.8, 0.5, "ft")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--early")
    parser.add_argument("--ft")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--out", type=Path, default=RESULT)
    options, started = parser.parse_args(), now()
    if not (options.early and options.ft and options.work):
        print("needs --early, --ft and --work: left out (see the head of this file)")
        return
    settings = BoostSettings(
        early=options.early,
        ft=options.ft,
        validation="problems-choice:1",
        test="problems-choice:1",
        validation_rows=4,
        test_rows=options.rows,
        metric="choice",
        system="Solve the problem.",
        max_new_tokens=64,
        max_tokens=256,
        batch_size=48,
        samples=options.samples,
        temperature=options.temperature,
    )
    settings = check_settings(settings)
    line = (resolve(options.early), resolve(options.ft))
    job, test = Scoring(settings, line, Store(options.work), Silent()), load_data(settings).test
    tested = job.score_each(ARMS, test, "test", letters=True)
    greedy = {name: job.score(arm, test, "test", greedy=True) for name, arm in ARMS.items()}
    new, old = tested["EpiCoDe"], tested["fine-tuned"]
    table = power_table((new, old), (greedy["EpiCoDe"], greedy["fine-tuned"]))
    assert new.letters is not None
    assert old.letters is not None
    # With noise of their own the arms' sampling variances would add up.
    coupled = spread_of(np.subtract(np.array(new.sampled, float), np.array(old.sampled, float)))
    own = [sampled_score(arm) for arm in (new, old)]
    apart = coupled.questions + sum(s.sampling for s in own if s) / options.samples
    differences = {
        "greedy answer": (greedy["EpiCoDe"].correct, greedy["fine-tuned"].correct),
        f"{options.samples} samples": (new.correct, old.correct),
        "probability of the right letter": (new.letters.probability, old.letters.probability),
        "likeliest letter": (new.letters.correct, old.letters.correct),
    }
    write_json(
        options.out,
        {
            "rows": options.rows,
            "samples": options.samples,
            "temperature": options.temperature,
            "pair": [checkpoint.content_hash for checkpoint in line],
            "accuracy": {
                name: {"greedy": greedy[name].accuracy, "sampled": t.accuracy}
                for name, t in tested.items()
            },
            "sampled": {name: to_jsonable(sampled_score(t)) for name, t in tested.items()},
            "differences": {
                name: to_jsonable(paired_interval([*map(float, a)], [*map(float, b)]))
                for name, (a, b) in differences.items()
            },
            "table": to_jsonable(table),
            "deviation_with_noise_of_their_own": math.sqrt(apart),
            "provenance": provenance(started=started, finished=now()),
        },
    )
    for row in table:
        print(f"{row.score}: {row.difference:+.4f}, SD {row.deviation:.4f}, needed {row.needed}")


if __name__ == "__main__":
    main()
