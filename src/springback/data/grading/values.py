r"""Numbers as they are written, and their values.  Standard library only.

Numbers are compared exactly, as text in one spelling; no float is involved.  Only a decimal against
a fraction is compared after rounding, since 1/3 has no decimal spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from springback.data.grading.normalise import MIXED, OPAQUE

#: Zeros written out at most: 10^999999999 stays ``1e999999999``.
ZEROS = 400
#: Digits of a fraction's parts; of a power that is worked out.
_PARTS, _POWERS = 30, 200
#: Decimals that a decimal needs to be compared with a fraction after rounding.
PLACES = 3


@dataclass(frozen=True)
class Number:
    """``text`` is the one spelling of the value: no commas, no needless zeros, ``p/q`` in lowest
    terms where the decimals do not end, ``1e999`` where they are too many.

    ``fraction``: it was written as one.  ``places``: the decimals it was written with.
    ``power``: the power of ten that a word behind it names, as in 3.2 million, which is not in
    ``text``: "how many million" is answered by the same words.
    """

    text: str
    fraction: bool = False
    places: int = 0
    power: int = 0


def equal(one: Number, other: Number) -> bool:
    """Whether both are the same value, with or without the word behind it (``power``).

    A decimal with at least :data:`PLACES` decimals equals a fraction that rounds to it.
    """
    if one.text == other.text:
        return True
    if one.power and not one.fraction and "e" not in one.text:
        sign, digits = ("-", one.text[1:]) if one.text[0] == "-" else ("", one.text)
        kept, power, _ = _decimal(digits, one.power)
        if sign + _spelled(kept, power) == other.text:
            return True
    if one.fraction == other.fraction or "e" in one.text + other.text:
        return False
    exact, decimal = (one, other) if one.fraction else (other, one)
    if not PLACES <= decimal.places <= ZEROS or len(decimal.text) > 2 * ZEROS:
        return False
    gap = abs(Fraction(exact.text) - Fraction(Decimal(decimal.text)))
    return gap <= Fraction(1, 2 * 10**decimal.places)


_GROUPED = r"""
    [0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?                      # 1,234.5
  | [1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])(?:\.[0-9]+)?            # 12,34,567
  | [1-9][0-9]{0,2}(?:[ ][0-9]{3})+(?![0-9])(?:\.[0-9]+|,[0-9]{1,2}(?![0-9,]))?
  | [1-9][0-9]{0,2}(?:'[0-9]{3})+(?![0-9])(?:\.[0-9]+)?                 # 1'234.50
  | [0-9]{1,3}(?:_[0-9]{3})+(?![0-9_])(?:\.[0-9]+)?                     # 1_000
  | [0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9]|\.[0-9])(?:,[0-9]+)?           # 1.234.567,8
  | [0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,2}(?![0-9,])                      # 1.234,56
  | (?<![0-9.,])[0-9]{1,9},[0-9]{1,2}                                   # 3,50 €
    (?=[ ]?(?:[€%]|(?:EUR|[kcm]?m|k?g|km/h)(?![A-Za-z])))
  | (?<![0-9.,(\[{])0,[0-9]{2,9}(?![0-9,])                               # 0,75
"""
_POWER = r"[ ]?(?:\^|\*\*(?=[-+(0-9]))[ ]?\(?(?P<{}>[-+]?[0-9]{{1,18}})(?![0-9])\)?"
TOKEN = re.compile(
    rf"""{OPAQUE}
  | (?:(?P<whole>[0-9]{{1,9}})
       (?:{MIXED}(?P<top>[0-9]{{1,9}})|[ ](?P<above>[0-9]{{1,2}}))[ ]?/[ ]?
       (?P<bottom>[0-9]{{1,9}})(?![0-9]))
  | (?P<body>{_GROUPED} | [0-9]+(?:\.[0-9]+)? | \.[0-9]+)
    (?P<exponent>[eE][-+]?[0-9]{{1,18}}(?![0-9A-Za-z]))?
    (?:[ ]?[*x][ ]?10{_POWER.format("ten")})?
    (?:[ ]?/[ ]?(?P<under>(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]+)(?![0-9])(?:\.[0-9]+)?)
      |{_POWER.format("power")})?""",
    re.VERBOSE,
)


def _decimal(body: str, shift: int = 0) -> tuple[str, int, int]:
    """Digits without outer zeros, the power of ten behind them, and the decimals shown."""
    body = body.replace(" ", "").replace("'", "").replace("_", "")
    if body.count(".") > 1 or body.rfind(",") > body.rfind(".") >= 0:
        body = body.replace(".", "").replace(",", ".")  # 1.234.567,8
    elif re.fullmatch(r"[0-9]+,[0-9]{1,2}|0,[0-9]+", body):
        body = body.replace(",", ".")  # 1 234,56; 0,75
    whole, _, places = body.replace(",", "").partition(".")
    digits = (whole + places).lstrip("0")
    kept = digits.rstrip("0")
    power = len(digits) - len(kept) - len(places) + shift
    return kept, power if kept else 0, max(0, len(places) - shift)


def _spelled(digits: str, power: int) -> str:
    if not digits:
        return "0"
    if power > ZEROS or -power > ZEROS + len(digits):
        return f"{digits}e{power}"
    if power >= 0:
        return digits + "0" * power
    if len(digits) > -power:
        return f"{digits[:power]}.{digits[power:]}"
    return f"0.{'0' * (-power - len(digits))}{digits}"


def _fraction(value: Fraction, places: int = 0, written: bool = True) -> Number | None:
    """As a decimal if that ends; None if it has more digits than are read."""
    rest = value.denominator
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    fives = 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest > 1:
        text = f"{value.numerator}/{value.denominator}"
        return Number(text, written, places) if len(text) <= 2 * _PARTS else None
    shift = max(twos, fives)
    digits = str(value.numerator * 10**shift // value.denominator)
    kept = digits.rstrip("0") if value else ""
    return Number(_spelled(kept, len(digits) - len(kept) - shift), written, places)


def value(match: re.Match[str]) -> Number | None:
    """The value of a match of :data:`TOKEN`, without its sign; None for x/0 or an endless one."""
    if match["whole"]:
        below = int(match["bottom"])
        if below == 0:
            return None
        return _fraction(int(match["whole"]) + Fraction(int(match["top"] or match["above"]), below))
    shift = int((match["exponent"] or "e0")[1:]) + int(match["ten"] or 0)
    digits, power, places = _decimal(match["body"], shift)
    if abs(power) > 10**15:
        return None
    if match["under"]:
        divisor, lower, _ = _decimal(match["under"])
        if not divisor or len(digits) + abs(power) > _PARTS or len(divisor) + abs(lower) > _PARTS:
            return None
        return _fraction(
            int(digits or "0") * Fraction(10) ** power / (int(divisor) * Fraction(10) ** lower)
        )
    if match["power"] is None:
        return Number(_spelled(digits, power), False, places)
    times = int(match["power"])
    if digits == "1":
        return (
            Number(_spelled("1", power * times), False, 0) if abs(power * times) < 10**15 else None
        )
    if (len(digits) + abs(power)) * abs(times) > _POWERS or (not digits and times <= 0):
        return None
    return _fraction((int(digits or "0") * Fraction(10) ** power) ** times, 0, times < 0)


def value_of_text(text: str) -> Number | None:
    match = TOKEN.fullmatch(text)
    return value(match) if match else None
