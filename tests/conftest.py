"""Servers for the tests, each started by the first test that asks for it, and caches on them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from tests import nearby
from tests.caches import TRANSPORTS, own_prefix, params
from tests.faces import FACES, Face

from fleetcache import Cache
from fleetcache.errors import ServerNotFound
from fleetcache.exchange import probing
from fleetcache.fleet.publishing import USUAL
from fleetcache.near import listener
from fleetcache.telemetry import tracing
from fleetcache.testing import (
    ServerCluster,
    TLSServer,
    WatchedServers,
    cluster,
    redis_server,
    sentinels,
    tls_server,
    valkey_server,
)
from fleetcache.testing.servers import EmbeddedServer

pytest_plugins = ("tests.selection",)

# A shell's background job ignores SIGINT, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

tracing._allowed = ()  # a tool that one test imports must not watch the caches of the others
listener.IDLE = 0.0  # near caches of tests sleep after MAX_TTL, which tests make short
probing.IDLE = 3.0  # servers of tests that end are not asked for long


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what pytest knows of thousands of tests from the garbage collector, which would look at it for 0.3 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process publishes its figures unless a test says so: a test that installs the app would let the later ones."""
    monkeypatch.setattr(USUAL, "seconds", 0.0)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """A Valkey; tests tell their keys apart by prefix or database."""
    with valkey_server() as server:
        yield server
        nearby.stop_listening()


@pytest.fixture(scope="session", autouse=True)
def _copies_are_used(request: pytest.FixtureRequest) -> Iterator[None]:
    """With ``FLEETCACHE_NEAR=1`` a session of many tests fails that read from the server all the same."""
    yield
    if nearby.EVERYWHERE and request.session.testscollected > 1000:
        assert nearby.hits() > 100  # of thousands; a worker that had long tests had few of them


@pytest.fixture(scope="session")
def redis_debian() -> Iterator[EmbeddedServer]:
    """The Redis of the distribution, the oldest that is supported."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def tls() -> Iterator[TLSServer]:
    """A Redis with TLS on ``tls_port``."""
    with tls_server() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ServerCluster]:
    """Three primaries without replicas."""
    with cluster(replicas=0) as servers:
        yield servers


@pytest.fixture(scope="session")
def watched_servers() -> Iterator[WatchedServers]:
    """A primary and a replica under three Sentinels."""
    with sentinels(replicas=1) as servers:
        yield servers


@pytest.fixture(params=TRANSPORTS)
def url(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """The URL of a database, on each server and over each transport in turn."""
    return lambda db=0: TRANSPORTS[request.param](request.getfixturevalue, db)


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    """The blocking face, then the awaiting one."""
    found: str = request.param
    return found


@pytest.fixture
def make(url: Callable[[int], str], face: str, request: pytest.FixtureRequest) -> Callable[..., Face]:
    """Make caches over this transport that show this face; each has a prefix of its own."""
    kind = nearby.NearCache if request.node.callspec.params["url"] == "valkey-near" else Cache

    def make(db: int = 0, **options: Any) -> Face:
        return Face(kind(url(db), params(options)), face)

    return make


@pytest.fixture
def cache(make: Callable[..., Face], request: pytest.FixtureRequest) -> Face:
    """A cache over each transport, in both faces; its operations are awaited.

    Marked ``together``, a test has all its names in one slot of a cluster.
    """
    return make(KEY_PREFIX=f"{{{own_prefix()}}}") if request.node.get_closest_marker("together") else make()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test whose fixture needs a program that is not on this machine."""
    return (yield from _skipping_without_program())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that needs a program that is not on this machine."""
    return (yield from _skipping_without_program())


def _skipping_without_program() -> Generator[None, Any, Any]:
    """Turn `ServerNotFound` into a skip; with ``FLEETCACHE_REQUIRE_ALL=1`` it is a failure."""
    try:
        return (yield)
    except ServerNotFound as error:
        if os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1":
            raise
        pytest.skip(str(error))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    # pytest's own way to find out which fixtures are arguments.
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    # Python's development mode would switch on the loop's, which is ten times slower.
    with asyncio.Runner(debug=False) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True
