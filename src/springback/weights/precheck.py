"""Is it safe to extrapolate?  Measures of the line through the checkpoints of a run, and a verdict.

Everything but the share of rank 1 follows from inner products of theta_i - theta_n, which one
pass over the checkpoints gives, a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from springback.errors import ModelError
from springback.progress import Progress, Silent
from springback.weights.arithmetic import BLOCK, Floats, decode
from springback.weights.direction import checkpoint_steps, slope_weights
from springback.weights.extrapolation import (
    Line,
    differing_integers,
    direction_rows,
    open_checkpoints,
)
from springback.weights.io.aligning import equal_values
from springback.weights.io.job import check_settings
from springback.weights.io.safetensors import FLOAT_BYTES, TensorInfo
from springback.weights.io.stream import PIECE, Reader
from springback.weights.lowrank import top_directions

#: Heuristics of :func:`judge`, chosen by argument and not by experiment.  An update of more than
#: this share of the weights' norm is large.
LARGE = 0.1
#: Successive updates whose cosine is not above this turn back.
TURN = 0.0
#: A fall of validation NLL counts from this many standard errors on.
ERRORS = 2.0


@dataclass(frozen=True)
class Precheck:
    """How straight the line through the checkpoints is.

    ``norms``: ||theta_{i+1} - theta_i|| over all float tensors, ``relative``: over ||theta_n||.
    ``cosines``: of each update with the next; 1 is a straight line, 0 is what random steps give,
    below 0 the run turned back.
    ``r2``: R^2 of linear motion, 1 - sum (theta_i - line_i)^2 / sum (theta_i - mean)^2 over all
    checkpoints and weights, with a least-squares line along the steps for each weight; weights
    that move more count more.  1 is linear.  ``r2_walk``: what a random walk over the same steps
    gives (0.75 for three equally far apart), which is where "not linear" begins.  Both None for
    two checkpoints.
    ``rank1``: share of the direction's squared norm in the top singular direction of each matrix,
    over all matrices; None without any.  Higher means that a low-rank step keeps more.
    """

    steps: tuple[float, ...]
    parameters: int
    norms: tuple[float, ...]
    relative: tuple[float, ...]
    cosines: tuple[float, ...]
    r2: float | None
    r2_walk: float | None
    rank1: float | None

    def lines(self) -> list[str]:
        """The numbers as sentences, one a line."""
        lines = [f"checkpoints at steps {', '.join(f'{s:g}' for s in self.steps)}"]
        for i, (norm, share) in enumerate(zip(self.norms, self.relative, strict=True), 1):
            lines.append(f"update {i}: norm {norm:.4g}, {100 * share:.3g} % of the weights")
        for i, cosine in enumerate(self.cosines, 1):
            lines.append(f"cosine of updates {i} and {i + 1}: {cosine:.3f}")
        if self.r2 is not None and self.r2_walk is not None:
            walk = f"a random walk: {self.r2_walk:.4f}"
            lines.append(f"R^2 of linear motion: {self.r2:.4f} ({walk})")
        if self.rank1 is not None:
            lines.append(f"share of the direction in rank 1: {100 * self.rank1:.1f} %")
        return lines


@dataclass(frozen=True)
class Call:
    """``safe``, ``risky`` or ``no gain expected``, and why; heuristics, not a promise."""

    label: str
    reasons: tuple[str, ...]


def check_line(
    checkpoints: Sequence[str | Path],
    *,
    steps: tuple[float, ...] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Precheck:
    """Read two or more checkpoints of one run, tensor by tensor, and measure their line.

    Memory as for :func:`springback.weights.extrapolate`, plus 8 n * 33 bytes for the widest
    matrix, n columns.  Reads everything once, and matrices up to 20 times more for ``rank1``.
    Raises :class:`ModelError` for checkpoints that do not fit each other or hold NaN or infinity.
    """
    folders = [Path(folder) for folder in checkpoints]
    times = checkpoint_steps(folders, steps)
    weights = open_checkpoints(folders)
    line = Line(tuple(weights[:-1]), weights[-1], slope_weights(times))
    floats = [t for _, t in line.ft.tensors.values() if t.code in FLOAT_BYTES and t.size]
    workers = check_settings("auto", threads)
    speaker = progress or Silent()
    speaker.stage("checking the line", len(floats))
    count = len(weights)
    rest = line.ft.tensors.keys() - {info.name for info in floats}
    gram, norm, energy, kept = np.zeros((count, count)), 0.0, 0.0, 0.0
    try:
        with Reader() as reader, ThreadPoolExecutor(workers, "springback-precheck") as pool:
            for name in sorted(rest):
                *earlier, last = line.sources(name)
                if not all(equal_values(reader, source, last) for source in earlier):
                    raise differing_integers(name)
            for info in floats:
                part, size = _products(line, info, reader, pool)
                if not (np.isfinite(part).all() and math.isfinite(size)):
                    raise _not_finite(info.name)
                gram, norm = gram + part, norm + size
                if len(info.shape) == 2:
                    rows = direction_rows(line, info.name, reader)
                    block = max(1, PIECE // info.shape[1])
                    shape = (info.shape[0], info.shape[1])
                    top = top_directions(rows, shape, 1, block=block, tolerance=1e-4)
                    energy, kept = energy + top.energy, kept + top.kept
                speaker.advance(1, info.name)
    finally:
        speaker.close()
    share = kept / energy if energy else None
    return summary(gram, norm, times, sum(t.size for t in floats), share)


def inner_products(checkpoints: Sequence[str | Path], progress: Progress | None = None) -> Floats:
    """<theta_i - theta_n, theta_j - theta_n> over all float tensors, (n - 1, n - 1), of two or more
    checkpoints of one run; reads each once.

    Raises as :func:`check_line`.
    """
    weights = open_checkpoints([Path(folder) for folder in checkpoints])
    line = Line(tuple(weights[:-1]), weights[-1], (1.0,) * (len(weights) - 1))
    floats = [t for _, t in line.ft.tensors.values() if t.code in FLOAT_BYTES and t.size]
    speaker = progress or Silent()
    speaker.stage("measuring the run", len(floats))
    gram = np.zeros((len(weights), len(weights)))
    try:
        with Reader() as reader, ThreadPoolExecutor(check_settings("auto", None)) as pool:
            for info in floats:
                part, _ = _products(line, info, reader, pool)
                if not np.isfinite(part).all():
                    raise _not_finite(info.name)
                gram += part
                speaker.advance(1, info.name)
    finally:
        speaker.close()
    return gram[:-1, :-1]


def _not_finite(name: str) -> ModelError:
    return ModelError(
        f"{name} holds NaN or infinity in one of the checkpoints; allowed: finite weights; take "
        "other checkpoints"
    )


def _products(
    line: Line, info: TensorInfo, reader: Reader, pool: ThreadPoolExecutor
) -> tuple[Floats, float]:
    """Inner products of theta_i - theta_n over one tensor, (n, n), and ||theta_n||^2."""
    sources, codes = line.sources(info.name), line.codes(info.name)
    size = 2 * PIECE // len(sources)

    def work(first: int) -> tuple[Floats, float]:
        count = min(size, info.size - first)
        raws = [reader.read(source, first, count) for source in sources]
        gram, norm = np.zeros((len(raws), len(raws))), 0.0
        with np.errstate(all="ignore"):
            for offset in range(0, count, BLOCK):
                here = [
                    raw[offset * FLOAT_BYTES[c] : (offset + BLOCK) * FLOAT_BYTES[c]]
                    for raw, c in zip(raws, codes, strict=True)
                ]
                values = np.stack([decode(r, c) for r, c in zip(here, codes, strict=True)])
                norm += float(values[-1] @ values[-1])
                values -= values[-1].copy()
                gram += values @ values.T
        return gram, norm

    gram, norm = np.zeros((len(sources), len(sources))), 0.0
    for part, here in pool.map(work, range(0, info.size, size)):  # in order: sums are repeatable
        gram += part
        norm += here
    return gram, norm


def summary(
    gram: Floats, norm: float, steps: tuple[float, ...], parameters: int, rank1: float | None
) -> Precheck:
    """From inner products of theta_i - theta_n, (n, n), ||theta_n||^2 and the share of rank 1."""
    # theta_{i+1} - theta_i in terms of theta_i - theta_n.
    change = np.diff(np.eye(len(steps)), axis=0)
    products = change @ gram @ change.T
    norms = np.sqrt(np.clip(np.diag(products), 0, None))
    cosines = []
    for i in range(len(norms) - 1):
        both = norms[i] * norms[i + 1]
        cosines.append(float(products[i, i + 1] / both) if both else 0.0)
    several = len(steps) > 2
    walk = np.array([[steps[-1] - max(a, b) for a in steps] for b in steps])
    return Precheck(
        steps=steps,
        parameters=parameters,
        norms=tuple(float(n) for n in norms),
        relative=tuple(float(n) / math.sqrt(norm) if norm else 0.0 for n in norms),
        cosines=tuple(cosines),
        r2=r2_of_line(gram, steps) if several else None,
        r2_walk=r2_of_line(walk, steps) if several else None,
        rank1=rank1,
    )


def r2_of_line(gram: Floats, steps: Sequence[float]) -> float | None:
    """R^2 of linear motion (:class:`Precheck`) from inner products of theta_i - theta_n, (n, n).

    With c the steps less their mean, at length 1, the lines hold c^T gram c of the total
    tr(gram) - sum(gram) / n.  None if nothing moves.
    """
    c = np.asarray(steps, float) - fmean(steps)
    c /= np.linalg.norm(c)
    total = float(np.trace(gram) - gram.sum() / len(steps))
    return float(c @ gram @ c) / total if total > 0 else None


def judge(
    check: Precheck,
    nll: Mapping[float, Sequence[float]] | None = None,
    *,
    withheld: bool = False,
) -> Call:
    """Whether to extrapolate, by the thresholds above; heuristics.

    ``nll``: validation NLL a text at each mu (:func:`springback.probes.along_mu.nll_along_mu`), the
    same texts in order, with mu = 0 among them.  ``withheld``: there is no NLL since the answers
    are bare.

    - No gain expected: the last update is zero; or the mean NLL is lowest at mu <= 0, or falls by
      less than :data:`ERRORS` standard errors (paired by text).
    - Risky: the last two updates have a cosine of :data:`TURN` or less; R^2 is nearer to that of a
      random walk than to 1; the last update is over :data:`LARGE` of the weights; or there are two
      checkpoints and no NLL, which say nothing about the line.
    - Safe: none of these.
    """
    if check.norms[-1] == 0:
        return Call("no gain expected", ("the last two checkpoints are equal",))
    gain, evidence = _gain(nll)
    if gain is False:
        return Call("no gain expected", evidence)
    risks = []
    if check.cosines and check.cosines[-1] <= TURN:
        turn = check.cosines[-1]
        risks.append(f"the last update turns back (cosine {turn:.2f} to the one before)")
    if check.r2 is not None and check.r2_walk is not None and check.r2 < (1 + check.r2_walk) / 2:
        risks.append(
            f"the weights do not move on a line: R^2 {check.r2:.3f}, a random walk has "
            f"{check.r2_walk:.3f}"
        )
    if check.relative[-1] > LARGE:
        risks.append(f"the last update is large: {check.relative[-1]:.1%} of the weights' norm")
    if gain is None and check.r2 is None:
        more = "worked solutions" if withheld else "--validation"
        risks.append(f"two checkpoints say nothing about the line; give a third, or {more}")
    if risks:
        return Call("risky", (*risks, *evidence))
    lines = () if check.r2 is None else (f"the weights move on a line: R^2 {check.r2:.3f}",)
    return Call("safe", (*lines, *evidence))


def _gain(nll: Mapping[float, Sequence[float]] | None) -> tuple[bool | None, tuple[str, ...]]:
    """Whether validation NLL falls past mu = 0 (None: not measured), and the sentences for it."""
    if nll is None:
        return None, ()
    means = {mu: fmean(values) for mu, values in nll.items()}
    best = min(means, key=lambda mu: (means[mu], abs(mu)))
    if best <= 0:
        return False, (f"validation NLL is lowest at mu {best:g}",)
    paired = [a - b for a, b in zip(nll[best], nll[0.0], strict=True)]
    error = stdev(paired) / math.sqrt(len(paired)) if len(paired) > 1 else math.inf
    sentence = f"validation NLL at mu {best:g} is {-fmean(paired):.4f} nats a token below mu 0"
    if -fmean(paired) < ERRORS * error:
        return False, (f"{sentence}, within {ERRORS:g} standard errors ({error:.4f})",)
    return True, (sentence,)
