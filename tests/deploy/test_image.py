"""What is wrong with an image is found. ``.ci/run`` builds and runs the real one (`tests.workshop.image`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workshop.image import CONTAINERFILE, base, faults
from tests.workshop.requirements import ROOT

GOOD: dict[str, Any] = {
    "User": "10001:10001",
    "Healthcheck": {"Test": ["CMD", "true"]},
    "StopSignal": "SIGTERM",
    "Volumes": {"/var/lib/apns-live": {}},
    "Entrypoint": ["apns-live"],
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"User": ""}, "it runs as root"),
        ({"User": "0:0"}, "it runs as 0:0"),
        ({"User": "apns-live"}, "wants a number"),
        ({"Healthcheck": None}, "no health check"),
        ({"StopSignal": "SIGKILL"}, "not ended by SIGTERM"),
        ({"Volumes": None}, "its volumes are none"),
        ({"Entrypoint": None}, "no entry point"),
    ],
)
def test_a_fault_of_the_configuration_is_found(change: dict[str, Any], fault: str) -> None:
    (found,) = faults(GOOD | change)
    assert fault in found
    assert faults(GOOD) == []


def test_both_stages_begin_with_the_same_python() -> None:
    assert "library/python:3." in base(CONTAINERFILE.read_text("utf-8"))
    with pytest.raises(ValueError, match="too many values"):
        base("FROM one AS build\nFROM two\n")


def test_ci_builds_the_image() -> None:
    assert "-m tests.workshop.image" in (ROOT / ".ci/run").read_text("utf-8")
    assert "-m tests.workshop.image" in (ROOT / "Makefile").read_text("utf-8")
