"""Under gevent, which puts greenlets in the place of threads and its own sockets in the place of the system's."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

gevent = pytest.importorskip("gevent")

pytestmark = pytest.mark.timeout(60)

SCRIPT = """
    from gevent import monkey

    monkey.patch_all()

    import sys
    import time

    import gevent
    import redis

    from fleetcache import Cache

    cache = Cache(sys.argv[1], {"KEY_PREFIX": "gevent", "OPTIONS": {"NEAR": {"T_LIVE": 0.5}}})
    cache.set("a", 1)

    def wait_for(condition):
        until = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < until, cache.near.stats()
            gevent.sleep(0.001)

    def read():
        found = []
        while not done:
            found.append(cache.get("a"))
            gevent.sleep(0.001)
        return found

    done = False
    readers = [gevent.spawn(read) for _ in range(8)]
    wait_for(lambda: cache.near.stats()["hits"] > 100)

    # Somebody else writes.
    redis.Redis.from_url(sys.argv[1]).set(cache.make_key("a"), 2)
    wait_for(lambda: cache.get("a") == 2)

    # So do many at once here, and each sees what it wrote.
    def write(number):
        for version in range(50):
            cache.set(f"own{number}", version)
            assert cache.get(f"own{number}") == version
            cache.fence()

    writers = [gevent.spawn(write, number) for number in range(8)]
    gevent.joinall(writers, timeout=20, raise_error=True)
    assert all(writer.successful() for writer in writers), "a fence or a write never returned"
    done = True
    gevent.joinall(readers, timeout=10, raise_error=True)
    for reader in readers:
        assert reader.value == sorted(reader.value)
        assert reader.value[-1] == 2
    assert cache.near.state == "live", cache.near.why
"""


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_greenlets(valkey, transport):
    """Copies are served, others' writes are seen, and nobody waits for ever."""
    url = valkey.tcp_url(9) if transport == "tcp" else valkey.url(9)

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), url], capture_output=True, text=True, timeout=50, check=False
    )

    assert ran.returncode == 0, ran.stderr
