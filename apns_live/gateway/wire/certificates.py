"""The TLS files of the gateway: checked at the start, and reloaded when they change."""

import contextlib
import logging
import ssl
from pathlib import Path

from ...errors import InvalidSetting

logger = logging.getLogger("apns_live.gateway")


class Certificates:
    """The TLS context of new connections. Raises `InvalidSetting` for files that cannot be used."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self.context = self._load()
        self._seen = self._stamp()
        self._ticks = 0

    def look(self) -> None:
        """Reload the files if they changed. Called once a second."""
        self._ticks += 1
        if self._ticks % 10 == 0 and self._stamp() != self._seen:
            self.reload()

    def reload(self) -> None:
        """Reload the files. Keep the old certificate, and log an error, if they cannot be used."""
        self._seen = self._stamp()
        try:
            self.context = self._load()
        except InvalidSetting as error:
            logger.error("keeping the old certificate: %s", error)
        else:
            logger.info("reloaded the certificate %s", self._certificate)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for path in (self._certificate, self._key):
            if path is not None:
                with contextlib.suppress(OSError):
                    found = path.stat()
                    stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return tuple(stamps)

    def _load(self) -> ssl.SSLContext:
        for path, name in ((self._certificate, "certificate"), (self._key, "private_key")):
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                problem = f"{str(path)!r} cannot be read ({error.strerror})"
                raise InvalidSetting(problem, name, "Give the path of a PEM file.") from None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2", "http/1.1"])
        try:
            # Without this, OpenSSL would ask for a key's passphrase on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            if reason == "KEY_VALUES_MISMATCH":
                said, field = "is not the key of the certificate", "private_key"
                remedy = "Give the two that belong together."
            else:
                said, field = f"and its private key cannot be used ({reason})", "certificate"
                remedy = (
                    "Give PEM files: the chain with the server's certificate first, and its key."
                )
            raise InvalidSetting(said, field, remedy) from None
        return context
