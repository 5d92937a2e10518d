"""Parts of a file of ours read into the dataclasses that describe them, and what is wrong named."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from springback.errors import StoreError, describe

T = TypeVar("T")
#: Of every class that is read, nested ones too.  The key ``lambda`` is no name in Python.
_CONFIG = ConfigDict(
    strict=True, alias_generator=lambda name: "lambda" if name == "lam" else name, frozen=True
)
_INTERVAL = {"mean", "low", "high", "n", "method"}
#: What is allowed, by the kind of pydantic's error.
_ALLOWED = {
    "float_type": "a number or null",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "a string",
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
}


_NO_CHARACTERS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_NOT_SHOWN = re.compile(
    r"[^\t\n\r -~\u00a0-\ud7ff\ue000-\U0010ffff]"
    rf"|[\u202a-\u202e\u2066-\u2069{_NO_CHARACTERS}]"
)
#: How many entries a list or an object of a result may have, and how many values a result, its
#: measurements aside: what a job writes has hundreds, and a page of more takes minutes.
MOST_ENTRIES = 5_000
MOST_VALUES = 300_000


def require_moderate(result: Mapping[str, Any], file: object = "result.json") -> None:
    """Raise :class:`StoreError` where a result holds more than a page or a table can show.

    ``measurements`` are single numbers that nothing lists, and may be any number.
    """
    values = 0
    waiting: list[tuple[str, Any]] = [(k, v) for k, v in result.items() if k != "measurements"]
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, (Mapping, list)):
            continue
        values += len(value)
        if len(value) > MOST_ENTRIES or values > MOST_VALUES:
            given, most = f"{len(value):,} entries in {path}", f"at most {MOST_ENTRIES:,}"
            if values > MOST_VALUES:
                given, most = f"over {MOST_VALUES:,} values", f"{MOST_VALUES:,}, measurements aside"
            do = "make the study with fewer doses, sizes or seeds"
            raise StoreError(f"{file} holds too much to show: " + describe(given, most, do))
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [(f"{path}.{k}"[-80:], v) for k, v in inner if isinstance(v, (Mapping, list))]


def read_part(form: type[T], key: str, value: Any, command: str) -> T:
    """``value``, the plain JSON of a file's part ``key``, as ``form``.

    Keys that ``form`` does not know are ignored.  Raises :class:`StoreError` naming the path of a
    key that is missing or of another type, and the ``command`` that writes such files.
    """
    part = {key: value}
    try:
        parsed: T = _adapter(cast(Hashable, form)).validate_json(json.dumps(part))[key]
    except ValidationError as error:
        raise StoreError(_refusal(error, part, command)) from error
    return parsed


def require_length(values: Sequence[Any], length: int, like: str, *path: str | int) -> None:
    """For ``__post_init__`` of what is read: raise unless ``values``, at ``path`` in it, are
    ``length`` many, as ``like`` says."""
    if len(values) != length:
        raise ValueError(path, f"as many as {like} ({length})")


def require_some(values: Sequence[Any], *path: str | int) -> None:
    """Likewise unless there is one at least."""
    if not values:
        raise ValueError(path, "one value at least")


@functools.cache
def _adapter(form: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(dict[str, form], config=_CONFIG)  # type: ignore[valid-type]


def clean(value: Any) -> Any:
    """``value`` without what no page or picture may hold, and with null for what is not known.

    Characters that neither UTF-8 nor XML can spell, control codes and overrides of direction become
    U+FFFD; numbers that no float holds
    become null, and so does an interval without a mean: there is nothing to show then.
    """
    if isinstance(value, str):
        return _NOT_SHOWN.sub("\ufffd", value)
    if isinstance(value, Mapping):
        if value.get("mean", 0) is None and value.keys() <= _INTERVAL:
            return None
        return {clean(str(k)): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, (int, float)):
        try:
            return value if math.isfinite(value) else None
        except OverflowError:  # JSON knows no largest integer
            return None
    return value


def _refusal(error: ValidationError, part: Mapping[str, Any], command: str) -> str:
    """One line for the first error; of a value of several allowed types, all of these."""
    errors = error.errors(include_url=False)
    places = [_place(part, e["loc"]) for e in errors]
    path, value = places[0]
    same = [e for e, place in zip(errors, places, strict=True) if place[0] == path]
    allowed = ", ".join(dict.fromkeys(_words(e, value) for e in same))
    if same[0]["type"] == "value_error":
        # A check of ours: the path within the object, and what is allowed there.
        inner, allowed = same[0]["ctx"]["error"].args
        if inner:
            path, value = _place(part, (*_steps(part, errors[0]["loc"]), *inner))
    given = repr(value)
    given = given if len(given) <= 60 else given[:59] + "…"
    do = f"this is not the form that springback {command} writes; run the job again, or the "
    text = describe(given, allowed, do + "springback that wrote the file")
    return f"result.json, {path or next(iter(part))}: {text}"


def _words(error: Any, value: Any) -> str:
    kind = error["type"]
    if kind == "missing":
        return f"an object with the key '{error['loc'][-1]}'"
    if kind == "literal_error":
        return str(error["ctx"]["expected"])
    if kind == "float_type" and value is None:
        return "a number"
    return _ALLOWED.get(kind, str(error["msg"]))


def _steps(part: Any, loc: Sequence[str | int]) -> list[str | int]:
    """Those of pydantic's steps that lead through the file: it also names branches of a union."""
    steps: list[str | int] = []
    for step in loc:
        try:
            part = part[step]
        except (KeyError, IndexError, TypeError):
            continue
        steps.append(step)
    return steps


def _place(part: Any, loc: Sequence[str | int]) -> tuple[str, Any]:
    """The path as it is written, and the value there; of a bad key the key."""
    steps = _steps(part, loc)
    path = ""
    for step in steps:
        part = part[step]
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix("."), steps[-1] if loc and loc[-1] == "[key]" else part
