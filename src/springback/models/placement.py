"""Where a model is held and computed: dtype, device, or a map over several devices."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from springback.errors import MissingExtraError, ModelError, describe
from springback.models.names import require_compute
from springback.settings import ComputeSettings
from springback.weights import tensor_names

#: Names of ``--dtype``; ``auto`` beside them.
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


#: Devices by name of module, as accelerate takes them; ``auto`` has it work them out.
DeviceMap = str | Mapping[str, int | str]


def accelerator() -> torch.device:
    """The accelerator if there is one (CUDA, then Apple's), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True)
class Placement:
    """``dtype``: of weights and computing, None for that of each model's files.

    ``device``: where the whole model goes.  ``device_map`` spreads it instead (accelerate):
    ``auto`` over GPUs, then memory, then disk, or a map of module names to devices.
    ``quantize``: ``nf4`` holds linear layers in 4 bit (:mod:`springback.models.quantized`); then
    ``dtype`` is that of the rest and of computing.
    """

    dtype: torch.dtype | None = torch.float32
    device: torch.device = field(default_factory=accelerator)
    device_map: DeviceMap | None = None
    quantize: str | None = None

    def inputs(self, stored: str | None = None) -> dict[str, Any]:
        """What of this decides numbers, for the inputs of a run: nothing in float32.

        ``stored``: the dtype of the model's files, where that is what is computed in.
        """
        name = stored if self.dtype is None else dtype_name(self.dtype)
        made = {} if name == "float32" else {"dtype": name}
        return {**made, "quantize": self.quantize} if self.quantize else made

    def of_files(self, folder: str | Path) -> Placement:
        """With a dtype: that of most weights in ``folder``, where the files' own is asked for."""
        if self.dtype is not None:
            return self
        sizes = dict.fromkeys(DTYPES, 0)
        for shape, dtype in tensor_names(folder).values():
            if dtype in sizes:
                sizes[dtype] += math.prod(shape)
        return replace(self, dtype=DTYPES[max(sizes, key=lambda name: sizes[name])])

    def describe(self) -> dict[str, Any]:
        """For provenance: ``dtype``, ``device``, and ``device_map`` (None for one device)."""
        dtype = "as stored" if self.dtype is None else dtype_name(self.dtype)
        where = {"dtype": dtype, "device": str(self.device), "device_map": self.device_map}
        return {**where, "quantize": self.quantize} if self.quantize else where


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def is_spread(model: Any) -> bool:
    """Whether accelerate's hooks move the weights or inputs of ``model`` while it runs.

    Some of its parameters may then be on the device ``meta``, without values.
    """
    return getattr(model, "_hf_hook", None) is not None


def running_device(module: Any) -> torch.device:
    """Where a model or layer takes its inputs: of a spread one wherever its weights lie."""
    if is_spread(module):
        for each in module.modules():  # the first is the module itself, or its embedding
            hook = getattr(each, "_hf_hook", None)
            for one in (hook, *getattr(hook, "hooks", ())):
                where = getattr(one, "execution_device", None)
                if where is not None:
                    return torch.device(where)
    device: torch.device = getattr(module, "device", None) or module.weight.device
    return device


def wide_device(device: torch.device) -> torch.device:
    """Where float64 is computed for what lies on ``device``: Apple's accelerators have none."""
    return torch.device("cpu") if device.type == "mps" else device


def placement(
    settings: ComputeSettings | None = None, device_map: Mapping[str, int | str] | None = None
) -> Placement:
    """What the settings ask for on this machine; ``device_map`` instead of theirs.

    Raises :class:`ModelError` for a dtype, device or map that is not allowed or not here.
    """
    s = settings or ComputeSettings()
    require_compute(s, device_map)
    device = _device(s.device)
    wanted = device_map or s.device_map
    if wanted and importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train", "--device-map")
    dtype = DTYPES.get(s.dtype)
    if s.quantize:
        if device.type == "mps":
            raise ModelError(
                describe(f"--quantize {s.quantize} on mps", "cpu, cuda", "take --device cpu")
            )
        return Placement(dtype or torch.bfloat16, device, None, s.quantize)
    if s.dtype == "auto" and device.type == "cpu":
        dtype = torch.float32
    return Placement(dtype, device, wanted)


def audit_placement(settings: ComputeSettings) -> Placement:
    """As :func:`placement`, ``auto`` being float32 everywhere: of the start and of every measured
    model of an audit, whose small differences are the result.
    """
    place = placement(settings)
    return place if place.dtype is not None else replace(place, dtype=torch.float32)


def _device(name: str) -> torch.device:
    allowed = "auto, cpu, mps, cuda, cuda:N"
    if name == "auto":
        return accelerator()
    kind, _, number = name.partition(":")
    here = {
        "cpu": 1,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
    }[kind]
    if int(number or 0) >= here:
        have = f"{here} devices of that kind" if here else "none of that kind"
        raise ModelError(
            describe(f"--device {name} on a machine that has {have}", allowed, "take another")
        )
    return torch.device(name)
