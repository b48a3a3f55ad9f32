"""Resolves declarations to shapes, following extensions, aliases and generics.

The rules are those of the Swift compiler's synthesized ``init(from:)`` (SE-0166, SE-0295, SE-0320).
If source that was not given could change how a type decodes, the shape is ``Unknown`` with the reason.
"""

import re
from collections.abc import Iterable, Iterator

from . import shapes as s
from .decode import SCALARS
from .literals import infer, raw_literal
from .shapes import words
from .syntax import Declaration, EnumCase, Property, TypeName, parse_type, walk
from .values import INTEGERS

_ALIASES = {
    **dict.fromkeys(
        words(
            "TimeInterval CFTimeInterval CFAbsoluteTime Float64 CLLocationDegrees CLLocationDistance "
            "CLLocationDirection CLLocationSpeed CLLocationAccuracy"
        ),
        "Double",
    ),
    "Float32": "Float",
    "NSInteger": "Int",
    "NSUInteger": "UInt",
    "CInt": "Int32",
    "StringLiteralType": "String",
}
_MODULES = words("Swift Foundation CoreGraphics ActivityKit CoreLocation")
_BOUNDS = frozenset(INTEGERS) | {"Double", "Date"}
_DOUBLE = s.Scalar("Double")
_TWO, _SPAN = (_DOUBLE, _DOUBLE), [s.Field("start", s.Scalar("Date")), s.Field("duration", _DOUBLE)]
_FIXED: dict[str, s.Shape] = {
    **{name: s.Fixed(name, _TWO) for name in ("CGPoint", "CGSize", "CGVector")},
    "CGRect": s.Fixed("CGRect", (s.Fixed("CGPoint", _TWO), s.Fixed("CGSize", _TWO))),
    "Duration": s.Fixed("Duration", (s.Scalar("Int64"), s.Scalar("UInt64"))),
    "DateInterval": s.Record("DateInterval", _SPAN),
    "Locale": s.Record("Locale", [s.Field("identifier", s.Scalar("String"))]),
}
# Protocols that add no init(from:).
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
_RAW = words("RawRepresentable OptionSet")


class Unreadable(Exception):
    """The source does not determine how a type decodes; the text is the reason."""


class Resolver:
    """All declarations of an app's files, and the shapes of its types."""

    def __init__(self, declarations: list[Declaration]) -> None:
        self._top = declarations
        self._shapes: dict[tuple[int, str], s.Shape] = {}
        self._extensions: dict[int, list[Declaration]] = {}
        self._depth = 0
        self._named: dict[str, list[Declaration]] = {}
        for each in declarations:
            if each.kind != "extension":
                self._named.setdefault(each.name, []).append(each)
        for each in declarations:
            extended = self._by_path(each) if each.kind == "extension" else None
            if extended is not None:
                self._extensions.setdefault(id(extended), []).append(each)
        self._overridden = set(_container_overrides(declarations))

    # ---- the app's declarations

    def attributes_types(self) -> list[Declaration]:
        """Return every type that conforms to ActivityAttributes, in the order of the source."""
        return [each for each in walk(self._top) if self._is_attributes(each)]

    def _is_attributes(self, each: Declaration) -> bool:
        if each.kind == "extension":  # an extension of a type that no file declares
            named = {name.text for name in each.inherits}
            return "ActivityAttributes" in named and self._by_path(each) is None
        if each.kind not in {"struct", "class", "enum", "actor"}:
            return False
        names, unknown = self._conformances(each)
        # A vendor's protocol such as OneSignalLiveActivityAttributes refines Apple's.
        refined = any(name.endswith("Attributes") for name in unknown)
        has_state = refined and self._nested(each, "ContentState") is not None
        return "ActivityAttributes" in names or has_state

    def attributes(self, attributes: Declaration, member: str = "") -> s.Shape:
        """Return the shape of the attributes, as a start carries them, or of a member type."""
        if attributes.kind == "extension":
            return s.Unknown(attributes.name, f"{attributes.name} is not in the files")
        if not member:
            return self._of_declaration(attributes, {})
        if attributes.broken and self._nested(attributes, member) is None:
            return s.Unknown(member, _broken(attributes))
        return self._shape(parse_type(member), attributes, {})

    # ---- names

    def _by_path(self, extension: Declaration) -> Declaration | None:
        first, *rest = extension.name.split(".")
        if first in _MODULES and rest and first not in self._named:
            first, *rest = rest
        return self._inner(self._pick(self._named.get(first, []), extension.file), rest)

    def _inner(
        self, found: Declaration | None, path: Iterable[str], depth: int = 0
    ) -> Declaration | None:
        """Return the type at a path inside a declaration, resolving aliases."""
        for name in path:
            found = self._nested(found, name) if found else None
        if found is not None and found.kind == "typealias" and found.target:
            return self._declared(found.target, found, depth + 1)
        return found

    @staticmethod
    def _pick(candidates: list[Declaration], file: str) -> Declaration | None:
        """Of equal names prefer that of the same file. A private one of another file is hidden."""
        own = [c for c in candidates if c.file == file] or [c for c in candidates if not c.private]
        return own[0] if own else None

    def _parts(self, declaration: Declaration) -> list[Declaration]:
        return [declaration, *self._extensions.get(id(declaration), [])]

    def _nested(self, declaration: Declaration, name: str) -> Declaration | None:
        types = (inner for part in self._parts(declaration) for inner in part.types)
        return next((inner for inner in types if inner.name == name), None)

    def _lookup(self, name: str, scope: Declaration | None, file: str) -> Declaration | None:
        while scope is not None:
            home = (self._by_path(scope) or scope) if scope.kind == "extension" else scope
            if (found := self._nested(home, name)) is not None:
                return found
            if home.name == name and home.kind != "extension":
                return home
            scope = scope.parent  # an extension of A.B does not see the members of A
        return self._pick(self._named.get(name, []), file)

    def _declared(self, name: TypeName, scope: Declaration, depth: int = 0) -> Declaration | None:
        """Return the declaration of a written type, resolving aliases."""
        if name.kind != "named" or depth > _DEEPEST:
            return None
        first, *rest = (part for part, _ in name.parts)
        return self._inner(self._lookup(first, scope, scope.file), rest, depth)

    # ---- conformances

    def _conformances(self, declaration: Declaration) -> tuple[set[str], list[str]]:
        """Return the names of all protocols, and of those that no file declares."""
        names: set[str] = set()
        unknown: list[str] = []
        waiting = [(n, part) for part in self._parts(declaration) for n in _composed(part.inherits)]
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
                waiting += [(n, p) for p in self._parts(found) for n in _composed(p.inherits)]
                if any(_custom_init(part) for part in self._parts(found)):
                    unknown.append(f"{text} (it has its own init(from:))")
            elif found.kind == "typealias" and found.target:
                waiting += [(n, found) for n in _composed([found.target])]
        return names, unknown

    def _superclass(self, declaration: Declaration) -> Declaration | None:
        if declaration.kind != "class" or not declaration.inherits:
            return None
        found = self._declared(declaration.inherits[0], declaration)
        return found if found is not None and found.kind == "class" else None

    def _is_decodable(self, declaration: Declaration | None) -> bool:
        return declaration is not None and bool(self._conformances(declaration)[0] & _DECODABLE)

    # ---- shapes of written types

    def _shape(self, name: TypeName, scope: Declaration, bound: _Bound) -> s.Shape:
        if name.kind == "named":
            return self._named_shape(name, scope, bound)
        of = [self._shape(inner, scope, bound) for inner in name.of]
        match name.kind:
            case "optional":
                return s.Nullable(f"{of[0].swift}?", of[0])
            case "array":
                return s.Sequence(f"[{of[0].swift}]", of[0])
            case "dictionary":
                return self._dictionary(name.of[0], of[0], of[1], scope)
        return s.Unknown(name.text, f"{name.text} is not a type that decodes from JSON")

    def _named_shape(self, name: TypeName, scope: Declaration, bound: _Bound) -> s.Shape:
        (first, arguments), *rest = name.parts
        if not rest and first in bound:
            return bound[first]
        found = self._lookup(first, scope, scope.file)
        if name.text == "Self":
            found = self._by_path(scope) or scope
        if found is None:
            if first in _MODULES and len(rest) == 1:
                (first, arguments), *rest = rest
            of = [self._shape(argument, scope, bound) for argument in arguments]
            standard = None if rest else self._standard(first, of, arguments, scope)
            reason = "is neither in the files nor a type of Foundation whose decoding is known here"
            reason = f"{name.text} {reason}. Pass the file that declares it"
            return standard or s.Unknown(name.text, reason)
        for part, part_arguments in rest:
            if found.kind == "typealias" and found.target:
                found = self._declared(found.target, found) or found
            if (nested := self._nested(found, part)) is None:
                return s.Unknown(name.text, f"{name.text} is not in the files")
            found, arguments = nested, part_arguments
        of = [self._shape(argument, scope, bound) for argument in arguments]
        if found.generics and not of and name.text != "Self":
            return s.Unknown(name.text, f"the generic arguments of {name.text} are not written")
        outer = bound if found.parent is not None or name.text == "Self" else {}
        return self._of_declaration(found, {**outer, **dict(zip(found.generics, of, strict=False))})

    def _standard(
        self, name: str, of: list[s.Shape], arguments: tuple[TypeName, ...], scope: Declaration
    ) -> s.Shape | None:
        """Return a type of the standard library or Foundation, or None."""
        name = _ALIASES.get(name, name)
        match name, of:
            case _, []:
                return _FIXED.get(name) or (s.Scalar(name) if name in SCALARS else None)
            case "Optional", [inner]:
                return s.Nullable(f"{inner.swift}?", inner)
            case "Array" | "Set" | "ContiguousArray", [inner]:
                return s.Sequence(f"{name}<{inner.swift}>", inner)
            case "Range" | "ClosedRange", [s.Scalar(swift=inner)] if inner in _BOUNDS:
                return s.Fixed(f"{name}<{inner}>", (of[0], of[0]), ordered=True)
            case "Dictionary", [key, value]:
                return self._dictionary(arguments[0], key, value, scope)
        return None

    def _dictionary(
        self, written: TypeName, key: s.Shape, of: s.Shape, scope: Declaration
    ) -> s.Shape:
        swift = f"[{key.swift}: {of.swift}]"
        match key:
            case s.Unknown():
                return s.Unknown(swift, key.reason)
            case s.Scalar(swift="String" | "Int"):
                return s.Mapping(swift, key.swift, of)
            case s.Raw(of=s.Scalar(swift="String" | "Int" as raw)):
                declared = self._declared(written, scope)
                if declared and "CodingKeyRepresentable" in self._conformances(declared)[0]:
                    keys = raw if key.values is None else frozenset(map(str, key.values))
                    return s.Mapping(swift, keys, of, converted=True)
        return s.Pairs(swift, key, of)

    # ---- shapes of declared types

    def _of_declaration(self, declaration: Declaration, bound: _Bound) -> s.Shape:
        if self._depth > _DEEPEST:
            reason = f"{declaration.place}: it leads to itself without end"
            return s.Unknown(declaration.name, reason)
        self._depth += 1
        try:
            if declaration.kind == "typealias":
                scope = declaration.parent or declaration
                written = declaration.target or TypeName("other", declaration.name)
                return self._shape(written, scope, bound)
            return self._made(declaration, bound)
        finally:
            self._depth -= 1

    def _made(self, declaration: Declaration, bound: _Bound) -> s.Shape:
        swift = declaration.qualified
        if used := [of.swift for name, of in bound.items() if name in declaration.generics]:
            swift += f"<{', '.join(used)}>"
        key = (id(declaration), ",".join(f"{n}={id(of)}:{of.swift}" for n, of in bound.items()))
        if key not in self._shapes:
            raw, is_enum = self._raw_type(declaration), declaration.kind == "enum"
            try:
                if doubt := next(self._doubts(declaration, raw), None):
                    raise Unreadable(doubt)
                if raw:
                    values = _raw_values(declaration, raw) if is_enum else None
                    self._shapes[key] = s.Raw(swift, s.Scalar(raw), values)
                elif is_enum:
                    cases = self._shapes[key] = s.Cases(swift)  # a recursive type finds this entry
                    self._fill_cases(cases, declaration, bound)
                else:
                    record = self._shapes[key] = s.Record(swift)
                    self._fill_record(record, declaration, bound)
            except Unreadable as reason:
                self._shapes[key] = s.Unknown(swift, str(reason))
        return self._shapes[key]

    def _doubts(self, declaration: Declaration, raw: str) -> Iterator[str]:
        """Yield why the source does not show how a type decodes. ``raw`` is its raw type, or empty."""
        name, parts = declaration.name, self._parts(declaration)
        *_, outermost = _outwards(declaration)
        twins = [
            twin.place
            for twin in self._named.get(outermost.name, [])
            if twin.text != outermost.text and not (twin.private or outermost.private)
        ]
        if twins and outermost.kind != "extension":
            yield f"{outermost.name} is declared twice: {', '.join([outermost.place, *twins])}"
        if declaration.kind in {"protocol", "actor"}:
            yield f"{name} is of the kind {declaration.kind}"
        for part in parts:
            if part.broken:
                yield _broken(part)
            for outer in _outwards(part):
                if outer.condition:
                    yield f"{name} depends on {outer.condition} ({outer.place})"
            if custom := _custom_init(part):
                yield f"{name} has its own init(from:) ({part.file}:{custom})"
            for attribute in map(_attribute, part.attributes):
                if attribute not in _TYPE_ATTRIBUTES:
                    yield f"@{attribute} may change how {name} decodes"
            members: list[Property | EnumCase] = [*part.properties, *part.cases]
            for item in members:
                if item.condition:
                    yield f"{name}.{item.name} depends on {item.condition}"
        names, unknown = self._conformances(declaration)
        inits = [signature for part in parts for signature, _ in part.inits]
        raw_inits = [signature for signature in inits if _RAW_INIT.search(signature)]
        if raw and declaration.kind == "enum" and raw_inits:
            yield f"{name} has its own init(rawValue:) ({declaration.place})"
        if names & _RAW and (
            any("rawValue" in part.computed for part in parts)
            or (declaration.kind == "enum" and not raw)
            or any("init?" in signature for signature in raw_inits)
        ):
            yield f"{name} has its own rawValue ({declaration.place})"
        above = self._superclass(declaration)
        known = {raw, declaration.inherits[0].text if above else ""}
        if others := sorted(set(unknown) - known):
            yield (
                f"{name} conforms to {', '.join(others)}, which may bring its own init(from:). "
                "Pass the file that declares it"
            )
        if not names & _DECODABLE and not self._is_decodable(above):
            yield f"no file says that {name} is Decodable ({declaration.place})"

    def _raw_type(self, declaration: Declaration) -> str:
        """Return the raw type of an enum, or of a struct with a property rawValue, else an empty string."""
        if declaration.kind != "enum":
            if not self._conformances(declaration)[0] & _RAW:
                return ""
            types = [item.type for item in declaration.properties if item.name == "rawValue"]
            swift = self._shape(types[-1], declaration, {}).swift if types and types[-1] else ""
            return swift if swift in _RAW_TYPES else ""
        if not declaration.inherits:
            return ""
        first = declaration.inherits[0]
        text = first.text.removeprefix("Swift.")
        if alias := self._lookup(first.text, declaration.parent, declaration.file):
            text = alias.target.text if alias.kind == "typealias" and alias.target else ""
        text = _ALIASES.get(text, text)
        return text if text in _RAW_TYPES else ""

    def _coding_keys(self, declaration: Declaration, name: str) -> dict[str, str] | None:
        """Return key by property in the order of a CodingKeys enum, or None without one."""
        if (keys := self._nested(declaration, name)) is None:
            return None
        if keys.kind == "typealias" and keys.target:
            keys = self._declared(keys.target, keys)
        plain = keys is not None and keys.kind == "enum" and not keys.broken
        if keys is None or not plain or any(case.condition for case in keys.cases):
            raise Unreadable(f"{name} of {declaration.name} cannot be read ({declaration.place})")
        for part in self._parts(keys):
            if "stringValue" in part.computed or part.inits or part.condition:
                raise Unreadable(f"{part.place}: {name} of {declaration.name} makes its own keys")
        text = self._raw_type(keys) == "String"
        found = {}
        for case in keys.cases:
            key = raw_literal(case.raw, "String") if text and case.raw else case.name
            if not isinstance(key, str):
                raise Unreadable(f"{keys.place}: the key of {case.name} is not a literal")
            found[case.name] = key
        return found

    def _fill_record(self, made: s.Record, declaration: Declaration, bound: _Bound) -> None:
        above = self._superclass(declaration)
        if above is not None and self._is_decodable(above):
            inherited = self._of_declaration(above, {})  # a subclass inherits init(from:)
            if not isinstance(inherited, s.Record):
                raise Unreadable(getattr(inherited, "reason", f"{above.name} is not a plain class"))
            made.fields, made.bare = inherited.fields, inherited.bare
            return
        stored = {item.name: item for item in declaration.properties}
        keys = self._coding_keys(declaration, "CodingKeys")
        keys = {name: name for name in stored} if keys is None else keys
        made.bare = not keys
        for name, key in keys.items():
            if (item := stored.get(name)) is None:
                place = f"{declaration.name}.{name}"
                raise Unreadable(f"{place} has a coding key and no stored property")
            if not (item.constant and item.value):  # let x = 1 is never decoded
                made.fields.append(self._field(item, key, declaration, bound))

    def _field(self, item: Property, key: str, declaration: Declaration, bound: _Bound) -> s.Field:
        place = f"{declaration.file}:{item.line}"
        wrappers = [a for a in map(_attribute, item.attributes) if a not in _FIELD_ATTRIBUTES]
        written = item.type or infer(item.value)
        if wrappers:
            reason = f"{item.name} is wrapped by @{wrappers[0]} ({place})"
        elif {"weak", "unowned"} & set(item.modifiers):
            reason = f"{item.name} is weak or unowned ({place})"
        elif written is None:
            reason = f"the type of {item.name} is not written and not plain to see ({place})"
        else:
            return self._decoded(key, written, declaration, bound, item.name)
        return s.Field(key, s.Unknown(item.name, reason), name=item.name)

    def _decoded(
        self, key: str, written: TypeName, declaration: Declaration, bound: _Bound, name: str
    ) -> s.Field:
        shape = self._shape(written, declaration, bound)
        base = re.split(r"[<?]", written.text)[0]
        if {base, "*"} & self._overridden:
            reason = f"an extension of KeyedDecodingContainer decodes {base} in its own way"
            return s.Field(key, s.Unknown(shape.swift, reason), name=name)
        # A generic parameter bound to an optional is decoded like any other: null may be nil, but the
        # key is required.
        if isinstance(shape, s.Nullable) and written.text not in bound:
            return s.Field(key, shape.of, optional=True, name=name)
        return s.Field(key, shape, name=name)

    def _fill_cases(self, made: s.Cases, declaration: Declaration, bound: _Bound) -> None:
        if not declaration.cases:
            raise Unreadable(f"{declaration.name} has no cases")
        keys = self._coding_keys(declaration, "CodingKeys")
        for case in declaration.cases:
            if (key := case.name if keys is None else keys.get(case.name)) is None:
                continue
            own = f"{case.name[0].upper()}{case.name[1:]}CodingKeys"
            labels = self._coding_keys(declaration, own)
            fields = []
            for index, (label, written) in enumerate(case.parameters):
                label = label or f"_{index}"  # noqa: PLW2901
                inner = label if labels is None else labels.get(label)
                if inner is not None:  # otherwise the key is omitted, and the default is used
                    fields.append(self._decoded(inner, written, declaration, bound, label))
            made.cases.append(s.Case(key, fields))


_DEEPEST = 30  # types inside each other, and aliases of aliases
_RAW_INIT = re.compile(r"\binit\W*\(\s*rawValue\b")
_FROM = re.compile(
    r"\binit\b\W*(?:<[^>]*>)?\(\s*from\s+\w+\s*:\s*(?:any\s+|some\s+)?(?:Swift\.)?Decoder"
)
_OVERRIDE = re.compile(r"func decode(?:IfPresent)?\b\s*(<.*?>)?\s*\(\s*_ \w+: ([^,]+)\.Type")


def _container_overrides(declarations: list[Declaration]) -> Iterator[str]:
    """Yield the types that an extension of the decoding containers decodes differently; * for all."""
    for extension in declarations:
        if extension.kind == "extension" and "Decoding" in extension.name:
            searched = (_OVERRIDE.search(signature) for signature, _ in extension.functions)
            for match in filter(None, searched):
                base = re.split(r"[<?]", match[2])[0].strip()
                yield "*" if re.search(rf"\b{base}\b", match[1] or "") else base


def _raw_values(declaration: Declaration, raw: str) -> dict[s.RawValue, str]:
    values: dict[s.RawValue, str] = {}
    following: s.RawValue = 0
    for case in declaration.cases:
        implied = case.name if raw == "String" else following
        value = raw_literal(case.raw, raw) if case.raw else implied
        if value is None:
            raise Unreadable(f"the raw value of {declaration.name}.{case.name} is not a literal")
        values[value] = case.name
        following = value if isinstance(value, str) else value + 1
    return values


def _composed(names: list[TypeName]) -> list[TypeName]:
    """Split `A & B` into its parts."""
    return [
        parse_type(part)
        for name in names
        for part in (name.text.split("&") if name.kind == "other" else [name.text])
    ]


def _custom_init(part: Declaration) -> int:
    """Return the line of an init(from decoder:), or 0."""
    return next((line for signature, line in part.inits if _FROM.search(signature)), 0)


def _outwards(declaration: Declaration) -> Iterator[Declaration]:
    """Yield a declaration and those around it."""
    outer: Declaration | None = declaration
    while outer is not None:
        yield outer
        outer = outer.parent


def _attribute(text: str) -> str:
    return re.split(r"[(\s]", text)[0]


def _broken(part: Declaration) -> str:
    return f"{part.file}:{part.broken} could not be read"
