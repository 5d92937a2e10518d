"""Numbers and data as short plain words."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

from springback.report.estimate import Estimate
from springback.results.redaction import redacted
from springback.results.schema import Interval

MINUS = "\u2212"


def _decimals(size: float, digits: int) -> int:
    """Decimals that show ``size`` with so many significant digits."""
    if size == 0 or not math.isfinite(size):
        return 0
    return min(max(digits - 1 - math.floor(math.log10(abs(size))), 0), 12)


def _fixed(value: float, decimals: int, sign: bool = False) -> str:
    if round(value, decimals) == 0:
        value = 0.0
    plus = "+" if sign and value > 0 else ""
    return plus + f"{value:,.{decimals}f}".replace("-", MINUS)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """``value`` to so many significant digits, a dash where unknown.

    Zeros at the end stay where they say something: 1.004 is "1.00", 1.5 is "1.5".
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-5 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    if float(value).is_integer():
        return _fixed(value, 0, sign)
    text = _fixed(value, _decimals(value, digits), sign)
    bare = text.rstrip("0").rstrip(".") if "." in text else text
    exact = math.isclose(float(bare.replace(",", "").replace(MINUS, "-")), value, rel_tol=1e-9)
    return bare if exact else text


def plain(value: float) -> str:
    """A setting or a count as it was given: no rounding, thousands marked."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}".replace("-", MINUS)


def power(value: float) -> str:
    """1000 as "1e3": short enough for a tick."""
    if 0.01 <= value < 1000:
        return plain(value)
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def value(
    interval: Interval | None, scale: float = 1.0, sign: bool = False, decimals: int | None = None
) -> str:
    """The mean: to two digits of its interval's half width, else three digits of its own.

    ``decimals`` overrules that, for a table whose numbers are to be compared.
    """
    if interval is None:
        return "–"
    return _one(interval.mean * scale, _decimals_of(interval, scale, decimals), sign)


def bounds(
    interval: Interval | None, scale: float = 1.0, sign: bool = False, decimals: int | None = None
) -> str:
    """The interval as words, rounded as its mean is; empty where there is none."""
    if interval is None or interval.bounds is None:
        return ""
    shown = _decimals_of(interval, scale, decimals)
    low, high = (_one(b * scale, shown, sign) for b in interval.bounds)
    return f"{low} to {high}"


def both(
    interval: Interval | None, scale: float = 1.0, sign: bool = False, decimals: int | None = None
) -> str:
    """Mean and, in brackets, interval."""
    inside = bounds(interval, scale, sign, decimals)
    return value(interval, scale, sign, decimals) + (f" ({inside})" if inside else "")


def estimate(known: Estimate, sign: bool = False) -> str:
    """The value, or what is known of it: "24.4", "more than 18.6", a dash."""
    if known.value is not None:
        return value(_closed(known, known.value), sign=sign)
    if known.at_least is not None and known.at_most is not None:
        ends = (number(known.at_least, sign=sign), number(known.at_most, sign=sign))
        return f"at most {ends[1]}" if known.at_least == 0 else f"between {' and '.join(ends)}"
    if known.at_least is not None:
        return f"more than {value(_closed(known, known.at_least), sign=sign)}"
    return "–" if known.at_most is None else f"less than {number(known.at_most, sign=sign)}"


def limits(known: Estimate, sign: bool = False) -> str:
    """The interval as words, an open side said to be open; empty where there is none."""
    low, high = (number(v, sign=sign) for v in (known.low, known.high))
    if known.low is not None and known.high is not None:
        middle = known.low if known.value is None else known.value
        return bounds(_closed(known, middle), sign=sign)
    if known.low is not None:
        return f"from {low}, no upper limit"
    return "" if known.high is None else f"up to {high}, no lower limit"


def with_limits(known: Estimate, sign: bool = False) -> str:
    """Value and, in brackets, interval."""
    inside = limits(known, sign)
    return estimate(known, sign) + (f" ({inside})" if inside else "")


def _closed(known: Estimate, middle: float) -> Interval:
    return Interval(middle, known.low, known.high, 1)


def entry(given: str | float | Interval | None) -> str:
    """A cell of a table as it was given: up to six digits, more only rounded to four."""
    if given is None:
        return "–"
    if isinstance(given, str):
        return given
    if isinstance(given, Interval):
        return both(given)
    short_form = float(f"{given:.6g}")
    exact = math.isclose(short_form, given, rel_tol=1e-12) and 1e-4 <= abs(given) < 1e7
    return f"{given:,.6g}".replace("-", MINUS) if exact or given == 0 else number(given, 4)


def _one(value: float, decimals: int | None, sign: bool) -> str:
    return number(value, sign=sign) if decimals is None else _fixed(value, decimals, sign)


def _decimals_of(interval: Interval, scale: float, decimals: int | None) -> int | None:
    """Decimals for mean and bounds alike; None where each is better written on its own."""
    if decimals is not None or interval.bounds is None:
        return decimals
    low, high = interval.bounds
    half = abs(high - low) * scale / 2
    return _decimals(half, 2) if 1e-8 < half < 1e7 else None


def common_decimals(values: Iterable[float]) -> int | None:
    """Decimals that show the range of ``values`` to three digits; None where they are all one."""
    known = [v for v in values if math.isfinite(v)]
    spread = max(known) - min(known) if known else 0.0
    return _decimals(spread, 3) if 1e-8 < spread < 1e7 else None


def count(n: int, one: str, many: str | None = None) -> str:
    """``n`` and its noun: "1 seed", "3 seeds"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listing(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    given = list(words)
    return " and ".join(filter(None, (", ".join(given[:-1]), given[-1]))) if given else ""


def short(text: str, most: int) -> str:
    """At most ``most`` characters, on one line, the cut marked."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def middle(text: str, most: int) -> str:
    """At most ``most`` characters, on one line, cut in the middle: names differ at their ends."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    end = most // 2
    return line[: most - 1 - end].rstrip() + "…" + line[-end:].lstrip()


def capital(text: str) -> str:
    """``text`` begun with a capital."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """``text`` begun with a capital and ended with a full stop."""
    return capital(text) + ("" if text.endswith((".", "!", "?")) else ".")


def interval_note(intervals: Iterable[Interval | None], marks: str) -> str:
    """What the ``marks`` ("Bands", "Whiskers") of a chart are, or why there are none."""
    known = [i for i in intervals if i is not None]
    drawn = [i for i in known if i.bounds is not None]
    if not drawn:
        single = all(i.n == 1 for i in known)
        reason = "there is one value each" if single else "none could be computed"
        return f"No intervals: {reason}."
    how = listing(dict.fromkeys(i.method for i in drawn if i.method))
    return f"{marks} are 95 % intervals" + (f" ({how})." if how else ".")


def duration(seconds: Any) -> str:
    """Seconds as "41 s", "4 min 12 s" or "2 h 5 min"; empty where unknown."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return ""
    if not math.isfinite(seconds) or seconds < 0:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shares_of_time(parts: Any) -> str:
    """Seconds by part as "training 62 % (5 min 3 s), probing 30 % (2 min 30 s)", most first.

    Empty where nothing is known; parts below half a percent are left out.
    """
    known = {
        str(name): float(seconds)
        for name, seconds in (parts.items() if isinstance(parts, Mapping) else ())
        if duration(seconds)
    }
    whole = sum(known.values())
    shares = {name: 100 * seconds / whole for name, seconds in known.items() if whole}
    return ", ".join(
        f"{name} {share:.0f} % ({duration(known[name])})"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share >= 0.5
    )


def day(stamp: Any) -> str:
    """The date and minute of an ISO time as written; empty where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(stamp)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted key, value) rows, in their own order; empty ones left out."""
    rows: list[tuple[str, str]] = []
    for key, item in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            rows += flat(item, f"{name}.")
        elif isinstance(item, (list, tuple)) and any(isinstance(i, Mapping) for i in item):
            rows += flat({str(i): one for i, one in enumerate(item)}, f"{name}.")
        elif isinstance(item, (list, tuple)):
            rows.append((name, " ".join(_scalar(i) for i in item)))
        else:
            rows.append((name, _scalar(item)))
    return [(name, text) for name, text in rows if text]


def _scalar(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, bool):
        return "yes" if item else "no"
    return redacted(str(item))
