"""Settings of a client, from arguments, APNS_LIVE_* variables and a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidKey, InvalidSetting
from ..refusals import refused
from .sources import DEFAULT_FILE, read
from .table import CLIENT, NAMES

if TYPE_CHECKING:
    from .. import blocking
    from ..client import Client
    from ..credentials import ProviderKey
    from ..pool.endpoint import Endpoint

# The settings of the pool that are arguments of the client itself.
_ROOM_OPTIONS = ("queue_timeout", "waiting_room")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a client. The repr hides the key and the proxy's password.

    ``sources`` has the source of each value that was given.
    """

    key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    bundle_id: str | None = None
    environment: Literal["production", "sandbox"] | None = None
    host: str | None = None
    port: int | None = None
    ca_file: str | None = None
    manage_host: str | None = None
    manage_port: int | None = None
    transport: Literal["http2", "httpx"] | None = None
    proxy: str | None = field(default=None, repr=False)
    pool: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, Any] | None = None,
        *,
        file: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the settings: ``arguments`` override ``environ``, and ``environ`` overrides the file.

        ``arguments`` maps dotted names to values; None means "not given". ``file`` must exist if it is
        named; otherwise ``apns-live.toml`` of the working directory is read if it exists. Raises
        `InvalidSetting` naming the source of an invalid value.
        """
        found = read(CLIENT, arguments, file=file, environ=environ)
        plain = {name.removeprefix("endpoint."): said for name, said in found.values.items()}
        pool = {
            name.removeprefix("pool."): plain.pop(name)
            for name in list(plain)
            if name.startswith("pool.")
        }
        return cls(**plain, pool=pool, sources=found.sources)

    def _required(self, name: str) -> str:
        if (value := getattr(self, name)) is None:
            setting = NAMES[name]
            raise refused(
                InvalidSetting,
                "setting_missing",
                name,
                option=setting.option,
                variable=setting.variable,
                name=name,
                default_file=DEFAULT_FILE,
                help=setting.help,
            )
        return str(value)

    def provider_key(self) -> ProviderKey:
        """Return the provider key. Raises `InvalidKey` or `InvalidSetting` with the remedy."""
        from ..credentials import ProviderKey

        if self.key is None and self.key_file is None:
            raise refused(InvalidSetting, "no_key", "key_file")
        team_id = self._required("team_id")
        try:
            if self.key_file is not None:
                return ProviderKey.from_file(self.key_file, team_id=team_id, key_id=self.key_id)
            key_id = self._required("key_id")
            pem = pem_of(self._required("key"))
            return ProviderKey.from_pem(pem, key_id=key_id, team_id=team_id)
        except InvalidKey as error:
            # Name the option, the variable or the place in the file.
            name = {"path": "key_file", "pem": "key"}.get(error.field, error.field)
            field = self.sources.get(name, name)
            raise InvalidKey(error.problem, field=field, remedy=error.remedy) from None

    def public_key(self) -> Any:
        """Return the public half of the provider key, or None when no key is set.

        Needs neither key id nor team id. Raises `InvalidKey`.
        """
        from ..keyfile import private_key_from_pem, read_key_file

        if self.key is not None:
            return private_key_from_pem(pem_of(self.key), field="key").public_key()
        if self.key_file is not None:
            return private_key_from_pem(read_key_file(self.key_file), field="key_file").public_key()
        return None

    def endpoint(self) -> str | Endpoint:
        """Return the argument ``environment`` of ``Client``: an environment's name or an `Endpoint`."""
        given = {
            name: getattr(self, name)
            for name in ("port", "ca_file", "manage_host", "manage_port")
            if getattr(self, name) is not None
        }
        if self.host is None and not given:
            return self._required("environment")
        from ..pool.endpoint import ENVIRONMENTS, Endpoint

        if self.host is None:
            # Apple's host with, for example, Apple's alternative port.
            return dataclasses.replace(ENVIRONMENTS[self._required("environment")], **given)
        return Endpoint(self.host, **given)

    def client_arguments(self) -> dict[str, Any]:
        """Return the arguments of ``Client``, including the key, ready for ``Client(**...)``."""
        arguments: dict[str, Any] = {
            "key": self.provider_key(),
            "bundle_id": self._required("bundle_id"),
            "environment": self.endpoint(),
        }
        numbers = dict(self.pool)
        arguments.update({name: numbers.pop(name) for name in _ROOM_OPTIONS if name in numbers})
        if numbers:
            from ..pool.endpoint import PoolOptions

            arguments["pool"] = PoolOptions(**numbers)
        if self.transport is not None:
            arguments["transport"] = self.transport
        if self.proxy is not None:
            arguments["proxy"] = self.proxy
        return arguments

    def client(self, **more: Any) -> Client:
        """Return an asynchronous client with these settings."""
        from ..client import Client

        return Client(**{**self.client_arguments(), **more})

    def blocking_client(self, **more: Any) -> blocking.Client:
        """Return a synchronous client with these settings."""
        from ..blocking import Client

        return Client(**{**self.client_arguments(), **more})

    def shown(self) -> dict[str, Any]:
        """Return every given setting for a person to read, secrets as ``<hidden>``."""
        values: dict[str, Any] = {}
        for setting in CLIENT:
            place, _, rest = setting.name.rpartition(".")
            value = self.pool.get(rest) if place == "pool" else getattr(self, rest)
            if value is not None:
                values[setting.name] = "<hidden>" if setting.secret else value
        return values


def pem_of(text: str) -> str:
    """Return PEM if ``text`` is base64 of the DER inside a .p8 file, else ``text`` itself."""
    bare = "".join(text.split())
    # DER starts with a SEQUENCE, 0x30, so its base64 starts with M.
    if not bare.startswith("M") or "-" in bare:
        return text
    folded = "\n".join(bare[start : start + 64] for start in range(0, len(bare), 64))
    return f"-----BEGIN PRIVATE KEY-----\n{folded}\n-----END PRIVATE KEY-----\n"
