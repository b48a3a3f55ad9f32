"""The native API as a `Face`: authentication and errors; collects its operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import msgspec
from starlette.responses import Response

from ...errors import NotAllowed, NotFound
from ..calls import Call, Face, Handler, Operation, operation
from ..credentials import HEAD, Phone
from ..keys import ApiKey
from ..problems import classify, respond
from ..scopes import Dialect


class Native(Face):
    """Problem details, and every path that belongs to no other API."""

    dialect: ClassVar[Dialect] = "native"
    no_key = "give a valid API key as Authorization: Bearer KEY"
    no_query = True

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def owns(self, path: str) -> bool:
        """Every path is its own."""
        return True

    def refuse(self, error: Exception) -> Response:
        """Return problem details."""
        return respond(classify(error))

    async def find(self, call: Call) -> ApiKey | Phone:
        """Return the key or, where a phone calls with its credential, the phone."""
        secret = call.secret()
        if call.operation.who == "phone":
            phone = await call.gateway.credentials.check(secret) if secret else None
            if phone is None:
                call.refused()
                raise NotAllowed(
                    "give a device credential that has not ended: your server mints one at "
                    "POST /v1/devices/{device}/credentials",
                    status=401,
                )
            return phone
        if secret.startswith(f"{HEAD}."):
            call.refused()
            raise NotAllowed("this is a device credential: phones call /v1/device only", status=401)
        return await super().find(call)

    async def check(self, call: Call) -> None:
        """Raise for what the caller may not do, and `NotFound` for parts of a path that are not valid ids."""
        for name, text in call.parts.items():
            if not text or not text.isprintable() or len(text) > 255:
                raise NotFound(f"there is no such {name}")
        if isinstance(call.caller, Phone) and (activity := call.parts.get("activity")):
            check_joins(call, activity)
        await super().check(call)


NATIVE = Native()


def check_joins(call: Call, *activities: str | None) -> None:
    """Raise `NotAllowed` if the phone's credential is not for one of the activities; None is none."""
    claims = call.phone.claims
    if not all(name is None or claims.may_join(name) for name in activities):
        raise NotAllowed("this credential is not for that activity")


@cache
def _examples() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the bodies and answers that the description shows, by operation and then by name."""
    text = resources.files(__package__).joinpath("examples.json").read_bytes()
    found: dict[str, dict[str, dict[str, Any]]] = msgspec.json.decode(text)
    return found


class Routes:
    """Adds operations to the native API. ``shared`` are options of `Operation` that all of them have."""

    def __init__(self, tag: str, **shared: Any) -> None:
        self._shared = {"tag": tag, **shared}

    def __call__(self, place: str, summary: str, **options: Any) -> Callable[[Handler], Handler]:
        """Return a decorator that makes the function the handler of method and path.

        The answer's type is the one that the handler returns, unless ``options`` has another.
        """

        def add(handler: Handler) -> Handler:
            shown = _examples().get(handler.__name__, {})
            examples = {
                "examples": shown.get("body", {}),
                "answer_examples": shown.get("answer", {}),
            }
            given = {"summary": summary, **self._shared, **options, **examples}
            NATIVE.operations.append(operation(NATIVE, place, handler, **given))
            return handler

        return add
