"""In an outage the hundredth caller waits microseconds, and each outage is told once."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from statistics import median

import pytest
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache.errors import CircuitOpen, ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange import breaker as module
from fleetcache.exchange.breaker import Breaker

from .load import HASTY, LIMIT, SLACK

pytestmark = [pytest.mark.timeout(30), pytest.mark.alone]

# --- the breaker alone --------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until the test turns it."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def fail(breaker, times=1):
    for _ in range(times):
        breaker.failure(ServerGone("gone"), breaker.era)


def test_it_opens_after_failures_in_a_row(clock, journal):
    """The third failure in a row shuts everybody out; a success in between begins the count anew."""
    breaker = Breaker("here", failures=3, cooldown=1)
    fail(breaker, 2)
    breaker.admit()
    breaker.success(breaker.era)
    fail(breaker, 2)
    breaker.admit()
    assert breaker.open is False

    fail(breaker)

    assert breaker.open is True
    with pytest.raises(
        CircuitOpen, match=r"here: away for 0\.0 s, tried again in 1\.0 s\. Last error: ServerGone: gone"
    ):
        breaker.admit()
    assert journal.events == ["outage", "recovery", "outage"]


def test_one_caller_tries_at_a_time(clock):
    """Once a cooldown one caller is let through, and all are when it succeeds."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1

    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 1
    breaker.admit()
    breaker.success(breaker.era)
    for _ in range(5):
        breaker.admit()


def test_a_late_failure_does_not_put_off_the_next_try(clock):
    """Tries that hang and fail one after another leave the rhythm of tries as it is."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1
    breaker.admit()
    clock.now += 0.9

    fail(breaker)

    clock.now += 0.1
    breaker.admit()


def test_a_slow_try_is_followed_by_a_rest(clock):
    """A caller whose try took longer than the cooldown is not followed at once by another."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1
    breaker.admit()
    clock.now += 5

    fail(breaker)

    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 1
    breaker.admit()


def test_old_news_of_a_failure(clock, journal):
    """A call that waited through an outage and fails after its end does not begin another."""
    breaker = Breaker("here", failures=1)
    before = breaker.era
    fail(breaker)
    during = breaker.era
    breaker.success(breaker.era)

    breaker.failure(ServerTimeout("late"), before)
    breaker.failure(ServerTimeout("late"), during)

    assert breaker.failed is False
    assert journal.events == ["outage", "recovery"]


def test_old_news_of_a_success(clock, journal):
    """A reply to a call from before the outage does not end it."""
    breaker = Breaker("here", failures=1)
    before = breaker.era
    fail(breaker)

    breaker.success(before)

    assert breaker.open is True
    assert journal.events == ["outage"]


def test_a_broken_connection_shuts_nobody_out(clock, journal):
    """Any number of connections that broke at once say nothing about the next, which is tried at once."""
    breaker = Breaker("here", failures=1)
    era = breaker.era
    for _ in range(500):
        breaker.failure(ConnectionLost("reset"), era)

    breaker.admit()
    breaker.success(breaker.era)

    assert journal.events == ["outage", "recovery"]


# --- with a server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_hundredth_caller_waits_microseconds(face, mortal, journal, how):
    """After three calls that failed slowly, others fail without waiting for anything."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), face)
    await cache.set("a", 1)
    mortal.kill() if how == "killed" else mortal.pause()
    for _ in range(3):
        started = time.monotonic()
        assert isinstance(await settled(cache.get("a")), (ServerGone, ServerTimeout))
        assert time.monotonic() - started <= 2 * LIMIT + SLACK

    took = []
    for _ in range(100):
        started = time.monotonic()
        assert type(await settled(cache.get("a"))) is CircuitOpen
        took.append(time.monotonic() - started)

    print(f"{how}, {face}: {median(took) * 1e6:.0f} µs")
    assert median(took) < 0.001
    assert journal.events == ["outage"]


async def test_breaker_options(face, mortal):
    """BREAKER_FAILURES and BREAKER_COOLDOWN say when it opens and how often is tried."""
    options = {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.05}
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": options}), face)
    await cache.set("a", 1)
    mortal.kill()

    assert type(await settled(cache.get("a"))) is NeverSent
    assert type(await settled(cache.get("a"))) is CircuitOpen
    mortal.restart()
    time.sleep(0.05)
    assert await cache.get("a") is None


async def test_nobody_listens(face):
    """A port where nobody listens is known at once."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        cache = Face(Cache(f"redis://127.0.0.1:{unused.getsockname()[1]}/0", {"OPTIONS": HASTY}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))

    assert type(error) is NeverSent
    assert "Error 111" in str(error)
    assert time.monotonic() - started < LIMIT


async def test_packets_that_nobody_answers(face):
    """Where connecting is not even refused, it ends with its own limit."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The queue of a socket that nobody accepts from is full; further packets are dropped.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        cache = Face(Cache(f"redis://127.0.0.1:{port}/0", {"OPTIONS": HASTY}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))
        took = time.monotonic() - started
        for one in waiting:
            one.close()

    assert type(error) is ServerTimeout
    assert LIMIT * 0.9 <= took <= 2 * LIMIT + SLACK


async def test_a_large_value_for_a_server_that_does_not_read(face, mortal):
    """Sending has a deadline as well, and those who wait behind a large value keep theirs."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), face)
    await cache.set("a", 1)
    mortal.pause()

    for operation in (lambda: cache.set("large", bytes(30_000_000)), lambda: cache.get("a")):
        started = time.monotonic()
        assert isinstance(await settled(operation()), (ServerGone, ServerTimeout))
        assert time.monotonic() - started <= 2 * LIMIT + SLACK
    mortal.resume()


async def test_a_reply_in_drops(face, mortal, proxy):
    """Each drop of a reply does not have the whole limit anew."""
    cache = Face(Cache(proxy.url(), {"OPTIONS": HASTY}), face)
    Cache(mortal.url()).set("large", bytes(8_000_000))
    proxy.delay(LIMIT / 3)

    started = time.monotonic()
    error = await settled(cache.get("large"))

    assert type(error) is ServerTimeout
    assert time.monotonic() - started <= 2 * LIMIT + SLACK


def test_shards_are_away_together(mortal):
    """Waiting for several servers takes no longer than waiting for one."""
    from fleetcache.client import ShardClient
    from fleetcache.testing import valkey_server

    with valkey_server() as second, valkey_server() as third:
        servers = (mortal, second, third)
        cache = ShardClient([server.tcp_url() for server in servers], {"OPTIONS": HASTY})
        keys = {f"key{number}": number for number in range(50)}
        cache.set_many(keys)
        assert cache.get_many(keys) == keys
        for server in servers:
            server.pause()

        started = time.monotonic()
        with pytest.raises(ServerTimeout):
            cache.get_many(keys)
        took = time.monotonic() - started

        for server in servers:
            server.resume()
    assert took <= 2 * LIMIT + SLACK / 2


def test_a_crowd_at_the_end_of_an_outage(mortal):
    """Threads that come while the one who tries is under way are refused, not queued."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.1}})
    cache.set("a", 1)
    mortal.pause()
    with pytest.raises(ServerTimeout):
        cache.get("a")
    time.sleep(0.1)
    trying = threading.Thread(target=lambda: pytest.raises(ServerTimeout, cache.get, "a"))
    trying.start()
    time.sleep(0.02)

    started = time.monotonic()
    with pytest.raises(CircuitOpen):
        cache.get("a")

    assert time.monotonic() - started < 0.05
    trying.join(5)
    mortal.resume()
