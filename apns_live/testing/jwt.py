"""Apps, keys and provider tokens as APNs sees them: verifies tokens.

Sources: Apple, "Establishing a token-based connection to APNs" (ES256, ``kid``, ``iss``, ``iat``);
RFC 7515 and RFC 7518 (three base64url parts, a signature of 64 raw bytes). Lenient mode, the
default, also accepts what clients send in production and APNs accepts: ``iat`` as a string or a float,
padded base64, a DER signature (Apple's own samples carry one), ``typ`` and other header members.
"""

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt import PyJWS
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_decode, base64url_encode

Environment = Literal["production", "development"]

_STRICT_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LENIENT_SHAPE = re.compile(r"[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]+={0,2}")
_RAW_SIGNATURE = 64
_LONGEST = 4096
"""Bytes; a genuine token has about 200."""


@dataclass(frozen=True, slots=True)
class App:
    """One App ID of a team; ``broadcast`` is its capability in the developer portal."""

    bundle_id: str
    team_id: str
    broadcast: bool = True


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """The public half of a provider key, as Apple's portal knows it.

    ``environment`` None is an old key that works on both. ``topics`` None is a team-scoped key;
    a set of bundle ids is a topic-specific one. ``related`` names the key ids that may share a
    connection with it (Apple, "Establishing a token-based connection to APNs").
    """

    key_id: str
    team_id: str
    public_key: EllipticCurvePublicKey = field(repr=False)
    environment: Environment | None = None
    topics: frozenset[str] | None = None
    related: frozenset[str] = frozenset()

    def covers(self, app: App) -> bool:
        """Whether a token of this key may push to ``app``."""
        return app.team_id == self.team_id and (self.topics is None or app.bundle_id in self.topics)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A verified provider token: its key, and ``issued_at`` in epoch seconds."""

    key: RegisteredKey
    issued_at: float


_Whole = Annotated[int, msgspec.Meta(gt=-(2**53), lt=2**53)]


class _Header(msgspec.Struct):
    alg: Literal["ES256"]
    kid: str


class _StrictHeader(_Header, forbid_unknown_fields=True):
    kid: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{10}$")]


class _Claims(msgspec.Struct):
    iss: str
    iat: _Whole | float | str


class _StrictClaims(_Claims):
    iat: _Whole


class TokenVerifier:
    """Verifies provider tokens against the registered keys, each distinct token only once.

    The cache drops the least recently used tokens, and is cleared when the keys change.
    ``strict`` accepts only tokens as the documentation describes them.
    """

    def __init__(self, *, strict: bool = False, cache_size: int = 4096) -> None:
        self.strict = strict
        self._keys: dict[str, RegisteredKey] = {}
        self._verified = lru_cache(maxsize=cache_size)(self._verify)
        self._jws = PyJWS(algorithms=["ES256"])

    def register(self, key: RegisteredKey) -> None:
        """Register ``key``; it replaces one of the same id."""
        self._keys[key.key_id] = key
        self._verified.cache_clear()

    def revoke(self, key_id: str) -> None:
        """Remove a key. Its tokens are refused from now on."""
        self._keys.pop(key_id, None)
        self._verified.cache_clear()

    def is_current(self, token: VerifiedToken) -> bool:
        """Whether the key of ``token`` is still the registered one."""
        return self._keys.get(token.key.key_id) is token.key

    def verify(self, token: bytes) -> VerifiedToken | None:
        """Return the verified ``token`` (without the scheme), or None if it is not valid."""
        return self._verified(token) if len(token) <= _LONGEST else None

    def _verify(self, token: bytes) -> VerifiedToken | None:
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            return None
        if not (_STRICT_SHAPE if self.strict else _LENIENT_SHAPE).fullmatch(text):
            return None
        kind, claimed = (_StrictHeader, _StrictClaims) if self.strict else (_Header, _Claims)
        try:
            header = msgspec.json.decode(base64url_decode(text.partition(".")[0]), type=kind)
            key = self._keys[header.kid]
            if not self.strict:
                text = _with_raw_signature(text)
            decoded = self._jws.decode_complete(text, key.public_key, algorithms=["ES256"])
            claims = msgspec.json.decode(decoded["payload"], type=claimed)
            issued_at = float(claims.iat)
        except (PyJWTError, KeyError, ValueError, msgspec.DecodeError):
            return None
        if not math.isfinite(issued_at) or claims.iss != key.team_id:
            return None
        return VerifiedToken(key, issued_at)


def _with_raw_signature(text: str) -> str:
    """Return the token with a DER signature turned into the raw one; other tokens as they are."""
    signed, _, signature = text.rpartition(".")
    decoded = base64url_decode(signature)
    if len(decoded) == _RAW_SIGNATURE:
        return text
    r, s = decode_dss_signature(decoded)
    if max(r, s) >> 256:
        return text
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signed}.{base64url_encode(raw).decode('ascii')}"
