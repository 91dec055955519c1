"""Event loops come and go, in any number of threads: nothing leaks and nobody waits for a dead one."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from tests.sockets import sockets
from tests.waiting import until

from fleetcache import Cache
from fleetcache.servers import remote as server

from .deadlines import HASTY, PATIENT

pytestmark = [pytest.mark.timeout(60), pytest.mark.alone]


@pytest.fixture
def raw(mortal):
    """A client that looks at the server from beside."""
    client = Cache(mortal.url()).get_client()
    client.ping()
    yield client
    client.close()
    client.connection_pool.disconnect()


def others(raw) -> int:
    """Return how many clients the server has beside this one."""
    return raw.info("clients")["connected_clients"] - 1


def in_loop(work) -> None:
    """asyncio.run() without the loop's own development mode, which is ten times slower."""
    asyncio.run(work, debug=False)


async def use(cache: Cache, number: int) -> None:
    assert await cache.aset(f"key{number}", number) is True
    assert await cache.aget(f"key{number}") == number
    assert await asyncio.gather(*(cache.aget(f"key{number}") for _ in range(5))) == [number] * 5


def test_two_hundred_loops(mortal, raw):
    """Each asyncio.run() hangs up as it ends."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    before = sockets()

    for number in range(200):
        in_loop(use(cache, number))

    until(lambda: others(raw) == 0, 3.0)
    assert sockets() <= before
    gc.collect()
    assert dict(cache.topology.primaries[0].connecting) == {}
    assert not cache.topology.primaries[0].lines.values()


def test_async_to_sync(mortal, raw):
    """Django's way to call async code from sync code makes a loop each time, and leaks none."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    before = sockets()

    for number in range(50):
        async_to_sync(use)(cache, number)

    until(lambda: others(raw) == 0, 3.0)
    assert sockets() <= before


def test_sync_code_within_a_loop_within_sync_code(mortal, raw):
    """Both faces may be used from within each other, nested as Django nests them."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})

    def inner() -> int:
        cache.set("a", 1)
        return cache.get("a") + async_to_sync(cache.aget)("a")

    async def outer() -> int:
        return await sync_to_async(inner)() + await cache.aget("a")

    assert async_to_sync(outer)() == 3
    assert asyncio.run(outer()) == 3
    until(lambda: others(raw) <= 3, 3.0)


def test_eight_threads_with_a_loop_each(mortal, raw):
    """Loops of several threads use a connection each, and leave none behind."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    before, wrong = sockets(), []
    inside = threading.Barrier(8)

    async def work(thread: int) -> None:
        await asyncio.gather(*(use(cache, 1000 * thread + number) for number in range(20)))
        await asyncio.to_thread(inside.wait, 10)
        if thread == 0:
            wrong.extend([f"{others(raw)} connections"] if others(raw) != 8 else [])
        await asyncio.to_thread(inside.wait, 10)

    def run(thread: int) -> None:
        try:
            for _ in range(3):
                in_loop(work(thread))
        except BaseException as error:
            wrong.append(repr(error))
            inside.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert wrong == []
    until(lambda: others(raw) == 0, 3.0)
    assert sockets() <= before


def test_loops_closed_without_a_farewell(mortal, raw):
    """Loops that are closed without shutdown_asyncgens() leave one connection at most."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    before = sockets()

    for number in range(50):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use(cache, number))
        loop.close()
    gc.collect()

    until(lambda: others(raw) <= 1, 3.0)
    assert sockets() <= before + 1
    in_loop(use(cache, 0))
    until(lambda: others(raw) == 0, 3.0)
    assert sockets() <= before


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
def test_loops_that_nobody_closes(mortal, tls, transport):
    """Threads that come and go, each with a loop that it forgets, leave no connections: these are collected with the loops."""
    url = tls.tls_url() if transport == "tls" else mortal.tcp_url() if transport == "tcp" else mortal.url()
    cache = Cache(url, {"OPTIONS": PATIENT})
    gc.collect()
    before = sockets()

    for number in range(30):
        thread = threading.Thread(target=lambda: asyncio.new_event_loop().run_until_complete(use(cache, number)))
        thread.start()
        thread.join()
    gc.collect()

    until(lambda: sockets() <= before, 3.0)
    assert not cache.topology.primaries[0].lines.values()


def test_a_loop_that_rested(mortal, raw):
    """A loop that is used again after others came and went has its connection still, or a new one."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": PATIENT})
    loop = asyncio.new_event_loop()
    loop.set_debug(False)
    for number in range(5):
        loop.run_until_complete(use(cache, number))
        in_loop(use(cache, number))
        gc.collect()
    raw.client_kill_filter(skipme=True)
    time.sleep(0.02)
    loop.run_until_complete(use(cache, 9))
    loop.close()

    until(lambda: others(raw) == 0, 3.0)


def test_a_loop_closed_while_it_connects(mortal, proxy):
    """A loop that ends in the middle of connecting leaves nothing, and the next one connects."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    before = sockets()
    proxy.hold()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(cache.aget("a"), 0.02))
    proxy.heal()

    in_loop(use(cache, 1))

    until(lambda: sockets() <= before, 3.0)
    gc.collect()
    assert dict(cache.topology.primaries[0].connecting) == {}


def test_a_loop_that_outlives_the_server(mortal, raw):
    """A loop that meets outage after outage holds one connection at the end of each."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_COOLDOWN": 0.01}})

    async def main() -> None:
        await use(cache, 0)
        before = sockets()
        for number in range(10):
            await asyncio.to_thread(mortal.restart)
            await use(cache, number)
        assert sockets() <= before

    asyncio.run(main())


def test_aclose_hangs_up_gently(mortal, raw):
    """aclose() with CLOSE_CONNECTION closes the loop's connection after all waiting tasks have their replies."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**PATIENT, "CLOSE_CONNECTION": True}})

    async def main() -> None:
        await use(cache, 0)
        cache.set("b", 2)
        assert others(raw) == 2
        waiting = [asyncio.create_task(cache.aget("key0")) for _ in range(10)]
        await asyncio.sleep(0)
        await cache.aclose()
        assert await asyncio.gather(*waiting) == [0] * 10
        await asyncio.to_thread(until, lambda: others(raw) == 0, 3.0)
        assert await cache.aget("b") == 2

    asyncio.run(main())


LAST_WORDS = """
    import asyncio, gc, sys
    from fleetcache import Cache
    url, ending = sys.argv[1:]
    cache = Cache(url)

    async def main():
        await cache.aset("a", 1)
        assert await asyncio.gather(*(cache.aget("a") for _ in range(100))) == [1] * 100
        assert cache.get("a") == 1
        if ending == "exception":
            raise SystemExit(0)

    for _ in range(3):
        if ending == "loop left open":
            loop = asyncio.new_event_loop()
            loop.set_debug(False)
            loop.run_until_complete(main())
            loop.close()
        else:
            asyncio.run(main(), debug=False)
    del cache
    gc.collect()
    if ending == "sys.exit()":
        sys.exit(0)
"""


def test_nothing_is_said_at_the_end(valkey, tls):
    """A program that used both faces ends without a warning, however its loops were left."""
    endings = [(valkey.tcp_url(), ending) for ending in ("runs out", "sys.exit()", "loop left open", "exception")]
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(LAST_WORDS)]
    programs = [
        subprocess.Popen([*command, *ending], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for ending in [*endings, (tls.tls_url(), "loop left open")]
    ]

    said = [program.communicate(timeout=30)[0] for program in programs]

    assert said == [""] * 5
    assert [program.returncode for program in programs] == [0] * 5


async def test_a_loop_that_cannot_watch_sockets(valkey, monkeypatch):
    """Where a loop cannot say when a socket can be read, as on Windows, a thread blocks for its callers."""
    monkeypatch.setattr(server, "BLIND", (type(asyncio.get_running_loop()),))
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": "blind"})

    await asyncio.gather(*(cache.aset(f"{number}", number) for number in range(20)))

    assert await cache.aget_many([f"{number}" for number in range(20)]) == {f"{number}": number for number in range(20)}
    assert not cache.topology.primaries[0].lines.values()
