"""Key files, ids and settings from which no provider token can come."""

from __future__ import annotations

import base64
import pathlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from apns_live.credentials import ProviderKey
from apns_live.errors import InvalidKey

from .table import BadInput, check

KEYS = pathlib.Path(__file__).parents[2] / "fixtures" / "keys"
GOOD = KEYS / "AuthKey_TEST123KEY.p8"
PEM = GOOD.read_text()
BODY = "".join(PEM.splitlines()[1:-1])
IDS = {"key_id": "TEST123KEY", "team_id": "TEAM123456"}


def file(path, **ids):
    return ProviderKey.from_file(path, **(IDS | ids))


def pem(text, **ids):
    return ProviderKey.from_pem(text, **(IDS | ids))


def der():
    return load_pem_private_key(PEM.encode(), None).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )


def block(kind, body=BODY):
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


def key(name, call, field, remedy, error=InvalidKey):
    return BadInput(name, call, error, field, remedy)


FILES = [
    key("missing", lambda: file(KEYS / "AuthKey_MISSING123.p8"), "path", "Check the path"),
    key("directory", lambda: file(KEYS), "path", "Name the .p8 file"),
    key("PEM as path", lambda: file(PEM), "path", "from_pem()"),
    key("NUL in path", lambda: file("a\0b.p8"), "path", "path of the .p8"),
    key("path as number", lambda: file(3.5), "path", "path of the .p8"),
    key("certificate", lambda: file(KEYS / "certificate.pem"), "path", "not a certificate"),
    key("public key", lambda: file(KEYS / "public.pem"), "path", "offered for download"),
    key("SEC1", lambda: file(KEYS / "sec1.pem"), "path", "openssl pkcs8 -topk8"),
    key("encrypted", lambda: file(KEYS / "encrypted.p8"), "path", "Decrypt it with"),
    key("P-384", lambda: file(KEYS / "p384.p8"), "path", "P-256 keys only"),
    key("RSA", lambda: file(KEYS / "rsa.p8"), "path", "P-256 keys only"),
    key("Ed25519", lambda: file(KEYS / "ed25519.p8"), "path", "P-256 keys only"),
    key("a text", lambda: file(KEYS / "README.md"), "path", "offered for download"),
    key("no id in the name", lambda: file(KEYS / "p384.p8", key_id=None), "key_id", "AuthKey_"),
    key("the id of another key", lambda: file(GOOD, key_id="OTHER12345"), "key_id", "Leave key_id"),
    key(
        "the id of another key, before the team's in the alphabet",
        lambda: file(GOOD, key_id="OTHER12345", team_id="ZEAM123456"),
        "key_id",
        "Leave key_id",
    ),
    key(
        "the key's id for the team",
        lambda: file(GOOD, team_id="TEST123KEY"),
        "team_id",
        "Membership",
    ),
    key(
        "swapped",
        lambda: file(GOOD, key_id="TEAM123456", team_id="TEST123KEY"),
        "key_id",
        "the team's as team_id",
    ),
    key(
        "swapped, the team's id behind the key's",
        lambda: file(GOOD, key_id="ZEAM123456", team_id="TEST123KEY"),
        "key_id",
        "the team's as team_id",
    ),
]

TEXTS = [
    key("empty", lambda: pem(""), "pem", "offered for download"),
    key("spaces", lambda: pem(" \n"), "pem", "offered for download"),
    key("None", lambda: pem(None), "pem", "str or bytes"),
    key("file name", lambda: pem("AuthKey_TEST123KEY.p8"), "pem", "from_file()"),
    key("DER", lambda: pem(der()), "pem", "-inform DER"),
    key("base64 of DER", lambda: pem(BODY), "pem", "Keep the lines"),
    key("UTF-16", lambda: pem(PEM.encode("utf-16")), "pem", "UTF-8"),
    key("words", lambda: pem("not a key at all"), "pem", "offered for download"),
    key("cut off", lambda: pem(PEM[:120]), "pem", "whole file"),
    key("damaged base64", lambda: pem(block("PRIVATE KEY", "%%%" + BODY)), "pem", "again"),
    key("damaged DER", lambda: pem(block("PRIVATE KEY", BODY[8:])), "pem", "byte for byte"),
    key("two keys", lambda: pem(PEM + PEM), "pem", "one key to a file"),
    key("another end", lambda: pem(PEM.replace("END PRIVATE", "END PUBLIC")), "pem", ".p8"),
    key("SSH key", lambda: pem(block("OPENSSH PRIVATE KEY")), "pem", ".p8"),
    key("RSA PEM", lambda: pem(block("RSA PRIVATE KEY")), "pem", "P-256"),
    key("request", lambda: pem(block("CERTIFICATE REQUEST")), "pem", ".p8"),
    key("PGP", lambda: pem(block("PGP MESSAGE")), "pem", ".p8"),
    key("base64 of base64", lambda: pem(base64.b64encode(BODY.encode())), "pem", ".p8"),
    key(
        "the curve of another coin",
        lambda: pem(
            ec.generate_private_key(ec.SECP256K1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        ),
        "pem",
        "P-256 keys only",
    ),
]

IDENTIFIERS = [
    key(f"{name} {what}", lambda n=name, v=v: pem(PEM, **{n: v}), name, "ten letters and digits")
    for name in ("key_id", "team_id")
    for what, v in (
        ("empty", ""),
        ("None", None),
        ("short", "ABC123"),
        ("long", "ABC123DEFG1"),
        ("with a line end", "ABC123DEFG\n"),
        ("a bundle id", "com.example"),
        ("punctuated", "ABC-23DEFG"),
        ("with quotes", 'ABC123","a'),
        ("not ASCII", "ÄBC123DEFG"),
    )
] + [
    # Ids from two settings are two objects with the same letters.
    key("the same", lambda: pem(PEM, team_id=" TEST123KEY".strip()), "team_id", "Membership")
]


@pytest.mark.parametrize(
    "row", [*FILES, *TEXTS, *IDENTIFIERS], ids=lambda row: f"{row.field}: {row.name}"
)
def test_it_is_refused_with_its_field_and_a_remedy(row):
    check(row)


def test_what_is_wrong_with_an_identifier_is_said():
    for wrong, problem in (
        ("", "is empty"),
        ("ABC123", "has 6 characters, not 10"),
        ("ABC123DEF", "has 9 characters, not 10"),
        ("ABC-23DEFG", "holds characters other than letters and digits"),
        ("ABCDEF12345", "has 11 characters, not 10"),
        ("com.a", "bundle id"),
    ):
        with pytest.raises(InvalidKey, match=problem):
            pem(PEM, team_id=wrong)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    # Root may read everything, so the refusal is the operating system's by proxy.
    path = tmp_path / "AuthKey_TEST123KEY.p8"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    check(key("unreadable", lambda: file(path), "path", "the right to read it"))


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    # More than any memory holds, and nothing on the disk.
    path = tmp_path / "AuthKey_TEST123KEY.p8"
    with path.open("wb") as huge:
        huge.truncate(1 << 40)
    check(key("huge", lambda: file(path), "path", "offered for download"))


def test_a_file_larger_than_a_key_is_refused_for_its_size(tmp_path):
    path = tmp_path / "AuthKey_TEST123KEY.p8"
    path.write_text(PEM + "\n" * 70_000)
    with pytest.raises(InvalidKey, match="over 65536 bytes"):
        file(path)


@pytest.mark.parametrize("row", [*FILES, *TEXTS], ids=lambda row: row.name)
def test_no_message_or_cause_quotes_the_key(row):
    with pytest.raises(InvalidKey) as caught:
        row.call()
    shown = str(caught.value) + repr(caught.value)
    assert not caught.value.__cause__
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not any(BODY[at : at + 12] in shown for at in range(0, len(BODY) - 12, 4))
