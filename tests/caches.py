"""How tests make caches: where the servers are, and parameters under which no test meets another one's keys."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

Ask = Callable[[str], Any]

TRANSPORTS: dict[str, Callable[[Ask, int], str]] = {
    "valkey-tcp": lambda ask, db: ask("valkey").tcp_url(db),
    "valkey-near": lambda ask, db: ask("valkey").tcp_url(db),
    "valkey-unix": lambda ask, db: ask("valkey").url(db),
    "redis-tcp": lambda ask, db: ask("redis_debian").tcp_url(db),
    "redis-unix": lambda ask, db: ask("redis_debian").url(db),
    "redis-tls": lambda ask, db: ask("tls").tls_url(db),
    "cluster": lambda ask, db: ask("valkey_cluster").url(),
    "sentinel": lambda ask, db: ask("watched_servers").url(db),
    "memory": lambda ask, db: f"memory://tests-{db}",
}
"""How a test reaches a server: the URL of a database, of which a cluster has one; fixtures are asked for by name."""

SETTINGS = {"KEY_PREFIX", "VERSION", "TIMEOUT", "KEY_FUNCTION", "REVERSE_KEY_FUNCTION"}
"""The parameters of a cache that stand beside its ``OPTIONS``."""

_prefixes = (f"t{number}" for number in count())


def own_prefix() -> str:
    """Return a prefix that no other cache of this process has."""
    return next(_prefixes)


def params(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a cache: settings in their place, all else in ``OPTIONS``, and a prefix of its own."""
    settings = {name: value for name, value in given.items() if name in SETTINGS}
    options = {name: value for name, value in given.items() if name not in SETTINGS}
    return {"KEY_PREFIX": own_prefix(), **settings, "OPTIONS": options}
