"""Adapters written into the weights of their base: for engines and variants without an exact sum.

theta_i = base + scaling_i B_i A_i for each adapter, DoRA included, and from these, tensor by
tensor, theta_ep = theta_ft + mu * direction as for full weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from springback.errors import ModelError
from springback.progress import Progress, Silent
from springback.results.store import real_out
from springback.weights.adapters.embeddings import fit_embeddings
from springback.weights.adapters.reading import (
    Adapter,
    LoraModule,
    check_bases,
    open_adapter,
    require_different_adapters,
)
from springback.weights.arithmetic import (
    BLOCK,
    Bytes,
    Floats,
    Tally,
    by_blocks,
    decode,
    encode,
    place,
)
from springback.weights.direction import (
    Mu,
    check_mu,
    checkpoint_labels,
    checkpoint_steps,
    mu_for,
    mu_text,
)
from springback.weights.extrapolation import (
    Extrapolation,
    direction_weights,
    line_notes,
    shares_text,
)
from springback.weights.io.aligning import EMBEDDING, is_tied, read_config, sound
from springback.weights.io.folder import Weights, open_weights
from springback.weights.io.job import Job, check_settings, run
from springback.weights.io.report import ExtrapolationReport
from springback.weights.io.safetensors import FLOAT_BYTES, Layout, TensorFile
from springback.weights.io.stream import Make, Part, Reader, Source, refuse_not_finite

KIND = "extrapolated, materialised"
#: Elements worked on at a time: a few float64 copies of it a thread.
_STRIDE = 8 * BLOCK
#: Kinds of models whose layers store their weights as (in, out).
_TURNED = ("gpt2", "openai-gpt")


def merge_each(
    adapters: Sequence[str | Path], base: str | Path, folder: Path, progress: Progress | None = None
) -> list[Path]:
    """Each of two or more adapters written into a copy of its base below ``folder``, in fp32."""
    *earlier, ft = adapters
    made = []
    for number, (pair, mu) in enumerate([*(([a, ft], -1.0) for a in earlier), (adapters, 0.0)]):
        made.append(folder / str(number))
        materialise_adapters(pair, base, Extrapolation(mu, "float32"), made[-1], progress)
    return made


def materialise_adapters(
    adapters: Sequence[str | Path],
    base: str | Path,
    how: Extrapolation,
    out: str | Path,
    progress: Progress | None = None,
) -> ExtrapolationReport:
    """Write base + extrapolated adapters as the full model folder ``out``.

    ``out`` has the base's files, tensor names and (with ``dtype`` auto) dtypes, its config, and
    ft's tokenizer files over the base's.  Takes DoRA on linear layers beside plain LoRA, biases
    and modules_to_save; with these, embeddings may have another number of rows than the base's,
    and may be untied from each other, which its config then says.  Resumes and is recognised as
    :func:`extrapolate`'s output is.  Memory: the stream's, and the factors of one tensor in
    float64.  ``changed_share`` counts against theta_ft rounded alike; ``rounding_error`` holds all
    rounding of the sum base + adapter.

    Raises :class:`ModelError` for what adapters touch and the base does not hold: other tensor
    names, other shapes, and layers tied to the embedding, where one tensor cannot be two.
    """
    workers, mu = check_settings(how.dtype, how.threads), check_mu(how.mu)
    if how.low_rank is not None:
        raise ModelError("low-rank steps are for full weights; for adapters use --svd-rank")
    folders = [Path(folder) for folder in adapters]
    steps = checkpoint_steps(folders, how.steps)
    opened = [open_adapter(folder, dora=True) for folder in folders]
    speaker = progress or Silent()
    notes = (*line_notes(folders, steps, how.shares, speaker), *check_bases(opened, base))
    raw = sound(open_weights(base))
    opened = [_turned_as(adapter, raw) for adapter in opened]
    opened, weights, config = fit_embeddings(opened, raw)
    _require_fit(opened, weights)
    touched = {n: _Tensor.of(n, opened, weights) for n in weights.tensors}
    labels = checkpoint_labels(len(opened))
    inputs = {label: a.weights for label, a in zip(labels, opened, strict=True)}
    line = _Merge(tuple(opened), direction_weights(steps, how.shares), mu)
    direction = list(steps) if how.shares is None else {"shares": list(how.shares)}
    job = Job(
        inputs={**inputs, "base": weights},
        model=weights,
        settings={"kind": KIND, "mu": mu, "dtype": how.dtype, "direction": direction},
        plan=lambda file, layout: _parts(line, touched, file, layout),
        text=_card_text(mu, len(opened), how.shares),
        out=real_out(out),
        threads=workers,
        progress=speaker,
        memory=max((t.memory() for t in touched.values()), default=0),
        notes=notes,
        over=opened[-1].root,
        config=config,
        check=partial(require_different_adapters, opened),
    )
    return run(job)


def _turned_as(adapter: Adapter, base: Weights) -> Adapter:
    """``adapter`` with fan_in_fan_out as the base's layers are, which PEFT goes by too."""
    kind = read_config(base).get("model_type")
    if kind is None:
        return adapter
    return replace(adapter, config={**adapter.config, "fan_in_fan_out": kind in _TURNED})


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the base and, for each adapter, what it does to it (None: nothing)."""

    source: Source
    full: tuple[Source | None, ...]
    lora: tuple[LoraModule | None, ...]
    bias: tuple[LoraModule | None, ...]

    @classmethod
    def of(cls, name: str, adapters: Sequence[Adapter], base: Weights) -> _Tensor:
        module, _, leaf = name.rpartition(".")
        full, lora, bias = [], [], []
        for adapter in adapters:
            info = adapter.full.get(name)
            full.append(None if info is None else (adapter.weights.files[0], info))
            lora.append(adapter.modules.get(module) if leaf == "weight" else None)
            biased = adapter.modules.get(module) if leaf == "bias" else None
            bias.append(biased if biased is not None and biased.bias is not None else None)
        return cls(base.tensors[name], tuple(full), tuple(lora), tuple(bias))

    @property
    def reads_base(self) -> bool:
        """Whether some adapter leaves the base's values in, or adds to them."""
        return any(whole is None for whole in self.full)

    def read(self) -> tuple[Source, ...]:
        """What the pieces are made of: the base, and each tensor that stands in for it."""
        base = (self.source,) if self.reads_base else ()
        return (*base, *(s for s in self.full if s is not None))

    @property
    def touched(self) -> bool:
        return any(x is not None for x in (*self.full, *self.lora, *self.bias))

    def memory(self) -> int:
        """Bytes of the factors in float64."""
        shape = self.source[1].shape
        return 8 * sum(m.rank * sum(shape) for m in self.lora if m is not None)


def _require_fit(adapters: Sequence[Adapter], base: Weights) -> None:
    """Raise unless every tensor that an adapter touches is one of the base's own."""
    tied = is_tied(base)
    for adapter in adapters:
        wanted = dict.fromkeys(adapter.full, "")
        for module in adapter.modules.values():
            wanted[f"{module.name}.weight"] = module.name
            if module.bias is not None:
                wanted[f"{module.name}.bias"] = module.name
        for name, module_name in wanted.items():
            if name not in base.tensors:
                raise ModelError(
                    f"{base.root} has no tensor {name}, which {adapter.root} changes; allowed: the "
                    "base model as it was trained on, with untied layers where they were trained"
                )
            if tied and module_name and EMBEDDING.search(name):
                raise ModelError(
                    f"{adapter.root} changes {name}, which the base ties to its other embedding, "
                    "so one tensor would have to be two; write an adapter instead"
                )
            if name in adapter.full and adapter.full[name].shape != base.tensors[name][1].shape:
                raise ModelError(
                    f"{name} is {list(adapter.full[name].shape)} in {adapter.root} and "
                    f"{list(base.tensors[name][1].shape)} in {base.root}; resize the base first "
                    "(resize_token_embeddings, save_pretrained)"
                )
            if module_name and name.endswith(".weight"):
                _orientation(adapter, adapter.modules[module_name], base.tensors[name][1].shape)


def _orientation(adapter: Adapter, module: LoraModule, shape: tuple[int, ...]) -> bool:
    """Whether the base stores the module's weight as (in, out), that is (B A)^T is added."""
    high, wide = module.b.shape[0], module.a.shape[1]
    turned = module.embedding or bool(adapter.config.get("fan_in_fan_out"))
    if shape == (high, wide) and not (turned and high == wide) and not module.embedding:
        return False
    if shape == (wide, high) and turned:
        if module.magnitude is not None:
            raise ModelError(
                f"{module.name} has DoRA on a weight stored as (in, out), which is not taken; "
                "merge it with merge_and_unload in PEFT"
            )
        return True
    raise ModelError(
        f"{module.name} has LoRA of {high} x {wide} in {adapter.root} on a weight {list(shape)}; "
        "name the base model that the adapter was trained on"
    )


@dataclass(frozen=True)
class _Merge:
    """The adapters, their weights in the direction (ft's left out), and mu."""

    adapters: tuple[Adapter, ...]
    weights: tuple[float, ...]
    mu: Mu


def _parts(
    line: _Merge, touched: dict[str, _Tensor], file: TensorFile, layout: Layout
) -> Iterator[Part]:
    for info, code, start in layout.entries:
        tensor = touched[info.name]
        if info.code not in FLOAT_BYTES:
            yield Part(info, code, start, (tensor.source,), lambda _: _copy)
            continue
        row = info.shape[1] if any(m is not None for m in tensor.lora) else 1
        begin = _begin(line, tensor, info.name, code)
        yield Part(info, code, start, tensor.read(), begin, row)


#: What an adapter does to consecutive elements of a tensor, from the first one on.
_Change = Callable[[Floats, int], Floats]


def _copy(raws: Sequence[Bytes], first: int) -> tuple[Bytes, Tally]:
    return raws[0], Tally()


def _begin(line: _Merge, tensor: _Tensor, name: str, code: str) -> Callable[[Reader], Make]:
    def begin(reader: Reader) -> Make:
        change = [_change(adapter, tensor, i, reader) for i, adapter in enumerate(line.adapters)]
        mu = mu_for(line.mu, name)

        codes = [info.code for _, info in tensor.read()]
        columns = tensor.source[1].shape[1] if any(tensor.lora) else 1
        block = max(1, _STRIDE // columns) * columns

        def decoded(raws: Sequence[Bytes]) -> list[Floats]:
            return [decode(raw, c) for raw, c in zip(raws, codes, strict=True)]

        def make(raws: Sequence[Bytes], first: int) -> tuple[Bytes, Tally]:
            def write(here: list[Bytes], offset: int, there: Bytes) -> Tally:
                thetas = _thetas(tensor, change, decoded(here), first + offset)
                move = np.zeros_like(thetas[-1])
                for weight, theta in zip(line.weights, thetas[:-1], strict=True):
                    move += mu * weight * (thetas[-1] - theta)
                return _place(thetas[-1], move, there, code, mu, touched=tensor.touched)

            out, tally = by_blocks(raws, codes, code, block, write)
            if not tally.finite:
                fine = all(np.isfinite(values).all() for values in decoded(raws))
                raise refuse_not_finite(name, [("the base or an adapter", fine)], mu, code)
            return out, tally

        return make

    return begin


def _change(adapter: Adapter, tensor: _Tensor, i: int, reader: Reader) -> _Change:
    """The function from (values, first element) to the values with adapter ``i`` in them."""
    lora, bias = tensor.lora[i], tensor.bias[i]
    if bias is not None:
        assert bias.bias is not None
        added = bias.scaling * adapter.values(reader, bias.bias)
        return lambda values, first: values + added[first : first + values.size]
    if lora is None:
        return lambda values, first: values
    factors = adapter.factors(reader, lora.name)
    assert factors is not None
    left, right = factors
    shape = tensor.source[1].shape
    if _orientation(adapter, lora, shape):
        left, right = right.T, left.T
    magnitude = None if lora.magnitude is None else adapter.values(reader, lora.magnitude)

    def merge(values: Floats, first: int) -> Floats:
        rows = slice(first // shape[1], (first + values.size) // shape[1])
        merged = values.reshape(-1, shape[1]) + left[rows] @ right
        if magnitude is not None:  # DoRA: each row has the length that was learned
            merged *= (magnitude[rows] / np.linalg.norm(merged, axis=1))[:, None]
        result: Floats = merged.reshape(-1)
        return result

    return merge


def _thetas(
    tensor: _Tensor, change: Sequence[_Change], here: Sequence[Floats], first: int
) -> list[Floats]:
    """The merged values of each adapter over the same elements."""
    thetas, whole = [], iter(here[1:] if tensor.reads_base else here)
    for source, apply in zip(tensor.full, change, strict=True):
        thetas.append(apply(next(whole) if source is not None else here[0], first))
    return thetas


def _place(ft: Floats, move: Floats, out: Bytes, code: str, mu: float, *, touched: bool) -> Tally:
    """:func:`place`, with changes counted against theta_ft rounded to the dtype written."""
    rounded = np.empty(out.size, np.uint8)
    encode(ft, code, rounded)
    tally = place(ft, move, out, code, still=mu == 0.0 or not touched)
    tally.changed = int(np.count_nonzero(decode(out, code) != decode(rounded, code)))
    return tally


def _card_text(mu: Mu, count: int, shares: Sequence[float] | None) -> tuple[str, ...]:
    if shares is not None:
        return (*shares_text(shares), "Each is the base with an adapter merged in.")
    return (
        f"`theta_ep = theta_ft + mu * (theta_ft - theta_early)` with mu = {mu_text(mu)}, where",
        f"both are the base with an adapter merged in ({count} adapters went in): the weights",
        "moved on along the line from an early checkpoint to the fine-tuned one, without training",
        "(EpiCoDe, Tao et al., arXiv 2506.03489).",
    )
