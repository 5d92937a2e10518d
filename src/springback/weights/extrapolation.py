"""Full weights: theta_ft + mu * direction, tensor by tensor (paper B: ME)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from springback.errors import ModelError, describe
from springback.progress import Progress, Silent, default_progress
from springback.results.store import real_out
from springback.weights.arithmetic import (
    BLOCK,
    Bytes,
    Earlier,
    Floats,
    Tally,
    by_blocks,
    decode,
    difference,
    place,
    step,
)
from springback.weights.direction import (
    OTHER,
    Mu,
    check_mu,
    checkpoint_labels,
    checkpoint_steps,
    group_of,
    mu_for,
    mu_text,
    order_notes,
    share_weights,
    slope_weights,
)
from springback.weights.io.aligning import align, read_config, require_different
from springback.weights.io.folder import ADAPTER_CONFIG, Weights, open_weights
from springback.weights.io.job import Job, Spread, check_settings, run
from springback.weights.io.report import KIND, ExtrapolationReport, OutputDtype
from springback.weights.io.safetensors import FLOAT_BYTES, Layout, TensorFile
from springback.weights.io.stream import PIECE, Make, Part, Reader, Source, refuse_not_finite
from springback.weights.lowrank import Rows, memory_needed, top_directions

#: A low-rank step is taken on this many elements at a time.
_MATRIX_BLOCK = 8 * BLOCK
#: Ways to quantise that leave no weights in full.
_PACKED = ("bitsandbytes", "gptq", "awq", "fp8", "mxfp4")


@dataclass(frozen=True)
class Extrapolation:
    """How to extrapolate: everything but the folders.

    ``mu``: one number, or one a group (``attention``, ``mlp``, ``embeddings``, ``norms``, and
    ``other`` for every tensor whose group is not named; without it such tensors stay as they
    are).  ``steps``: training steps of the checkpoints; None reads them from folders named
    ``checkpoint-<step>``, else takes them as equally far apart.  ``low_rank``: move each matrix
    along the top K singular directions of its update only; a vector has rank 1 and moves whole,
    and so do tensors of three and more dimensions, which the report names.  ``shares``: one a
    checkpoint; the direction leads from the last of them to their weighted average
    (:func:`springback.weights.direction.share_weights`), which mu = 1 is.
    """

    mu: Mu
    dtype: OutputDtype = "auto"
    steps: tuple[float, ...] | None = None
    low_rank: int | None = None
    threads: int | None = None
    shares: tuple[float, ...] | None = None


def extrapolate(
    early: str | Path,
    ft: str | Path,
    mu: float,
    out: str | Path,
    *,
    dtype: OutputDtype = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExtrapolationReport:
    """Write theta_ft + mu * (theta_ft - theta_early) as the model folder ``out`` (paper B, ME).

    ``early`` and ``ft`` are folders with safetensors weights of the same names and shapes (but for
    what :mod:`springback.weights.io.aligning` brings together), in dtypes and shards as they
    like; ``out`` is sharded as ``ft``, in the dtype of each of its
    tensors or in ``dtype``, with ft's tokenizer and configs, ``springback.json`` and a model
    card.  Tensors that are not floats must be equal in both and are copied.  mu = 0 gives ft's
    tensors to the bit, mu = -1 gives early within one rounding.

    At most about 150 MB of memory whatever the model; no torch.  ``out`` appears when it is
    whole.  A call that was cut off leaves ``.<name>.partial`` beside it, and the same call goes
    on from the last finished shard.  If ``out`` is the result of the same inputs already, its
    report is returned.

    Raises :class:`ModelError` for weights that are missing, pickled, of an adapter, equal, do not
    fit each other or their config, or give NaN or infinity; :class:`StoreError` if ``out`` holds
    something else or is being written; :class:`SpaceError` if the disk is too small.
    """
    how = Extrapolation(mu, dtype, threads=threads)
    with closing(progress or default_progress()) as speaker:
        return extrapolate_along([early, ft], how, out, speaker)


def extrapolate_along(
    checkpoints: Sequence[str | Path],
    how: Extrapolation,
    out: str | Path,
    progress: Progress | None = None,
) -> ExtrapolationReport:
    """:func:`extrapolate` from two or more checkpoints of one run, the last one being theta_ft.

    Writes theta_ft + mu * direction with the direction of :mod:`springback.weights.direction`:
    the least-squares slope through all of them.  The bound on memory holds for any number of
    checkpoints and for mu by group.  A low-rank step adds what
    :func:`springback.weights.lowrank.memory_needed` says for the widest matrix, 8 n (5 K + 32)
    bytes for n columns, and reads each matrix up to 21 times.
    """
    return run(along_job(checkpoints, how, out, progress))


def along_job(
    checkpoints: Sequence[str | Path],
    how: Extrapolation,
    out: str | Path,
    progress: Progress | None = None,
    spread: Spread | None = None,
) -> Job:
    """The job that :func:`extrapolate_along` runs; ``spread`` makes shards on other machines."""
    workers = check_settings(how.dtype, how.threads)
    mu = check_mu(how.mu)
    if how.low_rank is not None and how.low_rank < 1:
        raise ModelError(describe(f"low rank {how.low_rank}", "1 or more", "leave it out for all"))
    folders = [Path(folder) for folder in checkpoints]
    steps = checkpoint_steps(folders, how.steps)
    direction = direction_weights(steps, how.shares)
    weights = open_checkpoints(folders)
    line = Line(tuple(weights[:-1]), weights[-1], direction)
    speaker = progress or Silent()
    order = line_notes(folders, steps, how.shares, speaker)
    leftover = _leftover(line.ft)
    settings: dict[str, Any] = {
        "kind": KIND,
        "mu": mu,
        "dtype": how.dtype,
        "direction": _direction(how, steps),
    }
    return Job(
        inputs=line.labelled(),
        model=line.ft,
        settings=settings,
        plan=lambda file, layout: _parts(line, mu, how.low_rank, file, layout),
        text=_card_text(mu, steps, how.low_rank, how.shares),
        out=real_out(out),
        threads=workers,
        progress=speaker,
        memory=_memory(line.ft, how.low_rank),
        config=leftover,
        notes=(*order, *_notes(line.ft, mu, how.low_rank), *map(_left_out, leftover)),
        spread=spread,
        check=partial(require_different, weights),
    )


def _leftover(ft: Weights) -> dict[str, None]:
    """The key in config.json that says that weights are quantised which are not: merged or
    dequantised ones lie under the config of their base, and no loader takes them so."""
    said = read_config(ft).get("quantization_config")
    kind = said.get("quant_method") if isinstance(said, dict) else None
    whole = all(info.code in FLOAT_BYTES for _, info in ft.tensors.values())
    return {"quantization_config": None} if whole and kind in _PACKED else {}


def _left_out(key: str) -> str:
    return f"config.json has a {key} and the weights are in full, so it was left out"


def direction_weights(steps: Sequence[float], shares: Sequence[float] | None) -> tuple[float, ...]:
    """The direction's weights of the earlier checkpoints: along the steps, or to an average."""
    return slope_weights(steps) if shares is None else share_weights(shares, len(steps))


def _direction(how: Extrapolation, steps: Sequence[float]) -> dict[str, Any] | None:
    """What the record says of the direction; None for the line of two checkpoints."""
    if how.shares is not None:
        return {"shares": list(how.shares), "low_rank": how.low_rank}
    if len(steps) == 2 and how.low_rank is None:
        return None
    return {"steps": list(steps), "low_rank": how.low_rank}


def line_notes(
    folders: Sequence[Path],
    steps: Sequence[float],
    shares: Sequence[float] | None,
    speaker: Progress,
) -> tuple[str, ...]:
    """What to know of checkpoints on a line; of the training steps of three or more, which decide
    the slope, ``speaker`` tells.  Nothing where ``shares`` name a point."""
    if shares is not None:
        return ()
    if len(steps) > 2:
        speaker.note(f"checkpoints taken as of steps {', '.join(f'{step:g}' for step in steps)}")
    return order_notes(folders)


@dataclass(frozen=True)
class Line:
    """Checkpoints of one run: the earlier ones with their weights in the direction, and ft."""

    earlier: tuple[Weights, ...]
    ft: Weights
    weights: tuple[float, ...]

    def labelled(self) -> dict[str, Weights]:
        """early, checkpoint 2, …, ft."""
        everyone = (*self.earlier, self.ft)
        return dict(zip(checkpoint_labels(len(everyone)), everyone, strict=True))

    def sources(self, name: str) -> tuple[Source, ...]:
        """Where a tensor lies in each checkpoint, ft last."""
        return tuple(w.tensors[name] for w in (*self.earlier, self.ft))

    def codes(self, name: str) -> list[str]:
        """The safetensors dtype of a tensor in each checkpoint, ft last."""
        return [info.code for _, info in self.sources(name)]

    def difference(self, raws: Sequence[Bytes], ft: Floats, codes: Sequence[str]) -> Floats:
        """The direction over the elements in ``raws``, one a checkpoint, as are ``codes``."""
        return difference(self.pairs(raws), ft, codes[:-1])

    def pairs(self, raws: Sequence[Bytes]) -> list[Earlier]:
        return list(zip(self.weights, raws[:-1], strict=True))

    def finite(self, raws: Sequence[Bytes], codes: Sequence[str]) -> list[tuple[str, bool]]:
        """Which of the checkpoints hold finite numbers only."""
        names = {"early": "the early model", "ft": "the fine-tuned model"}
        return [
            (names.get(label, label), bool(np.isfinite(decode(raw, code)).all()))
            for label, raw, code in zip(self.labelled(), raws, codes, strict=True)
        ]


def open_checkpoints(folders: Sequence[Path]) -> list[Weights]:
    """The weights of each folder; raises :class:`ModelError` unless they fit each other."""
    for folder in folders:
        if (folder / ADAPTER_CONFIG).exists():
            raise ModelError(
                f"{folder} holds an adapter ({ADAPTER_CONFIG}) where full weights are asked for; "
                "give adapters only (in Python: extrapolate_adapters), or merge it into its base "
                "model first (merge_and_unload in PEFT)"
            )
    return align([open_weights(folder) for folder in folders])


def _parts(
    line: Line, mu: Mu, low_rank: int | None, file: TensorFile, layout: Layout
) -> Iterator[Part]:
    for info, code, start in layout.entries:
        shape, tensor_mu = info.shape, mu_for(mu, info.name)
        sources = line.sources(info.name)
        begin, row = _whole(line, tensor_mu, info.name, code), 1
        if (
            tensor_mu
            and info.code in FLOAT_BYTES
            and low_rank
            and len(shape) == 2
            and low_rank < min(shape)
        ):
            row = shape[1]
            begin = _low(line, tensor_mu, low_rank, sources, code)
        yield Part(info, code, start, sources, begin, row)


def _whole(line: Line, mu: float, name: str, code_out: str) -> Callable[[Reader], Make]:
    """Pieces that take the whole step; ``code_out`` is the dtype written."""
    codes = line.codes(name)

    def make(raws: Sequence[Bytes], first: int) -> tuple[Bytes, Tally]:
        if codes[-1] not in FLOAT_BYTES:
            return copied(name, raws), Tally()
        raw, tally = step(line.pairs(raws), raws[-1], mu, [*codes, code_out])
        if not tally.finite:
            raise refuse_not_finite(name, line.finite(raws, codes), mu, code_out)
        return raw, tally

    return lambda reader: make


def copied(name: str, raws: Sequence[Bytes]) -> Bytes:
    """The bytes of a tensor without floats, which must be equal in all checkpoints."""
    if not all(np.array_equal(raw, raws[-1]) for raw in raws[:-1]):
        raise differing_integers(name)
    return raws[-1]


def differing_integers(name: str) -> ModelError:
    """The error of a tensor without floats that is not equal in all checkpoints."""
    return ModelError(
        f"{name} holds no floats and differs between the models; allowed: "
        "equal in all; dequantise the models, or take checkpoints of one run"
    )


def direction_rows(line: Line, name: str, reader: Reader) -> Rows:
    """Rows of a matrix's direction, as :func:`top_directions` wants them."""
    sources, codes = line.sources(name), line.codes(name)
    columns = sources[-1][1].shape[1]

    def rows(first: int, last: int) -> Floats:
        raws = [reader.read(s, first * columns, (last - first) * columns) for s in sources]
        flat = line.difference(raws, decode(raws[-1], codes[-1]), codes)
        return flat.reshape(last - first, columns)

    return rows


def _low(
    line: Line, mu: float, k: int, sources: tuple[Source, ...], code_out: str
) -> Callable[[Reader], Make]:
    """Pieces that take the step along the top ``k`` singular directions of a matrix only."""
    info = sources[-1][1]
    name, codes, columns = info.name, line.codes(info.name), info.shape[1]

    def begin(reader: Reader) -> Make:
        rows, shape = direction_rows(line, name, reader), (info.shape[0], columns)
        with np.errstate(all="ignore"):
            top = top_directions(rows, shape, k, block=max(1, PIECE // columns))

        def write(here: list[Bytes], first: int, out: Bytes) -> Tally:
            before = decode(here[-1], codes[-1])
            delta = line.difference(here, before, codes).reshape(-1, columns)
            move = top.project(delta).reshape(-1)
            move *= mu
            return place(before, move, out, code_out, still=mu == 0.0)

        def make(raws: Sequence[Bytes], first: int) -> tuple[Bytes, Tally]:
            block = max(1, _MATRIX_BLOCK // columns) * columns
            out, tally = by_blocks(raws, codes, code_out, block, write)
            if first == 0:
                tally.energy, tally.kept = top.energy, top.kept
            if not tally.finite:
                raise refuse_not_finite(name, line.finite(raws, codes), mu, code_out)
            return out, tally

        return make

    return begin


def _memory(ft: Weights, low_rank: int | None) -> int:
    """Bytes that a low-rank step holds beside the pieces."""
    if low_rank is None:
        return 0
    matrices = [(t.shape[0], t.shape[1]) for _, t in ft.tensors.values() if len(t.shape) == 2]
    return max((memory_needed(s, low_rank) for s in matrices if low_rank < min(s)), default=0)


def _notes(ft: Weights, mu: Mu, low_rank: int | None) -> tuple[str, ...]:
    floats = [t for _, t in ft.tensors.values() if t.code in FLOAT_BYTES]
    notes = []
    if not isinstance(mu, float) and (
        names := sorted(t.name for t in floats if group_of(t.name) == OTHER)
    ):
        where = f"take mu {mu[OTHER]:g}" if OTHER in mu else "stay as they are"
        notes.append(f"{len(names)} tensors are in no group and {where}: {', '.join(names)}")
    if low_rank and (names := sorted(t.name for t in floats if len(t.shape) > 2)):
        notes.append(
            f"{len(names)} tensors have more than two dimensions and take the whole step, not its "
            f"top {low_rank} directions: {', '.join(names)}"
        )
    return tuple(notes)


def shares_text(shares: Sequence[float]) -> tuple[str, ...]:
    """Lines of a model card: which point the checkpoints' shares name."""
    taken = ", ".join(f"{share:g}" for share in shares)
    return (
        f"`sum_i w_i theta_i / sum_i w_i` over {len(shares)} checkpoints of one run, with the",
        f"weights {taken}, without training.",
    )


def _card_text(
    mu: Mu, steps: Sequence[float], low_rank: int | None, shares: Sequence[float] | None = None
) -> tuple[str, ...]:
    if shares is not None:
        return shares_text(shares)
    lines = [
        f"`theta_ep = theta_ft + mu * (theta_ft - theta_early)` with mu = {mu_text(mu)}: the",
        "weights moved on along the line from an early checkpoint to the fine-tuned one, without",
        "training (EpiCoDe, Tao et al., arXiv 2506.03489).",
    ]
    if len(steps) > 2:
        taken = ", ".join(f"{step:g}" for step in steps)
        lines.append(
            "In place of the difference stands the least-squares slope through "
            f"{len(steps)} checkpoints (steps {taken}), times the last interval."
        )
    if low_rank:
        lines.append(f"Each matrix moved along the top {low_rank} directions of its update only.")
    return tuple(lines)
