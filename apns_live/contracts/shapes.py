"""What JSON a Swift type expects, as data.

The reader (``resolve``) makes shapes from Swift source; checker, examples, models and comparison
read them. A shape may hold itself (``indirect`` enums, lists of itself).
"""

from __future__ import annotations

from dataclasses import dataclass, field

RawValue = str | int | float


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


@dataclass(eq=False)
class Shape:
    """Base of every shape. ``swift`` is the type as Swift spells it."""

    swift: str


class Scalar(Shape):
    """A type that decodes itself from one JSON value: ``Int``, ``Date``, ``URL``, ``Decimal``."""


@dataclass(eq=False)
class Nullable(Shape):
    """``T?``: JSON null is nil."""

    of: Shape


@dataclass(eq=False)
class Sequence(Shape):
    """``[T]``, ``Set<T>`` and the like: a JSON array."""

    of: Shape


@dataclass(eq=False)
class Fixed(Shape):
    """A JSON array of known elements, read from the front: ``Range``, ``CGPoint``, ``Duration``.

    With ``ordered`` the first element may not exceed the second.
    """

    of: tuple[Shape, ...]
    ordered: bool = False


@dataclass(eq=False)
class Mapping(Shape):
    """A dictionary that Swift keeps as a JSON object.

    ``keys`` is ``"String"`` or ``"Int"``, or the raw values of an enum; ``converted`` where they
    stand for a ``CodingKeyRepresentable`` type.
    """

    keys: str | frozenset[str]
    of: Shape
    converted: bool = False


@dataclass(eq=False)
class Pairs(Shape):
    """A dictionary with other keys: Swift keeps it as an array of keys and values in turn."""

    key: Shape
    of: Shape


@dataclass(eq=False)
class Field:
    """One stored property or associated value: its JSON key and what it expects."""

    key: str
    shape: Shape
    optional: bool = False  # nil when the key is missing or null
    name: str = ""  # as Swift spells the property


@dataclass(eq=False)
class Record(Shape):
    """A struct (or class) with fields in the order in which Swift decodes them.

    ``bare`` marks a struct without stored properties: Swift never looks at its JSON.
    """

    fields: list[Field] = field(default_factory=list)
    bare: bool = False


@dataclass(eq=False)
class Raw(Shape):
    """An enum or struct with a raw value. ``values`` is None where any raw value will do."""

    of: Shape
    values: dict[RawValue, str] | None = None  # raw value -> case


@dataclass(eq=False)
class Case:
    """One case of an enum without raw values."""

    key: str
    fields: list[Field] = field(default_factory=list)


@dataclass(eq=False)
class Cases(Shape):
    """An enum with synthesized coding (SE-0295): ``{"case": {"label": value, "_1": value}}``."""

    cases: list[Case] = field(default_factory=list)


@dataclass(eq=False)
class Unknown(Shape):
    """A type of which the source does not tell how it decodes."""

    reason: str
