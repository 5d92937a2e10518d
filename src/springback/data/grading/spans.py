r"""Read the number out of a completion or a reference.  Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from springback.data.grading.normalise import OPAQUE, boxes, plain, plain_formulas, unboxed
from springback.data.grading.values import TOKEN, Number, value, value_of_text

_CURRENCY = (
    r"(?:(?:US|A|C|HK|NZ|S)?[$]|[€£¥₹₩₽₺₫฿₱₦]|(?<![A-Za-z])(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|AUD|"
    r"CAD|KRW|HKD|SEK|NOK|DKK|Rs)\.?)"
)
#: A minus is a sign where it cannot be a subtraction, a range or a bullet: 10-3, 5-10, "- 3".
_SIGN = re.compile(
    rf"(?:(?<![0-9A-Za-z)\]}}%])-(?:{_CURRENCY}[ ]?)?|(?:[$]|{_CURRENCY}[ ]?)-"
    rf"|(?:[=:≈({{\[]|\bis)[ ]?[$]?-[ ]{{1,3}}(?:{_CURRENCY}[ ]?)?"
    r"|(?:\bnegative|(?:^|\b(?:is|of|to)[ ]|[=:][ ]?)minus)[ ][$]?)$",
    re.IGNORECASE,
)
#: Digits that belong to a word or are an exponent: m2, CO2, m^-2, x_1, GPT-4.
_GLUED = re.compile(r"(?:[A-Za-z]-?|[_^][-+(]{0,2}|[A-Za-z)]\*\*|第)$")
_MONEY = re.compile(rf"{_CURRENCY}$")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_BEFORE_VALUE = re.compile(rf"{OPAQUE}[ *·/)^]{{0,3}}$")
_AFTER_VALUE = re.compile(rf"[ *·/(]{{0,3}}{OPAQUE}")
#: An exponent that is no plain number, or has more digits than anybody means.
_ENDLESS = re.compile(r"[ ]?\^[ ]?[-+(]{0,2}[0-9]|[eE][-+]?[0-9]{19}")
_LOOK = 12
_POWERS = {
    **dict.fromkeys(("thousand", "k"), 3),
    **dict.fromkeys(("million", "m", "mn"), 6),
    **dict.fromkeys(("billion", "b", "bn"), 9),
    **dict.fromkeys("万萬", 4),
    **dict.fromkeys("亿億", 8),
    "trillion": 12,
    "lakh": 5,
    "crore": 7,
}
#: What behind a number multiplies it: 3.2 million, $5M, 5k, 12万.
_SCALE = re.compile(
    r"[ ]{0,2}(thousand|million|billion|trillion|lakh|crore)s?\b|([kKMB]|mn|bn)\b|[ ]?([万萬亿億])"
)


@dataclass(frozen=True)
class _Item:
    """A number of a text, or None where a value stands that is none; ``glued``: part of a word."""

    start: int
    end: int
    number: Number | None
    glued: bool = False


def _items(text: str, match: re.Match[str]) -> Iterator[_Item]:
    """What a match of :data:`TOKEN` in ``text`` stands for."""
    start = match.start()
    if match[0] == OPAQUE:
        yield _Item(start, match.end(), None)
        return
    if match["above"] and int(match["above"]) >= int(match["bottom"]):
        # "on day 1 5/2": two numbers
        yield _signed(text, start, match.end("whole"), value_of_text(match["whole"]))
        start = match.start("above")
        number = value_of_text(text[start : match.end()])
    else:
        number = value(match)
    yield _signed(text, start, match.end(), number)


def _last(text: str, start: int, end: int) -> _Item | None:
    """The last number or value of ``text[start:end]``, if possible one that is not glued."""
    glued = None
    while end > start:  # from the last line up, as no number spans two
        line = text.rfind("\n", start, end) + 1 or start
        for match in reversed(list(TOKEN.finditer(text, line, end))):
            for item in reversed(list(_items(text, match))):
                if not item.glued:
                    return item
                glued = glued or item
        end = line - 1
    return glued


def _signed(text: str, start: int, end: int, number: Number | None) -> _Item:
    before = text[max(0, start - _LOOK) : start]
    valued = _BEFORE_VALUE.search(before) or _AFTER_VALUE.match(text, end)
    if number is None or valued or _ENDLESS.match(text, end):
        return _Item(start, end, None)
    glued = _GLUED.search(before) is not None and _MONEY.search(before) is None
    glued = glued or _ORDINAL.match(text, end) is not None
    if scale := _SCALE.match(text, end):
        number = replace(number, power=_POWERS[scale[scale.lastindex or 0].lower()])
    if number.text != "0" and _SIGN.search(before):
        number = replace(number, text=f"-{number.text}")
    return _Item(start, end, number, glued)


#: Words and signs that may stand between a cue and its number.
_LEAD = re.compile(
    rf"[^0-9A-Za-z{OPAQUE}]*+(?:(?:approximately|approx|about|around|roughly|nearly|almost|exactly|"
    r"equal|equals|to|simply|just|only|therefore|thus|then|a|total|of|is|negative|minus|USD|EUR|"
    r"GBP|US|Rs|"
    rf"[A-Za-z](?=[ ]?=))\b[^0-9A-Za-z{OPAQUE}]*+)*+"
)
_UNIT = r"(?:[ ](?!x\b)[A-Za-z]{1,15})?+"
_SUM = re.compile(
    rf"[0-9][0-9.,]*+%?{_UNIT}(?:[ ]?(?:[-+*/×÷x]|\*)[ ]?[$(]?[0-9][0-9.,]*+[)%]?{_UNIT})++[ ]?[=≈]"
)
#: What behind a number shows that it is part of an expression: 3 + 4, 5-10, 2x, 3:4.
_EXPRESSION = re.compile(
    rf"[ ]?(?:[+×÷/]|\*(?!\*)|-|x(?=[ ]?[0-9]))[ ]?[0-9(.$]|[+*/^÷]?[A-Za-z]?[({OPAQUE}^]"
    r"|[ ]?[-+][ ]?[a-z]\b|:[0-9]|[ ]?[nxyz](?![A-Za-z])"
)


def _at_once(text: str, start: int, end: int) -> _Item | None:
    """The number or value that ``text[start:end]`` begins with; None if it begins with words."""
    while True:
        lead = _LEAD.match(text, start, end)
        begins = lead.end() if lead else start
        chain = _SUM.match(text, begins, end)
        if chain is None:
            break
        start = chain.end()
    match = TOKEN.match(text, begins, end)
    first = next(_items(text, match), None) if match else None
    if first is None:
        return None
    if first.number is not None and _EXPRESSION.match(text, first.end, end):
        return _Item(first.start, first.end, None)
    return first


_PREFIX = re.compile(
    rf"[\s*_`\"'{{(\[$]*+(?:[A-Za-z]\s*=[\s$]*+)?(?P<first>[-+]?)(?P<space>\s*+)(?:{_CURRENCY}\s*+)?"
    r"(?P<second>[-+]?)[({\s$]*+"
)
_UNIT_PARTS = re.compile(r"[^\W\d_]+|[0-9]+|\^[-+]?[0-9]|\S")
_NOT_EXACT = (
    "or so and about around approximately roughly nearly almost maybe perhaps probably possibly to "
    "than more less least most over under up not no if but between unless because since plus minus "
    "divided half thousand million billion trillion hundred dozen thousands millions billions ish "
    "otherwise lakh crore mn bn"
)
_NO_UNITS = frozenset([*_NOT_EXACT.split(), *"abceijknpqruwxyz"])
_NO_UNIT_SIGNS = re.compile("[或约万萬亿億]|左右|以上|以下")
_UNIT_SIGNS = frozenset("%‰°′″'\"$€£¥₹/·*^-.()[]{}|`_~。,;:µΩ")


def whole(text: str) -> Number | None:
    """The number that ``text`` is, units, currency and quotes aside; None if it holds more.

    ``text`` is one of :func:`springback.data.grading.normalise.plain`.
    """
    text = plain_formulas(text).strip()
    prefix = _PREFIX.match(text)
    assert prefix is not None  # it may be empty
    if prefix["first"] and prefix["second"]:
        return None
    match = TOKEN.match(text, prefix.end())
    if match is None or match[0] == OPAQUE:
        return None
    if match["above"] and int(match["above"]) >= int(match["bottom"]):
        return None
    number = value(match)
    words = _unit(text[match.end() :])
    minus = "-" in (prefix["first"], prefix["second"])
    bullet = minus and bool(prefix["first"] and prefix["space"]) and bool(words)
    if number is None or words is None or bullet:
        return None
    if minus and number.text != "0":
        number = replace(number, text=f"-{number.text}")
    return number


def _unit(text: str) -> list[str] | None:
    """The words of a unit, such as ``km/h`` or ``square metres``; None if it is none."""
    if len(text) > 100:
        return None
    words: list[str] = []
    last = ""
    for part in _UNIT_PARTS.findall(text):
        if part.isalpha():
            single = part in ("M", "B", "X", "Y", "Z")
            plain_word = part if len(part) == 1 else part.lower()
            if single or plain_word in _NO_UNITS or _NO_UNIT_SIGNS.search(part):
                return None
            words.append(part)
        elif not (part in _UNIT_SIGNS or part[0] == "^" or (last.isalpha() and part in "23")):
            return None
        last = part
    return words if len(words) <= 5 else None


_SEVERAL = re.compile(r"\bor\b|\band\b|, |;")


def _span(content: str) -> Number | None:
    """The number of a box: all of it, what stands on a side of its ``=``, or the only one in it."""
    # Not of "x = 3 or x = 5".
    sides = re.split("[=≈]", content)
    parts = [content] if _SEVERAL.search(content) else [content, sides[-1], sides[0]]
    for part in parts:
        if number := whole(part):
            return number
    text = plain_formulas(content)
    items = (item for match in TOKEN.finditer(text) for item in _items(text, match))
    free = [item for item in items if not item.glued]
    if len(free) != 1 or free[0].number is None or _EXPRESSION.match(text, free[0].end):
        return None
    before = text[: free[0].start].rstrip(" $-")
    return None if before[-1:] in ("+", "*", "/", "^", "(", "<", ">", "≤", "≥") else free[0].number


#: A mark counts only if the answer follows at once: "#### Step 3" is a heading.
MARK = re.compile(r"####\s*+")
CUE = re.compile(
    r"(?:(?<![A-Za-z0-9/])(?<!/final_)(?:answer|respuesta|réponse|reponse|antwort|lösung|risposta|resposta|ответ|ans)s?\b"
    r"(?:[ ](?:(?:to|for)[ ](?:this|the)[ ](?:question|problem)|corr?e[ct]?ta|correcte|finale?"
    r"|\([^()\n]{0,40}\)|in[ ][a-z]{1,15}))?"
    r"[*_\s\"'`]*+"
    r"(?:(?:is|are|would[ ]be|must[ ]be|should[ ]be|will[ ]be|equals|es|est|ist|lautet|è|é)\b"
    r"|(?P<colon>[:=>\]]))"
    r"|^[#*_ ]*+(?:the[ ])?(?:final[ ]|correct[ ])?answer[*_ ]*+\n[*_\s]*+"  # a heading
    r"|(?P<plain>答案|答え|정답|[答답](?=[ ]?:))\s*+(?:[是为為はは은]\s*+)?:?)"
    r"(?:[$`>*_: ]*+\n)*+\s*+",
    re.IGNORECASE | re.MULTILINE,
)
_DENIED = re.compile(r"[*_\s]*+(?:not\b|n't|never\b|不)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？\n]|\b(?:because|since)\b|\([a-z]")


def _after_mark(text: str) -> _Item | None:
    """What stands right after the last ``####`` that has a number or a value."""
    following = len(text)
    for mark in reversed(list(MARK.finditer(text))):
        end = _line_end(text, mark.end(), following)
        following = mark.start()
        cue = CUE.match(text, _skip_the(text, mark.end()), end)
        item = _at_once(text, cue.end() if cue else mark.end(), end)
        if item is not None:
            return item
    return None


_THE = re.compile(r"[*_ ]*+(?:the[ ])?(?:final[ ]|correct[ ])?", re.IGNORECASE)


def _skip_the(text: str, start: int) -> int:
    match = _THE.match(text, start)
    return match.end() if match else start


def _line_end(text: str, start: int, limit: int) -> int:
    end = text.find("\n", start, limit)
    return end if end >= 0 else limit


def _after_cue(text: str) -> _Item | None:
    """What the last cue that is followed by a number or a value names."""
    following = len(text)
    for cue in reversed(list(CUE.finditer(text))):
        start, limit = cue.end(), following
        following = cue.start()
        if _DENIED.match(text, start):
            continue
        # Up to the next cue only, behind which there is nothing: each sign is read once.
        end = _line_end(text, start, limit)
        item = _at_once(text, start, end)
        if item is None and (cue["colon"] or cue["plain"]):
            stop = _SENTENCE_END.search(text, start, end)
            item = _last(text, start, stop.start() if stop else end)
            item = None if item is None or item.glued else item
        if item is not None:
            return item
    return None


_IS_ANSWER = re.compile(
    r"(?:[ ][A-Za-z]{1,15})?[*_$)\]\"'` ]{0,9}[ ]is[ ](?:the|my|our)[ ]"
    r"(?:final[ ]|correct[ ])?answer\b"
)


def _before_cue(text: str) -> _Item | None:
    """The number that the last "42 is the answer" names."""
    for cue in reversed(list(_IS_ANSWER.finditer(text))):
        item = _last(text, max(text.rfind("\n", 0, cue.start()), cue.start() - 80), cue.start())
        if item is not None and item.end == cue.start():
            return item
    return None


def read_number(text: str) -> Number | None:
    """The number that ``text`` gives as its answer, or None; see :func:`extract_number`."""
    text = plain(text)
    held = boxes(text) if "\\boxed" in text else []
    if held:
        return _span(held[-1])
    text = plain_formulas(text)
    if len(text) < 200 and (number := whole(text)):
        return number
    item = _after_mark(text) if "####" in text else None
    if item is None:
        item = _after_cue(text) or _before_cue(text) or _last(text, 0, len(text))
    return item.number if item else None


def read_reference(text: str) -> Number | None:
    """The number that a reference is; what follows its last ``####`` if it has one.

    None unless all of that is one number, with or without currency, unit, percent or a box.
    """
    text = plain(text)
    _, mark, rest = text.rpartition("####")
    return whole(unboxed(rest if mark else text))


def extract_number(text: str) -> str | None:
    """The number that ``text`` gives as its answer, in plain spelling, or None.

    In this order: the last ``\\boxed``; right after the last ``####`` that has a number there;
    after the last "answer is" or "Answer:" (答案, and in some other languages); the last number of
    the text (numbers within words and exponents, as in CO2, 12 m^2, only if there is no other).
    Marks of thousands, currency, units and percent signs are dropped (50% is 50), as are trailing
    dots and zeros; ``3/4`` is ``0.75``; a minus counts unless it subtracts or joins a range.  None
    where an expression that is no number, as a root, stands in that place.
    """
    number = read_number(text)
    return number.text if number else None
