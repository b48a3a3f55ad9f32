"""What JSON a Swift type expects, as data.

``resolve`` makes shapes from Swift source; the checker, examples and models read them. A shape may contain
itself (``indirect`` enums, lists of the own type).
"""

import msgspec

RawValue = str | int | float


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


class Shape(msgspec.Struct, eq=False):
    """Base of every shape. ``swift`` is the type as Swift spells it."""

    swift: str


class Scalar(Shape):
    """A type that is decoded from one JSON value: ``Int``, ``Date``, ``URL``, ``Decimal``."""


class Nullable(Shape):
    """``T?``: JSON null is nil."""

    of: Shape


class Sequence(Shape):
    """``[T]``, ``Set<T>`` and the like: a JSON array."""

    of: Shape


class Fixed(Shape):
    """A JSON array of known elements, read from the front: ``Range``, ``CGPoint``, ``Duration``.

    With ``ordered`` the first element may not exceed the second.
    """

    of: tuple[Shape, ...]
    ordered: bool = False


class Mapping(Shape):
    """A dictionary that Swift encodes as a JSON object.

    ``keys`` is ``"String"`` or ``"Int"``, or the raw values of an enum. ``converted``: the keys are of a
    ``CodingKeyRepresentable`` type.
    """

    keys: str | frozenset[str]
    of: Shape
    converted: bool = False


class Pairs(Shape):
    """A dictionary with other keys: Swift encodes it as an array of keys and values in turn."""

    key: Shape
    of: Shape


class Field(msgspec.Struct, eq=False):
    """One stored property or associated value: its JSON key and its shape."""

    key: str
    shape: Shape
    optional: bool = False  # nil if the key is missing or null
    name: str = ""  # as Swift spells the property


class Record(Shape):
    """A struct (or class) with fields in the order in which Swift decodes them.

    ``bare`` marks a struct without stored properties, whose JSON Swift ignores.
    """

    fields: list[Field] = []
    bare: bool = False


class Raw(Shape):
    """An enum or struct with a raw value. ``values`` is None if every raw value is valid."""

    of: Shape
    values: dict[RawValue, str] | None = None  # raw value -> case


class Case(msgspec.Struct, eq=False):
    """One case of an enum without raw values."""

    key: str
    fields: list[Field] = []


class Cases(Shape):
    """An enum with synthesized coding (SE-0295): ``{"case": {"label": value, "_1": value}}``."""

    cases: list[Case] = []

    def as_fields(self) -> list[Field]:
        """Return a field for each case, whose record has the associated values."""
        records = [(one.key, Record(f"{self.swift}.{one.key}", one.fields)) for one in self.cases]
        return [Field(key, record, name=key) for key, record in records]


class Unknown(Shape):
    """A type whose decoding the source does not determine."""

    reason: str
