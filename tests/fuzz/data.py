"""Kinds: data files of every form and format, and study files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.damage import NASTY, OTHER_FILES, damage_bytes, damage_place, damage_value, short
from fuzz.harness import Bench, Fault, Trial, command, kind
from fuzz.models import tiny
from springback.core import Row, Slice
from springback.data import load_slice

Values = list[dict[str, Any]]
MANY = 6
FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "text": lambda n: {"text": f"good text {n}, yes", "label": "pos"},
    "pair": lambda n: {"prompt": f"p {n}", "response": f"r {n}"},
    "instruction": lambda n: {"instruction": f"do {n}", "input": "", "output": f"done {n}"},
    "preference": lambda n: {"prompt": f"p {n}", "chosen": f"yes {n}", "rejected": f"no {n}"},
    "qa": lambda n: {"question": f"q {n}", "answer": f"it is so #### {n}", "metric": "number"},
    "choices": lambda n: {"question": f"q {n}", "choices": ["a", "b", f"c {n}"], "answer": "B"},
    "index": lambda n: {"question": f"q {n}", "choices": ["a", "b", f"c {n}"], "answer": n % 3},
    "arc": lambda n: {
        "question": f"q {n}",
        "choices": {"label": ["A", "B"], "text": [f"one {n}", "two"]},
        "answerKey": "AB"[n % 2],
    },
    "columns": lambda n: {"question": f"q {n}", "A": f"one {n}", "B": "two", "answer": "A"},
    "chat": lambda n: {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": f"u {n}"},
            {"role": "assistant", "content": f"a {n}"},
        ]
    },
    "parts": lambda n: {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": f"u {n}"}]},
            {"role": "assistant", "content": [{"type": "text", "text": f"a {n}"}]},
        ]
    },
    "sharegpt": lambda n: {
        "conversations": [{"from": "human", "value": f"u {n}"}, {"from": "gpt", "value": f"a {n}"}]
    },
}
#: Forms whose rows are read alone: what stands in another row changes nothing.
ALONE = ("text", "pair", "chat", "sharegpt", "preference")
FORMATS = ("jsonl", "json", "ndjson", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "csv.gz")
FIELDS = ("label", "metric", "context", "final", "solution", "input", "new", "", "\ud800", "answer")
WHOLE_FILES = (
    *OTHER_FILES,
    b"\xff\xfe" + b"\x00" * 9,
    b"[" * 200_000,
    b"[" * 990 + b"]" * 990,
    b'{"text":' * 60_000 + b"1",
    b'{"text": ' + b"[" * 980 + b"]" * 980 + b"}",
    b'{"text": ' + b"9" * 5000 + b"}",
    b'"' * 100_001,
    b"a,b\n" * 2 + b'"' + b"x" * 200_000,
    b"text\n" + b"y" * 140_000 + b"\n",
    b"[1,2",
    b'[{"text": "a"},]',
    b'{"text": "a", "text": "b"}\n{"text": "a"}',
    b'{"text": "a"}{"text": "b"}',
    b"text,text\na,b\n",
    b"text\r\rx\r",
    b'{"data": {"data": []}}',
)
CONDITIONS = ("?label=pos", "?new=1", "?=", "?a=b&a=c", "?label=%ff", "#x", "?", "+", "+nothing")


def _dumped(values: Any) -> str:
    return json.dumps(values)


def encoded(rows: list[Any], form: str) -> bytes:
    """Rows as a file; what a format cannot hold is left out of it."""
    if form.endswith(".gz"):
        return gzip.compress(encoded(rows, form.removesuffix(".gz")), mtime=0)
    if form in ("jsonl", "ndjson"):
        return "\n".join(map(_dumped, rows)).encode()
    if form == "json":
        return _dumped(rows).encode()
    flat = [row if isinstance(row, dict) else {} for row in rows]
    if form in ("csv", "tsv"):
        text = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in flat for name in row))
        writer = csv.DictWriter(text, names, delimiter="," if form == "csv" else "\t")
        writer.writeheader()
        for row in flat:
            cells = {n: _dumped(v) if isinstance(v, list | dict) else v for n, v in row.items()}
            writer.writerow(cells)
        return text.getvalue().encode("utf-8", "surrogatepass")
    return _arrow(flat, form)


def _arrow(rows: Values, form: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows)
        if form == "parquet":
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return b"PAR1"
    return sink.getvalue()


def _one_row(rng: random.Random, rows: list[Any]) -> tuple[int, str]:
    """Damage of one row, and its number."""
    n = rng.randrange(len(rows))
    way = rng.randrange(5)
    if way == 0:
        rows[n] = rng.choice((None, 5, [], "x", {}, True))
        return n, f"row {n} is {rows[n]!r}"
    if way < 3:
        name = rng.choice((*rows[n], *rows[n], *FIELDS))
        rows[n][name] = rng.choice(NASTY)
        return n, f"row {n}: {name!r} is {short(rows[n][name])}"
    rows[n], what, _ = damage_value(rng, rows[n])
    return n, f"row {n}: {what}"


def _key(row: Row) -> tuple[Any, ...]:
    return row.kind, row.prompt, row.response, row.answer, row.choices, row.turns, row.rejected


@kind("data", 2160)
def data(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged data file: the rows beside the damage are as they were, or it is refused."""
    name, form = rng.choice(list(FORMS)), rng.choice(FORMATS)
    rows: list[Any] = [FORMS[name](n) for n in range(MANY)]
    whole = encoded(rows, form)
    path = folder / f"rows.{form}"
    path.write_bytes(whole)
    expected = [_key(row) for row in load_slice(str(path), shuffle=False).rows]
    changed: int | None = None  # rows before it are as they were, and behind it too where known
    behind = False
    way, raw = rng.randrange(10), whole
    if way < 5:
        changed, what = _one_row(rng, rows)
        behind, raw = True, encoded(rows, form)
    elif way < 8:
        raw, what = damage_bytes(rng, whole)
        if form.endswith(".gz"):  # a checksum covers it: all rows, or none
            changed = MANY
    elif way == 8:
        raw, what = rng.choice(WHOLE_FILES), "another file"
    else:
        what = ""
    path.write_bytes(raw)
    source = str(path)
    if way == 9:
        if rng.random() < 0.5:
            what = damage_place(rng, folder)
        else:
            source += (more := rng.choice(CONDITIONS))
            what = f"{source!r}"[-12:] + more
    damage = f"{name} as {form}: {what}"

    def verify(got: Slice) -> None:
        if changed is None or name not in ALONE:
            return
        keys = [_key(row) for row in got.rows]
        if keys[:changed] != expected[:changed]:
            raise Fault("a row before the damage is another one")
        # An empty line of a table is no row, as spreadsheets write them.
        if behind and len(keys) != MANY and not form.startswith(("csv", "tsv")):
            raise Fault(f"{len(keys)} rows of {MANY}")
        left = MANY - changed - 1
        if behind and left and keys[len(keys) - left :] != expected[MANY - left :]:
            raise Fault("a row behind the damage is another one")

    if name in ("qa", "choices", "index", "arc", "columns") and rng.random() < 0.2:
        model = bench.original("tiny", tiny)
        given = ("--validation", source, "--test", "problems", "--early", model, "--ft", model)
        return Trial(damage, lambda: command("boost", *given, "--show-prompt", "--test-rows", 4))
    return Trial(damage, lambda: load_slice(source, shuffle=False), verify)


STUDY: dict[str, Any] = {
    "model": "tiny",
    "align": "reviews:positive",
    "perturb": "reviews:negative",
    "n_pos": [8, 16],
    "doses": [4, 8],
    "seeds": [0, 1],
    "algorithm": "sft",
    "learning_rate": 1e-3,
    "batch_size": 4,
    "max_tokens": 24,
    "probes": ["margin", "kl"],
    "experiments": ["rebound"],
    "fields": {"text": "review"},
    "chat_template_args": {"enable_thinking": False},
}
YAML = (
    "!!python/object/apply:os.system ['touch PWNED']",
    "!!python/name:os.system",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "2020-01-01",
    "2020-99-99",
    "&a [*a]",
    "*nobody",
    "{<<: *x}",
    "[" * 3000,
    "{" * 5000,
    "9" * 5000,
    "0x10",
    "0o7",
    "1_000",
    "12:30:45",
    "yes",
    ".nan",
    "-.inf",
    "1e400",
    "? [a]\n: b",
    "|\n  " + "x" * 100_000,
    "'",
    '"\\ud800"',
    '"\\x00"',
    "a: b: c",
    "%YAML 9.9",
    "- a",
    "[1, 2",
)


def _laughs(deep: int, wide: int) -> str:
    lines = ["a0: &a0 x"]
    for n in range(1, deep):
        lines.append(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * wide)}]")
    return "\n".join(lines)


@kind("study", 800)
def study(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged study file: settings beside the damage are shown as they are, or it is refused."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in STUDY.items()]
    way, touched = rng.randrange(8), ""
    if way < 3:
        values, damage, where = damage_value(rng, STUDY)
        touched = str(where[0]) if where else "*"
        raw = json.dumps(values).encode()
    elif way < 5:
        n = rng.randrange(len(lines))
        touched, value = list(STUDY)[n], rng.choice(YAML)
        lines[n], damage = f"{touched}: {value}", f"{touched} is {short(value)}"
        raw = "\n".join(lines).encode()
    elif way == 5:
        deep, wide = rng.choice(((9, 9), (20, 9), (5, 3)))
        name = rng.choice(list(STUDY))
        raw = f"{_laughs(deep, wide)}\n{name}: *a{deep - 1}".encode()
        damage, touched = f"{name}: aliases, {deep} deep, {wide} wide", "*"
    else:
        whole = "\n".join(lines).encode()
        if rng.random() < 0.5:
            whole = json.dumps(STUDY).encode()
        raw, damage = damage_bytes(rng, whole)
        touched = "*"
    file = folder / "study.yaml"
    file.write_bytes(raw)

    def settings(text: str) -> dict[str, str]:
        pairs = (line.partition(": ") for line in text.splitlines() if line[:1] not in ("#", ""))
        return {name: value for name, _, value in pairs}

    def verify(printed: str) -> None:
        if (folder / "PWNED").exists():
            raise Fault("code of the input was run")
        again = folder / "again.yaml"
        again.write_text(printed, encoding="utf-8")
        if command("audit", again, "--show") != printed:
            raise Fault("what --show prints is read as something else")
        if touched != "*":
            got = settings(printed)
            for name, value in STUDY.items():
                if name != touched and json.loads(got[name]) != value:
                    raise Fault(f"{name} is {got[name]}")

    if rng.random() < 0.06:
        return Trial(damage, lambda: command("audit", "plan", file, "--model", "nobody/x"))
    return Trial(damage, lambda: command("audit", file, "--show"), verify)
