"""Header blocks made: whatever we write, hpack reads."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.http2 import HeaderDecoder, Indexing, PreparedHeaders
from apns_live.http2.headers import HeaderEncoder, RequestEncoder, ResponseEncoder, encode_integer

from .support import AUTHORITY, HEADERS, PATH, apns_id, table_size

NAMES = st.sampled_from([b"apns-topic", b"apns-id", b"authorization", b":path", b"x" * 30, b"date"])
VALUES = st.sampled_from([b"", b"10", b"v" * 100, b"w" * 600, b"u" * 5000]) | st.binary(max_size=9)
FIELD = st.tuples(NAMES, VALUES, st.sampled_from(Indexing))
SIZE = st.sampled_from([0, 31, 64, 150, 1000, 4096, 65_536])


def test_integers_as_in_rfc_7541() -> None:
    assert encode_integer(10, 5) == b"\x0a"
    assert encode_integer(1337, 5) == b"\x1f\x9a\x0a"
    assert encode_integer(42, 8) == b"\x2a"
    assert encode_integer(127, 7, 0x80) == b"\xff\x00"


@given(steps=st.lists(st.lists(FIELD, max_size=6) | SIZE, max_size=12))
def test_every_block_is_read_as_it_was_written(steps: list) -> None:
    encoder, reference, decoder = HeaderEncoder(), hpack.Decoder(), HeaderDecoder()
    reference.max_allowed_table_size = 4096
    allowed = 4096
    for step in steps:
        if isinstance(step, int):
            allowed = min(step, 4096)
            encoder.limit_table(step)
            continue
        block = encoder.take_size_update()
        block += b"".join(encoder.encode(name, value, how) for name, value, how in step)
        expected = [(name, value) for name, value, _ in step]
        assert [(bytes(f[0]), bytes(f[1])) for f in reference.decode(block, raw=True)] == expected
        assert [(f[0], f[1]) for f in decoder.decode(block)] == expected
        assert table_size(encoder) <= allowed
        assert table_size(encoder) == reference.header_table._current_size


def test_what_repeats_becomes_a_few_bytes() -> None:
    encoder = RequestEncoder(AUTHORITY)
    first = encoder.request_block(HEADERS, PATH, apns_id(1))
    second = encoder.request_block(HEADERS, PATH, apns_id(2))
    third = encoder.request_block(HEADERS, PATH, apns_id(3))
    assert len(first) > 400
    own = 2 + len(PATH) + 3 + 36  # what each push has of its own: path and id with their heads
    assert len(second) == len(third) == own + 3 + len(HEADERS.fields)


def test_per_push_values_are_never_indexed() -> None:
    encoder = RequestEncoder(AUTHORITY)
    encoder.request_block(HEADERS, PATH, apns_id(0))
    size, generation = table_size(encoder), encoder.generation
    for number in range(1, 5000):
        encoder.request_block(HEADERS, PATH, apns_id(number))
    assert (table_size(encoder), encoder.generation) == (size, generation)


def test_states_share_what_they_have_in_common() -> None:
    encoder = RequestEncoder(AUTHORITY)
    other = PreparedHeaders(
        [(b"apns-expiration", b"1800000000", how) if name == b"apns-expiration" else (name, value, how)
         for name, value, how in HEADERS.fields]
    )  # fmt: skip
    decoder = HeaderDecoder()
    blocks = [encoder.request_block(HEADERS, PATH, apns_id(1))]
    generation = encoder.generation
    blocks.append(encoder.request_block(other, PATH, apns_id(2)))
    assert encoder.generation == generation  # only the expiration's value differs: a literal
    for block in blocks:
        fields = dict((field[0], field[1]) for field in decoder.decode(block))  # noqa: C402
    assert fields[b"apns-expiration"] == b"1800000000"


def test_many_states_keep_few_prefixes() -> None:
    encoder, decoder = RequestEncoder(AUTHORITY), HeaderDecoder()
    states = [
        PreparedHeaders([(b"apns-topic", b"topic-%d" % number, Indexing.VALUE)])
        for number in range(300)
    ]
    for _ in range(3):
        for number, state in enumerate(states):
            block = encoder.request_block(state, PATH, apns_id(number))
            fields = [(field[0], field[1]) for field in decoder.decode(block)]
            assert (b"apns-topic", b"topic-%d" % number) in fields
            assert fields[-1] == (b"apns-id", apns_id(number))
    assert len(encoder.prefixes) <= 64


def test_never_indexed_fields_are_marked() -> None:
    encoder, reference = RequestEncoder(AUTHORITY), hpack.Decoder()
    secret = PreparedHeaders([(b"authorization", b"bearer x", Indexing.NEVER)])
    for number in range(2):
        fields = reference.decode(encoder.request_block(secret, PATH, apns_id(number)), raw=True)
        (marked,) = [field for field in fields if not field.indexable]
        assert marked[0] == b"authorization"


@given(
    status=st.integers(100, 599),
    fields=st.lists(
        st.tuples(st.sampled_from([b"apns-id", b"Date", b"x"]), st.binary(max_size=600))
    ),
)
def test_answers_index_nothing(status: int, fields: list) -> None:
    encoder, reference = ResponseEncoder(), hpack.Decoder()
    for _ in range(2):
        found = reference.decode(encoder.response_block(status, fields), raw=True)
        expected = [(b":status", b"%d" % status), *((n.lower(), v) for n, v in fields)]
        assert [(bytes(f[0]), bytes(f[1])) for f in found] == expected
    assert reference.header_table._current_size == 0


def test_a_lowered_table_is_announced_once() -> None:
    encoder = ResponseEncoder()
    encoder.limit_table(0)
    encoder.limit_table(0)
    assert encoder.response_block(200, []) == b"\x20\x88"
    assert encoder.response_block(200, []) == b"\x88"
    encoder.limit_table(100)
    encoder.limit_table(10)
    encoder.limit_table(4096)
    assert encoder.response_block(200, []) == b"\x2a\x3f\xe1\x1f\x88"


def test_prepared_headers_show_no_values() -> None:
    assert "bearer" not in repr(HEADERS)
    assert "authorization" in repr(HEADERS)


@pytest.mark.parametrize("length", [0, 126, 127, 128, 511, 512, 5000, 20_000])
def test_long_paths_and_ids(length: int) -> None:
    from .support import connected, pump

    client, server = connected()
    for number in range(2):
        client.send_request(HEADERS, b"/" + b"p" * length, b"i" * length, b"{}")
        _, (request,) = pump(client, server)
        assert request.headers[0] == (b":path", b"/" + b"p" * length), number
        assert request.headers[-1] == (b"apns-id", b"i" * length)
