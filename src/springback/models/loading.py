"""Find, load and fetch models: folders, hub ids, boosted folders and the built-in one."""

from __future__ import annotations

import contextlib
import ctypes
import filecmp
import functools
import gc
import math
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from springback.core import Checkpoint
from springback.errors import ModelError
from springback.models import quantized
from springback.models.builtin import BUILTIN, builtin_checkpoint, has_builtin
from springback.models.hub import download, split_revision
from springback.models.names import MOST_LAYERS as MOST_LAYERS
from springback.models.names import require_model
from springback.models.placement import Placement, accelerator
from springback.models.quiet import one_line, quiet
from springback.models.templates import with_chat
from springback.results.store import whole_folder
from springback.settings import ChatSettings
from springback.weights import hash_weights, tensor_names
from springback.weights.io.aligning import (
    read_config,
    refuse_unmerged,
    sound,
    without_wrappers,
)
from springback.weights.io.folder import open_weights, readable_json
from springback.weights.io.safetensors import LFS_POINTER

Model = PreTrainedModel
Tokenizer = Any  # transformers' tokenizer classes share no usefully typed base

BOOST_FILE = "springback.json"
GENERATION_CONFIG = "generation_config.json"
#: What :func:`save_weights` writes into a folder.
WEIGHTS_FILE = "weights.safetensors"
#: Files that a tokenizer's vocabulary may be in.
_TOKENIZER = re.compile(
    "tokenizer|vocab|merges|added_tokens|special_tokens_map|spiece|sentencepiece"
)
#: Of the speed of a large matrix product, what a whole model reaches (docs/log.md;
#: benchmarks/plan_calibration.py).
SHARE = {"bf16-mixed": 0.4, "bfloat16": 0.4, "float32": 0.8}
#: Products whose compiled code is kept: a piece of a batch has some 20.
KEPT_PRODUCTS = 64


def resolve(name: str | Path, revision: str | None = None) -> Checkpoint:
    """Pin a model down: built-in name, folder, or hub id.

    A hub id may have its revision behind it: ``org/name@revision``.  Raises :class:`ModelError` if
    it is none of them.  The content hash is over the weight files,
    or the commit for a hub id.
    """
    text = str(name)
    if text in BUILTIN:
        return builtin_checkpoint(text)
    require_model(text)
    path = Path(text)
    if path.is_dir():
        return Checkpoint(str(path), content_hash=hash_weights(path))
    folder = download(*split_revision(text, revision))
    # The snapshot's folder is named after the commit.
    return Checkpoint(str(folder), revision=folder.name, content_hash=hash_weights(folder))


def is_here(name: str) -> bool:
    """Whether :func:`resolve` needs nothing from afar: a folder, or a built-in model once used."""
    return Path(name).is_dir() or (name in BUILTIN and has_builtin(name))


def tokenizer_source(adapter: Path, base: Checkpoint) -> Checkpoint:
    """Where an adapter's tokenizer is: beside it, or its base's."""
    return Checkpoint(str(adapter)) if (adapter / "tokenizer_config.json").exists() else base


def load_tokenizer(checkpoint: Checkpoint, chat: ChatSettings | None = None) -> Tokenizer:
    """The tokenizer, with a pad token (the end token where it has none).

    ``chat``: what its chat template is given beside the messages.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.path, revision=checkpoint.revision, trust_remote_code=False
            )
    except Exception as error:
        raise ModelError(
            f"cannot load the tokenizer of {checkpoint.path}: "
            f"{_tokenizer_fault(Path(checkpoint.path)) or one_line(error)}; allowed: a folder with "
            "the model's tokenizer; save it there with save_pretrained, or copy its files again"
        ) from error
    longest = tokenizer.model_max_length
    if type(longest) not in (int, float) or not 0 < longest < math.inf:
        raise ModelError(
            f"model_max_length is {longest!r} in the tokenizer of {checkpoint.path}; allowed: a "
            "number above 0; save the tokenizer again"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return with_chat(tokenizer, chat or ChatSettings())


def _tokenizer_fault(folder: Path) -> str:
    """What of a tokenizer's files is at fault, in plainer words than a loader's; "" if unknown."""
    if not folder.is_dir():
        return ""
    files = tokenizer_files(folder)
    with contextlib.suppress(OSError):
        for name, path in sorted(files.items()):
            if path.read_bytes().startswith(LFS_POINTER):
                return f"{name} is a git-lfs pointer, run git lfs pull"
    return "" if files else "it holds none"


def load_model(checkpoint: Checkpoint, place: Placement | None = None) -> PreTrainedModel:
    """The model in evaluation mode; without ``place`` in fp32, on the accelerator if there is one.

    Safetensors only, no remote code.

    Raises :class:`ModelError` for files that cannot be read, that lack tensors of the model (which
    Transformers would fill with random numbers), or that hold NaN or infinity.
    """
    tune_allocator()
    place = place or Placement()
    spread = _spread(place)
    further = spread
    if place.quantize:
        assert place.dtype is not None  # placement: never as stored
        tune_allocator(1 << 20)  # packing takes copies of each layer, which the heap would keep
        further = quantized.load_arguments(place.dtype, place.device)
    transformers: Any = AutoModelForCausalLM
    try:
        with quiet():
            model, loading_info = transformers.from_pretrained(
                checkpoint.path,
                revision=checkpoint.revision,
                dtype="auto" if place.dtype is None else place.dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **further,
            )
    except Exception as error:
        if spread:
            shutil.rmtree(spread["offload_folder"], ignore_errors=True)
        if Path(checkpoint.path).is_dir():
            _explain(Path(checkpoint.path), error)
        raise ModelError(
            f"cannot load the model {checkpoint.path}: {one_line(error)}; allowed: a causal "
            "language model of a kind that Transformers knows; save it again with save_pretrained"
        ) from error
    if spread:
        weakref.finalize(model, shutil.rmtree, spread["offload_folder"], ignore_errors=True)
    refuse_unmerged(checkpoint.path, loading_info["unexpected_keys"])
    if lacking := sorted(loading_info["missing_keys"]):
        strange = (n for n in sorted(loading_info["unexpected_keys"]) if without_wrappers(n) != n)
        instead = next((f" (it has {n}, as training code wraps it)" for n in strange), "")
        raise ModelError(
            f"{checkpoint.path} lacks {len(lacking)} tensors of its {type(model).__name__}, first "
            f"{lacking[0]}{instead}; allowed: a whole causal language model; save it with "
            f"save_pretrained{', unwrapped' if instead else ''}"
        )
    if place.quantize:
        quantized.keep_format(model)
        quantized.leave_files(model)
        tune_allocator()
    loaded: Model = (model if further else model.to(place.device)).eval()
    _require_finite(loaded, checkpoint.path)
    complete_generation_config(loaded)
    head: Any = loaded.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return loaded


def _explain(folder: Path, error: Exception) -> None:
    """Raise with a clearer message than a loader's where the files in ``folder`` are at fault."""
    weights = sound(open_weights(folder))
    _require_objects(folder)
    packed = read_config(weights).get("quantization_config")
    if isinstance(packed, dict):
        raise ModelError(
            f"cannot load the model {folder}, quantised by its config.json "
            f"({packed.get('quant_method')}): {one_line(error)}; allowed: weights in full; "
            "dequantise the model, or take quantization_config out if that was done"
        ) from error


def _require_objects(folder: Path) -> None:
    """Raise :class:`ModelError` for a config that is JSON of another kind."""
    for path in (folder / "config.json", folder / GENERATION_CONFIG):
        if path.exists() and not isinstance(readable_json(path), dict):
            raise ModelError(f"{path} is no JSON object; copy that file again")


def _contiguous(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The last positions alone (``logits_to_keep``) are no contiguous block; of such and a weight
    that is frozen, PyTorch takes a product for each row and copies the weight for each of them."""
    return tuple(x.contiguous() if isinstance(x, torch.Tensor) else x for x in inputs)


def _spread(place: Placement) -> dict[str, Any]:
    """Arguments of Transformers for a model over several devices; none for one device.

    In the folder come weights that are offloaded to disk and whose files have them in another
    form, as experts; others stay in their files.
    """
    if not place.device_map:
        return {}
    folder = tempfile.mkdtemp(prefix="springback-offload-")
    return {"device_map": place.device_map, "offload_folder": folder}


@torch.no_grad()
def _require_finite(model: Model, path: str) -> None:
    """Raise :class:`ModelError` for weights that are not numbers: every answer would be noise."""
    kinds = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    sums = {name: total_of(p) for name, p in _values(model) if p.dtype in kinds}
    sums |= {
        name: total_of(quantized.scales(p))
        for name, p in model.named_parameters()
        if hasattr(p, "quant_state")
    }
    require_finite_totals(sums, path)


def total_of(values: torch.Tensor) -> torch.Tensor:
    """The sum as one number, which is finite where all values are: it reads them once and holds
    nothing."""
    # Sums have the range of what is summed but for float16, which finite weights can leave.
    wide = torch.float32 if values.dtype is torch.float16 else None
    return values.sum(dtype=wide).float()


def require_finite_totals(totals: Mapping[str, torch.Tensor], path: str) -> None:
    """Raise :class:`ModelError` where the :func:`total_of` a tensor is not finite."""
    for name, total in totals.items():
        if not total.isfinite():
            raise ModelError(
                f"{name} holds NaN or infinity in {path}; allowed: finite weights; "
                "take another checkpoint"
            )


def _values(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter by name, those that are offloaded from where they are."""
    for name, parameter in model.named_parameters():
        if parameter.device.type != "meta":
            yield name, parameter
            continue
        owner, _, leaf = name.rpartition(".")
        hook: Any = model.get_submodule(owner)._hf_hook
        yield name, hook.weights_map[leaf]


def listed_end_ids(model: Any) -> set[int]:
    """Token ids at which a turn ends according to the configs of ``model``, not its tokenizer.

    Those of its generation config (one, or several); where that names none, those of its config and
    of the text model's config in it.  Ids outside of the vocabulary are left out.  ``model`` needs
    only ``config`` and ``generation_config`` (:func:`read_configs`).
    """
    text = model.config.get_text_config()
    named = end_ids_of(model.generation_config)
    if not named:
        named = end_ids_of(model.config) | end_ids_of(text)
    return {i for i in named if 0 <= i < text.vocab_size}


def end_ids_of(config: Any) -> set[int]:
    """What a config has under ``eos_token_id``: nothing, one id or a list."""
    given = getattr(config, "eos_token_id", None)
    each = given if isinstance(given, list | tuple) else [given]
    return {i for i in each if isinstance(i, int)}


def complete_generation_config(model: Model) -> None:
    """Have the generation config name the end tokens of the config where it names none.

    Transformers' ``generate`` reads it alone, its Trainer overwrites the config's with the
    tokenizer's, and what is saved beside trained or merged weights is this file.
    """
    generation: Any = model.generation_config
    if generation is not None and not end_ids_of(generation):
        generation.eos_token_id = sorted(listed_end_ids(model)) or None


@dataclass(frozen=True)
class Configs:
    """A model's ``config`` and ``generation_config`` without its weights."""

    config: Any
    generation_config: Any


def read_configs(folder: str | Path, adapter: str | Path | None = None) -> Configs:
    """The configs in ``folder``, as loading the model reads them.

    ``adapter``: a folder whose generation config, where it has one, outranks the base's, as its
    tokenizer does.  Raises :class:`ModelError` for what cannot be read.
    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            for place in (adapter, folder):
                if place is not None and (Path(place) / GENERATION_CONFIG).exists():
                    return Configs(config, GenerationConfig.from_pretrained(place))
            return Configs(config, GenerationConfig.from_model_config(config))
    except Exception as error:
        for place in (adapter, folder):
            if place is not None:
                _require_objects(Path(place))
        raise ModelError(f"cannot read the configuration of {folder}: {one_line(error)}") from error


def check_same_tokenizer(a: Tokenizer, b: Tokenizer, names: tuple[str, str]) -> None:
    """Raise unless tokens have the same ids in both: contrast adds logits token by token."""
    one, other = a.get_vocab(), b.get_vocab()
    if one != other:
        first = min(token for token, _ in one.items() ^ other.items())
        raise ModelError(
            f"{names[0]} and {names[1]} have different tokenizers "
            f"({len(one)} and {len(other)} tokens; {first!r} is not the same token in both); "
            "use two checkpoints of one run"
        )


def require_tokenizer_of(
    other: Checkpoint, one: Checkpoint, tokenizer: Tokenizer, names: tuple[str, str]
) -> None:
    """:func:`check_same_tokenizer` of ``other`` against ``tokenizer``, that of ``one``; nothing is
    loaded where both hold the same files of it."""
    if not same_tokenizer_files(other.path, one.path):
        check_same_tokenizer(load_tokenizer(other), tokenizer, names)


def tokenizer_files(folder: str | Path) -> dict[str, Path]:
    """The files of a tokenizer in ``folder`` by name."""
    return {p.name: p for p in Path(folder).iterdir() if _TOKENIZER.match(p.name)}


def same_tokenizer_files(one: str | Path, other: str | Path) -> bool:
    """Whether two folders hold the same files of a tokenizer, so that neither need be loaded."""
    files = [tokenizer_files(folder) for folder in (one, other)]
    return files[0].keys() == files[1].keys() and all(
        filecmp.cmp(files[0][name], files[1][name], shallow=False) for name in files[0]
    )


def fit_vocabulary(model: PreTrainedModel, width: int, tokens: int, name: str) -> PreTrainedModel:
    """``model`` with logits of ``width``, for contrast with a model that pads its vocabulary else.

    Only padding is touched, ids from ``tokens`` (the tokenizer's number) on: dropped, or added with
    zero weights, so with a logit of 0 (of the bias-free heads that language models have).
    Raises :class:`ModelError` if a token would be lost or has no logit.
    """
    have = int(model.config.get_text_config().vocab_size)
    if have == width:
        return model
    if min(have, width) < tokens:
        raise ModelError(
            f"{name} has {have} logits, the model it is contrasted with {width}, and the tokenizer "
            f"{tokens} tokens; allowed: a logit for every token in both; use another model"
        )
    model.resize_token_embeddings(width, mean_resizing=False)
    anyhow: Any = model
    for layer in (anyhow.get_input_embeddings(), anyhow.get_output_embeddings()):
        weight = getattr(layer, "weight", None)
        if weight is not None and width > have:
            with torch.no_grad():
                weight[have:] = 0
    return model


def default_precision(device: torch.device | None = None) -> str:
    """``bf16-mixed`` where ``device`` multiplies bf16 natively, else ``float32``.

    Without a device: the accelerator if there is one.
    """
    kind = (device or accelerator()).type
    if kind == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "float32"
    if kind != "cpu":
        return "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "float32"
    return "bf16-mixed" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def tune_allocator(mapped: int = 1 << 30) -> None:
    """Keep glibc from returning large blocks to the kernel after every step, and caches small.

    Logits of a batch are over 100 MB; mapping and unmapping them anew each step costs 10 to 20 %
    of training time in page faults (docs/log.md).  Does nothing where there is no glibc.  oneDNN
    and PyTorch keep what they compiled for the last 1,024 shapes of a product each, which in bf16
    is 12 MB for every shape of a batch: rows of many lengths would take gigabytes.  Read at the
    first product only; variables that are set already stay.

    ``mapped``: blocks of so many bytes are mapped by themselves all the same.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KEPT_PRODUCTS))
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, mapped)  # M_MMAP_THRESHOLD
    mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def release_memory(circles: bool = True) -> None:
    """Give back what is free: before a run, and after a job (whose models may stand in circles).

    With :func:`tune_allocator` glibc keeps what is freed, and what comes next allocates in other
    sizes.  ``circles`` False: what stands in circles is not looked for, which takes 0.3 s.
    """
    if circles:
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def trainable(model: Model) -> dict[str, torch.nn.Parameter]:
    """Parameters that training changes, by name: all, or with LoRA the adapter's."""
    # named_parameters() lists a tied weight once, under its first name.
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def write_weights(model: Model, file: Path) -> None:
    """What :func:`trainable` lists, as one safetensors file."""
    save_file({n: p.detach().contiguous().cpu() for n, p in trainable(model).items()}, file)


def read_weights(model: Model, file: Path) -> None:
    """Copy what :func:`write_weights` wrote into ``model``.

    Raises :class:`ModelError`, and changes nothing, where names or shapes are others.
    """
    tensors = load_file(file)
    held = trainable(model)
    if any(n not in tensors or tensors[n].shape != p.shape for n, p in held.items()):
        raise ModelError(f"{file} holds tensors of another model; delete it")
    with torch.no_grad():
        for name, parameter in held.items():
            parameter.copy_(tensors[name])


def save_weights(model: Model, folder: Path) -> None:
    """:func:`write_weights` into a folder of its own, whole or not at all."""
    with whole_folder(folder) as tmp:
        write_weights(model, tmp / WEIGHTS_FILE)


def load_weights(model: Model, folder: Path) -> None:
    """Copy what :func:`save_weights` wrote into ``model``."""
    read_weights(model, folder / WEIGHTS_FILE)


def copy_weights(source: Model, target: Model) -> None:
    """Make ``target``'s parameters equal to ``source``'s."""
    with torch.no_grad():
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            b.copy_(a)


def count_parameters(checkpoint: Checkpoint) -> int:
    """Weights in the safetensors files, read off their headers; tied ones are stored once."""
    return sum(math.prod(shape) for shape, _ in tensor_names(checkpoint.path).values())


def training_speed(parameters: int, precision: str) -> float:
    """Training tokens a second to expect: a quick matrix product, at :data:`SHARE` of its speed.

    An estimate for announcements, good to a factor of about two; nothing is decided by it.
    """
    return SHARE[precision] * product_speed(precision) / (6 * parameters)


@functools.cache
def product_speed(precision: str) -> float:
    """FLOP a second of a quick matrix product: the fastest of a few, timed once."""
    tune_allocator()
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    a = torch.ones(1024, 1024, dtype=dtype, device=accelerator())
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        times.append(time.perf_counter() - begin)
    return 2 * 1024**3 / min(times)


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """torch with this many threads, as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
