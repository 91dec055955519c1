"""Servers for the tests, each started by the first test that asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

from fleetcache.errors import ServerNotFound
from fleetcache.testing import TLSServer, redis_server, tls_server, valkey_server
from fleetcache.topology.embedded import EmbeddedServer

Running = TypeVar("Running", bound=EmbeddedServer)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """A Valkey; tests tell their keys apart by prefix or database."""
    with valkey_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_debian() -> Iterator[EmbeddedServer]:
    """The Redis of the distribution, the oldest that is supported."""
    yield from _or_skip(redis_server())


@pytest.fixture(scope="session")
def tls() -> Iterator[TLSServer]:
    """A Redis with TLS on ``tls_port``."""
    yield from _or_skip(tls_server())


def _or_skip(server: AbstractContextManager[Running]) -> Iterator[Running]:
    """Run *server*; without its program skip, or fail if ``FLEETCACHE_REQUIRE_ALL=1`` says so."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except ServerNotFound as error:
            if os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield running
