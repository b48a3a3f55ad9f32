"""The figures of `tests.workshop.house`: what counts as an attribute, and as a circle."""

from __future__ import annotations

import sys
from pathlib import Path

import grimp
import pytest

from tests.workshop.house import Figures, attributes, circles, grown

SOURCE = """
@dataclass
class Changing:
    one: int
    two: int = 0

@dataclass(frozen=True)
class Value:
    one: int

class Row(msgspec.Struct):
    one: int

class Working:
    KIND: ClassVar = 1
    __slots__ = ("one", "two")

    def __init__(self):
        self.one = 1
        self.three, self.four = 3, 4

    @classmethod
    def make(cls):
        cls.made = 1

    def later(self):
        self.five = self.one
        other.six = 6

    class Inner:
        def __init__(self):
            self.seven = 7
"""


def test_attributes_are_what_an_object_holds() -> None:
    assert attributes(SOURCE) == {
        "Changing": 2,
        "Value": 0,
        "Row": 1,
        "Working": 5,
        "Working.Inner": 1,
    }


def test_a_circle_through_an_import_for_type_checkers_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "round_house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from . import b")
    (package / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a"
    )
    (package / "c.py").write_text("from . import a")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    graph = grimp.build_graph("round_house", cache_dir=None)
    assert circles(graph) == ["round_house.a round_house.b"]


def test_only_what_has_grown_is_a_problem() -> None:
    before = Figures(lines=10, attributes={"p.a.Large": 30}, circles=["p.a p.b p.c"])
    same = Figures(lines=10, attributes={"p.moved.Large": 30}, circles=["p.a p.b"])
    assert grown(same, before) == []
    worse = Figures(lines=11, attributes={"p.a.Large": 31, "p.New": 19}, circles=["p.a p.d"])
    assert len(grown(worse, before)) == 4
