"""Blocking work beside a simulated clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


async def aside(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Run blocking work in a thread of its own.

    Before it goes on, a simulated clock waits a tenth of a second for the threads of the loop's own
    executor, in which `asyncio.to_thread` works. A client that waits for an answer is never done.
    """
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(work, *args, **kwargs)
        return await asyncio.wrap_future(done)
