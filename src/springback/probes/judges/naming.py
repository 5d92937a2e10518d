"""What the name of a judge that is a model says, and what is seen to be wrong with it at once.

Loads no torch.  Of a folder that is here its config and the headers of its weights are read; hub
ids are believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from springback.errors import ModelError, SpringbackError
from springback.models.builtin import BUILTIN
from springback.models.names import require_model
from springback.probes.judges.rubrics import split_rubric
from springback.probes.judges.scorer import refuse_spec
from springback.weights.io.folder import Weights, open_weights, readable_json

#: What may stand behind the spec of a classifier: the prompt is read too; a share instead of a
#: probability.
OPTIONS = ("prompt", "share")
#: Where a model with a score head may have it.
HEADS = ("score_head", "score")
#: What the architectures of models end with that have a head for tokens and none for labels.
_NO_CLASSIFIER = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration")


def classifier_parts(spec: str) -> tuple[str, str, tuple[str, ...]]:
    """Model, label (empty: the last one) and options of ``hf:MODEL[=LABEL][+prompt][+share]``."""
    given, options = _options(spec.removeprefix("hf:"))
    name, label = given, ""
    if not Path(given).is_dir():  # a folder may have an equals sign in its name
        name, mark, label = given.rpartition("=")
        name, label = (name, label) if mark else (given, "")
    if not name or (given.endswith("=") and name != given):
        raise refuse_spec(spec, "name the model, and behind an equals sign the label")
    return name, label, options


def _options(given: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the options, and the options in their own order."""
    chosen: set[str] = set()
    while not Path(given).is_dir():
        name, mark, option = given.rpartition("+")
        if not mark or option not in OPTIONS:
            break
        given = name
        chosen.add(option)
    return given, tuple(option for option in OPTIONS if option in chosen)


def score_model_name(spec: str) -> str:
    """Model of ``score:MODEL``."""
    name = spec.removeprefix("score:")
    if not name:
        raise refuse_spec(spec, "name the model")
    return name


def judge_model(spec: str) -> str | None:
    """The model that the judge ``spec`` loads; None where it loads none."""
    word, _, given = spec.partition(":")
    if word == "hf":
        return classifier_parts(spec)[0]
    if word == "score":
        return score_model_name(spec)
    return split_rubric(given, spec)[0] if word == "model" else None


def check_classifier(spec: str) -> None:
    """Raise :class:`SpringbackError` where ``spec`` cannot be the judge ``hf``."""
    name, label, _ = classifier_parts(spec)
    require_model(name)
    allowed = "allowed: a model saved with its classification head; name another"
    if name in BUILTIN:
        raise ModelError(f"{name} is no text classifier, it writes text; {allowed}")
    if not Path(name).is_dir():
        return
    config = _config(name)
    architectures = [str(one) for one in config.get("architectures") or ()]
    if architectures and all(one.endswith(_NO_CLASSIFIER) for one in architectures):
        raise ModelError(
            f"{name} is no text classifier: its config.json says {architectures[0]}; {allowed}"
        )
    refuse_regression(name, config.get("problem_type"))
    if label:
        require_label(spec, name, label, _labels(config))
    open_weights(name)


def refuse_regression(path: str, problem_type: object) -> None:
    """Raise :class:`ModelError` for a model whose output is a score."""
    if problem_type == "regression":
        raise ModelError(
            f"{path} gives a score, not the probability of a label; allowed: a "
            "classifier; score:MODEL reads prompt and answer, or call it from a function of yours "
            "(python:FILE.py:FUNCTION)"
        )


def require_label(spec: str, name: str, wanted: str, labels: Mapping[int, str]) -> None:
    """Raise :class:`SpringbackError` unless ``wanted`` is among the model's labels."""
    if wanted not in labels.values():
        allowed = ", ".join(labels[i] for i in sorted(labels))
        raise SpringbackError(
            f"scorer {spec!r}: {name} has no label {wanted!r}; allowed: {allowed}; choose one"
        )


def _labels(config: Mapping[str, Any]) -> dict[int, str]:
    """Labels by number, as Transformers reads them."""
    named = config.get("id2label")
    try:
        if named:
            return {int(i): str(text) for i, text in named.items()}
        return {i: f"LABEL_{i}" for i in range(int(config.get("num_labels", 2)))}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            "the labels (id2label) in config.json are no numbers with texts; allowed: a model as "
            "save_pretrained writes it; copy it again"
        ) from error


def check_score_model(spec: str) -> None:
    """Raise :class:`SpringbackError` where ``spec`` cannot be the judge ``score``."""
    name = score_model_name(spec)
    require_model(name)
    if name in BUILTIN:
        raise no_score_head(name)
    if Path(name).is_dir():
        _config(name)
        score_head(name, open_weights(name))


def score_head(folder: str, weights: Weights) -> str:
    """The name of the linear layer that gives one number; raises :class:`ModelError` for none."""
    stored = weights.tensors
    name = next((head for head in HEADS if f"{head}.weight" in stored), None)
    if name is None or stored[f"{name}.weight"][1].shape[0] != 1:
        raise no_score_head(folder)
    return name


def no_score_head(folder: str) -> ModelError:
    return ModelError(
        f"{folder} has no score head with one output; allowed: a model with "
        "score_head.weight or score.weight of one row; name another, or a classifier by hf:"
    )


def check_chat_model(spec: str) -> None:
    """Raise :class:`SpringbackError` where ``spec`` cannot be the judge ``model``."""
    name, _ = split_rubric(spec.removeprefix("model:"), spec)
    require_model(name)
    if Path(name).is_dir():
        _config(name)
        open_weights(name)


def _config(folder: str) -> dict[str, Any]:
    config = readable_json(Path(folder) / "config.json")
    if not isinstance(config, dict):
        raise ModelError(
            f"{Path(folder) / 'config.json'} holds no object; allowed: a model as save_pretrained "
            "writes it; copy it again"
        )
    return config
