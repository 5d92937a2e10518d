"""Small files that grow without end, and results with more numbers than a page can show."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from report_fixture import audit_result
from springback.data import compressed, load_rows
from springback.errors import DataError, StoreError
from springback.report import render
from springback.results.cards import read_cards

ROW = b'{"text": "the same text again and again"}\n'
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


def resident() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("named", [True, False], ids=["named", "by its first bytes"])
def test_packed_files_are_read(tmp_path: Path, ending: str, named: bool) -> None:
    path = tmp_path / f"rows.jsonl{ending if named else ''}"
    path.write_bytes(PACK[ending](b'{"text": "one"}\n{"text": "two"}\n'))
    assert [row.response for row in load_rows(str(path))] == ["one", "two"]


@pytest.mark.parametrize("ending", PACK)
def test_packed_files_that_are_damaged_are_refused(tmp_path: Path, ending: str) -> None:
    packed = PACK[ending](ROW * 99)
    for name, content in (("cut", packed[:-9]), ("other", b"{}" * 40)):
        path = tmp_path / f"{name}.jsonl{ending}"
        path.write_bytes(content)
        with pytest.raises(DataError, match="cut short or damaged"):
            load_rows(str(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"])
@pytest.mark.parametrize("ending", PACK)
def test_what_unpacks_without_end_is_refused(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"{name}{ending}"
    part = PACK[ending](ROW * (1 << 18))  # 11 MB in a few kilobytes, and so again
    with path.open("wb") as out:
        for _ in range(20):
            out.write(part)
    before = resident()
    with pytest.raises(DataError, match=r"unpacks to more than \d+ MB.*unpack it or give a part"):
        load_rows(str(path))
    assert resident() - before < 400e6


def test_what_packs_well_is_read_up_to_a_size_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROW * 20_000))
    assert len(load_rows(str(path))) == 20_000


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_value_stored_once_for_all_rows_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * 100_000])
    table = pa.table({"text": column})
    if ending == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    before = resident()
    with pytest.raises(DataError, match="unpacks to more than"):
        load_rows(str(path))
    assert resident() - before < 400e6


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_rows_that_are_not_stored_at_all_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    table = pa.table({"text": pa.nulls(20_000_000)})
    if ending == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as out:
            out.write_table(table)
    with pytest.raises(DataError, match="unpacks to more than"):
        load_rows(str(path))


def test_a_file_larger_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as out:
        out.truncate(20_000_000)  # zeros that take no disk
    monkeypatch.setattr(compressed, "memory_limit", lambda: 10_000_000)
    with pytest.raises(DataError, match="has 20 MB; allowed: half of the memory, 10 MB"):
        load_rows(str(path))


def grown(value: Any, length: int, count: int) -> Any:
    """``value`` with each list of numbers that has ``length`` entries grown to ``count``."""
    if isinstance(value, dict):
        return {key: grown(inner, length, count) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) == length and all(isinstance(v, int | float) for v in value):
        return [value[0] + (value[-1] - value[0]) * k / count for k in range(count)]
    return [grown(inner, length, count) for inner in value]


def too_many(name: str, count: int) -> dict[str, Any]:
    """A result of an audit whose part ``name`` has ``count`` entries."""
    result = audit_result()
    if name == "doses":
        result["analysis"]["rebound"] = grown(result["analysis"]["rebound"], 6, count)
    elif name == "settings":
        result["inputs"]["settings"] = {str(k): {"path": k} for k in range(count)}
    elif name == "commands":
        result["provenance"]["command"] = ["springback"] * count
    else:
        result["verdict"]["parts"] = result["verdict"]["parts"] * count
    return result


@pytest.mark.parametrize("name", ["doses", "settings", "commands", "parts of the verdict"])
def test_a_result_with_more_than_a_page_can_show_is_refused(tmp_path: Path, name: str) -> None:
    result = too_many(name, 20_000)
    with pytest.raises(StoreError, match=r"too much to show: .* allowed: .*(5,000|300,000)"):
        render(result)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result))
    with pytest.raises(StoreError, match=r"result\.json holds too much to show"):
        read_cards([file, file])


def test_any_number_of_single_measurements_may_stand_behind_a_page() -> None:
    result = audit_result()
    result["measurements"] = (result["measurements"] * 99)[:20_000]
    assert "20,000 single measurements" in render(result)
