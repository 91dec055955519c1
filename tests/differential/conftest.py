"""The servers, the setups on them, and a clock and a die for HerdClient that stand still."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.core.cache.backends.base import CacheKeyWarning
from django_redis.client import herd as their_herd
from django_redis.pool import ConnectionFactory as TheirFactory
from tests.django_settings import configure
from tests.elsewhere import CANNOT, ON, WAYS

import fleetcache.client
from fleetcache.servers.embedded import find_binary
from fleetcache.testing import valkey_server
from fleetcache.testing.servers import EmbeddedServer

configure()

from .mended import Mended  # noqa: E402 - needs the settings
from .setups import CLIENTS, VARIANTS, Servers, Setups  # noqa: E402
from .sides import Awaiting, Case, Result, Setup, plainly  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot hold on other servers than one."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        what = params.get("case") or params.get("entry")
        name, setup = getattr(what, "name", ""), params.get("name", "")
        for known in (item.path.name, getattr(item, "originalname", ""), name, f"{name}-{setup}"):
            if ON and known in CANNOT:
                item.add_marker(pytest.mark.skip(reason=CANNOT[known]))
        if ON and isinstance(what, Mended) and setup not in (*CLIENTS, *VARIANTS):
            item.add_marker(pytest.mark.skip(reason=f"the setup {setup} is of other servers"))


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """A server, and a trio on loopback: a primary, its replica, and the Sentinel that watches them."""
    with ExitStack() as stack:
        primary = stack.enter_context(valkey_server(arguments=["--repl-diskless-sync-delay", "0"]))
        follow = ["--replicaof", f"127.0.0.1 {primary.port}"]
        replica = stack.enter_context(valkey_server(arguments=follow))
        sentinel = stack.enter_context(
            valkey_server(binary=sentinel_program(tmp_path_factory.mktemp("sentinel"), primary.port))
        )
        replicates = redis.Redis(port=sentinel.port, decode_responses=True)
        wait_for(lambda: [each["master-link-status"] for each in replicates.sentinel_slaves("service")] == ["ok"])
        replicates.close()
        found = Servers(valkey, primary, replica, sentinel)
        if ON == "sentinel":
            watched = request.getfixturevalue("watched_servers")
            found.single = watched.primary
            WAYS[found.single.port] = watched.url
        if ON == "cluster":
            nodes = request.getfixturevalue("valkey_cluster")
            found.nodes = nodes.primaries
            WAYS[found.single.port] = lambda db: nodes.url()
        yield found


def sentinel_program(place: Path, primary: int) -> Path:
    """Return a program that runs the server as a Sentinel: those want a file of their own."""
    configuration, program = place / "sentinel.conf", place / "sentinel"
    configuration.write_text(
        f"sentinel monitor service 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds service 60000\n"
    )
    program.write_text(f'#!/bin/sh\nexec "{find_binary()}" "{configuration}" --sentinel "$@"\n')
    program.chmod(0o700)
    return program


def wait_for(condition: Any, patience: float = 20) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the servers did not get ready"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def setups(servers: Servers) -> Iterator[Setups]:
    """The configurations that cases are run in, by name."""
    made = Setups(servers)
    yield made
    made.close()
    close_their_pools()


def close_their_pools() -> None:
    """Close all connections of django-redis."""
    for pool in TheirFactory._pools.values():
        pool.disconnect()
    TheirFactory._pools.clear()


@pytest.fixture(scope="session")
def faces() -> Iterator[dict[str, Any]]:
    """What calls a method: as it is, or its a-twin on an event loop."""
    awaiting = Awaiting()
    yield {"blocking": plainly, "awaiting": awaiting}
    awaiting.close()


class Expectations:
    """What django-redis does, each case asked once per setup."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Result] = {}

    def of(self, setup: Setup, case: Case) -> Result:
        key = (setup.name, case.name)
        if key not in self.known:
            self.known[key] = setup.run(case.script, setup.theirs())
        return self.known[key]


@pytest.fixture(scope="session")
def expected() -> Expectations:
    """What django-redis does."""
    return Expectations()


class Clock:
    """The time of day for HerdClient and gzip, which tests turn, and the next roll of HerdClient's die."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.5
        self.roll = 1

    def time(self) -> float:
        return self.now

    def randint(self, low: int, high: int) -> int:
        return min(max(low, self.roll), high)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still, for both packages."""
    clock = Clock()
    monkeypatch.setattr(their_herd, "time", SimpleNamespace(time=clock.time))
    monkeypatch.setattr(their_herd, "random", SimpleNamespace(randint=clock.randint))
    monkeypatch.setattr(gzip, "time", SimpleNamespace(time=clock.time))
    monkeypatch.setattr(fleetcache.client, "time", clock.time)
    monkeypatch.setattr(fleetcache.client, "chance", SimpleNamespace(randint=clock.randint))
    return clock


@pytest.fixture(autouse=True)
def quiet(recwarn: pytest.WarningsRecorder) -> None:
    """Names that memcached would refuse are used on purpose."""
    import warnings

    warnings.simplefilter("ignore", CacheKeyWarning)
