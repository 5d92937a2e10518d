r"""Read the answer out of a completion and compare it.  Standard library only.

Four metrics: ``number`` (``7.0``, ``$7`` and ``7.`` are equal), ``choice`` (a letter), ``choices``
(a set of letters, right if none is missing and none too many) and ``exact`` (a string).  Where a
completion marks its answer with ``#### x``, as GSM8K does, the last mark counts; the rest are rules
of thumb, tabled case by case in ``tests/test_grading.py``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Literal, get_args

from springback.errors import DataError, describe

Metric = Literal["number", "choice", "choices", "exact"]
METRICS: tuple[str, ...] = get_args(Metric)
#: Letters looked for where the caller names none.
LETTERS = "ABCDE"

#: Full-width digits, capitals and signs (Chinese texts) and the true minus, as ASCII.
_TO_ASCII = {ord(c): ord(c) - 0xFEE0 for c in "０１２３４５６７８９－．，％＋：（）"}
_TO_ASCII |= {code: code - 0xFEE0 for code in range(ord("Ａ"), ord("Ｚ") + 1)}
_TO_ASCII |= {ord("−"): ord("-")}

#: ``glued`` catches digits that belong to a word or are an exponent (m2, CO2, 10^6).
_NUMBER = re.compile(
    r"""(?P<glued>[A-Za-z_^]\{?)?
        (?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
        (?P<power>[eE][+-]?[0-9]{1,2}(?![0-9A-Za-z]))?
        (?:[ ]?/[ ]?(?P<under>[0-9]{1,9})(?![0-9]))?""",
    re.VERBOSE,
)
#: A minus is a sign where it cannot be a subtraction, a range or a bullet: 10-3, 5-10, "- 3".
_SIGN = re.compile(r"(?:(?<![0-9A-Za-z)\]}])-[$€£¥]?|[$€£¥]-)$")
#: A mark counts only if the answer follows at once: "#### Step 3" is a heading.
_MARK = re.compile(r"####\s*(?P<line>[^\n#]*)")
_LEAD = re.compile(r"[^0-9A-Za-z]*")


def _plain_number(sign: str, match: re.Match[str]) -> str | None:
    """The one spelling of a matched number: no commas, no needless zeros.

    A fraction is written as a decimal if that ends, else in lowest terms as p/q.  None for x/0
    and for p/q with more digits than are read as a fraction.
    """
    value = Decimal(match["digits"].replace(",", "") + (match["power"] or ""))
    under = int(match["under"] or 1)
    if under == 0:
        return None
    if under > 1 and len(match["digits"]) <= 30:  # nobody means a longer one
        fraction = Fraction(value) / under
        if _without_factors(fraction.denominator) > 1:
            top, bottom = str(fraction.numerator), str(fraction.denominator)
            return f"{sign}{top}/{bottom}" if len(top) <= 30 and len(bottom) <= 9 else None
        with localcontext(prec=300):  # exact: at most 30 + 99 + 30 digits
            value = Decimal(fraction.numerator) / fraction.denominator
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    text = text.lstrip("0") or "0"
    return text if text == "0" else sign + ("0" + text if text.startswith(".") else text)


def _without_factors(number: int) -> int:
    """``number`` without its factors 2 and 5: 1 if a fraction over it ends as a decimal."""
    for factor in (2, 5):
        while number % factor == 0:
            number //= factor
    return number


def _numbers(text: str) -> Iterable[tuple[int, bool, str]]:
    """Start, whether it is glued to a word, and plain spelling of each number in ``text``."""
    for match in _NUMBER.finditer(text):
        start = match.start("digits")
        sign = "-" if _SIGN.search(text[max(0, start - 3) : start]) else ""
        plain = _plain_number(sign, match)
        if plain is not None:
            yield match.start(), match["glued"] is not None, plain


def extract_number(text: str) -> str | None:
    """The number that ``text`` gives as its answer, in plain spelling, or None.

    The number right after the last ``####`` that has one, else the last number of the text
    (numbers within words and exponents, as in CO2, 12 m^2, only if there is no other).  Thousands
    commas, currency and percent signs are dropped (50% is 50), as are trailing dots and zeros;
    ``3/4`` is ``0.75``; a minus counts unless it subtracts or joins a range.
    """
    text = text.translate(_TO_ASCII)
    for mark in reversed(list(_MARK.finditer(text))):
        line = mark["line"]
        first = next(iter(_numbers(line)), None)
        lead = _LEAD.match(line)
        if first is not None and lead is not None and first[0] <= lead.end():
            return first[2]
    found = list(_numbers(text))
    free = [plain for _, glued, plain in found if not glued]
    return free[-1] if free else (found[-1][2] if found else None)


_CUE = r"(?:\banswer|\bcorrect\s+(?:option|choice|letter|one)|答案)"
_LINK = r"(?:\s*(?:is|would\s+be|must\s+be|should\s+be)\b|\s*[是为])?"
_DRESS = r"[\s:=*_$(\[{\"'`]*+"  # possessive, or a long run of signs takes quadratic time
_NAMED = r"(?:(?:the\s+)?(?:option|choice|letter|answer)\b)?"
_BOXED = r"(?:\\(?:boxed|text|mathrm|textbf)\s*\{\s*)*"
#: After a capital A at the start of a sentence these words show that it is a letter, no article.
_AFTER_LETTER = re.compile(r"\s+(?:is|was|are|and|or|because|since|as|would|must|seems)\b")
_NEXT_WORD = re.compile(r"\s+[a-z]")
_ENDS = re.compile(r"[*_\"'`)\]}$]*\s*(?:[.,;:!?。，]|$|\n)")


def _is_letter(text: str, at: int) -> bool:
    """Whether the letter at ``at`` stands for a choice, and is not an article or a pronoun."""
    letter, before, after = text[at], text[:at], text[at + 1 :]
    if letter.islower():
        return _ENDS.match(after) is not None
    if letter not in "AI" or not _NEXT_WORD.match(after) or _AFTER_LETTER.match(after):
        return True
    opening = not before.strip() or before.rstrip(" *_\"'(")[-1:] in (".", "!", "?", ":", "\n", "")
    return not (letter == "I" or opening)


def _choice_letters(letters: Sequence[str]) -> str:
    upper = "".join(letters).upper()
    if not upper or len(upper) != len(letters) or not re.fullmatch("[A-Z]+", upper):
        raise DataError(
            describe(
                f"choice letters {list(letters)}", "single letters A to Z", "pass for example ABCD"
            )
        )
    return upper


def _last_letter(pattern: str, text: str, flags: int = 0) -> str | None:
    found = [m.start(1) for m in re.finditer(pattern, text, flags)]
    kept = [text[at].upper() for at in found if _is_letter(text, at)]
    return kept[-1] if kept else None


def _rest_of_line(text: str, match: re.Match[str]) -> str:
    return text[match.end() :].partition("\n")[0]


def extract_choice(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """The choice that ``text`` gives as its answer, a capital out of ``letters``, or None.

    In this order: the last ``#### B``; the last "answer is B" or "answer: (B)"; a text that opens
    with "B", "B." or "(B)", unless more text follows and other lines list other choices; the last
    capital that stands alone.  Small letters count only where nothing but punctuation follows
    them and a mark, a cue, brackets or the opening name them; "A" as an article and "I" as a
    pronoun do not count.

    Raises :class:`~springback.errors.DataError` if ``letters`` are not single letters A to Z.
    """
    text = text.translate(_TO_ASCII)
    one = f"([{_choice_letters(letters)}])(?![A-Za-z0-9'’+#]|-[A-Za-z])"
    marked = _last_letter(rf"####{_DRESS}{_BOXED}{one}", text, re.IGNORECASE)
    if marked:
        return marked
    cue = rf"{_CUE}{_LINK}{_DRESS}{_NAMED}{_DRESS}{_BOXED}{one}"
    cued = _last_letter(cue, text, re.IGNORECASE)
    if cued:
        return cued
    opens = rf"^[ \t]*[*_(\[\"'`]*{one}[*_\"'`]*(?:[.):\]]|[ \t]*$)"
    listed = {m[1].upper() for m in re.finditer(opens, text, re.MULTILINE | re.IGNORECASE)}
    head = text.lstrip()
    first = re.match(opens, head, re.MULTILINE | re.IGNORECASE)
    if first and (len(listed) == 1 or not re.search("[A-Za-z0-9]", _rest_of_line(head, first))):
        return first[1].upper()
    alone = rf"(?<![A-Za-z0-9'’°&-]){one}"
    bracketed = rf"[(\[]{one}(?=[)\]])"
    return _last_letter(alone, text) or _last_letter(bracketed, text, re.IGNORECASE)


_CUES = (
    r"(?:\banswers?|\bcorrect\s+(?:options?|choices?|letters?|ones?)|答案|[故应]选|选择)"
    r"(?:\s*(?:is|are|would\s+be|must\s+be|should\s+be)\b|\s*[是为])?"
    rf"{_DRESS}(?:(?:the\s+)?(?:options?|choices?|letters?|answers?)\b)?"
)
_WORD = re.compile(rf"{_DRESS}{_BOXED}(?P<word>[A-Za-z]+)(?![A-Za-z0-9'’+#]|-[A-Za-z])")
#: Between the letters of a set; "or" is none, since who writes it has not chosen.
_JOIN = re.compile(
    r"[*_\"'`)\]}$]*(?:[ \t]*(?:[,;、，；/&+和与及]|以及|\b(?:and|as\s+well\s+as)\b)"
    r"(?:[ \t]*and\b)?|(?=[ \t]))[ \t]*",
    re.IGNORECASE,
)
#: A bracket that closes before another opens: (A)(C).
_CLOSE = re.compile(r"[)\]](?=[(\[])")
_OPENS = re.compile(r"[*_(\[\"'`]*(?P<letter>[A-Za-z])[*_\"'`]*(?:[.):、\]]|$)")
_OPENING_ENDS = re.compile(r"[*_\"'`]*(?:[.):\]。]|[ \t]*(?:$|\n))")
#: Where capitals that stand alone may begin, or a letter in brackets.
_ALONE = re.compile(r"(?<![A-Za-z0-9'’°&-])[A-Z]|[(\[](?=[A-Za-z])")


def _letter_set(text: str, at: int, upper: str) -> tuple[str, int]:
    """The letters named from ``at`` on ("ACD", "A, C and D", "(A)(C)"), sorted, and where they end.

    Empty if no letter stands there.  A word of several letters has capitals only, each once.
    """
    found, end = "", at
    while match := _WORD.match(text, at):
        word = match["word"]
        if len(word) == 1:
            begins, ends = match.span("word")
            around = text[begins - 1 : begins] + text[ends : ends + 1]
            bracketed = around in ("()", "[]")
            fits, word = bracketed or _is_letter(text, begins), word.upper()
        else:
            fits = len(set(word)) == len(word)
        if not fits or not set(word) <= set(upper) - set(found):
            break
        found, end = found + word, match.end()
        follows = _JOIN.match(text, end) or _CLOSE.match(text, end)
        if follows is None:
            break
        at = follows.end()
    return "".join(sorted(found)), end


def extract_choices(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """All choices that ``text`` gives as its answer, as sorted capitals such as ``ACD``, or None.

    Letters are named together: "ACD", "A, C and D", "A、C、D", "(A) (C)".  In this order: after the
    last ``####``; after the last "answers are" (答案是, 故选); a text whose lines each open with
    another choice; an opening, as in :func:`extract_choice`; the last capitals that stand alone.

    Raises :class:`~springback.errors.DataError` if ``letters`` are not single letters A to Z.
    """
    text, upper = text.translate(_TO_ASCII), _choice_letters(letters)
    for lead in (r"####", _CUES):
        ends = [m.end() for m in re.finditer(lead, text, re.IGNORECASE)]
        for at in reversed(ends):
            if named := _letter_set(text, at, upper)[0]:
                return named
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    opened = [_OPENS.match(line) for line in lines]
    listed = [m["letter"].upper() for m in opened if m and m["letter"].upper() in upper]
    if len(listed) == len(lines) > 1 and len(set(listed)) == len(listed):
        return "".join(sorted(listed))
    head = text.lstrip()
    first, end = _letter_set(head, 0, upper)
    if first and _OPENING_ENDS.match(head, end):
        rest = head[end:].partition("\n")[0]
        if set(listed) <= set(first) or not re.search("[A-Za-z0-9]", rest):
            return first
    last, at = None, 0
    while start := _ALONE.search(text, at):
        named, end = _letter_set(text, start.start(), upper)
        last, at = named or last, max(end, start.end())
    return last


def extract_exact(text: str) -> str | None:
    """What follows the last ``####`` on its line, else the whole text; None if that is blank.

    Unicode is composed (NFC) and runs of white space become one space; case and punctuation count.
    """
    _, mark, rest = text.rpartition("####")
    kept = rest.strip().partition("\n")[0] if mark else text
    return " ".join(unicodedata.normalize("NFC", kept).split()) or None


#: What each metric reads when nothing else is asked for, in words.
READINGS = {
    "number": "the number right after the last #### that has one, else the last number",
    "choice": "the letter after the last ####, else 'answer is X', an opening 'X.', the last "
    "capital that stands alone",
    "choices": "all letters after the last ####, else 'answers are X and Y', an opening 'XY.', the "
    "last capitals that stand alone; right if none is missing and none too many",
    "exact": "what follows the last #### on its line, else the whole text",
}


def compile_extraction(pattern: str) -> re.Pattern[str]:
    """The regular expression of ``--extract``; raises :class:`DataError` if it is none."""
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise DataError(
            "--extract: "
            + describe(
                f"{pattern!r} ({error})",
                "a regular expression of Python",
                "its last match counts: its first group, or all of it",
            )
        ) from error


def find_answer(pattern: re.Pattern[str], text: str) -> str | None:
    """Where ``pattern`` matches ``text`` last: its first group, or all of it; None: nowhere.

    ``^`` and ``$`` match at every line.
    """
    last = None
    for last in pattern.finditer(text):  # noqa: B007  (only the last one counts)
        pass
    if last is None:
        return None
    return last[1] if pattern.groups else last[0]


def extract(metric: str, text: str, *, letters: Sequence[str] = LETTERS) -> str | None:
    """What ``metric`` compares: the answer read out of ``text``, or None if there is none.

    Raises :class:`~springback.errors.DataError` if the metric is not one of :data:`METRICS`.
    """
    if metric == "number":
        return extract_number(text)
    if metric == "choice":
        return extract_choice(text, letters)
    if metric == "choices":
        return extract_choices(text, letters)
    if metric == "exact":
        return extract_exact(text)
    raise DataError(
        describe(f"metric {metric!r}", ", ".join(METRICS), "name one of these with --metric")
    )


def grade(
    metric: str,
    completion: str | None,
    answer: str,
    *,
    letters: Sequence[str] = LETTERS,
) -> bool:
    """Whether ``completion`` gives ``answer``; both are read by :func:`extract`.

    ``completion`` may be the part that :func:`find_answer` found, or None if it found nothing.
    ``letters`` are the choices on offer (``choice`` and ``choices`` only).  A completion without an
    answer is wrong.  Raises :class:`~springback.errors.DataError` if the metric is unknown or the
    reference ``answer`` holds none itself.
    """
    wanted = extract(metric, answer, letters=letters)
    if wanted is None:
        allowed = {
            "number": "an answer with a number in it",
            "choice": f"one of the letters {', '.join(letters)}",
            "choices": f"one or more of the letters {', '.join(letters)}",
            "exact": "an answer that is not blank",
        }[metric]
        raise DataError(
            describe(
                f"answer {answer[:60]!r} for metric {metric!r}",
                allowed,
                "mend that row or choose another metric with --metric",
            )
        )
    return completion is not None and extract(metric, completion, letters=letters) == wanted
