"""Why validation kept the fine-tuned model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from springback.jobs.boost.search import Searched
from springback.stats import Interval, paired_interval


def why_kept(searches: Mapping[str, Searched]) -> str | None:
    """What the validation questions say of the best strength of extrapolation that was not chosen.

    The best is that of the highest mean score, ties to the lower NLL.  Differences to the
    fine-tuned model are paired by question, with the intervals of the table.  None without a
    search of mu.
    """
    tried = searches["mu"].points if "mu" in searches else ()
    base = next((t for t in tried if t.value == 0), None)
    others = [t for t in tried if t.value != 0]
    if base is None or not others:
        return None
    best = max(others, key=lambda t: (fmean(t.correct), -fmean(t.nll) if t.nll else 0.0))
    accuracy = paired_interval(best.correct, base.correct)
    text = f"Of the others mu = {best.value:g} did best on the {accuracy.n} validation questions: "
    text += f"accuracy {_with_bounds(accuracy, 100, '.1f')} points"
    if not best.nll or not base.nll:
        return f"{text} against it."
    nll = paired_interval(best.nll, base.nll)
    text += f", NLL {_with_bounds(nll, 1, '.3f')} nats/token against it"
    if nll.bounds is not None and nll.high is not None and nll.high < 0 and accuracy.mean <= 0:
        text += "; likelier solutions, no more right answers (--choose-by nll goes by the first)"
    return f"{text}."


def _with_bounds(interval: Interval, scale: int, digits: str) -> str:
    text = f"{scale * interval.mean:+{digits}}"
    if interval.bounds is None:
        return text
    low, high = interval.bounds
    return f"{text} (95 % {scale * low:+{digits}} to {scale * high:+{digits}})"
