"""Answers are read as a person would read them, and equal answers are equal."""

from __future__ import annotations

import contextlib
import random
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor_time import seconds_of
from springback.data.grading import (
    METRICS,
    Metric,
    check_reference,
    extract,
    extract_choice,
    extract_choices,
    extract_exact,
    extract_number,
    grade,
)
from springback.errors import DataError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # the mark
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 7 because 3 + 4 = 9 - 2", "7"),
        ("#### 5\nno, wait\n#### 6", "6"),
        ("#### 5\n#### none", "5"),
        ("####\n42", "42"),
        ("#### **12**", "12"),
        ("#### $1,234.50 dollars", "1234.5"),
        ("#### -3", "-3"),
        ("#### 18.\nThen 5 more lines", "18"),
        ("#### Step 3: add\nSo she has 18 apples.", "18"),  # a heading is no mark
        # without a mark, the last number
        ("She has 3 apples and buys 4, so 7.", "7"),
        ("The total is $1,234,567.", "1234567"),
        ("She may take 1, 2, 3", "3"),
        ("one of 3,5", "5"),
        ("That is 50%.", "50"),
        ("It costs €9.50", "9.5"),
        ("The area is 12 m^2", "12"),
        ("The area is 12 m2", "12"),
        ("\\boxed{36}", "36"),
        ("It costs Rs50", "50"),  # glued to a word, but there is no other
        ("答案是４２。", "42"),
        # signs
        ("x = -7", "-7"),
        ("x = −7", "-7"),
        ("so -$5", "-5"),
        ("so $-5", "-5"),
        ("[-4]", "-4"),
        ("10-3", "3"),
        ("pages 5-10", "10"),
        ("- 3 apples", "3"),
        ("-0", "0"),
        # one spelling
        ("7.0", "7"),
        ("7.", "7"),
        ("007", "7"),
        (".50", "0.5"),
        ("1.50e2", "150"),
        ("2e-1", "0.2"),
        ("3/4", "0.75"),
        ("6 / 4", "1.5"),
        ("2/6", "1/3"),
        ("-1/3", "-1/3"),
        ("1/1024", "0.0009765625"),
        ("0.5/3", "1/6"),
        # nothing there
        ("", None),
        ("none", None),
        ("####", None),
        ("5/0", None),
    ],
)
def test_numbers_are_read(text: str, number: str | None) -> None:
    assert extract_number(text) == number


@given(st.decimals(-(10**9), 10**9, places=3), st.sampled_from(["{:f}", "{:,f}", "{:f}00"]))
def test_every_spelling_of_a_number_is_the_same_number(value: Decimal, spelling: str) -> None:
    found = extract_number(f"the result is {spelling.format(value)}.")
    assert found is not None
    assert Decimal(found) == value
    assert grade("number", f"#### {spelling.format(value)}", str(value))


@given(st.text(alphabet="0123456789.,-/$%# eE\nx", max_size=60))
def test_reading_a_number_never_fails_and_reads_its_own_spelling(text: str) -> None:
    found = extract_number(text)
    if found is not None:
        assert extract_number(found) == found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # boxes: the last one, before every other way
        (r"So the total is \boxed{4{,}250}.", "4250"),
        (r"\boxed{1} then \boxed{2}, since 3", "2"),
        (r"\fbox{7} and 8", "7"),
        (r"\boxed 5 of 6", "5"),
        (r"#### 4" + "\n" + r"\boxed{5}", "5"),
        (r"\boxed{} no, \boxed{\text{ }}, 3", "3"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{3 + 4 = 7}", "7"),
        (r"\boxed{\text{The answer is } 5}", "5"),
        (r"\boxed{5\text{ apples}}", "5"),
        (r"\boxed{5 \text{ cm}^2}", "5"),
        (r"\boxed{\left(-3\right)}", "-3"),
        (r"\boxed{x = 3 \text{ or } x = 5}", None),
        (r"\boxed{(3, 4)}", None),
        (r"\boxed{3 \pm 2}", None),
        (r"\boxed{3x}", None),
        # LaTeX
        (r"$\dfrac{7}{8}$", "0.875"),
        (r"\tfrac{1}{3}", "1/3"),
        (r"\frac 3 4", "0.75"),
        (r"\frac34", "0.75"),
        (r"-\frac{3}{4}", "-0.75"),
        (r"\frac{-3}{4}", "-0.75"),
        (r"\frac{1{,}000}{3}", "1000/3"),
        (r"2\frac{1}{2}", "2.5"),
        (r"\(x = 5\)", "5"),
        (r"\[ 30^{\circ} \]", "30"),
        (r"30^\circ", "30"),
        (r"\$5.00", "5"),
        (r"12\%", "12"),
        (r"\mathbf{42}", "42"),
        (r"1\,000\,000", "1000000"),
        (r"1,\!000", "1000"),
        (r"5~\mathrm{m/s}", "5"),
        (r"\frac{\sqrt{3}}{2}", None),
        (r"\sqrt{5}", None),
        ("√5", None),
        ("so x = 3\\sqrt{2}", None),
        ("2π", None),
        (r"\sqrt{16} = 4", "4"),
        # powers of ten, and others
        (r"2.5 \times 10^4", "25000"),
        (r"3.14 \cdot 10^{-2}", "0.0314"),
        ("1.5 x 10^3", "1500"),
        ("1.5×10³", "1500"),
        ("7 * 10**2", "700"),
        ("10^{6}", "1000000"),
        ("10⁶", "1000000"),
        ("2^10", "1024"),
        ("1E+3", "1000"),
        ("10^999999999", "1e999999999"),
        ("3e-999999999", "3e-999999999"),
        ("10^99999999999999999999", None),
        ("9^99999", None),
        # groups of thousands
        ("9 500 people", "9500"),
        ("9\u202f500", "9500"),
        ("9\u00a0500,50", "9500.5"),
        ("9'500'000", "9500000"),
        ("9’500", "9500"),
        ("9_500", "9500"),
        ("9.500.000", "9500000"),
        ("9.500,25", "9500.25"),
        # other digits, fractions in one sign, mixed numbers
        ("３．５", "3.5"),
        ("٣٥", "35"),
        ("𝟗", "9"),
        ("¾", "0.75"),
        ("2½ cups", "2.5"),
        ("2 ½ cups", "2.5"),
        ("−½", "-0.5"),
        ("3 3/4", "3.75"),
        ("-3 3/4", "-3.75"),
        ("on day 1 5/2", "2.5"),
        # signs
        ("- 7", "-7"),
        ("x = - 7", "-7"),
        ("–7", "-7"),
        ("－7", "-7"),
        ("＋7", "7"),
        ("5–10", "10"),
        # currency and units
        ("USD 5", "5"),
        ("US$5", "5"),
        ("¥500", "500"),
        ("5 €", "5"),
        ("9.8 m/s^2", "9.8"),
        ("5 m²", "5"),
        ("5 m^{-2}", "5"),
        ("H2O has 18", "18"),
        ("GPT-4 says 7", "7"),
        ("5 laps on the 3rd day", "5"),
        # cues
        ("The answer is 18 clips, of 72.", "18"),
        ("**Answer:** 18 (of 72)", "18"),
        ("Answer:\n\n18\n\nfor 3 + 15 = 18, as 3", "18"),
        ("Answer: 3 + 4 = 7 for 2", "7"),
        ("Answer: 3 apples + 4 apples = 7 apples for 2", "7"),
        ("Answer: She has 18 left. That is since 3", "18"),
        ("The answer is about 3.14, for 2 places", "3.14"),
        ("The answer is not 5. It is 6.", "6"),
        ("Answer: 5. No, answer: 6, since 3", "6"),
        ("Answer: 5\nI hope this answer is of help to all 3", "5"),
        ("The final answer = 18, by 2", "18"),
        ("答案：42，共3人", "42"),
        ("La respuesta es 5, de 6", "5"),
        ("Die Antwort lautet 5. Probe: 2 + 3", "5"),
        ("<answer>5</answer> of 6", "5"),
        ("#### The answer is 5 of 6", "5"),
        ("Answer: 5-10", None),
        ("Answer: 2x", None),
        ("<think>12 or 13?</think>14", "14"),
        ("<think>12</think>", "12"),
    ],
)
def test_numbers_are_read_as_models_write_them(text: str, number: str | None) -> None:
    assert extract_number(text) == number


_SEPARATORS = (",", "{,}", r"\,", r"\;", r"{,}\!", " ", "\u2009", "\u202f", "\u00a0", "'", "’", "_")


@given(st.integers(0, 10**15), st.sampled_from(_SEPARATORS), st.sampled_from(["", "-", "−"]))
def test_an_integer_reads_back_whatever_parts_its_thousands(
    value: int, separator: str, sign: str
) -> None:
    grouped = sign + f"{value:,}".replace(",", separator)
    wanted = f"-{value}" if sign and value else str(value)
    for way in ("{}", "#### {}", r"so \boxed{{{}}}.", "The answer is {} euros, of 3.", "$ {} $"):
        assert extract_number(way.format(grouped)) == wanted
    assert grade("number", wanted, grouped)


@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_reads_back_however_it_is_written(top: int, bottom: int) -> None:
    ways = (f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", rf"$\dfrac {{{top}}} {{{bottom}}}$")
    for one in ways:
        for other in ways:
            assert grade("number", one, other)
    three = round(Fraction(top, bottom), 3)
    assert grade("number", f"{float(three):.3f}", f"{top}/{bottom}")
    assert not grade("number", f"{float(three) + 0.002:.3f}", f"{top}/{bottom}")


_LATEX = (
    r"\boxed{ \frac{ \frac \sqrt{ \sqrt[ \text{ \left( \times 10^ \, \! \% \$ \( \) \\ { } ^{ _{"
)
_SIGNS = "( ) [ ] $ 1 2 34 567 , . ' _ - − + * / = : ½ ² ３ # #### answer: 答案 is B not e x % ~"
_PIECES = (*_LATEX.split(), *_SIGNS.split(), "\x01", "\x02", "\x03")


@given(st.lists(st.sampled_from([*_PIECES, " ", "\n"]), max_size=30).map("".join) | st.text())
def test_reading_never_fails_and_reads_its_own_spelling(text: str) -> None:
    for metric in METRICS:
        read = extract(metric, text)
        if metric == "number" and read is not None:
            assert extract_number(read) == read
    with contextlib.suppress(DataError):
        check_reference("number", text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # an answer as heading, in JSON, in short, and before its cue
        ("## Final answer\n\n**42**\n\nCheck: 40 + 2 = 42 in 3 steps", "42"),
        ("**Answer**\n\n42\n\nI verify it in 2 ways", "42"),
        ("#### Answer\n42\nin 3 steps", "42"),
        ("we get the answer\nthat 3 people saw, 42 in all", "42"),
        ('{"answer": 12, "steps": 3}', "12"),
        ("{'answer': '12', 'sure': 0.9}", "12"),
        ("Ans: 17, in 3 steps", "17"),
        ("The final answer is:\n\n$$\n42\n$$\n\nas in 3", "42"),
        ("**Answer:**\n\n> 6\n\nin 3", "6"),
        ("Answer:\n```\n6\n```\nin 3 steps", "6"),
        ("Final answer (in dollars): 6, of 3", "6"),
        ("Answer in dollars: 6, of 3", "6"),
        ("<final_answer>6</final_answer> of 3", "6"),
        ("[ANSWER]6[/ANSWER] of 3", "6"),
        (r"\boxed{5 = 2 + 3}", "5"),
        ("答：12个。验算：3*4", "12"),
        ("La respuesta correcta es 5, de 6", "5"),
        ("So 42 is the final answer, since 6 * 7 = 42 as in step 2", "42"),
        ("**7 apples** is the answer to 3", "7"),
        ("There are 3 parts. This is the answer: 5 of 6", "5"),
        # a minus in words
        ("The answer is negative 12.", "-12"),
        ("Answer: minus $5 of 3", "-5"),
        ("5 minus 3", "3"),
        # a comma before decimals, where nothing else can be meant
        ("12,50 €", "12.5"),
        ("3,5 kg", "3.5"),
        ("−0,75", "-0.75"),
        ("12,345 km", "12345"),
        ("1,2,3 km", "3"),
        # a period that repeats
        (r"\boxed{0.\overline{3}}", "1/3"),
        (r"-1.1\overline{6}", "-7/6"),
    ],
)
def test_numbers_are_read_where_the_answer_is_said(text: str, number: str) -> None:
    assert extract_number(text) == number


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("The answer is 3.2 million people.", "3200000", True),
        ("The answer is 3.2 million people.", "3.2", True),  # "how many million?"
        (r"\boxed{3.2\text{ million}}", "3,200,000", True),
        ("It costs -$1.5M", "-1500000", True),
        ("5k", "5000", True),
        ("5 lakh", "5,00,000", True),
        ("12万", "120000", True),
        ("5 million", "5000", False),
        ("5 millimetres", "5000000", False),
    ],
)
def test_a_word_that_multiplies_may_be_part_of_the_number(
    completion: str, answer: str, right: bool
) -> None:
    assert grade("number", completion, answer) is right


@pytest.mark.parametrize(
    ("metric", "answer", "read"),
    [
        ("number", "12,50 €", "12.5"),
        ("number", r"$\frac{5}{6}$", "5/6"),
        ("number", "$1,234.00", "1234"),
        ("number", "12 km/h", "12"),
        ("number", "25 °C", "25"),
        ("number", "5 m2", "5"),
        ("number", "50%", "50"),
        ("number", "12个", "12"),
        ("number", r"\boxed{- 7}", "-7"),
        ("number", "x = 5", "5"),
        ("number", "so 3 * 4.\n#### 1,234", "1234"),
        ("choice", r"$\boxed{\textbf{(C)}}$", "C"),
        ("choice", "B) Paris", "B"),
        ("choice", "#### (b)", "B"),
        ("choices", "A, C and D", "ACD"),
        ("math", "5 apples", "5 apples"),
    ],
)
def test_a_reference_is_read(metric: str, answer: str, read: str) -> None:
    assert check_reference(metric, answer) == read


@pytest.mark.parametrize(
    ("metric", "answer"),
    [
        ("number", r"\frac{5}{6} or so"),
        ("number", "about 6"),
        ("number", "5 or 6"),
        ("number", "5, 6"),
        ("number", "5-10"),
        ("number", "3 + 4"),
        ("number", "3:4"),
        ("number", "12个左右"),
        ("number", "5 million"),
        ("number", "2x"),
        ("number", r"\sqrt{2}"),
        ("number", "5/0"),
        ("number", "The answer is 5"),
        ("number", "3\n#### 5 or so"),
        ("choice", "A or B"),
        ("choice", "B because"),
        ("choice", "AB"),
        ("choices", "A or B"),
        ("choices", "A and C, maybe"),
        ("math", "about six"),
    ],
)
def test_a_reference_that_is_more_than_an_answer_is_refused(metric: str, answer: str) -> None:
    with pytest.raises(DataError, match="mend that row"):
        check_reference(metric, answer)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"$\boxed{\text{(B)}}$", "B"),
        (r"$\boxed{\textbf{(C)}\ 12}$", "C"),
        (r"\boxed{\mathrm{D}}. A is wrong.", "D"),
        (r"\fbox{B} or \boxed{C}", "C"),
        ("None of B, C is right, so D", "D"),
        ("Neither A nor B, hence C", "C"),
        ("C, since neither A nor B fits", "C"),
        ("The answer isn't A; it's C.", "C"),
        ("The answer is not B. It is C.", "C"),
        ("It's B, not A.", "B"),
        ("So B, not C or D", "B"),
        ("I'd go with B rather than A", "B"),
        ("Option B is correct, A is not", "B"),
        ("B because A is wrong", "B"),
        ("B is false.", "B"),
        ("A is not right. B is.", "B"),
        ("<think>A? or C?</think>B", "B"),
        ("Die Antwort ist B, nicht A", "B"),
        ("La réponse est C. A est faux", "C"),
        ("正确答案是B，而不是A。", "B"),
        ("选择C，因为A错误", "C"),
        ("应该选择C选项", "C"),
        ("Ｂ", "B"),
        ("Ⓑ", "B"),
        ('{"answer": "B"}', "B"),
        ("[[B]]", "B"),
        ("{'answer': 'C', 'not': 'A'}", "C"),
        ("The answer is 'A'", "A"),
        ("A' is the complement, so B", "B"),
        # small letters
        ("the answer is b because a is too small", "B"),
        ("The answer is (a) dog.", "A"),
        ("answer is b) Paris", "B"),
        ("option b", "B"),
        ("a dog or a cat, so D", "D"),
        # words around the letter
        ("The answer is probably B; A fails", "B"),
        ("The answer to the question is (B); A fails", "B"),
        ("The answer is, of course, B; A fails", "B"),
        ("Answer -> B, A fails", "B"),
        ("The right option is C; A is a trap", "C"),
        ("My choice: B, A fails", "B"),
        ("I select option B over A", "B"),
        ("I pick a number, D", "D"),
        ("La respuesta correcta es la B, no la A", "B"),
        ("A resposta correta é a opção B, não A", "B"),
        ("La risposta corretta è B, non A", "B"),
        ("【答案】B【解析】A错", "B"),
        ("本题选B，A不符", "B"),
        ("不选A，选B", "B"),
        ("B是正确的，A不是", "B"),
        ("选项A不正确，选项B正确，C错误", "B"),
    ],
)
def test_choices_are_read_as_models_write_them(text: str, letter: str) -> None:
    assert extract_choice(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # the mark
        ("Because of x.\n#### B", "B"),
        ("#### (c)", "C"),
        ("#### a", "A"),
        ("#### A\n#### D", "D"),
        # a cue
        ("The answer is B", "B"),
        ("The answer is (b).", "B"),
        ("the answer is: **C**, not A", "C"),
        ("Answer: D) Paris", "D"),
        ("Answer:\nB", "B"),
        ("The correct option is B and not C", "B"),
        ("The correct answer is option C", "C"),
        ("The answer is $\\boxed{\\text{D}}$", "D"),
        ("The answer is A because it fits", "A"),
        ("答案是B,而不是C", "B"),
        ("The answer is B. No: the answer is C", "C"),
        ("the answer is not A but C", "C"),
        # the opening
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**D**", "D"),
        ("B. Paris\nA is wrong.", "B"),
        ("A.\n\nQuestion: what next?\nB. foo", "A"),
        ("A. foo\nB. bar\nso it must be B", "B"),
        # a letter that stands alone
        ("I choose A", "A"),
        ("A is correct", "A"),
        ("It fits best with option E.", "E"),
        ("It fits best with (d).", "D"),
        # no letters
        ("A dog ran.", None),
        ("A dog ran. So it is C", "C"),
        ("Answer: A dog", None),
        ("The answer is a dog", None),
        ("Cats", None),
        ("25 °C", None),
        ("C++ and E-mail", None),
        ("U and V", None),
        ("", None),
    ],
)
def test_choices_are_read(text: str, letter: str | None) -> None:
    assert extract_choice(text) == letter


def test_only_letters_on_offer_count() -> None:
    assert extract_choice("The answer is E", "ABCD") is None
    assert extract_choice("Surely D, as E is absurd", "ABCD") == "D"
    assert extract_choice("the answer is b", ["a", "b"]) == "B"


def test_the_pronoun_is_no_choice() -> None:
    assert extract_choice("I think so", "ABCDEFGHI") is None
    assert extract_choice("It must be I", "ABCDEFGHI") == "I"


@pytest.mark.parametrize("letters", ["", ["AB"], "A1", ["A", ""]])
def test_letters_that_are_none_are_refused(letters: str | list[str]) -> None:
    with pytest.raises(DataError, match="single letters"):
        extract_choice("A", letters)


@given(
    st.sampled_from("ABCDE"),
    st.sampled_from(["The answer is {}.", "({})", "#### {}", "Answer: {}", "{}", "{}. since x"]),
)
def test_every_way_to_name_a_letter_names_it(letter: str, way: str) -> None:
    assert grade("choice", way.format(letter), letter)
    assert not grade("choice", way.format(letter), "A" if letter != "A" else "B")


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        # the mark
        ("First A, then more.\n#### C, A", "AC"),
        ("#### B", "B"),
        ("#### ABD\n#### AD", "AD"),
        # a cue
        ("The answers are A and C.", "AC"),
        ("The correct options are: **A**, **C**, and D", "ACD"),
        ("The answer is $\\boxed{\\text{A, D}}$", "AD"),
        ("The answer is A because it fits", "A"),
        ("Answer:\nB D", "BD"),
        ("Answer: D) Paris", "D"),
        ("it may be B; the answer is not A but C", "C"),
        ("答案是AC。", "AC"),
        ("答案：ＡＢ", "AB"),
        ("A、B正确，故选ABD", "ABD"),
        ("正确选项为：B、C、D，答案：B、C、D", "BCD"),
        # lines that each open with a choice
        ("A. foo\nC. bar", "AC"),
        ("A. foo\nB. bar\nso it must be B", "B"),
        ("A. foo\nA. foo", "A"),
        # the opening
        ("ACD", "ACD"),
        ("(A)(C)", "AC"),
        ("(a) and [c]", "AC"),
        ("A、C、D。", "ACD"),
        ("A, C\nB is wrong", "AC"),
        ("b", "B"),
        ("A.\n\nQuestion: what next?\nB. foo", "A"),
        # letters that stand alone
        ("A is wrong; B and D are right", "BD"),
        ("I choose A, B, and D", "ABD"),
        ("it is B, which is", "B"),
        ("A and C are correct; B is not.", "AC"),
        ("- A\n- C", "AC"),
        ("1. A\n2. C", "AC"),
        ("a and c", "AC"),
        # no set: undecided, repeated, or no letters at all
        ("#### A or B", "A"),
        ("AA", None),
        ("A dog ran.", None),
        ("The answer is a dog", None),
        ("U and V", None),
        ("25 °C", None),
        ("C++ and E-mail, AB1", None),
        ("acd", None),
        ("", None),
    ],
)
def test_sets_of_choices_are_read(text: str, letters: str | None) -> None:
    assert extract_choices(text) == letters


@given(
    st.sets(st.sampled_from("ABCDE"), min_size=1).map(sorted),
    st.sampled_from(["", ", ", "、", " and ", "/", " "]),
    st.sampled_from(["The answer is {}.", "#### {}", "答案：{}", "{}", "So I take {}"]),
)
def test_a_set_is_right_whole_and_in_no_other_form(
    letters: list[str], between: str, way: str
) -> None:
    completion = way.format(between.join(reversed(letters)))
    assert grade("choices", completion, "".join(letters))
    for one in "ABCDE":  # one too many, or one missing
        if other := "".join(sorted({one} ^ {*letters})):
            assert not grade("choices", completion, other)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("  Paris \n", "Paris"),
        ("New \n York", "New York"),
        ("thinking\n#### New York\nmore", "New York"),
        ("#### a\n#### C#", "C#"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("\ufeffParis\u200b", "Paris"),
        (" \n", None),
        ("text ####", None),
    ],
)
def test_exact_strings_are_read(text: str, exact: str | None) -> None:
    assert extract_exact(text) == exact


@pytest.mark.parametrize(
    ("metric", "completion", "answer", "right"),
    [
        ("number", "so it is $7.00.", "7", True),
        ("number", "8", "7", False),
        ("number", "no idea", "7", False),
        ("number", "1,000", "3 + 997 = 1000\n#### 1000", True),
        ("number", "0.5", "1/2", True),
        ("number", "4", "3/4", False),
        ("number", r"\boxed{\frac{3}{4}}", "3/4", True),
        ("number", r"\boxed{\frac{3}{4}}", "4", False),
        ("number", "5/6", r"\frac{5}{6}", True),
        ("number", "6", r"\frac{5}{6}", False),
        ("number", "500", "9{,}500", False),
        ("number", r"\sqrt{2}", "2", False),
        # a decimal against a fraction: equal after rounding to three decimals or more
        ("number", "0.667", "2/3", True),
        ("number", "0.6667", "2/3", True),
        ("number", "0.666", "2/3", False),
        ("number", "0.6670", "2/3", False),
        ("number", "2.333", "2 1/3", True),
        ("number", "2/3", "0.667", True),
        ("number", "0.1250", "1/8", True),
        # decimals among each other: exactly
        ("number", "0.3333", "0.333", False),
        ("number", "0.30000000000000004", "0.3", False),
        ("number", "12345678901234567890.1", "12345678901234567890.2", False),
        ("number", "10^999999999", "1e999999999", True),
        ("number", "10^999999999", "1e999999998", False),
        ("choice", "no idea", "B", False),
        ("choice", "(b)", "(B)", True),
        ("choices", "no idea", "AC", False),
        ("choices", "C and A", "AC", True),
        ("choices", "A", "AC", False),
        ("choices", "ABC", "AC", False),
        ("exact", "New  York", "New York", True),
        ("exact", "new york", "New York", False),
        ("exact", "", "New York", False),
    ],
)
def test_grades(metric: Metric, completion: str, answer: str, right: bool) -> None:
    assert grade(metric, completion, answer) is right


def test_an_unknown_metric_is_refused_with_the_list() -> None:
    with pytest.raises(DataError, match="'bleu'; allowed: number, choice, choices, exact"):
        grade("bleu", "7", "7")


@pytest.mark.parametrize(
    ("metric", "answer"),
    [("number", "none"), ("choice", "Paris"), ("choice", "F"), ("choices", "F"), ("exact", " ")],
)
def test_a_reference_without_an_answer_is_refused(metric: Metric, answer: str) -> None:
    with pytest.raises(DataError, match="mend that row"):
        grade(metric, "7", answer)


@pytest.mark.parametrize(
    "unit",
    [
        "#",
        "#### ",
        "1",
        "1,",
        "1/",
        "-",
        "answer: ",
        ": ",
        "A ",
        "(",
        "\n",
        "a\n",
        "boxed{",
        "A,",
        "答案",
        "\\boxed{",
        "\\boxed ",
        "\\frac{1}{",
        "\\sqrt[",
        "\\(",
        "\\",
        "{",
        "$1",
        "1 1/",
        "1 234 ",
        "1'",
        "10^",
        "1 + 1 = ",
        "½",
        "²",
        "B is correct ",
        "not B ",
        "</think>",
        "sqrt(",
        "answer: a 1 ",
        "answer (",
        "answer\n> ",
        "1 is the answer",
        "0.",
        "I pick ",
        "选",
        "option ",
        "1 million",
        " ",
        "$)",
        "*_",
        "x ",
        "1 is",
        "so 4 *",
        "\n- ",
        "\\text{",
    ],
)
def test_endless_completions_take_no_time(unit: str) -> None:
    """A model that repeats itself must not stall the grader.

    Eight times the text takes eight times the time, 64 times where a pattern is quadratic.  In
    processor time, the least of three; the twentieth of a second is for what takes almost none.
    """

    def seconds(signs: int, metric: str) -> float:
        text = "answer" + unit * (signs // len(unit))
        return seconds_of(lambda: extract(metric, text))

    for metric in METRICS:
        assert seconds(40_000, metric) < 20 * seconds(5_000, metric) + 0.05


def test_a_long_completion_is_read_in_no_time() -> None:
    """Two thousand characters of arithmetic: well below 1 ms; the bound leaves room for CI."""
    draw = random.Random(0)
    lines = [
        f"She buys {draw.randint(1, 99)} * $1,234.50 = \\frac{{3}}{{4}} now" for _ in range(60)
    ]
    text = "\n".join(lines)[:2000]
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        extract_number(text)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.01
