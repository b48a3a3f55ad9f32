"""The native API, ``/v1``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ..context import Gateway


def native_routes(gateway: Gateway) -> APIRouter:
    """Return the routes of the native API."""
    return APIRouter()


def describe(version: str) -> dict[str, Any]:
    """Return the OpenAPI description."""
    return {"openapi": "3.1.0", "info": {"title": "apns_live", "version": version}, "paths": {}}
