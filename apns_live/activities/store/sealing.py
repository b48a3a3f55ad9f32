"""Encrypts provider keys with AES-256-GCM, under a key that is not in the database.

An encrypted key is bound to its app and key id, so a row copied to another app cannot be decrypted.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...errors import InvalidSetting, StoreError

VARIABLE = "APNS_LIVE_STORE_KEY"
FILE_VARIABLE = "APNS_LIVE_STORE_KEY_FILE"
_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_REMEDY = (
    f"Put 32 random bytes in base64 into {VARIABLE}, or into a file named by {FILE_VARIABLE}; "
    "`apns-live store new-key` prints some."
)


def new_key() -> str:
    """Return a new sealing key: 32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


class Sealer:
    """Encrypts and decrypts provider keys with the sealing key, which its repr never shows."""

    __slots__ = ("_cipher", "_raw")

    def __init__(self, key: str) -> None:
        """Take the key in base64. Raises `InvalidSetting` when it is not 32 bytes."""
        try:
            raw = base64.b64decode(key.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidSetting("is not base64", field="store key", remedy=_REMEDY) from None
        if len(raw) != _KEY_BYTES:
            raise InvalidSetting(f"has {len(raw)} bytes", field="store key", remedy=_REMEDY)
        self._cipher = AESGCM(raw)
        self._raw = raw

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Sealer:
        """Read the key from APNS_LIVE_STORE_KEY, or from the file in APNS_LIVE_STORE_KEY_FILE.

        Raises `InvalidSetting` if neither is set.
        """
        values = os.environ if environment is None else environment
        if key := values.get(VARIABLE):
            return cls(key)
        if path := values.get(FILE_VARIABLE):
            try:
                return cls(Path(path).read_text(encoding="ascii"))
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidSetting(
                    f"cannot be read ({error})", field=FILE_VARIABLE, remedy=_REMEDY
                ) from None
        raise InvalidSetting("is missing", field="store key", remedy=_REMEDY)

    def __repr__(self) -> str:
        return "Sealer()"

    def derive(self, purpose: str) -> bytes:
        """Return a 32-byte key for another purpose, derived by HKDF (RFC 5869)."""
        return HKDF(SHA256(), length=32, salt=None, info=purpose.encode()).derive(self._raw)

    def seal(self, secret: str, *, app: str, key_id: str) -> bytes:
        """Return the encrypted PEM."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), _place(app, key_id))
        return _VERSION + nonce + sealed

    def open(self, sealed: bytes, *, app: str, key_id: str) -> str:
        """Return the decrypted PEM. Raises `StoreError` if it was sealed with another key."""
        start = len(_VERSION) + _NONCE_BYTES
        if not sealed.startswith(_VERSION) or len(sealed) <= start:
            raise StoreError(f"the stored provider key {key_id} is damaged: add it again")
        nonce, body = sealed[len(_VERSION) : start], sealed[start:]
        try:
            return self._cipher.decrypt(nonce, body, _place(app, key_id)).decode()
        except InvalidTag:
            raise StoreError(
                f"the stored provider key {key_id} does not open with this store key: "
                f"set {VARIABLE} to the one it was added with, or add the provider key again"
            ) from None


def _place(app: str, key_id: str) -> bytes:
    return f"{app}\n{key_id}".encode()
