"""What a setting is, and the groups of settings that more than one package reads.

A job's settings are a frozen dataclass that inherits its groups: they are defined together and
given flat.  Light: standard library only, since the command line's help reads it.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from springback.errors import SpringbackError, describe, did_you_mean

#: What a setting changes: ``model``, the weights that are studied; ``seed``, which repetition of
#: the study it is; ``inputs``, what is read beside the model (rows, how their answers are graded,
#: further models); ``training``, how weights come about; ``method``, which runs, candidates and
#: methods there are; ``prompt``, how a question is put; ``decoding``, how it is answered;
#: ``measurement``, what is measured of the same weights or answers; ``verdict``, the threshold of
#: a label; ``nothing``, no number of the result (but for those that it adds).
Changes = Literal[
    "model", "seed", "inputs", "training", "method", "prompt", "decoding", "measurement",
    "verdict", "nothing",
]  # fmt: skip


class Settings:
    """Base of every group of settings: ``class DataSettings(Settings, group=..., changes=...)``.

    ``group`` is the title of its flags in ``--help``; ``changes`` is what each of its settings
    changes, but for those that say otherwise (:func:`setting`).

    They are checked when they are made: a name that is no setting and a value of another kind
    raise :class:`SpringbackError`.  One value stands for a tuple of it, a list for a tuple.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}
    group: ClassVar[str] = "Settings"
    changes: ClassVar[Changes | None] = None

    def __init_subclass__(cls, group: str | None = None, changes: Changes | None = None) -> None:
        cls.group, cls.changes = group or cls.group, changes or cls.changes

    def __new__(cls, *_: Any, **given: Any) -> Self:
        known = getattr(cls, "__dataclass_fields__", {})
        if unknown := [name for name in given if name not in known]:
            near = did_you_mean(unknown[0], known)
            raise SpringbackError(
                f"{cls.__name__} has no {', '.join(map(repr, unknown))}{near}; allowed: "
                f"{', '.join(known)}"
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        written: Mapping[str, Any] = getattr(self, "__dataclass_fields__", {})
        settings: Any = type(self)
        for name, hint in hints_of(settings).items():
            given = getattr(self, name)
            if given is written[name].default:
                continue
            value = _as_meant(given, hint)
            if value is _WRONG:
                shown = repr(given)
                shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
                raise SpringbackError(f"{name} is {shown}; give {_in_words(hint)}")
            if value is not given:
                object.__setattr__(self, name, value)


#: What :func:`_as_meant` gives for a value of another kind.
_WRONG = object()
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "True or False",
    "ints": "whole numbers",
    "floats": "numbers",
    "strs": "texts",
    "map": "a mapping of texts",
    "json": "a mapping",
}


@functools.cache
def hints_of(settings: type) -> Mapping[str, Any]:
    """The annotation of every setting, in order."""
    hints = typing.get_type_hints(settings)
    return {name: hints[name] for name in getattr(settings, "__dataclass_fields__", {})}


def kind_of(annotation: Any) -> str:
    """One of ``int``, ``float``, ``str``, ``bool``, plurals for a tuple, ``map``, ``json``."""
    args = [a for a in typing.get_args(annotation) if a is not type(None) and a is not Ellipsis]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return f"{args[0].__name__}s"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return "map" if args[1] is str else "json"
    return str(args[0].__name__ if args else annotation.__name__)


def _in_words(hint: Any) -> str:
    """What an annotation allows."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [_in_words(one) for one in typing.get_args(hint) if one is not type(None)]
        none = ["None"] if type(None) in typing.get_args(hint) else []
        return " or ".join([*parts, *none])
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    kind = kind_of(hint)
    return f"one or a tuple of {_KINDS[kind]}" if kind.endswith("s") else _KINDS[kind]


def _as_meant(value: Any, hint: Any) -> Any:
    """``value`` as the annotation ``hint`` has it, :data:`_WRONG` where it is of another kind.

    Numbers stay as they are, so that run ids do.  What is neither a plain type nor made of some
    (a function, a model) is believed.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if not all(map(_is_plain, args)):
            return value
        made = (_as_meant(value, one) for one in args)
        return next((one for one in made if one is not _WRONG), _WRONG)
    if not _is_plain(hint):
        return value
    if hint is type(None):
        return value if value is None else _WRONG
    if origin is Literal:
        return value if value in args else _WRONG
    if origin is tuple:
        alone = isinstance(value, (str, os.PathLike)) or not hasattr(value, "__iter__")
        parts = tuple(_as_meant(one, args[0]) for one in ((value,) if alone else value))
        if _WRONG in parts:
            return _WRONG
        same = type(value) is tuple and all(map(operator.is_, parts, value))
        return value if same else parts
    if origin is not None:
        return value if isinstance(value, Mapping) else _WRONG
    if type(value).__module__ == "numpy" and callable(getattr(value, "item", None)):
        value = value.item() if getattr(value, "ndim", 0) == 0 else value
    if hint is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return value if isinstance(value, str) else _WRONG
    if hint is bool:
        return value if isinstance(value, bool) else _WRONG
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int and number and not isinstance(value, int):
        return int(value) if value.is_integer() else _WRONG
    return value if number else _WRONG


def _is_plain(hint: Any) -> bool:
    """Whether values of an annotation are checked."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return hint in (int, float, str, bool, type(None))
    if origin is tuple:
        return len(args) == 2 and args[1] is Ellipsis and _is_plain(args[0])
    return origin is Literal or (isinstance(origin, type) and issubclass(origin, Mapping))


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    changes: Changes | None = None,
    added: bool = False,
) -> Any:
    """A field with its help.

    ``flag`` and ``changes`` where they are not the field's name and what its group changes.
    ``added``: at its default it is not recorded (:func:`springback.core.added`).
    """
    metadata = {"help": help, "flag": flag, "changes": changes, "added": added}
    return field(default=default, metadata=metadata)


def columns_setting() -> Any:
    """The field for names of a data set's columns, ``--field OURS=COLUMN``."""
    text = "OURS=COLUMN, when the data's columns are not recognised."
    metadata = {"help": text, "flag": "field", "changes": None}
    return field(default_factory=dict, metadata=metadata)


def activations_setting() -> Any:
    """The field for training with activations that are computed twice; no number depends on it."""
    text = "Train with one layer's activations at a time and compute them twice: less memory, a "
    text += "third more time, the same weights."
    return setting(False, text, changes="nothing", added=True)


def lora_rank_setting(when: str = "", added: bool = False) -> Any:
    """The field for the rank of the adapter that is trained; ``when`` stands before its help."""
    return setting(0, f"{when}Train a LoRA adapter of this rank; 0: all weights.", added=added)


def lora_alpha_setting(added: bool = False) -> Any:
    """The field for the adapter's alpha."""
    return setting(16, "Its scaling is this over the rank.", added=added)


def arguments_setting(help: str) -> Any:
    """A field for names and values of any kind, recorded where there are some."""
    metadata = {"help": help, "flag": None, "changes": None, "added": True}
    return field(default_factory=dict, metadata=metadata)


def parse_arguments(items: Sequence[str]) -> dict[str, Any]:
    """Names and values out of JSON objects and ``NAME=VALUE``; a value that is no JSON is a text.

    Raises :class:`SpringbackError` for anything else.
    """
    arguments: dict[str, Any] = {}
    for item in items:
        name, _, value = item.partition("=")
        word = value.lower() if value.lower() in ("true", "false") else value
        try:
            if name.isidentifier() and name != item:
                arguments[name] = json.loads(word)
            else:
                arguments |= json.loads(item)
        except (ValueError, TypeError, RecursionError):
            if not name.isidentifier() or name == item:
                given, do = f"--chat-template-args {item[:60]}", "write enable_thinking=false"
                allowed = "a JSON object, or NAME=VALUE"
                raise SpringbackError(describe(given, allowed, do)) from None
            arguments[name] = value
    return arguments


def owner_of(settings: type[Settings], name: str) -> type[Settings]:
    """The group of ``settings`` that defines the setting ``name``."""
    bases = [b for b in settings.__mro__ if name in getattr(b, "__dataclass_fields__", {})]
    return bases[-1]


def names_changing(settings: type[Settings], *what: Changes) -> tuple[str, ...]:
    """Names of the settings that change one of ``what``, in order."""
    changes = {
        f.name: f.metadata["changes"] or owner_of(settings, f.name).changes
        for f in fields(settings)  # type: ignore[arg-type]
    }
    return tuple(name for name, word in changes.items() if word in what)


@dataclass(frozen=True)
class SubjectSettings(Settings, group="Model and seeds", changes="model"):
    """Which model an audit is of, and its repetitions."""

    model: str = setting("smollm2-135m", "Model folder, hub id, or built-in name.")
    revision: str | None = setting(None, "Hub revision of the model.")
    base: str | None = setting(
        None,
        "With --n-pos 0: what the model was made from, NAME or NAME@REVISION; gain over it, KL to "
        "it.",
        added=True,
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds of data order and training.", changes="seed")


@dataclass(frozen=True)
class ExecutionSettings(Settings, group="Execution", changes="nothing"):
    """How an audit is run on its machine."""

    save_every: float = setting(45.0, "Seconds of training between saved states.")
    accelerate: str | None = setting(
        None,
        "accelerate's config file: training (sft) goes through the processes that it "
        "describes, DDP or FSDP; with FSDP and all weights what measures is sharded as well.",
    )
    checkpoint_activations: bool = activations_setting()
    probe_processes: int = setting(
        1,
        "Processes that share the batches of every measurement; each holds the start model and "
        "the measured one (worker r on GPU r).",
    )


@dataclass(frozen=True)
class Sampling(Settings, group="Decoding"):
    """How tokens are chosen; ``temperature`` 0 is greedy."""

    max_new_tokens: int = setting(128, "Longest answer.")
    _: KW_ONLY
    temperature: float = setting(0.0, "0 is greedy.")
    seed: int = setting(0, "Of sampling.")
    top_k: int = setting(0, "Sample from this many tokens; 0 is off.")
    top_p: float = setting(1.0, "Sample from this share; 1 is off.")
    min_p: float = setting(0.0, "At least this share of the top's p.")
    repetition_penalty: float = setting(1.0, "Above 1 repeats less.")

    def check_sampling(self) -> None:
        """Raise :class:`SpringbackError` for a value outside of its range."""
        limits = {
            "temperature": (self.temperature >= 0, "0 (greedy) or more"),
            "max_new_tokens": (self.max_new_tokens >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "min_p": (0 <= self.min_p < 1, "0 (off) to below 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0; 1 is off"),
        }
        for name, (fine, allowed) in limits.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and fine):
                raise SpringbackError(describe(f"{name} = {value}", allowed, "change it"))

    def sampling(self) -> dict[str, Any]:
        """These settings by name, without those that a class adds to them."""
        return {f.name: getattr(self, f.name) for f in fields(Sampling)}


#: Settings of :class:`Sampling` that the server and lm-eval take under the same names.
FILTERS = ("top_k", "top_p", "min_p", "repetition_penalty")

#: Options of other decoders, each with the value by which it asks for nothing.
OFF: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "best_of": 1,
    "use_beam_search": False,
    "early_stopping": False,
    "length_penalty": 1,
    "diversity_penalty": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "top_k": -1,
    "min_length": 0,
    "min_tokens": 0,
    "min_new_tokens": 0,
    "ignore_eos": False,
    "stop_token_ids": [],
    "bad_words": [],
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict_in_generate": False,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
}


def asks_for_nothing(name: str, value: Any) -> bool:
    """Whether an option of decoding, given ``value``, is as if it were left out."""
    return value is None or (name in OFF and value == OFF[name])


@dataclass(frozen=True, kw_only=True)
class PromptSettings(Settings, group="Prompt"):
    """How a prompt is put to the model."""

    system: str | None = setting(None, "System message.")
    prompt_template: str | None = setting(
        None, "Frame of a prompt; {question}: none. Default: the boosted folder's."
    )
    raw: bool = setting(False, "Continue the text, no chat template.")


@dataclass(frozen=True, kw_only=True)
class ChatSettings(Settings, group="Chat template", changes="prompt"):
    """What a chat template is given beside the messages."""

    chat_template_args: Mapping[str, Any] = arguments_setting(
        "Arguments of the chat template, as JSON or NAME=VALUE: enable_thinking=false; "
        "chat_template=NAME chooses among several."
    )
    system_in_user: bool = setting(
        False,
        "Put a system message that the template refuses before the first user turn.",
        added=True,
    )

    @staticmethod
    def recorded(facts: Mapping[str, Any]) -> ChatSettings:
        """What a boosted folder was measured with, from its ``springback.json``."""
        arguments = facts.get("chat_template_args") or {}
        if not isinstance(arguments, dict):
            raise SpringbackError(
                describe(
                    f"chat_template_args {arguments!r} in springback.json",
                    "a JSON object",
                    "write the folder again",
                )
            )
        folds = facts.get("system_in_user") is True
        return ChatSettings(chat_template_args=arguments, system_in_user=folds)

    def chat_inputs(self) -> dict[str, Any]:
        """These settings for the inputs of a run, those that were given: ids without stay."""
        chat: dict[str, Any] = {}
        if self.chat_template_args:
            chat["chat_template_args"] = dict(self.chat_template_args)
        if self.system_in_user:
            chat["system_in_user"] = True
        return chat


@dataclass(frozen=True, kw_only=True)
class ComputeSettings(Settings, group="Computing", changes="decoding"):
    """In which dtype and on which device models are held and computed."""

    dtype: str = setting(
        "auto",
        "auto, float32, bfloat16 or float16: of weights and decoding; auto is as stored on an "
        "accelerator, float32 on a CPU.",
        added=True,
    )
    quantize: str | None = setting(
        None,
        "nf4: hold the base below LoRA adapters in 4 bit (bitsandbytes), computed in bfloat16; "
        "audits with --lora-rank, boosts of adapters, adapters in generate and serve.",
        added=True,
    )
    device: str = setting(
        "auto",
        "auto, cpu, mps, cuda or cuda:N; auto is the accelerator if there is one.",
        added=True,
        changes="nothing",
    )
    device_map: str | None = setting(
        None,
        "auto: spread each model over the GPUs, then memory and disk (accelerate).",
        added=True,
        changes="nothing",
    )


#: What decodes: springback's own loops on Transformers' models, or vLLM; ``auto`` chooses.
ENGINES = ("auto", "transformers", "vllm")
#: Engines by the name that they had before.
_OLD_ENGINES = {"builtin": "transformers"}


def engine_named(name: str) -> str:
    """The engine ``name`` as it is called today; raises :class:`SpringbackError` for none."""
    engine = _OLD_ENGINES.get(name, name)
    if engine not in ENGINES:
        given = f"--engine {name}{did_you_mean(name, ENGINES)}"
        raise SpringbackError(describe(given, ", ".join(ENGINES), "choose one of these"))
    return engine


#: Where speculation takes its guesses.
DRAFTS = ("none", "ngram", "amateur", "model")
#: ``dynamic`` grows as it goes; ``static`` has a fixed shape; ``compiled`` also compiles the model.
CACHES = ("dynamic", "static", "compiled")


def check_speed(draft: str, cache: str, model: object) -> None:
    """Raise :class:`SpringbackError` for an unknown name, or unless ``model``, which drafts, is
    given with the draft ``model`` and only then."""
    if draft not in DRAFTS or (draft == "model") != (model is not None):
        raise SpringbackError(
            describe(
                f"draft = {draft!r}{did_you_mean(draft, set(DRAFTS) - {draft})}",
                f"{', '.join(DRAFTS)}; a model with 'model', and only then",
                "change it",
            )
        )
    if cache not in CACHES:
        given = f"cache = {cache!r}{did_you_mean(cache, CACHES)}"
        raise SpringbackError(describe(given, ", ".join(CACHES), "use one of these"))


@dataclass(frozen=True, kw_only=True)
class SpeedSettings(Settings, group="Speed"):
    """How the same answers are reached sooner."""

    draft: str = setting("ngram", "Speculate by ngram, amateur, model or none.")
    cache: str = setting("dynamic", "dynamic; on a GPU static (CUDA graphs) or compiled.")
    reference: bool = setting(False, "Plain loop: the same answers, slower.")


@dataclass(frozen=True)
class GenerateOptions(ComputeSettings, SpeedSettings, ChatSettings, PromptSettings, Sampling):
    """What ``springback generate`` takes as plain values."""
