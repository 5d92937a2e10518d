"""Passwords and tokens left out of what is kept: results are made to be passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"

#: ``scheme://user:password@``; a password may hold "/" and "@", a port in its place is none.
_PASSWORD = re.compile(r"(://[^\s/:@\"']*):(?!\d+(?:[/,\s\"']|$))[^\s\"']+@")
#: ``https://token@``.
_ONLY_USER = re.compile(r"(https?://)[^\s/:@\"']+@")
#: ``?name=value&name=value`` of an address.
_QUERY = re.compile(r"(?<=[?&])([\w.%-]+)(=)([^\s&#\"']+)")
#: What services give out as tokens: Hugging Face, OpenAI, GitHub, GitLab, Slack, AWS, JWT.
_TOKEN = re.compile(
    r"\b(?:(?:hf|gh[pousr])_[A-Za-z0-9]{30,}|(?:sk-|github_pat_|glpat-|xox[a-z]-)[\w-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
#: ``name=value``, ``"name": "value"`` and ``--name value`` within one argument.
_PAIR = re.compile(
    r"(?<![\w.-])([\w.-]++)([\"']?\s*[=:]\s*[\"']?)((?:Bearer |Basic )?[^\s\"'&,;]+)"
)
_FLAG = re.compile(r"((?<!\S)--?[\w-]+)(\s+)([^\s-]\S*)")

_SECRET = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|credentials?|signature|bearer|authorization"
    r"|(?:api|access|account|private|secret|signing|encryption|shared|auth)key(?:id)?|^sig"
    r"|(?<!bos)(?<!eos)(?<!pad)(?<!unk)(?<!cls)(?<!sep)(?<!mask)(?<!end)(?<!start)(?<!stop)token)$"
)


def _names_a_secret(name: str) -> bool:
    return _SECRET.search(re.sub(r"[^a-z0-9]", "", name.lower())) is not None


def _hide(match: re.Match[str]) -> str:
    name, between, _ = match.groups()
    return f"{name}{between}{HIDDEN}" if _names_a_secret(name) else match.group()


def redacted(text: str) -> str:
    """``text`` with passwords in addresses, and what looks like a service's token, hidden."""
    if "@" in text:
        text = _PASSWORD.sub(rf"\1:{HIDDEN}@", text)
        text = _ONLY_USER.sub(rf"\1{HIDDEN}@", text)
    return _TOKEN.sub(HIDDEN, _QUERY.sub(_hide, text))


def redacted_command(command: Sequence[str]) -> list[str]:
    """Arguments as typed, but also without the values of flags and names that mean a secret."""
    kept: list[str] = []
    for argument in command:
        before = kept[-1] if kept else ""
        if before.startswith("-") and _names_a_secret(before) and not argument.startswith("-"):
            kept.append(HIDDEN)
        else:
            kept.append(_FLAG.sub(_hide, _PAIR.sub(_hide, redacted(argument))))
    return kept


def without_secrets(value: Any) -> Any:
    """A value of plain JSON types with every text in it redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, list) else value
