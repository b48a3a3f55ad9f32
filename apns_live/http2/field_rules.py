"""Which header fields HTTP/2 allows (RFC 9113, sections 8.1 to 8.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Field = tuple[bytes, ...]
"""Name and value, and whatever else the decoder adds behind them."""

# RFC 9113, section 8.2.1: visible ASCII without upper case; the colon only in front.
_BAD_NAME = re.compile(rb"[^\x21-\x39\x3b-\x40\x5b-\x7e]")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_MEMO_LIMIT = 512
_MEMO_BYTES = 1024
_STATUS = re.compile(rb"[1-9][0-9][0-9]\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")


class FieldCheck:
    """Checks fields, and remembers a bounded number of those that passed.

    The same ``authorization`` comes with every push of a connection; only what differs from
    push to push is looked at.
    """

    __slots__ = ("_passed",)

    def __init__(self) -> None:
        self._passed: set[Field] = set()

    def problem_of(self, field: Field) -> str:
        """Return why a regular field is malformed, or an empty string."""
        if field in self._passed:
            return ""
        name, value = field[0], field[1]
        if not name or _BAD_NAME.search(name):
            return f"the header name {name[:40]!r} is not allowed in HTTP/2"
        if _BAD_VALUE.search(value):
            return f"the value of {name[:40]!r} holds a forbidden character"
        if name in _CONNECTION_SPECIFIC:
            return f"the connection-specific header {name[:40]!r} is not allowed in HTTP/2"
        if name == b"te" and value.lower() != b"trailers":
            return "te may only be 'trailers' in HTTP/2"
        if len(self._passed) < _MEMO_LIMIT and len(name) + len(value) <= _MEMO_BYTES:
            self._passed.add(field)
        return ""


def split_response(
    fields: Sequence[Field], check: FieldCheck
) -> tuple[int, list[tuple[bytes, bytes]], str]:
    """Return status, regular headers and, when the block is malformed, the problem.

    The rules are those of RFC 9113, section 8.3.2: exactly one ``:status``, in front.
    """
    if not fields or fields[0][0] != b":status":
        return 0, [], "the response does not begin with :status"
    status = fields[0][1]
    if not _STATUS.match(status):
        return 0, [], f"{status[:10]!r} is not a status"
    headers = []
    for field in fields[1:]:
        if field[0][:1] == b":":
            return 0, [], f"the response has the pseudo-header {field[0][:40]!r} behind :status"
        problem = check.problem_of(field)
        if problem:
            return 0, [], problem
        headers.append((field[0], field[1]))
    return int(status), headers, ""


def request_problem(fields: Sequence[Field], check: FieldCheck) -> str:
    """Return why a request's header block is malformed, or an empty string.

    RFC 9113, section 8.3.1: one each of ``:method``, ``:scheme`` and ``:path`` (CONNECT:
    ``:method`` and ``:authority`` only), in front of all others. A request with ``host`` and
    no ``:authority`` is well-formed, and so is any spelling of the method.
    """
    pseudo: dict[bytes, bytes] = {}
    in_front = True
    for field in fields:
        name = field[0]
        if name[:1] == b":":
            if not in_front:
                return f"{name[:40]!r} stands behind a regular header"
            if name not in _REQUEST_PSEUDO:
                return f"{name[:40]!r} is no pseudo-header of a request"
            if name in pseudo:
                return f"{name[:40]!r} appears twice"
            value = field[1]
            if _BAD_VALUE.search(value):
                return f"the value of {name[:40]!r} holds a forbidden character"
            pseudo[name] = value
        else:
            in_front = False
            problem = check.problem_of(field)
            if problem:
                return problem
    return _pseudo_problem(pseudo)


def _pseudo_problem(pseudo: dict[bytes, bytes]) -> str:
    method = pseudo.get(b":method")
    if not method:
        return "the request has no :method"
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            return "a CONNECT request has :method and :authority only"
        return ""
    if not pseudo.get(b":scheme"):
        return "the request has no :scheme"
    if not pseudo.get(b":path"):
        return "the request has no :path"
    return ""


def trailers_problem(fields: Iterable[Field], check: FieldCheck) -> str:
    """Return why a trailer section is malformed, or an empty string (RFC 9113, section 8.1)."""
    for field in fields:
        if field[0][:1] == b":":
            return f"the trailers hold the pseudo-header {field[0][:40]!r}"
        problem = check.problem_of(field)
        if problem:
            return problem
    return ""


def content_length(headers: Iterable[Field]) -> tuple[int, str]:
    """Return the declared length of the body (-1 when there is none), and the problem if any."""
    declared = -1
    for field in headers:
        if field[0] != b"content-length":
            continue
        if not _LENGTH.match(field[1]):
            return -1, f"content-length {field[1][:20]!r} is not a number"
        length = int(field[1])
        if declared not in {-1, length}:
            return -1, "content-length appears twice with different values"
        declared = length
    return declared, ""


def list_size(fields: Iterable[Field]) -> int:
    """Return the size of a header list as RFC 9113, section 6.5.2 counts it (32 a field)."""
    return sum(len(field[0]) + len(field[1]) + 32 for field in fields)
