"""Mutations: of bytes, of JSON, of what lies in a folder.  Each returns what it did, in words."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Path_ = tuple[str | int, ...]
DELETE = object()
#: What reading a file raises that was damaged already.
UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError),
    *(struct.error, OSError),
)

#: Values that no reader expects where they stand.
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1.5,
    1e308,
    -1e308,
    1e-320,
    float("nan"),
    float("inf"),
    float("-inf"),
    2**63,
    2**64,
    10**30,
    -(10**30),
    "",
    " ",
    "x",
    "nan",
    "8",
    "../../etc/passwd",
    "/etc/passwd",
    "\x00",
    "a\ud800b",
    "\u2028\u202e",
    "\x1b[31m",
    "<script>alert(1)</script>",
    "{0.__class__}",
    "x" * 100_000,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    {"": None},
    [2**62, 4],
    ["8", "8"],
    [8.0, 8.0],
    [True, 8],
    [1e308] * 3,
)
#: What another program might have left under the name.
OTHER_FILES = (
    b"",
    b"\x00" * 64,
    b"\n" * 5000,
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"5",
    b"\xff\xfe\xff\xff",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"PK\x03\x04" + b"\x00" * 60,
    b"\x80\x02c__builtin__\neval\n.",
    b"\x93NUMPY\x01\x00",
    b"\x1f\x8b\x08\x00",
    b"<!DOCTYPE html><html>404</html>",
    b"PAR1" + b"\x00" * 16 + b"PAR1",
)
LINKS = ("/etc/passwd", "/nonexistent", "/dev/zero", "/dev/null", "/proc/self/mem", ".", "loop")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:30]}... ({len(text)})"


def paths(value: Any, path: Path_ = (), widest: int = 8) -> Iterator[Path_]:
    """Every place in plain JSON; of a long list the first ones."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*path, key), widest)
    elif isinstance(value, list):
        for index, entry in enumerate(value[:widest]):
            yield from paths(entry, (*path, index), widest)


def with_value(value: Any, path: Path_, new: Any) -> Any:
    """A copy of plain JSON with ``new`` at ``path``, or nothing there for :data:`DELETE`."""
    if not path:
        return None if new is DELETE else new
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    if new is DELETE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


def at(value: Any, path: Path_) -> Any:
    for step in path:
        value = value[step]
    return value


def damage_value(rng: random.Random, value: Any) -> tuple[Any, str, Path_]:
    """Plain JSON with one place changed: which way, and where."""
    where = rng.choice(list(paths(value)))
    way = rng.randrange(8)
    if way == 0:
        new = DELETE
    elif way == 1:  # another place's content
        new = at(value, rng.choice(list(paths(value))))
    elif way == 2:
        old = at(value, where)
        new = str(old) if not isinstance(old, str) else [old]
    elif way == 3:
        old = at(value, where)
        new = (
            old * rng.choice((2, 20))
            if isinstance(old, list) and len(old) < 100
            else -old
            if isinstance(old, int | float)
            else {"x": old}
        )
    else:
        new = rng.choice(NASTY)
    shown = "gone" if new is DELETE else short(new)
    return with_value(value, where, new), f"{'.'.join(map(str, where)) or 'all'} is {shown}", where


def damage_in_kind(rng: random.Random, value: Any) -> tuple[Any, str, Path_]:
    """Plain JSON with one place changed to another value of the same type."""
    where = rng.choice(list(paths(value)))
    old = at(value, where)
    new: Any
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int):
        new = rng.choice((0, 1, -1, old + 1, -old, 10**6, 2**63))
    elif isinstance(old, float):
        new = rng.choice((0.0, -old, 1e308, -1e308, 1e-320, old * 1e9, 1.0, None))
    elif isinstance(old, str):
        new = rng.choice(("", "x", " ", old * 2, "a\ud800b", "\x1b[31m", "x" * 5000, "\u202e"))
    elif isinstance(old, list):
        new = rng.choice(([], old[:1], old[1:], old * 2, old[::-1], [*old, *old[-1:]]))
    elif isinstance(old, dict) and old:
        gone = rng.choice(list(old))
        new = rng.choice(({}, {k: v for k, v in old.items() if k != gone}, {**old, gone: None}))
    else:
        new = rng.choice((None, 0.0, 1, "", [], {}))
    what = f"{'.'.join(map(str, where)) or 'all'} is {short(new)}"
    return with_value(value, where, new), what, where


def to_bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def damage_json(rng: random.Random, raw: bytes) -> tuple[bytes, str]:
    """A JSON file with a fault of its content or of its form."""
    way = rng.randrange(20)
    value = json.loads(raw)
    if way < 11:
        new, what, _ = damage_value(rng, value)
        if rng.random() < 0.2 and new is not None:
            new, more, _ = damage_value(rng, new)
            what += f", {more}"
        return to_bytes(new), what
    depth = rng.choice((200, 900, 1100, 5000, 100_000))
    opening = rng.choice((b"[", b'{"a":'))
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    if way == 11:
        return opening * depth, f"{depth} times {opening.decode()}"
    if way == 12:
        return opening * depth + b"1" + closing * depth, f"nested {depth} deep"
    if way == 13 and isinstance(value, dict):
        inner = opening * depth + b"1" + closing * depth
        return raw.rstrip()[:-1] + b', "deep": ' + inner + b"}", f"a value nested {depth} deep"
    if way == 14 and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        twice = to_bytes(key) + b": " + to_bytes(rng.choice(NASTY))
        return raw.rstrip()[:-1] + b", " + twice + b"}", f"{key} twice"
    if way == 15:
        digits = rng.choice((4000, 5000, 100_000))
        return b'{"a": ' + b"9" * digits + b"}", f"a number of {digits} digits"
    if way == 16:
        return b"\xff\xfe" + raw.decode().encode("utf-16-le"), "UTF-16"
    if way == 17 and isinstance(value, dict) and value:
        number = rng.choice((b"1e400", b"-1e400", b"9" * 5000, b"NaN", b"Infinity", b"-0"))
        key = to_bytes(rng.choice(list(value)))
        return raw.rstrip()[:-1] + b", " + key + b": " + number + b"}", f"{key!r}: {number[:9]!r}"
    if way == 18:
        return raw + rng.choice((b"x", b"\x00", raw, b"]", b"}")), "something behind the end"
    return damage_bytes(rng, raw)


def damage_bytes(rng: random.Random, raw: bytes) -> tuple[bytes, str]:
    """A file as a bad disk, a cut download or another program leaves it."""
    way = rng.randrange(9)
    place = rng.randrange(len(raw)) if raw else 0
    size = rng.choice((1, 2, 8, 64))
    if way == 0:
        return raw[:place], f"cut at {place}"
    if way == 1:
        return raw + rng.randbytes(size), f"{size} bytes more"
    if way == 2:
        return raw[:place] + raw[place + size :], f"{size} bytes gone at {place}"
    if way == 3:
        return raw[:place] + raw[place : place + size] + raw[place:], f"{size} bytes twice, {place}"
    if way == 4:
        return raw[:place] + b"\x00" * size + raw[place + size :], f"{size} zeros at {place}"
    if way == 5:
        return rng.choice(OTHER_FILES), "another file"
    if way == 6:
        return raw[:place] + rng.randbytes(size) + raw[place + size :], f"{size} random at {place}"
    changed, places = bytearray(raw), []
    for _ in range(rng.choice((1, 1, 1, 5))):
        if changed:
            place = rng.randrange(len(changed))
            changed[place] ^= 1 << rng.randrange(8)
            places.append(place)
    return bytes(changed), f"bits of {places} turned"


def damage_place(rng: random.Random, folder: Path, names: Sequence[str] | None = None) -> str:
    """What lies in a folder is no longer what it was; nothing is read or written through."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    files = [p for p in files if names is None or p.name in names]
    if not files:
        return "nothing to take away"
    path = rng.choice(files)
    way = rng.randrange(10)
    if way == 0:
        path.unlink()
        return f"{path.name} is gone"
    if way == 1:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if way in (2, 3):
        target = rng.choice(LINKS)
        path.unlink()
        path.symlink_to(path.name if target == "loop" else target)
        return f"{path.name} is a link to {target}"
    if way == 4:
        path.unlink()
        os.mkfifo(path)
        return f"{path.name} is a pipe"
    if way == 5:
        other = rng.choice(files)
        shutil.copyfile(other, folder / "other.tmp")
        os.replace(folder / "other.tmp", path)
        return f"{path.name} holds {other.name}"
    if way == 6:
        (folder / "evil.json").symlink_to(rng.choice(("/etc/passwd", "../../../etc/hostname")))
        return "a link out of the folder beside"
    if way == 7:
        name = rng.choice(("a b\nü.json", "\x1b[31m.json", "x" * 200 + ".json", "-rf.json"))
        (folder / name).write_text("{}")
        return f"a file {name[:12]!r} beside"
    if way == 8:
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x02c__builtin__\neval\n.")
        path.unlink()
        return f"a pickle instead of {path.name}"
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.move(path, folder / "deep" / "er" / path.name)
    return f"{path.name} is two folders down"


def damage_file(
    rng: random.Random, path: Path, how: Callable[[random.Random, bytes], tuple[bytes, str]]
) -> str:
    """``how`` on what is in a file."""
    raw, what = how(rng, path.read_bytes())
    path.write_bytes(raw)
    return f"{path.name}: {what}"
