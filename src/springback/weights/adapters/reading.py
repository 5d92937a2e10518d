"""A LoRA adapter as PEFT saves it: its settings, its factors, and what cannot be taken exactly.

PEFT computes W x + scaling * B A x with A (r, in), B (out, r), and scaling alpha / r, or
alpha / sqrt(r) with rsLoRA; ranks and alphas may differ by module.  Nothing is unpickled, and
neither torch nor PEFT is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from springback.errors import ModelError, describe
from springback.weights.arithmetic import Floats, decode
from springback.weights.io.aligning import equal_values, refuse_empty, without_wrappers
from springback.weights.io.folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    Weights,
    hash_weights,
    inside,
    readable_json,
)
from springback.weights.io.safetensors import FLOAT_BYTES, TensorInfo, dtype_name, read_file
from springback.weights.io.stream import Reader

PREFIX = "base_model.model."
#: Settings that say where LoRA stands and how it is scaled, or that do not change what it computes.
_KNOWN = {
    *("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "bias", "fan_in_fan_out", "init_lora_weights", "lora_dropout"),
    *("base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version"),
    *("auto_mapping", "inference_mode", "runtime_config", "qalora_group_size", "velora_config"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),
    *("megatron_config", "megatron_core", "ensure_weight_tying"),
    *("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr"),  # of ms-swift, for training
}
#: Ways to begin that leave the base weights alone; others (PiSSA, OLoRA, CorDA, LoftQ, …) do not.
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
#: A tensor of LoRA by the end of its name, which may have the adapter's own name in it.
_PARTS = {
    "a": re.compile(r"\.lora_(?:A(?:\.(?!weight$)[^.]+)?\.weight|embedding_A(?:\.[^.]+)?)$"),
    "b": re.compile(r"\.lora_(?:B(?:\.(?!weight$)[^.]+)?\.weight|embedding_B(?:\.[^.]+)?)$"),
    "bias": re.compile(r"\.lora_B(?:\.(?!bias$)[^.]+)?\.bias$"),
    "magnitude": re.compile(r"\.lora_magnitude_vector(?:\.(?!weight$)[^.]+)?(?:\.weight)?$"),
}
#: A module saved whole, as it lies in the file where the state was not renamed for it; and what
#: stands beside it of the base.
_SAVED = re.compile(r"\.modules_to_save(?:\.[^.]+)?(?=\.[^.]+$)")
_ORIGINAL = ".original_module."
_REASONS = {
    "layer_replication": "it stacks base layers anew, so tensor names mean other layers",
    "target_parameters": "its factors are laid out for stacked experts",
    "trainable_token_indices": "it trains rows of the embedding besides LoRA",
    "alora_invocation_tokens": "it acts on some positions only",
}


@dataclass(frozen=True)
class LoraModule:
    """LoRA on one module: its factors in the file, and the scaling of their product.

    ``embedding``: on an embedding (A is (r, rows), B is (width, r)).  ``bias``: what lora_bias
    adds, times the scaling.  ``magnitude``: DoRA's.
    """

    name: str
    a: TensorInfo
    b: TensorInfo
    scaling: float
    embedding: bool
    bias: TensorInfo | None = None
    magnitude: TensorInfo | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder.

    ``modules``: LoRA by module name as in the base model.  ``full``: tensors that stand in for the
    base's, by the base's tensor name: biases, modules_to_save, the copy of an embedding that PEFT
    saves beside its LoRA (``copies`` has the names of these).
    """

    weights: Weights
    config: Mapping[str, Any]
    modules: Mapping[str, LoraModule]
    full: Mapping[str, TensorInfo]
    copies: frozenset[str]

    @property
    def root(self) -> Path:
        return self.weights.root

    @property
    def base(self) -> str:
        return str(self.config.get("base_model_name_or_path") or "")

    def values(self, reader: Reader, info: TensorInfo) -> Floats:
        """A tensor of this adapter in float64, in its shape."""
        raw = reader.read((self.weights.files[0], info), 0, info.size)
        return decode(raw, info.code).reshape(info.shape)

    def factors(self, reader: Reader, name: str) -> tuple[Floats, Floats] | None:
        """(scaling * B, A) of a module, None where this adapter has none."""
        module = self.modules.get(name)
        if module is None:
            return None
        b, a = self.values(reader, module.b), self.values(reader, module.a)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ModelError(
                f"{name} holds NaN or infinity in {self.root}; allowed: finite weights; "
                "take another checkpoint"
            )
        return module.scaling * b, a


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter rather than a model."""
    return (Path(folder) / ADAPTER_CONFIG).exists()


def open_adapter(folder: str | Path, *, dora: bool = False) -> Adapter:
    """Read the settings and the header of an adapter.

    Raises :class:`ModelError` with the reason for an adapter that is pickled, is not LoRA, or
    computes something else than W + scaling * B A (``dora`` lets DoRA pass).
    """
    root = Path(folder)
    if not (root / ADAPTER_CONFIG).is_file():
        raise ModelError(
            describe(folder, f"a folder with {ADAPTER_CONFIG} and {ADAPTER}", "name an adapter")
        )
    root = root.resolve()
    if not (root / ADAPTER).exists():
        pickled = any(root.glob("*.bin"))
        why = "only pickled ones, and reading those can run code" if pickled else "none"
        raise ModelError(
            f"{root} holds no weights as safetensors ({why}); allowed: {ADAPTER}; "
            "save the adapter again with a newer PEFT"
        )
    config = readable_json(inside(root, ADAPTER_CONFIG))
    _check_config(root, config, dora)
    file = read_file(inside(root, ADAPTER), ADAPTER)
    weights = Weights(root, (file,), {t.name: (file, t) for t in file.tensors}, None)
    refuse_empty(weights)
    return _sorted(weights, config)


def _check_config(root: Path, config: Any, dora: bool) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ModelError(
            describe(f"{root} of type {kind!r}", "LORA", "merge it into its base model first")
        )
    unknown = [key for key, value in config.items() if value and key not in _KNOWN]
    if unknown:
        reason = _REASONS.get(unknown[0], "it is not known to be W + scaling * B A")
        raise _refused(root, f"{unknown[0]} is {config[unknown[0]]!r}: {reason}")
    if config.get("use_dora") and not dora:
        raise _refused(
            root,
            "use_dora is true: DoRA divides each row by its norm, so two of them do not add up to "
            "one adapter; --materialise with --base writes them into the base weights",
        )
    start = config.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise _refused(
            root,
            f"init_lora_weights is {start!r}: such a start changes the base weights too; convert "
            "it to plain LoRA when saving (path_initial_model_for_weight_conversion in PEFT)",
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise _refused(root, f"{key} is {config[key]!r}: not a mapping")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise _refused(root, f"modules_to_save is {saved!r}: not a list of names")


def _refused(root: Path, why: str) -> ModelError:
    return ModelError(
        f"{root} cannot be extrapolated exactly: {why}; allowed: plain LoRA; "
        "or merge both adapters into their base and extrapolate the models"
    )


def _sorted(weights: Weights, config: Mapping[str, Any]) -> Adapter:
    """What each tensor of the file is."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    full: dict[str, TensorInfo] = {}
    copies = set()
    for name, (_, info) in weights.tensors.items():
        short = without_wrappers(name)
        if not short.startswith(PREFIX) or info.code not in FLOAT_BYTES:
            raise _refused(
                weights.root, f"its tensor {name} ({dtype_name(info.code)}) is not as PEFT saves it"
            )
        short = short.removeprefix(PREFIX)
        match = next(((k, m) for k, end in _PARTS.items() if (m := end.search(short))), None)
        if match is not None:
            kind, end = match
            of_module = parts.setdefault(short[: end.start()], {})
            if kind in of_module:
                raise _refused(weights.root, f"{name} and {of_module[kind].name} are two adapters")
            of_module[kind] = info
        elif _ORIGINAL in short:
            continue  # the base's own values, beside those of modules_to_save
        elif ".lora_" in short or ".token_adapter." in short:
            raise _refused(weights.root, f"its tensor {name} belongs to another method than LoRA")
        else:
            plain = _SAVED.sub("", short.replace(".base_layer.", "."))
            full.setdefault(plain, info)
            if short.endswith(".base_layer.weight"):
                copies.add(plain)
    modules = {name: _module(weights.root, config, name, p) for name, p in sorted(parts.items())}
    if not modules:
        raise _refused(weights.root, "it holds no LoRA tensors")
    return Adapter(weights, config, modules, full, frozenset(copies))


def _module(
    root: Path, config: Mapping[str, Any], name: str, parts: Mapping[str, TensorInfo]
) -> LoraModule:
    a, b = parts.get("a"), parts.get("b")
    if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2:
        raise _refused(root, f"{name} has no pair of LoRA matrices (convolutions are not taken)")
    rank = a.shape[0]
    asked = _setting(root, config, "rank_pattern", "r", name)
    if b.shape[1] != rank or rank < 1 or asked != rank:
        raise _refused(
            root, f"{name} has factors {list(b.shape)} and {list(a.shape)} where rank is {asked:g}"
        )
    alpha = _setting(root, config, "alpha_pattern", "lora_alpha", name)
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    embedding = ".lora_embedding_A" in a.name
    magnitude = parts.get("magnitude")
    if magnitude is not None and (embedding or not config.get("use_dora")):
        raise _refused(root, f"{name} has a magnitude, which is not taken there")
    if magnitude is None and config.get("use_dora"):
        raise _refused(root, f"use_dora is true and {name} has no magnitude")
    return LoraModule(name, a, b, scaling, embedding, parts.get("bias"), magnitude)


def _setting(
    root: Path, config: Mapping[str, Any], patterns: str, default: str, name: str
) -> float:
    """Rank or alpha of a module: the first pattern that ends its name, as PEFT looks it up."""
    number: Any = config.get(default)
    for pattern, value in (config.get(patterns) or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", name):
                number = value
                break
        except re.error as error:
            raise _refused(root, f"{patterns} has {pattern!r}: {error}") from error
    given = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not given or not math.isfinite(number):
        raise _refused(root, f"{default} of {name} is {number!r}: not a number")
    return float(number)


def refuse_more(adapter: Adapter) -> None:
    """Raise for what an adapter holds besides LoRA on linear layers."""
    odd = [n for n, m in adapter.modules.items() if m.embedding or m.bias or m.magnitude]
    if odd or adapter.full:
        what = odd[0] if odd else next(iter(adapter.full))
        raise ModelError(
            f"{adapter.root} holds more than LoRA matrices of linear layers ({what}); allowed on a "
            "shared base: these alone; merge it into its base (merge_and_unload in PEFT; of two, "
            "extrapolate --materialise with --base writes a full model)"
        )


def check_bases(adapters: list[Adapter], base: str | Path | None = None) -> tuple[str, ...]:
    """Warnings; raises :class:`ModelError` if adapters were trained on different bases.

    Names and revisions must be equal, or both folders must be here with the same weights, or
    ``base`` is named as the one that both mean.
    """
    ft, notes = adapters[-1], []
    if not ft.base and base is None:
        return ("the adapters do not say which base model they belong to",)
    for other in adapters[:-1]:
        names = other.base, ft.base
        same = names[0] == names[1] and other.config.get("revision") == ft.config.get("revision")
        here = all(name and Path(name).is_dir() for name in names)
        if not same and here:
            same = hash_weights(names[0]) == hash_weights(names[1])
        if not same and base is not None and not here:
            notes.append(
                f"the adapters name their base differently ({names[0]!r} and {names[1]!r}); "
                f"{base} is taken for both"
            )
        elif not same:
            raise ModelError(
                f"{other.root} and {ft.root} were trained on different base models: {names[0]!r} "
                f"and {names[1]!r}; allowed: adapters of one run; if these are one model under "
                "two names, name it with --base"
            )
    if len({bool(a.config.get("fan_in_fan_out")) for a in adapters}) > 1:
        raise _refused(ft.root, "fan_in_fan_out differs between the adapters")
    return tuple(notes)


def require_different_adapters(adapters: Sequence[Adapter]) -> None:
    """Raise :class:`ModelError` if all adapters are equal: there is no direction then."""
    *earlier, ft = adapters
    with Reader() as reader:
        if not all(_equal(reader, other, ft) for other in earlier):
            return
    raise ModelError(
        f"{earlier[0].root} and {ft.root} hold the same weights, so there is no step to take; "
        "allowed: two adapters that differ; give an earlier one of the run"
    )


def _equal(reader: Reader, one: Adapter, other: Adapter) -> bool:
    scalings = [{n: (m.scaling, m.embedding) for n, m in a.modules.items()} for a in (one, other)]
    if scalings[0] != scalings[1] or one.full.keys() != other.full.keys():
        return False
    pairs = [(one.full[name], other.full[name]) for name in one.full]
    for name, ours in one.modules.items():
        theirs = other.modules[name]
        for a, b in (
            (ours.a, theirs.a),
            (ours.b, theirs.b),
            (ours.bias, theirs.bias),
            (ours.magnitude, theirs.magnitude),
        ):
            if a is not None and b is not None:
                pairs.append((a, b))
            elif a is not b:
                return False
    files = one.weights.files[0], other.weights.files[0]
    return all(equal_values(reader, (files[0], a), (files[1], b)) for a, b in pairs)
