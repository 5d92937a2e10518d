"""``--metric lm-eval:TASK`` where lm-eval is not there, and the word itself."""

from __future__ import annotations

import sys

import pytest

from springback.core import Row, Slice
from springback.data import nll_withheld
from springback.errors import MissingExtraError, SpringbackError
from springback.integrations.lm_eval_tasks import parse
from springback.jobs.boost.checks import check_settings
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import encode_answer, prompt_text
from springback.models.loading import load_tokenizer, resolve


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("gsm8k", ("gsm8k", None, None)),
        ("gsm8k:exact_match", ("gsm8k", "exact_match", None)),
        ("gsm8k:exact_match,strict-match", ("gsm8k", "exact_match", "strict-match")),
        ("a/b.c/task.yaml", ("a/b.c/task.yaml", None, None)),
        ("a/task.yml:acc,none", ("a/task.yml", "acc", "none")),
        ("a/b.yaml/task.yaml:acc", ("a/b.yaml/task.yaml", "acc", None)),
        ("tasks/mine:acc", ("tasks/mine", "acc", None)),
    ],
)
def test_task_metric_and_filter(spec: str, parts: tuple[str, str | None, str | None]) -> None:
    assert parse(f"lm-eval:{spec}") == parts


@pytest.mark.parametrize("spec", ["", ":acc", "a:", "a:,strict", "a:acc,", "a.yaml:"])
def test_a_word_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(SpringbackError, match=r"allowed: lm-eval:TASK\[:METRIC\[,FILTER\]\]"):
        parse(f"lm-eval:{spec}")


def test_without_lm_eval_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'springback\[lm-eval\]'"):
        question_format(BoostSettings(metric="lm-eval:a-task-of-no-name"))


def test_what_the_task_brings_is_not_given_besides() -> None:
    settings = BoostSettings(
        metric="lm-eval:gsm8k", early="a", ft="b", test="x.jsonl", extract="(.)"
    )
    with pytest.raises(SpringbackError, match="with --test, --extract") as caught:
        check_settings(settings)
    assert "\n" not in str(caught.value)


def test_a_prompt_stands_as_it_is_without_a_template(tiny_llama: object) -> None:
    tokenizer = load_tokenizer(resolve(str(tiny_llama)))
    tokenizer.chat_template = None
    row = Row("prompt", "the thing", "", answer="in")
    assert prompt_text(tokenizer, row) == "the thing"
    whole = encode_answer(tokenizer, row, "in")
    assert tokenizer.decode(whole.ids[whole.start :]).strip() == "in"
    assert nll_withheld(Slice.of("a", "a", [row]), "test"), "a bare answer, as of any question"
