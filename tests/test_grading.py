"""Answers are read as a person would read them, and equal answers are equal."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springback.data.grading import (
    METRICS,
    Metric,
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
    ],
)
def test_endless_completions_take_no_time(unit: str) -> None:
    """A model that repeats itself must not stall the grader: quadratic patterns take seconds."""
    text = "answer" + unit * (20_000 // len(unit))
    begin = time.process_time()
    for metric in METRICS:
        extract(metric, text)
    assert time.process_time() - begin < 1.0
