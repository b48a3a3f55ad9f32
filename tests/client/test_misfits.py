"""Errors speak one language: msgspec's sentences in our words, and no riddles in our own."""

from __future__ import annotations

import ast
import datetime
import re
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

import apns_live
from apns_live.misfits import misfit


class Inner(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1)]


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    count: int
    choice: Literal["x", "y"] = "x"
    items: list[Inner] = []
    both: int | str | None = None
    share: Annotated[float, msgspec.Meta(le=1)] = 0
    by_key: dict[str, int] = {}
    flag: bool = False
    at: datetime.datetime | None = None
    id: uuid.UUID | None = None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "is not an object"),
        ({}, "count: is missing"),
        ({"count": None}, "count: is missing"),
        ({"count": "x"}, "count: is not a whole number"),
        ({"count": 1, "counts": 1}, "counts: is unknown"),
        ({"count": 1, "choice": "z"}, "choice: is not one of the possible values: 'z'"),
        ({"count": 1, "items": {}}, "items: is not a list"),
        ({"count": 1, "items": [{"name": 1}]}, "items[0].name: is not a text"),
        ({"count": 1, "items": [{}]}, "items[0].name: is missing"),
        ({"count": 1, "items": [{"name": ""}]}, "items[0].name: is not a text of length >= 1"),
        ({"count": 1, "both": []}, "both: is not a whole number or a text"),
        ({"count": 1, "share": 2}, "share: is not a number <= 1.0"),
        ({"count": 1, "by_key": {"a": "b"}}, "by_key: is not a whole number"),
        ({"count": 1, "by_key": {1: 1}}, "by_key: has a key that is not a text"),
        ({"count": 1, "flag": "no"}, "flag: is not true or false"),
        ({"count": 1, "at": "soon"}, "at: is not a valid ISO 8601 time with an offset"),
        ({"count": 1, "id": "x"}, "id: is not a valid UUID"),
    ],
)
def test_a_value_of_the_wrong_shape_is_told_in_our_words(value: Any, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Shape)
    assert str(misfit(caught.value)) == said


def texts() -> list[tuple[str, str]]:
    """Every text in the package that is not a docstring, with its place."""
    found = []
    folder = Path(apns_live.__file__).parent
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        docs = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found += [
            (f"{file.relative_to(folder)}:{node.lineno}", node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        ]
    return found


def test_no_error_says_is_no() -> None:
    """ "is not a valid UUID" reads at once; "is no UUID" does not. "there is no app" is plain."""
    odd = re.compile(r"(?<!there )\b(is|are) no (?!such|longer|more)")
    spoken = texts()
    assert len(spoken) > 5_000
    assert [(place, text) for place, text in spoken if odd.search(text.lower())] == []
    # msgspec's own sentences are turned in one place.
    parsed = [place for place, text in spoken if "Expected (" in text or " - at `" in text]
    assert {place.partition(":")[0] for place in parsed} == {"misfits.py"}
