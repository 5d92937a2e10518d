"""Expressions are compared by math-verify, in a process that cannot hang or eat the machine."""

from __future__ import annotations

import threading
import time

import pytest

from springback.data.grading import check_reference, expressions, extract, grade, outcome
from springback.errors import DataError, MissingExtraError


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        (r"so \boxed{\frac{\sqrt{3}}{2}}", r"\frac{1}{2}\sqrt{3}", True),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", True),
        (r"\boxed{x^2+2x}", "(x+1)^2", False),
        ("The answer is $\\sqrt{4}$.", "2", True),
        (r"\boxed{\sqrt{2}}", "2", False),
        (r"\boxed{(3,4)}", "(3,4)", True),
        (r"\boxed{(4,3)}", "(3,4)", False),
        ("#### 1+x", "x+1", True),
        ("First $y$.\nThen \\(x+1\\)", "1+x", True),
        (r"\boxed{1\,234x}", "1234x", True),
        (r"\boxed{３x}", "3x", True),
        ("Answer: pi/2", r"\frac{\pi}{2}", True),
        (r"$\frac\pi2$", "π/2", True),
        ("p*i/2", r"\frac{\pi}{2}", False),
        (
            r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}",
            r"\begin{pmatrix}1\\2\end{pmatrix}",
            True,
        ),
        (
            r"\boxed{\begin{pmatrix}1\\3\end{pmatrix}}",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            False,
        ),
        # numbers: as the metric `number` compares them
        (r"\boxed{1\,234}", "1234", True),
        (r"\boxed{1\,234}", "235", False),
        (r"\boxed{9{,}500}", "9500", True),
        ("0.333", "1/3", True),
        ("0.334", "1/3", False),
        (r"\boxed{\frac{1}{3}}", r"0.\overline{3}", True),
        (r"\boxed{0.3}", r"0.\overline{3}", False),
        ("½", "0.5", True),
    ],
)
def test_expressions(completion: str, answer: str, right: bool) -> None:
    assert grade("math", completion, answer) is right


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (r"\boxed{x} and \fbox{y+1}", "y+1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("The answer is $x+1$, as $y$ is", "y"),
        ("Answer: x+1.\nBecause.", "x+1"),
        ("$x$ is\nx+1", "x"),
        ("so\nx+1", "x+1"),
        ("  ", None),
    ],
)
def test_what_is_compared(text: str, span: str | None) -> None:
    assert extract("math", text) == span


def test_what_cannot_be_read_counts_as_wrong() -> None:
    assert outcome("math", "", "x") == "unread"
    assert outcome("math", r"\boxed{!!}", "x") == "unread"
    assert outcome("math", rf"\boxed{{{'x+' * 2000}x}}", "x") == "unread"
    assert not grade("math", r"\boxed{!!}", "x")


def test_a_process_that_takes_too_long_is_killed_and_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert grade("math", "$1+x$", "x+1")
    first = expressions._WORKER._process
    assert first is not None
    monkeypatch.setattr(expressions, "SECONDS", 0.0)
    begin = time.monotonic()
    assert outcome("math", r"\boxed{9!!!}", "x+1") == "unread"
    assert time.monotonic() - begin < 5
    assert first.poll() is not None
    monkeypatch.undo()
    assert grade("math", "$x$", "x")


def test_it_works_outside_the_main_thread() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(grade("math", "$x+1$", "1+x")))
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize(
    "answer", [r"\frac{5}{6} or so", "about six", "!!", r"\boxed{x} is it", " "]
)
def test_a_reference_that_is_no_expression_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match="one expression"):
        check_reference("math", answer)


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'springback\[math\]'"):
        grade("math", "$x$", "y")
    with pytest.raises(MissingExtraError):
        expressions.require_math()
