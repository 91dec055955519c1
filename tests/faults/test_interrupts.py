"""Exceptions that a signal's handler raises in the midst of blocking calls; `tests.faults.interrupts` raises more."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from typing import Any
from unittest import mock

import pytest
from tests.faults.interrupts import harm_in, in_a_process
from tests.faults.scripted import Scripted

from fleetcache import Cache
from fleetcache.commands import GET, SET, SET_IF
from fleetcache.errors import ServerGone, ServerTimeout
from fleetcache.exchange.wire import packed
from fleetcache.threads import Bell, start

COUNT = int(os.environ.get("FLEETCACHE_INTERRUPTS", "60"))


@pytest.fixture
def place(request):
    """Return where the servers of the topology that the test names are."""
    if request.param == "shards":
        return [request.getfixturevalue("valkey").tcp_url(db) for db in (3, 4, 5)]
    return {
        "one": lambda: request.getfixturevalue("valkey").tcp_url(3),
        "cluster": lambda: request.getfixturevalue("valkey_cluster").url(),
        "sentinel": lambda: request.getfixturevalue("watched_servers").url(3),
    }[request.param]()


@pytest.mark.flaky(reruns=2)  # of some thousand interrupts one hits what the garbage collector ends
@pytest.mark.parametrize("near", [False, True], ids=["", "near"])
@pytest.mark.parametrize("place", ["one", "shards", "cluster", "sentinel"], indirect=True)
def test_an_interrupt_harms_nobody(place, near, request):
    """Every interrupt is heard, and leaves no wrong value, lock, place or connection behind."""
    name = request.node.callspec.params["place"]

    code, found = in_a_process(name, place, {"NEAR": near}, COUNT)

    finalized = sum(outcomes.get("in a finalizer", 0) for outcomes in found.values())
    assert (code, harm_in(found)) == (0, {}), found
    assert finalized <= 4 + COUNT // 50, found


@pytest.fixture
def alarm():
    """Return a function that raises an exception in this thread after some seconds."""
    before = signal.getsignal(signal.SIGALRM)

    def raise_later(error: BaseException, seconds: float) -> None:
        def handler(*_: object) -> None:
            raise error

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield raise_later
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("operation", ["get", "set", "get_many", "pipeline"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_time_limit_passes(request, alarm, journal, operation, transport):
    """A builtin TimeoutError of a handler's is no outage, whatever may be ignored; then all is well."""
    server = request.getfixturevalue("mortal" if transport == "tcp" else "tls")
    url = server.tcp_url() if transport == "tcp" else f"rediss://127.0.0.1:{server.tls_port}/0"
    options = {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": 5, "CONNECTION_POOL_KWARGS": {"ssl_cert_reqs": "none"}}
    if transport == "tcp":
        del options["CONNECTION_POOL_KWARGS"]
    cache = Cache(url, {"OPTIONS": options})
    cache.set("a", 1)
    server.pause()
    calls = {
        "get": lambda: cache.get("a"),
        "set": lambda: cache.set("a", 1),
        "get_many": lambda: cache.get_many(["a", "b"]),
        "pipeline": lambda: cache.pipeline().get("a").set("a", 1).execute(),
    }
    for _ in range(4):
        alarm(TimeoutError("the job's time is over"), 0.05)
        with pytest.raises(TimeoutError, match="the job's time is over"):
            calls[operation]()
    server.resume()

    assert cache.get("a") == 1
    assert journal.events == []


def test_a_time_limit_passes_while_connecting(alarm):
    """A TimeoutError of a handler's is the caller's, too, where redis-py makes one of its own from it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = Cache(f"redis://127.0.0.1:{silent.getsockname()[1]}", {"OPTIONS": {"IGNORE_EXCEPTIONS": True}})
        alarm(TimeoutError("the job's time is over"), 0.05)

        with pytest.raises(TimeoutError, match="the job's time is over"):
            cache.get("a")


@pytest.mark.parametrize("step", ["shutdown", "close"])
@pytest.mark.parametrize("kind", [TimeoutError, ConnectionResetError, KeyboardInterrupt])
def test_an_interrupt_passes_while_a_connection_is_closed(valkey, monkeypatch, step, kind):
    """An exception of a handler's is heard, also if it is an OSError, which redis-py ignores here; the place is free again."""
    server = Cache(valkey.tcp_url(6), {"OPTIONS": {"MAX_CONNECTIONS": 1}}).topology.primaries[0]
    server.exchange([(GET, "a")])
    connection = server.idle[-1].connection
    sock = connection._sock

    def handler(*_: object) -> None:
        raise kind("the job's time is over")

    def interrupted(*arguments: Any) -> None:
        getattr(sock, step)(*arguments)
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(connection, "_sock", mock.Mock(wraps=sock, **{step: interrupted}))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(kind, match="the job's time is over"):
            server.close_idle()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert (sock.fileno(), len(server.open), len(server.seats.taken)) == (-1, 0, 0)
    assert server.exchange([(SET, "a", "1")]) == [b"OK"]


def test_an_interrupt_passes_while_a_thread_begins(monkeypatch):
    """A time limit is heard that comes when the thread has begun, where `Thread.start` raises a KeyError in its place."""
    thread = threading.Thread(target=lambda: None)
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    begin = getattr(threading, name)

    def interrupted(*arguments: Any, **options: Any) -> None:
        begin(*arguments, **options)
        thread._started.wait(5)
        signal.raise_signal(signal.SIGUSR1)

    def handler(*_: object) -> None:
        raise TimeoutError("the job's time is over")

    monkeypatch.setattr(threading, name, interrupted)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeoutError, match="the job's time is over"):
            start(thread)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_nobodys_hangs_up(valkey):
    """A connection that an interrupt has taken from its caller is closed as soon as nothing refers to it."""
    server = Cache(valkey.tcp_url(6), {"OPTIONS": {"MAX_CONNECTIONS": 1}}).topology.primaries[0]
    server.exchange([(SET, "a", "1")])
    sock = server.idle[-1].sock
    gc.disable()
    try:
        server.idle.pop()  # and here the interrupt came

        assert (len(server.open), len(server.seats.taken), sock.fileno()) == (0, 0, -1)
        assert server.exchange([(GET, "a")]) == [b"1"]
    finally:
        gc.enable()


def test_who_waits_gets_what_comes_back(valkey):
    """Callers that may wait for a connection get the one that others give back, or that is lost, long before their time is over."""
    options = {
        "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
        "CONNECTION_POOL_KWARGS": {"max_connections": 1},
    }
    server = Cache(valkey.tcp_url(6), {"OPTIONS": options}).topology.primaries[0]
    for let_go in (server.hear, server.drop, lambda told: None):
        told = server.tell([(GET, "a")])
        waiting = threading.Thread(target=server.exchange, args=([(GET, "a")],))
        waiting.start()
        time.sleep(0.01)
        let_go(told)
        del told
        waiting.join(2)
        assert not waiting.is_alive()


PUSH = b">2\r\n+invalidate\r\n*1\r\n+a\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        (PUSH + b"+1\r\n", b"+2\r\n"),
        (b"+1\r\n" + PUSH, b"+2\r\n"),
        (b"+1\r\n" + PUSH[:9], PUSH[9:] + b"+2\r\n"),
        (PUSH + PUSH + b"+1\r\n" + PUSH, PUSH + b"+2\r\n"),
    ],
    ids=["before", "after", "cut", "many"],
)
def test_a_push_is_passed_over(answers):
    """Pushes that come with replies, before, after or in part, are neither replies nor waited for."""
    fake = Scripted(*answers)
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 5}}).topology.primaries[0]
    started = time.monotonic()

    assert [server.exchange([(GET, "a")]) for _ in range(2)] == [[b"1"], [b"2"]]
    assert time.monotonic() - started < 1
    assert len(fake.connections) == 1


@pytest.mark.parametrize(
    "answer", [b"+other\r\n+1\r\n", b"+1\r\n+oth", b"+1\r\n$9\r\n", b"+other\r\n" + PUSH + b"+1\r\n"]
)
def test_one_reply_too_many_ends_the_connection(answer):
    """Nobody can say which reply is whose; the command that may run twice is asked again elsewhere."""
    fake = Scripted(b"+0\r\n", answer, b"+1\r\n", b"+2\r\n")
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 2}}).topology.primaries[0]

    assert [server.exchange([(GET, "a")]) for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]
    assert len(fake.connections) == 2


def test_one_reply_too_many_is_told_where_nothing_may_be_repeated():
    """A write that must not run twice is an error then."""
    fake = Scripted(b"+0\r\n", b"+OK\r\n+OK\r\n")
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 2}}).topology.primaries[0]
    server.exchange([(GET, "a")])

    with pytest.raises(ServerGone, match="sent more replies than it got commands"):
        server.exchange([(SET_IF, "a", "1", "NX")])


@pytest.mark.parametrize("count", [1, 3])
def test_a_farewell_is_no_reply(count):
    """What a server says to a connection that is idle is nobody's reply, and the connection is not used again."""
    fake = Scripted(b"+0\r\n", *[b"+1\r\n" * count] * 2)
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 2}}).topology.primaries[0]
    server.exchange([(GET, "a")])
    fake.connections[-1].sendall(b"-ERR farewell\r\n")
    time.sleep(0.02)

    assert server.exchange([(GET, "a")] * count) == [b"1"] * count
    assert len(fake.connections) == 2


def test_a_silent_server_is_still_late(valkey):
    """The socket's own limit is a ServerTimeout, as ever."""
    fake = Scripted(b"+0\r\n")
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 0.1}}).topology.primaries[0]
    server.exchange([(GET, "a")])

    with pytest.raises(ServerTimeout):
        server.exchange([(GET, "a")])


def test_hearing_takes_what_is_here():
    """The replies to several commands may come in any pieces."""
    fake = Scripted(b"+1\r\n+2\r\n", b"")
    server = Cache(fake.url, {"OPTIONS": {"SOCKET_TIMEOUT": 2}}).topology.primaries[0]
    told = server.tell([(GET, "a")] * 3)
    time.sleep(0.02)
    fake.connections[-1].sendall(PUSH + b"+3\r\n")

    assert server.hear(told) == [b"1", b"2", b"3"]
    assert packed([(GET, "a")] * 3).count(b"GET") == 3


def test_an_interrupt_leaves_no_bell_that_hangs():
    """An exception at any instruction holds up neither the next ring nor the next wait."""

    class Limit(Exception):
        pass

    left = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Limit
        return trace

    def use(bell: Bell) -> None:
        bell.ring()
        bell.wait(0.001)

    instant, interrupted = 0, True
    while interrupted:
        instant, bell, interrupted = instant + 1, Bell(), False
        left = instant
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            use(bell)
        except Limit:
            interrupted = True
        finally:
            sys.settrace(before)
        thread = threading.Thread(target=use, args=(bell,), daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), instant
    assert instant > 20
