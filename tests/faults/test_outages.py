"""The server dies, freezes, vanishes or hangs up under load: every call ends in time, with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import redis
from tests.load import CROWDS, EVERYTHING, NOTHING, Load

from fleetcache import Cache
from fleetcache.errors import CircuitOpen, ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.testing import FaultProxy
from fleetcache.testing.servers import EmbeddedServer

from .deadlines import HASTY, LIMIT, SLACK

pytestmark = [pytest.mark.timeout(60), pytest.mark.alone]

Deed = Callable[[EmbeddedServer, FaultProxy], object]


@dataclass(frozen=True)
class Outage:
    """How a server goes away, and how it comes back."""

    begin: Deed
    end: Deed
    loses: str = NOTHING
    """What is gone when the server is back."""


def _vanish(server: EmbeddedServer, proxy: FaultProxy) -> None:
    proxy.blackhole()
    proxy.reset()


OUTAGES = {
    "killed": Outage(lambda server, proxy: server.kill(), lambda server, proxy: server.restart(), loses=EVERYTHING),
    "stopped": Outage(lambda server, proxy: server.pause(), lambda server, proxy: server.resume()),
    "silent": Outage(lambda server, proxy: proxy.hold(), lambda server, proxy: proxy.heal()),
    "unreachable": Outage(_vanish, lambda server, proxy: proxy.heal()),
}


def _kill_clients(server: EmbeddedServer, proxy: FaultProxy) -> None:
    with redis.Redis.from_url(server.url()) as other:
        other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


LOSSES: dict[str, Deed] = {
    "reset": lambda server, proxy: proxy.reset(),
    "cut in a reply": lambda server, proxy: proxy.cut_after(9),
    "killed by the server": _kill_clients,
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_under_load(name, face, mortal, proxy, journal):
    """No call outlasts its deadline, no answer is wrong, all is well within 2 s, and it is logged once."""
    outage = OUTAGES[name]
    direct = name in {"killed", "stopped"}
    cache = Cache(mortal.tcp_url() if direct else proxy.url(), {"OPTIONS": HASTY})

    with Load(cache, **CROWDS[face], loses=outage.loses) as load:
        began = time.monotonic()
        outage.begin(mortal, proxy)
        time.sleep(2.2 * LIMIT)
        outage.end(mortal, proxy)
        back = time.monotonic()
        load.wait_for_success(back)
        recovered = max(load.last_failure(back), 0)
        time.sleep(0.1)

    print(
        f"{name}, {face}: slowest {load.slowest:.2f} s (lag {load.lag:.2f} s), last failure {recovered:.2f} s after, {load.calls} calls"
    )
    assert load.wrong == []
    assert load.slowest <= 2 * LIMIT + SLACK + 2 * load.lag
    assert recovered <= 2 + 2 * load.lag
    assert any(moment >= began for moment, _ in load.failures)
    kinds = {CircuitOpen, ConnectionLost, NeverSent, ServerGone, ServerTimeout}
    assert {type(error) for _, error in load.failures} <= kinds
    assert journal.events[:2] == ["outage", "recovery"], journal.lines
    # A machine so busy that connecting takes seconds has outages of its own making.
    assert len(journal.events) == 2 or load.lag > LIMIT / 4, journal.lines


@pytest.mark.parametrize("name", LOSSES)
def test_connections_lost_under_load(name, face, mortal, proxy, journal):
    """Lost connections are replaced at once; only what may have run and must not run twice is an error."""
    cache = Cache(proxy.url(), {"OPTIONS": HASTY})

    with Load(cache, **CROWDS[face]) as load:
        for _ in range(3):
            LOSSES[name](mortal, proxy)
            recovered = load.wait_for_success(time.monotonic())
            assert recovered <= 1 + 2 * load.lag

    print(
        f"{name}, {face}: slowest {load.slowest:.2f} s (lag {load.lag:.2f} s), {len(load.failures)} of {load.calls} failed"
    )
    assert load.wrong == []
    assert load.slowest <= 2 * LIMIT + SLACK + 2 * load.lag
    assert {type(error) for _, error in load.failures} <= {ConnectionLost}
    assert journal.events == ["outage", "recovery"] * (len(journal.events) // 2), journal.lines
    assert len(journal.events) <= 6
    for worker in load.workers:
        total = cache.get(worker.counter, 0)
        assert worker.counted <= total <= worker.counted + worker.perhaps


def test_a_restart_without_traffic_goes_unnoticed(face, mortal, journal):
    """A connection found dead before anything was sent is replaced without an error, for INCR too."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": HASTY})
    with Load(cache, **CROWDS[face]) as load:
        pass
    assert load.failures == []
    mortal.restart()

    assert cache.incr("n", default=0) == 1
    assert cache.set("a", 1) is True
    assert journal.events == []
