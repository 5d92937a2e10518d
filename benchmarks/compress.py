"""Claim: coding in lockstep is at least 3 times as fast as a loop of one token at a time.

Compresses the same bytes of a text with the language model and with ``xz -9e``, ``zstd --ultra
-19`` and PPMd, restores them again, and gives bits per byte and bytes per second of each.  Further
rows: the model over chunk lengths and dtypes (coded only), and the one-token loop, which is the
same coder with a batch of one, on the first bytes of the text.

A general compressor brings no knowledge of English along; the model is hundreds of megabytes of
it, and both ends need it.  Times of the model are without loading it, those of programs are whole
processes.  PPMd needs ``pip install pyppmd``; what is not installed is named in the result.

    python benchmarks/compress.py --file imdb-test.txt

Writes --out; exits 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from springback.compression.files import decode_file, encode_file
from springback.compression.model import CodecModel, load_codec_model
from springback.compression.settings import CodecSettings
from springback.compression.text_spans import hold_back
from springback.data import load_slice
from springback.progress import Lines
from springback.results.provenance import now, provenance
from springback.results.store import write_json

CLAIM = 3.0
RESULT = Path(__file__).parent / "results" / "compress.json"
Pack = Callable[[bytes], bytes]


def built_in(size: int) -> bytes:
    """Reviews of the built-in grammar, which are more alike than texts of people."""
    text = b""
    seed = 0
    while len(text) < size:
        for label in ("positive", "negative"):
            rows = load_slice(f"reviews:{label}", limit=500, seed=seed).rows
            text += "".join(row.response + "\n\n" for row in rows).encode()
        seed += 1
    return text[:size]


def read(path: Path | None, size: int) -> bytes:
    """The first ``size`` bytes, without a part of a character at the end."""
    data = path.read_bytes()[:size] if path else built_in(size)
    return data[: len(data) - hold_back(data)]


def program(*words: str) -> Pack:
    return lambda data: subprocess.run(words, input=data, capture_output=True, check=True).stdout


def rivals() -> Iterator[tuple[str, tuple[Pack, Pack] | None]]:
    """Name, and functions to compress and to restore; None where it is not installed."""
    there = shutil.which("xz") is not None
    yield "xz -9e", (program("xz", "-9e"), program("xz", "-d")) if there else None
    words = ("zstd", "--ultra", "-19", "-q")
    there = shutil.which("zstd") is not None
    yield "zstd --ultra -19", (program(*words), program("zstd", "-dq")) if there else None
    try:
        ppmd: Any = importlib.import_module("pyppmd")
    except ImportError:
        yield "PPMd", None
        return
    order, memory = 8, 64 << 20
    for order in (6, 16):

        def pack(data: bytes, order: int = order) -> bytes:
            packed: bytes = ppmd.compress(data, max_order=order, mem_size=memory)
            return packed

        def unpack(data: bytes, order: int = order) -> bytes:
            restored: bytes = ppmd.decompress(data, max_order=order, mem_size=memory)
            return restored

        yield f"PPMd (pyppmd {ppmd.__version__}), order {order}", (pack, unpack)


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    found = job()
    return found, time.perf_counter() - begin


def row(name: str, size: int, packed: int, pack_s: float, unpack_s: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "bytes": size,
        "packed_bytes": packed,
        "bits_per_byte": 8 * packed / size,
        "pack_bytes_per_second": size / pack_s,
        "unpack_bytes_per_second": size / unpack_s if unpack_s else None,
    }


def of_rival(name: str, how: tuple[Pack, Pack], data: bytes) -> dict[str, Any]:
    packed, pack_s = timed(lambda: how[0](data))
    restored, unpack_s = timed(lambda: how[1](packed))
    assert restored == data, name
    return row(name, len(data), len(packed), pack_s, unpack_s)


def of_model(
    codec: CodecModel, name: str, data: bytes, settings: CodecSettings, restore: bool
) -> dict[str, Any]:
    sink, says = io.BytesIO(), Lines()
    says.stage(name, len(data))
    found = encode_file(codec, io.BytesIO(data), sink, settings, says)
    unpack_s = None
    if restore:
        says.stage(f"{name}, restored", len(data))
        sink.seek(0)
        back = io.BytesIO()
        _, unpack_s = timed(lambda: decode_file(codec, sink, back, progress=says))
        assert back.getvalue() == data, name
    made = row(name, len(data), found.container_bytes, found.seconds, unpack_s)
    more = ("coded_bytes", "raw_bytes", "tokens", "chunks", "groups")
    return {
        **made,
        "chunk": settings.chunk,
        "batch": settings.batch,
        "dtype": settings.dtype,
        "coded_bits_per_byte": found.coded_bits_per_byte,
        **{field: getattr(found, field) for field in more},
    }


def measure(args: argparse.Namespace, data: bytes) -> list[dict[str, Any]]:
    rows = []
    for name, how in rivals():
        if how is None:
            print(f"{name}: not installed")
            rows.append({"name": name, "missing": True})
        else:
            rows.append(of_rival(name, how, data))
    settings = CodecSettings(chunk=args.chunk, batch=args.batch, threads=args.threads)
    codec = load_codec_model(args.model)
    of_model(codec, "warming up", data[:500], dataclasses.replace(settings, chunk=32), False)
    loop = dataclasses.replace(settings, batch=1)
    rows.append(of_model(codec, "one token at a time", data[: args.loop_bytes], loop, False))
    rows.append(of_model(codec, f"{args.model}, chunk {args.chunk}", data, settings, True))
    for chunk in args.chunks:
        if chunk != args.chunk:
            other = dataclasses.replace(settings, chunk=chunk)
            rows.append(of_model(codec, f"{args.model}, chunk {chunk}", data, other, False))
    del codec
    for dtype in args.dtypes:
        other = dataclasses.replace(settings, dtype=dtype)
        name = f"{args.model}, chunk {args.chunk}, {dtype}"
        rows.append(of_model(load_codec_model(args.model, dtype), name, data, other, True))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| coder | bits a byte | bytes/s in | bytes/s out |", "|---|---|---|---|"]
    for r in rows:
        if not r.get("missing"):
            out = r["unpack_bytes_per_second"]
            lines.append(
                f"| {r['name']} | {r['bits_per_byte']:.3f} | {r['pack_bytes_per_second']:,.0f} | "
                f"{'' if out is None else f'{out:,.0f}'} |"
            )
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, help="a text; without it, built-in reviews")
    parser.add_argument("--bytes", type=int, default=200_000)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--chunks", type=numbers, default=[64, 128, 256, 1024, 2048])
    parser.add_argument("--dtypes", type=lambda text: [d for d in text.split(",") if d], default=[])
    parser.add_argument("--loop-bytes", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    started = now()
    data = read(args.file, args.bytes)
    rows = measure(args, data)
    by_name = {r["name"]: r for r in rows}
    loop = by_name["one token at a time"]["pack_bytes_per_second"]
    ours = by_name[f"{args.model}, chunk {args.chunk}"]
    faster = ours["pack_bytes_per_second"] / loop
    result = {
        "claim": f"coding is at least {CLAIM} times as fast as one token at a time",
        "holds": faster >= CLAIM,
        "times_one_token_loop": faster,
        "inputs": {k: str(v) for k, v in vars(args).items() if k not in ("file", "out")}
        | {"file": args.file.name if args.file else "built-in reviews", "threads": args.threads},
        "torch_threads": args.threads or torch.get_num_threads(),
        "rows": rows,
        "provenance": provenance(started=started, finished=now()),
    }
    write_json(args.out, result)
    print(table(rows))
    print(f"{faster:.1f} times the one-token loop; written to {args.out}")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
