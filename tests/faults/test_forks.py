"""A process forks under load: the child works, the parent is unharmed, and neither touches the other's connections."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time

import pytest
from tests.forks import ended_well, in_child
from tests.load import CROWDS, Load

from fleetcache import Cache

from .deadlines import HASTY, PATIENT

pytestmark = [
    pytest.mark.timeout(60),
    # Python warns of forking with threads; this is about what happens to those who do.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.alone,
]


def exercise(cache: Cache, name: str) -> None:
    """Use both faces, and check every answer."""

    async def main() -> None:
        for number in range(10):
            assert await cache.aset(f"{name}-async", number) is True
            assert await cache.aget(f"{name}-async") == number
        assert await asyncio.gather(*(cache.aget(f"{name}-async") for _ in range(20))) == [9] * 20

    for number in range(20):
        assert cache.set(name, [name, number]) is True
        assert cache.get(name) == [name, number]
    asyncio.run(main())
    assert Cache(cache.settings.location, {"KEY_PREFIX": name}).get("nothing") is None


def test_forks_under_load(face, mortal):
    """With threads, or a running loop with hundreds of tasks, in the parent, every child and the parent do well."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "socket_timeout": 5, "socket_connect_timeout": 5}})

    with Load(cache, **CROWDS[face]) as load:
        children = []
        for number in range(8):
            children.append(in_child(lambda: exercise(cache, f"child{number}")))
            time.sleep(0.02)
        outcomes = [ended_well(pid) for pid in children]
        load.wait_for_success(time.monotonic())

    assert outcomes == [True] * 8
    assert load.wrong == []
    assert load.failures == []


def test_the_child_hangs_up_on_nobody(mortal):
    """Whatever a child does at its end, the parent's connections stay the same ones."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    raw = Cache(mortal.url()).get_client()
    cache.set("a", 1)

    def ids() -> set[str]:
        return {client["id"] for client in raw.client_list() if client["cmd"] != "client|list"}

    async def main() -> None:
        await cache.aset("a", 1)
        before = ids()
        pid = in_child(lambda: (cache.get("a"), cache.close(), exercise(cache, "child")))
        assert await asyncio.to_thread(ended_well, pid)
        # The child's own are gone, the parent's are all there, and go on.
        deadline = time.monotonic() + 3
        while ids() != before and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert ids() == before
        assert await cache.aget("a") == 1
        assert cache.get("a") == 1
        assert ids() == before

    asyncio.run(main())
    raw.close()


def test_a_fork_in_the_middle_of_a_reply(mortal, proxy):
    """A fork while tasks wait leaves their replies to the parent."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})

    async def main() -> None:
        await cache.aset_many({f"key{number}": number for number in range(50)})
        proxy.hold()
        waiting = [asyncio.create_task(cache.aget(f"key{number}")) for number in range(50)]
        await asyncio.sleep(0.01)
        pid = in_child(lambda: exercise(Cache(mortal.tcp_url()), "child"))
        assert await asyncio.to_thread(ended_well, pid)
        proxy.heal()
        assert await asyncio.gather(*waiting) == list(range(50))

    asyncio.run(main())


def test_a_fork_while_others_make_caches(mortal):
    """A fork while threads make caches and connections leaves no lock behind that the child would wait for."""
    stop = threading.Event()

    def make() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            Cache(f"{mortal.tcp_url()}?client_name=x{threading.get_ident()}-{number % 40}").make_key("a")
            Cache(f"memory://fork{number % 5}").set("a", number)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            pid = in_child(
                lambda: (Cache(mortal.tcp_url(), {"KEY_PREFIX": "child"}).get("a"), Cache("memory://fork1").get("a"))
            )
            assert ended_well(pid, 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def _work(url: str, number: int) -> int:
    cache = Cache(url, {"OPTIONS": PATIENT})
    exercise(cache, f"worker{number}")
    return cache.incr("n", default=0)


def test_multiprocessing(face, mortal):
    """A pool of worker processes, forked under load, works."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"socket_timeout": 5}})

    with Load(cache, **CROWDS[face]) as load:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            counts = pool.starmap(_work, [(mortal.tcp_url(), number) for number in range(4)])

    assert sorted(counts) == [1, 2, 3, 4]
    assert load.wrong == []
    assert load.failures == []


def test_a_child_of_a_child(mortal):
    """Forks of forks do well too."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    cache.set("a", 1)

    def child() -> None:
        assert cache.get("a") == 1
        assert ended_well(in_child(lambda: exercise(cache, "grandchild")))
        exercise(cache, "child")

    assert ended_well(in_child(child))
    assert cache.get("a") == 1


def test_a_child_made_while_the_server_is_away(mortal):
    """A child inherits what is known of the server's health, and finds it well again by itself."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": True, "BREAKER_COOLDOWN": 0.1}})
    cache.set("a", 1)
    mortal.kill()
    for _ in range(5):
        assert cache.get("a") is None
    reader, writer = os.pipe()

    def child() -> None:
        assert cache.get("a") is None
        os.read(reader, 1)
        time.sleep(0.15)
        assert cache.set("a", 2) is True

    pid = in_child(child)
    mortal.restart()
    os.write(writer, b"x")

    assert ended_well(pid)
    os.close(reader)
    os.close(writer)
    time.sleep(0.1)
    assert cache.get("a") == 2
