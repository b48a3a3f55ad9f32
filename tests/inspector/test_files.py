"""What holds for the page's files as text."""

import re

import pytest

from apns_live.testing.control.server import STATIC_FILES
from apns_live.testing.faults import ACTIONS
from apns_live.testing.log import DEVICE_OFFLINE, DISCARD_REASONS, POWER
from apns_live.testing.reasons import TABLE

SOURCES = sorted(
    path for path in STATIC_FILES.rglob("*") if path.suffix in {".js", ".css", ".html"}
)


def text_of(name):
    return (STATIC_FILES / name).read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_file_is_short_and_safe(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert way not in text
    assert not re.search(r"setAttribute\(\"(on|style)", text)
    for address in re.findall(r"https?://[^\s\"'`)]+", text):
        assert address.startswith("http://www.w3.org/")
    assert not re.search(r"\son[a-z]+=|\sstyle=", text) or path.suffix != ".html"


def test_every_file_is_asked_for():
    wanted = set(re.findall(r"(?:src|href)=\"([^\"]+\.(?:js|css|svg))\"", text_of("index.html")))
    for path in STATIC_FILES.rglob("*.js"):
        for found in re.findall(r"from \"(\.[^\"]+)\"", path.read_text()):
            wanted.add((path.parent / found).resolve().relative_to(STATIC_FILES).as_posix())
    there = {
        path.relative_to(STATIC_FILES).as_posix()
        for path in STATIC_FILES.rglob("*")
        if path.is_file()
    }
    assert wanted | {"index.html"} == there


def test_the_reasons_offered_are_those_that_there_are():
    offered = re.findall(r'\["(\w+)", (\d{3})\]', text_of("js/fault_kinds.js"))
    assert len(offered) > 20
    for name, status in offered:
        assert TABLE[name].status == int(status)


def test_the_faults_offered_are_those_that_there_are():
    offered = set(re.findall(r'action: "(\w+)"', text_of("js/fault_kinds.js")))
    assert offered == ACTIONS - {"settings"}  # its numbers are for scenario files


def test_every_reason_of_a_phone_is_explained():
    table = text_of("js/words.js").partition("]);")[0]
    explained = set(re.findall(r'^  \["([a-z ]+)", "', table, re.MULTILINE))
    assert explained == {*DISCARD_REASONS, DEVICE_OFFLINE, POWER}
