"""Where fleetcache's side of Django's suites and of the differential tests is: with ``FLEETCACHE_ON`` not on one server.

``cluster``: on three primaries, while django-redis, which knows no clusters, goes on using a server of its own.
``sentinel``: on the primary of a trio, found by its Sentinels; django-redis uses the same server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from fleetcache.django import RedisCache

ON = os.environ.get("FLEETCACHE_ON", "")
assert ON in {"", "cluster", "sentinel"}, f"FLEETCACHE_ON={ON}: cluster or sentinel"

WAYS: dict[int, Callable[[int], str]] = {}
"""The port of a server, and what stands for the URL of a database of it."""


def led(location: Any) -> Any:
    """Return what stands for *location*, whose servers may be elsewhere."""
    if not isinstance(location, str):
        return [led(url) for url in location]
    for port, url in WAYS.items():
        location = re.sub(rf"redis://127\.0\.0\.1:{port}/(\d+)", lambda found, url=url: url(int(found[1])), location)
    return location


class RedisCacheElsewhere(RedisCache):
    """Django's, on another server than LOCATION says, if it says one of the tests'."""

    def __init__(self, location: Any, params: Any = None, **kwargs: Any) -> None:
        super().__init__(led(location), params, **kwargs)
