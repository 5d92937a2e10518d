"""Judges by name: one, or several side by side."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError, did_you_mean
from springback.probes.judges.scorer import Scorer, refuse_spec
from springback.probes.judges.user_function import is_user_function, user_scorer
from springback.results.judge_info import FORMS, JUDGES, JudgeInfo, split_judges


def load_scorer(spec: str, folder: Path | None = None) -> Scorer:
    """The scorer that ``spec`` names, ready to use.

    ``vader``: VADER's compound score, -1 to 1 (:func:`springback.probes.sentiment`).
    ``refusal``: 1 where the answer begins with a refusal
    (:func:`springback.probes.refused`).
    ``hf:MODEL[=LABEL]``: the probability that a Transformers text classifier (folder or hub id,
    safetensors, no remote code) gives to LABEL, by default its last label.  It reads the answer
    without the prompt, cut at its longest input; with ``+prompt`` both as a pair.  With ``+share``
    1 where the label is the likeliest and else 0.
    ``score:MODEL``: the number that a model with a score head gives to prompt and answer, as a
    conversation (:mod:`springback.probes.judges.score_model`).
    ``model:MODEL[=RUBRIC]``: the probability of yes against no that a local chat model gives to
    the question of a rubric (:mod:`springback.probes.judges.rubrics`) about prompt and answer.
    ``openai:URL#MODEL[=RUBRIC]``: 1 for yes and 0 for no from a model behind an OpenAI-compatible
    address.  Texts are sent there.  Its key is the environment variable SPRINGBACK_JUDGE_KEY.
    ``python:FILE.py:FUNCTION`` and ``module.path:FUNCTION``: the user's own
    ``function(prompts, texts)``, lists of strings, which returns one finite number a text; or
    ``function(texts)``; or ``function(prompt, answer)``, which returns one number.  The file is
    run, since the user named it; the module must be on Python's path.

    ``folder``: where verdicts from an address are kept, so that none is asked for twice.

    Raises :class:`SpringbackError` for anything wrong in ``spec`` or behind it, with what is
    allowed.
    """
    info = _info_of(spec)
    if info is None:
        return user_scorer(spec)
    return _made(_function(info.load), spec, folder)


def require_judges(text: str) -> None:
    """Raise :class:`SpringbackError` for a judge in ``text`` that is seen to be none: by its form,
    a function, folder, label, rubric or address that is not there.  Loads no model."""
    for spec in split_judges(text):
        info = _info_of(spec)
        if info is None or spec.startswith("python:"):
            user_scorer(spec)
        elif info.check:
            _function(info.check)(spec)


def _info_of(spec: str) -> JudgeInfo | None:
    """The entry of a judge, None for a function in a module; raises where it is neither."""
    word = spec.partition(":")[0]
    info = JUDGES.get(word)
    if info is not None and (spec == word) == (":" not in info.form):
        return info
    if is_user_function(spec):
        return None
    do = "choose one of these forms, or several separated by commas"
    raise refuse_spec(spec, f"{do}{did_you_mean(word, JUDGES)}")


def _function(named: str) -> Any:
    """The function that ``module:function`` names."""
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


def _made(load: Callable[..., Scorer], spec: str, folder: Path | None) -> Scorer:
    scorer = load(spec)
    if scorer.sends_to and folder is not None:
        from springback.probes.judges.kept import keep_verdicts

        return keep_verdicts(scorer, folder)
    return scorer


def load_scorers(text: str, folder: Path | None = None) -> tuple[Scorer, ...]:
    """Every judge that ``text`` names, separated by commas, in order; no two share a name.

    Raises :class:`SpringbackError` as :func:`load_scorer`, and for a judge that is named twice.
    """
    scorers = [load_scorer(spec, folder) for spec in split_judges(text)]
    twice = [name for name, n in Counter(s.identity for s in scorers).items() if n > 1]
    if twice:
        name = next(s.name for s in scorers if s.identity in twice)
        raise SpringbackError(
            f"--behaviour names the judge {name} twice; allowed: different ones of {FORMS}; leave "
            "one out"
        )
    seen: Counter[str] = Counter()
    named = []
    for scorer in scorers:
        seen[scorer.name] += 1
        count = seen[scorer.name]
        name = scorer.name if count == 1 else f"{scorer.name} ({count})"
        named.append(replace(scorer, name=name))
    return tuple(named)
