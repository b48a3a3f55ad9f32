"""The walk: what is taken as it is, what is converted, what is refused."""

from __future__ import annotations

import collections
import datetime
import enum
import json
import math
import subprocess
import sys
import types
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import InvalidPayload, PayloadTooLarge
from apns_live.payload import Update, apple_date, encode
from apns_live.payload.values import plain_object

NOW = 1_795_212_000.0


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Fraction(float):
    pass


@dataclass
class Team:
    name: str
    kind: ClassVar[str] = "team"
    points: int = 0
    players: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Player:
    name: str


class Clock(msgspec.Struct, rename="camel"):
    time_left: float
    note: str | msgspec.UnsetType = msgspec.UNSET


class Tagged(msgspec.Struct, tag="goal", tag_field="kind", omit_defaults=True):
    minute: int = 0
    names: list[str] = msgspec.field(default_factory=list)


class Pair(msgspec.Struct, array_like=True):
    a: int
    b: int


class Model(pydantic.BaseModel):
    home_score: int = pydantic.Field(serialization_alias="homeScore")
    inner: Any = None


class Numbers(pydantic.RootModel[list[int]]):
    pass


def state(value):
    body = encode(Update(content_state=value), now=NOW).body
    return json.loads(body)["aps"]["content-state"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, {}),
        ({"a": None, "b": True, "c": 1, "d": 1.5, "e": "é"}, None),
        ({"low": -(2**63), "high": 2**63 - 1, "unsigned": 2**64 - 1}, None),
        ({"t": (1, (2, 3))}, {"t": [1, [2, 3]]}),
        ({Text("a"): Text("b"), "n": Number(3), "f": Fraction(0.5)}, {"a": "b", "n": 3, "f": 0.5}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (types.MappingProxyType({"a": types.MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
        ({"x": collections.UserDict(a=[Text("x")])}, {"x": {"a": ["x"]}}),
        (Team("LAL"), {"name": "LAL", "points": 0, "players": []}),
        (
            {"teams": [Team("LAL", players=[Player("Ana")])]},
            {"teams": [{"name": "LAL", "points": 0, "players": [{"name": "Ana"}]}]},
        ),
        (Clock(4.5), {"timeLeft": 4.5}),
        (Clock(4.5, "OT"), {"timeLeft": 4.5, "note": "OT"}),
        (Tagged(), {"kind": "goal"}),
        (Tagged(7, ["a"]), {"kind": "goal", "minute": 7, "names": ["a"]}),
        ({"pair": Pair(1, 2)}, {"pair": [1, 2]}),
        (Model(home_score=7), {"homeScore": 7, "inner": None}),
        (Model(home_score=7, inner=Clock(1.0)), {"homeScore": 7, "inner": {"timeLeft": 1.0}}),
        ({"n": Numbers([1, 2])}, {"n": [1, 2]}),
        ({"nul": "a\0b", "sep": "\u2028", "astral": "\U0001f3c0"}, None),
    ],
)
def test_what_is_taken(value, expected):
    assert state(value) == (value if expected is None else expected)


def test_a_plain_state_is_not_copied():
    value = {"a": [1, {"b": "c"}], "d": (1.5, None)}
    assert plain_object(value, "content_state") is value


def test_converting_leaves_the_callers_value_alone():
    team = Team("LAL")
    value = {"a": 1, "list": [1, team], "z": 2}
    assert list(plain_object(value, "content_state")) == ["a", "list", "z"]
    assert value == {"a": 1, "list": [1, team], "z": 2}
    assert value["list"][1] is team


def test_thirty_two_levels_pass_and_one_more_does_not():
    value: dict[str, Any] = {}
    for _ in range(31):
        value = {"a": value}
    state(value)
    with pytest.raises(InvalidPayload, match="deeper than 32"):
        state({"a": value})
    nested: list[Any] = []
    for _ in range(31):
        nested = [nested]
    with pytest.raises(InvalidPayload, match="deeper than 32"):
        state({"a": nested})


def test_a_hostile_depth_does_not_overflow_the_stack():
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidPayload, match="deeper than 32"):
        state({"a": value})
    # Taken apart in steps: freeing it in one go would recurse as deep.
    while isinstance(value, list):
        value = value.pop()


def test_a_dataclass_field_that_was_never_set():
    @dataclass
    class Late:
        when: int = field(init=False)

    with pytest.raises(InvalidPayload, match=r"content_state\.late\.when: was never set"):
        state({"late": Late()})


def test_a_model_whose_dump_fails_is_named():
    class Broken(pydantic.BaseModel):
        @pydantic.model_serializer
        def dump(self):
            raise RuntimeError("no")

    with pytest.raises(InvalidPayload, match=r"content_state\.m: model_dump\(\) of Broken failed"):
        state({"m": Broken()})


def test_pydantic_is_not_imported_for_those_who_do_not_use_it():
    program = (
        "import sys; from apns_live.payload import Update, encode\n"
        "encode(Update(content_state={'a': 1}), now=1.8e9)\n"
        "assert 'pydantic' not in sys.modules, 'pydantic was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC), 0),
        (datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC), 816_868_800),
        (
            datetime.datetime(2001, 1, 1, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=9))),
            0,
        ),
        (datetime.datetime(2001, 1, 1, 0, 0, 1, 500_000, tzinfo=datetime.UTC), 1.5),
        (datetime.datetime(2000, 12, 31, 23, 59, 59, tzinfo=datetime.UTC), -1),
    ],
)
def test_apple_date(moment, number):
    assert apple_date(moment) == number
    assert state({"when": apple_date(moment)}) == {"when": number}


class Colour(enum.Enum):
    RED = "red"


plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
plain_values = st.recursive(
    plain_leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=25,
)
bad_leaves = st.sampled_from(
    [
        math.nan,
        math.inf,
        2**64,
        -(2**63) - 1,
        b"x",
        {1},
        1j,
        Colour.RED,
        "\ud800",
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        object(),
        {1: 2},
        print,
    ]
)
steps = st.lists(st.integers(0, 5) | st.from_regex(r"[a-z]{1,6}", fullmatch=True), max_size=12)


@given(st.dictionaries(st.text(max_size=8), plain_values, max_size=6))
def test_what_is_accepted_arrives_unchanged(value):
    try:
        body = encode(Update(content_state=value), now=NOW).body
    except PayloadTooLarge:
        return
    arrived = json.loads(body)["aps"]["content-state"]
    assert arrived == value
    assert list(arrived) == list(value)
    assert _types(arrived) == _types(value)


@given(bad=bad_leaves, steps=steps, beside=plain_leaves)
def test_what_is_refused_has_its_full_path(bad, steps, beside):
    value: Any = bad
    path = ""
    for step in reversed(steps):
        if isinstance(step, int):
            value = [beside] * step + [value]
            path = f"[{step}]{path}"
        else:
            value = {"_": beside, step: value}
            path = f".{step}{path}"
    with pytest.raises(InvalidPayload) as caught:
        encode(Update(content_state={"root": value}), now=NOW)
    assert caught.value.field == f"content_state.root{path}"
    assert caught.value.remedy


def _types(value: Any) -> Any:
    """Tell 1 from 1.0 and True, which compare equal."""
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_types(item) for item in value]
    return type(value)
