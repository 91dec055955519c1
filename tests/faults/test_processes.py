"""Children that C code forks, of which Python does not hear: each is as well as one that Python forked.

They are forked while no other thread of the parent wants the interpreter.  One that does is waited for in the child for
ever, by CPython itself.  (So near caches, whose threads wake up now and then, see uWSGI's way of forking.)
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from tests import nearby
from tests.forks import ended_well, in_child
from tests.waiting import until

from fleetcache import Cache, forks
from fleetcache.client import ShardClient
from fleetcache.errors import CircuitOpen, TooManyConnections
from fleetcache.servers import memory
from fleetcache.servers.remote import RemoteServer

pytestmark = [
    # Threads of other tests, which are not in the child, may have the interpreter as C forks, and the objects of thousands of
    # tests make a child slow.
    pytest.mark.alone,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

ROUNDS = 30
Ask = Callable[[str], Any]


@pytest.fixture(autouse=True, scope="module")
def _others_rest():
    with nearby.at_rest():
        yield


prefixes = (f"fork{number}" for number in count())


def near_by(location: Any, kind: type[Cache] = Cache) -> Cache:
    """Return a cache with a near cache of this test alone, whose thread rests for long."""
    return kind(location, {"KEY_PREFIX": next(prefixes)}, near={"T_LIVE": 3})


KINDS: dict[str, Callable[[Ask], Cache]] = {
    "unix": lambda ask: Cache(ask("valkey").url(3)),
    "tcp": lambda ask: Cache(ask("valkey").tcp_url(3)),
    "limited": lambda ask: Cache(ask("valkey").tcp_url(3), {"OPTIONS": {"MAX_CONNECTIONS": 1}}),
    "shards": lambda ask: ShardClient([ask("valkey").url(number) for number in (3, 4, 5)]),
    "replicas": lambda ask: Cache([ask("valkey").url(3), ask("valkey").tcp_url(3)]),
    "nearest": lambda ask: Cache(
        [ask("valkey").url(3), ask("valkey").tcp_url(3)], {"OPTIONS": {"READ_FROM": "nearest"}}
    ),
    "sentinel": lambda ask: Cache(ask("watched_servers").url(3)),
    "cluster": lambda ask: Cache(ask("valkey_cluster").url()),
    "tls": lambda ask: Cache(ask("tls").tls_url(3)),
    "embedded": lambda ask: Cache("embedded://"),
    "memory": lambda ask: Cache("memory://forked"),
    "near": lambda ask: near_by(ask("valkey").tcp_url(3)),
    "near tls": lambda ask: near_by(ask("tls").tls_url(3)),
    "near shards": lambda ask: near_by([ask("valkey").url(number) for number in (3, 4)], ShardClient),
    "near sentinel": lambda ask: near_by(ask("watched_servers").url(3)),
    "near cluster": lambda ask: near_by(ask("valkey_cluster").url()),
}


def grow_near(cache: Cache) -> None:
    """Have a near cache that is live, and the threads of this process at rest."""
    if cache.near is not None:
        until(
            lambda: (cache.get_many(["boot", *map(str, range(20))]), cache.near.state == "live")[1],
            why=cache.near.stats,
        )
        time.sleep(0.03)


async def rounds(cache: Cache, name: str, count: int = ROUNDS) -> None:
    """Use the awaiting face, and check every answer."""
    for number in range(count):
        mine = f"{name}-{number % 7}"
        assert await cache.aset(mine, f"{mine}={number}") is True
        assert await cache.aget(mine) == f"{mine}={number}"
        assert await cache.aget("boot") == 1
    await cache.afence()
    assert await asyncio.gather(*(cache.aget(mine) for _ in range(10))) == [f"{mine}={number}"] * 10


def blocking_rounds(cache: Cache, name: str, count: int = ROUNDS) -> None:
    """Use the blocking face, and check every answer."""
    for number in range(count):
        mine = f"{name}-{number % 7}"
        assert cache.set(mine, f"{mine}={number}") is True
        assert cache.get(mine) == f"{mine}={number}"
        assert cache.get_many(["boot", mine]) == {"boot": 1, mine: f"{mine}={number}"}
    cache.fence()


def in_a_loop(work: Callable[[], Any]) -> None:
    """Run a coroutine in a new thread: to Python the loop in which its parent forked is still running."""
    errors: list[BaseException] = []

    def main() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def child(cache: Cache, face: str, name: str) -> None:
    if face == "blocking":
        blocking_rounds(cache, name)
    else:
        in_a_loop(lambda: rounds(cache, name))
    if cache.near is not None:
        grow_near(cache)
        began = time.monotonic()
        cache.fence()
        assert time.monotonic() - began < 2
        until(lambda: (cache.get("boot"), cache.near.store.hits)[1])
    cache.close()


@pytest.mark.parametrize("kind", KINDS)
def test_children_of_c(kind, face, request, tmp_path, monkeypatch):
    """Parent and children use their cache at once, forked in a running loop or outside, and everybody gets his own values."""
    monkeypatch.chdir(tmp_path)
    cache = KINDS[kind](request.getfixturevalue)
    cache.set("boot", 1)
    gate, start = os.pipe()
    ended = cache.near is not None and cache.near.events.epochs.copy()  # of an earlier run: the servers are shared

    def begin(number: int) -> int:
        by = "c" if cache.near is None else "uwsgi"
        return in_child(lambda: (os.read(gate, 1), child(cache, face, f"child{number}")), by)

    async def main() -> None:
        await cache.aget("boot")
        grow_near(cache)
        children.extend(map(begin, range(3)))
        os.write(start, b"xxx")
        await rounds(cache, "parent")
        outcomes.extend([await asyncio.to_thread(ended_well, pid) for pid in children])
        await rounds(cache, "parent", 5)

    children: list[int] = []
    outcomes: list[bool] = []
    if face == "awaiting":
        asyncio.run(main())
    else:
        grow_near(cache)
        children.extend(map(begin, range(3)))
        os.write(start, b"xxx")
        blocking_rounds(cache, "parent")
        outcomes.extend(map(ended_well, children))
    blocking_rounds(cache, "parent", 5)
    for end in (gate, start):
        os.close(end)

    assert outcomes == [True] * 3
    if cache.near is not None:
        grow_near(cache)
        assert cache.near.events.epochs == ended
        cache.near.close()


@pytest.mark.parametrize("ways", [("c", "c"), ("c", "python"), ("python", "c"), ("c", "c", "c")], ids="-".join)
def test_children_of_children(ways, valkey):
    """It makes no difference which of them used the cache before it forked."""
    cache = Cache(valkey.url(3), {"KEY_PREFIX": "nested"})

    def generation(left: tuple[str, ...], uses: bool) -> None:
        if uses:
            blocking_rounds(cache, f"{os.getpid()}", 5)
        if left:
            assert ended_well(in_child(lambda: generation(left[1:], uses), left[0]))
        blocking_rounds(cache, f"{os.getpid()}", 5)

    cache.set("boot", 1)
    generation(ways, uses=True)
    generation(ways, uses=False)


def test_garbage_of_other_tests():
    """Threads that ended long ago, and that nobody joined, are no danger to the threads of a child."""

    def leave() -> None:
        thread = threading.Thread(target=int, daemon=True)
        thread.start()
        until(lambda: not thread.is_alive())
        thread.itself = thread  # type: ignore[attr-defined]  # a cycle

    def work() -> None:
        ended = threading.Event()
        threads = [threading.Thread(target=ended.wait) for _ in range(3)]
        for each in threads:
            each.start()
        gc.collect()
        ended.set()
        for each in threads:
            each.join()

    for _ in range(3):
        leave()
    assert ended_well(in_child(work, "c"))


# The near cache -----------------------------------------------------------------------------------


@pytest.fixture
def near(valkey):
    """A near cache that is live, and has a copy of ``boot``."""
    cache = near_by(valkey.tcp_url(3))
    cache.set("boot", 1)
    grow_near(cache)
    until(lambda: (cache.get("boot"), cache.near.copies)[1])
    time.sleep(0.03)
    yield cache
    cache.near.close()


def test_a_child_reads_nothing_of_its_parent_s_announcements(near):
    """Whatever the child does with its copies, the parent receives every announcement."""
    name = near.make_key("boot")
    near.fence()
    before = near.near.events.pushes
    waitpid = ctypes.PyDLL(None).waitpid  # which keeps the interpreter: no thread of the parent's reads meanwhile

    def work() -> None:
        raw = near.get_client()
        for number in range(11, 21):
            raw.set(name, number)
            near.get("boot")
            in_a_loop(lambda: near.aget("boot"))
            near.get_many(["boot", "other"])

    pid = in_child(work, "uwsgi")
    status = ctypes.c_int()
    assert waitpid(pid, ctypes.byref(status), 0) == pid
    assert status.value == 0

    near.fence()
    assert near.get("boot") == 20
    assert near.near.events.pushes - before >= 10  # and canaries of the child
    assert near.near.events.epochs == {}


def test_a_child_serves_copies_of_its_parent_s_no_longer_than_these_are_good_for(near):
    """Writes that others make after the fork are seen within the time that is promised, its own at once."""
    raw = near.get_client()
    name = near.make_key("boot")
    near.get("boot")

    def work() -> None:
        raw.set(name, 2)
        acknowledged = time.monotonic()
        until(lambda: near.get("boot") == 2)
        assert time.monotonic() - acknowledged < 0.2  # and not 3
        assert near.set("boot", 3)
        assert near.get("boot") == 3

    def writes_at_once() -> None:
        assert near.set("boot", 4)
        assert near.get("boot") == 4
        assert near.near.store.hits == 0

    assert ended_well(in_child(work, "uwsgi"))
    near.fence()
    assert near.get("boot") == 3
    until(lambda: near.get("boot") and near.near.store.hits)
    time.sleep(0.03)
    assert ended_well(in_child(writes_at_once, "uwsgi"))


def test_copies_without_announcements_end_in_children_too(tmp_path):
    """Where a server announces nothing, a child keeps no copy beyond its own first call to a server."""
    from fleetcache.testing import valkey_server

    with valkey_server() as server:
        cache = Cache(server.url(), {"OPTIONS": {"protocol": 2, "NEAR": {"UNTRACKED_TTL": 60}}})
        cache.set("boot", 1)
        until(lambda: (cache.get("boot"), cache.near.store.hits)[1])
        time.sleep(0.03)

        def work() -> None:
            assert cache.set("boot", 2)
            assert cache.get("boot") == 2

        assert ended_well(in_child(work, "uwsgi"))


# Locks that are held ------------------------------------------------------------------------------


def held(lock: Any) -> Callable[[], None]:
    """Let another thread hold *lock* until what is returned is called."""
    has, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    has.wait()
    time.sleep(0.02)  # it rests by now
    return lambda: (done.set(), thread.join())  # type: ignore[func-returns-value]


@pytest.mark.parametrize("by", ["python", "uwsgi"])
@pytest.mark.parametrize("what", ["changes", "sharing", "settings", "batches", "turn", "map"])
def test_locks_that_others_hold(what, by, near, request):
    """A child waits for no thread that is not there."""
    cache = near
    if what == "batches" and by == "python":
        pytest.skip("Python's forks wait for the batch")
    if what == "batches":
        cache = Cache("memory://held")
    elif what == "turn":
        cache = Cache(request.getfixturevalue("watched_servers").url(3))
    elif what == "map":
        cache = Cache(request.getfixturevalue("valkey_cluster").url())
    cache.set("boot", 1)
    time.sleep(0.03)
    locks = {
        "changes": lambda: near.near.lock,
        "sharing": lambda: sys.modules["fleetcache.cache"]._shared.guard.lock,
        "settings": lambda: sys.modules["fleetcache.settings"]._shared.guard.lock,
        "batches": lambda: memory._batches.lock,
        "turn": lambda: cache.topology.primary.sentinels.turn,
        "map": lambda: cache.topology.turn.lock,
    }

    def work() -> None:
        blocking_rounds(cache, "child", 10)
        if what != "batches":
            in_a_loop(lambda: rounds(cache, "child", 10))
        assert Cache("memory://new", {"KEY_PREFIX": f"new{os.getpid()}"}).set("a", 1)

    let_go = held(locks[what]())
    try:
        assert ended_well(in_child(work, by), 5)
    finally:
        let_go()
    assert cache.get("boot") == 1


def test_a_map_that_is_being_learnt(valkey_cluster):
    """A child learns the map itself if its parent was about to, and does not wait."""
    cache = Cache(valkey_cluster.url(), {"KEY_PREFIX": "map"})
    cache.set("boot", 1)
    cache.topology.busy = time.monotonic() + 60

    def work() -> None:
        assert cache.topology.busy == 0
        blocking_rounds(cache, "child", 5)
        assert cache.topology.redirects["learnt"] == 1

    assert ended_well(in_child(lambda: (cache.get("boot"), work()), "c"), 5)
    assert ended_well(in_child(work, "python"), 5)
    cache.topology.busy = 0.0


@pytest.mark.parametrize("by", ["python", "c"])
def test_places_under_a_limit(by, mortal):
    """A child has all places, however many its parent's threads have taken."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"MAX_CONNECTIONS": 2}})
    cache.set("boot", 1)
    mortal.pause()
    threads = [threading.Thread(target=cache.get, args=("boot",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    with pytest.raises(TooManyConnections):
        cache.get("boot")

    pid = in_child(lambda: blocking_rounds(cache, "child"), by)
    time.sleep(0.05)
    mortal.resume()
    for thread in threads:
        thread.join()

    assert ended_well(pid)
    blocking_rounds(cache, "parent", 5)


def test_a_breaker_that_is_open(mortal):
    """A child knows what its parent knew of the server's health, and finds it well by itself."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"BREAKER_COOLDOWN": 0.3}})
    cache.set("boot", 1)
    mortal.kill()
    for _ in range(5):
        with pytest.raises(Exception):
            cache.get("boot")
    mortal.restart()

    def work() -> None:
        with pytest.raises(CircuitOpen):
            cache.set("boot", 1)
        time.sleep(0.35)
        cache.set("boot", 1)
        blocking_rounds(cache, "child", 5)

    assert ended_well(in_child(work, "c"))


# The rest -----------------------------------------------------------------------------------------


def test_counters_and_chances_are_a_child_s_own(valkey):
    """A child counts from zero, and draws other numbers than its parent and its siblings."""
    cache = Cache(valkey.url(3), {"KEY_PREFIX": "counters"})
    cache.stats.unreadable = 3
    reader, writer = os.pipe()

    def work() -> None:
        cache.set("boot", 1)
        assert cache.stats.unreadable == 0
        os.write(writer, forks.chance.randbytes(8))

    random.seed(1)
    assert all(ended_well(in_child(work, "c")) for _ in range(3))
    drawn = [os.read(reader, 8) for _ in range(3)]
    drawn.append(forks.chance.randbytes(8))
    os.close(reader)
    os.close(writer)

    assert len({*drawn}) == 4
    assert cache.stats.unreadable == 3
    cache.stats.unreadable = 0


def test_raw_clients(valkey):
    """A raw client that was handed out before goes on in the child over a connection of its own."""
    cache = Cache(valkey.url(3), {"KEY_PREFIX": "raw"})
    raw = cache.get_client()
    raw.set("raw", 1)

    def work() -> None:
        for number in range(50):
            name = f"{os.getpid()}-{number}"
            raw.set(name, name)
            assert raw.get(name) == name.encode()

    children = [in_child(work, "c") for _ in range(2)]
    for number in range(50):
        raw.set("parent", number)
        assert raw.get("parent") == b"%d" % number
    assert all(map(ended_well, children))


def test_an_embedded_server_stays_its_parent_s():
    """A child of C code that leaves the server's block, or stops the server, ends nothing."""
    from fleetcache.testing import valkey_server

    with valkey_server() as server:
        cache = Cache(server.url())
        cache.set("boot", 1)

        def work() -> None:
            server.stop()
            server.kill()

        assert ended_well(in_child(work, "c"))
        assert server.runs
        assert cache.get("boot") == 1


def test_many_threads_find_out_at_once(valkey):
    """The first calls of a child may come from several threads: everything begins anew once."""
    cache = Cache(valkey.url(3), {"KEY_PREFIX": "crowd"})
    cache.set("boot", 1)
    renewed = []

    def renew() -> None:
        renewed.append(threading.get_ident())
        time.sleep(0.02)

    forks.in_children(renew)

    def work() -> None:
        failed = []

        def use() -> None:
            try:
                blocking_rounds(cache, f"{threading.get_ident()}", 20)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(renewed) == 1

    assert ended_well(in_child(work, "c"))


def test_what_is_gone_is_not_renewed(valkey):
    """An object that was collected is forgotten."""
    cache = Cache(valkey.url(3))
    gc.collect()  # what others have left
    before = len(forks._renewals)
    server = RemoteServer(cache.get_client())
    assert len(forks._renewals) == before + 1
    del server
    assert len(forks._renewals) == before


WITHOUT = """
import sys
sys.platform = "sandbox"  # whose kernel does not wipe pages
import ctypes, os
from fleetcache import Cache, forks
assert type(forks.OURS) is forks.SameProcess
cache = Cache(sys.argv[1]); cache.set("boot", 1)
children = []
for worker in range(3):
    if (pid := ctypes.PyDLL(None).fork()) == 0:
        names = [f"{worker}-{number}" for number in range(100)]
        os._exit(min(99, sum(cache.set(name, name) and cache.get(name) != name for name in names)))
    children.append(pid)
if (pid := os.fork()) == 0:
    os._exit(cache.get("boot") != 1)
assert [os.waitpid(pid, 0)[1] for pid in [*children, pid]] == [0] * 4
assert cache.get("boot") == 1
"""


def test_where_the_kernel_wipes_no_pages(valkey):
    """Process ids are compared instead."""
    program = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WITHOUT), valkey.url(3)]
    done = subprocess.run(program, capture_output=True, timeout=30, text=True)

    assert (done.returncode, done.stderr) == (0, "")
