"""Chat templates: refused or dropped messages, parts, names, arguments, thoughts; and streams."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Fast
from tokenizers import decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

import springback
from springback.core import Checkpoint, Row, to_jsonable
from springback.data.grading import METRICS, in_thoughts, outcome, without_thoughts
from springback.errors import DataError, SpringbackError
from springback.inference import GenerateSettings, _Answers, load
from springback.integrations.server.protocol import ChatRequest, Refused
from springback.integrations.server.text import Pieces
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.export import Strengths, write_boosted
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import (
    answer_text,
    encode_rows,
    end_text,
    may_change,
    prompt_text,
)
from springback.models.loading import load_tokenizer, resolve
from springback.models.templates import with_chat
from springback.settings import ChatSettings, parse_arguments
from turns_fixture import talking

TURN = "<|im_start|>{{ m['role'] }}\n"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = "{% for m in messages %}" + TURN + "{{ m['content'] }}" + END
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('No system role here') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + PLAIN
)
DROPS = "{% for m in messages if m['role'] != 'system' %}" + TURN + "{{ m['content'] }}" + END
PART = "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
PARTS = "{% for m in messages %}" + TURN + PART + END
SYSTEM_TEXT_ELSE_PARTS = (
    "{% for m in messages %}" + TURN + "{% if m['role'] == 'system' %}{{ m['content'] + '' }}"
    "{% else %}" + PART + "{% endif %}" + END
)
JSON = "{% for m in messages %}" + TURN + "{{ m['content'] | tojson }}" + END
THINKS = (
    PLAIN + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
OPENS = PLAIN + "{% if add_generation_prompt %}<think>\n{% endif %}"
ROW = Row("chat", "is it 5?", "yes")
SYSTEM = Row("chat", "is it 5?", "yes", turns=(("system", "be kind"),))
FOLD = ChatSettings(system_in_user=True)


@pytest.fixture
def templated(tiny_llama: Path) -> Any:
    """The tests' tokenizer with another chat template."""
    folder = Checkpoint(str(tiny_llama))

    def make(template: Any, chat: ChatSettings | None = None) -> Any:
        tokenizer = load_tokenizer(folder)
        tokenizer.chat_template = template
        return with_chat(tokenizer, chat or ChatSettings())

    return make


@pytest.mark.parametrize(
    ("template", "row", "words"),
    [
        (REFUSES, SYSTEM, "No system role here.*--system-in-user"),
        (DROPS, SYSTEM, "drops the system's text.*--system-in-user"),
        (REFUSES, Row("chat", "b", "c", turns=(("user", "a"),)), "Roles must alternate"),
        ("{{ messages | nosuch }}", ROW, "nosuch"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", ROW, "drops the user's text"),
        ("{% for m in messages %}{{ m.content.a.b }}{% endfor %}", ROW, "has no attribute"),
        ("{% if %}", ROW, "refuses"),
    ],
)
def test_a_template_that_refuses_or_drops_is_one_line_with_its_words_and_the_row(
    templated: Any, template: str, row: Row, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        encode_rows(templated(template), [row, row], 100)
    assert str(caught.value).startswith("row 1: the chat template")
    assert row.prompt not in str(caught.value), "which may be harmful"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_a_refused_system_message_is_folded_only_if_told_so(templated: Any, template: str) -> None:
    folded = "<|im_start|>user\nbe kind\n\nis it 5?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_text(templated(template, FOLD), SYSTEM) == folded
    assert prompt_text(templated(template, FOLD), ROW, "be kind") == folded
    # Who takes one keeps it, and a row without one is what it was.
    assert prompt_text(templated(PLAIN, FOLD), SYSTEM) == prompt_text(templated(PLAIN), SYSTEM)
    assert prompt_text(templated(template, FOLD), ROW) == prompt_text(templated(template), ROW)


@pytest.mark.parametrize("row", [ROW, SYSTEM])
@pytest.mark.parametrize("template", [PARTS, SYSTEM_TEXT_ELSE_PARTS])
def test_a_template_that_reads_parts_gets_parts(templated: Any, template: str, row: Row) -> None:
    tokenizer = templated(template)
    assert prompt_text(tokenizer, row) == prompt_text(templated(PLAIN), row)
    assert end_text(tokenizer, row) == "<|im_end|>"


def test_an_answer_is_closed_where_a_template_wants_a_system_message_or_never_ends(
    templated: Any,
) -> None:
    wants = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('No system') }}{% endif %}"
    tokenizer = templated(wants + PLAIN)
    assert prompt_text(tokenizer, SYSTEM) == prompt_text(templated(PLAIN), SYSTEM)
    assert end_text(tokenizer, SYSTEM) == "<|im_end|>"
    with pytest.raises(DataError, match="refuses it: No system"):
        prompt_text(tokenizer, ROW)
    begins_another = PLAIN.replace("{% if add_generation_prompt %}", "{% if true %}")
    assert end_text(templated(begins_another), ROW) == "<|im_end|>"
    refuses = "{% if messages[-1]['role'] != 'user' %}{{ raise_exception('No reply') }}{% endif %}"
    with pytest.raises(DataError, match="refuses it: No reply"):
        end_text(templated(refuses + PLAIN), ROW)


def test_a_text_that_is_written_otherwise_is_there_all_the_same(templated: Any) -> None:
    row = Row("chat", '  say "é"\n\n twice ', "x", turns=(("user", "a"), ("assistant", "<think>b")))
    assert '"  say \\"é\\"' in prompt_text(templated(JSON), row)
    squeezed = PLAIN.replace("m['content']", "m['content'].split() | join(' ')")
    assert 'say "é" twice' in prompt_text(templated(squeezed), row)
    # Thoughts of earlier answers are left out by many templates.
    forgets = PLAIN.replace("m['content']", "m['content'] if m['role'] == 'user' else ''")
    assert "<think>" not in prompt_text(templated(forgets), row)


def test_one_of_several_templates_is_the_default_or_named(templated: Any) -> None:
    several = {"default": PLAIN, "rag": "documents:" + PLAIN}
    plain = prompt_text(templated(PLAIN), ROW)
    assert prompt_text(templated(several), ROW) == plain
    rag = ChatSettings(chat_template_args={"chat_template": "rag"})
    assert prompt_text(templated(several, rag), ROW) == "documents:" + plain
    with pytest.raises(SpringbackError, match=r"'rag', 'tool_use'.*chat_template=NAME"):
        prompt_text(templated({"rag": PLAIN, "tool_use": PLAIN}), ROW)
    with pytest.raises(SpringbackError, match="its only one"):
        templated(PLAIN, ChatSettings(chat_template_args={"chat_template": "{{ 7 * 7 }}"}))


def test_arguments_reach_the_template_in_every_way_to_give_them(templated: Any) -> None:
    off = ChatSettings(chat_template_args={"enable_thinking": False})
    tokenizer = templated(THINKS, off)
    assert prompt_text(tokenizer, ROW).endswith("<think></think>")
    assert not prompt_text(templated(THINKS), ROW).endswith("<think></think>")
    on = with_chat(tokenizer, ChatSettings(chat_template_args={"enable_thinking": True}))
    assert not prompt_text(on, ROW).endswith("</think>"), "the later one wins"
    assert prompt_text(tokenizer, ROW).endswith("</think>"), "and the first is as it was"
    for name in ("tokenize", "add_generation_prompt", "messages", "conversation"):
        with pytest.raises(SpringbackError, match=name):
            with_chat(tokenizer, ChatSettings(chat_template_args={name: 1}))


@pytest.mark.parametrize(
    ("items", "arguments"),
    [
        (['{"enable_thinking": false}'], {"enable_thinking": False}),
        (["enable_thinking=false"], {"enable_thinking": False}),
        (["enable_thinking=False", "a=x=y"], {"enable_thinking": False, "a": "x=y"}),
        (["effort=low", "budget=12", 'tools=[{"a": 1}]'],
         {"effort": "low", "budget": 12, "tools": [{"a": 1}]}),
    ],
)  # fmt: skip
def test_arguments_are_json_or_names_with_values(items: list[str], arguments: Any) -> None:
    assert parse_arguments(items) == arguments


@pytest.mark.parametrize("item", ["enable_thinking", '{"a":', "=1", "[1]", "{}{}", "[" * 100_000])
def test_other_arguments_are_refused(item: str) -> None:
    with pytest.raises(SpringbackError, match="--chat-template-args"):
        parse_arguments([item])


@pytest.mark.parametrize("settings", [AuditSettings, BoostSettings])
def test_template_arguments_are_recorded_only_where_they_are_given(settings: Any) -> None:
    names = {"chat_template_args", "system_in_user"}
    assert not names & set(to_jsonable(settings()))
    assert settings().chat_inputs() == {}
    given = settings(chat_template_args={"enable_thinking": False}, system_in_user=True)
    assert names <= set(to_jsonable(given))
    assert set(given.chat_inputs()) == names


@pytest.fixture(scope="module")
def thinking(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The talking model, with a template that refuses a system message and has a switch."""
    folder = talking(tmp_path_factory.mktemp("thinking"), tiny_tokenizer)
    tokenizer = load_tokenizer(Checkpoint(str(folder)))
    tokenizer.chat_template = REFUSES + THINKS.removeprefix(PLAIN)
    tokenizer.save_pretrained(folder)
    return folder


def test_generate_takes_arguments_and_folds(thinking: Path) -> None:
    loaded = load(thinking)
    assert springback.generate(loaded, ["a"], max_new_tokens=4) == ["7"]
    with pytest.raises(DataError, match="No system role here"):
        springback.generate(loaded, ["a"], system="x")
    assert springback.generate(loaded, ["a"], GenerateSettings(4, system="x", system_in_user=True))
    off = {"enable_thinking": False}  # the prompt does not end with the line break that "7" follows
    assert springback.generate(loaded, ["a"], chat_template_args=off, max_new_tokens=4) != ["7"]


def test_requests_give_arguments_of_their_own(thinking: Path) -> None:
    loaded = load(thinking)
    messages = [{"role": "user", "content": "a"}]

    def prompt(**more: Any) -> list[int]:
        asked = ChatRequest.model_validate({"messages": messages, **more})
        return asked.prompts(asked.prepared(loaded))[0]

    off = prompt(chat_template_kwargs={"enable_thinking": False})
    assert len(off) > len(prompt())
    assert prompt(chat_template_kwargs=None) == prompt(chat_template_kwargs={}) == prompt()
    for kwargs in ({"chat_template": "{{ 7 * 7 }}"}, {"tokenize": True}):
        with pytest.raises(Refused) as caught:
            prompt(chat_template_kwargs=kwargs)
        assert caught.value.status == 400


def test_a_boosted_folder_is_asked_as_it_was_measured(thinking: Path, tmp_path: Path) -> None:
    early, model, out = tmp_path / "early", resolve(str(thinking)), tmp_path / "model"
    shutil.copytree(thinking, early)
    weights = load_file(early / "model.safetensors")
    save_file({name: t * 0.5 for name, t in weights.items()}, early / "model.safetensors")
    chat = ChatSettings(chat_template_args={"enable_thinking": False}, system_in_user=True)
    write = partial(
        write_boosted, (resolve(str(early)), model), Strengths(0.0, 0.5, 0.1), out, "be kind"
    )
    write(None, chat)
    assert prompt_text(load(out).tokenizer, ROW, "be kind").endswith("<think></think>")
    write()  # without arguments it is another folder
    assert "chat_template_args" not in json.loads((out / "springback.json").read_text())


@pytest.mark.parametrize("how", ['{"enable_thinking": false}', "enable_thinking=false"])
def test_show_prompt_has_the_arguments(
    thinking: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from springback.cli import main

    words = ["--early", str(thinking), "--ft", str(thinking), "--validation", "problems"]
    words += ["--test", "problems", "--chat-template-args", how, "--show-prompt"]
    monkeypatch.setattr(sys, "argv", ["springback", "boost", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "<think></think>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>12 or 13?</think>14", "14"),
        ("12 or 13?</think>14", "14"),  # the prompt began them
        ("<think>12, I think", ""),
        ("<think>12</think>", ""),
        ("14 <think>or 12</think>", "14 "),
        ("<think>a</think>14<think>12", "14"),
        ("<thinking>\n12\n</thinking>\n\n14", "\n\n14"),
        ("[THINK]12[/THINK]14", "14"),
        ("◁think▷12◁/think▷14", "14"),
        ("<seed:think>12</seed:think>14", "14"),
        ("<|begin_of_thought|>12<|end_of_thought|>14", "14"),
        ("<reasoning>12</reasoning><answer>14</answer>", "<answer>14</answer>"),
        ("I think 12 < 14", "I think 12 < 14"),
        ("[Thinking] 12 [Answer] 14", "[Thinking] 12 [Answer] 14"),
    ],
)
def test_thoughts_are_no_answer(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer


@pytest.mark.parametrize(
    ("metric", "right"),
    [("number", "14"), ("choice", "B"), ("choices", "AC"), ("exact", "New York")],
)
def test_every_metric_grades_what_follows_the_thoughts(metric: str, right: str) -> None:
    assert metric in METRICS
    for begins, ends in (("<think>", "</think>"), ("", "</think>"), ("[THINK]", "[/THINK]")):
        assert outcome(metric, f"{begins}So, hm.{ends}\n{right}", right) == "right"
        assert outcome(metric, f"{begins}{right}{ends}", right) == "unread"
    assert outcome(metric, f"<think>{right}", right) == "unread"
    how = question_format(BoostSettings(metric=metric, extract="([A-Z][A-Za-z ]*|[0-9]+)$"))
    row = Row("qa", "q", "", answer=right)
    texts = [f"<think>{right}</think>{right}", f"<think>{right}"]
    assert how.outcomes([row, row], texts) == ["right", "unread"]


def test_thoughts_that_the_template_begins_are_seen(templated: Any) -> None:
    assert in_thoughts(prompt_text(templated(OPENS), ROW))
    assert not in_thoughts(prompt_text(templated(PLAIN), ROW))
    assert not in_thoughts("<think></think>")
    assert not in_thoughts("<think> is a tag")


def byte_fallback() -> Any:
    tokens = ["<s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "▁b", "ab", "é", "你"]
    core = Fast(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=core, eos_token="<s>", clean_up_tokenization_spaces=True)


YOU = [f"<0x{byte:02X}>" for byte in "你".encode()]


@pytest.mark.parametrize(
    "tokens",
    [
        ["▁", *YOU, "a", *YOU[:2]],
        [*YOU, "<0x80>", "a"],  # a byte too many spoils the character before it
        [*YOU, "<s>", "<0x80>", "▁b"],
        ["▁", "▁", "a", "▁b", "▁"],
        ["a", *YOU, *YOU, "<0xC3>"],
    ],
)
@pytest.mark.parametrize("stop", [(), ("b",), ("你", "ab"), ("a b",)])
def test_a_stream_is_the_whole_answer(tokens: list[str], stop: tuple[str, ...]) -> None:
    tokenizer = byte_fallback()
    ids = tokenizer.convert_tokens_to_ids(tokens)
    decode = partial(answer_text, tokenizer)
    upto = (i for i in range(len(ids)) if any(s in decode(ids[: i + 1]) for s in stop))
    ids = ids[: next(upto, len(ids)) + 1]
    whole = _Answers(tokenizer, stop, None).finish(0, ids)
    came: list[str] = []
    answers = _Answers(tokenizer, stop, lambda row, piece: came.append(piece))
    pieces = Pieces(decode, stop, partial(may_change, tokenizer))
    served = []
    for token in ids:
        answers.take(0, token)
        served.append(pieces.add(token))
    answers.finish(0, ids)
    assert "".join(came) == whole
    assert "".join([*served, pieces.finish()]) == whole
