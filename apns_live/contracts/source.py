"""Prepares Swift source for parsing: blanks comments, other platforms and function bodies.

Only declarations determine how a type decodes. Blanked text keeps its line breaks, so that line numbers
stay correct. Function bodies are blanked so that they cannot confuse the grammar.
"""

import itertools
import re
from dataclasses import dataclass, field

from .shapes import words


@dataclass
class Prepared:
    """Swift text of declarations only. ``conditions`` maps a line to the ``#if`` it depends on."""

    text: str
    conditions: dict[int, str] = field(default_factory=dict)


def prepare(source: str) -> Prepared:
    """Blank everything but declarations, and evaluate ``#if`` for an iPhone where that is possible."""
    text, bare = _without_comments(source.replace("\r\n", "\n").replace("\r", "\n"))
    return _without_bodies(*_decided(text, bare))


# ---- comments and strings


def _without_comments(source: str) -> tuple[str, str]:
    """Return the text without comments, and the same text with empty strings."""
    text, bare, at = [], [], 0
    for match in _TOKEN.finditer(source):
        if match.start() < at:
            continue
        between = source[at : match.start()]
        end = match.end()
        if match[0].startswith("/"):
            end = _comment_end(source, match.start())
            kept = inside = _blank(source[match.start() : end])
        else:
            end = string_end(source, match.start())
            kept = source[match.start() : end]
            inside = '"' + _blank(kept[1:-1]) + '"' if len(kept) > 1 else kept
        text += [between, kept]
        bare += [between, inside]
        at = end
    whole, outside = "".join([*text, source[at:]]), "".join([*bare, source[at:]])
    for match in re.finditer(r"[ \t]+;", outside):  # the grammar requires a semicolon here
        whole = whole[: match.start()] + ";" + match[0][:-1] + whole[match.end() :]
    return whole, re.sub(r"([ \t]+);", r";\1", outside)


_TOKEN = re.compile(r'//|/\*|#*"')
_NESTED = re.compile(r"/\*|\*/")


def _comment_end(source: str, start: int) -> int:
    if source.startswith("//", start):
        end = source.find("\n", start)
        return len(source) if end < 0 else end
    depth = 0
    for match in _NESTED.finditer(source, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(source)


def string_end(source: str, start: int) -> int:
    """Return the position after the string literal that begins here."""
    hashes = len(source) - len(source[start:].lstrip("#")) - start
    quotes = '"""' if source.startswith('"""', start + hashes) else '"'
    closing, escape = quotes + "#" * hashes, "\\" + "#" * hashes
    at = start + hashes + len(quotes)
    while at < len(source):
        if source.startswith(escape, at):
            at += len(escape)
            at = _interpolation_end(source, at) if source[at : at + 1] == "(" else at + 1
        elif source.startswith(closing, at):
            return at + len(closing)
        elif quotes == '"' and source[at] == "\n":
            return at  # a string of one line ends at the line's end
        else:
            at += 1
    return len(source)


def _interpolation_end(source: str, at: int) -> int:
    depth = 0
    while at < len(source):
        if source[at] == '"':
            at = string_end(source, at)
            continue
        depth += {"(": 1, ")": -1}.get(source[at], 0)
        at += 1
        if depth == 0:
            break
    return at


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


# ---- conditional compilation

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(if|elseif|else|endif)\b(.*)")
_THERE = words(
    "ActivityKit AlarmKit AppIntents Combine CoreGraphics CoreLocation Foundation Observation "
    "Swift SwiftUI UIKit UserNotifications WidgetKit"
)
_ELSEWHERE = words("AppKit Cocoa Glibc Musl WinSDK Android FoundationEssentials")


def _decided(text: str, bare: str) -> tuple[str, str, dict[int, str]]:
    """Blank the branches that no iPhone compiles; record the lines under undecided conditions."""
    lines, bare_lines = text.split("\n"), bare.split("\n")
    conditions: dict[int, str] = {}
    # For each open #if: whether this branch is taken (None: unknown), an earlier one was, its text.
    stack: list[tuple[bool | None, bool | None, str]] = []
    for number, line in enumerate(bare_lines):
        if directive := _DIRECTIVE.match(line):
            word, rest = directive[1], directive[2].strip()
            if word == "if":
                holds = _holds(rest)
                stack.append((holds, holds, f"#if {rest}"))
            elif stack and word == "endif":
                stack.pop()
            elif stack:
                _, before, words = stack[-1]
                holds = True if word == "else" else _holds(rest)
                taken = _and(holds, _not(before))
                stack[-1] = (taken, _not(_and(_not(before), _not(holds))), words)
            kept = False
        else:
            kept = all(taken is not False for taken, _, _ in stack)
            doubts = [words for taken, _, words in stack if taken is None]
            if kept and doubts:
                conditions[number + 1] = doubts[0]
        if not kept:
            lines[number], bare_lines[number] = _blank(line), _blank(line)
    return "\n".join(lines), "\n".join(bare_lines), conditions


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _and(left: bool | None, right: bool | None) -> bool | None:
    return False if False in (left, right) else None if None in (left, right) else True


_ATOM = re.compile(
    r"(?P<operator>&&|\|\||!(?!=)|[()])|(?P<name>\w+)(?:\s*\((?P<argument>[^()]*)\))?|\S"
)
_PYTHON = {"&&": " and ", "||": " or ", "!": " not ", "(": "(", ")": ")"}


def _holds(condition: str) -> bool | None:
    """Return whether a condition holds on an iPhone, or None."""
    parts: list[str] = []
    unknown: set[str] = set()
    for atom in _ATOM.finditer(condition):
        value = None if atom["operator"] else _atom(atom["name"] or "", atom["argument"] or "")
        if value is None and not atom["operator"]:
            unknown.add(atom[0])
        parts.append(_PYTHON.get(atom[0]) or (repr(atom[0]) if value is None else str(value)))
    if len(unknown) > 6:
        return None
    outcomes = set()
    for choice in itertools.product((True, False), repeat=len(unknown)):
        chosen = dict(zip(map(repr, sorted(unknown)), map(str, choice), strict=True))
        try:  # only and, or, not, parentheses, True and False remain
            outcomes.add(eval("".join(chosen.get(p, p) for p in parts), {}))  # noqa: S307
        except SyntaxError:
            return None
    return outcomes.pop() if len(outcomes) == 1 else None


def _atom(name: str, argument: str) -> bool | None:
    match name:
        case "true" | "false":
            return name == "true"
        case "os":
            return argument.strip() == "iOS"
        case "canImport":
            module = re.split(r"[,.]", argument.strip())[0]
            return True if module in _THERE else False if module in _ELSEWHERE else None
        case "targetEnvironment":
            return False
        case "swift" | "compiler":
            version = re.match(r"\s*>=\s*(\d+)", argument)
            return True if version and int(version[1]) <= 5 else None
    return None


# ---- bodies

_FUNCTION = re.compile(r"(?<![.\w`])(?:func|init|deinit|subscript)\b")
_AFTER = re.compile(
    r"[{}]|\b(?:func|var|let|case|struct|enum|protocol|extension|typealias|init|deinit|subscript)\b"
)
_COMPUTED = re.compile(r"(?<![.\w`])var\s+`?\w+`?\s*:[^={};\n]*?\s*\{")
_OBSERVED = re.compile(r"\s*(?:@\w+(?:\([^)]*\))?\s*)*(?:willSet|didSet)\b")


def _without_bodies(text: str, bare: str, conditions: dict[int, str]) -> Prepared:
    closing = _pairs(bare)
    cut: list[tuple[int, int]] = []
    found = [*_FUNCTION.finditer(bare), *_COMPUTED.finditer(bare)]
    for match in sorted(found, key=lambda match: match.start()):
        if cut and match.start() < cut[-1][1]:
            continue
        if match[0].startswith("var"):
            start = match.end() - 1
            observed = _OBSERVED.match(bare, start + 1)
            if end := closing.get(start):
                cut.append((start, end + 1) if observed else (start + 1, end))
            continue
        at = match.end()
        if parenthesis := re.compile(r"[^(){}]*\(").match(bare, at):
            at = closing.get(parenthesis.end() - 1, at)
        after = _AFTER.search(bare, at)
        end = closing.get(after.start()) if after and after[0] == "{" else None
        if after and end:
            cut.append((after.start() + 1, end))
    for start, end in reversed(cut):
        text = text[:start] + _blank(text[start:end]) + text[end:]
    return Prepared(text, conditions)


def _pairs(bare: str) -> dict[int, int]:
    """Return the position of the closing bracket for each opening one."""
    pairs: dict[int, int] = {}
    open_at: dict[str, list[int]] = {"{": [], "(": []}
    for match in re.finditer(r"[{}()]", bare):
        if match[0] in open_at:
            open_at[match[0]].append(match.start())
            continue
        if opened := open_at["{" if match[0] == "}" else "("]:
            pairs[opened.pop()] = match.start()
    return pairs
