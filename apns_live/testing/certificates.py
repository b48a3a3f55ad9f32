"""Creates a certificate authority, a certificate for localhost, and provider keys.

All files are created with ``cryptography`` in one directory; private keys have mode 0600. They are only
for tests on this machine.
"""

import datetime
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apns_live.errors import FakeError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_VALID = datetime.timedelta(days=397)
_RENEW = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of the files: the authority to trust, the leaf with its chain, the leaf's key."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a TLS context for the server: TLS 1.2 or newer, ALPN h2."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_file, self.key_file)
        context.set_alpn_protocols(["h2"])
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a TLS context for a client that trusts only this authority."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.set_alpn_protocols(["h2"])
        return context


class Folder:
    """The directory of a fake's certificates and keys: the given one, else a temporary one.

    ``names`` are the certificate's host names; ``made`` has the certificates once they exist.
    """

    def __init__(self, given: str | Path | None, names: Sequence[str]) -> None:
        self.names = names
        self.made: tuple[Certificates, Path] | None = None
        self._given = None if given is None else Path(given)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def path(self) -> Path:
        """The directory, which is created at first use."""
        if self._given is not None:
            self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._given
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="apns-live-fake-")
        return Path(self._temporary.name)

    def close(self) -> None:
        """Remove a temporary directory."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = self.made = None


def certificates_in(
    directory: Path, names: Sequence[str] = LOCAL_NAMES, *, ca: str = "ca", leaf: str = "localhost"
) -> Certificates:
    """Return the certificates in ``directory``. Create them unless valid ones for ``names`` exist."""
    made = Certificates(*(directory / f"{name}.pem" for name in (ca, leaf, f"{leaf}-key")))
    if not _usable(made, names):
        _make(made, names)
    return made


def untrusted_certificates(directory: Path) -> Certificates:
    """Return certificates of an untrusted authority, to make TLS handshakes fail."""
    return certificates_in(directory, ca="untrusted-ca", leaf="untrusted")


def provider_key_in(directory: Path, key_id: str) -> tuple[Path, ec.EllipticCurvePublicKey]:
    """Return the ``.p8`` file of ``key_id`` and its public key. Create the file if it is missing."""
    path = directory / f"AuthKey_{key_id}.p8"
    if path.exists():
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except ValueError as error:
            raise FakeError(f"{path} holds no private key; remove it to get a new one") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FakeError(f"{path} holds no elliptic curve key; remove it to get a new one")
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(path, _pem(key))
    return path, key.public_key()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    made: list[x509.GeneralName] = []
    for name in names:
        try:
            made.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            made.append(x509.DNSName(name))
    return made


def _usable(files: Certificates, names: Sequence[str]) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(files.certificate_file.read_bytes())
        load_pem_private_key(files.key_file.read_bytes(), None)
        files.ca_file.read_bytes()
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    until = leaf.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    return until - now > _RENEW and set(_alternative_names(names)) <= set(held)


def _make(files: Certificates, names: Sequence[str]) -> None:
    authority_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = f"apns-live test authority {x509.random_serial_number() % 10**8:08d}"
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = _signed(
        *(authority_name, authority_key, authority_name, authority_key),
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(signs_certificates=True), True),
        (authority_id, False),
    )
    leaf = _signed(
        *("localhost", leaf_key, authority_name, authority_key),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName(_alternative_names(names)), False),
        (x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), False),
    )
    # The authority's key is not stored, so no second leaf can be signed with it.
    files.ca_file.write_bytes(authority)
    write_private(files.key_file, _pem(leaf_key))
    files.certificate_file.write_bytes(leaf + authority)


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *extensions: tuple[x509.ExtensionType, bool],
) -> bytes:
    """Return a certificate as PEM. Each extension is paired with its critical flag."""
    subject, signer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer)
    )
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now - datetime.timedelta(days=1), now + _VALID
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(signer, subject, key.public_key(), serial, begins, ends)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    others = "content_commitment key_encipherment data_encipherment key_agreement encipher_only"
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        **dict.fromkeys([*others.split(), "decipher_only"], False),
    )
