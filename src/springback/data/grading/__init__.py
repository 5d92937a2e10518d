r"""Read the answer out of a completion and compare it.

Five metrics: ``number`` (``7.0``, ``$7`` and ``\\boxed{7}`` are equal), ``choice`` (a letter),
``choices`` (a set of letters, right if none is missing and none too many), ``exact`` (a string) and
``math`` (expressions, by the package math-verify).  A box or a mark such as GSM8K's ``#### x``
counts before a cue such as "the answer is"; the rest are rules of thumb, tabled case by case in
``tests/test_grading.py``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, get_args

from springback.data.grading.expressions import Outcome, compare, math_span, readable, require_math
from springback.data.grading.normalise import (
    after_thinking,
    boxes,
    in_thoughts,
    plain_latex,
    plain_signs,
    without_thoughts,
)
from springback.data.grading.spans import extract_number, read_number, read_reference
from springback.data.grading.values import equal
from springback.errors import DataError, describe, shown

__all__ = [
    "LETTERS",
    "METRICS",
    "READINGS",
    "Metric",
    "Outcome",
    "check_reference",
    "compile_extraction",
    "extract",
    "extract_choice",
    "extract_choices",
    "extract_exact",
    "extract_number",
    "find_answer",
    "grade",
    "in_thoughts",
    "outcome",
    "require_math",
    "without_thoughts",
]

Metric = Literal["number", "choice", "choices", "exact", "math"]
METRICS: tuple[str, ...] = get_args(Metric)
#: Letters looked for where the caller names none.
LETTERS = "ABCDE"

_CUE = (
    r"(?:\b(?:answer|ans\b|respuesta|r[ée]ponse|antwort|risposta|resposta|ответ)"
    r"|\b(?:correct|right|best|my)\s+(?:option|choice|letter|one|pick)"
    r"|\bI(?:\s+would|\s+will|'d|'ll)?\s+(?:choose|pick|select|go\s+with)\b"
    r"|答案|答え|정답|[答답](?=\s?:)|(?<!不)选(?!项)择?)"
)
_LINK = (
    r"(?:\s+(?:(?:to|for)\s+(?:this|the)\s+(?:question|problem)|corr?e[ct]?ta|correcte|finale?))?"
    r"(?:\s*(?:is|would\s+be|must\s+be|should\s+be|es|est|ist|lautet|è|é)\b|\s*[是为は은])?"
    r"(?:[\s,]+(?:(?:definite|clear|certain|probab|obvious|sure|simp|actual|on)ly|(?:most\s+)?likely"
    r"|therefore|thus|hence|indeed|of\s+course|la|[ao](?=\s+op))\b,?)?(?:\s*(?:->?|[>\]]))?"
)
_DRESS = r"[\s:=*_$(\[{\"'`】]*+"  # possessive, or a long run of signs takes quadratic time
_NAMED = r"(?:(?:the\s+)?(?:option|choice|letter|answer|opci[óo]n|opção|lettre|letra)\b)?"
_BOXED = r"(?:\\(?:boxed|text|mathrm|textbf)\s*\{\s*)*"
#: "B is correct" names B; "not B", "B is wrong" does not.
_PRAISED = (
    r"(?<![A-Za-z0-9'’°&-]){one}[)\]*_\"'`]*(?:\s+(?:is|must\s+be)\s+(?:the\s+)?"
    r"(?:correct|right|best|true)\b|\s*(?:选?项)?是?正确)"
)
_DENIED = re.compile(
    r"(?:\b(?:not|nor|neither|never|than|of)|n't|不是|并非|不选|而非)\s*"
    r"(?:[(]?[A-Z][)]?\s*(?:\bor|\bnor|或)\s*){0,3}"
    r"(?:\b(?:option|choice|letter|answer)\s*)?[*_\"'`(\[]*$",
    re.IGNORECASE,
)
_NONE_OF = re.compile(r"\b(?:none|neither|nor|not|no|if)\b[^.;!?\n]*$", re.IGNORECASE)
_BLAMED = re.compile(
    r"[)\]*_\"'`]*\s*(?:(?:is|are|was)(?:\s+not|n't|\s+(?:wrong|incorrect|false))\b|can(?:not|'t)\b"
    r"|错误|不对|不正确)"
)
#: After a capital A at the start of a sentence these words show that it is a letter, no article.
_AFTER_LETTER = re.compile(r"\s+(?:is|was|are|and|or|because|since|as|would|must|seems)\b")
_AFTER_SMALL = re.compile(r"\s+(?:is|and|because|since)\b")
_NEXT_WORD = re.compile(r"\s+[a-z]")
_ENDS = re.compile(r"[*_\"'`\]}$]*(?:\)|\s*(?:[.,;:!?。，]|$|\n))")


def _is_letter(text: str, position: int) -> bool:
    """Whether the letter at ``at`` stands for a choice, and is not an article or a pronoun."""
    letter, before, after = text[position], text[:position], text[position + 1 :]
    if letter.islower():
        return bool(_ENDS.match(after) or (letter != "i" and _AFTER_SMALL.match(after)))
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


def _letters_at(pattern: str, text: str, flags: int = 0) -> list[int]:
    """Where the letters stand that ``pattern`` names, articles and denied ones left out."""
    positions = [m.start(1) for m in re.finditer(pattern, text, flags)]
    return [
        i for i in positions if _is_letter(text, i) and not _DENIED.search(text[max(0, i - 24) : i])
    ]


def _last_letter(pattern: str, text: str, flags: int = 0) -> str | None:
    """The last letter named, if possible one that is not called wrong afterwards."""
    kept = _letters_at(pattern, text, flags)
    unblamed = [i for i in kept if not _BLAMED.match(text, i + 1)]
    return text[(unblamed or kept)[-1]].upper() if kept else None


def _rest_of_line(text: str, match: re.Match[str]) -> str:
    return text[match.end() :].partition("\n")[0]


def extract_choice(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """The choice that ``text`` gives as its answer, a capital out of ``letters``, or None.

    In this order: the last box; the last ``#### B``; the last "answer is B" or "answer: (B)" (in
    some other languages too); the last "B is correct"; a text that opens with "B", "B." or "(B)",
    unless more text follows and other lines list other choices; the last capital that stands alone.
    Small letters count only where punctuation, "because" or the like follows them and a mark, a
    cue, brackets or the opening name them; "A" as an article, "I" as a pronoun and "not B" do not.

    Raises :class:`~springback.errors.DataError` if ``letters`` are not single letters A to Z.
    """
    one = f"([{_choice_letters(letters)}])(?![A-Za-z0-9+#]|['’-][A-Za-z])"
    text = plain_signs(after_thinking(text))
    if "\\" in text:
        text = plain_latex(text)
        for held in reversed(boxes(text)):
            opening = re.match(rf"{_DRESS}{_NAMED}{_DRESS}{one}", held, re.IGNORECASE)
            if opening and _is_letter(held, opening.start(1)):
                return opening[1].upper()
        text = text.replace("\\boxed", " ")
    cue = rf"{_CUE}{_LINK}{_DRESS}{_NAMED}{_DRESS}{one}"
    for pattern in (rf"####{_DRESS}{one}", cue):
        if named := _last_letter(pattern, text, re.IGNORECASE):
            return named
    praised = _letters_at(_PRAISED.replace("{one}", one), text, re.IGNORECASE)
    if praised := [i for i in praised if not _NONE_OF.search(text[max(0, i - 60) : i])]:
        return text[praised[-1]].upper()
    opens = rf"^[ \t]*[*_(\[\"'`]*{one}[*_\"'`]*(?:[.):\]]|[ \t]*$|,?[ \t]+(?:because|since)\b)"
    listed = {m[1].upper() for m in re.finditer(opens, text, re.MULTILINE | re.IGNORECASE)}
    head = text.lstrip()
    first = re.match(opens, head, re.MULTILINE | re.IGNORECASE)
    if first and (len(listed) == 1 or not re.search("[A-Za-z0-9]", _rest_of_line(head, first))):
        return first[1].upper()
    alone = rf"(?<![A-Za-z0-9'’°&-]){one}(?!['’])"
    small = rf"(?:[(\[](?=[A-Za-z][)\]])|\b(?:option|choice)\s+){one}"
    return _last_letter(alone, text) or _last_letter(small, text, re.IGNORECASE)


_CUES = (
    r"(?:\banswers?|\bcorrect\s+(?:options?|choices?|letters?|ones?)|答案|[故应]选|选择)"
    r"(?:\s*(?:is|are|would\s+be|must\s+be|should\s+be)\b|\s*[是为])?"
    rf"{_DRESS}(?:(?:the\s+)?(?:options?|choices?|letters?|answers?)\b)?"
)
_WORD = re.compile(rf"{_DRESS}{_BOXED}(?P<word>[A-Za-z]+)(?![A-Za-z0-9+#]|['’-][A-Za-z])")
#: Between the letters of a set; "or" is none, since who writes it has not chosen.
_JOIN = re.compile(
    r"[*_\"'`)\]}$]*(?:[ \t]*(?:[,;、，；/&+和与及]|以及|\b(?:and|as\s+well\s+as)\b)"
    r"(?:[ \t]*and\b)?|(?=[ \t]))[ \t]*",
    re.IGNORECASE,
)
#: A bracket that closes before another opens: (A)(C).
_CLOSE = re.compile(r"[)\]](?=[(\[])")
_OPENS = re.compile(
    r"(?:[-*•+]\s+|[0-9]+[.)]\s+)?[*_(\[\"'`]*(?P<letter>[A-Za-z])[*_\"'`]*(?:[.):、\]]|$)"
)
_OPENING_ENDS = re.compile(r"[*_\"'`]*(?:[.):\]。]|[ \t]*(?:$|\n))")
#: Where capitals that stand alone may begin, or a letter in brackets.
_ALONE = re.compile(r"(?<![A-Za-z0-9'’°&-])[A-Z]|[(\[](?=[A-Za-z])")


def _letter_set(text: str, position: int, upper: str) -> tuple[str, int]:
    """The letters named from ``at`` on ("ACD", "A, C and D", "(A)(C)"), sorted, and where they end.

    Empty if no letter stands there.  A word of several letters has capitals only, each once.
    """
    named, end = "", position
    while match := _WORD.match(text, position):
        word = match["word"]
        if len(word) == 1:
            begins, ends = match.span("word")
            around = text[begins - 1 : begins] + text[ends : ends + 1]
            bracketed = around in ("()", "[]")
            fits, word = bracketed or _is_letter(text, begins), word.upper()
        else:
            fits = len(set(word)) == len(word)
        if not fits or not set(word) <= set(upper) - set(named):
            break
        named, end = named + word, match.end()
        follows = _JOIN.match(text, end) or _CLOSE.match(text, end)
        if follows is None:
            break
        position = follows.end()
    return "".join(sorted(named)), end


def extract_choices(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """All choices that ``text`` gives as its answer, as sorted capitals such as ``ACD``, or None.

    Letters are named together: "ACD", "A, C and D", "A、C、D", "(A) (C)".  In this order: after the
    last ``####``; after the last "answers are" (答案是, 故选); a text whose lines each open with
    another choice; an opening, as in :func:`extract_choice`; the last capitals that stand alone.

    Raises :class:`~springback.errors.DataError` if ``letters`` are not single letters A to Z.
    """
    text, upper = plain_signs(text), _choice_letters(letters)
    for lead in (r"####", _CUES):
        ends = [m.end() for m in re.finditer(lead, text, re.IGNORECASE)]
        for position in reversed(ends):
            if named := _letter_set(text, position, upper)[0]:
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
    last, unblamed, position = None, None, 0
    while start := _ALONE.search(text, position):
        named, end = _letter_set(text, start.start(), upper)
        last, position = named or last, max(end, start.end())
        unblamed = unblamed if not named or _BLAMED.match(text, end) else named
    return unblamed or last


def extract_exact(text: str) -> str | None:
    """What follows the last ``####`` on its line, else the whole text; None if that is blank.

    Unicode is composed (NFC) and runs of white space become one space; case and punctuation count.
    """
    _, mark, rest = text.rpartition("####")
    kept = rest.strip().partition("\n")[0] if mark else text
    return " ".join(unicodedata.normalize("NFC", kept).split()).strip("\ufeff\u200b") or None


#: What each metric reads when nothing else is asked for, in words.
READINGS = {
    "number": "the number in the last box, right after the last #### that has one, after the last "
    "'answer is' or 'Answer:', else the last number",
    "choice": "the letter after the last ####, else 'answer is X', an opening 'X.', the last "
    "capital that stands alone; a box before all",
    "choices": "all letters after the last ####, else 'answers are X and Y', an opening 'XY.', the "
    "last capitals that stand alone; right if none is missing and none too many",
    "exact": "what follows the last #### on its line, else the whole text",
    "math": "the expression in the last box, after the last #### or the last 'answer is', else the "
    "last formula, else the last line; compared by math-verify",
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
    if metric == "math":
        return math_span(text)
    raise DataError(
        describe(f"metric {metric!r}", ", ".join(METRICS), "name one of these with --metric")
    )


def _reference(metric: str, answer: str, letters: Sequence[str]) -> str | None:
    """The reference as :func:`extract` reads it; None unless it holds an answer and no more."""
    if metric == "number":
        number = read_reference(answer)
        return number.text if number else None
    read = extract(metric, answer, letters=letters)
    if read is None or metric == "exact":
        return read
    if metric == "math":
        return read if readable(answer) else None
    rest = plain_latex(plain_signs(answer)).rpartition("####")[2].replace("\\boxed", "")
    if metric == "choice":
        one = rf"{_DRESS}{_NAMED}{_DRESS}{read}(?:[\s*_\"'`)\]}}$.,:。]*|[.):][^\n]*)"
        return read if re.fullmatch(one, rest.strip(), re.IGNORECASE) else None
    named, end = _letter_set(rest, 0, _choice_letters(letters))
    return read if named == read and not re.search(r"\w", rest[end:]) else None


def check_reference(metric: str, answer: str, *, letters: Sequence[str] = LETTERS) -> str:
    """The reference ``answer`` as ``metric`` reads it.

    Raises :class:`~springback.errors.DataError` if the metric is unknown, or unless the reference
    is an answer and nothing more: "about six" and "5/6 or so" are none.
    """
    read = _reference(metric, answer, letters)
    if read is not None:
        return read
    allowed = {
        "number": "one number, with or without its unit, and nothing more",
        "choice": f"one of the letters {', '.join(letters)}",
        "choices": f"one or more of the letters {', '.join(letters)}",
        "exact": "an answer that is not blank",
        "math": "one expression, and nothing more",
    }[metric]
    raise DataError(
        describe(
            f"answer {shown(answer)} for metric {metric!r}",
            allowed,
            "mend that row or choose another metric with --metric",
        )
    )


def outcome(
    metric: str, completion: str | None, answer: str, *, letters: Sequence[str] = LETTERS
) -> Outcome:
    """What :func:`grade` decides by; ``unread``: no answer can be read off the completion.

    A model's thoughts are no answer.
    """
    if completion is None:
        check_reference(metric, answer, letters=letters)
        return "unread"
    completion = without_thoughts(completion)
    if metric == "math":
        if not readable(answer):
            check_reference(metric, answer)
        return compare(completion, answer)
    if metric == "number":
        wanted, given = read_reference(answer), read_number(completion)
        if wanted is None:
            check_reference(metric, answer)
        if wanted is None or given is None:
            return "unread"
        return "right" if equal(given, wanted) else "wrong"
    reference = check_reference(metric, answer, letters=letters)
    answer_read = extract(metric, completion, letters=letters)
    if answer_read is None:
        return "unread"
    return "right" if answer_read == reference else "wrong"


def grade(
    metric: str,
    completion: str | None,
    answer: str,
    *,
    letters: Sequence[str] = LETTERS,
) -> bool:
    """Whether ``completion`` gives ``answer``, the reference (:func:`check_reference`).

    ``completion`` may be the part that :func:`find_answer` found, or None if it found nothing.
    ``letters`` are the choices on offer (``choice`` and ``choices`` only).  A completion without an
    answer is wrong.  Raises :class:`~springback.errors.DataError` if the metric is unknown or the
    reference cannot be read.
    """
    return outcome(metric, completion, answer, letters=letters) == "right"
