"""Passwords and tokens given as arguments are kept nowhere: results, reports, trackers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from processor_time import seconds_of
from springback.errors import SpringbackError
from springback.integrations.trackers import check_targets, record_of
from springback.report import text as report_text
from springback.results.provenance import now, provenance
from springback.results.redaction import redacted, redacted_command, without_secrets

HF = "hf_" + "aB3" * 12
SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["--track", f"mlflow:postgresql://me:{SECRET}@host:5432/db"], "postgresql://me:***@host"),
        (
            ["--track", f"mlflow:postgresql://me:a@b/{SECRET}@host/db"],
            "postgresql://me:***@host/db",
        ),
        (["--shared", f"s3://:{SECRET}@bucket/x"], "s3://:***@bucket/x"),
        (["--track", f"mlflow:https://{SECRET}@host/x"], "https://***@host/x"),
        (["--shared", f"az://c/x?sig={SECRET}&sv=1"], "az://c/x?sig=***&sv=1"),
        (["--shared", f"gs://b/x?X-Amz-Signature={SECRET}"], "X-Amz-Signature=***"),
        (["--token", SECRET], "--token ***"),
        (["serve", f"--token={SECRET}"], "--token=***"),
        (["--api-key", SECRET, "--out", "x"], "--api-key *** --out x"),
        (["--model_args", f"pretrained=x,auth_token={SECRET},lam=1"], "x,auth_token=***,lam=1"),
        (["--vllm", f"--api-key {SECRET} --dtype half"], "--api-key *** --dtype half"),
        (["--vllm", f'{{"api_key": "{SECRET}", "a": 1}}'], '"api_key": "***", "a": 1'),
        (["--header", f"Authorization: Bearer {SECRET}"], "Authorization: ***"),
        (["--model", HF], "--model ***"),
    ],
)
def test_a_secret_argument_is_hidden_and_the_rest_stays(command: list[str], kept: str) -> None:
    times = {"started": now(), "finished": now()}
    recorded = " ".join(provenance(["springback", *command], **times)["command"])
    assert kept in recorded
    assert SECRET not in recorded
    assert HF not in recorded


@pytest.mark.parametrize(
    "argument",
    [
        "--max-new-tokens=5",
        "eos_token=</s>,add_bos_token=True,think_end_token=x",
        "http://localhost:8080/user@x",
        "hf://datasets/me/rows@main/a.jsonl",
        "s3://bucket/a:b/c",
        "Q: {question}\nA:",
        "ssh://git@host/x",
        "/models/hf_transformers-and-more",
    ],
)
def test_what_is_no_secret_stays(argument: str) -> None:
    assert redacted_command(["--max-new-tokens", "5", argument]) == [
        "--max-new-tokens",
        "5",
        argument,
    ]


def test_an_address_of_this_process_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/springback", "audit", "--token", SECRET])
    recorded = provenance(started=now(), finished=now())["command"]
    assert recorded == ["springback", "audit", "--token", "***"]


def test_inputs_are_hidden_however_deep() -> None:
    given = {"a": [{"b": f"http://me:{SECRET}@host/x"}, 3, None], "c": HF}
    assert without_secrets(given) == {"a": [{"b": "http://me:***@host/x"}, 3, None], "c": "***"}


def test_reports_and_trackers_of_older_results_hide_them(tmp_path: Path) -> None:
    inputs = {"train": f"https://me:{SECRET}@host/rows.jsonl"}
    parts = {"inputs": inputs, "verdict": {"text": "none"}, "measurements": [], "analysis": {}}
    text = json.dumps({"schema_version": 1, "kind": "audit", "provenance": {}, **parts})
    (tmp_path / "result.json").write_text(text)
    assert record_of(tmp_path).params == {"train": "https://me:***@host/rows.jsonl"}
    assert report_text.flat(inputs) == [("train", "https://me:***@host/rows.jsonl")]
    with pytest.raises(SpringbackError) as refusal:
        check_targets([f"mlfow:postgresql://me:{SECRET}@host/db"])
    assert SECRET not in str(refusal.value)


def test_a_text_without_secrets_is_untouched() -> None:
    text = "What is 2:3? See https://example.org/a?b=c and me@example.org."
    assert redacted(text) == text


@pytest.mark.parametrize("unit", ["a", ".", "-", "--a", "a=", "://", "@", "a@", "?a", "hf_", " "])
def test_long_arguments_are_read_in_linear_time(unit: str) -> None:
    """A prompt may be an argument; twenty times the text takes 400 times as long otherwise."""

    def seconds(signs: int) -> float:
        argument = unit * (signs // len(unit))
        return seconds_of(lambda: redacted_command([argument]))

    assert seconds(40_000) < 60 * seconds(2_000) + 0.05
