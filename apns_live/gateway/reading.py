"""Reads fields of vendors' bodies. Each function raises `InvalidInput` with the field's path."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from ..activities import checks
from ..activities.checks import convert
from ..errors import InvalidInput

Value = TypeVar("Value")
Score = Annotated[float, Meta(ge=0, le=1)]
PAGE = "Give what the page of the call asks for."
LONG_PAST = 1e9
"""Seconds since 1970: the year 2001. An earlier time only means the past."""


def body(given: Mapping[str, Any], kind: type[Value]) -> Value:
    """Return a body as a struct. A null field counts as absent.

    Numbers and booleans may be strings, as servers in PHP and Ruby send them.
    """
    found: Value = convert(
        {k: v for k, v in given.items() if v is not None}, kind, strict=False, remedy=PAGE
    )
    return found


def as_object(value: object, field: str) -> dict[str, Any]:
    """Return a JSON object."""
    found: dict[str, Any] = convert(value, dict[str, Any], field, remedy="Give a JSON object.")
    return found


def text(
    body: Mapping[str, Any],
    name: str,
    field: str = "",
    *,
    required: bool = False,
    limit: int | None = None,
) -> str | None:
    """Return a text, or None where it is absent or null."""
    value = body.get(name)
    where = f"{field}.{name}" if field else name
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        problem = "is missing" if value in (None, "") else "is not a string"
        raise InvalidInput(problem, where, "Give a text.")
    if limit is not None:
        checks.at_most(len(value), limit, "characters", where)
    return value


def ids(
    value: object, field: str, *, most: int | None, too_many: str = "", limit: int = 255
) -> tuple[str, ...]:
    """Return a list of ids of ``limit`` characters, ``most`` of them."""
    given = convert(value, list[Any], field, remedy="Give a list of texts.")
    if most is not None and len(given) > most:
        raise InvalidInput(too_many or f"has {len(given)} ids", field, f"Give at most {most:,}.")
    return tuple(
        checks.identifier(one, f"{field}[{n}]", limit=limit) for n, one in enumerate(given)
    )


def one_of(body: Mapping[str, Any], names: Sequence[str], none: InvalidInput) -> str:
    """Return the only one of ``names`` that a body has. Raises ``none`` if it has none of them."""
    if not (given := [name for name in names if body.get(name) not in (None, [], {}, "")]):
        raise none
    if len(given) > 1:
        remedy = f"Give one of {', '.join(names)}."
        raise InvalidInput("stand beside each other", " and ".join(given), remedy)
    return given[0]


def moment(value: object, field: str, example: str = "2026-01-22T00:00:00+0000") -> float:
    """Return seconds since 1970 of an ISO 8601 date; one without an offset is UTC."""
    try:
        if not isinstance(value, str) or not 8 <= len(value) <= 40:
            raise ValueError
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        remedy = f"Give one such as {example}."
        raise InvalidInput("is not a valid ISO 8601 date", field, remedy) from None
