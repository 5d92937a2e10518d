"""A model in memory set to points that checkpoints span, block by block from their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from springback.models.weight_step import rounded
from springback.weights.extrapolation import Line
from springback.weights.io.aligning import equal_values, loose_name, read_config
from springback.weights.io.folder import Weights
from springback.weights.io.safetensors import FLOAT_BYTES
from springback.weights.io.stream import Reader, Source, refuse_not_finite

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
assert _FLOATS.keys() == FLOAT_BYTES.keys()
#: Elements of a block, which is held a few times in float64; on a GPU more, to wait less often.
BLOCK = 1 << 18
GPU_BLOCK = 1 << 24
#: What may differ in the configs of two checkpoints that compute the same with the same weights.
_NAMES = {"_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype"}
_NAMES |= {"use_cache", "bos_token_id", "eos_token_id", "pad_token_id"}


class StoredLine:
    """theta_ft + sum_i w_i (theta_ft - theta_i) written into a model's own tensors.

    ``checkpoints`` are the aligned weights of all of them, the last two being early and ft
    (:func:`springback.weights.extrapolation.open_checkpoints`).  Nothing of them is held in memory.
    """

    def __init__(self, *checkpoints: Weights) -> None:
        *self.earlier, self.ft = checkpoints
        #: Whether a model with ft's config and early's weights is the early model.
        self.same_config = bool(self.earlier) and computing(self.early) == computing(self.ft)

    @property
    def early(self) -> Weights:
        return self.earlier[-1]

    def places(self, model: PreTrainedModel) -> dict[str, str] | None:
        """Which stored tensor each of the model's is, by name; ``model`` has ft's weights.

        None where that cannot be said of every one: Transformers merges or splits some tensors when
        it loads, and offloaded ones are not in memory.  Values are compared, so that a name that
        fits by chance is found out.
        """
        stored = self.ft.tensors
        kinds = Counter(map(loose_name, stored))
        by_loose = {loose_name(n): n for n in stored if kinds[loose_name(n)] == 1}
        places = {}
        with Reader() as reader:
            for names, tensor in _floats(model):
                found = [n if n in stored else by_loose.get(loose_name(n), "") for n in names]
                found = [n for n in dict.fromkeys(found) if n]
                if not (found and tensor.is_contiguous() and not tensor.is_meta):
                    return None
                same = partial(self._same_in_both, reader, found[0])
                if not all(map(same, found[1:])) or not self._holds(reader, tensor, found[0]):
                    return None
                places[names[0]] = found[0]
        return places

    def _same_in_both(self, reader: Reader, one: str, other: str) -> bool:
        """Whether two stored tensors, which the model ties, are equal in each checkpoint."""
        every = [w.tensors for w in (*self.earlier, self.ft)]
        return all(equal_values(reader, t[one], t[other]) for t in every)

    def _holds(self, reader: Reader, tensor: Tensor, name: str) -> bool:
        source = self.ft.tensors[name]
        if source[1].code not in _FLOATS or source[1].shape != tuple(tensor.shape):
            return False
        flat = tensor.detach().view(-1)
        return all(
            torch.equal(flat[b].cpu(), _read(reader, source, b).to(flat.dtype))
            for b in _blocks(flat)
        )

    @torch.no_grad()
    def fill(
        self, model: PreTrainedModel, places: Mapping[str, str], point: Sequence[float] | None
    ) -> None:
        """Set the weights of ``model`` to a point, one w_i for each earlier checkpoint; None: those
        of the early checkpoint.

        Computed in float64, rounded once to the dtype that ft is stored in, as
        :func:`springback.weights.extrapolate` does, and then to the model's.  Where all are 0 ft's
        values are copied.  Raises :class:`springback.errors.ModelError` for what comes out as NaN
        or infinity; the model is then not to be used.
        """
        with Reader() as reader:
            for names, tensor in _floats(model):
                self._set(reader, tensor.detach().view(-1), places[names[0]], point)

    @torch.no_grad()
    def tensors(self, point: Sequence[float]) -> Iterator[tuple[str, Tensor]]:
        """What :meth:`fill` sets, in the dtypes that ft is stored in, by ft's names."""
        with Reader() as reader:
            for name, place in self.ft.tensors.items():
                info = place[1]
                if info.code in _FLOATS:
                    values = torch.empty(info.shape, dtype=_FLOATS[info.code])
                    self._set(reader, values.view(-1), name, point)
                    yield name, values

    def _set(self, reader: Reader, flat: Tensor, name: str, point: Sequence[float] | None) -> None:
        """One stored tensor at a point into ``flat``, block by block."""
        ft = self.ft.tensors[name]
        moved = [
            (w, earlier.tensors[name])
            for w, earlier in zip(point or (), self.earlier, strict=point is not None)
            if w
        ]
        for block in _blocks(flat):
            if moved:
                values = _step(reader, moved, ft, block, flat.device)
            else:  # as in springback.weights: -0.0 stays
                source = self.early.tensors[name] if point is None else ft
                values = _read(reader, source, block)
            if not values.sum(dtype=torch.float64).isfinite():
                raise self._refusal(name, max(map(abs, point or (0.0,))))
            flat[block] = values.to(flat.dtype)

    def _refusal(self, name: str, mu: float) -> Exception:
        line = Line(tuple(self.earlier), self.ft, (1.0,) * len(self.earlier))
        with Reader() as reader:
            raws = [reader.read(s, 0, s[1].size) for s in line.sources(name)]
        codes = line.codes(name)
        return refuse_not_finite(name, line.finite(raws, codes), mu, codes[-1])


def _step(
    reader: Reader,
    moved: Sequence[tuple[float, Source]],
    ft: Source,
    block: slice,
    device: torch.device,
) -> Tensor:
    """A block moved to a point, in the dtype of ``ft``: of two checkpoints along their line."""
    # Apple's accelerator has no float64.
    where = device if device.type == "cuda" else torch.device("cpu")
    after = _read(reader, ft, block).to(where).double()  # moved as stored, then widened
    total: Tensor | None = None
    for weight, source in moved:
        step = after - _read(reader, source, block).to(where).double()
        step *= weight
        total = step if total is None else total.add_(step)
    assert total is not None
    total += after
    return rounded(total, _FLOATS[ft[1].code])


def _read(reader: Reader, source: Source, block: slice) -> Tensor:
    raw = reader.read(source, block.start, block.stop - block.start)
    return torch.from_numpy(raw).view(_FLOATS[source[1].code])


def _blocks(flat: Tensor) -> Iterator[slice]:
    size = GPU_BLOCK if flat.is_cuda else BLOCK
    for first in range(0, flat.numel(), size):
        yield slice(first, min(first + size, flat.numel()))


def _floats(model: PreTrainedModel) -> list[tuple[list[str], Tensor]]:
    """What the model stores of floats, each tensor once with all of its names."""
    tensors: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensors.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(tensors.values())


def computing(weights: Weights) -> dict[str, object]:
    config = read_config(weights, lenient=True)
    return {key: value for key, value in config.items() if key not in _NAMES}
