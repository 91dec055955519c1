"""How a test of yours sees what your site does while the server is silent.

pytest examples/faults_in_tests.py
"""

import pytest

from fleetcache import Cache
from fleetcache.testing import FaultProxy, valkey_server


@pytest.fixture(scope="session")
def server():
    """A real server, which ends with the tests."""
    with valkey_server() as running:
        yield running


def greeting(cache: Cache) -> str:
    """Return what the site says: it must not fail because of its cache."""
    return f"Hello {cache.get('name', 'stranger')}"


def test_a_silent_server(server):
    """The page is there within the time limit."""
    options = {"SOCKET_TIMEOUT": 0.2, "IGNORE_EXCEPTIONS": True}
    with FaultProxy(server.socket) as proxy:
        cache = Cache(proxy.url(), {"OPTIONS": options})
        cache.set("name", "Ada")
        assert greeting(cache) == "Hello Ada"

        proxy.hold()

        assert greeting(cache) == "Hello stranger"
