"""Random requests by the API's own description: no server error, and answers as described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from apns_live.testing.handles import RunningFake

# Streams without an end, and waiting for what never comes, have tests of their own.
LEFT_OUT = ("/events", "/next")
# Not checked: that whatever fits the description is taken. A fault has rules that no schema says.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def fake():
    with RunningFake() as running:
        phone = running.devices.add("phone", attributes_types=["GameAttributes"])
        phone.start_activity("GameAttributes", {"n": 1})
        yield running


def test_every_endpoint_answers_as_described(fake):
    schema = schemathesis.openapi.from_url(fake.inspector + "/v1/openapi.json")
    tried = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(LEFT_OUT):
            continue
        tried.add((operation.method, operation.path))

        @settings(
            max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(timeout=20, checks=CHECKS)

        check()
    assert len(tried) > 25
    fake.devices.add("still-there")
