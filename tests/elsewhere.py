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

CALLERS = "client= takes no redis.RedisCluster, nor a pipeline of one"
SLOTS = "one command about keys of several slots"
POOLS = "looks into the pool of a redis.Redis, where a redis.RedisCluster is"

CANNOT = {
    "": {},
    "cluster": {
        "test_mixed.py": "django-redis knows no clusters",
        "test_options.py": "databases, replicas, pools: a cluster has none, or some for each node",
        "clients_of_the_caller": CALLERS,
        "moving_with_a_client_of_the_caller": CALLERS,
        "clearing_with_a_client_of_the_caller": CALLERS,
        "structures_with_a_client_of_the_caller": CALLERS,
        "writing_into_a_pipeline": CALLERS,
        "touching_in_a_pipeline": CALLERS,
        "pipelines of redis-py": CALLERS,
        "set_many into a pipeline": CALLERS,
        "raw_access": "the raw client is a redis.RedisCluster",
        "close while connections are in use": POOLS,
        "two caches at one URL": POOLS,
        "SOCKET_TIMEOUT of 0": POOLS,
        "combining_sets-default": SLOTS,  # the setup "named" has its keys in one slot
        "combining_sets-herd": SLOTS,
        "storing_combined_sets-default": SLOTS,
        "storing_combined_sets-herd": SLOTS,
        "smove version": SLOTS,
        "a write that went elsewhere": "LOCATION has a replica",
        "test_touch_asks_the_primary": "LOCATION has a replica",
        "make_pattern": "the prefix is another one",
    },
    "sentinel": {
        "test_connection_pool": "the pool does not ask Sentinels",
        "test_blocking_pool": "the pool does not ask Sentinels",
        "test_connection_factory": "the factory's pools do not ask Sentinels",
        "test_the_entry_of_the_readme": "the factory's pools do not ask Sentinels",
        "test_shards_are_placed_alike": "the URL of a shard says which keys it holds",
    },
}[ON]
"""The tests, cases and entries of ``MENDED`` that cannot hold there, and why."""

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
