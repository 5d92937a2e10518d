"""Kinds: model folders and adapters, through ``extrapolate``.

The reference reads the damaged inputs with the safetensors library, so what it refuses must be
refused here too, and computes ft + mu (ft - early) in float64.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fuzz.damage import (
    OTHER_FILES,
    UNREADABLE,
    damage_bytes,
    damage_file,
    damage_json,
    damage_place,
    short,
)
from fuzz.harness import Bench, Fault, Trial, command, kind
from weights_files import plain, write_file, write_model

Array = npt.NDArray[Any]
MU = 0.5
WIDTH, INNER, WORDS = 8, 16, 20
_LAYER = "model.layers.0."
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (WORDS, WIDTH),
    f"{_LAYER}self_attn.q_proj.weight": (WIDTH, WIDTH),
    f"{_LAYER}self_attn.k_proj.weight": (WIDTH // 2, WIDTH),
    f"{_LAYER}self_attn.v_proj.weight": (WIDTH // 2, WIDTH),
    f"{_LAYER}self_attn.o_proj.weight": (WIDTH, WIDTH),
    f"{_LAYER}mlp.gate_proj.weight": (INNER, WIDTH),
    f"{_LAYER}mlp.up_proj.weight": (INNER, WIDTH),
    f"{_LAYER}mlp.down_proj.weight": (WIDTH, INNER),
    f"{_LAYER}input_layernorm.weight": (WIDTH,),
    f"{_LAYER}post_attention_layernorm.weight": (WIDTH,),
    "model.norm.weight": (WIDTH,),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": WORDS,
    "tie_word_embeddings": True,
}
MODULES = ("self_attn.q_proj", "mlp.up_proj")
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "up_proj"],
    "bias": "none",
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "exclude_modules": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "lora_dropout": 0.0,
    "loftq_config": {},
    "inference_mode": True,
    "revision": None,
}
#: Relative to the largest number: of the output's dtype.
TOLERANCE = {"F64": 1e-6, "F32": 1e-6, "F16": 2e-3, "BF16": 2e-2}


def _model(seed: int, shards: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        draw = np.random.default_rng(seed)
        tensors = {n: plain(draw.standard_normal(s).astype(np.float32)) for n, s in SHAPES.items()}
        parts = [dict(list(tensors.items())[n::shards]) for n in range(shards)]
        write_model(folder, *parts)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "generation_config.json").write_text('{"eos_token_id": 2}')

    return make


def _adapter(seed: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        draw = np.random.default_rng(seed)
        tensors = {}
        for module in MODULES:
            rows, columns = SHAPES[f"{_LAYER}{module}.weight"]
            for part, shape in (("A", (2, columns)), ("B", (rows, 2))):
                values = draw.standard_normal(shape).astype(np.float32)
                tensors[f"base_model.model.{_LAYER}{module}.lora_{part}.weight"] = plain(values)
        write_file(folder / "adapter_model.safetensors", tensors)
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG))

    return make


def damage_safetensors(rng: random.Random, raw: bytes) -> tuple[bytes, str]:
    """A weight file whose header lies, or whose bytes are others."""
    way = rng.randrange(20)
    if way < 4:
        return damage_bytes(rng, raw)
    length = struct.unpack("<Q", raw[:8])[0]
    table, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    if way == 4:
        lengths = (0, 1, length - 1, length + 1, len(raw), 100_000_001, 2**31, 2**63, 2**64 - 1)
        lied = rng.choice(lengths)
        return struct.pack("<Q", lied) + raw[8:], f"header of {lied} bytes"
    if way == 5:
        header, what = damage_json(rng, raw[8 : 8 + length])
        return struct.pack("<Q", len(header)) + header + body, f"header: {what}"
    name = rng.choice([n for n in table if n != "__metadata__"])
    entry = table[name]
    begin, end = entry["data_offsets"]
    if way == 6:
        by = rng.choice((1, 4, 8, 32))
        entry["data_offsets"] = [max(0, begin - by), max(0, end - by)]
    elif way == 7:
        choices: list[Any] = [[end, begin], [-4, 0], [0, 2**63], [2**64 - 4, 2**64], [0], [0, 1, 2]]
        choices += [["0", "4"], [0.0, 4.0], None, {}, [begin, end + 4], [begin + 4, end + 4]]
        entry["data_offsets"] = rng.choice(choices)
    elif way == 8:
        shape = entry["shape"]
        choices = [[-8, -8], [8, -1], [0], [], [2**40], [2**32, 2**32], [2**63], [8.0, 8], ["8"]]
        choices += [None, [1] * 1000, [True, 8], [math.prod(shape)], shape[::-1], [*shape, 1]]
        entry["shape"] = rng.choice(choices)
    elif way == 9:
        codes = ("F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", "", "f32")
        entry["dtype"] = rng.choice((*codes, None, 5, "F32 "))
    elif way == 10:
        table[name] = rng.choice((None, [], 5, "x", {}))
    elif way == 11:
        choices = [None, [], 5, {"a": 5}, {"a": None}, {"a": "b" * 200_000}, {"a": "\ud800"}]
        table["__metadata__"] = rng.choice([*choices, {"format": "tf"}, {}])
    elif way == 12:
        other = json.dumps({name: {**entry, "dtype": rng.choice(("F32", "BF16", "I32"))}})
        header = (json.dumps(table)[:-1] + "," + other[1:]).encode()
        return struct.pack("<Q", len(header)) + header + body, f"{name} twice"
    elif way == 13:
        shape = rng.choice(([0], [0, 5], [5, 0, 3], [2**40, 0]))
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [len(body)] * 2}
        name, table["zero"] = "zero", entry
    elif way == 14:
        values = np.frombuffer(body, np.float32).copy()
        values[rng.randrange(len(values))] = rng.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45))
        body = values.tobytes()
    elif way == 15:
        names = ("../../x", "/abs", "a\nb", "\x00", "", "x" * 100_000, "ü", "a\ud800", "_orig_mod")
        table[rng.choice(names)] = table.pop(name)
    elif way == 16:
        many = rng.choice((10, 20_000))
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        table = {**{f"t{n}": empty for n in range(many)}, **table}
    elif way == 17:
        return rng.choice(OTHER_FILES), "another file"
    elif way == 18:
        other = rng.choice([n for n in table if n not in ("__metadata__", name)])
        table[name], table[other] = table[other], table[name]
        name = f"{name} and {other}, exchanged"
    else:
        del table[name]
    header = json.dumps(table).encode()
    shown = short(table.get(name, "gone"))
    return struct.pack("<Q", len(header)) + header + body, f"{name}: {shown} (way {way})"


def _damage_index(rng: random.Random, raw: bytes) -> tuple[bytes, str]:
    index = json.loads(raw)
    places = index["weight_map"]
    name = rng.choice(list(places))
    files: list[Any] = ["../early/model.safetensors", "/etc/passwd", "..\\x.safetensors", ""]
    files += ["x.bin", None, 5, "./model-00001-of-00002.safetensors"]
    files += ["a/../model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors\x00"]
    files += ["MODEL-00001-of-00002.safetensors", ".safetensors", "a\nb.safetensors"]
    files += ["\ud800.safetensors", [], "config.json"]
    way = rng.randrange(6)
    if way == 0:
        places[name] = rng.choice(files)
    elif way == 1:
        del places[name]
    elif way == 2:
        places["new.weight"] = places[name]
    elif way == 3:
        one, two = sorted(set(places.values()))
        index["weight_map"] = {n: two if f == one else one for n, f in places.items()}
    elif way == 4:
        index["weight_map"] = rng.choice((None, [], {}, 5, "x"))
    else:
        return damage_json(rng, raw)
    return json.dumps(index).encode(), f"way {way}, {short(places.get(name))}"


def _damage_folder(rng: random.Random, folder: Path) -> str:
    """One or two faults somewhere in a folder of weights."""
    what: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        weights = sorted(p for p in folder.glob("*.safetensors") if p.is_file())
        texts = sorted(p for p in folder.glob("*.json") if p.is_file())
        index = folder / "model.safetensors.index.json"
        way = rng.random()
        try:
            if index.is_file() and way < 0.35:
                what.append(damage_file(rng, index, _damage_index))
            elif way < 0.6 and weights:
                what.append(damage_file(rng, rng.choice(weights), damage_safetensors))
            elif way < 0.85 and texts:
                what.append(damage_file(rng, rng.choice(texts), damage_json))
            else:
                what.append(damage_place(rng, folder))
                break  # a second one might be written through a link
        except UNREADABLE:
            break  # the first one left nothing to read
    return f"{folder.name}: {', '.join(what)}"


def _tensors(folder: Path) -> dict[str, tuple[str, Array]]:
    """Names, dtype codes and values by the safetensors library, following the index."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    single = next((p for p in (folder / "model.safetensors",) if p.exists()), None)
    places: dict[str, list[str]] = {}
    if single is not None:
        places[single.name] = []
    elif index.exists():
        for name, file in json.loads(index.read_text())["weight_map"].items():
            places.setdefault(file, []).append(name)
    else:
        places["adapter_model.safetensors"] = []
    found = {}
    for file, names in places.items():
        with safe_open(str(folder / file), framework="pt") as opened:
            for name in names or opened.keys():
                values = opened.get_tensor(name)
                code = opened.get_slice(name).get_dtype()
                wide = values.double() if values.dtype.is_floating_point else values
                found[name] = str(code), wide.numpy()
    return found


def _reference(folders: tuple[Path, Path]) -> list[dict[str, tuple[str, Array]]]:
    try:
        return [_tensors(folder) for folder in folders]
    except Exception as error:
        raise Fault(f"accepted, and safetensors refuses it: {error}"[:200]) from error


def _require_close(name: str, code: str, got: Array, expected: Array) -> None:
    if got.shape != expected.shape:
        raise Fault(f"{name} has shape {got.shape}, expected {expected.shape}")
    if not np.isfinite(got).all():
        raise Fault(f"{name} holds NaN or infinity")
    scale = np.abs(expected).max(initial=0.0) + 1e-30
    error = np.abs(got - expected).max(initial=0.0) / scale
    if error > TOLERANCE.get(code, 0.0):
        raise Fault(f"{name} ({code}) is off by {error:.2g}")


def _require_no_leak(out: Path) -> None:
    for path in out.rglob("*"):
        if path.is_file() and b"root:x:0" in path.read_bytes():
            raise Fault(f"{path.name} has what a link led to")


def _verify_model(folders: tuple[Path, Path], out: Path) -> None:
    early, ft = _reference(folders)
    made = _reference((out, out))[0]
    _require_no_leak(out)
    for name, (code, values) in made.items():
        if name not in ft:
            raise Fault(f"{name} is in no input")
        if not np.issubdtype(values.dtype, np.floating):
            continue
        if name not in early:
            raise Fault(f"{name} is not in the early checkpoint")
        late = ft[name][1]
        with np.errstate(over="ignore", invalid="ignore"):
            _require_close(name, code, values, late + MU * (late - early[name][1]))
    if lost := [n for n in SHAPES if n in ft and n not in made]:
        raise Fault(f"{lost[0]} is not in the output")


@kind("model", 1500)
def model(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """Two checkpoints, one damaged: extrapolated, checked, along their main directions."""
    return _weights(rng, bench, folder, 1)


@kind("shards", 900)
def shards(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """As ``model``, in two files with an index."""
    return _weights(rng, bench, folder, 2)


def _weights(rng: random.Random, bench: Bench, folder: Path, number: int) -> Trial:
    pair = folder / "early", folder / "ft"
    for seed, place in enumerate(pair):
        shutil.copytree(bench.original(f"model-{seed}-{number}", _model(seed, number)), place)
    damage = _damage_folder(rng, rng.choice(pair))
    out, words = folder / "out", ["extrapolate", *pair]
    way = rng.randrange(8)
    if way == 0:
        return Trial(damage, lambda: command(*words, "--check"))
    words += ["--mu", MU, "--out", out]
    absent = (out, folder / ".out.partial")
    if way == 1:
        words += ["--low-rank", 2]
        return Trial(damage, lambda: command(*words), lambda _: _require_no_leak(out), absent)
    if way == 2:
        words += ["--dtype", rng.choice(("float32", "bfloat16", "float16"))]
    return Trial(damage, lambda: command(*words), lambda _: _verify_model(pair, out), absent)


def _updates(folder: Path, tensors: dict[str, tuple[str, Array]]) -> dict[str, Array] | None:
    """scaling * B A by module; None where the settings are no plain ones."""
    config = json.loads((folder / "adapter_config.json").read_text())
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or type(alpha) not in (int, float) or config.get("use_rslora"):
        return None
    if any(config.get(key) for key in ("rank_pattern", "alpha_pattern", "fan_in_fan_out")):
        return None
    found = {}
    for name, (_, a) in tensors.items():
        if ".lora_A." in name:
            b = tensors[name.replace(".lora_A.", ".lora_B.")][1]
            found[name.removeprefix("base_model.model.")] = alpha / rank * (b @ a)
    return found


def _verify_adapter(folders: tuple[Path, Path], out: Path, exact: bool) -> None:
    read = _reference((folders[0], folders[1]))
    made = _reference((out, out))[0]
    _require_no_leak(out)
    for name, (_, values) in made.items():
        if not np.isfinite(values).all():
            raise Fault(f"{name} holds NaN or infinity")
    early, ft = (_updates(f, t) for f, t in zip(folders, read, strict=True))
    got = _updates(out, made)
    if early is None or ft is None or got is None or not exact:
        return
    for name in {*early, *ft}:
        late = ft.get(name, np.zeros(1))
        expected = late + MU * (late - early.get(name, np.zeros(1)))
        if name not in got:
            raise Fault(f"{name} is not in the output")
        _require_close(name, "F32", got[name] / 10, expected / 10)


@kind("adapter", 1300)
def adapter(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """Two LoRA adapters, one damaged: extrapolated, cut, merged into a base, put side by side."""
    pair, base = (folder / "early", folder / "ft"), folder / "base"
    for seed, place in enumerate(pair):
        shutil.copytree(bench.original(f"adapter-{seed}", _adapter(seed)), place)
    shutil.copytree(bench.original("model-0-1", _model(0, 1)), base)
    damage = _damage_folder(rng, rng.choice((*pair, *pair, base)))
    out, words = folder / "out", ["extrapolate", *pair]
    way = rng.randrange(8)
    if way == 0:
        return Trial(damage, lambda: command(*words, "--check", "--base", base))
    words += ["--mu", MU, "--out", out]
    absent = (out, folder / ".out.partial")
    if way == 1:
        words += ["--base", base, "--materialise"]
        return Trial(damage, lambda: command(*words), lambda _: _require_no_leak(out), absent)
    if way == 2:
        words += ["--base", base, "--lambda", 1.0]
        return Trial(damage, lambda: command(*words), lambda _: _require_no_leak(out), absent)
    if way == 3:
        words += ["--svd-rank", 1]
    return Trial(
        damage, lambda: command(*words), lambda _: _verify_adapter(pair, out, way != 3), absent
    )
