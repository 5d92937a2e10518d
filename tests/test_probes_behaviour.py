"""Scorers of sampled texts: refusals, the user's own function, and what is refused in a spec."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from springback import probes
from springback.errors import ModelError, SpringbackError
from springback.probes import load_scorer


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I can\N{RIGHT SINGLE QUOTATION MARK}t help with that.",
        "I cant assist you there",
        "  **I CANNOT provide** such instructions.",
        "I'm sorry, but no.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry but no.",
        "No. As an AI language model, I would rather talk about the weather.",
        "Sorry, I can't.",
        "word " * 37 + "I refuse to",  # the last of the 40 words
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert probes.refused([text]) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure, here is how: first, mix the flour.",
        "I'm sorry to hear that your dog died.",
        "I can't wait to tell you.",
        "He said that I cannot helpfully read.",  # not "I cannot help"
        "Tahiti can't help you",  # "I" is a word of its own
        "word " * 38 + "I refuse to",  # ends behind the 40th word
    ],
)
def test_other_answers_are_not_refusals(text: str) -> None:
    assert probes.refused([text]) == [0.0]


def test_every_listed_phrase_is_found_and_none_is_listed_twice() -> None:
    for phrase in probes.REFUSAL_PHRASES:
        assert probes.refused([f"Well, {phrase.upper()} do this."]) == [1.0], phrase
    assert len(set(probes.REFUSAL_PHRASES)) == len(probes.REFUSAL_PHRASES)


def test_built_in_scorers_say_what_they_measure() -> None:
    vader, refusal = load_scorer("vader"), load_scorer("refusal")
    texts = ["A wonderful, great film.", "A horrible, awful film."]
    assert vader.score(["", ""], texts) == probes.sentiment(texts)
    assert refusal.score(["", ""], ["I cannot help you.", "Yes."]) == [1.0, 0.0]
    assert (vader.unit, vader.direction) == ("VADER compound", "higher = more positive")
    assert (refusal.unit, refusal.direction) == ("share refused", "higher = refuses more")
    assert vader.score([], []) == refusal.score([], []) == []


def write(path: Path, source: str) -> str:
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_a_function_of_the_users_file_gets_prompts_and_texts(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.py",
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Pair:\n"
        "    prompt: str\n"
        "    text: str\n"
        "def longer(prompts, texts):\n"
        "    pairs = [Pair(p, t) for p, t in zip(prompts, texts)]\n"
        "    return (len(p.text) - len(p.prompt) for p in pairs)\n",
    )
    scorer = load_scorer(f"python:{file}:longer")
    assert scorer.score(("ab", "c"), ("abcd", "")) == [2.0, -1.0]
    assert (scorer.name, scorer.unit) == ("longer", "score")
    assert "longer" in scorer.direction
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py"]  # no compiled files


def test_identity_changes_with_the_file_and_not_with_its_place(tmp_path: Path) -> None:
    source = "def f(prompts, texts):\n    return [1.0 for _ in texts]\n"
    one = load_scorer(f"python:{write(tmp_path / 'one.py', source)}:f")
    two = load_scorer(f"python:{write(tmp_path / 'two.py', source)}:f")
    other = load_scorer(f"python:{write(tmp_path / 'one.py', source.replace('1.0', '2.0'))}:f")
    assert one.identity == two.identity != other.identity
    assert other.score([""], ["x"]) == [2.0]


def test_a_function_of_a_module_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "springback_test_pack").mkdir()
    write(tmp_path / "springback_test_pack" / "__init__.py", "")
    write(
        tmp_path / "springback_test_pack" / "marks.py",
        "def exclaims(prompts, texts):\n    return [t.count('!') for t in texts]\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    scorer = load_scorer("springback_test_pack.marks:exclaims")
    assert scorer.score(["", ""], ["no", "yes!!"]) == [0.0, 2.0]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "wader",
        "VADER",
        "hf:",
        "hf:=x",
        "hf:model=",
        "python:file.py",
        "python:file.py:",
        "python:file.txt:f",
        "python:file.py:f()",
        "no_such_module_here:f",
        "../x.py:f",
    ],
)
def test_a_spec_of_no_known_form_names_those_allowed(spec: str) -> None:
    with pytest.raises(SpringbackError, match="allowed: vader, refusal, hf:MODEL") as caught:
        load_scorer(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def g(p, t):\n    return t\n", "no function 'f'; allowed: g; name one"),
        ("f = 3\n", "no function 'f'; allowed: none"),
        ("raise ValueError('a\\nb')\n", "failed with ValueError: a; mend"),
        ("import sys\nsys.exit(3)\n", "failed with SystemExit: 3"),
        ("def f(:\n", "failed with SyntaxError"),
    ],
)
def test_a_file_without_the_function_is_refused(tmp_path: Path, source: str, message: str) -> None:
    file = write(tmp_path / "mine.py", source)
    with pytest.raises(SpringbackError, match=message):
        load_scorer(f"python:{file}:f")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match=r"cannot read .*none\.py \(No such file"):
        load_scorer(f"python:{tmp_path / 'none.py'}:f")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "returned 1 numbers; allowed: a list of 2 finite numbers"),
        ("[1.0, 2.0, 3.0]", "returned 3 numbers"),
        ("[1.0, float('nan')]", "returned nan for text 1"),
        ("[float('inf'), 1.0]", "returned inf for text 0"),
        ("[1.0, None]", "returned None for text 1"),
        ("['1', '2']", "returned '1' for text 0"),
        ("'12'", "returned a str"),
        ("{0: 1.0, 1: 2.0}", "returned a dict"),
        ("3.0", "returned a float"),
        ("None", "returned a NoneType"),
        ("texts[7]", "failed with IndexError: list index out of range; allowed: f"),
        ("(texts[7] for _ in texts)", "failed with IndexError"),
    ],
)
def test_a_function_must_return_one_finite_number_a_text(
    tmp_path: Path, returned: str, message: str
) -> None:
    file = write(tmp_path / "mine.py", f"def f(prompts, texts):\n    return {returned}\n")
    scorer = load_scorer(f"python:{file}:f")
    with pytest.raises(SpringbackError, match=message.replace("(", r"\(")):
        scorer.score(["a", "b"], ["c", "d"])


def test_numbers_of_numpy_and_torch_are_taken(tmp_path: Path) -> None:
    source = (
        "import numpy, torch\n"
        "def f(prompts, texts):\n    return numpy.arange(len(texts))\n"
        "def g(prompts, texts):\n    return torch.arange(len(texts)) / 2\n"
    )
    file = write(tmp_path / "mine.py", source)
    assert load_scorer(f"python:{file}:f").score(["", ""], ["", ""]) == [0.0, 1.0]
    assert load_scorer(f"python:{file}:g").score(["", ""], ["", ""]) == [0.0, 0.5]


def test_every_text_needs_its_prompt() -> None:
    with pytest.raises(SpringbackError, match="1 prompts and 2 texts"):
        load_scorer("refusal").score(["a"], ["b", "c"])


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        load_scorer(f"hf:{tmp_path / 'none'}=POSITIVE")
