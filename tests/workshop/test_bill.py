"""The bill of materials: what is wrong with one is found, and the release makes, attests and attaches it."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml

from tests.workshop.bill import faults
from tests.workshop.requirements import ROOT

GOOD: dict[str, Any] = {
    "metadata": {"component": {"name": "apns-live", "version": "1.0"}},
    "components": [
        {
            "name": "Typing_Extensions",
            "version": "4",
            "purl": "pkg:pypi/typing-extensions@4",
            "licenses": [{"license": {"id": "PSF-2.0"}}],
        }
    ],
}
NEEDED = {"apns-live", "typing-extensions"}


def test_a_good_bill_has_no_fault() -> None:
    assert faults(GOOD, "1.0", NEEDED) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": ""}, "typing-extensions has no version"),
        ({"purl": "pkg:pypi/typing-extensions"}, "no purl with it"),
        ({"licenses": []}, "no license of typing-extensions"),
        ({"name": "other"}, "it lacks typing-extensions"),
        ({"externalReferences": [{"url": "file:///home/me/x.whl"}]}, "a path of the machine"),
    ],
)
def test_a_fault_is_found(change: dict[str, Any], fault: str) -> None:
    bill = copy.deepcopy(GOOD)
    bill["components"][0] |= change
    assert any(fault in one for one in faults(bill, "1.0", NEEDED))
    assert faults(GOOD, "2.0", NEEDED) == ["it is the bill of apns-live 1.0"]


def test_the_release_attests_and_attaches_it() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    steps = {name: job["steps"] for name, job in jobs.items()}
    used = {
        name: {step["uses"].partition("@")[0]: step for step in job if "uses" in step}
        for name, job in steps.items()
    }
    uploaded = {step["with"]["path"] for step in steps["build"] if "upload" in step.get("uses", "")}
    assert uploaded == {"dist/", "sbom/"}
    attested = used["attest"]["actions/attest-sbom"]["with"]
    assert (attested["subject-path"], attested["sbom-path"]) == ("dist/*", "${{ env.sbom }}")
    # Only what may publish or attest holds the right to; the build, which runs others' code, holds none.
    rights = {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})}
    assert rights == {"attest", "publish"}
    # The index takes nothing but packages.
    assert used["publish"]["actions/download-artifact"]["with"]["name"] == "dist"
    (attach,) = [step["run"] for step in steps["attach"] if "run" in step]
    assert "dist/* sbom/*" in attach


def test_every_action_is_pinned_to_a_released_tag() -> None:
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text("utf-8"))["jobs"]
        for step in (step for job in jobs.values() for step in job["steps"]):
            assert re.fullmatch(r"[\w./-]+@v\d+(\.\d+)*", step.get("uses", "none@v1")), step
