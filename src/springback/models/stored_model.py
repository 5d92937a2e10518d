"""A model that this process knows by its files alone; others train and measure it.

Where a study's weights lie sharded over processes, none of them is in the study's own: what goes
from one process to another is the path of a file in which they lie already.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from springback.core import Checkpoint
from springback.errors import SpringbackError, describe
from springback.models.loading import WEIGHTS_FILE, Model, trainable
from springback.results.store import link_or_copy, whole_folder
from springback.weights import file_digest
from springback.weights.io.folder import weight_files
from springback.weights.io.safetensors import encode_header

if TYPE_CHECKING:
    from springback.models.sharded import StoredTensors  # loads torch.distributed


@dataclass
class StoredModel:
    """``checkpoint``: whose shape and names it has.

    ``dtype``: what the checkpoint's own weights are rounded to as they are read.  ``folder``: where
    new weights of it are put; None: it stays as it is.  ``file``: where its weights lie, as
    :func:`springback.models.loading.write_weights` writes them; None: in the checkpoint's files.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype
    folder: Path | None = None
    file: Path | None = None

    @property
    def files(self) -> list[Path]:
        if self.file is not None:
            return [self.file]
        return weight_files(self.checkpoint.path)

    def content_hash(self) -> str:
        """Of its weights, as they are now."""
        if self.file is None:
            return f"{self.checkpoint.content_hash} {self.dtype}"
        return file_digest(self.file)

    def take(self, file: Path) -> None:
        """Have the weights in ``file``, which may go afterwards."""
        new = self._new()
        link_or_copy(file, new)
        self._has(new)

    def keep(self, folder: Path) -> None:
        """What :func:`springback.models.loading.save_weights` does, without reading anything."""
        assert self.file is not None  # what is kept was trained
        with whole_folder(folder) as tmp:
            link_or_copy(self.file, tmp / WEIGHTS_FILE)

    @contextlib.contextmanager
    def tensors(self) -> Iterator[Mapping[str, Tensor]]:
        """Its parameters by their first names, each read when it is asked for."""
        from springback.models.sharded import StoredTensors

        with StoredTensors(self.files) as stored:
            yield _Named(stored, self.checkpoint, self.dtype if self.file is None else None)

    @contextlib.contextmanager
    def rewritten(self) -> Iterator[Iterable[tuple[str, Tensor]]]:
        """Its parameters in fp32, one after the other: what the block makes of one, in place, is
        written when it asks for the next.  At its end the model has what was written."""
        new = self._new()
        with self.tensors() as tensors, new.open("wb") as out:
            assert isinstance(tensors, _Named)
            shapes = {name: tensors.shape(name) for name in tensors}
            places = [(name, "F32", shape, 4 * math.prod(shape)) for name, shape in shapes.items()]
            out.write(encode_header(places, {}))

            def each() -> Iterator[tuple[str, Tensor]]:
                for name in shapes:
                    # What is read may be the file itself, mapped into memory.
                    tensor = tensors[name].to(torch.float32, copy=True).contiguous()
                    yield name, tensor
                    out.write(tensor.numpy().tobytes())

            yield each()
        self._has(new)

    def _new(self) -> Path:
        assert self.folder is not None, "a model that stays as it is"
        new = self.folder / f"new-{WEIGHTS_FILE}"
        new.unlink(missing_ok=True)
        return new

    def _has(self, new: Path) -> None:
        assert self.folder is not None
        self.file = self.folder / WEIGHTS_FILE
        os.replace(new, self.file)


#: A model of a study: in this process's memory, or in files.
AnyModel = Model | StoredModel


def in_memory(model: AnyModel) -> Model:
    """The model, for what reads its weights or runs it here; raises :class:`SpringbackError` where
    it lies in files."""
    if isinstance(model, StoredModel):
        raise SpringbackError(
            describe(
                "something in the study's own process that runs a model or reads its weights, "
                "though --accelerate (FSDP) has them sharded over other processes",
                "what asks the meter: NLL, KL, samples",
                "leave it out, or --accelerate",
            )
        )
    return model


@contextlib.contextmanager
def parameters_to_change(model: AnyModel) -> Iterator[Iterable[tuple[str, Tensor]]]:
    """What training changes, by name and one after the other, to be changed in place."""
    if isinstance(model, StoredModel):
        with model.rewritten() as parameters:
            yield parameters
    else:
        yield trainable(model).items()


@contextlib.contextmanager
def parameters_to_read(model: AnyModel) -> Iterator[Mapping[str, Tensor]]:
    """All of its parameters by name."""
    if isinstance(model, StoredModel):
        with model.tensors() as tensors:
            yield tensors
    else:
        yield dict(model.named_parameters())


class _Named(Mapping[str, Tensor]):
    """Stored tensors by the names of a model's parameters, tied ones once."""

    def __init__(
        self, stored: StoredTensors, checkpoint: Checkpoint, dtype: torch.dtype | None
    ) -> None:
        from springback.models.sharded import parameters_of

        self.stored, self.dtype = stored, dtype
        self.names = {
            names[0]: next((n for n in names if n in stored.files), names[0])
            for names, _ in parameters_of(checkpoint)
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return self.stored.shape(self.names[name])

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.stored.whole(self.names[name])
        return tensor if self.dtype is None else tensor.to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
