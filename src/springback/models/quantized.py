"""Weights in 4 bit (NF4, twice quantised, as QLoRA has them) by bitsandbytes, below adapters.

bitsandbytes keeps 4 bits a weight of every linear layer but the head and a scale for each block of
64; a layer is computed in the dtype of the rest.  Such weights are frozen: what is trained and
extrapolated are adapters on them.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from springback.errors import MissingExtraError
from springback.models.names import NF4

_MISSING = object()


def load_arguments(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What Transformers is given to load a model in NF4 that is computed in ``dtype``."""
    import transformers

    _import_bitsandbytes()
    made: Any = transformers.BitsAndBytesConfig
    config = made(
        load_in_4bit=True,
        bnb_4bit_quant_type=NF4,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def is_quantized(layer: Any) -> bool:
    """Whether a linear layer has its weights in 4 bit."""
    return hasattr(getattr(layer, "weight", None), "quant_state")


def computing_dtype(layer: Any) -> torch.dtype:
    """In which dtype a linear layer computes, where its weights may be in 4 bit."""
    dtype: torch.dtype = layer.compute_dtype if is_quantized(layer) else layer.weight.dtype
    return dtype


def keep_format(model: Any) -> None:
    """Keep the layers' weights in the format that they are trained above.

    On CPUs with AVX-512 bf16 bitsandbytes (0.50) repacks a layer's weights the first time that it
    runs in evaluation mode, for products that have no gradients: training after a probe would
    silently learn nothing below them, and models that share weights would read another format.
    """
    for layer in model.modules():
        if is_quantized(layer):
            layer.support_avx512bf16_for_cpu = False


@torch.no_grad()
def leave_files(model: Any) -> None:
    """Copy what stays in 16 bit, embeddings above all: while one tensor is a view of a mapped file,
    all of the file stays in memory."""
    for parameter in model.parameters():
        if not hasattr(parameter, "quant_state"):
            parameter.data = parameter.data.clone()


@contextmanager
def adapters_attached(model: Any) -> Iterator[None]:
    """Within, others' trainers take a model in 4 bit as one whose adapters are trained.

    Transformers' refuses one whose adapters it did not put in itself, and TRL's round adapters on
    one to bfloat16, in which small updates are lost.
    """
    if not getattr(model, "is_quantized", False):
        yield
        return
    says = {"is_loaded_in_4bit": False, "_hf_peft_config_loaded": True}
    before = {name: vars(model).get(name, _MISSING) for name in says}
    vars(model).update(says)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _MISSING:
                del vars(model)[name]
            else:
                setattr(model, name, value)


def scales(parameter: Any) -> torch.Tensor:
    """Numbers that are finite exactly if the quantised weights are."""
    state = parameter.quant_state
    values: torch.Tensor = state.offset if state.nested else state.absmax
    return values


def shared_states(model: Any) -> dict[int, Any]:
    """Scales of the layers by id, for copies of a model that share them."""
    states = [getattr(layer, "quant_state", None) for layer in model.modules()]
    states += [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    return {id(state): state for state in states if state is not None}


def _import_bitsandbytes() -> None:
    """Import it without what its import may fetch: compiled code from the Hub, by the package
    ``kernels`` where that is installed; its own is there."""
    try:
        with _hidden("kernels"):
            import bitsandbytes  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("bitsandbytes", NF4, f"--quantize {NF4}") from error


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Within, ``package`` cannot be imported, and bitsandbytes does not warn of that."""
    known: Any = sys.modules.get(package, _MISSING)
    modules: dict[str, Any] = sys.modules
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    modules[package] = None
    try:
        yield
    finally:
        logger.setLevel(level)
        if known is _MISSING:
            del modules[package]
        else:
            modules[package] = known


# Transformers' trainer and PEFT import bitsandbytes where it is installed, asked for or not.
if all(importlib.util.find_spec(name) is not None for name in ("bitsandbytes", "kernels")):
    _import_bitsandbytes()
