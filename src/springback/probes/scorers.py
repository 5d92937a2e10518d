"""Scorers of sampled texts: VADER, refusals, a text classifier, or the user's own function."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from springback.core import Checkpoint, content_hash
from springback.errors import ModelError, SpringbackError, describe
from springback.models.loading import Model, Tokenizer, load_tokenizer, resolve
from springback.models.placement import accelerator
from springback.models.quiet import one_line, quiet
from springback.probes.behaviour import REFUSAL_PHRASES, REFUSAL_WORDS, refused, sentiment

SCORERS = "vader, refusal, hf:MODEL[=LABEL], python:FILE.py:FUNCTION, module.path:FUNCTION"
#: Texts that a classifier reads at a time.
CLASSIFIER_BATCH = 32

Function = Callable[[list[str], list[str]], Iterable[Any]]
USER_FUNCTION_FORMS = "python:FILE.py:FUNCTION or module.path:FUNCTION"
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Scorer:
    """A number for each sampled text, with its unit and what a higher one means.

    ``identity`` tells scorers apart that give other numbers under one name, and belongs into a
    run's inputs: it holds a hash of the classifier's weights or of the function's file (but not
    of what that file imports).
    """

    name: str
    unit: str
    direction: str
    identity: str
    function: Function

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """One number for each text, in order; ``texts`` are the continuations of ``prompts``.

        Raises :class:`SpringbackError` unless the function gives one finite number a text.
        """
        if len(prompts) != len(texts):
            raise SpringbackError(
                f"{len(prompts)} prompts and {len(texts)} texts; give one prompt for each text"
            )
        return self._numbers(self.function(list(prompts), list(texts)), len(texts))

    def _numbers(self, given: object, count: int) -> list[float]:
        allowed = f"a list of {count} finite numbers, one for each text"
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise self._fault(f"a {type(given).__name__}", allowed)
        numbers: list[float] = []
        for i, value in enumerate(given):
            try:
                number = math.nan if isinstance(value, (str, bytes)) else float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number):
                raise self._fault(f"{str(value)[:60]!r} for text {i}", allowed)
            numbers.append(number)
        if len(numbers) != count:
            raise self._fault(f"{len(numbers)} numbers", allowed)
        return numbers

    def _fault(self, given: str, allowed: str) -> SpringbackError:
        return SpringbackError(
            f"the scorer {self.name} returned "
            + describe(given, allowed, "mend it").removeprefix("given: ")
        )


def load_scorer(spec: str) -> Scorer:
    """The scorer that ``spec`` names, ready to use.

    ``vader``: VADER's compound score, -1 to 1 (:func:`springback.probes.sentiment`).
    ``refusal``: 1 where the answer begins with a refusal
    (:func:`springback.probes.refused`).
    ``hf:MODEL[=LABEL]``: the probability that a Transformers text classifier (folder or hub id,
    safetensors, no remote code) gives to LABEL, by default its last label.  It reads the answer
    without the prompt, cut at its longest input.
    ``python:FILE.py:FUNCTION`` and ``module.path:FUNCTION``: the user's own
    ``function(prompts, texts)``, lists of strings, which returns one finite number a text.  The
    file is run, since the user named it; the module must be on Python's path.

    Raises :class:`SpringbackError` for anything wrong in ``spec`` or behind it, with what is
    allowed.
    """
    if spec == "vader":
        sentiment([])  # raises now if the package is missing
        return Scorer(
            "vader",
            "VADER compound",
            "higher = more positive",
            "vader",
            lambda _, texts: sentiment(texts),
        )
    if spec == "refusal":
        return Scorer(
            "refusal",
            "share refused",
            "higher = refuses more",
            f"refusal {content_hash([REFUSAL_PHRASES, REFUSAL_WORDS])}",
            lambda _, texts: refused(texts),
        )
    if spec.startswith("hf:"):
        return _classifier(spec)
    if is_user_function(spec):
        return _by_function(load_user_function(spec, "scorer", SCORERS))
    raise _bad("scorer", spec, SCORERS, "choose one of these forms")


def _bad(what: str, spec: str, allowed: str, do: str) -> SpringbackError:
    return SpringbackError(f"{what} {describe(repr(spec), allowed, do)}")


def _classifier(spec: str) -> Scorer:
    given = spec.removeprefix("hf:")
    name, label = given, ""
    if not Path(given).is_dir():  # a folder may have an equals sign in its name
        name, mark, label = given.rpartition("=")
        name, label = (name, label) if mark else (given, "")
    if not name or given.endswith("="):
        raise _bad("scorer", spec, SCORERS, "name the model, and behind an equals sign the label")
    checkpoint = resolve(name)
    tokenizer = load_tokenizer(checkpoint)
    model = _load_classifier(checkpoint)
    labels = {int(i): str(text) for i, text in (model.config.id2label or {}).items()}
    wanted = label or labels[max(labels)]
    if wanted not in labels.values():
        allowed = ", ".join(labels[i] for i in sorted(labels))
        raise SpringbackError(
            f"scorer {spec!r}: {name} has no label {wanted!r}; allowed: {allowed}; choose one"
        )
    index = next(i for i, text in labels.items() if text == wanted)
    return Scorer(
        f"{Path(name).name}={wanted}",
        "probability",
        f"higher = more surely {wanted}",
        f"hf {checkpoint.content_hash} {wanted}",
        lambda _, texts: _probabilities(model, tokenizer, texts)[:, index].tolist(),
    )


def _load_classifier(checkpoint: Checkpoint) -> Model:
    """A sequence classifier in evaluation mode, fp32; refuses one whose head is not in the file."""
    try:
        with quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(
            f"cannot load {checkpoint.path} as a text classifier: {one_line(error)}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        # Transformers fills what is missing with random numbers, which would score at random.
        raise ModelError(
            f"{checkpoint.path} is no text classifier: its file lacks {missing[0]}; "
            "allowed: a model saved with its classification head; name another"
        )
    if model.config.problem_type == "regression":
        raise ModelError(
            f"{checkpoint.path} gives a score, not the probability of a label; allowed: a "
            "classifier; call it from a function of yours (python:FILE.py:FUNCTION)"
        )
    loaded: Model = model.to(accelerator()).eval()
    return loaded


@torch.inference_mode()
def _probabilities(model: Model, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Probability of every label for every text (texts, labels), float64 on the CPU.

    One output, or labels that do not exclude each other: sigmoid; else softmax.
    """
    if model.config.pad_token_id is None:  # needed to find each text's last token
        model.config.pad_token_id = tokenizer.pad_token_id
    independent = (
        model.config.problem_type == "multi_label_classification" or model.config.num_labels == 1
    )
    limit = _longest_input(model, tokenizer)
    batches = [torch.zeros(0, len(model.config.id2label or {}), dtype=torch.float64)]
    for first in range(0, len(texts), CLASSIFIER_BATCH):
        # An empty text would have no token at all.
        part = [text or " " for text in texts[first : first + CLASSIFIER_BATCH]]
        batch = tokenizer(
            part, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        logits = model(**batch).logits.cpu().double()  # (texts, labels)
        batches.append(logits.sigmoid() if independent else logits.softmax(-1))
    return torch.cat(batches)


def _longest_input(model: Model, tokenizer: Tokenizer) -> int:
    """Tokens that a classifier can read: what its tokenizer says, at most its number of places."""
    places = int(getattr(model.config, "max_position_embeddings", sys.maxsize))
    for module in model.modules():
        # RoBERTa counts places from behind the padding token's id, so fewer can be used.
        if isinstance(module, nn.Embedding) and module.num_embeddings == places:
            places -= 0 if module.padding_idx is None else module.padding_idx + 1
            break
    # A tokenizer without a limit gives 1e30, which is too large for the tokenizers library.
    return min(places, int(tokenizer.model_max_length), 1_000_000)


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's, called through :meth:`call` so that its errors end in one line.

    ``takes`` names its arguments for the message; ``digest`` is the hash of its file.
    """

    what: str
    name: str
    digest: str
    function: Callable[..., Any]

    @property
    def identity(self) -> str:
        """The function in the inputs of a run."""
        return f"own {self.digest} {self.name}"

    def call(self, takes: str, *arguments: Sequence[Any]) -> Any:
        try:
            returned = self.function(*(list(a) for a in arguments))
            if isinstance(returned, Iterator):  # a generator: run it where its errors are caught
                returned = list(returned)
        except Exception as error:
            raise SpringbackError(
                f"the {self.what} {self.name} failed with {type(error).__name__}: "
                f"{one_line(error)}; allowed: {self.name}({takes}), which returns one number a "
                "text; mend it"
            ) from error
        return returned


def is_user_function(spec: str) -> bool:
    """Whether ``spec`` has one of the forms that :func:`load_user_function` takes."""
    return spec.startswith("python:") or _MODULE.fullmatch(spec) is not None


def load_user_function(spec: str, what: str, allowed: str = USER_FUNCTION_FORMS) -> UserFunction:
    """The user's function that ``python:FILE.py:FUNCTION`` or ``module.path:FUNCTION`` names.

    The file is run, since the user named it.  ``what`` it is for, and the forms ``allowed``, are
    named in errors.  Raises :class:`SpringbackError`.
    """
    if spec.startswith("python:"):
        return _from_file(spec, what, allowed)
    match = _MODULE.fullmatch(spec)
    if match is None:
        raise _bad(what, spec, allowed, "choose one of these forms")
    return _from_module(spec, match[1], match[2], what, allowed)


def _from_file(spec: str, what: str, allowed: str) -> UserFunction:
    file, mark, name = spec.removeprefix("python:").rpartition(":")
    path = Path(file)
    if not mark or not name.isidentifier() or path.suffix != ".py":
        do = "name a file ending in .py and, behind a colon, a function in it"
        raise _bad(what, spec, allowed, do)
    try:
        source = path.expanduser().read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise SpringbackError(
            f"{what} {spec!r}: cannot read {path} ({getattr(error, 'strerror', error)}); "
            "allowed: a Python file; check the path"
        ) from error
    digest = hashlib.sha256(source).hexdigest()
    module = types.ModuleType(f"springback_{what}_{digest[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickling look a class's module up
    try:
        # Not through an import: that would leave compiled files beside the user's.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise SpringbackError(
            f"{what} {spec!r}: running {path} failed with {type(error).__name__}: "
            f"{one_line(error)}; mend the file"
        ) from error
    return _function(spec, module, name, digest, what)


def _from_module(spec: str, module_name: str, name: str, what: str, allowed: str) -> UserFunction:
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _bad(
            what,
            spec,
            allowed,
            f"importing {module_name} failed with {type(error).__name__}: {one_line(error)}; "
            "check the name and Python's path",
        ) from error
    file = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else module_name
    return _function(spec, module, name, digest, what)


def _function(
    spec: str, module: types.ModuleType, name: str, digest: str, what: str
) -> UserFunction:
    function = getattr(module, name, None)
    if not callable(function):
        have = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise SpringbackError(
            f"{what} {spec!r}: there is no function {name!r}; allowed: "
            f"{', '.join(have[:12]) or 'none, the file defines no function'}; name one"
        )
    return UserFunction(what, name, digest, function)


def _by_function(user: UserFunction) -> Scorer:
    return Scorer(
        user.name,
        "score",
        f"higher = more of what {user.name} counts",
        user.identity,
        lambda prompts, texts: user.call("prompts, texts", prompts, texts),
    )
