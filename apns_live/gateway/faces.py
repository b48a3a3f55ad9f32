"""Which API a path belongs to, so that what never reaches its routes is refused in its words.

Overload, an unknown path, a wrong method and a defect are met outside of any route. A vendor's
client that gets another shape there cannot read it.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from .problems import classify, of_status, respond

Refusal = Callable[[str, Exception], Response | None]
"""A dialect's ``refusal(path, error)``: its answer, or None for a path that is not its own.

The error is `Busy`, an `HTTPException` (404, 405), or what nobody expected.
"""


class Faces:
    """The dialects' refusals, asked in order; problem details where none of them answers."""

    def __init__(self) -> None:
        self._refusals: list[Refusal] = []

    def add(self, refusal: Refusal) -> None:
        """Ask one more dialect."""
        self._refusals.append(refusal)

    def refuse(self, scope: Scope, error: Exception) -> Response:
        """Return the answer to an error outside of a route."""
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        for refusal in self._refusals:
            answer = refusal(path, error)
            if answer is not None:
                break
        else:
            answer = respond(
                of_status(error.status_code)
                if isinstance(error, HTTPException)
                else classify(error)
            )
        if isinstance(error, HTTPException):
            answer.headers.update(error.headers or {})
        return answer
