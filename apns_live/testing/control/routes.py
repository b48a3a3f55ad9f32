"""Every endpoint as one row: the application is built from it, and so is the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from apns_live.testing.faults import Fault

from . import shapes
from .api import ControlApi
from .queries import ACTIVITY_FILTERS, LOG_FILTERS, PUSH_FILTERS, TOKEN_FILTERS

Endpoint = Callable[[Request], Awaitable[Response]]


class Route(NamedTuple):
    """One endpoint. ``takes`` and ``gives`` are structs; ``lists`` wraps ``gives`` in a list."""

    method: str
    path: str
    endpoint: Endpoint
    gives: type | None = None
    takes: type | None = None
    status: int = 200
    query: tuple[str, ...] = ()
    lists: bool = False
    media_type: str = "application/json"
    may_be_empty: bool = False


def routes(api: ControlApi) -> list[Route]:
    """Return every endpoint of an API. More specific paths come first."""
    return [
        Route("GET", "/v1/fake", api.get_fake, shapes.FakeRow),
        Route("GET", "/v1/health", api.health, shapes.HealthRow),
        Route("GET", "/v1/counts", api.get_counts, shapes.CountsRow),
        Route(
            "GET",
            "/v1/devices",
            api.list_devices,
            shapes.DeviceRow,
            query=("bundle_id", "automatic", "after", "limit"),
            lists=True,
        ),
        Route("POST", "/v1/devices", api.add_device, shapes.DeviceRow, shapes.NewDevice, 201),
        Route("GET", "/v1/devices/{id}", api.get_device, shapes.DeviceRow),
        Route(
            "PATCH", "/v1/devices/{id}", api.change_device, shapes.DeviceRow, shapes.DeviceChanges
        ),
        Route("DELETE", "/v1/devices/{id}", api.remove_device, status=204),
        Route("POST", "/v1/devices/{id}/open-app", api.open_app, shapes.DeviceRow, shapes.OpenApp),
        Route("POST", "/v1/devices/{id}/consent", api.consent, shapes.DeviceRow, shapes.Consent),
        Route(
            "POST",
            "/v1/devices/{id}/activities",
            api.start_activity,
            shapes.ActivityRow,
            shapes.NewActivity,
            201,
        ),
        Route(
            "GET",
            "/v1/activities",
            api.list_activities,
            shapes.ActivityRow,
            query=(*ACTIVITY_FILTERS, "after", "limit"),
            lists=True,
        ),
        Route("GET", "/v1/activities/{id}", api.get_activity, shapes.ActivityRow),
        Route(
            "POST",
            "/v1/activities/{id}/dismiss",
            api.dismiss_activity,
            shapes.ActivityRow,
            shapes.Empty,
        ),
        Route(
            "POST",
            "/v1/activities/{id}/end",
            api.end_activity,
            shapes.ActivityRow,
            shapes.EndActivity,
        ),
        Route(
            "POST",
            "/v1/activities/{id}/rotate-token",
            api.rotate_activity_token,
            shapes.ActivityRow,
            shapes.Empty,
        ),
        Route(
            "GET",
            "/v1/tokens",
            api.list_tokens,
            shapes.TokenRow,
            query=(*TOKEN_FILTERS, "after", "limit"),
            lists=True,
        ),
        Route(
            "GET",
            "/v1/tokens/next",
            api.next_token,
            shapes.TokenRow,
            query=(*TOKEN_FILTERS, "after", "timeout"),
            may_be_empty=True,
        ),
        Route("GET", "/v1/tokens/{token}", api.get_token, shapes.TokenRow),
        Route("POST", "/v1/tokens/{token}/kill", api.kill_token, shapes.TokenRow, shapes.KillToken),
        Route(
            "POST", "/v1/tokens/{token}/rotate", api.rotate_token, shapes.TokenRow, shapes.Rotate
        ),
        Route(
            "GET",
            "/v1/pushes",
            api.list_pushes,
            shapes.PushRow,
            query=(*PUSH_FILTERS, "after", "limit", "newest", "payload"),
            lists=True,
        ),
        Route(
            "GET",
            "/v1/pushes/next",
            api.next_push,
            shapes.PushRow,
            query=(*PUSH_FILTERS, "after", "timeout"),
            may_be_empty=True,
        ),
        Route("POST", "/v1/pushes/verify", api.verify, shapes.VerifiedRow, shapes.Verify),
        Route("GET", "/v1/pushes/{number}", api.get_push, shapes.PushRow),
        Route(
            "GET",
            "/v1/log",
            api.list_log,
            shapes.LogRow,
            query=(*LOG_FILTERS, "after", "limit"),
            lists=True,
        ),
        Route("GET", "/v1/explain/{word}", api.explain, shapes.ExplainRow),
        Route("GET", "/v1/faults", api.list_faults, shapes.FaultRow, lists=True),
        Route("POST", "/v1/faults", api.add_fault, shapes.FaultRow, Fault, 201),
        Route("DELETE", "/v1/faults", api.remove_faults, status=204),
        Route("DELETE", "/v1/faults/{id}", api.remove_fault, status=204),
        Route("GET", "/v1/clock", api.get_clock, shapes.ClockRow),
        Route("POST", "/v1/clock/advance", api.advance_clock, shapes.ClockRow, shapes.Advance),
        Route("GET", "/v1/connections", api.get_connections, shapes.ConnectionRow, lists=True),
        Route("POST", "/v1/connections/{id}/goaway", api.send_goaway, dict, shapes.GoAway, 202),
        Route("POST", "/v1/reset", api.reset, None, shapes.Reset, 204),
        Route("GET", "/v1/export/{kind}", api.export, dict, media_type="application/x-ndjson"),
        Route(
            "GET",
            "/v1/events",
            api.events,
            dict,
            query=("devices", "pushes", "payload"),
            media_type="text/event-stream",
        ),
    ]
