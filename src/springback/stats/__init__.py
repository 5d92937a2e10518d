"""Intervals, tests and verdicts.  Pure: what is random takes a seed and says so.

Which interval where, and why (nominal 95 %; "false gain": the interval lies above a true 0):

* **Across seeds** (:func:`mean_interval`): Student's t.  A bootstrap of three numbers never
  leaves their range, and three draws straddle the median in only 1 - 2/2^3 = 75 % of cases.
* **Two arms, one seed, answers right or wrong** (:func:`paired_interval`): Tango's score interval;
  it never collapses.  Coverage by enumeration, no true difference: 97 % at 150 questions of which
  2 % differ, 95 to 96 % from 3 % on.  Its own false gains reach 2.7 %, so a verdict also asks
  for the exact McNemar test (:func:`verdict`), which keeps them at or under 2.5 % at every share of
  differing answers: 1.0 % at 6 %, 1.5 % at 20 %.  The adjusted Wald interval of Bonett and Price
  covered 98 % at 6 % and 99.8 % at 2 %; the BCa bootstrap 91 % with 4.8 % false gains at 6 %, and
  like the plain paired t it is a point when nothing differs.
* **Two arms, one seed, any other score**: paired t; as good as the percentile bootstrap on skewed
  differences, better on heavy tails (t with 3 df, n = 30: 96 %, percentile 94 %, BCa 91 %).
* **Two arms, several seeds on the same questions**: both are drawn, so both count.  The crossed
  interval gives seeds and questions their own quantiles (``benchmarks/results/nulls.json`` has its
  false gains and coverage at 2 to 10 seeds; with two and three it is wider than needed); one pooled
  quantile (Satterthwaite) gave up to 9 % at two seeds; drawing seeds and questions with replacement
  covered 88 % with a large seed effect; questions alone fell to 57 %.
* **Two arms, several seeds with questions of their own**: :func:`mean_interval` over the seeds'
  mean differences, with the paired t (the same test) and Wilcoxon's signed ranks beside it.  A
  verdict also asks for the exact McNemar test over all questions of all seeds.
"""

from springback.stats.difficulty import Bin, Trend, bins_by_size, trend
from springback.stats.intervals import bootstrap_interval, mean_interval
from springback.stats.paired import (
    mcnemar_exact,
    paired_bootstrap,
    paired_clusters,
    paired_interval,
    paired_p,
)
from springback.stats.sampling import Spread, pass_at_k, spread_of
from springback.stats.seeds import paired_t, seeds_needed, wilcoxon_exact
from springback.stats.values import Arms, Floats, Interval, Values, Verdict
from springback.stats.verdicts import (
    holm,
    power_effect,
    power_questions,
    questions_by_spread,
    verdict,
)

__all__ = [
    "Arms",
    "Bin",
    "Floats",
    "Interval",
    "Spread",
    "Trend",
    "Values",
    "Verdict",
    "bins_by_size",
    "bootstrap_interval",
    "holm",
    "mcnemar_exact",
    "mean_interval",
    "paired_bootstrap",
    "paired_clusters",
    "paired_interval",
    "paired_p",
    "paired_t",
    "pass_at_k",
    "power_effect",
    "power_questions",
    "questions_by_spread",
    "seeds_needed",
    "spread_of",
    "trend",
    "verdict",
    "wilcoxon_exact",
]
