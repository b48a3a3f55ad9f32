"""From declarations to shapes: what each type is, following extensions, aliases and generics.

The rules are those of the Swift compiler's synthesized ``init(from:)`` (SE-0166, SE-0295, SE-0320).
Where source that nobody gave could change how a type decodes, the shape is ``Unknown`` with the
reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import shapes as s
from .decode import SCALARS
from .literals import infer, raw_literal
from .scalars import INTEGERS
from .shapes import words
from .syntax import Declaration, EnumCase, Property, TypeName, parse_type, walk

_ALIASES = {
    "TimeInterval": "Double",
    "CFTimeInterval": "Double",
    "CFAbsoluteTime": "Double",
    "CLLocationDegrees": "Double",
    "CLLocationDistance": "Double",
    "CLLocationDirection": "Double",
    "CLLocationSpeed": "Double",
    "CLLocationAccuracy": "Double",
    "Float64": "Double",
    "Float32": "Float",
    "NSInteger": "Int",
    "NSUInteger": "UInt",
    "CInt": "Int32",
    "StringLiteralType": "String",
}
_MODULES = words("Swift Foundation CoreGraphics ActivityKit CoreLocation")
_LISTS = frozenset({"Array", "Set", "ContiguousArray"})
_DOUBLE, _DATE = s.Scalar("Double"), s.Scalar("Date")
_FIXED: dict[str, s.Shape] = {
    **{name: s.Fixed(name, (_DOUBLE, _DOUBLE)) for name in ("CGPoint", "CGSize", "CGVector")},
    "CGRect": s.Fixed(
        "CGRect", (s.Fixed("CGPoint", (_DOUBLE,) * 2), s.Fixed("CGSize", (_DOUBLE,) * 2))
    ),
    "Duration": s.Fixed("Duration", (s.Scalar("Int64"), s.Scalar("UInt64"))),
    "DateInterval": s.Record(
        "DateInterval", [s.Field("start", _DATE), s.Field("duration", _DOUBLE)]
    ),
    "Locale": s.Record("Locale", [s.Field("identifier", s.Scalar("String"))]),
}
# Protocols that bring no init(from:) of their own.
_PLAIN = words(
    "ActivityAttributes AnyObject AppEnum AtomicReference BitwiseCopyable CaseIterable Codable "
    "CodingKey CodingKeyRepresentable Comparable Copyable CustomDebugStringConvertible "
    "CustomLocalizedStringResourceConvertible CustomReflectable CustomStringConvertible Decodable "
    "Encodable Equatable Error Escapable ExpressibleByArrayLiteral ExpressibleByBooleanLiteral "
    "ExpressibleByDictionaryLiteral ExpressibleByFloatLiteral ExpressibleByIntegerLiteral "
    "ExpressibleByNilLiteral ExpressibleByStringInterpolation ExpressibleByStringLiteral Hashable "
    "Identifiable LocalizedError LosslessStringConvertible NSObject NSObjectProtocol "
    "ObservableObject OneSignalLiveActivityContentState OptionSet RawRepresentable Sendable SendableMetatype SetAlgebra Strideable "
    "Transferable View"
)
_DECODABLE = words("Codable Decodable ActivityAttributes OneSignalLiveActivityContentState")
_RAW_TYPES = frozenset({"String", "Bool", "Double", "Float", *INTEGERS}) - {"Int128", "UInt128"}
_TYPE_ATTRIBUTES = words(
    "available frozen MainActor objc objcMembers unchecked preconcurrency retroactive "
    "usableFromInline dynamicMemberLookup nonobjc Sendable dynamicCallable _documentation "
    "backDeployed"
)
_FIELD_ATTRIBUTES = words(
    "available objc nonobjc MainActor usableFromInline inlinable preconcurrency Sendable"
)
_Bound = dict[str, s.Shape]


class Unreadable(Exception):
    """What makes a type's decoding unknowable; its text is the reason."""


class Resolver:
    """All declarations of an app's files, and the shapes of its types."""

    def __init__(self, declarations: list[Declaration]) -> None:
        self._top = declarations
        self._shapes: dict[tuple[int, str], s.Shape] = {}
        self._extensions: dict[int, list[Declaration]] = {}
        self._depth = 0
        self._named: dict[str, list[Declaration]] = {}
        for declaration in declarations:
            if declaration.kind != "extension":
                self._named.setdefault(declaration.name, []).append(declaration)
        for extension in declarations:
            if extension.kind == "extension":
                extended = self._by_path(extension)
                if extended is not None:
                    self._extensions.setdefault(id(extended), []).append(extension)
        self._overridden = self._container_overrides()

    # ---- what the app declares

    def attributes_types(self) -> list[Declaration]:
        """Return every type that conforms to ActivityAttributes, in the order of the source."""
        found = []
        for declaration in walk(self._top):
            if declaration.kind in {"struct", "class", "enum", "actor"}:
                names, unknown = self._conformances(declaration)
                # A vendor's protocol such as OneSignalLiveActivityAttributes refines Apple's.
                refined = any(name.endswith("Attributes") for name in unknown)
                state = self._nested(declaration, "ContentState")
                if "ActivityAttributes" in names or (refined and state is not None):
                    found.append(declaration)
            elif (  # an extension of a type that no file declares
                declaration.kind == "extension"
                and self._by_path(declaration) is None
                and "ActivityAttributes" in {name.text for name in declaration.inherits}
            ):
                found.append(declaration)
        return found

    def content_state(self, attributes: Declaration) -> s.Shape:
        """Return the shape of an attributes type's ContentState."""
        swift = f"{attributes.qualified}.ContentState"
        if attributes.kind == "extension":
            return s.Unknown(swift, f"{attributes.name} is not in the files")
        if attributes.broken and self._nested(attributes, "ContentState") is None:
            return s.Unknown(swift, _broken(attributes))
        return self._shape(parse_type("ContentState"), attributes, {})

    def attributes(self, attributes: Declaration) -> s.Shape:
        """Return the shape of the attributes themselves, as a start carries them."""
        if attributes.kind == "extension":
            return s.Unknown(attributes.name, f"{attributes.name} is not in the files")
        return self._of_declaration(attributes, {})

    # ---- names

    def _by_path(self, extension: Declaration) -> Declaration | None:
        first, *rest = extension.name.split(".")
        if first in _MODULES and rest and first not in self._named:
            first, *rest = rest
        found = self._pick(self._named.get(first, []), extension.file)
        for part in rest:
            if found is None:
                return None
            found = next((t for t in self._members(found) if t.name == part), None)
        if found is not None and found.kind == "typealias" and found.target:
            return self._declared(found.target, found)
        return found

    @staticmethod
    def _pick(candidates: list[Declaration], file: str) -> Declaration | None:
        """Of equal names prefer one of the same file; a private one of another file is hidden."""
        own = [c for c in candidates if c.file == file]
        seen = own or [c for c in candidates if not c.private]
        return seen[0] if seen else None

    def _parts(self, declaration: Declaration) -> list[Declaration]:
        return [declaration, *self._extensions.get(id(declaration), [])]

    def _members(self, declaration: Declaration) -> Iterator[Declaration]:
        for part in self._parts(declaration):
            yield from part.types

    def _nested(self, declaration: Declaration, name: str) -> Declaration | None:
        return next((t for t in self._members(declaration) if t.name == name), None)

    def _lookup(self, name: str, scope: Declaration | None, file: str) -> Declaration | None:
        while scope is not None:
            home = (self._by_path(scope) or scope) if scope.kind == "extension" else scope
            found = self._nested(home, name)
            if found is not None:
                return found
            if home.name == name and home.kind != "extension":
                return home
            # An extension of A.B does not see what A holds.
            scope = scope.parent
        return self._pick(self._named.get(name, []), file)

    def _declared(self, name: TypeName, scope: Declaration, depth: int = 0) -> Declaration | None:
        """Return the declaration that a written type names, through aliases."""
        parts = [part for part, _ in name.parts]
        if name.kind != "named" or not parts or depth > _DEEPEST:
            return None
        found = self._lookup(parts[0], scope, scope.file)
        for part in parts[1:]:
            found = self._nested(found, part) if found else None
        if found is not None and found.kind == "typealias" and found.target:
            return self._declared(found.target, found, depth + 1)
        return found

    # ---- conformances

    def _conformances(self, declaration: Declaration) -> tuple[set[str], list[str]]:
        """Return the names of all protocols, and of those that no file declares."""
        names: set[str] = set()
        unknown: list[str] = []
        waiting = [
            (name, part) for part in self._parts(declaration) for name in _composed(part.inherits)
        ]
        while waiting:
            name, scope = waiting.pop()
            text = name.text.rpartition(".")[2] if name.kind == "named" else name.text
            if text in names:
                continue
            names.add(text)
            found = self._lookup(text, scope, scope.file) if name.kind == "named" else None
            if found is None:
                if text not in _PLAIN and not text.startswith("~"):
                    unknown.append(text)
            elif found.kind == "protocol":
                names.add(f"protocol {text}")
                waiting += [(n, p) for p in self._parts(found) for n in _composed(p.inherits)]
                if any(_custom_init(part) for part in self._parts(found)):
                    unknown.append(f"{text} (it has its own init(from:))")
            elif found.kind == "typealias" and found.target:
                waiting += [(n, found) for n in _composed([found.target])]
        return names, unknown

    def _container_overrides(self) -> list[str]:
        """Return the types that an extension of the decoding containers decodes differently."""
        types = []
        for extension in self._top:
            if extension.kind == "extension" and "Decoding" in extension.name:
                for signature in extension.functions:
                    match = re.search(
                        r"func decode(?:IfPresent)?\b\s*(<.*?>)?\s*\(\s*_ \w+: ([^,]+)\.Type",
                        signature,
                    )
                    if match:
                        base = re.split(r"[<?]", match[2])[0].strip()
                        types.append("*" if re.search(rf"\b{base}\b", match[1] or "") else base)
        return types

    def _superclass(self, declaration: Declaration) -> Declaration | None:
        if declaration.kind != "class" or not declaration.inherits:
            return None
        found = self._declared(declaration.inherits[0], declaration)
        return found if found is not None and found.kind == "class" else None

    # ---- shapes of written types

    def _shape(self, name: TypeName, scope: Declaration, bound: _Bound) -> s.Shape:
        match name.kind:
            case "optional":
                return s.Nullable(self._shape(name.of[0], scope, bound))
            case "array":
                of = self._shape(name.of[0], scope, bound)
                return s.Sequence(f"[{of.swift}]", of)
            case "dictionary":
                return self._dictionary(name.of[0], name.of[1], scope, bound)
            case "named":
                return self._named_shape(name, scope, bound)
        return s.Unknown(name.text, f"{name.text} is not a type that decodes from JSON")

    def _named_shape(self, name: TypeName, scope: Declaration, bound: _Bound) -> s.Shape:
        (first, arguments), *rest = name.parts
        if not rest and first in bound:
            return bound[first]
        if first == "Self" and not rest:
            return self._of_declaration(self._by_path(scope) or scope, bound)
        found = self._lookup(first, scope, scope.file)
        if found is None and first in _MODULES and rest:
            (first, arguments), *rest = rest
            found = None
        if found is None:
            return self._standard(first, arguments, rest, name.text, scope, bound)
        for part, part_arguments in rest:
            if found.kind == "typealias" and found.target:
                found = self._declared(found.target, found) or found
            nested = self._nested(found, part)
            if nested is None:
                return s.Unknown(name.text, f"{name.text} is not in the files")
            found, arguments = nested, part_arguments
        shapes = [self._shape(argument, scope, bound) for argument in arguments]
        inner = dict(zip(found.generics, shapes, strict=False)) if shapes else {}
        if found.generics and not shapes:
            return s.Unknown(name.text, f"the generic arguments of {name.text} are not written")
        outer = bound if found.parent is not None else {}
        return self._of_declaration(found, {**outer, **inner})

    def _standard(
        self,
        name: str,
        arguments: tuple[TypeName, ...],
        rest: list[tuple[str, tuple[TypeName, ...]]],
        text: str,
        scope: Declaration,
        bound: _Bound,
    ) -> s.Shape:
        """Return a type of the standard library or Foundation."""
        name = _ALIASES.get(name, name)
        if not rest and name in SCALARS and not arguments:
            return s.Scalar(name)
        if not rest and name in _FIXED:
            return _FIXED[name]
        if not rest and len(arguments) == 1:
            if name in _LISTS:
                of = self._shape(arguments[0], scope, bound)
                return s.Sequence(f"{name}<{of.swift}>", of)
            if name == "Optional":
                return s.Nullable(self._shape(arguments[0], scope, bound))
            if name in {"Range", "ClosedRange"}:
                of = self._shape(arguments[0], scope, bound)
                if isinstance(of, s.Scalar) and (
                    of.swift in INTEGERS or of.swift in {"Double", "Date"}
                ):
                    return s.Fixed(f"{name}<{of.swift}>", (of, of), ordered=True)
        if not rest and name == "Dictionary" and len(arguments) == 2:
            return self._dictionary(arguments[0], arguments[1], scope, bound)
        return s.Unknown(
            text,
            f"{text} is neither in the files nor a type of Foundation whose decoding is known here. "
            "Pass the file that declares it",
        )

    def _dictionary(
        self, key_name: TypeName, value_name: TypeName, scope: Declaration, bound: _Bound
    ) -> s.Shape:
        key = self._shape(key_name, scope, bound)
        of = self._shape(value_name, scope, bound)
        swift = f"[{key.swift}: {of.swift}]"
        if isinstance(key, s.Unknown):
            return s.Unknown(swift, key.reason)
        if isinstance(key, s.Scalar) and key.swift in {"String", "Int"}:
            return s.Mapping(swift, key.swift, of)
        if (
            isinstance(key, s.Raw)
            and isinstance(key.of, s.Scalar)
            and key.of.swift in {"String", "Int"}
        ):
            declared = self._declared(key_name, scope)
            if declared and "CodingKeyRepresentable" in self._conformances(declared)[0]:
                if key.values is None:
                    return s.Mapping(swift, key.of.swift, of, True)
                return s.Mapping(swift, frozenset(map(str, key.values)), of, True)
        return s.Pairs(swift, key, of)

    # ---- shapes of declared types

    def _of_declaration(self, declaration: Declaration, bound: _Bound) -> s.Shape:
        if declaration.kind == "typealias":
            if declaration.target is None:
                return s.Unknown(declaration.name, f"{declaration.place}: an alias without a type")
            key = (id(declaration), "alias")
            if key in self._shapes:  # an alias of itself
                return s.Unknown(
                    declaration.name, f"{declaration.place}: the alias leads to itself"
                )
            self._shapes[key] = s.Unknown(declaration.name, "")
            try:
                scope = declaration.parent or declaration
                return self._shape(declaration.target, scope, bound)
            finally:
                del self._shapes[key]
        swift = declaration.qualified
        used = {name: shape for name, shape in bound.items() if name in declaration.generics}
        if used:
            swift += f"<{', '.join(shape.swift for shape in used.values())}>"
        key = (id(declaration), ",".join(f"{n}={id(s)}:{s.swift}" for n, s in bound.items()))
        if key not in self._shapes:
            if self._depth > _DEEPEST:
                return s.Unknown(declaration.name, "its types never come to an end")
            made = self._blank(declaration, swift)
            self._shapes[key] = made
            self._depth += 1
            try:
                self._fill(made, declaration, bound)
            except Unreadable as reason:
                made = s.Unknown(swift, str(reason))
                self._shapes[key] = made
            finally:
                self._depth -= 1
        return self._shapes[key]

    def _blank(self, declaration: Declaration, swift: str) -> s.Shape:
        """Return the shape to be filled: a type may hold itself."""
        if declaration.kind == "enum":
            return (
                s.Raw(swift, s.Scalar("String")) if self._raw_type(declaration) else s.Cases(swift)
            )
        if self._raw_property(declaration):
            return s.Raw(swift, s.Scalar("String"))
        return s.Record(swift)

    def _fill(self, made: s.Shape, declaration: Declaration, bound: _Bound) -> None:
        self._readable(declaration)
        match made:
            case s.Raw() if declaration.kind == "enum":
                raw = self._raw_type(declaration)
                made.of = s.Scalar(raw)
                made.values = self._raw_values(declaration, raw)
            case s.Raw():
                made.of = self._raw_property(declaration) or made.of
            case s.Cases():
                self._fill_cases(made, declaration, bound)
            case s.Record():
                self._fill_record(made, declaration, bound)

    def _readable(self, declaration: Declaration) -> None:
        """Raise Unreadable where something decodes this type in a way that the source hides."""
        outermost = declaration
        while outermost.parent is not None:
            outermost = outermost.parent
        twins = [
            twin
            for twin in self._named.get(outermost.name, [])
            if twin.text != outermost.text and not (twin.private or outermost.private)
        ]
        if twins and outermost.kind != "extension":
            raise Unreadable(f"{outermost.name} is declared twice: {_places([outermost, *twins])}")
        if declaration.kind in {"protocol", "actor"}:
            raise Unreadable(f"{declaration.name} is {_article(declaration.kind)}")
        names, unknown = self._conformances(declaration)
        raw = self._raw_type(declaration)
        unknown = [
            name for name in unknown if name != raw and name not in self._own_super(declaration)
        ]
        for part in self._parts(declaration):
            if part.broken:
                raise Unreadable(_broken(part))
            outer: Declaration | None = part
            while outer is not None:
                if outer.condition:
                    raise Unreadable(
                        f"{declaration.name} depends on {outer.condition} ({outer.place})"
                    )
                outer = outer.parent
            custom = _custom_init(part)
            if custom:
                raise Unreadable(
                    f"{declaration.name} has its own init(from:) ({part.file}:{custom})"
                )
            for attribute in part.attributes:
                if _attribute(attribute) not in _TYPE_ATTRIBUTES:
                    raise Unreadable(
                        f"@{_attribute(attribute)} may change how {declaration.name} decodes"
                    )
            members: list[Property | EnumCase] = [*part.properties, *part.cases]
            for item in members:
                if item.condition:
                    raise Unreadable(f"{declaration.name}.{item.name} depends on {item.condition}")
        if names & _RAW:
            own = any("rawValue" in part.computed for part in self._parts(declaration))
            inits = [i for part in self._parts(declaration) for i, _ in part.inits]
            if own or (declaration.kind == "enum" and not raw) or any(map(_FAILABLE.search, inits)):
                raise Unreadable(f"{declaration.name} has its own rawValue ({declaration.place})")
        if unknown:
            raise Unreadable(
                f"{declaration.name} conforms to {', '.join(sorted(unknown))}, which may bring its own "
                "init(from:). Pass the file that declares it"
            )
        above = self._superclass(declaration)
        if not names & _DECODABLE and not (above and self._conformances(above)[0] & _DECODABLE):
            raise Unreadable(
                f"no file says that {declaration.name} is Decodable ({declaration.place})"
            )

    def _own_super(self, declaration: Declaration) -> set[str]:
        above = self._superclass(declaration)
        return {declaration.inherits[0].text} if above else set()

    def _raw_type(self, declaration: Declaration) -> str:
        """Return the raw type of an enum, or an empty string."""
        if declaration.kind != "enum" or not declaration.inherits:
            return ""
        name = declaration.inherits[0]
        for _ in range(8):
            found = self._lookup(name.text, declaration.parent, declaration.file)
            if found is None or found.kind != "typealias" or found.target is None:
                break
            name = found.target
        else:
            return ""
        text = name.text.rpartition(".")[2] if name.text.startswith("Swift.") else name.text
        text = _ALIASES.get(text, text)
        return text if found is None and text in _RAW_TYPES else ""

    def _raw_values(self, declaration: Declaration, raw: str) -> dict[s.RawValue, str]:
        for part in self._parts(declaration):
            for signature, line in part.inits:
                if re.match(r".*\binit\W*\(\s*rawValue\b", signature):
                    raise Unreadable(
                        f"{declaration.name} has its own init(rawValue:) ({part.file}:{line})"
                    )
        values: dict[s.RawValue, str] = {}
        following: s.RawValue = 0
        for case in declaration.cases:
            value: s.RawValue | None = following if raw != "String" else case.name
            if case.raw:
                value = raw_literal(case.raw, raw)
            if value is None:
                raise Unreadable(
                    f"the raw value of {declaration.name}.{case.name} is not a literal"
                )
            values[value] = case.name
            following = value + 1 if not isinstance(value, str) else value
        return values

    def _raw_property(self, declaration: Declaration) -> s.Scalar | None:
        """Return the type of rawValue of a RawRepresentable struct that decodes as it."""
        if declaration.kind not in {"struct", "class"}:
            return None
        if not self._conformances(declaration)[0] & _RAW:
            return None
        for item in declaration.properties:
            if item.name == "rawValue" and item.type is not None:
                shape = self._shape(item.type, declaration, {})
                if isinstance(shape, s.Scalar) and shape.swift in _RAW_TYPES:
                    return shape
        return None

    def _coding_keys(self, declaration: Declaration, name: str) -> list[tuple[str, str]] | None:
        """Return (property, key) in the order of a CodingKeys enum, or None without one."""
        keys = self._nested(declaration, name)
        if keys is not None and keys.kind == "typealias" and keys.target:
            keys = self._declared(keys.target, keys)
            if keys is None:
                raise Unreadable(f"{declaration.name}.{name} is an alias of what no file declares")
        if keys is None:
            return None
        if keys.kind != "enum" or keys.broken or any(case.condition for case in keys.cases):
            raise Unreadable(f"{keys.place}: {name} of {declaration.name} cannot be read")
        for part in self._parts(keys):
            if "stringValue" in part.computed or part.inits or part.condition:
                raise Unreadable(f"{part.place}: {name} of {declaration.name} makes its own keys")
        text = self._raw_type(keys) == "String"
        pairs = []
        for case in keys.cases:
            key = raw_literal(case.raw, "String") if text and case.raw else case.name
            if not isinstance(key, str):
                raise Unreadable(f"{keys.place}: the key of {case.name} is not a literal")
            pairs.append((case.name, key))
        return pairs

    def _fill_record(self, made: s.Record, declaration: Declaration, bound: _Bound) -> None:
        above = self._superclass(declaration)
        if above is not None and self._conformances(above)[0] & _DECODABLE:
            inherited = self._of_declaration(above, {})  # a subclass inherits init(from:)
            if not isinstance(inherited, s.Record):
                raise Unreadable(getattr(inherited, "reason", f"{above.name} is not a plain class"))
            made.fields, made.bare = inherited.fields, inherited.bare
            return
        stored = {item.name: item for item in declaration.properties}
        keys = self._coding_keys(declaration, "CodingKeys")
        if keys is None:
            keys = [(name, name) for name in stored]
        made.bare = not keys
        for name, key in keys:
            item = stored.get(name)
            if item is None:
                raise Unreadable(
                    f"{declaration.name}.{name} has a coding key and no stored property"
                )
            if item.constant and item.value:
                continue  # let x = 1: never decoded
            made.fields.append(self._field(item, key, declaration, bound))

    def _field(self, item: Property, key: str, declaration: Declaration, bound: _Bound) -> s.Field:
        place = f"{declaration.file}:{item.line}"
        wrappers = [a for a in map(_attribute, item.attributes) if a not in _FIELD_ATTRIBUTES]
        if wrappers:
            reason = f"{item.name} is wrapped by @{wrappers[0]} ({place})"
            return s.Field(key, s.Unknown(f"@{wrappers[0]}", reason), name=item.name)
        if {"weak", "unowned"} & set(item.modifiers):
            return s.Field(
                key, s.Unknown("a reference", f"{item.name} is weak or unowned"), name=item.name
            )
        written = item.type or infer(item.value)
        if written is None:
            reason = f"the type of {item.name} is not written and not plain to see ({place})"
            return s.Field(key, s.Unknown("?", reason), name=item.name)
        return self._decoded(key, written, declaration, bound, item.name)

    def _decoded(
        self, key: str, written: TypeName, declaration: Declaration, bound: _Bound, name: str
    ) -> s.Field:
        shape = self._shape(written, declaration, bound)
        base = re.split(r"[<?]", written.text)[0]
        if {base, "*"} & set(self._overridden):
            reason = f"an extension of KeyedDecodingContainer decodes {base} in its own way"
            return s.Field(key, s.Unknown(shape.swift, reason), name=name)
        # A generic parameter that stands for an optional is decoded as any other: null may be nil,
        # but the key must be there.
        if isinstance(shape, s.Nullable) and written.text not in bound:
            return s.Field(key, shape.of, optional=True, name=name)
        return s.Field(key, shape, name=name)

    def _fill_cases(self, made: s.Cases, declaration: Declaration, bound: _Bound) -> None:
        if not declaration.cases:
            raise Unreadable(f"{declaration.name} has no cases")
        renamed = self._coding_keys(declaration, "CodingKeys")
        keys = {case.name: case.name for case in declaration.cases}
        if renamed is not None:
            keys = dict(renamed)
        for case in declaration.cases:
            if case.name not in keys:
                continue
            inner = self._coding_keys(
                declaration, f"{case.name[0].upper()}{case.name[1:]}CodingKeys"
            )
            labels = None if inner is None else dict(inner)
            fields = []
            for index, parameter in enumerate(case.parameters):
                label = parameter.label or f"_{index}"
                key = label if labels is None else labels.get(label)
                if key is None:
                    continue  # left out: its default is used
                fields.append(self._decoded(key, parameter.type, declaration, bound, label))
            made.cases.append(s.Case(keys[case.name], fields))


_RAW = words("RawRepresentable OptionSet")
_FAILABLE = re.compile(r"\binit\?\s*\(\s*rawValue\b")
_DEEPEST = 30  # types inside each other, and aliases of aliases


def _composed(names: list[TypeName]) -> list[TypeName]:
    """Split `A & B` into its parts."""
    return [
        parse_type(part) if name.kind == "other" and "&" in name.text else name
        for name in names
        for part in (name.text.split("&") if name.kind == "other" else [""])
    ]


def _custom_init(part: Declaration) -> int:
    """Return the line of an init(from decoder:), or 0."""
    for signature, line in part.inits:
        if re.search(
            r"\binit\b\W*(?:<[^>]*>)?\(\s*from\s+\w+\s*:\s*(?:any\s+|some\s+)?(?:Swift\.)?Decoder",
            signature,
        ):
            return line
    return 0


def _attribute(text: str) -> str:
    return re.split(r"[(\s]", text)[0]


def _broken(part: Declaration) -> str:
    return f"{part.file}:{part.broken} could not be read"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "ae" else f"a {kind}"


def _places(declarations: list[Declaration]) -> str:
    return ", ".join(declaration.place for declaration in declarations)
