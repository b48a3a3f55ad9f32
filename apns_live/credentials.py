"""Provider keys and provider tokens, which authenticate the sender to APNs.

Apple, "Establishing a token-based connection to APNs": an ES256 JWT with the key id in its header
and the team id in its claims, at most an hour old, renewed at most every 20 minutes.

A token is a pure function of the key and a time window. With deterministic signatures (RFC 6979) every
process computes the same bytes, without coordination.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .clock import Clock
from .errors import CredentialError, InvalidKey, InvalidSetting
from .keyfile import key_id_from_name, private_key_from_pem, read_key_file
from .refusals import refused

_WINDOW = 1500
"""Seconds of the window that has one token."""
_SETTLE = 180.0
"""Seconds from a window's start to the first use of its token."""
_MAX_AGE = 3000.0
"""Seconds for which a connection keeps a token. APNs accepts one for 3,600 seconds, and wants 1,200
between two: a connection opens with a token that is _WINDOW + _SETTLE old at most."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9]{10}").fullmatch


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key that signs provider tokens, with its key id and team id. Immutable.

    Make one with `from_file` or `from_pem`. The private part is in no repr, error or pickle.
    """

    _private: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    key_id: str
    """The ten characters of the key's id."""
    team_id: str
    """The ten characters of the developer team's id."""
    fingerprint: str = field(init=False, repr=False)
    """SHA-256 over the public key (its SubjectPublicKeyInfo in DER), in hex."""

    def __post_init__(self) -> None:
        key_id = _identifier(self.key_id, "key_id", "Apple shows it beside the key under Keys.")
        team_id = _identifier(self.team_id, "team_id", "Apple shows it under Membership details.")
        if key_id == team_id:
            raise refused(InvalidKey, "ids_equal", "team_id")
        public = self._private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        fingerprint = hashlib.sha256(public).hexdigest()
        for name, value in (("key_id", key_id), ("team_id", team_id), ("fingerprint", fingerprint)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_file(
        cls, path: str | PathLike[str], *, team_id: str, key_id: str | None = None
    ) -> ProviderKey:
        """Read a ``.p8`` file as Apple offers it for download.

        The key id is taken from a name such as ``AuthKey_ABC123DEFG.p8`` unless it is given. Raises
        `InvalidKey`, which names the problem of the file, the key or an id.
        """
        data = read_key_file(path)
        named = key_id_from_name(path)
        if key_id is None:
            if named is None:
                raise refused(InvalidKey, "key_id_missing", "key_id")
            key_id = named
        elif named is not None and named == team_id and key_id != named:
            raise refused(InvalidKey, "ids_swapped", "key_id")
        elif named is not None and key_id != named:
            words = {"key_id": key_id, "named": named}
            raise refused(InvalidKey, "key_id_of_another_file", "key_id", **words)
        return cls(private_key_from_pem(data, field="path"), key_id=key_id, team_id=team_id)

    @classmethod
    def from_pem(cls, pem: str | bytes, *, key_id: str, team_id: str) -> ProviderKey:
        r"""Read the key's PEM text, for example from an environment variable.

        Also taken: base64, ``\n`` written out, line ends lost in a setting. Raises `InvalidKey`.
        """
        return cls(private_key_from_pem(pem, field="pem"), key_id=key_id, team_id=team_id)

    def sign(self, issued_at: int, *, deterministic: bool = True) -> str:
        """Return the JWT for ``issued_at`` (whole seconds since 1970).

        The same arguments give the same bytes on every machine unless ``deterministic`` is False.
        Raises `CredentialError` when the linked OpenSSL has no RFC 6979, `InvalidSetting` for a
        time that is not a whole number of seconds.
        """
        if type(issued_at) is not int or not 0 <= issued_at < 10**11:
            raise refused(InvalidSetting, "issued_at", "issued_at", issued_at=issued_at)
        # A JSON library's spaces and key order would change the signature.
        header = _base64(f'{{"alg":"ES256","kid":"{self.key_id}"}}'.encode())
        claims = _base64(f'{{"iss":"{self.team_id}","iat":{issued_at}}}'.encode())
        signing_input = header + b"." + claims
        try:
            signature = self._private.sign(
                signing_input, ec.ECDSA(SHA256(), deterministic_signing=deterministic)
            )
        except UnsupportedAlgorithm:
            raise CredentialError(
                "The OpenSSL behind the cryptography package has no deterministic signatures (RFC 6979). "
                "Install a cryptography wheel with OpenSSL 3.2 or newer, or use deterministic=False; "
                "then each process signs its own provider tokens."
            ) from None
        r, s = decode_dss_signature(signature)
        raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return (signing_input + b"." + _base64(raw)).decode("ascii")

    def __copy__(self) -> ProviderKey:
        return self

    def __deepcopy__(self, memo: object) -> ProviderKey:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A ProviderKey is not pickled: the private key would be in the bytes. "
            "Load the key in each process."
        )


@dataclass(frozen=True, slots=True)
class ProviderToken:
    """A signed token. Its value is a secret for an hour, so the repr leaves it out."""

    value: bytes = field(repr=False)
    """The value of the ``authorization`` header: ``bearer`` and the JWT."""
    issued_at: int
    """Seconds since 1970, the JWT's ``iat``."""
    window: int
    """The number of its time window."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A ProviderToken is not pickled: it is a secret. Derive it from the key.")


@dataclass(slots=True, eq=False)
class ProviderTokens:
    """The token that a connection presents, as a function of the key and the time.

    Time is cut into windows of 25 minutes. A window's token carries the window's start as ``iat`` and is
    first used 3 minutes later, so that a clock that runs ahead by less does no harm. A connection keeps
    a token until it is 50 minutes old. So two tokens on one connection are at least 20 minutes apart,
    also on one that was opened just before a change.

    ``deterministic=False`` signs at random, for an OpenSSL without RFC 6979.
    """

    key: ProviderKey
    clock: Clock = field(repr=False)
    deterministic: bool = True
    _latest: ProviderToken | None = field(default=None, init=False, repr=False)

    def with_key(self, key: ProviderKey) -> ProviderTokens:
        """Return the same rules for another key."""
        return replace(self, key=key)

    def current(self) -> ProviderToken:
        """Return the token of the current window. Raises `CredentialError` when it cannot be signed."""
        window = int((self.clock.time() - _SETTLE) // _WINDOW)
        if self._latest is None or self._latest.window != window:
            issued_at = window * _WINDOW
            jwt = self.key.sign(issued_at, deterministic=self.deterministic)
            self._latest = ProviderToken(b"bearer " + jwt.encode("ascii"), issued_at, window)
        return self._latest

    def for_connection(self, held: ProviderToken | None) -> ProviderToken:
        """Return ``held`` until it is 50 minutes old, then the current window's.

        None is for a connection that has not presented a token yet. A token from the future was
        made before the clock was set back, and is not returned.
        """
        if held is not None and 0 <= self.clock.time() - held.issued_at < _MAX_AGE:
            return held
        return self.current()

    def signed_ahead(self, seconds: float) -> dict[int, str]:
        """Return the JWTs of the windows of the next ``seconds``, by their ``iat``.

        For another process, which then needs no key. Raises `CredentialError`.
        """
        now = self.clock.time() - _SETTLE
        first = int(now // _WINDOW - 2) * _WINDOW
        moments = range(first, int(now + seconds) + 1, _WINDOW)
        return {at: self.key.sign(at, deterministic=self.deterministic) for at in moments}


def _identifier(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise refused(InvalidKey, "identifier_kind", name, kind=type(value).__name__, where=where)
    if _IDENTIFIER(value):
        return str.__str__(value)
    if not value:
        problem = "is empty"
    elif "." in value:
        problem = f"{value!r:.40} looks like a bundle id"
    elif _IDENTIFIER(value.strip()):
        problem = "has spaces or line ends around it"
    elif len(value) != 10:
        problem = f"has {len(value)} characters, not 10"
    else:
        problem = "holds characters other than letters and digits"
    raise InvalidKey(problem, field=name, remedy=f"Pass its ten letters and digits. {where}")


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
