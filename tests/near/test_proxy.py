"""The fault proxy cuts streams where their values end, and each of its faults befalls whom it should."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import hiredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError, ResponseError
from tests.waiting import until

from fleetcache.testing import FaultProxy, tracked, untracked, valkey_server
from fleetcache.testing.proxy import Link
from fleetcache.testing.servers import EmbeddedServer

VALUES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(1234567890123456789012\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"=6\r\ntxt:>1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n$3\r\n>1\r\r\n*1\r\n:1\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
    b"~1\r\n$1\r\n>\r\n",
    b"|1\r\n+ttl\r\n:9\r\n$1\r\nv\r\n",
    b"$100000\r\n" + b">" * 100_000 + b"\r\n",
]
PUSHES = [
    b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    b">2\r\n$10\r\ninvalidate\r\n_\r\n",
    b">1\r\n$70000\r\n" + b"+" * 70_000 + b"\r\n",
    b">3\r\n$7\r\nmessage\r\n%1\r\n+a\r\n*-1\r\n:1\r\n",
]


@given(
    values=st.lists(st.sampled_from([*VALUES, *PUSHES])),
    cuts=st.lists(st.integers(0, 200_000)),
    small=st.booleans(),
)
@settings(deadline=None)
def test_values_are_told_apart_however_they_are_portioned(values, cuts, small):
    """Whole, cut at random or (if they are short) byte by byte: what is left is all that is no push."""
    values = [value for value in values if not small or len(value) < 1000]
    stream = b"".join(values)
    places = list(range(len(stream))) if small else sorted({cut % (len(stream) or 1) for cut in cuts})
    portions = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    lossy, faithful = asking(), asking()

    assert b"".join(lossy.replies(each, pushes=False) for each in portions) == b"".join(
        value for value in values if value not in PUSHES
    )
    assert [faithful.replies(each, pushes=True) for each in portions] == portions


def asking() -> Link:
    """A connection on which a command has been sent, so that replies are to come."""
    client: Any = None
    link = Link(client, None)
    link.commands(b"*1\r\n$4\r\nPING\r\n", [])
    return link


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.socket) as proxy:
        yield proxy


class Raw:
    """A connection that speaks RESP3 by hand."""

    def __init__(self, proxy: FaultProxy, *, track: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        self.reader = hiredis.Reader(notEnoughData=EOFError)
        self.values: list[Any] = []
        self.ask("HELLO 3")
        if track:
            assert self.ask("CLIENT TRACKING ON BCAST PREFIX a") == b"OK"

    def send(self, command: str) -> None:
        words = command.encode().split()
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"*%d\r\n%b" % (len(words), b"".join(parts)))

    def next(self, *, push: bool = False, seconds: float = 5.0) -> Any:
        """Return the next value that is a push, or is none."""
        self.socket.settimeout(seconds)
        while True:
            for place, value in enumerate(self.values):
                if isinstance(value, hiredis.PushNotification) == push:
                    return self.values.pop(place)
            if not (portion := self.socket.recv(65536)):
                raise EOFError
            self.reader.feed(portion)
            while (value := self.reader.gets()) is not EOFError:
                self.values.append(value)

    def ask(self, command: str) -> Any:
        self.send(command)
        return self.next()

    def silent(self, seconds: float = 0.05) -> bool:
        with suppress(TimeoutError):
            self.next(seconds=seconds)
            return False
        return True


@pytest.fixture
def raw(proxy):
    made = []

    def make(**options):
        made.append(Raw(proxy, **options))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


def test_only_pushes_are_dropped(proxy, raw):
    listener = raw(track=True)
    listener.ask("SET a1 1")
    assert listener.next(push=True) == [b"invalidate", [b"a1"]]

    proxy.drop_pushes()
    assert listener.ask("SET a2 1") == b"OK"
    assert listener.ask("PING") == b"PONG"
    proxy.heal()

    listener.ask("SET a3 1")
    assert listener.next(push=True) == [b"invalidate", [b"a3"]]


def test_connections_are_told_apart(proxy, raw):
    """A fault of tracked connections leaves the others alone, and the other way round."""
    listener, other = raw(track=True), raw()
    assert (proxy.count(), proxy.count(tracked), proxy.count(untracked)) == (2, 1, 1)

    proxy.hold(tracked)
    other.ask("PING")
    listener.send("PING")
    assert listener.silent()
    proxy.heal()
    assert listener.next() == b"PONG"
    proxy.reset(tracked)

    assert other.ask("PING") == b"PONG"
    with pytest.raises(OSError):
        listener.ask("PING")


def test_new_connections_are_held_as_soon_as_they_are_of_that_kind(proxy, raw):
    proxy.hold(tracked)
    listener = raw()
    listener.send("CLIENT TRACKING ON BCAST PREFIX a")

    assert listener.silent()
    proxy.heal()
    assert listener.next() == b"OK"


def test_half_closed_connections_still_carry_commands(proxy, raw, server):
    half = raw()
    proxy.half_close()
    half.send("SET half 1")

    with pytest.raises(EOFError):
        half.next()
    with closing(redis.Redis.from_url(server.url())) as client:
        deadline = time.monotonic() + 5
        while client.get("half") is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert client.get("half") == b"1"


def test_an_address_moves_and_chosen_connections_stay(proxy, raw):
    """What DNS fail-over does to a listener that nobody tells."""
    listener, other = raw(track=True), raw()
    with valkey_server() as another:
        proxy.repoint(another.socket, keep=tracked)
        with pytest.raises(OSError):
            other.ask("PING")
        moved = raw()
        moved.ask("SET where another")

        assert listener.ask("GET where") is None
        assert moved.ask("GET where") == b"another"


@pytest.mark.parametrize(
    ("command", "instead", "error"),
    [("CLIENT TRACKING", "CLIENT NOTHING", "unknown subcommand"), ("PING", "UNHEARD OF", "unknown command")],
)
def test_commands_are_refused(proxy, command, instead, error):
    proxy.rewrite(command, instead)
    with closing(redis.Redis.from_url(proxy.url(), protocol=2)) as client:
        with pytest.raises(ResponseError, match=error):
            client.execute_command(*command.split(), "ON")
        assert client.set("a", "CLIENT TRACKING") is True


def test_resp3_is_refused(proxy):
    proxy.rewrite("HELLO 3", "HELLO 9")
    with closing(redis.Redis.from_url(proxy.url(), protocol=3)) as client:
        with pytest.raises((ResponseError, ConnectionError), match=r"(?i)noproto|unsupported protocol"):
            client.ping()


def test_rewritten_commands_keep_their_arguments(proxy, raw):
    """Bytes of any kind, and however long."""
    proxy.rewrite("SET", "APPEND")
    with closing(redis.Redis.from_url(proxy.url(), protocol=3)) as client:
        client.delete("grown")
        client.execute_command("SET", "grown", b"\r\n$1*" * 50_000)
        client.execute_command("SET", "grown", b"\x00end")

        assert client.get("grown") == b"\r\n$1*" * 50_000 + b"\x00end"


def test_delays_are_random_and_keep_the_order(proxy, raw):
    listener = raw(track=True)
    proxy.delay(0.0, jitter=0.02)
    for number in range(10, 30):
        listener.send(f"ECHO {number}")

    assert [listener.next() for _ in range(20)] == [b"%d" % number for number in range(10, 30)]


def test_large_replies_and_commands_pass(proxy):
    with closing(redis.Redis.from_url(proxy.url())) as client:
        client.set("large", b">1\r\n" * 1_000_000)

        assert client.get("large") == b">1\r\n" * 1_000_000


@pytest.mark.parametrize("blackhole", [False, True])
def test_it_ends_while_clients_connect(server, blackhole):
    """It closes each connection that it has accepted, whenever that was; no garbage collection finds an open one."""
    ports: list[int] = []
    ended = threading.Event()

    def connect() -> None:
        while not ended.is_set():
            for port in ports[-1:]:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()

    clients = [threading.Thread(target=connect) for _ in range(2)]
    for client in clients:
        client.start()
    for _ in range(20):
        with FaultProxy(server.socket) as proxy:
            if blackhole:
                proxy.blackhole()
            ports.append(proxy.port)
            until(lambda: proxy.accepted)  # noqa: B023 - it is called at once
    ended.set()
    for client in clients:
        client.join()

    gc.collect()  # pytest reports the warnings of finalizers


def test_it_ends_while_a_client_does_not_read(server):
    """It closes the connection to a client that takes no more bytes, after the reply was cut off and before that."""
    with FaultProxy(server.socket) as proxy, closing(socket.create_connection(("127.0.0.1", proxy.port))) as client:
        request = b"*2\r\n$4\r\nECHO\r\n$30000000\r\n%b\r\n" % bytes(30_000_000)
        proxy.cut_after(20_000_000)
        client.sendall(request)
        client.recv(1)

    gc.collect()
