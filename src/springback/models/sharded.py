"""A model that no process holds whole: each has a part of every tensor, read from the files alone.

FSDP2 (``fully_shard``) gathers a layer's weights while it runs, exactly as they are stored, so a
forward pass gives what one process computes, to the bit.  Every process has to run as many passes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoModelForCausalLM

from springback.core import Checkpoint
from springback.errors import ModelError, describe
from springback.models.loading import (
    Model,
    complete_generation_config,
    read_configs,
    require_finite_totals,
    total_of,
)
from springback.weights import tensor_names
from springback.weights.io.folder import weight_files
from springback.weights.io.safetensors import encode_header


def load_sharded(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    mesh: DeviceMesh,
    rounded: torch.dtype | None = None,
) -> Model:
    """The model in evaluation mode, in ``dtype``, spread over the processes of ``mesh``.

    Each reads its part of every tensor and nothing else.  ``rounded``: to which weights are rounded
    first.  Raises :class:`ModelError` for a model whose tensors have other names in its files than
    in Transformers, or that hold NaN or infinity.
    """
    configs, empty = read_configs(checkpoint.path), _empty(checkpoint, dtype)
    model: Model = empty
    model.generation_config = configs.generation_config
    complete_generation_config(model)
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in kinds]
    for module in (*reversed(blocks), model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    parts = {name: _nothing_yet(tensor, mesh) for name, tensor in model.state_dict().items()}
    model.load_state_dict(parts, assign=True)
    empty.tie_weights()
    empty.to(mesh.device_type)  # the buffers
    read_sharded(model, weight_files(checkpoint.path), rounded)
    # As one process looks at a model when it loads it; each at its part.
    totals = {names[0]: total_of(p.to_local()) for names, p in _parameters(model)}
    require_finite_totals(totals, checkpoint.path)
    model.train(False)
    return model


def can_be_sharded(checkpoint: Checkpoint) -> bool:
    """Whether the files hold every tensor of the model under its name and with its shape."""
    stored = {name: tuple(shape) for name, (shape, _) in tensor_names(checkpoint.path).items()}
    return all(
        any(stored.get(name) == shape for name in names)
        for names, shape in parameters_of(checkpoint)
    )


@functools.lru_cache(maxsize=2)
def parameters_of(checkpoint: Checkpoint) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    """Of each parameter all names and its shape, those that are tied being one."""
    each = _by_names(_empty(checkpoint, torch.float32))
    return tuple((tuple(names), tuple(parameter.shape)) for names, parameter in each)


def _empty(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The model without its weights; buffers are made, not stored."""
    from accelerate import init_empty_weights

    transformers: Any = AutoModelForCausalLM
    with init_empty_weights(include_buffers=False):
        model = transformers.from_config(read_configs(checkpoint.path).config, dtype=dtype)
    model.tie_weights()  # which is lost where parameters are made empty one by one
    return model


def read_sharded(model: Model, files: list[Path], rounded: torch.dtype | None = None) -> None:
    """Have every process read its part of each parameter from safetensors files, in place.

    ``rounded``: to which the values are rounded on the way.
    """
    with torch.no_grad(), StoredTensors(files) as stored:
        for names, parameter in _parameters(model):
            name = next((n for n in names if n in stored.files), None)
            if name is None or stored.shape(name) != tuple(parameter.shape):
                raise ModelError(
                    describe(
                        f"{names[0]}, which {files[0].parent} does not hold under that name",
                        "models whose tensors are stored as they are computed with",
                        "leave --accelerate out",
                    )
                )
            local = parameter.to_local()
            first = _first_row(parameter)
            part = stored.rows(name, first, first + len(local))
            local.copy_(part if rounded is None else part.to(rounded))


def write_sharded(model: Model, file: Path) -> None:
    """Have the first process write each parameter, in fp32, under its first name as safetensors.

    Every process has to call this.  One tensor at a time is whole, in memory that is then free.
    """
    places = list(_parameters(model))
    tensors = [(names[0], "F32", tuple(p.shape), 4 * p.numel()) for names, p in places]
    first = torch.distributed.get_rank() == 0
    with file.open("wb") if first else nullcontext() as out:
        if out is not None:
            out.write(encode_header(tensors, {}))
        for _, parameter in places:
            with torch.no_grad():
                whole = parameter.full_tensor()
            if out is not None:
                out.write(whole.float().contiguous().cpu().numpy().tobytes())


def is_sharded(model: nn.Module | None) -> bool:
    """Whether what the model learns by lies over several processes."""
    return model is not None and any(isinstance(p, DTensor) for p in model.parameters())


def held_numbers(model: Model) -> int:
    """Weights that this process holds while nothing runs."""
    return sum(parameter.to_local().numel() for _, parameter in _parameters(model))


class StoredTensors:
    """Tensors of safetensors files by name, read whole or in parts."""

    def __init__(self, files: list[Path]) -> None:
        self._paths = files
        self.files: dict[str, Any] = {}
        self._open: list[Any] = []

    def __enter__(self) -> StoredTensors:
        for path in self._paths:
            opened: Any = safe_open(path, framework="pt")
            file = opened.__enter__()
            self._open.append(file)
            self.files |= dict.fromkeys(file.keys(), file)
        return self

    def __exit__(self, *error: Any) -> None:
        for file in self._open:
            file.__exit__(*error)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def whole(self, name: str) -> Tensor:
        tensor: Tensor = self.files[name].get_tensor(name)
        return tensor

    def rows(self, name: str, first: int, end: int) -> Tensor:
        part: Tensor = self.files[name].get_slice(name)[first:end]
        return part


def _parameters(model: nn.Module) -> Iterator[tuple[list[str], DTensor]]:
    """Each sharded parameter once, with all of its names."""
    for names, parameter in _by_names(model):
        assert isinstance(parameter, DTensor), names[0]
        yield names, parameter


def _by_names(model: nn.Module) -> list[tuple[list[str], nn.Parameter]]:
    """Each parameter once, with all of its names."""
    names: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), ([], parameter))[0].append(name)
    return list(names.values())


def _first_row(parameter: DTensor) -> int:
    """Which row of the whole the part here begins with: rows are cut as ``torch.chunk`` does."""
    mesh = parameter.device_mesh
    each = -(-parameter.shape[0] // mesh.size())
    return min(each * mesh.get_local_rank(), parameter.shape[0])


def _nothing_yet(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    """Room for the part of a parameter; what is no parameter stays."""
    if not isinstance(tensor, DTensor):
        return tensor
    local = tensor.to_local()
    room = torch.empty(local.shape, dtype=local.dtype, device=mesh.device_type)
    return DTensor.from_local(
        room, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
