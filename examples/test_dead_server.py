"""What your site does while the server is silent, dead, and back, tested on a real server."""

import time

import pytest

from fleetcache import Cache
from fleetcache.testing import FaultProxy, valkey_server


@pytest.fixture(scope="session")
def server():
    """A real server, which ends with the tests."""
    with valkey_server() as running:
        yield running


@pytest.fixture
def proxy(server):
    """What stands between the site and the server, and fails when a test says so."""
    with FaultProxy(server.socket) as between:
        yield between


def greeting(cache: Cache) -> str:
    """Return what the site says: it must not fail because of its cache."""
    return f"Hello {cache.get('name', 'stranger')}"


def test_the_site_answers_while_the_server_does_not(proxy):
    """In time, whether the server is silent or refuses, and as before when it is back."""
    cache = Cache(proxy.url(), {"OPTIONS": {"SOCKET_TIMEOUT": 0.2, "IGNORE_EXCEPTIONS": True}})
    cache.set("name", "Ada")
    assert greeting(cache) == "Hello Ada"

    proxy.hold()  # silent; proxy.blackhole() connects nobody, proxy.reset() breaks connections
    begun = time.monotonic()
    assert [greeting(cache) for _ in range(100)] == ["Hello stranger"] * 100
    assert time.monotonic() - begun < 1  # one deadline of 0.2 s, not a hundred

    proxy.heal()
    while cache.info()["servers"][0]["away"]:  # until a probe finds it back: within a second
        time.sleep(0.01)
    assert greeting(cache) == "Hello Ada"


def test_the_site_answers_while_no_server_runs(server):
    """The same with a server that is killed and started again, empty."""
    cache = Cache(server.url(), {"OPTIONS": {"IGNORE_EXCEPTIONS": True}})
    cache.set("name", "Ada")

    server.kill()
    assert greeting(cache) == "Hello stranger"

    server.restart()
    while cache.info()["servers"][0]["away"]:
        time.sleep(0.01)
    cache.set("name", "Eve")
    assert greeting(cache) == "Hello Eve"
