"""Kinds: model folders that are loaded, and compressed containers."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path

from codec_fixture import sealed
from fuzz.damage import UNREADABLE, damage_bytes, damage_file, damage_json, damage_place
from fuzz.harness import Bench, Fault, Trial, command, kind
from fuzz.weights import damage_safetensors
from springback.compression.container import HASH
from tiny_model import CHAT_TEMPLATE, make_llama, make_tokenizer

TEXT = "The hen is in the barn. Grüße, 世界\n".encode() * 2 + b"\xff\x00\xfe"
TEMPLATES = (
    "{% if %}",
    "{{ messages[0].nothing.at.all }}",
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{% for i in range(9999) %}x{% endfor %}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ 1 / 0 }}",
    "",
    "{{ messages | tojson }}",
    CHAT_TEMPLATE + "{{ bos_token * 3 }}",
    "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
)
BOOSTED = {"kind": "boosted", "lambda": 0.5, "alpha": 0.1, "amateur": "amateur"}


def tiny(folder: Path) -> None:
    make_llama(folder, make_tokenizer(folder.parent / "tokenizer"))
    shutil.rmtree(folder.parent / "tokenizer")


def _damage_model(rng: random.Random, folder: Path) -> str:
    """A fault in one of the files of a whole model, all of which a loader reads."""
    what: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        texts = sorted(p for p in folder.rglob("*.json") if p.is_file())
        way = rng.random()
        try:
            if way < 0.7 and texts:
                path = rng.choice(texts)
                what.append(damage_file(rng, path, damage_json))
            elif way < 0.8:
                path = folder / "model.safetensors"
                what.append(damage_file(rng, path, damage_safetensors))
            elif way < 0.9:
                template = rng.choice(TEMPLATES)
                (folder / "chat_template.jinja").write_text(template)
                what.append(f"chat template {template[:40]!r}")
            else:
                what.append(damage_place(rng, folder))
                break
        except UNREADABLE:
            break
    return ", ".join(what)


@kind("load", 700)
def load(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged model, or pair of models, that is asked something."""
    model = folder / "model"
    shutil.copytree(bench.original("tiny", tiny), model)
    if rng.random() < 0.3:
        shutil.copytree(bench.original("tiny", tiny), model / "amateur")
        (model / "springback.json").write_text(json.dumps(BOOSTED))
        if rng.random() < 0.5:
            damage = damage_file(rng, model / "springback.json", damage_json)
            return _asked(damage, model)
    return _asked(_damage_model(rng, model), model)


def _asked(damage: str, model: Path) -> Trial:
    def verify(printed: str) -> None:
        if list(model.parent.rglob("PWNED")):
            raise Fault("code of the input was run")

    words = ("generate", model, "hi", "--max-new-tokens", 2)
    return Trial(damage, lambda: command(*words), verify)


def _compress(bench: Bench) -> Path:
    def make(folder: Path) -> None:
        (folder / "text").write_bytes(TEXT)
        model = bench.original("tiny", tiny)
        words = (folder / "text", "--out", folder / "text.sbc", "--model", model, "--chunk", 16)
        command("compress", *words)

    return bench.original("container", make) / "text.sbc"


def _damage_container(rng: random.Random, raw: bytes) -> tuple[bytes, str]:
    """Damage before or behind the last digest; the former often with a digest that fits it."""
    if rng.random() < 0.35:
        return damage_bytes(rng, raw)
    body, way = raw[:-HASH], rng.randrange(4)
    if way == 0:  # a number of 1 to 10 bytes anywhere
        place = rng.randrange(5, len(body))
        number = bytes([0xFF] * rng.randrange(10)) + bytes([rng.randrange(128)])
        body, what = body[:place] + number + body[place + 1 :], f"a number at {place}"
    elif way == 1:  # one of the fields at fixed places
        place = rng.choice((0, 3, 4, 5, 21, 37, 38, 39, 40, 41))
        body, what = body[:place] + rng.randbytes(1) + body[place + 1 :], f"field at {place}"
    elif way == 2:
        length = rng.choice((0, 1, 2**31, 2**63, 2**64 - 1))
        place = len(body) - HASH - 8
        body = body[:place] + struct.pack("<Q", length) + body[place + 8 :]
        what = f"an original of {length} bytes"
    else:
        body, what = damage_bytes(rng, body)
    return sealed(body + bytes(HASH)), f"{what}, sealed"


@kind("container", 1200)
def container(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged container, or another model than its own: the original's bytes, or a refusal."""
    original, model = _compress(bench), bench.original("tiny", tiny)
    file, out = folder / "text.sbc", folder / "text"
    shutil.copyfile(original, file)
    if rng.random() < 0.1:
        shutil.copytree(model, folder / "model")
        model = folder / "model"
        damage = _damage_model(rng, model)
    else:
        damage = damage_file(rng, file, _damage_container)

    def verify(printed: str) -> None:
        if out.read_bytes() != TEXT:
            raise Fault("other bytes than the original's")

    words = ("decompress", file, "--out", out, "--model", model)
    return Trial(damage, lambda: command(*words), verify, (out,))
