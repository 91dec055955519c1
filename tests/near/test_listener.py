"""The one thread and connection that listen: how they live, rest, fork and end, and what a fence asks of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from tests.forks import ended_well, in_child
from tests.sockets import sockets
from tests.waiting import until

from fleetcache import Cache
from fleetcache.near import listener as listening
from fleetcache.near import pauses
from fleetcache.near.stages import State
from fleetcache.near.tracking import Tracking
from fleetcache.testing import FaultProxy, tracked

from .conftest import calls, copied, copy, listeners, one_face

pytestmark = pytest.mark.alone

# One for all --------------------------------------------------------------------------------------


def told(raw: Any) -> int:
    """Return how many connections to the server are told what changes."""
    return sum("B" in client["flags"] for client in raw.client_list())


@one_face
async def test_one_listener_for_all(near, raw, copies):
    """However many threads, tasks, loops and objects read, there is one thread, and one connection."""
    connections = told(raw)
    await near.set("key", "value")
    settings = near.settings
    params = {"KEY_PREFIX": settings.key_prefix, "OPTIONS": {"NEAR": {"DOORKEEPER": False}}}
    made = [Cache(settings.location[0].url, params) for _ in range(50)]
    seen: list[Any] = []

    async def tasks() -> None:
        seen.extend(await asyncio.gather(*(cache.aget("key") for cache in made)))

    def work() -> None:
        seen.extend(cache.get("key") for cache in made)
        asyncio.run(tasks())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == ["value"] * 8 * 2 * 50
    assert told(raw) == connections
    assert {cache.near for cache in made} == {near.near}
    (listener,) = listeners(near.near)
    assert listener.thread.is_alive()
    assert listener.thread.daemon


def test_nothing_is_done_before_the_first_read(valkey):
    """Making a cache, and writing, starts no thread and connects no listener."""
    cache = Cache(valkey.url(9), {"KEY_PREFIX": "unread", "OPTIONS": {"NEAR": True}})

    cache.set("key", 1)
    cache.delete("key")
    cache.fence()

    assert [listener.thread for listener in listeners(cache.near)] == [None]
    assert cache.info()["near"]["state"] == "connecting"


@one_face
async def test_sleep(copies, raw):
    """Who is not read does not listen; the next read begins anew, and finds what was written meanwhile."""
    near = copies(near={"MAX_TTL": 0.1})
    connections = told(raw)
    await near.set("key", 1)
    await copied(near, "key")
    (listener,) = listeners(near.near)
    until(lambda: listener.thread is None)
    assert near.near.state == "asleep"
    assert near.near.why.endswith("nobody reads")
    until(lambda: told(raw) == connections - 1)
    raw.set(near.make_key("key"), 2)

    assert await near.get("key") == 2

    until(lambda: near.near.state == "live")
    assert await copied(near, "key") == 2


async def test_readers_keep_it_awake(near):
    """Hits are reads too: what counts is when somebody last looked."""
    await near.set("key", 1)
    await copied(near, "key")
    used, misses = near.near.sole.used, near.near.counts.misses

    until(lambda: near.whole.get("key") == 1 and near.near.sole.used > used)

    assert near.near.counts.misses == misses


@one_face
async def test_a_listener_that_fails_starts_anew(near, raw, caplog):
    """A bug in it ends the epoch, is logged, and does not end the thread."""
    await near.set("key", 1)
    await copied(near, "key")
    (listener,) = listeners(near.near)
    thread, tick = listener.thread, listener.tracking.tick

    def fail(now: float) -> float:
        listener.tracking.tick = tick
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "fleetcache.near"):
        listener.tracking.tick = fail
        until(lambda: near.near.events.epochs.get("interrupt"))
    raw.set(near.make_key("key"), 2)

    assert await near.get("key") == 2
    until(lambda: near.near.state == "live")
    assert listener.thread is thread
    assert "ZeroDivisionError" in caplog.text


@one_face
async def test_a_listener_that_goes_on_failing(near, monkeypatch, caplog):
    """What fails each time, such as for want of descriptors, is told once, and tried again ever more slowly."""
    monkeypatch.setattr(pauses, "RETRIES", (0.001, 0.001))
    connects = near.near.events.connects

    class Selector:
        def __init__(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    with caplog.at_level(logging.DEBUG, "fleetcache.near"):
        monkeypatch.setattr(listening.selectors, "DefaultSelector", Selector)
        listeners(near.near)[0].tracking.tick = lambda now: 1 // 0  # which ends the connection that is there
        until(lambda: near.near.events.connects > connects + 10)
        monkeypatch.undo()
        del listeners(near.near)[0].tracking.tick
        until(lambda: near.whole.get("key") is None and near.near.state == "live")

    assert (
        sum("Too many open files" in each.getMessage() or "EMFILE" in each.getMessage() for each in caplog.records) <= 1
    )
    assert sum(each.exc_info is not None for each in caplog.records) == 2


@pytest.mark.parametrize("where", ["connect", "receive"])
@one_face
async def test_a_bug_behind_an_outage(near, raw, monkeypatch, caplog, where):
    """Dead already, it says once, as a warning or worse, that there is another reason."""
    monkeypatch.setattr(pauses, "RETRIES", (0.001, 0.001))
    (listener,) = listeners(near.near)
    tracking, connects = listener.tracking, near.near.events.connects

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    if where == "connect":
        monkeypatch.setattr(listening, "socket_of", fail)
    else:
        monkeypatch.setattr(tracking, "_named", fail)
    with caplog.at_level(logging.WARNING, "fleetcache.near"):
        listener.gate.run(listener.give_up, "connection", State.DEAD, "the server is away")
        until(lambda: near.near.events.connects > connects + 10)
    monkeypatch.undo()

    found = [each.getMessage() for each in caplog.records if each.name == "fleetcache.near"]
    assert sum("near cache dead: the server is away" in each for each in found) == 1
    assert sum("near cache dead: ZeroDivisionError: a bug" in each for each in found) == 1
    assert len(found) == (3 if where == "connect" else 2)  # with the bug's traceback
    until(lambda: near.whole.get("key") is None and near.near.state == "live")


@one_face
async def test_why_it_did_not_wake_up(near, monkeypatch, caplog):
    """Asleep, it says as a warning, once, why it cannot become live again."""
    monkeypatch.setattr(pauses, "RETRIES", (0.001, 0.001))
    (listener,) = listeners(near.near)
    with caplog.at_level(logging.WARNING, "fleetcache.near"):
        monkeypatch.setattr(listening, "socket_of", Mock(side_effect=OSError("no route")))
        listener.gate.run(listener.give_up, "idle", State.ASLEEP, "nobody reads")
        connects = near.near.events.connects
        until(lambda: near.whole.get("key") is None and near.near.events.connects > connects + 5)
        monkeypatch.undo()
        until(lambda: near.whole.get("key") is None and near.near.state == "live")

    found = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [each.partition("near cache ")[2] for each in found] == ["dead: no route"]


class SoftLimit(Exception):
    """What a time limit's signal raises: Celery's, RQ's."""


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SoftLimit, TimeoutError], ids=lambda kind: kind.__name__)
async def test_an_interrupt_while_announcements_are_applied(near, raw, monkeypatch, interrupt):
    """Ctrl-C, or a time limit's signal, in the middle of a reader's look passes, and loses no announcement."""
    await near.set("key", 1)
    await copied(near, "key")
    (listener,) = listeners(near.near)
    listener._catch_up = lambda: time.sleep(0.001)  # for this reader to be the one that looks
    invalidated = Tracking.invalidated

    def interrupted(self: Any, name: str) -> None:
        if name == near.make_key("key") and threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(Tracking, "invalidated", invalidated)
            signal.raise_signal(signal.SIGALRM)
        invalidated(self, name)

    def limit(number: int, frame: Any) -> None:
        raise interrupt

    monkeypatch.setattr(Tracking, "invalidated", interrupted)
    before = signal.signal(signal.SIGALRM, limit)
    raw.set(near.make_key("key"), 2)
    with pytest.raises(interrupt):
        deadline = time.monotonic() + 2
        while await near.get("key") == 1:
            assert time.monotonic() < deadline
    signal.signal(signal.SIGALRM, before)

    assert Tracking.invalidated is invalidated
    assert await near.get("key") == 2


# Fences -------------------------------------------------------------------------------------------


@one_face
def test_a_fence_that_fails_its_caller(copies, valkey, face):
    """What goes wrong when somebody is told that a fence was passed keeps nobody else waiting."""
    with FaultProxy(valkey.socket) as proxy:
        near = copies(proxy.url(9), {"T_LIVE": 10}, socket_timeout=5).near
        (listener,) = listeners(near)
        thread = listener.thread
        proxy.hold(tracked)

        assert listener.fence(time.clock_gettime(time.CLOCK_BOOTTIME), lambda: 1 // 0)
        other = threading.Thread(target=near.fence)
        other.start()
        until(lambda: len(listener.tracking.waiters) == 2)
        proxy.heal()
        other.join(2)

        assert not other.is_alive()
        assert listener.thread is thread
        until(lambda: near.state == "live")


@one_face
def test_an_abandoned_fence(copies, valkey, face):
    """A fence whose loop is closed before the server has answered leaves nothing behind."""
    with FaultProxy(valkey.socket) as proxy:
        cache = copies(proxy.url(9), {"T_LIVE": 10}).whole
        proxy.hold(tracked)

        async def hasty() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(cache.afence(), 0.02)

        run(hasty())
        proxy.heal()
        began = time.monotonic()
        cache.fence()

        assert time.monotonic() - began < 1
        assert cache.near.state == "live"
        assert cache.near.events.epochs == {}


def test_fences_share_questions(copies, valkey, raw, face):
    """Hundreds that wait at the same time cost the server a handful of questions."""
    with FaultProxy(valkey.socket) as proxy:
        cache = copies(proxy.url(9), {"T_LIVE": 10}).whole
        proxy.delay(0.03)
        before, began = calls(raw, "set"), time.monotonic()

        if face == "blocking":
            threads = [threading.Thread(target=cache.fence) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:

            async def crowd() -> None:
                await asyncio.gather(*(cache.afence() for _ in range(400)))

            run(crowd())

        assert 0.03 <= time.monotonic() - began < 1
        assert 1 <= calls(raw, "set") - before <= 8


def run(main: Any) -> None:
    """Run a coroutine in a loop without Python's development mode, which is ten times slower."""
    with asyncio.Runner(debug=False) as runner:
        runner.run(main)


@one_face
async def test_fences_at_a_distance(copies, valkey):
    """Fences that come faster than answers do not keep the near cache from being live."""
    with FaultProxy(valkey.socket) as proxy:
        proxy.delay(0.03)
        near = copies(proxy.url(9), live=False)
        await near.get("key")

        until(lambda: [near.whole.fence(), time.sleep(0.005)] and near.near.state == "live", 3)


async def test_a_fence_without_an_answer(copies, valkey, raw):
    """It waits for SOCKET_TIMEOUT, the next ones do not; and until the server has answered, nothing is served from copies."""
    with FaultProxy(valkey.socket) as proxy:
        near = copies(proxy.url(9), {"T_LIVE": 5}, socket_timeout=0.2)
        await near.set("key", 1)
        await copied(near, "key")
        proxy.hold(tracked)
        raw.set(near.make_key("key"), 2)
        assert await near.get("key") == 1  # nobody has heard of it

        began = time.monotonic()
        await near.fence()
        first = time.monotonic() - began
        assert await near.get("key") == 2
        began = time.monotonic()
        for number in range(3, 20):
            raw.set(near.make_key("key"), number)
            await near.fence()
            assert await near.get("key") == number
        rest = time.monotonic() - began

        assert 0.19 <= first < 1
        assert rest < 1
        proxy.heal()
        until(lambda: near.whole.get("key") == 19 and near.near.state == "live")
        assert await copied(near, "key") == 19


@one_face
async def test_a_fence_that_the_connection_does_not_live_to_see(copies, valkey):
    """When the listening connection is lost, who waits at a fence is let go at once."""
    with FaultProxy(valkey.socket) as proxy:
        near = copies(proxy.url(9), {"T_LIVE": 10}, socket_timeout=5)
        await copied(near, "key")
        proxy.hold(tracked)
        waited: list[float] = []

        def fence() -> None:
            began = time.monotonic()
            near.whole.fence()
            waited.append(time.monotonic() - began)

        thread = threading.Thread(target=fence)
        thread.start()
        until(lambda: near.near.sole.tracking.waiters)
        proxy.reset(tracked)
        thread.join()

        assert waited[0] < 2
        proxy.heal()


# Forks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tls"])
@one_face
def test_fork(copies, valkey, kind, request):
    """A child begins with nothing and listens by itself; the parent's copies and connection are as they were."""
    url = valkey.url(9) if kind == "unix" else request.getfixturevalue("tls").tls_url(9)
    near = copies(url)
    cache = near.whole
    cache.set("key", 1)
    cache.fence()
    until(lambda: cache.get("key") == 1 and cache.near.store.hits > 3)
    (listener,) = listeners(cache.near)
    sock, epochs, entry = listener.sock, dict(cache.near.events.epochs), cache.near.copies[cache.make_key("key")]

    def child() -> None:
        assert cache.near.copies == {}
        assert cache.near.store.hits == 0
        assert cache.near.state == "connecting"
        assert listener.thread is None
        assert sock.fileno() == -1
        assert cache.get("key") == 1
        until(lambda: cache.get("key") == 1 and cache.near.store.hits > 3)
        assert cache.near.state == "live"
        assert asyncio.run(cache.aget("key")) == 1
        cache.set("key", 2)
        cache.fence()
        assert cache.get("key") == 2
        assert listener.sock is not sock

    assert ended_well(in_child(child))

    assert listener.sock is sock
    assert cache.near.events.epochs == epochs
    assert entry.hits > 3
    cache.fence()
    assert cache.get("key") == 2
    assert cache.near.state == "live"


@one_face
def test_fork_in_the_middle(copies, face):
    """Whatever the parent's threads are doing with the near cache, a child of that moment is well."""
    cache = copies().whole
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cache.set(f"key{number % 50}", number)
            cache.get(f"key{number % 40}")
            cache.fence()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:

        def child() -> None:
            cache.set("mine", 1)
            cache.fence()
            assert cache.get("mine") == 1
            until(lambda: cache.get("mine") == 1 and cache.near.state == "live" and cache.near.store.hits)

        assert [ended_well(in_child(child)) for _ in range(2)] == [True] * 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    until(lambda: cache.near.state == "live")
    assert cache.near.events.epochs == {}


# Ends ---------------------------------------------------------------------------------------------

BEGIN = """
import asyncio, sys, threading, time
from fleetcache import Cache
cache = Cache(sys.argv[1], {"KEY_PREFIX": "exit", "OPTIONS": {"NEAR": True}})
def live():
    deadline = time.monotonic() + 5
    while cache.near.state != "live":
        cache.get("key")
        assert time.monotonic() < deadline
        time.sleep(0.001)
"""

EXITS = {
    "live": "cache.set('key', 1); live(); cache.get('key'); cache.fence()",
    "connecting": "cache.get('key')",
    "asyncio": """
        async def main():
            await cache.aset("key", 1)
            while cache.near.state != "live":
                await cache.aget("key")
            await cache.afence()
            assert await cache.aget("key") == 1
        asyncio.run(main())
    """,
    "asyncio left": """
        async def main():
            asyncio.create_task(cache.afence())
            await cache.aget("key")
        asyncio.run(main())
        live()
        asyncio.run(main())
    """,
    "readers": """
        def read():
            while True:
                cache.get("key")
                cache.set("key", 1)
        for _ in range(3):
            threading.Thread(target=read, daemon=True).start()
        live()
    """,
    "read at exit": """
        import atexit
        atexit.register(lambda: (cache.get("key"), cache.fence()))
    """,
}


@pytest.mark.parametrize("script", EXITS.values(), ids=EXITS)
def test_exit(valkey, script):
    """A process that ends with a live listener ends at once and in silence."""
    code = BEGIN + textwrap.dedent(script)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, valkey.url(9)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 10


@one_face
async def test_nothing_is_left(copies, raw):
    """A near cache that was closed has no thread and no connection, serves nothing, and harms no call."""
    near = copies()
    await near.set("key", 1)
    await copied(near, "key")
    (listener,) = listeners(near.near)
    connections, open_sockets = told(raw), sockets()

    near.near.close()

    until(lambda: listener.thread is None)
    until(lambda: told(raw) == connections - 1)
    assert sockets() <= open_sockets - 1
    assert near.near.state == "asleep"
    raw.set(near.make_key("key"), 2)
    assert await near.get("key") == 2
    await near.fence()
    assert copy(near, near.make_key("key")) is None
