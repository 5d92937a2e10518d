"""theta_ep = theta_ft + mu * (theta_ft - theta_early) on blocks of bytes (paper B, eq. of ME).

Everything is computed in float64 and rounded once on the way out (bfloat16: through float32),
which costs little beside reading and hashing and makes the reported rounding error exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from springback.weights.io.safetensors import FLOAT_BYTES

#: Elements worked on at a time: three float64 blocks of this size stay in a core's cache.
BLOCK = 1 << 15

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_NUMPY: dict[str, npt.DTypeLike] = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


@dataclass
class Tally:
    """Sums over elements: changed values, ||written - exact||^2, ||mu * delta||^2.

    For a low-rank step also ||delta||^2 of the matrices and what their top directions hold of it.
    """

    parameters: int = 0
    changed: int = 0
    error_sq: float = 0.0
    step_sq: float = 0.0
    energy: float = 0.0
    kept: float = 0.0

    def add(self, other: Tally) -> None:
        self.parameters += other.parameters
        self.changed += other.changed
        self.error_sq += other.error_sq
        self.step_sq += other.step_sq
        self.energy += other.energy
        self.kept += other.kept

    @property
    def finite(self) -> bool:
        """False if any value read or written was NaN or infinite (or a square overflowed)."""
        return math.isfinite(self.error_sq) and math.isfinite(self.step_sq)


def decode(raw: Bytes, code: str) -> Floats:
    """Bytes of a float dtype as float64, exactly; [n * bytes] -> [n]."""
    if code == "BF16":  # bfloat16 is the upper half of a float32
        wide = np.left_shift(raw.view(np.uint16), 16, dtype=np.uint32)
        values: npt.NDArray[Any] = wide.view(np.float32)
    else:
        values = raw.view(_NUMPY[code])
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return values.astype(np.float64)


def encode(values: Floats, code: str, out: Bytes) -> None:
    """Write float64 values into the bytes ``out``, rounding to nearest, ties to even."""
    if code != "BF16":
        out.view(_NUMPY[code])[...] = values
        return
    bits = values.astype(np.float32).view(np.uint32)
    # Adding just under half of the last kept bit, and that bit itself, makes the carry out of
    # the lower half round to nearest even.  NaN may come out as anything: the caller checks.
    odd = np.right_shift(bits, 16)
    odd &= 1
    odd += 0x7FFF
    bits += odd
    bits >>= 16
    out.view(np.uint16)[...] = bits


#: A checkpoint before theta_ft: its weight in the direction (direction.py) and its bytes.
Earlier = tuple[float, Bytes]
#: Writes one block of the output: from the bytes of each input and the first element's number.
WriteBlock = Callable[[list[Bytes], int, Bytes], Tally]


def difference(earlier: Sequence[Earlier], ft: Floats, codes: Sequence[str]) -> Floats:
    """sum_i w_i (theta_ft - theta_i) over the same elements of each checkpoint.

    ``codes``: the safetensors dtype of each earlier one.
    """
    total: Floats | None = None
    for (weight, raw), code in zip(earlier, codes, strict=True):
        work = decode(raw, code)
        np.subtract(ft, work, out=work)
        if weight != 1.0:
            work *= weight
        total = work if total is None else np.add(total, work, out=total)
    assert total is not None
    return total


def place(before: Floats, move: Floats, out: Bytes, code: str, *, still: bool = False) -> Tally:
    """Write ``before + move`` into ``out``, rounded once; ``move`` is used up.

    ``still``: the move is zero, and ``before`` is written bit for bit (-0.0 + 0.0 would be 0.0).
    """
    tally = Tally(parameters=before.size, step_sq=float(np.einsum("i,i->", move, move)))
    if still:
        move[...] = before
    else:
        move += before
    encode(move, code, out)
    written = decode(out, code)
    tally.changed = int(np.count_nonzero(written != before))
    move -= written
    tally.error_sq = float(np.einsum("i,i->", move, move))
    return tally


def by_blocks(
    raws: Sequence[Bytes], codes: Sequence[str], code_out: str, block: int, write: WriteBlock
) -> tuple[Bytes, Tally]:
    """One stretch of a tensor, ``block`` elements at a time: the new bytes and what changed.

    ``codes`` are the safetensors dtypes of ``raws``.  Values that are not finite are written all
    the same and show in ``Tally.finite``.
    """
    widths, width_out = [FLOAT_BYTES[code] for code in codes], FLOAT_BYTES[code_out]
    size = raws[-1].size // widths[-1]
    out, tally = np.empty(size * width_out, np.uint8), Tally()
    with np.errstate(all="ignore"):  # overflow is looked for in the sums
        for first in range(0, size, block):
            end = first + block
            here = [raw[first * w : end * w] for raw, w in zip(raws, widths, strict=True)]
            tally.add(write(here, first, out[first * width_out : end * width_out]))
    return out, tally


def step(
    earlier: Sequence[Earlier], ft: Bytes, mu: float, codes: Sequence[str]
) -> tuple[Bytes, Tally]:
    """One stretch of a tensor moved by mu along the direction; see :func:`by_blocks`.

    ``codes`` are the safetensors dtypes of each input, ft last, and of the output.
    """
    *inputs, code_out = codes
    weights, raws = [weight for weight, _ in earlier], [*(raw for _, raw in earlier), ft]

    def write(here: list[Bytes], first: int, out: Bytes) -> Tally:
        before = decode(here[-1], inputs[-1])
        move = difference(list(zip(weights, here[:-1], strict=True)), before, inputs[:-1])
        move *= mu
        return place(before, move, out, code_out, still=mu == 0.0)

    return by_blocks(raws, inputs, code_out, BLOCK, write)
