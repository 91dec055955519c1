"""Servers for the doctor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from fleetcache.testing import valkey_server
from fleetcache.testing.servers import EmbeddedServer


@pytest.fixture(scope="session")
def good() -> Iterator[EmbeddedServer]:
    """A server whose memory has a limit, and whose policy suits a cache."""
    with valkey_server(arguments=["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lfu"]) as server:
        yield server


@pytest.fixture
def own() -> Iterator[EmbeddedServer]:
    """A server that a test may configure."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def empty(good: EmbeddedServer) -> str:
    """The URL of an empty database."""
    redis.Redis.from_url(good.tcp_url(9)).flushdb()
    return good.tcp_url(9)
