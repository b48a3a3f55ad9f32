"""Which header fields HTTP/2 allows (RFC 9113, sections 8.1 to 8.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
_MEMO_NAMES = 64
_LOOKED_AT = frozenset({b"te", b"content-length"})
# What comes with every push: names known to be good, and values without a single odd byte.
_USUAL_NAMES = frozenset(
    {b"apns-id", b"apns-unique-id", b"apns-request-id", b"apns-channel-id", b"content-type"}
)
_VISIBLE = bytes(range(0x21, 0x7F))
_STATUSES = {(b":status", b"%d" % status): status for status in range(100, 600)}
_STATUS = re.compile(rb"[1-9][0-9][0-9]\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")


class FieldCheck:
    """Checks fields, and remembers a bounded number of those that passed.

    The same ``authorization`` comes with every push of a connection; only what differs from
    push to push is looked at.
    """

    def __init__(self) -> None:
        self._passed: set[Field] = set()
        self._requests: set[tuple[bytes, ...]] = set()

    def request(self, fields: Sequence[Field]) -> tuple[list[tuple[bytes, bytes]], int, str]:
        """Return a request's fields as pairs, its declared length (or -1), and the problem if any.

        A sequence of names that was found good is good again; then only the values are looked at,
        all at once.
        """
        if not fields:
            return [], -1, "the request has no header fields"
        pairs = list(fields)
        names = tuple([field[0] for field in fields])
        if names in self._requests:
            passed = self._passed
            for field in fields:
                if field not in passed and (
                    not field[1]
                    or field[1].translate(None, _VISIBLE)
                    or field[0] == b":method"  # CONNECT has rules of its own
                ):
                    break
            else:
                return pairs, -1, ""
        problem = request_problem(fields, self)
        declared = -1
        if not problem:
            declared, problem = content_length(fields)
            if not problem:
                self._remember(fields, names)
        return pairs, declared, problem

    def _remember(self, fields: Sequence[Field], names: tuple[bytes, ...]) -> None:
        """Note a good request: the order of its names, and its fields but for rare ones."""
        if _LOOKED_AT.intersection(names) or b":path" not in names:
            return
        if len(names) > _MEMO_NAMES or sum(map(len, names)) > _MEMO_BYTES:
            return
        if len(self._requests) >= _MEMO_LIMIT:
            self._requests.clear()
        self._requests.add(names)
        for field in fields:
            if len(field[1]) <= _MEMO_BYTES:
                self._pass(field)

    def _pass(self, field: Field) -> None:
        if len(self._passed) >= _MEMO_LIMIT:
            self._passed.clear()
        self._passed.add(field)

    def problem_of(self, field: Field) -> str:
        """Return why a regular field is malformed, or an empty string."""
        if field in self._passed:
            return ""
        name, value = field
        if not name or _BAD_NAME.search(name):
            return f"the header name {name[:40]!r} is not allowed in HTTP/2"
        if _BAD_VALUE.search(value):
            return f"the value of {name[:40]!r} holds a forbidden character"
        if name in _CONNECTION_SPECIFIC:
            return f"the connection-specific header {name[:40]!r} is not allowed in HTTP/2"
        if name == b"te" and value.lower() != b"trailers":
            return "te may only be 'trailers' in HTTP/2"
        if len(name) + len(value) <= _MEMO_BYTES:
            self._pass(field)
        return ""


def split_response(
    fields: Sequence[Field], check: FieldCheck
) -> tuple[int, list[tuple[bytes, bytes]], str]:
    """Return status, regular headers and, when the block is malformed, the problem.

    The rules are those of RFC 9113, section 8.3.2: exactly one ``:status``, in front.
    """
    if not fields:
        return 0, [], "the response has no header fields"
    status = _STATUSES.get(fields[0])
    if status is None:
        name, text = fields[0]
        if name != b":status":
            return 0, [], "the response does not begin with :status"
        if not _STATUS.match(text):
            return 0, [], f"{text[:10]!r} is not a status"
        status = int(text)
    headers = []
    for field in fields[1:]:
        name, value = field
        if name not in _USUAL_NAMES or value.translate(None, _VISIBLE):
            if name[:1] == b":":
                return 0, [], f"the pseudo-header {name[:40]!r} does not belong there"
            problem = check.problem_of(field)
            if problem:
                return 0, [], problem
        headers.append(field)
    return status, headers, ""


def request_problem(fields: Sequence[Field], check: FieldCheck) -> str:
    """Return why a request's header block is malformed, or an empty string.

    RFC 9113, section 8.3.1: one each of ``:method``, ``:scheme`` and ``:path`` (CONNECT:
    ``:method`` and ``:authority`` only), in front of all others. A request with ``host`` and
    no ``:authority`` is well-formed, and so is any spelling of the method.
    """
    pseudo: dict[bytes, bytes] = {}
    in_front = True
    for field in fields:
        name, value = field
        if name[:1] == b":":
            if not in_front:
                return f"{name[:40]!r} stands behind a regular header"
            if name not in _REQUEST_PSEUDO:
                return f"{name[:40]!r} is not a pseudo-header of a request"
            if name in pseudo:
                return f"{name[:40]!r} appears twice"
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
    for name, value in headers:
        if name != b"content-length":
            continue
        if not _LENGTH.match(value):
            return -1, f"content-length {value[:20]!r} is not a number"
        length = int(value)
        if declared not in {-1, length}:
            return -1, "content-length appears twice with different values"
        declared = length
    return declared, ""


def list_size(fields: Iterable[Field]) -> int:
    """Return the size of a header list as RFC 9113, section 6.5.2 counts it (32 a field)."""
    return sum(len(name) + len(value) + 32 for name, value in fields)
