"""Reads a ``.p8`` file, with a clear error for each kind of wrong file.

Apple gives the key once, as PKCS#8 in PEM (RFC 7468) on the curve P-256. Errors of crypto
libraries are unclear, so this module detects each common mistake and names it.
"""

import base64
import binascii
import re
from os import PathLike
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from .errors import InvalidKey
from .refusals import refused

MAX_FILE_SIZE = 65_536
_NAME = re.compile(r"AuthKey_([A-Za-z0-9]{10})(?: ?\(\d+\))?\.p8\Z").match
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END ([A-Z0-9 ]+)-----", re.DOTALL)
_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")

_UNREADABLE: dict[type[Exception], str] = {
    FileNotFoundError: "key_file_missing",
    PermissionError: "key_file_forbidden",
    IsADirectoryError: "key_file_directory",
}
_OTHER_KINDS = {
    "ENCRYPTED PRIVATE KEY": "key_encrypted",
    "EC PRIVATE KEY": "key_sec1",
    "EC PARAMETERS": "key_sec1",
    "RSA PRIVATE KEY": "key_rsa",
    "DSA PRIVATE KEY": "key_dsa",
    "OPENSSH PRIVATE KEY": "key_ssh",
    "PUBLIC KEY": "key_public",
    "CERTIFICATE": "key_certificate",
    "CERTIFICATE REQUEST": "key_request",
}


def key_id_from_name(path: str | PathLike[str]) -> str | None:
    """Return the key id in a name such as ``AuthKey_ABC123DEFG.p8``, or None."""
    match = _NAME(Path(path).name)
    return match.group(1) if match else None


def read_key_file(path: str | PathLike[str]) -> bytes:
    """Return the file's bytes. Raises `InvalidKey` when there is no file of a key's size."""
    if isinstance(path, str) and "-----BEGIN" in path:
        raise refused(InvalidKey, "key_as_path", "path")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError, TypeError) as error:
        saying = _UNREADABLE.get(type(error), "key_file_unreadable")
        kind = type(error).__name__
        raise refused(InvalidKey, saying, "path", path=_shown(path), kind=kind) from None
    if len(data) > MAX_FILE_SIZE:
        raise refused(InvalidKey, "key_file_large", "path", path=_shown(path), size=MAX_FILE_SIZE)
    return data


def private_key_from_pem(pem: str | bytes, *, field: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key in a PEM text. Raises `InvalidKey`; its message never quotes the text."""
    text = _text(pem, field)
    if "-----BEGIN" not in text:
        text = _decoded(text, field)
    blocks = _BLOCK.findall(text)
    begun = _BEGIN.search(text)
    if not blocks or begun is None:
        raise refused(InvalidKey, "key_cut_off" if begun else "key_not_pem", field)
    if len(blocks) > 1 and "EC PARAMETERS" not in blocks[0][0]:
        kinds = ", ".join(block[0].lower() for block in blocks[:3])
        raise refused(InvalidKey, "key_blocks", field, count=len(blocks), kinds=kinds)
    kind, body, end = blocks[0]
    if kind in _OTHER_KINDS:
        raise refused(InvalidKey, _OTHER_KINDS[kind], field)
    if kind != "PRIVATE KEY" or end != kind:
        raise refused(InvalidKey, "key_pem_kind", field, kind=kind.lower())
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refused(InvalidKey, "key_damaged", field) from None
    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Raise from None, because the library's error may quote the key.
        raise refused(InvalidKey, "key_not_pkcs8", field) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        name = type(key).__name__.lstrip("_").removesuffix("PrivateKey")
        article = "an" if name[:1] in "AERX" else "a"
        raise refused(InvalidKey, "key_not_ec", field, article=article, name=name)
    if not isinstance(key.curve, ec.SECP256R1):
        raise refused(InvalidKey, "key_curve", field, curve=key.curve.name)
    return key


def _text(pem: object, field: str) -> str:
    if not isinstance(pem, (str, bytes, bytearray)):
        raise refused(InvalidKey, "key_pem_type", field, kind=type(pem).__name__)
    text = pem if isinstance(pem, str) else bytes(pem).decode("utf-8", "replace")
    if not isinstance(pem, str):
        if pem[:1] == b"\x30" and b"-----BEGIN" not in pem:
            raise refused(InvalidKey, "key_binary", field)
        if pem[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise refused(InvalidKey, "key_utf16", field)
    text = text.lstrip("\ufeff").strip().strip("\"'")
    if not text:
        raise refused(InvalidKey, "key_empty", field)
    return text.replace("\\r", "").replace("\\n", "\n")


def _decoded(text: str, field: str) -> str:
    """Undo base64 around a PEM text, as settings often have it."""
    try:
        inner = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        inner = b""
    if b"-----BEGIN" in inner:
        return inner.decode("utf-8", "replace")
    if len(text) < 300 and re.search(r"\.(p8|pem|key)\Z", text):
        raise refused(InvalidKey, "key_is_path", field)
    if inner[:1] == b"\x30":
        raise refused(InvalidKey, "key_without_lines", field)
    raise refused(InvalidKey, "key_text", field)


def _shown(path: object) -> str:
    text = repr(str(path))
    return text if len(text) <= 120 else f"{text[:50]}...{text[-60:]}"
