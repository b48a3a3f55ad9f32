"""Parses Swift source to declarations: types, properties, enum cases, inheritance, extensions.

tree-sitter parses the source; this module extracts what determines how a type decodes. If the grammar
does not know a construct, the type around it is marked as broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput
from .shapes import words
from .source import Prepared, prepare


@dataclass(frozen=True)
class TypeName:
    """A type as it is written.

    ``kind`` is ``named`` (parts with their arguments), ``optional``, ``array``, ``dictionary``, or
    ``other`` for types that JSON cannot decode to (tuples, functions, ``any P``).
    """

    kind: str
    text: str
    parts: tuple[tuple[str, tuple[TypeName, ...]], ...] = ()
    of: tuple[TypeName, ...] = ()


@dataclass
class Property:
    """A stored property that is not static."""

    name: str
    type: TypeName | None  # None: inferred from ``value``
    value: str  # the initial value's text, or ""
    constant: bool  # ``let``
    attributes: list[str]
    modifiers: list[str]
    line: int
    condition: str = ""


@dataclass
class EnumCase:
    """One case, with its raw value's text or its associated values."""

    name: str
    raw: str
    parameters: list[tuple[str, TypeName]]  # label and type of each associated value
    condition: str = ""


@dataclass
class Declaration:
    """A type, an extension or a typealias."""

    kind: str  # struct, class, enum, actor, protocol, extension, typealias
    name: str  # of an extension: what it extends, with dots
    file: str
    line: int
    parent: Declaration | None = None
    inherits: list[TypeName] = field(default_factory=list)
    generics: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    private: bool = False
    target: TypeName | None = None  # of a typealias
    types: list[Declaration] = field(default_factory=list)
    properties: list[Property] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)
    cases: list[EnumCase] = field(default_factory=list)
    functions: list[tuple[str, int]] = field(default_factory=list)  # signature, line; of inits too
    condition: str = ""
    broken: int = 0  # the line that could not be read
    text: str = ""  # all of it, to distinguish copies from other types of the same name

    @property
    def place(self) -> str:
        """Its location, for messages."""
        return f"{self.file}:{self.line}"

    @property
    def inits(self) -> list[tuple[str, int]]:
        """Signature and line of each initialiser."""
        return [each for each in self.functions if not _FUNCTION.search(each[0].partition("(")[0])]

    @property
    def qualified(self) -> str:
        """The name with its enclosing types."""
        return f"{self.parent.qualified}.{self.name}" if self.parent else self.name


def read(source: str, file: str) -> list[Declaration]:
    """Return the top-level declarations of a file. Raises InvalidInput without tree-sitter."""
    prepared = prepare(source)
    try:
        import tree_sitter  # noqa: PLC0415 - an extra; senders without contracts need none
        import tree_sitter_swift  # noqa: PLC0415
    except ImportError as error:
        remedy = "Install it: pip install 'apns-live[contracts]'."
        raise InvalidInput("reading Swift source needs tree-sitter", remedy=remedy) from error
    language = tree_sitter.Language(tree_sitter_swift.language())
    tree = tree_sitter.Parser(language).parse(prepared.text.encode())
    reader = _Reader(file, prepared)
    reader.members(tree.root_node, None)
    reader.add_lost()
    return reader.top


_TYPES = ("class_declaration", "protocol_declaration", "typealias_declaration")
_FUNCTION = re.compile(r"\bfunc\b")
_LOST = re.compile(r"(struct|class|extension)\s+([\w.]+)\s*:([^{}=;]*)\{")


class _Reader:
    def __init__(self, file: str, prepared: Prepared) -> None:
        self._file = file
        self._prepared = prepared
        self.top: list[Declaration] = []
        self._seen: set[int] = set()  # lines of type declarations

    def members(self, body: Any, owner: Declaration | None) -> None:
        """Read the members of a body. Parts that the grammar cannot read are searched for types."""
        for node in body.named_children:
            if node.type in _TYPES:
                self._type(node, owner)
            elif node.type == "ERROR" or node.is_missing:
                if owner is not None:
                    owner.broken = owner.broken or _line(node)
                self.members(node, owner)
            elif owner is not None:
                self._member(node, owner)
            elif node.has_error:
                self.members(node, owner)

    def add_lost(self) -> None:
        """Add types that conform to something but are missing from the tree, as broken ones."""
        for match in _LOST.finditer(self._prepared.text):
            if (line := self._prepared.text.count("\n", 0, match.start()) + 1) not in self._seen:
                lost = Declaration(match[1], match[2], self._file, line, broken=line)
                lost.inherits = [parse_type(name) for name in _split(match[3])]
                self.top.append(lost)

    def _type(self, node: Any, owner: Declaration | None) -> None:
        keyword = node.child_by_field_name("declaration_kind")
        kind = keyword.text.decode() if keyword else node.type.partition("_")[0]
        name = node.child_by_field_name("name")
        bare = _bare(name) if name else ""
        declaration = Declaration(kind, bare, self._file, _line(node), parent=owner)
        self._seen |= {_line(name or node), _line(node)}
        declaration.text = "".join(node.text.decode().split())
        declaration.condition = self._prepared.conditions.get(_line(node), "")
        declaration.attributes, modifiers = _modifiers(node)
        declaration.private = bool({"private", "fileprivate"} & set(modifiers))
        body = None
        for child in node.children:
            match child.type:
                case "inheritance_specifier":
                    declaration.inherits.append(parse_type(child.text.decode()))
                case "type_parameters":
                    parts = _split(child.text.decode()[1:-1])
                    declaration.generics = [re.split(r"[:\s]", part)[0] for part in parts]
                case "class_body" | "enum_class_body" | "protocol_body":
                    body = child
                case "ERROR":
                    declaration.broken = _line(child)
        if kind == "typealias":
            declaration.target = parse_type(node.text.decode().partition("=")[2])
        (owner.types if owner else self.top).append(declaration)
        if body is not None:
            self.members(body, declaration)

    def _member(self, node: Any, owner: Declaration) -> None:
        match node.type:
            case "property_declaration":
                self._properties(node, owner)
            case "enum_entry":
                self._cases(node, owner)
            case "init_declaration" | "function_declaration":
                signature = " ".join(node.text.decode().partition("{")[0].split())
                owner.functions.append((signature, _line(node)))
                if node.type == "init_declaration":
                    owner.broken = owner.broken or (_line(node) if node.has_error else 0)
                return  # its body is blanked, so a syntax error there means nothing
            case _:
                if node.type not in _HARMLESS:
                    owner.broken = owner.broken or _line(node)
        if node.has_error and not owner.broken:
            owner.broken = _line(node)

    def _properties(self, node: Any, owner: Declaration) -> None:
        attributes, modifiers = _modifiers(node)
        condition = self._prepared.conditions.get(_line(node), "")
        constant = False
        current: Property | None = None
        found: list[Property] = []
        for role, child in _children(node):
            match child.type:
                case "value_binding_pattern":
                    constant = child.text.decode().startswith("let")
                case "pattern" if role == "name":
                    name, line = _bare(child), _line(child)
                    current = Property(name, None, "", constant, attributes, modifiers, line)
                    current.condition = condition
                    found.append(current)
                case "type_annotation" if current:
                    current.type = parse_type(child.text.decode().lstrip(": \n\t"))
                case "computed_property" if current:
                    found.remove(current)
                    owner.computed.add(current.name)
                case _ if current and role == "value":
                    current.value = child.text.decode()
        if not {"static", "class", "lazy"} & set(modifiers):
            # `var a, b: Int`: the type after the last name is also that of the names before it.
            following: TypeName | None = None
            for item in reversed(found):
                following = item.type or (None if item.value else following)
                item.type = following
            owner.properties += found
            if not all(re.fullmatch(r"\w+", item.name) for item in found):
                owner.broken = owner.broken or _line(node)  # a pattern such as (a, b)

    def _cases(self, node: Any, owner: Declaration) -> None:
        condition = self._prepared.conditions.get(_line(node), "")
        current: EnumCase | None = None
        for role, child in _children(node):
            if role == "name":
                current = EnumCase(_bare(child), "", [], condition)
                owner.cases.append(current)
            elif current and child.type == "enum_type_parameters":
                parts = _split(child.text.decode()[1:-1])
                current.parameters = [_parameter(part) for part in parts]
            elif current and (role == "raw_value" or child.type in {"-", "prefix_expression"}):
                current.raw += child.text.decode()  # a negative number is a prefix and a literal


_HARMLESS = words(
    "deinit_declaration subscript_declaration associatedtype_declaration operator_declaration "
    "macro_declaration comment multiline_comment directive protocol_property_declaration "
    "protocol_function_declaration import_declaration precedence_group_declaration diagnostic "
    "willset_didset_block shebang_line statement_label"
)


def _children(node: Any) -> list[tuple[str | None, Any]]:
    return [(node.field_name_for_child(at), child) for at, child in enumerate(node.children)]


def _line(node: Any) -> int:
    return int(node.start_point[0]) + 1


def _bare(node: Any) -> str:
    return re.sub(r"\s+", "", node.text.decode()).replace("`", "")


def _modifiers(node: Any) -> tuple[list[str], list[str]]:
    """Return the attributes (without @) and the other modifiers of a declaration."""
    attributes, others = [], []
    for child in node.children:
        if child.type == "attribute":
            attributes.append(child.text.decode().lstrip("@"))
        if child.type != "modifiers":
            continue
        for modifier in child.children:
            text = modifier.text.decode()
            if modifier.type == "attribute":
                attributes.append(text.lstrip("@"))
            else:
                others.append(text.partition("(")[0])
    return attributes, others


def _parameter(text: str) -> tuple[str, TypeName]:
    label = re.match(r"\s*(?:`?\w+`?\s+)?`?(\w+)`?\s*:(?!:)", text)
    first = re.match(r"\s*`?(\w+)`?", text)
    name = first[1] if label and first else ""
    written = _at_depth(text[label.end() :] if label else text, "=")[0]
    return "" if name == "_" else name, parse_type(written)


def _at_depth(text: str, mark: str) -> tuple[str, str, str]:
    """Partition at the first mark outside of brackets."""
    depth = 0
    for at, character in enumerate(text):
        if character == mark and depth == 0:
            return text[:at], mark, text[at + 1 :]
        depth += {"(": 1, "[": 1, "<": 1, ")": -1, "]": -1, ">": -1}.get(character, 0)
        if character == ">" and text[at - 1 : at] == "-":
            depth += 1
    return text, "", ""


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, rest = [], text
    while rest.strip():
        part, _, rest = _at_depth(rest, ",")
        parts.append(part.strip())
    return [part for part in parts if part]


# ---- types

_SKIPPED = re.compile(r"(?:@[\w.]+(?:\([^)]*\))?|inout|borrowing|consuming|nonisolated)\s+")
_NAMED = re.compile(r"`?(\w+)`?\s*")
_EFFECT = re.compile(r"\s*(?:async\s+|throws\s+)*->")


def parse_type(text: str) -> TypeName:
    """Parse a type as it is written."""
    text = " ".join(text.split())
    found, rest = _type(text)
    return found if found and not rest.strip() else TypeName("other", text)


def _type(text: str) -> tuple[TypeName | None, str]:
    """Return the type at the start of the text, and the rest."""
    text = start = text.lstrip()
    while skipped := _SKIPPED.match(text):
        text = text[skipped.end() :]
    found: TypeName | None
    if text[:1] in {"[", "("}:
        inner, closing, rest = _at_depth(text[1:], {"[": "]", "(": ")"}[text[0]])
        key, colon, value = _at_depth(inner, ":")
        of = tuple(parse_type(part) for part in ((key, value) if colon else (inner,)))
        if not closing or _EFFECT.match(rest) or (text[0] == "(" and (colon or "," in inner)):
            return None, ""
        found = of[0] if text[0] == "(" else TypeName("dictionary" if colon else "array", "", of=of)
    else:
        parts: list[tuple[str, tuple[TypeName, ...]]] = []
        rest, more = text, True
        while more and (name := _NAMED.match(rest)):
            rest = rest[name.end() :]
            arguments: tuple[TypeName, ...] = ()
            if rest.startswith("<"):
                inner, _, rest = _at_depth(rest[1:], ">")
                arguments = tuple(map(parse_type, _split(inner)))
            parts.append((name[1], arguments))
            more = rest.startswith(".")
            rest = rest[1:] if more else rest
        if not parts or parts[0][0] in {"any", "some"}:
            return None, ""
        found = TypeName("named", ".".join(part for part, _ in parts), tuple(parts))
    rest = rest.lstrip()
    while rest[:1] in {"?", "!"}:
        found, rest = TypeName("optional", "", of=(found,)), rest[1:]
    used = start[: len(start) - len(rest)].strip()
    return TypeName(found.kind, used, found.parts, found.of), rest


def walk(declarations: list[Declaration]) -> Iterator[Declaration]:
    """Yield all declarations, outer ones first."""
    for declaration in declarations:
        yield declaration
        yield from walk(declaration.types)
