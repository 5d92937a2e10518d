"""What a job holds in memory, part by part: the one list that plans, doctor and errors read.

Every part is a formula over the model's shape (:mod:`springback.models.memory`); sums are peaks,
so of phases that follow one another the larger one counts (:func:`largest`).  Light: no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from springback.core import byte_size
from springback.models.memory import (
    Architecture,
    cache_bytes,
    held_bytes,
    item_bytes,
    logits_bytes,
    pass_bytes,
    states_bytes,
)

#: What Python, torch and Transformers take by themselves on a CPU.
LIBRARIES = 430_000_000
#: What CUDA takes of a GPU: context, cuBLAS's workspaces.
CUDA = 800_000_000
#: Padded tokens that go through a model at once in training on a CPU, and at most of a batch that
#: is cut in two (:mod:`springback.training.memory.microbatches`).
AT_ONCE, IN_TWO = 384, 1024
#: Positions whose logits exist at one time in SFT (:mod:`springback.training.memory.chunked_loss`).
LOSS_CHUNK = 224
#: Padded tokens that are scored at once, and positions that become fp32 log-probabilities
#: (:mod:`springback.probes.likelihood`).
SCORED_TOKENS, SCORED_CHUNK = 1024, 256
#: Logits of one block of a search, and hidden states kept, at most
#: (:mod:`springback.decoding.lambda_grid`, :mod:`springback.jobs.boost.scoring`).
BLOCK_LOGITS, KEPT_STATES = 1 << 26, 1 << 28
#: Autocast's, of the weights.
COPIES = "weights in bf16"
#: Bytes of activations a token, layer and unit of width where nothing else of the shape is known
#: (Korthikanti et al. 2022: 34 in 16 bit, attention not kept).
ACTIVATIONS = 34


@dataclass(frozen=True)
class Part:
    """Something that is held: its name, its bytes, and how they are counted."""

    name: str
    bytes: int
    words: str


Parts = tuple[Part, ...]


def total(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)


def largest(*phases: Parts) -> Parts:
    """Of phases that follow one another, the one that takes most."""
    return max(phases, key=total)


def libraries(device: str = "cpu") -> Part:
    """What is held before any model is."""
    if device.startswith("cuda"):
        return Part("CUDA", CUDA, "its context and workspaces, assumed")
    return Part("libraries", LIBRARIES, "Python, torch and Transformers")


def pair_weights(
    shape: Architecture, dtype: str, adapter: float = 0, quantize: str | None = None
) -> Parts:
    """Strong and weak model; where there are adapters of so many weights, one base with them,
    which ``quantize`` may hold in 4 bit."""
    size, one = item_bytes(dtype), int(shape.weights)
    if not adapter:
        words = f"{one / 1e6:,.0f}M weights of {size} bytes"
        return (
            Part("strong model", one * size, words),
            Part("weak model", one * size, words),
        )
    return (
        _base("base model", shape, dtype, quantize),
        # Expert and weak model have room for both ranks on every layer.
        Part(
            "adapters",
            4 * size * int(adapter),
            f"two models x two ranks x {adapter / 1e6:,.1f}M weights",
        ),
    )


def _base(name: str, shape: Architecture, dtype: str, quantize: str | None) -> Part:
    """A whole model, or what lies frozen below adapters."""
    kind = f"{item_bytes(dtype)} bytes" if not quantize else f"{quantize}, head in {dtype}"
    words = f"{shape.weights / 1e6:,.0f}M weights of {kind}"
    return Part(name, held_bytes(shape, dtype, quantize), words)


def decoding_parts(
    shape: Architecture, dtype: str, rows: int, columns: int, models: int = 2
) -> Parts:
    """Of so many models answering ``rows`` questions at once; ``columns``: prompt and answer."""
    size = item_bytes(dtype)
    # Strong and weak logits, as they come and without finished rows; their contrast in fp32.
    each = 2 * models * size + (13 if models > 1 else 4)
    logits = rows * shape.vocabulary * each
    return (
        Part(
            "caches",
            models * cache_bytes(shape, rows, columns, dtype),
            f"keys and values of {models} models, {rows} rows of {columns} tokens",
        ),
        Part("logits", logits, f"{rows} rows x {shape.vocabulary:,} tokens"),
        Part(
            "forward pass",
            pass_bytes(shape, rows * columns, dtype),
            f"one layer over {rows * columns:,} tokens",
        ),
    )


@dataclass(frozen=True)
class Scored:
    """Texts whose NLL is taken: their tokens in all, the share of these that count, and how many
    padded ones are a batch."""

    tokens: int
    counted: float = 1.0
    batch: int = SCORED_TOKENS

    @property
    def at_once(self) -> int:
        """Padded tokens of a batch."""
        return min(self.tokens, self.batch)


FULL_BATCH = Scored(SCORED_TOKENS)


def scoring_parts(
    shape: Architecture, dtype: str, models: int = 1, texts: Scored = FULL_BATCH
) -> Parts:
    """Of taking NLL: logits of a batch from each model, and in fp32 those of a chunk."""
    positions = round(texts.at_once * texts.counted)
    batch = (models + 1) * logits_bytes(shape, positions, dtype)
    chunk = 2 * (models + 1) * logits_bytes(shape, min(positions, SCORED_CHUNK), "float32")
    return (
        Part("logits", batch + chunk, f"{positions:,} tokens scored x {shape.vocabulary:,}"),
        Part(
            "forward pass",
            pass_bytes(shape, texts.at_once, dtype),
            f"one layer over {texts.at_once:,} tokens",
        ),
    )


@dataclass(frozen=True)
class Answering:
    """How questions are answered: rows at once, tokens of a question and of an answer at most,
    what is scored beside (None: no NLL is taken)."""

    rows: int
    prompt: int
    new: int
    scored: Scored | None = None


def boost_parts(
    shape: Architecture,
    dtype: str,
    how: Answering,
    adapter: float = 0,
    quantize: str | None = None,
) -> Parts:
    """Of searching and testing; solutions that are scored leave their hidden states."""
    decoding = decoding_parts(shape, dtype, how.rows, how.prompt + how.new)
    phases: list[Parts] = [decoding]
    if how.scored is not None:
        kept = min(KEPT_STATES, 2 * states_bytes(shape, how.scored.tokens, dtype))
        words = f"of {how.scored.tokens:,} tokens of solutions, at most {byte_size(KEPT_STATES)}"
        states = Part("hidden states kept", kept, words)
        phases = [(*decoding, states), (*scoring_parts(shape, dtype, 2, how.scored), states)]
    return (*pair_weights(shape, dtype, adapter, quantize), *largest(*phases))


def activation_bytes(shape: Architecture, mixed: bool, checkpointed: bool = False) -> int:
    """Kept for the backward pass for each token: the tensors that a Llama's layers save.

    ``checkpointed``: those of one layer, and in fp32 the hidden states that each begins with.

    Two norms of fp32 (``mixed``: and a copy in bf16 for each of five products), queries and keys
    before and after rotation, both repeated for every head, the values, the attention's result,
    and four tensors of the feed-forward layer's width.
    """
    if checkpointed:
        return activation_bytes(replace(shape, layers=1), mixed) + 4 * shape.layers * shape.width
    if not shape.hidden:
        return ACTIVATIONS * shape.layers * shape.width
    size = 2 if mixed else 4
    width = shape.width * (16 + (10 if mixed else 8))
    attention = size * (2 * shape.query + 2 * shape.key + 4 * shape.query)
    return shape.layers * (width + attention + 4 * size * shape.hidden)


@dataclass(frozen=True)
class Training:
    """How a run trains, as far as its memory goes: rows of a batch, their length in tokens,
    whether under bf16 autocast, rank of an adapter (0: all weights), on a CPU or not, and in which
    dtype what is not trained is held.

    ``whole_logits``: TRL's losses keep those of all that goes through together, SFT a chunk.
    ``reference``: the start's weights are kept beside.  ``checkpointed``: one layer's activations
    are there at a time, computed a second time.  ``quantize``: ``nf4`` holds what is not trained in
    4 bit.
    """

    rows: int
    tokens: int
    mixed: bool
    rank: int = 0
    cpu: bool = True
    dtype: str = "float32"
    whole_logits: bool = False
    reference: bool = False
    checkpointed: bool = False
    quantize: str | None = None

    @property
    def at_once(self) -> int:
        """Padded tokens that go through the model together."""
        batch = self.rows * self.tokens
        if not self.cpu or batch <= AT_ONCE:
            return batch
        return max(self.tokens, -(-batch // 2) if batch <= IN_TWO else AT_ONCE)


def training_parts(shape: Architecture, how: Training) -> Parts:
    """Of one run: weights, gradients and moments in fp32 (a frozen base as it is held),
    activations, logits of the loss."""
    one = int(shape.weights)
    learned = int(shape.adapter_weights(how.rank)) if how.rank else one
    size = item_bytes(how.dtype) if how.rank else 4
    dtype = how.dtype if how.rank else "float32"
    parts = [_base("weights in training", shape, dtype, how.quantize)]
    if how.quantize:
        largest_matrix = shape.width * max(shape.hidden, shape.query, shape.width)
        parts.append(Part("a matrix unpacked", 2 * size * largest_matrix, f"and beside in {dtype}"))
    if how.rank:
        parts.append(
            Part("adapter", 4 * learned, f"rank {how.rank}: {learned / 1e6:,.1f}M weights")
        )
    parts += [
        Part("gradients", 4 * learned, "4 bytes for each weight that learns"),
        Part("moments", 8 * learned, "two of AdamW's, 4 bytes each"),
    ]
    if how.reference:
        parts.append(Part("reference", 4 * learned, "the weights that training began with"))
    if how.mixed and size == 4 and not how.quantize:
        table = shape.vocabulary * shape.width
        rounded = one - table * (1 if shape.tied else 2) + table
        parts.append(Part(COPIES, 2 * rounded, "autocast's copies, 2 bytes each"))
    tokens = how.at_once
    at_once = tokens if how.whole_logits else min(LOSS_CHUNK, tokens)
    # As they come, and in fp32; a whole loss has log-probabilities beside.
    each = (6 if how.mixed else 4) + (4 if how.whole_logits else 0)
    kept = activation_bytes(shape, how.mixed, how.checkpointed)
    words = f"{tokens:,} tokens at once x {kept / 1e6:.2f} MB"
    return (
        *parts,
        Part("activations", tokens * kept, words),
        Part(
            "logits of the loss",
            at_once * shape.vocabulary * each,
            f"{at_once:,} positions at a time",
        ),
    )


def audit_parts(
    shape: Architecture,
    how: Training,
    kl_tokens: int = 0,
    processes: int = 1,
    target_tokens: int = 0,
    fixed: int = 1,
    shards: int = 1,
) -> Parts:
    """Of an audit: the start model beside one in training, and what its probes take.

    An adapter is trained on the start model's own weights, which are held once.

    ``kl_tokens``: whose log-probabilities under the start model are kept (500 MB at most).
    ``processes``: further ones that measure hold both models each.  ``target_tokens``: whose
    log-probabilities under the target of a run of resistance are kept.  ``fixed``: models that are
    not trained, 2 where the base model of a finished one stands beside it.  ``shards``: over how
    many processes (FSDP2) weights, gradients and moments lie; what is given is then what one of
    them and the one that measures beside it hold.
    """
    one = int(shape.weights)
    training = training_parts(shape, how)
    held, passing = training[:-2], training[-2:]
    probing, size = scoring_parts(shape, how.dtype), item_bytes(how.dtype)
    kept = logits_bytes(shape, kl_tokens, how.dtype)
    parts = [*held]
    if not how.rank:  # below an adapter lies the start model itself
        parts.insert(0, Part("start model", size * one, f"{one / 1e6:,.0f}M of {size} bytes"))
    if size != 4 and not how.rank:
        parts.append(Part("measured model", size * one, "the trained weights rounded"))
    if fixed > 1:
        parts += [_base("base model", shape, how.dtype, how.quantize)] * (fixed - 1)
    if shards > 1:
        parts = [*(_share(part, shards) for part in parts), _gathered(shape, 2, 4)]
        if how.mixed and how.checkpointed:  # else the backward pass keeps what was rounded
            parts = [part for part in parts if part.name != COPIES]
            parts.append(replace(_gathered(shape, 1, 2), name=COPIES))
    if 0 < kept <= 500_000_000:
        parts.append(Part("start distribution", kept, f"{kl_tokens:,} positions, for KL"))
        words = f"{kl_tokens:,} positions, for KL to the base model"
        parts += [Part("base distribution", kept, words)] * (fixed - 1)
    if target_tokens:
        size_of_target = logits_bytes(shape, target_tokens, how.dtype)
        words = f"{target_tokens:,} positions, for KL in resistance"
        parts.append(Part("target distribution", size_of_target, words))
    parts += largest(passing, probing)
    if processes > 1:
        more = (processes - 1) * (2 * size * one + LIBRARIES + total(probing))
        parts.append(Part("measuring processes", more, f"{processes - 1} more, two models each"))
    return tuple(parts)


def _share(part: Part, shards: int) -> Part:
    """Of what FSDP2 spreads; autocast's copies are of whole layers."""
    if part.name == COPIES:
        return part
    return Part(part.name, part.bytes // shards, f"{part.words}, 1/{shards} of them")


def _gathered(shape: Architecture, blocks: int, size: int) -> Part:
    """The layers that are whole while they run, in ``size`` bytes: embeddings, head, and a block,
    of FSDP2 the next one too."""
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    block = (int(shape.weights) - tables) // max(1, shape.layers)
    words = f"embeddings, head and {blocks} blocks at a time, {size} bytes each"
    return Part("layers gathered", size * (tables + blocks * block), words)


def judge_part(name: str, weights: float | None) -> Part:
    """A model that scores sampled texts; ``weights`` None: it is not here yet."""
    if weights is None:
        return Part(f"judge {name}", 0, "not here yet, so not counted")
    return Part(f"judge {name}", 4 * int(weights), f"{weights / 1e6:,.0f}M of 4 bytes")


def lines(parts: Sequence[Part]) -> list[tuple[str, str, str]]:
    """Rows of a table: part, size, how it is counted; and the sum."""
    sums = ("all of it", byte_size(total(parts)), "at the peak")
    return [*((p.name, byte_size(p.bytes), p.words) for p in parts), sums]
