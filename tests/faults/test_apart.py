"""One caller's mistake is his own: what the server hangs up on, or is long in answering, ends nobody else's command."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest
from redis.exceptions import RedisError, ResponseError
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache.errors import ConnectionLost, ServerTimeout
from fleetcache.servers.remote import APART
from fleetcache.testing import valkey_server

pytestmark = pytest.mark.timeout(40)
HUGE = b"x" * (3 << 20)


@pytest.fixture(params=["proto-max-bulk-len", "client-query-buffer-limit"])
def strict(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[Exception]]]:
    """A server that takes a megabyte; of the first limit it says why it hangs up, of the second it does not."""
    with valkey_server(arguments=[f"--{request.param}", "1mb"]) as server:
        yield server, ResponseError if request.param.startswith("proto") else ConnectionLost


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_a_value_larger_than_the_server_takes(strict, face, transport, journal):
    """The caller is told how large it was and what limits it, each time; it is no outage."""
    server, kind = strict
    cache = Face(Cache(server.tcp_url() if transport == "tcp" else server.url()), face)
    await cache.set("a", 1)

    for megabytes in (2, 3, 9):
        for error in [
            await settled(cache.set("huge", bytes(megabytes << 20))),
            await settled(cache.set_many({"b": 2, "huge": bytes(megabytes << 20)})),
            await settled(cache.rpush("list", bytes(megabytes << 20))),
        ]:
            assert type(error) is kind
            assert "proto-max-bulk-len" in str(error)
            assert "huge" not in str(error)
        assert await cache.get("a") == 1
        assert await cache.incr("count", default=0) > 0

    assert journal.events == []


async def test_the_others_do_not_notice(strict, journal):
    """Tasks of the same loop, before and after it, are answered: also counters, and what is as large as it may be."""
    server, kind = strict
    cache = Cache(server.tcp_url())
    await cache.aget("a")

    found = await asyncio.gather(
        *[cache.aincr("hits", default=0) for _ in range(4)],
        cache.aset("huge", HUGE),
        *[cache.aset(f"large{number}", bytes(APART + 1)) for number in range(20)],
        *[cache.aincr("hits") for _ in range(4)],
        cache.aset_many({f"many{number}": bytes(100_000) for number in range(20)} | {"huge": HUGE}),
        return_exceptions=True,
    )

    assert [type(each) for each in found if isinstance(each, Exception)] == [kind, kind]
    assert await cache.aget("hits") == 8
    assert await cache.aget("large7") == bytes(APART + 1)
    assert journal.events == []


async def test_large_commands_use_few_connections(mortal):
    """A hundred at once have four connections beside the loop's own, and these end with it."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"CLOSE_CONNECTION": True, "client_name": "large"}})
    raw = Cache(mortal.url()).get_client()

    def connected() -> int:
        return [client["name"] for client in raw.client_list()].count("large")

    assert await asyncio.gather(*(cache.aset(f"k{n}", bytes(APART + n)) for n in range(100))) == [True] * 100
    assert connected() <= 5
    assert len(await cache.aget("k99")) == APART + 99
    await cache.aclose()

    deadline = time.monotonic() + 3
    while connected() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    assert connected() == 0


async def test_a_cancelled_large_command_gives_its_reply_to_nobody(mortal, proxy):
    """Its connection goes with it."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    await cache.aset("n", 0)
    for number in range(8):
        large = asyncio.create_task(cache.aset(f"l{number}", bytes(APART * 4)))
        await asyncio.sleep(0.001 * number)
        large.cancel()
        assert await cache.aincr("n") == number + 1
        assert await cache.aset("after", bytes(APART)) is True


class Trickle:
    """A way to a server on which replies come by *portion* bytes each hundredth of a second."""

    def __init__(self, upstream: int, portion: int) -> None:
        self.upstream = upstream
        self.portion = portion
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.server.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here = self.server.accept()[0]
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.upstream))
            threading.Thread(target=self._pass, args=(here, there, 1 << 20, 0.0), daemon=True).start()
            threading.Thread(target=self._pass, args=(there, here, self.portion, 0.01), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, portion: int, rest: float) -> None:
        try:
            while data := source.recv(portion):
                sink.sendall(data)
                if len(data) == portion:
                    time.sleep(rest)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


@pytest.fixture
def trickle(mortal) -> Iterator[Trickle]:
    """A slow way to the test's own server."""
    way = Trickle(mortal.port, 20_000)
    yield way
    way.server.close()


async def test_a_reply_that_takes_too_long(trickle, mortal, journal):
    """Who asked for it is told; those behind it are answered on another connection, in their own time, if that does no harm."""
    cache = Cache(trickle.url, {"OPTIONS": {"SOCKET_TIMEOUT": 0.5}})
    Cache(mortal.tcp_url()).set("big", bytes(4_000_000))
    await cache.aset("small", 1)

    started = time.monotonic()
    slow = asyncio.create_task(settled(cache.aget("big")))
    await asyncio.sleep(0.3)
    behind = [asyncio.create_task(cache.aget("small")) for _ in range(20)]
    counting = asyncio.create_task(settled(cache.aincr("count", default=0)))
    error = await slow
    assert await asyncio.gather(*behind) == [1] * 20
    assert time.monotonic() - started < 0.75
    assert await cache.aget("small") == 1
    counted = await counting

    assert type(error) is ServerTimeout
    assert "the reply to GET was still arriving after 0.5 s" in str(error)
    assert type(counted) is ServerTimeout  # it may have run
    assert 0.7 < time.monotonic() - started < 1.1
    assert journal.events == []


async def test_a_reply_in_time_behind_one_that_is_late(mortal):
    """What a slow command delays has its own deadline, and is answered when that command is through."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {"SOCKET_TIMEOUT": 0.5}})
    await cache.aset("n", 0)
    await cache.aincr("n")  # from now on the server knows the script
    mortal.pause()  # as a slow script would
    slow = asyncio.create_task(settled(cache.aincr("n")))
    await asyncio.sleep(0.3)
    behind = [asyncio.create_task(cache.aincr("n")), asyncio.create_task(cache.aget("n"))]
    threading.Timer(0.3, mortal.resume).start()

    assert type(await slow) is ServerTimeout
    assert await asyncio.gather(*behind) == [3, 3]


async def test_a_line_that_is_lost_says_by_which_command(mortal, proxy):
    """The command that was next to be answered, and its size, never a key or a value."""
    cache = Cache(proxy.url(), {"OPTIONS": {"socket_timeout": 5}})
    await cache.aget("a")
    proxy.hold()
    waiting = [
        asyncio.create_task(settled(cache.aset_many({"secret": "v"}))),
        asyncio.create_task(settled(cache.aincr("n"))),
    ]
    await asyncio.sleep(0.02)
    proxy.reset()
    proxy.heal()

    errors = [error for error in await asyncio.gather(*waiting) if isinstance(error, ConnectionLost)]
    assert errors
    for error in errors:
        assert "before it replied to" in str(error)
        assert "bytes)" in str(error)
        assert "secret" not in str(error)


async def test_a_crowd_that_writes_much_over_tls(tls):
    """What OpenSSL takes in pieces arrives whole, and nobody is told that nothing was sent of what has left."""
    cache = Cache(tls.tls_url(), {"KEY_PREFIX": "crowd", "OPTIONS": {"socket_timeout": 10}})
    values = {f"key{number}": bytes([number]) * (number * 7919 % 400_000) for number in range(100)}
    await cache.aset("n", 0)

    writing = [asyncio.create_task(cache.aset(key, value)) for key, value in values.items()]
    counting = [asyncio.create_task(cache.aincr("n")) for _ in range(100)]

    assert await asyncio.gather(*writing) == [True] * 100
    assert sorted(await asyncio.gather(*counting)) == list(range(1, 101))
    assert await cache.aget_many(values) == values


@pytest.mark.parametrize(
    "nonsense",
    [b"-MOVED x\r\n", b"-ASK\r\n", b"-MOVED 1 host:port\r\n", b"!7\r\nMOVED x\r\n", b"+OK\r\n" * 3, b"?what\r\n"]
    + [b"%1\r\n*0\r\n", b":" + b"9" * 5000 + b"\r\n", b"*-5\r\n", b"\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
)
async def test_nonsense(face, nonsense, caplog):
    """A reply that is no reply is raised as an error of ours, never as one of asyncio's."""
    with Babbler(nonsense) as babbler:
        cache = Face(Cache(babbler.url, {"OPTIONS": {"SOCKET_TIMEOUT": 0.3, "protocol": 2}}), face)
        for _ in range(3):
            error = await settled(cache.get("a"))
            assert isinstance(error, (RedisError, OSError)) or error is None, repr(error)
        await asyncio.sleep(0.01)

    assert [record for record in caplog.records if record.name == "asyncio"] == []


class Babbler:
    """A server that greets, and answers each GET with *nonsense*."""

    def __init__(self, nonsense: bytes) -> None:
        self.nonsense = nonsense
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.server.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def _accept(self) -> None:
        while True:
            try:
                threading.Thread(target=self._serve, args=(self.server.accept()[0],), daemon=True).start()
            except OSError:
                return

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(self.nonsense if b"GET" in data else b"+OK\r\n" * (data.count(b"*") or 1))
            except OSError:
                pass
