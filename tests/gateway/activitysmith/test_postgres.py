"""On PostgreSQL: what of this dialect asks the store in words of its own."""

from __future__ import annotations

import pytest

from tests.activities.conftest import tls  # noqa: F401 - fixture
from tests.gateway.activitysmith.test_examples import (
    test_start_with_an_action_and_channels,
    test_stream_of_each_answer,
)
from tests.gateway.activitysmith.test_idempotency import (
    test_a_start_is_done_once,
    test_eight_first_puts_start_one_activity,
)
from tests.gateway.activitysmith.test_pushes import (
    test_badge,
    test_metric_value,
    test_push_notification_is_replaced,
)
from tests.gateway.activitysmith.test_refusals import (
    test_another_app_is_another_world,
    test_channels,
    test_devices_that_differ_in_room,
    test_four_activities_at_once,
    test_the_oldest_gives_way,
    test_what_apns_refuses_is_told,
)
from tests.gateway.activitysmith.test_taps import (
    hook,
    test_a_tap_calls_the_webhook,
    test_a_tap_on_a_streams_card_and_on_a_notification,
)


@pytest.fixture
def store_kind() -> str:
    return "postgresql"


__all__ = [
    "hook",
    "test_a_start_is_done_once",
    "test_a_tap_calls_the_webhook",
    "test_a_tap_on_a_streams_card_and_on_a_notification",
    "test_another_app_is_another_world",
    "test_badge",
    "test_channels",
    "test_devices_that_differ_in_room",
    "test_eight_first_puts_start_one_activity",
    "test_four_activities_at_once",
    "test_metric_value",
    "test_push_notification_is_replaced",
    "test_start_with_an_action_and_channels",
    "test_stream_of_each_answer",
    "test_the_oldest_gives_way",
    "test_what_apns_refuses_is_told",
]
