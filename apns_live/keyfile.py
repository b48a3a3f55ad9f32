"""Reading a ``.p8`` file, with a plain sentence for each way in which it is not one.

Apple gives the key once, as PKCS#8 in PEM (RFC 7468) on the curve P-256. The errors of a crypto
library say little of what happened, so each usual mix-up is looked for and named.
"""

from __future__ import annotations

import base64
import binascii
import re
from os import PathLike
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from .errors import InvalidKey

MAX_FILE_SIZE = 65_536
_NAME = re.compile(r"AuthKey_([A-Za-z0-9]{10})(?: ?\(\d+\))?\.p8\Z").match
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END ([A-Z0-9 ]+)-----", re.DOTALL)
_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")

_DOWNLOAD = "Use the .p8 file that Apple offered for download when the key was made."
_COPY_AGAIN = f"Copy the file again, byte for byte. {_DOWNLOAD}"
_P256_ONLY = f"APNs takes P-256 keys only. {_DOWNLOAD}"
_OTHER_KINDS = {
    "ENCRYPTED PRIVATE KEY": (
        "is encrypted with a passphrase",
        "Decrypt it with: openssl pkcs8 -in key.p8 -out plain.p8",
    ),
    "EC PRIVATE KEY": (
        "is an EC key in SEC1 form, not PKCS#8",
        "Convert it with: openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.p8",
    ),
    "EC PARAMETERS": (
        "is an EC key in SEC1 form, not PKCS#8",
        "Convert it with: openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.p8",
    ),
    "RSA PRIVATE KEY": ("is an RSA key", _P256_ONLY),
    "DSA PRIVATE KEY": ("is a DSA key", _P256_ONLY),
    "OPENSSH PRIVATE KEY": ("is an SSH key", _DOWNLOAD),
    "PUBLIC KEY": ("is a public key, and signing needs the private one", _DOWNLOAD),
    "CERTIFICATE": (
        "is a certificate",
        f"Live Activity pushes need a key, not a certificate. {_DOWNLOAD}",
    ),
    "CERTIFICATE REQUEST": ("is a certificate request", _DOWNLOAD),
}


def _unusable(problem: str, field: str, remedy: str = _DOWNLOAD) -> InvalidKey:
    return InvalidKey(problem, field=field, remedy=remedy)


def key_id_from_name(path: str | PathLike[str]) -> str | None:
    """Return the key id in a name such as ``AuthKey_ABC123DEFG.p8``, or None."""
    match = _NAME(Path(path).name)
    return match.group(1) if match else None


def read_key_file(path: str | PathLike[str]) -> bytes:
    """Return the file's bytes. Raises `InvalidKey` when there is no file of a key's size."""
    if isinstance(path, str) and "-----BEGIN" in path:
        raise _unusable("is the key itself, not a file name", "path", "Use ProviderKey.from_pem().")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise _unusable(
            f"there is no file {_shown(path)}",
            "path",
            "Check the path; a relative one starts at the current directory.",
        ) from None
    except PermissionError:
        raise _unusable(
            f"{_shown(path)} may not be read by this user",
            "path",
            "Give this user the right to read it, and nobody else.",
        ) from None
    except IsADirectoryError:
        raise _unusable(
            f"{_shown(path)} is a directory", "path", "Name the .p8 file in it."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise InvalidKey(
            f"{_shown(path)} cannot be read ({type(error).__name__})",
            field="path",
            remedy="Pass the path of the .p8 file.",
        ) from None
    if len(data) > MAX_FILE_SIZE:
        raise _unusable(
            f"{_shown(path)} is over {MAX_FILE_SIZE} bytes, far more than a key", "path"
        )
    return data


def private_key_from_pem(pem: str | bytes, *, field: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key in a PEM text. Raises `InvalidKey`; its message never quotes the text."""
    text = _text(pem, field)
    if "-----BEGIN" not in text:
        text = _decoded(text, field)
    blocks = _BLOCK.findall(text)
    begun = _BEGIN.search(text)
    if not blocks or begun is None:
        raise _unusable(
            "is cut off: its PEM block has no end" if begun else "is no PEM text",
            field,
            "Copy the whole file, from -----BEGIN to the last dash.",
        )
    if len(blocks) > 1 and "EC PARAMETERS" not in blocks[0][0]:
        kinds = ", ".join(block[0].lower() for block in blocks[:3])
        raise _unusable(
            f"holds {len(blocks)} PEM blocks ({kinds})",
            field,
            "Keep only the private key's block, and one key to a file.",
        )
    kind, body, end = blocks[0]
    if kind in _OTHER_KINDS:
        problem, remedy = _OTHER_KINDS[kind]
        raise _unusable(problem, field, remedy)
    if kind != "PRIVATE KEY" or end != kind:
        raise _unusable(f"is PEM of the kind {kind.lower()!r:.40}, not a private key", field)
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _unusable(
            "is damaged: the text between its PEM lines is not base64", field, _COPY_AGAIN
        ) from None
    return _p256(der, field)


def _p256(der: bytes, field: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # From None: the library's error may quote what it read.
        raise _unusable(
            "is damaged: what it holds is no PKCS#8 private key", field, _COPY_AGAIN
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        name = type(key).__name__.lstrip("_").removesuffix("PrivateKey")
        raise _unusable(
            f"is an {name} key" if name[:1] in "AERX" else f"is a {name} key", field, _P256_ONLY
        )
    if not isinstance(key.curve, ec.SECP256R1):
        raise _unusable(f"is on the curve {key.curve.name}, not P-256", field, _P256_ONLY)
    return key


def _text(pem: object, field: str) -> str:
    if not isinstance(pem, (str, bytes, bytearray)):
        raise _unusable(
            f"is a {type(pem).__name__}, not text", field, "Pass the PEM text as str or bytes."
        )
    if not isinstance(pem, str):
        if pem[:1] == b"\x30" and b"-----BEGIN" not in pem:
            raise _unusable(
                "is binary (DER, or a .p12 file), not PEM text",
                field,
                f"Convert DER with: openssl pkcs8 -inform DER -topk8 -nocrypt -in key.der -out key.p8. {_DOWNLOAD}",
            )
        if pem[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise _unusable(
                "is saved as UTF-16", field, "Save it as plain text (UTF-8) without changing it."
            )
        text = bytes(pem).decode("utf-8", "replace")
    else:
        text = pem
    text = text.lstrip("\ufeff").strip().strip("\"'")
    if not text:
        raise _unusable("is empty", field)
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
        raise _unusable("is a file name, not a key", field, "Use ProviderKey.from_file().")
    if inner[:1] == b"\x30":
        raise _unusable(
            "is a key's base64 without its PEM lines",
            field,
            "Keep the lines -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY----- around it.",
        )
    raise _unusable("is not PEM text", field)


def _shown(path: object) -> str:
    text = repr(str(path))
    return text if len(text) <= 120 else f"{text[:50]}...{text[-60:]}"
