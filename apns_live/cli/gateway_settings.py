"""The settings of ``apns-live gateway`` and ``worker``: HTTP API, service, log, APNs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..activities.settings import ServiceSettings
from ..errors import InvalidSetting
from ..gateway.scopes import DIALECTS
from ..gateway.settings import DIALECT_LIMITS, GatewaySettings, Limit
from ..settings import Setting, read
from ..settings.table import APNS, GATEWAY, LOG, SERVICE

if TYPE_CHECKING:
    from ..pool.endpoint import Endpoint


Made = TypeVar("Made")


class Tuned:
    """The settings of a gateway or worker; ``found`` has them with their sources."""

    def __init__(
        self, arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None
    ) -> None:
        """Read options over variables over the settings file. Raises `InvalidSetting`."""
        self.found = read((*GATEWAY, *SERVICE), arguments, environ=environ)

    def gateway(self) -> GatewaySettings:
        """Return the settings of the HTTP API. Raises `InvalidSetting`."""
        values = self._of("gateway", except_=APNS)
        if "limits" in values:
            values["limits"] = _limits(values["limits"], self.found.sources["gateway.limits"])
        for name in ("webhook_hosts", "trusted_proxies"):
            if name in values:
                values[name] = frozenset(values[name])
        if "service.audit_days" in self.found.values:
            values["audit_days"] = self.found.values["service.audit_days"]
        return self._made("gateway", GatewaySettings, values)

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoint that replaces Apple's, or nothing without ``apns``. Raises `InvalidSetting`."""
        from ..pool.endpoint import Endpoint

        sources = self.found.sources
        given = [one.name for one in APNS if one.name in sources]
        if not given:
            return {}
        if "gateway.apns" not in given:
            raise InvalidSetting(
                "has no effect without --apns",
                field=sources[given[0]],
                remedy="Give the URL of that APNs too.",
            )
        host, port = self._host("gateway.apns")
        manage = self._host("gateway.apns_manage") if "gateway.apns_manage" in given else None
        manage_host, manage_port = manage or (None, None)
        try:
            endpoint = Endpoint(
                host,
                port or 443,
                ca_file=self.found.values.get("gateway.apns_ca"),
                manage_host=manage_host,
                manage_port=manage_port,
            )
        except InvalidSetting as error:
            place = sources["gateway.apns_ca" if error.field == "ca_file" else "gateway.apns"]
            raise InvalidSetting(error.problem, field=place, remedy=error.remedy) from None
        return {"production": endpoint, "sandbox": endpoint}

    def _host(self, name: str) -> tuple[str, int | None]:
        """Return host and port of a URL that has no other part. Raises `InvalidSetting`."""
        text = str(self.found.values[name])
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or text.rstrip("/") != f"https://{url.netloc}" or "@" in url.netloc:
            raise InvalidSetting(
                f"{text!r:.80} is not the address of an APNs",
                field=self.found.sources[name],
                remedy="Write https://HOST:PORT.",
            )
        return host, port

    def service(self) -> ServiceSettings:
        """Return the settings of the service. Raises `InvalidSetting`."""
        values = self._of("service", except_=LOG)
        if "device_limit_ends" in values:
            values["device_limit_ends"] = values["device_limit_ends"].replace("-", " ")
        return self._made("service", ServiceSettings, values)

    def configure_logs(self) -> None:
        """Set up logging from ``--log-format``, ``--log-level`` and ``--access-log``."""
        from ..activities.logs import configure

        said = self.found.values
        configure(
            said.get("service.log_format", "text"),
            said.get("service.log_level", "info"),
            access=said.get("service.access_log", False),
        )

    def _of(self, part: str, *, except_: Sequence[Setting]) -> dict[str, Any]:
        """Return the values of a part by their bare names."""
        left_out = {one.name for one in except_}
        return {
            name.removeprefix(f"{part}."): value
            for name, value in self.found.values.items()
            if name.startswith(f"{part}.") and name not in left_out
        }

    def _made(self, part: str, kind: Callable[..., Made], values: Mapping[str, Any]) -> Made:
        try:
            return kind(**values)
        except InvalidSetting as error:
            # Name the option, the variable or the place in the file.
            place = self.found.sources.get(f"{part}.{error.field}", error.field)
            raise InvalidSetting(error.problem, field=place, remedy=error.remedy) from None


def _limits(said: list[str], source: str) -> dict[str, Any]:
    """Return the limits of each API; an API that is not named keeps its default."""
    limits: dict[str, Any] = dict(DIALECT_LIMITS)
    for one in said:
        name, equals, numbers = one.partition("=")
        per_minute, slash, concurrent = numbers.partition("/")
        given = [per_minute, *([concurrent] if slash else [])]
        if (
            name not in DIALECTS
            or not equals
            or not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in given)
        ):
            raise InvalidSetting(
                f"{one!r:.60} is not a valid limit",
                field=source,
                remedy=f"Write braze=4166 or braze=4166/4; APIs: {', '.join(DIALECTS)}.",
            )
        limits[name] = Limit(
            per_minute=int(per_minute) or None, concurrent=int(concurrent or 0) or None
        )
    return limits
