"""A model with its tokenizer, ready to code: its identity, its limits, what a header must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from springback.compression.coder import PRECISION
from springback.compression.container import HASH, Header
from springback.compression.settings import MOST_THREADS
from springback.compression.text_spans import tokenizer_hash
from springback.core import byte_size
from springback.errors import CodecError, ModelError, SpaceError, describe
from springback.models.loading import Tokenizer, load_model, load_tokenizer, resolve
from springback.models.placement import Placement, accelerator, wide_device
from springback.results.provenance import available_memory

if TYPE_CHECKING:
    from springback.compression.settings import CodecSettings

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True)
class CodecModel:
    """What :func:`load_codec_model` loads.  ``start`` is the token that every chunk comes after."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    name: str
    dtype: str
    weights: bytes
    tokens: bytes
    start: int

    @property
    def vocabulary(self) -> int:
        """Tokens that the model gives a probability; more than the tokenizer's if padded."""
        model: Any = self.model
        return int(model.get_output_embeddings().weight.shape[0])

    @property
    def machine(self) -> str:
        """The instruction set that torch uses, or the accelerator."""
        if self.model.device.type == "cuda":
            return torch.cuda.get_device_name()
        return torch.backends.cpu.get_cpu_capability()

    def header(self, settings: CodecSettings, chunk: int) -> Header:
        """The header of a container made with this model on this machine."""
        return Header(
            model=self.weights,
            tokenizer=self.tokens,
            dtype=self.dtype,
            device=self.model.device.type,
            chunk=chunk,
            batch=settings.batch,
            threads=settings.threads or torch.get_num_threads(),
            start=self.start,
            torch=str(torch.__version__),
            machine=self.machine,
            name=self.name,
        )

    def fit(self, chunk: int) -> int:
        """``chunk``, or less where the model reads no further; the start token counts too."""
        config = self.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        return chunk if not longest else min(chunk, int(longest))

    def check_memory(self, lengths: Sequence[Sequence[int]]) -> None:
        """Raise :class:`SpaceError` if the caches of the largest group do not fit."""
        if self.model.device.type != "cpu" or not lengths:
            return
        needed = max(len(g) * g[0] for g in lengths) * cache_bytes(self.model)
        # Scores of a step, in float32, float64 and once more for the coder.
        needed += max(map(len, lengths)) * self.vocabulary * 24
        free = available_memory()
        if needed > free:
            raise SpaceError(
                f"a batch needs {byte_size(needed)} of memory, {byte_size(free)} are free; "
                "when compressing, lower --batch or --chunk; when decompressing, end other programs"
            )

    def check_header(self, header: Header, name: str) -> None:
        """Raise :class:`CodecError` unless ``header`` can be decoded with this model."""
        check_weights(header, self.weights, name, self.name)
        if header.tokenizer != self.tokens:
            raise CodecError(
                f"{name} was compressed with another tokenizer than that of {self.name}; "
                "use the model folder as it was then"
            )
        for what, then, here in (
            ("dtype", header.dtype, self.dtype),
            ("device", header.device, self.model.device.type),
        ):
            if then != here:
                raise CodecError(
                    f"{name} was compressed with {what} {then}, this is {here}; allowed: the same; "
                    f"decompress it with {what} {then}"
                )
        if header.threads > MOST_THREADS or header.start >= self.vocabulary:
            raise CodecError(
                f"{name} asks for {header.threads} threads and start token {header.start}; "
                f"allowed: at most {MOST_THREADS}, below {self.vocabulary}; get a whole copy of it"
            )
        if header.chunk > self.fit(header.chunk):
            raise CodecError(
                f"{name} has chunks of {header.chunk} tokens, {self.name} reads "
                f"{self.fit(header.chunk)}; use the model folder as it was then"
            )


def check_weights(header: Header, weights: bytes, name: str, model: str) -> None:
    """Raise :class:`CodecError` unless ``name`` was compressed with these weights."""
    if header.model != weights:
        raise CodecError(
            f"{name} was compressed with the model '{header.name}' (weights "
            f"{header.model.hex()[:12]}), not with {model} ({weights.hex()[:12]}); "
            "name that model with --model"
        )


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of keys and values that one token of one chunk takes, over all layers."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = 2 * config.num_hidden_layers * heads * int(width) * model.dtype.itemsize
    return size


def start_token(tokenizer: Tokenizer) -> int:
    """What a chunk comes after: the tokenizer's first token, else its last one, else token 0."""
    for candidate in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def load_codec_model(
    model: str | Path = DEFAULT_MODEL,
    dtype: str = "float32",
    header: Header | None = None,
    container: str = "",
) -> CodecModel:
    """Load a built-in name, model folder or hub id.

    With the ``header`` of a container, refuse other weights before they are loaded.  Raises
    :class:`ModelError`, :class:`CodecError`.
    """
    checkpoint = resolve(model)
    weights = bytes.fromhex(str(checkpoint.content_hash))[:HASH]
    name = Path(str(model)).name if Path(str(model)).is_dir() else str(model)
    if header is not None:
        check_weights(header, weights, container, str(model))
    tokenizer = load_tokenizer(checkpoint)
    # A container names the CPU or CUDA, and the coder computes in float64.
    place = Placement(getattr(torch, dtype), wide_device(accelerator()))
    loaded = load_model(checkpoint, place)
    codec = CodecModel(
        model=loaded,
        tokenizer=tokenizer,
        name=name,
        dtype=dtype,
        weights=weights,
        tokens=tokenizer_hash(tokenizer),
        start=start_token(tokenizer),
    )
    if codec.vocabulary >= 1 << (PRECISION - 1):
        raise ModelError(
            describe(
                f"{name} with {codec.vocabulary} tokens",
                f"fewer than {1 << (PRECISION - 1)}",
                "use a model with a smaller vocabulary",
            )
        )
    return codec
