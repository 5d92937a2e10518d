"""Names of models, dtypes and devices: what is seen to be wrong before torch is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from springback.errors import MissingExtraError, ModelError, describe, did_you_mean
from springback.models.builtin import BUILTIN
from springback.models.hub import looks_like_hub_id, nothing_at
from springback.settings import ComputeSettings
from springback.weights import is_adapter
from springback.weights.io.folder import readable_json

#: What configs call the number of layers, and the most that is believed.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MOST_LAYERS = 1000
#: Names of ``--dtype``; ``auto`` beside them.
DTYPES = ("float32", "bfloat16", "float16")
#: What ``--quantize`` may name, and the extra that brings what it needs.
NF4 = "nf4"


def require_model(name: str | Path, adapters: bool = False) -> None:
    """Raise :class:`ModelError` unless ``name`` is a built-in name, a model folder or a hub id.

    Hub ids are believed.  ``adapters``: the folder of an adapter is allowed too.
    """
    text, path = str(name), Path(name)
    if not text.strip():  # as of a variable that is not set: Path("") would be this folder
        allowed = f"a model folder, a hub id, or a built-in name ({', '.join(BUILTIN)})"
        raise ModelError(describe(f"a model without a name ({text!r})", allowed, "name one"))
    if text in BUILTIN or (adapters and is_adapter(path)):
        return
    if path.is_dir():
        if is_adapter(path):
            raise ModelError(
                f"{path} is an adapter; allowed: a full model; merge it into its base "
                "(merge_and_unload in PEFT) and name what that wrote"
            )
        if not (path / "config.json").exists():
            raise ModelError(
                f"{path} has no config.json, so it is not a model folder; "
                "name a folder written by save_pretrained"
            )
        _require_layers(path)
    elif not looks_like_hub_id(text):
        raise ModelError(
            f"{nothing_at(text)}{did_you_mean(text, BUILTIN)}; allowed: a model folder, a hub id "
            f"such as org/name, or a built-in name ({', '.join(BUILTIN)})"
        )


def _require_layers(folder: Path) -> None:
    """Raise :class:`ModelError` for a config of so many layers that building them would not end."""
    config = readable_json(folder / "config.json")
    parts = (config, config.get("text_config")) if isinstance(config, dict) else ()
    for part in (part for part in parts if isinstance(part, dict)):
        for name in _LAYERS:
            count = part.get(name)
            if isinstance(count, int) and count > MOST_LAYERS:
                raise ModelError(
                    f"{folder / 'config.json'} says {name} {str(count)[:20]}; allowed: up to "
                    f"{MOST_LAYERS}; copy it from the model again"
                )


def require_decoder(model: str | Path, compute: ComputeSettings) -> None:
    """Raise :class:`ModelError` unless ``model`` may be a model, an adapter or a boosted folder,
    and ``compute`` holds names that are known and fit it."""
    require_compute(compute)
    require_model(model, adapters=True)
    if compute.quantize and (Path(model).is_dir() or str(model) in BUILTIN):
        require_adapters_above(compute, model)


def require_adapters_above(compute: ComputeSettings, *models: str | Path) -> None:
    """Raise :class:`ModelError` for a quantised base and a model that is no adapter's folder."""
    whole = [str(model) for model in models if not is_adapter(model)]
    if compute.quantize and whole:
        raise ModelError(
            describe(
                f"--quantize {compute.quantize} with {whole[0]}, which is a full model",
                "LoRA adapters, whose base is held in 4 bit",
                "leave --quantize out, or name an adapter",
            )
        )


def _require_quantizable(s: ComputeSettings, device_map: object) -> None:
    """Raise for a base in 4 bit of a kind or in a place that it cannot be."""
    if s.quantize is None:
        return
    if s.quantize != NF4:
        raise ModelError(describe(f"--quantize {s.quantize}", NF4, "or leave it out"))
    if s.dtype not in ("auto", "bfloat16", "float32"):
        given = f"--quantize {s.quantize} with --dtype {s.dtype}"
        raise ModelError(describe(given, "auto (bfloat16), bfloat16, float32", "change --dtype"))
    if device_map or s.device_map:
        given = f"--quantize {s.quantize} with --device-map"
        raise ModelError(describe(given, "one device", "leave one of the two out"))
    if s.device == "mps":
        given = f"--quantize {s.quantize} with --device mps"
        raise ModelError(describe(given, "cpu, cuda", "take another device"))
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", NF4, f"--quantize {s.quantize}")


def require_compute(settings: ComputeSettings, device_map: object = None) -> None:
    """Raise :class:`ModelError` for a dtype, device or map whose name is none.

    ``device_map``: a map that was given from Python instead of the settings' own.
    """
    s = settings
    devices = "auto, cpu, mps, cuda, cuda:N"
    kind, colon, number = s.device.partition(":")
    known = kind in ("auto", "cpu", "mps", "cuda") and not colon
    if not known and not (kind == "cuda" and number.isdigit()):
        raise ModelError(describe(f"--device {s.device}", devices, "choose one of these"))
    if s.device_map not in (None, "auto"):
        allowed = "auto (from Python also a map of module names to devices)"
        raise ModelError(
            describe(f"--device-map {s.device_map}", allowed, "leave it out for one device")
        )
    if (device_map or s.device_map) and s.device != "auto":
        raise ModelError(
            describe(
                f"--device {s.device} with --device-map", "one of the two", "leave one of them out"
            )
        )
    _require_quantizable(s, device_map)
    if s.dtype != "auto" and s.dtype not in DTYPES:
        allowed = ", ".join(("auto", *DTYPES))
        raise ModelError(describe(f"--dtype {s.dtype}", allowed, "choose one of these"))
