"""The time limits that tests of faults give their caches, and how late a call may be nevertheless."""

from __future__ import annotations

import time
from typing import Any

LIMIT = 0.4
"""Seconds for connecting, and again for an operation."""

SLACK = 0.4
"""Seconds that a busy machine may add to a deadline."""

HASTY = {"socket_timeout": LIMIT, "socket_connect_timeout": LIMIT}
PATIENT = {"socket_timeout": 10, "socket_connect_timeout": 10}
"""For tests that are not about deadlines, and run on busy machines."""


def wait_until_admitted(cache: Any, limit: float = 2.0) -> float:
    """Wait until a probe has found the server of *cache* well again; return how many seconds that took."""
    started = time.monotonic()
    while cache.topology.primaries[0].away:
        assert time.monotonic() - started < limit, "callers are still refused"
        time.sleep(0.002)
    return time.monotonic() - started
