"""The container: every byte of it is covered, and nothing comes out of a bad one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec_fixture import TEXT, pack, sealed, unpack
from springback.compression import container
from springback.compression.model import CodecModel, load_codec_model
from springback.compression.text_spans import hold_back, split
from springback.errors import CodecError, SpringbackError

DATA = TEXT.encode()[:40] + bytes(range(120, 150))


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> CodecModel:
    return load_codec_model(tiny_llama)


@pytest.fixture(scope="module")
def whole(codec: CodecModel) -> bytes:
    found = pack(codec, DATA)
    assert unpack(codec, found) == DATA
    return found


def check(data: bytes) -> None:
    container.check_whole(io.BytesIO(data), "it")


def test_a_flip_of_any_single_byte_is_detected(whole: bytes) -> None:
    check(whole)
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            bad = bytearray(whole)
            bad[at] ^= flip
            with pytest.raises(CodecError):
                check(bytes(bad))


def test_truncation_at_any_place_and_anything_appended_are_detected(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(CodecError):
            check(whole[:length])
    for more in (b"\x00", b"more", whole):
        with pytest.raises(CodecError):
            check(whole + more)


def test_damage_under_a_right_outer_checksum_never_gives_wrong_bytes(
    codec: CodecModel, whole: bytes
) -> None:
    """A flip that the last digest does not show, since it was made anew: the inner checks do."""
    refused = 0
    for at in range(len(whole) - container.HASH):
        bad = bytearray(whole)
        bad[at] ^= 1
        try:
            assert unpack(codec, sealed(bytes(bad))) == DATA
        except SpringbackError:
            refused += 1
    # What may change without harm is what only messages tell: versions, machine, the model's name.
    told = len(codec.name) + len(codec.machine) + len("2.13.0+cpu") + 3
    assert refused >= len(whole) - container.HASH - 2 * told


def test_an_empty_file_and_a_foreign_one_are_told_apart(codec: CodecModel) -> None:
    assert unpack(codec, pack(codec, b"")) == b""
    with pytest.raises(CodecError, match="not a compressed file"):
        check(b"")
    with pytest.raises(CodecError, match="not a compressed file"):
        check(b"PK\x03\x04 something else")
    with pytest.raises(CodecError, match=r"version 9.*reads version 1"):
        check(container.MAGIC + b"\x09" + bytes(200))


@given(st.integers(0, 1 << 40))
def test_numbers_are_read_as_written(value: int) -> None:
    data = container.number(value)
    file = io.BytesIO(data)
    reader = container.Reader(file, len(data) + container.TRAILER, "it")
    assert reader.number() == value
    assert reader.left == 0


def test_numbers_without_an_end_or_too_large_are_refused() -> None:
    for data in (b"\xff" * 30, container.number(1 << 41), b"\x80"):
        reader = container.Reader(io.BytesIO(data), len(data) + container.TRAILER, "it")
        with pytest.raises(CodecError, match="damaged"):
            reader.number()


@given(st.binary(max_size=300))
def test_deflated_bytes_come_back_and_nothing_longer(data: bytes) -> None:
    packed = container.deflate(data)
    assert container.inflate(packed, len(data)) == data
    for wrong in {len(data) + 1, max(0, len(data) - 1)} - {len(data)}:
        with pytest.raises(CodecError):
            container.inflate(packed, wrong)
    with pytest.raises(CodecError):
        container.inflate(packed + b"x", len(data))


def test_a_bomb_is_not_unpacked() -> None:
    bomb = container.deflate(bytes(50_000_000))
    with pytest.raises(CodecError, match="another length"):
        container.inflate(bomb, 1000)


def test_text_between_bytes_becomes_a_piece_of_its_own(codec: CodecModel) -> None:
    text = TEXT.encode()
    data = b"\x00\xff" + text + b"\xfe short \xfe" + text
    pieces = split(data, codec.tokenizer, codec.vocabulary)
    assert [p.data for p in pieces] == [b"\x00\xff", text, b"\xfe short \xfe", text]
    assert [p.ids is None for p in pieces] == [True, False, True, False]


def test_a_short_file_that_is_all_text_is_text(codec: CodecModel) -> None:
    (piece,) = split(b"hi", codec.tokenizer, codec.vocabulary)
    assert piece.ids is not None


def test_names_of_special_tokens_are_text(codec: CodecModel) -> None:
    (piece,) = split(b"a <|im_end|> b", codec.tokenizer, codec.vocabulary)
    assert piece.ids is not None
    assert len(piece.ids) == 14  # a token a byte: no merge of the tiny tokenizer fits


def test_text_that_a_tokenizer_does_not_give_back_is_raw(codec: CodecModel) -> None:
    """Ids above the limit stand for a tokenizer that loses one character: only its surroundings
    become raw."""
    lossy = codec.tokenizer.convert_tokens_to_ids("z")
    text = "abcdfg" * 120  # letters before z, which no merge joins
    data = (text + "z" + text).encode()
    pieces = split(data, codec.tokenizer, lossy)
    assert b"".join(p.data for p in pieces) == data
    raw = [p.data for p in pieces if p.ids is None]
    assert all(len(r) <= 128 for r in raw)
    assert any(b"z" in r for r in raw)


def test_a_character_is_not_cut_between_blocks() -> None:
    for char, length in (("é", 2), ("世", 3), ("🎉", 4)):
        data = b"abcdef" + char.encode()
        assert hold_back(data) == 0
        for cut in range(1, length):
            assert hold_back(data[: len(data) - cut]) == length - cut
    assert hold_back(b"") == hold_back(b"abc") == hold_back(b"\x80\x80\x80\x80") == 0
