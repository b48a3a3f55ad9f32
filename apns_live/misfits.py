"""Converts msgspec's validation errors to our format."""

import re
from typing import NamedTuple

import msgspec

_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z")
_NAMED = re.compile(r".*(?P<why>unknown|missing required) field `(?P<name>[^`]*)`")
_EXPECTED = re.compile(r"Expected (?P<kind>.*?)(?P<got>, got .*)?\Z")
_WORDS = {
    "`array`": "a list",
    "`bool`": "true or false",
    "`float`": "a number",
    "`int`": "a whole number",
    "`object`": "an object",
    "`str`": "a text",
    "Invalid enum value ": "is not one of the possible values: ",
    "Invalid RFC3339 encoded datetime": "is not a valid ISO 8601 time with an offset",
    "Invalid ": "is not a valid ",
}


class Misfit(NamedTuple):
    """The problem, the path of the field ("" for the whole value), and the remedy ("" if obvious)."""

    problem: str
    field: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


def misfit(error: msgspec.DecodeError) -> Misfit:
    """Return the problem, path and remedy of a validation error, or of malformed JSON."""
    text = str(error)
    place = _PLACE.search(text)
    path = place["path"].replace("[...]", "").lstrip(".") if place else ""
    said = _EXPECTED.sub(_in_words, _PLACE.sub("", text))
    if place and place["key"]:
        said = f"has a key that {said}"
    remedy = ""
    if named := _NAMED.fullmatch(said):
        path = f"{path}.{named['name']}".lstrip(".")
        unknown = named["why"] == "unknown"
        said, remedy = ("is unknown", "Leave it out.") if unknown else ("is missing", "Give it.")
    for theirs, ours in _WORDS.items():
        said = said.replace(theirs, ours)
    return Misfit(said[:300], path[:200], remedy)


def _in_words(found: re.Match[str]) -> str:
    if found["got"] == ", got `null`":
        return "is missing"
    return "is not " + found["kind"].replace(" | null`", "`").replace(" | ", "` or `")
