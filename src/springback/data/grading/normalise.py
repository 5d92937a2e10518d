r"""Texts as models write them, in plain signs: digits and letters of other blocks, LaTeX, boxes.

Every pass is linear in the length of the text, whatever stands in it.
"""

from __future__ import annotations

import re
import unicodedata

#: A value that is no number stands here: a root, a logarithm, pi.
OPAQUE = "\x02"
#: Joins a whole number to the fraction behind it: 2½, 2\frac{1}{2}.
MIXED = "\x03"
#: Stands before the argument of a function, until that is read.
_FUNCTION = "\x01"

_SIGNS = {
    **dict.fromkeys("−–‐‑‒﹣－", "-"),
    **dict.fromkeys("＋﹢", "+"),
    **dict.fromkeys("×✕✖⋅∙·∗", "*"),
    **dict.fromkeys("⁄∕／", "/"),
    **dict.fromkeys("’‘ʼ＇", "'"),
    **dict.fromkeys("％﹪٪", "%"),
    **dict.fromkeys("，٬﹐", ","),
    **dict.fromkeys("．٫﹒", "."),
    **dict.fromkeys("º˚", "°"),
    **dict.fromkeys("\u2028\u2029", "\n"),
    "～": "～",  # a range in Chinese, where ~ would be a space
    "℃": "°C",
    "℉": "°F",
    "＄": "$",
    "￥": "¥",
    "￡": "£",
    "√": "\\sqrt ",
    "∛": "\\sqrt ",
    "π": "\\pi ",
    "∞": "\\infty ",
    "±": "\\pm ",
    "≈": "≈",
}
_SUPERSCRIPT = re.compile("[⁰¹²³⁴-⁹⁺⁻]+")
_SUBSCRIPT = re.compile("[₀-₉₊₋]+")


class _Plain(dict[int, str]):
    """For :meth:`str.translate`: each character in plain signs, worked out when it first occurs."""

    def __missing__(self, code: int) -> str:
        self[code] = signs = _plain_character(chr(code))
        return signs


def _plain_character(char: str) -> str:
    if char.isascii():
        return char
    if char in _SIGNS:
        return _SIGNS[char]
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Zs":
        return " "
    if category == "Cf":
        return ""
    composed = unicodedata.normalize("NFKC", char)
    if unicodedata.decomposition(char).startswith("<fraction>"):
        above, _, below = composed.partition("⁄")
        return f"{MIXED}{above}/{below}" if above and below else char
    one_sign = len(composed) == 1 and composed.isascii()
    unit = "\u3380" <= char <= "\u33df"  # km, m2 and the like in one sign
    return composed if one_sign or unit else char


_PLAIN = _Plain()


def plain_signs(text: str) -> str:
    """``text`` with digits, letters, signs and spaces of other blocks as ASCII has them.

    Superscripts become ``^2``, ``½`` becomes ``1/2``, and ``2½`` a whole number, :data:`MIXED` and
    the fraction.  Characters without a width go.  Control characters that have a meaning here
    become spaces.
    """
    for mark in (_FUNCTION, OPAQUE, MIXED):
        if mark in text:
            text = text.replace(mark, " ")
    if text.isascii():
        return text
    text = _SUPERSCRIPT.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = _SUBSCRIPT.sub(lambda m: "_" + unicodedata.normalize("NFKC", m[0]), text)
    text = text.translate(_PLAIN)
    if MIXED in text:
        text = re.sub(rf"(?<=[0-9]) ?{MIXED}", "\x04", text).replace(MIXED, "")
        text = text.replace("\x04", MIXED)
    return text


_TEXT_COMMANDS = (
    "text textbf textit textrm textsf texttt textnormal textsc textmd emph mathbf mathrm mathit "
    "mathsf mathtt mathbb mathcal mathnormal mbox hbox bm boldsymbol pmb operatorname underline "
    "overline bf rm it sf displaystyle textstyle scriptstyle limits left right bigl bigr Bigl Bigr "
    "big Big bigg Bigg middle mathord displaylimits boldmath large Large"
)
_FUNCTIONS = (
    "sqrt cbrt root sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp "
    "binom dbinom tbinom sum prod int lim max min gcd overrightarrow vec hat bar"
)
_VALUES = (
    "pi infty pm mp alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda nu "
    "xi rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Phi Psi Sigma Pi choose "
    "emptyset varnothing"
)
#: LaTeX commands by what stands for them; those that are not here leave a space.
_COMMANDS: dict[str, str] = {
    **dict.fromkeys(_TEXT_COMMANDS.split(), ""),
    **dict.fromkeys(_FUNCTIONS.split(), _FUNCTION),
    **dict.fromkeys(_VALUES.split(), OPAQUE),
    **dict.fromkeys(["frac", "dfrac", "tfrac", "cfrac", "sfrac", "nicefrac"], "\\frac"),
    **dict.fromkeys(["boxed", "fbox", "framebox"], "\\boxed"),
    **dict.fromkeys(["times", "cdot", "ast"], "*"),
    **dict.fromkeys(["circ", "degree", "degrees"], "°"),
    **dict.fromkeys(["approx", "sim", "simeq", "thickapprox"], "≈"),
    **dict.fromkeys(["ne", "neq"], "≠"),
    **dict.fromkeys(["le", "leq", "leqslant"], "≤"),
    **dict.fromkeys(["ge", "geq", "geqslant"], "≥"),
    "lt": "<",
    "gt": ">",
    "div": "÷",
    "mu": "µ",
    "Omega": "Ω",
    "prime": "'",
    "percent": "%",
    "textdollar": "$",
    "pounds": "£",
    "euro": "€",
    "yen": "¥",
    "colon": ":",
    "textdegree": "°",
    **{mark: mark for mark in "%$#&_"},
    "!": "",
    "-": "",
    "{": "(",
    "}": ")",
    "|": "|",
}
_COMMAND = re.compile(r"\\(?:([A-Za-z]+)|(.)|$)", re.DOTALL)
#: Commands whose argument is no text: lengths, names, colours.
_SILENT = re.compile(
    r"\\(?:[hv]space\*?|label|tag|ref|eqref|cite|color|textcolor|begin|end|[hv]?phantom)"
    r" ?\{[^{}]{0,200}\}"
)
_REPEATING = re.compile(r"([0-9]{0,9})\.([0-9]{0,9})\\overline ?\{ ?([0-9]{1,9}) ?\}")
_BRACED_MARK = re.compile(r"\{ ?([,.]) ?\}")
_EMPTY = re.compile(r"(?<!\\boxed)\{\}")
_DEGREES = re.compile(r"\^ ?(?:\{ ?° ?\}|°)")


def _repeating(match: re.Match[str]) -> str:
    r"""``0.1\overline{6}`` as the fraction that it is."""
    whole, once, again = match.groups()
    longer, shorter = int(whole + once + again), int(f"0{whole}{once}")
    return f"{longer - shorter}/{(10 ** len(again) - 1) * 10 ** len(once)}"


def plain_latex(text: str) -> str:
    r"""``text`` with its LaTeX in plain signs, but for ``\frac``, ``\boxed``, ``^`` and braces.

    Dollar signs around formulas stay, as they may mean money.
    """
    if "\\" in text:
        text = _REPEATING.sub(_repeating, text)
        text = _SILENT.sub(" ", text)
        text = _COMMAND.sub(lambda m: _COMMANDS.get(m[1] or m[2] or "", " "), text)
    if "{" in text:
        text = _EMPTY.sub("", _BRACED_MARK.sub(r"\1", text))
    text = text.replace("~", " ")
    return _DEGREES.sub("°", text) if "°" in text else text


_PART = r"(?:\{([^{}]*)\}|([0-9]))"
_FRACTION = re.compile(rf"([0-9)] ?)?(- ?)?\\frac ?{_PART} ?{_PART}")
_ARGUMENT = re.compile(
    rf"{_FUNCTION}(?: ?_ ?(?:\{{[^{{}}]*\}}|[0-9A-Za-z]))?(?: ?\[[^\[\]\n]{{0,40}}\])?"
    rf" ?(?:\{{[^{{}}]*\}}|\([^()\n]{{0,80}}\)|[0-9][0-9.]*|[A-Za-z]\b|{OPAQUE})?"
)
_CALL = re.compile(r"(?<![A-Za-z])(?:sqrt|cbrt|log|ln|sin|cos|tan|exp) ?\([^()\n]{0,80}\)")
_SIGNED = re.compile(r"\s*([-+]?)\s*((?:[0-9][0-9,._']*(?: [0-9]{3})*|\.[0-9]+))\s*")
_EXPONENT = re.compile(r"([\^_]) ?\{ ?([-+]?[0-9]{1,30}|[A-Za-z]) ?\}")
_DIGITS_IN_BRACES = re.compile(r"(?<![A-Za-z\^_}])(?<!\\frac )(?<!\} )\{ ?([-+]?[0-9.,]+) ?\}")


def _plain_fraction(match: re.Match[str]) -> str:
    before, minus, above, above_digit, below, below_digit = match.groups()
    before, minus = before or "", minus or ""
    top = _SIGNED.fullmatch(above_digit or above or "")
    bottom = _SIGNED.fullmatch(below_digit or below or "")
    if top is None or bottom is None:
        return f"{before}{minus}{OPAQUE}"
    negative = (top[1] == "-") != (bottom[1] == "-")
    if minus and not before:
        minus, negative = "", not negative
    plain = f"{top[2].replace(' ', '')}/{bottom[2].replace(' ', '')}"
    if before and not minus and not negative and before[0] != ")":
        return f"{before.rstrip()}{MIXED}{plain}"
    return f"{before}{minus}{'-' if negative else ''}{plain}"


def plain_formulas(text: str) -> str:
    """The text of :func:`plain_latex` without braces.

    Fractions of numbers become ``a/b``; other fractions and functions become :data:`OPAQUE`.
    """
    if "(" in text:
        text = _CALL.sub(OPAQUE, text)
    if "{" in text:
        text = _DIGITS_IN_BRACES.sub(r"\1", text)
    for _ in range(4):  # what is nested deeper is no number
        before = text
        if "\\frac" in text:
            text = _FRACTION.sub(_plain_fraction, text)
        if _FUNCTION in text:
            text = _ARGUMENT.sub(OPAQUE, text) if "\\frac" not in text else _inner(text)
        if text == before:
            break
    text = text.replace("\\frac", OPAQUE).replace("\\boxed", " ").replace(_FUNCTION, OPAQUE)
    if "{" in text or "}" in text:
        text = _EXPONENT.sub(r"\1\2", text).replace("{", " ").replace("}", " ")
    return text


def _inner(text: str) -> str:
    r"""Functions whose argument has no braces of its own, as in ``\frac{\sqrt{3}}{2}``."""
    return re.sub(rf"{_FUNCTION} ?\{{[^{{}}]*\}}", OPAQUE, text)


_BRACE = re.compile(r"(?<!\\)[{}]")
_BOX = re.compile(r"\\boxed\s{0,9}")


def boxes(text: str) -> list[str]:
    """What the boxes of a text of :func:`plain_latex` hold, blank ones left out, in order.

    A box that is never closed ends with its line.
    """
    starts = [m.end() for m in _BOX.finditer(text)]
    if not starts:
        return []
    close: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            stack.append(match.start())
        elif stack:
            close[stack.pop()] = match.start()
    held = []
    for start, following in zip(starts, [*starts[1:], len(text)], strict=True):
        if text[start : start + 1] != "{":
            end = next((m.start() for m in _SPACE.finditer(text, start, following)), following)
            held.append(text[start:end])
        elif start in close:
            # Boxes in each other: only the inner one is read, or nesting would take quadratic time.
            held.append(text[start + 1 : close[start]] if close[start] < following else "")
        else:
            line = text.find("\n", start, following)
            held.append(text[start + 1 : line if line >= 0 else following])
    return [content for content in held if content.strip(" {}$")]


_SPACE = re.compile(r"[\s$]")
_ONE_BOX = re.compile(r"[\s$]*+\\boxed\s*+\{(.*)\}[\s.$]*+", re.DOTALL)


def unboxed(text: str) -> str:
    """What the box holds that is all of ``text``; else ``text``."""
    match = _ONE_BOX.fullmatch(text)
    return match[1] if match else text


#: Where thoughts begin, and in group 1 where they end, as models' templates mark them.
_THOUGHTS = re.compile(
    r"(?:<\||[<◁])(/)?(?:\w{1,12}:)?(?:think|thinking|thoughts?|reasoning)(?:\|>|[>▷])"
    r"|\[(/)?think\]"
    r"|<\|(?:(end)|begin)_of_thoughts?\|>"
    r"|<\|channel\|>(?:(final)|analysis)<\|message\|>",
    re.IGNORECASE,
)


def without_thoughts(text: str) -> str:
    """The answer alone: what follows the model's thoughts, else what stands before them.

    Empty where they have no end, or hold all there is.  An end without a beginning closes thoughts
    that the prompt began.
    """
    marks = list(_THOUGHTS.finditer(text))
    if not marks:
        return text
    ends = [i for i, mark in enumerate(marks) if mark.lastindex]
    after = ""
    if ends:
        last = ends[-1]
        upto = marks[last + 1].start() if last + 1 < len(marks) else len(text)
        after = text[marks[last].end() : upto]
    before = "" if marks[0].lastindex else text[: marks[0].start()]
    return after if after.strip() else before


def in_thoughts(prompt: str) -> bool:
    """Whether ``prompt`` ends where thoughts begin, so that an answer begins in them."""
    marks = list(_THOUGHTS.finditer(prompt))
    return bool(marks) and not marks[-1].lastindex and not prompt[marks[-1].end() :].strip()


def after_thinking(text: str) -> str:
    """:func:`without_thoughts`, or all of ``text`` where that leaves nothing."""
    rest = without_thoughts(text)
    return rest if rest.strip() else text


def plain(text: str) -> str:
    """:func:`plain_latex` of :func:`plain_signs` of what follows the model's thoughts."""
    return plain_latex(plain_signs(after_thinking(text)))
