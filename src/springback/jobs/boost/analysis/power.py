"""What a test could see: questions that gains take, and where the spread of scores comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import stdev

from springback.jobs.boost.arm import Arm
from springback.jobs.boost.search import Tried
from springback.results.boost_schema import PassAtK, Power, PowerRow, SampledScore
from springback.stats import (
    Spread,
    bootstrap_interval,
    pass_at_k,
    power_effect,
    power_questions,
    questions_by_spread,
    spread_of,
)

#: One point of accuracy: the gain that power is given for; and those of the table.
POINT = 0.01
EFFECTS = (0.01, 0.02, 0.05)


def needed(new: Sequence[float], old: Sequence[float], effect: float = POINT) -> int | None:
    """Questions that show ``effect`` with 80 % chance, by how the two arms' scores differ.

    Of answers that are right or wrong by the share that differs; where fewer differ than the effect
    itself, as many as the effect needs: no fewer could.  Of other scores by the spread of the
    differences, None without any.
    """
    if not {*new, *old} - {0.0, 1.0}:
        return power_questions(effect, max(_differing(new, old), effect))
    deviation = _deviation(new, old)
    return questions_by_spread(effect, deviation) if deviation else None


def power(
    arms: Mapping[str, Arm],
    tested: Mapping[str, Tried],
    greedy: Mapping[str, Tried] | None = None,
) -> Power | None:
    """What this test could see, from EpiCoDe's differing answers; None where it is fine-tuned."""
    if "EpiCoDe" not in tested or arms["EpiCoDe"].key() == arms["fine-tuned"].key():
        return None
    pair, base = tested["EpiCoDe"], tested["fine-tuned"]
    new, old = ([float(c) for c in arm.correct] for arm in (pair, base))
    questions, differing, wanted = len(new), _differing(new, old), needed(new, old)
    if {*new, *old} - {0.0, 1.0}:
        spread, samples = _deviation(new, old), len(pair.sampled[0]) if pair.sampled else 1
        # By the same formula, which is proportional to 1 / effect^2.
        seen = math.inf if wanted is None else POINT * math.sqrt(wanted / questions)
        differ = f"differ by {100 * spread:.1f} points from question to question (one standard "
        differ += f"deviation, {samples} samples each)" if samples > 1 else "deviation)"
    else:
        # None differing says "few", not "none": one question each way, as the interval assumes.
        seen = power_effect(questions, max(differing, 2 / (questions + 2)))
        differ = f"differ on {100 * differing:.1f} % of the test questions"
    can = (
        f"these {questions} show a gain of {100 * seen:.1f} points or more"
        if math.isfinite(seen)
        else f"so few differ that these {questions} cannot show any gain reliably"
    )
    takes = "" if wanted is None else f"To see a gain of 1 point with 80 % chance takes {wanted:,} "
    text = f"EpiCoDe and the fine-tuned model {differ}. "
    text += f"{takes}questions; {can}." if takes else f"{can[0].upper()}{can[1:]}."
    smallest = seen if math.isfinite(seen) else None
    plain = (greedy["EpiCoDe"], greedy["fine-tuned"]) if greedy else None
    table = power_table((pair, base), plain)
    return Power(POINT, 0.8, "EpiCoDe", differing, questions, wanted, smallest, text, table or None)


def power_table(
    pair: tuple[Tried, Tried], greedy: tuple[Tried, Tried] | None = None
) -> tuple[PowerRow, ...]:
    """Questions by kind of score, for a pair of arms; kinds that do not differ at all are left out.

    ``greedy``: greedy answers of the two, where ``pair`` has samples.
    """
    new, old = pair
    rows = []
    if not new.sampled:
        rows.append(_row("greedy answer", new.correct, old.correct))
    elif greedy is not None:
        rows.append(_row("greedy answer", greedy[0].correct, greedy[1].correct))
    if new.sampled:
        samples, spread = len(new.sampled[0]), _spread_of_difference(new, old)
        mean = sum(new.correct) / len(new.correct) - sum(old.correct) / len(old.correct)
        rows.append(_of_deviation("1 sample", mean, math.sqrt(spread.of_mean(1))))
        rows.append(_row(f"{samples} samples", new.correct, old.correct))
    if new.letters is not None and old.letters is not None:
        likely = new.letters.probability, old.letters.probability
        rows.append(_row("probability of the right letter", *likely))
        rows.append(_row("likeliest letter", new.letters.correct, old.letters.correct))
    return tuple(row for row in rows if row is not None)


def sampled_score(tried: Tried) -> SampledScore | None:
    """Where the variance of sampled answers comes from, and pass@k; None without samples."""
    if not tried.sampled or len(tried.sampled) < 2:
        return None
    samples = len(tried.sampled[0])
    spread = spread_of([[float(right) for right in answers] for answers in tried.sampled])
    counts, doubled = [sum(answers) for answers in tried.sampled], [2]
    while 2 * doubled[-1] < samples:
        doubled.append(2 * doubled[-1])
    passed = tuple(
        PassAtK(k, bootstrap_interval(pass_at_k(counts, samples, k), resamples=4000))
        for k in sorted({*doubled, samples})
    )
    return SampledScore(samples, spread.questions, spread.sampling, passed)


def _spread_of_difference(new: Tried, old: Tried) -> Spread:
    table = [
        [float(a) - float(b) for a, b in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(new.sampled, old.sampled, strict=True)
    ]
    return spread_of(table)


def _row(score: str, new: Sequence[float], old: Sequence[float]) -> PowerRow | None:
    mean = sum(new) / len(new) - sum(old) / len(old)
    return _of_deviation(score, mean, _deviation(new, old))


def _of_deviation(score: str, mean: float, deviation: float) -> PowerRow | None:
    if not deviation:
        return None
    takes = tuple(questions_by_spread(effect, deviation) for effect in EFFECTS)
    return PowerRow(score, mean, deviation, takes)


def _differing(new: Sequence[float], old: Sequence[float]) -> float:
    return sum(a != b for a, b in zip(new, old, strict=True)) / len(new)


def _deviation(new: Sequence[float], old: Sequence[float]) -> float:
    """Standard deviation of the differences, question by question; 0 of one question."""
    gaps = [float(a) - float(b) for a, b in zip(new, old, strict=True)]
    spread = stdev(gaps) if len(gaps) > 1 else 0.0
    return spread if spread > 1e-12 else 0.0
