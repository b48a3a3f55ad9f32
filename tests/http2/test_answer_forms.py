"""Answers told by their form: the short cut against the full decoder, with the hpack library's encoder."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import Http2ConnectionError
from apns_live.http2 import (
    AnswersReceived,
    ClientConnection,
    EncodedString,
    GoAwayReceived,
    ResponseReceived,
    frame,
)
from apns_live.http2.answer_forms import NO_FORM, form_of

from .support import AUTHORITY, HEADERS, PATH, apns_id

SETTINGS = frame(4, 0, 0)
END, WHOLE = 0x1, 0x5


def client(*, batch: bool = True, streams: int = 50) -> ClientConnection:
    connection = ClientConnection(authority=AUTHORITY, batch_answers=batch)
    connection.start()
    connection.receive(SETTINGS + frame(4, 1, 0))
    for number in range(streams):
        connection.send_request(HEADERS, PATH, apns_id(number), b"{}")
    return connection


def encoder(*, keeps_table: bool = False) -> hpack.Encoder:
    made = hpack.Encoder()
    if not keeps_table:
        made.header_table_size = 0
    return made


def answer(
    made: hpack.Encoder, number: int, *extra: tuple[str, str], huffman: bool = True
) -> bytes:
    fields = [(":status", "200"), ("apns-id", apns_id(number).decode()), *extra]
    return made.encode(fields, huffman=huffman)


def unique(number: int) -> tuple[str, str]:
    return ("apns-unique-id", f"{number:08X}-AB12-4CD3-9EF4-{number * 7919:012X}")


@pytest.mark.parametrize("huffman", [True, False])
def test_answers_of_a_known_form_are_one_event(huffman: bool) -> None:
    ours, server = client(), encoder()
    blocks = [answer(server, number, huffman=huffman) for number in range(20)]
    events = ours.receive(
        b"".join(frame(1, WHOLE, 1 + 2 * at, block) for at, block in enumerate(blocks))
    )
    # The first block carries the table's size as well, so the second is the first of its form.
    assert [type(event) for event in events] == [
        ResponseReceived,
        ResponseReceived,
        AnswersReceived,
    ]
    assert events[-1].stream_ids == list(range(5, 41, 2))
    assert events[-1].unique_ids == []
    assert ours.open_streams == 30


def test_unique_ids_are_decoded_when_read() -> None:
    ours, server = client(), encoder()
    blocks = [answer(server, number, unique(number)) for number in range(10)]
    events = ours.receive(
        b"".join(frame(1, WHOLE, 1 + 2 * at, block) for at, block in enumerate(blocks))
    )
    assert [str(each) for each in events[-1].unique_ids] == [unique(n)[1] for n in range(2, 10)]


@pytest.mark.parametrize("raw", [b"", b"\x83\xff\xff\xff", b"\x81\x00"])
def test_a_string_that_is_not_properly_coded_reads_as_nothing(raw: bytes) -> None:
    assert str(EncodedString(raw)) == ""


def test_what_comes_between_keeps_its_place() -> None:
    ours, server = client(), encoder()
    blocks = [answer(server, number) for number in range(6)]
    frames = [frame(1, WHOLE, 1 + 2 * at, block) for at, block in enumerate(blocks)]
    frames.insert(4, frame(7, 0, 0, (99).to_bytes(4, "big") + bytes(4)))
    kinds = [type(event) for event in ours.receive(b"".join(frames))]
    assert kinds[2:] == [AnswersReceived, GoAwayReceived, AnswersReceived]


def test_a_reset_behind_an_answer_is_taken_in_line() -> None:
    ours, server = client(), encoder()
    data = b"".join(
        frame(1, WHOLE, 1 + 2 * at, answer(server, at)) + frame(3, 0, 1 + 2 * at, bytes(4))
        for at in range(10)
    )
    events = ours.receive(data)
    assert sum(len(event.stream_ids) for event in events if type(event) is AnswersReceived) == 8
    with pytest.raises(Http2ConnectionError, match="idle"):
        ours.receive(frame(3, 0, 2001, bytes(4)))


def test_a_server_that_keeps_its_table_is_decoded_in_full() -> None:
    """It never says that its table is empty, so a block may depend on those before it."""
    ours, server = client(), encoder(keeps_table=True)
    for number in range(20):
        (event,) = ours.receive(frame(1, WHOLE, 1 + 2 * number, answer(server, number, unique(3))))
        assert type(event) is ResponseReceived
        assert dict(event.headers)[b"apns-id"] == apns_id(number)


def test_a_table_once_given_up_is_not_taken_back() -> None:
    ours, server = client(), encoder()
    ours.receive(frame(1, WHOLE, 1, answer(server, 0)))
    with pytest.raises(Http2ConnectionError, match="size update"):
        ours.receive(frame(1, WHOLE, 3, b"\x3f\xe1\x1f" + answer(server, 1)))


def test_no_form_matches_no_block() -> None:
    assert form_of(b"\x88", [(b":status", b"200")], table_is_empty=True) is None
    ours = client()
    assert ours._form is NO_FORM
    assert all(size > 1 << 24 for _, size in NO_FORM.parts)


EXTRA = st.lists(
    st.sampled_from([unique(1), ("date", "Mon, 01 Jan 2026 00:00:00 GMT"), ("server", "x" * 130)]),
    max_size=3,
    unique=True,
)


@given(
    extra=EXTRA,
    huffman=st.booleans(),
    keeps_table=st.booleans(),
    changes=st.lists(
        st.tuples(
            st.integers(0, 7),
            st.floats(0, 1),
            st.sampled_from(["set", "cut", "add"]),
            st.binary(min_size=1, max_size=3),
        ),
        max_size=3,
    ),
)
def test_the_short_cut_and_the_decoder_agree(
    extra: list[tuple[str, str]],
    huffman: bool,
    keeps_table: bool,
    changes: list[tuple[int, float, str, bytes]],
) -> None:
    ours, full = client(), client(batch=False)
    server = encoder(keeps_table=keeps_table)
    blocks = []
    for number in range(8):
        varied = [unique(number) if pair == unique(1) else pair for pair in extra]
        blocks.append(answer(server, number, *varied, huffman=huffman))
    for number, where, how, data in changes:
        block = blocks[number]
        at = int(where * len(block))
        tail = block[at + (len(data) if how == "set" else 1) :] if how != "add" else block[at:]
        blocks[number] = block[:at] + (b"" if how == "cut" else data) + tail
    for number, block in enumerate(blocks):
        data = frame(1, WHOLE, 1 + 2 * number, block)
        form = ours._form
        got, expected = taken(ours, data), taken(full, data)
        if got == expected:
            if not isinstance(got, list):
                return  # both ended the connection
            continue
        # They may differ only where the text of an id, which nobody decoded, is not properly coded.
        assert isinstance(got, list), (got, expected)
        ((_, status, _text),) = got
        assert status == 200
        assert same_but_for_ids(block, form), block
        assert not isinstance(expected, list) or expected[0][1] != 200
        return


def taken(connection: ClientConnection, data: bytes) -> object:
    """Return what came of a frame, in a form that does not tell how it was taken."""
    try:
        events = connection.receive(data)
    except Http2ConnectionError as error:
        return error.code
    seen = []
    for event in events:
        if isinstance(event, AnswersReceived):
            texts = [str(each) for each in event.unique_ids] or [""] * len(event.stream_ids)
            seen += [(at, 200, text) for at, text in zip(event.stream_ids, texts, strict=True)]
        elif isinstance(event, ResponseReceived):
            text = dict(event.headers).get(b"apns-unique-id", b"").decode("latin-1")
            seen.append((event.stream_id, event.status, text))
        else:
            seen.append((event.stream_id, -1, ""))
    return seen


def same_but_for_ids(block: bytes, form: object) -> bool:
    """Check a form by taking the block apart from the front, one constant and one string at a time."""
    for part, size in form.parts:  # type: ignore[attr-defined]
        if block[:size] != part:
            return False
        length = block[size]
        block = block[size + 1 + (length & 0x7F) :]
    return block == form.tail  # type: ignore[attr-defined]
