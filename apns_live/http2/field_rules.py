"""Which header fields HTTP/2 allows (RFC 9113, sections 8.1 to 8.3).

The functions raise Http2StreamError for a malformed header block.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import chain

from apns_live.errors import Http2StreamError

Field = tuple[bytes, bytes]
"""Name and value."""

# RFC 9113, section 8.2.1: visible ASCII without upper case; the colon only in front.
_BAD_NAME = re.compile(rb"[^\x21-\x39\x3b-\x40\x5b-\x7e]")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_MEMO_LIMIT = 512
_MEMO_BYTES = 1024
# The fields of every push: names known to be valid, and values without an invalid byte.
_USUAL_NAMES = frozenset(
    {b"apns-id", b"apns-unique-id", b"apns-request-id", b"apns-channel-id", b"content-type"}
)
_VISIBLE = bytes(range(0x21, 0x7F))
_STATUSES = {(b":status", b"%d" % status): status for status in range(100, 600)}
_STATUS = re.compile(rb"[1-9][0-9][0-9]\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")


def check_field(field: Field, passed: set[Field]) -> None:
    """Check a regular field. ``passed`` keeps a bounded number of valid ones.

    Every push of a connection has the same ``authorization``; only other fields are checked again.
    """
    name, value = field
    if field in passed or (name in _USUAL_NAMES and not value.translate(None, _VISIBLE)):
        return
    problem = ""
    if not name or _BAD_NAME.search(name):
        problem = f"the header name {name[:40]!r} is not allowed in HTTP/2"
    elif _BAD_VALUE.search(value):
        problem = f"the value of {name[:40]!r} holds a forbidden character"
    elif name in _CONNECTION_SPECIFIC:
        problem = f"the connection-specific header {name[:40]!r} is not allowed in HTTP/2"
    elif name == b"te" and value.lower() != b"trailers":
        problem = "te may only be 'trailers' in HTTP/2"
    if problem:
        raise Http2StreamError(problem)
    if len(name) + len(value) <= _MEMO_BYTES:
        if len(passed) >= _MEMO_LIMIT:
            passed.clear()
        passed.add(field)


def split_response(fields: Sequence[Field], passed: set[Field]) -> tuple[int, list[Field]]:
    """Return status and regular headers.

    The rules are those of RFC 9113, section 8.3.2: exactly one ``:status``, in front.
    """
    if not fields:
        raise Http2StreamError("the response has no header fields")
    status = _STATUSES.get(fields[0])
    if status is None:
        name, text = fields[0]
        if name != b":status":
            raise Http2StreamError("the response does not begin with :status")
        if not _STATUS.match(text):
            raise Http2StreamError(f"{text[:10]!r} is not a status")
        status = int(text)
    headers = list(fields[1:])
    for field in headers:
        if field[0][:1] == b":":
            raise Http2StreamError(f"the pseudo-header {field[0][:40]!r} does not belong there")
        check_field(field, passed)
    return status, headers


def check_request(fields: Sequence[Field], passed: set[Field]) -> int:
    """Check a request's header block; return its declared length (or -1).

    RFC 9113, section 8.3.1: one each of ``:method``, ``:scheme`` and ``:path`` (CONNECT:
    ``:method`` and ``:authority`` only), in front of all others. A request with ``host`` and
    no ``:authority`` is well-formed, and so is any spelling of the method.
    """
    if not fields:
        raise Http2StreamError("the request has no header fields")
    pseudo: dict[bytes, bytes] = {}
    declared, regular = -1, False
    for field in fields:
        name, value = field
        if name[0:1] == b":":
            if regular:
                raise Http2StreamError(f"{name[:40]!r} stands behind a regular header")
            if name not in _REQUEST_PSEUDO:
                raise Http2StreamError(f"{name[:40]!r} is not a pseudo-header of a request")
            if name in pseudo:
                raise Http2StreamError(f"{name[:40]!r} appears twice")
            if value.translate(None, _VISIBLE) and _BAD_VALUE.search(value):
                raise Http2StreamError(f"the value of {name[:40]!r} holds a forbidden character")
            pseudo[name] = value
            continue
        regular = True
        if field not in passed:
            check_field(field, passed)
        if name == b"content-length":
            declared = content_length(fields)
    if pseudo.get(b":method") == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            raise Http2StreamError("a CONNECT request has :method and :authority only")
        return declared
    for name in (b":method", b":scheme", b":path"):
        if not pseudo.get(name):
            raise Http2StreamError(f"the request has no {name.decode()}")
    return declared


def check_trailers(fields: Iterable[Field], passed: set[Field]) -> None:
    """Check a trailer section (RFC 9113, section 8.1)."""
    for field in fields:
        if field[0][:1] == b":":
            raise Http2StreamError(f"the trailers hold the pseudo-header {field[0][:40]!r}")
        check_field(field, passed)


def content_length(headers: Iterable[Field]) -> int:
    """Return the declared length of the body, -1 when there is none."""
    declared = -1
    for name, value in headers:
        if name != b"content-length":
            continue
        if not _LENGTH.match(value):
            raise Http2StreamError(f"content-length {value[:20]!r} is not a number")
        length = int(value)
        if declared not in {-1, length}:
            raise Http2StreamError("content-length appears twice with different values")
        declared = length
    return declared


def list_size(fields: Sequence[Field]) -> int:
    """Return the size of a header list as RFC 9113, section 6.5.2 counts it (32 a field)."""
    return sum(map(len, chain.from_iterable(fields))) + 32 * len(fields)
