"""Header blocks decoded (RFC 7541): right, and safely."""

from __future__ import annotations

import os

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import Http2ConnectionError
from apns_live.http2 import ErrorCode, HeaderDecoder

from . import fuzz_header_blocks
from .support import literal

FUZZ_BLOCKS = int(os.environ.get("APNS_LIVE_FUZZ", "5000"))

TEXT = st.binary(max_size=200)
FIELDS = st.lists(st.tuples(st.binary(max_size=40), TEXT, st.booleans()), max_size=8)


def decoded(decoder: HeaderDecoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return list(decoder.decode(block))


@given(
    blocks=st.lists(
        st.tuples(FIELDS, st.booleans(), st.sampled_from([None, None, 0, 40, 300, 4096])),
        max_size=6,
    )
)
def test_valid_blocks_decode_as_hpack_decodes_them(blocks: list) -> None:
    encoder, reference, decoder = hpack.Encoder(), hpack.Decoder(), HeaderDecoder()
    for fields, huffman, table_size in blocks:
        if table_size is not None:
            encoder.header_table_size = table_size
        block = encoder.encode(
            [
                (hpack.NeverIndexedHeaderTuple if never else hpack.HeaderTuple)(name, value)
                for name, value, never in fields
            ],
            huffman=huffman,
        )
        expected = [(bytes(f[0]), bytes(f[1])) for f in reference.decode(block, raw=True)]
        assert decoded(decoder, block) == expected == [(n, v) for n, v, _ in fields]


REFUSED = {
    "a literal cut behind its first byte": "40",
    "no name": "00",
    "an index without its second byte": "0f",
    "a length without its second byte": "007f",
    "a Huffman-coded name without a value": "0081ff",
    "a name without a value": "000161",
    "a value cut short": "000161056162",
    "a name cut short": "000561",
    "an indexed name without a value": "44",
    "never indexed, cut": "10",
    "index 0": "80",
    "index 62 of an empty table": "be",
    "name index 62 of an empty table": "7e0161",
    "an index cut short": "ff",
    "an endless index": "ff" + "ff" * 12 + "01",
    "an endless length": "007f" + "ff" * 12 + "01",
    "an endless size update": "3f" + "ff" * 12 + "01",
    "a size update above 4096": "3fe21f",
    "a size update behind a field": "8220",
    "a size update between fields": "822082",
    "twenty size updates": "20" * 20,
    "Huffman padding of zeros": "00811801 61",
    "Huffman padding of a whole byte": "00821fff0161",
    "Huffman padding of zeros in a value": "0001618118",
    "EOS in a string": "00016184ffffffff",
    "EOS as the beginning of padding": "0001618 53fffffffff".replace(" ", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_blocks_end_in_a_compression_error(name: str, capfd: pytest.CaptureFixture) -> None:
    decoder = HeaderDecoder()
    with pytest.raises(Http2ConnectionError) as caught:
        decoder.decode(bytes.fromhex(REFUSED[name]))
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR
    assert capfd.readouterr().err == ""


def test_plain_blocks_and_others_decode_as_hpack_decodes_them() -> None:
    decoder, reference = HeaderDecoder(), hpack.Decoder()
    blocks = [b"\x88" * count for count in range(1, 100)]
    blocks += [b"\x88" + literal(b"apns-id", b"x" * size) for size in range(120)] * 2
    blocks += [b"\x88\x40\x01a\x01b", b"\xbe", b"\x88", b"\x20", b"\x88", b""]
    for block in blocks:
        expected = [(bytes(f[0]), bytes(f[1])) for f in reference.decode(block, raw=True)]
        assert decoded(decoder, block) == expected
    with pytest.raises(Http2ConnectionError):
        decoder.decode(b"\xbe")


def test_a_lowered_table_has_to_be_announced() -> None:
    decoder = HeaderDecoder()
    decoder.decode(b"\x40\x01a\x01b")
    decoder.decode(b"\x88")
    decoder.allow_table_size(100)
    with pytest.raises(Http2ConnectionError, match="above the size that we allow"):
        decoder.decode(b"\x88")
    decoder = HeaderDecoder()
    decoder.allow_table_size(100)
    with pytest.raises(Http2ConnectionError, match="above the size that we allow"):
        decoder.decode(b"\x3f\x46\x88")
    decoder = HeaderDecoder()
    decoder.allow_table_size(100)
    assert decoded(decoder, b"\x3f\x45\x88") == [(b":status", b"200")]
    assert decoded(decoder, b"\x88") == [(b":status", b"200")]
    decoder.allow_table_size(4096)
    assert decoded(decoder, b"\x3f\xe1\x1f\x88") == [(b":status", b"200")]


def test_a_list_that_is_too_large() -> None:
    decoder = HeaderDecoder(200)
    assert len(decoder.decode(literal(b"a", b"b" * 60))) == 1
    with pytest.raises(Http2ConnectionError) as caught:
        decoder.decode(literal(b"a", b"b" * 90) * 2)
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_mutated_blocks_never_escape() -> None:
    seen = fuzz_header_blocks.run(FUZZ_BLOCKS, seed=1)
    assert sum(seen.values()) >= FUZZ_BLOCKS
    assert seen["taken by both"] > FUZZ_BLOCKS // 10
    assert seen["refused by both"] > FUZZ_BLOCKS // 10
    assert seen["taken by us"] == 0
