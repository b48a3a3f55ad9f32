"""Creates what a gateway needs by default: directory, database, sealing key, certificates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .connect_proxy import connect_proxy
from .files import make_private
from .store_access import DATABASE_FILE, KEY_FILE, sealing_key

if TYPE_CHECKING:
    from ..activities import ServiceSettings
    from ..activities.store.sealing import Sealer
    from ..gateway import GatewaySettings
    from ..gateway.wire.certificates import Certificates
    from ..pool.endpoint import Endpoint


@dataclass(slots=True, kw_only=True)
class Place:
    """Where to serve, and over what. ``facts`` is what the ready line says of TLS."""

    directory: Path | None = None
    database: str | None = None
    host: str = "localhost"
    port: int = 0
    certificates: Certificates | None = None
    hostnames: tuple[str, ...] = ()
    proxy_port: int | None = None
    settings: GatewaySettings | None = None
    service: ServiceSettings | None = None
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    contract: tuple[Path, ...] = ()
    send: bool = True
    facts: dict[str, str] = field(default_factory=dict)

    def make_certificates(self, directory: Path) -> None:
        """Make certificates for the names that were asked for, in a folder of the directory."""
        if not self.hostnames:
            return
        from ..gateway.wire.certificates import Certificates
        from ..testing.certificates import LOCAL_NAMES, certificates_in

        make_directory(directory / "tls")
        made = certificates_in(directory / "tls", (*LOCAL_NAMES, *self.hostnames))
        self.certificates = Certificates(made.certificate_file, made.key_file)
        self.facts["ca_file"] = str(made.ca_file)

    @contextlib.asynccontextmanager
    async def proxy(self, url: str) -> AsyncIterator[None]:
        """Run the CONNECT proxy, if it was asked for."""
        if self.proxy_port is None:
            yield
            return
        parts = urlsplit(url)
        target = parts.hostname or "localhost", parts.port or 443
        async with connect_proxy(self.proxy_port, target) as address:
            self.facts["proxy"] = address
            yield


def make_directory(directory: Path) -> None:
    """Make a directory that only its owner can read."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


async def embedded_database(
    given: str | None, directory: Path, *, file: str = DATABASE_FILE
) -> str:
    """Return the database's address. The one in the directory is set up or upgraded by itself."""
    from ..activities.store.database import Database
    from ..activities.store.upgrade import upgrade

    if given is not None:
        return given
    path = directory / file
    if not path.exists():
        path.touch(mode=0o600)
    async with Database.open(path) as database:
        await upgrade(database)
    return str(path)


def embedded_sealer(directory: Path, file: Path | None = None) -> Sealer:
    """Return the sealer: of the settings if they hold a key, else of a file that is made here."""
    from ..activities.store.sealing import FILE_VARIABLE, Sealer, new_key

    if key := sealing_key():
        return Sealer(key)
    if os.environ.get(FILE_VARIABLE):
        return Sealer.from_environment()
    path = file or directory / KEY_FILE
    make_directory(path.parent)
    make_private(path, new_key() + "\n")
    return Sealer(path.read_text(encoding="ascii"))
