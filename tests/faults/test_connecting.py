"""Making a connection: one deadline for all of it, and an error that says what is wrong."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import hiredis
import pytest
import redis
from tests.faces import Face, settled
from tests.waiting import until

from fleetcache import Cache
from fleetcache.errors import (
    AccessDenied,
    NeverSent,
    NoSuchDatabase,
    ServerTimeout,
    SettingsError,
    UnsupportedServer,
    UnusableFile,
)
from fleetcache.exchange.diagnosis import bracketed
from fleetcache.testing import cluster, valkey_server
from fleetcache.testing.clusters import Sentinel

from .deadlines import SLACK

pytestmark = pytest.mark.timeout(60)

_numbers = count()

SHORT = {"SOCKET_TIMEOUT": 0.3, "SOCKET_CONNECT_TIMEOUT": 0.3}
HELLO = b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"


# --- deadlines ------------------------------------------------------------------------------------


@contextmanager
def fake(answer: Callable[[socket.socket, list[bytes]], None]) -> Iterator[str]:
    """Run a server that does *answer* for each command; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(conn: socket.socket) -> None:
            reader = hiredis.Reader()
            with conn, ignoring():
                while data := conn.recv(65536):
                    reader.feed(data)
                    while (command := reader.gets()) is not False:
                        answer(conn, command)

        def accept() -> None:
            with ignoring():
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


@contextmanager
def ignoring() -> Iterator[None]:
    try:
        yield
    except OSError:
        pass


def in_drops(conn: socket.socket, command: list[bytes]) -> None:
    if command[0] != b"HELLO":
        conn.sendall(b"+OK\r\n")
        return
    for place in range(len(HELLO)):
        conn.sendall(HELLO[place : place + 1])
        time.sleep(0.1)


def among_pushes(conn: socket.socket, command: list[bytes]) -> None:
    if command[0] != b"HELLO":
        conn.sendall(b"+OK\r\n")
        return
    for _ in range(60):
        conn.sendall(b">2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n")
        time.sleep(0.05)
    conn.sendall(HELLO)


def each_step_late(conn: socket.socket, command: list[bytes]) -> None:
    time.sleep(0.25)
    conn.sendall(HELLO if command[0] == b"HELLO" else b"+OK\r\n")


@pytest.mark.alone
@pytest.mark.parametrize("answer", [in_drops, among_pushes, each_step_late])
@pytest.mark.parametrize("retry", [None, redis.retry.Retry(redis.backoff.NoBackoff(), 3)])
async def test_a_greeting_has_one_deadline(face, answer, retry):
    """However the greeting trickles in, connecting takes SOCKET_CONNECT_TIMEOUT and SOCKET_TIMEOUT together at most."""
    options = {**SHORT, "client_name": "somebody", **({"retry": retry} if retry else {})}
    with fake(answer) as url:
        cache = Face(Cache(f"{url[:-1]}5", {"OPTIONS": options}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))
        took = time.monotonic() - started

    # Old releases of redis-py take a push for the reply, and give up at once.
    assert isinstance(error, (ServerTimeout, UnsupportedServer) if answer is among_pushes else ServerTimeout), error
    assert took <= 0.6 + SLACK


@pytest.mark.alone
async def test_the_question_who_is_there_is_within_the_deadline(face):
    """What a near cache or Sentinels ask of each new connection is part of making it."""

    def answer(conn: socket.socket, command: list[bytes]) -> None:
        time.sleep(0.25 if command[0] in (b"HELLO", b"INFO") else 0)
        conn.sendall(HELLO if command[0] == b"HELLO" else b"$-1\r\n" if command[0] == b"GET" else b"+OK\r\n")

    with fake(answer) as url:
        cache = Face(Cache(url, {"OPTIONS": SHORT}), face)
        cache.whole.topology.primaries[0].watch(lambda run_id: None)
        started = time.monotonic()
        await settled(cache.get("a"))
        assert time.monotonic() - started <= 0.6 + SLACK


@contextmanager
def silent_ports(count: int) -> Iterator[list[int]]:
    """Occupy ports where packets are not answered: the queues of their listeners are full."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            ports.append(full.getsockname()[1])
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
        yield ports


@pytest.mark.alone
async def test_a_name_with_many_addresses(face, mortal, monkeypatch):
    """Addresses that do not answer share the time; one that refuses costs none, and the next one is tried."""
    addresses: list[int] = []
    look_up = socket.getaddrinfo

    def many(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "many.example":
            return look_up(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", many)
    with silent_ports(8) as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses[:] = silent
        own = {**SHORT, "client_name": face}  # shares nothing with the other face
        cache = Face(Cache("redis://many.example/0", {"OPTIONS": own}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))
        took = time.monotonic() - started
        addresses[:] = [unused.getsockname()[1], mortal.port]
        other = Face(Cache("redis://many.example/0", {"OPTIONS": {**own, "SOCKET_TIMEOUT": 0.31}}), face)
        assert await other.get("a") is None

    assert isinstance(error, (ServerTimeout, NeverSent)), error
    assert took <= 0.3 + SLACK


async def test_without_limits(face, mortal):
    """Without time-outs connecting has none, and works."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": {"SOCKET_TIMEOUT": None, "SOCKET_CONNECT_TIMEOUT": 0}}), face)

    assert await cache.set("a", 1) is True


async def test_a_function_of_the_site_that_fails(face, proxy):
    """Its error is raised, and the connection is closed, even while somebody keeps the error with its frames."""

    def greet(connection: Any) -> None:
        raise LookupError(connection)

    cache = Face(Cache(proxy.url(), {"OPTIONS": {"redis_connect_func": greet}}), face)

    error = await settled(cache.get("a"))

    assert isinstance(error, LookupError)
    until(lambda: proxy.accepted == 1 and proxy.count() == 0)


# --- what is wrong --------------------------------------------------------------------------------


@pytest.fixture
def said(caplog) -> Callable[[str], int]:
    """Count how often a text is logged."""
    caplog.set_level(logging.WARNING, "fleetcache")
    return lambda text: sum(text in record.getMessage() for record in caplog.records)


async def refused(face: str, url: str, kind: type[Exception], *texts: str, **options: Any) -> str:
    """Return the error of a cache at *url*, which is of *kind* and says *texts*, twice, and opens no breaker."""
    options = {"SOCKET_TIMEOUT": 5 + next(_numbers) / 1000, **options}  # shares nothing with others
    whole = Cache(url, {"OPTIONS": options})
    cache = Face(whole, face)
    for _ in range(2):
        error = await settled(cache.set("secret-key", "secret-value"))
        assert isinstance(error, kind), error
        assert all(text in str(error) for text in texts), error
        assert "secret" not in str(error)
    assert not whole.topology.servers[0].away
    ignoring = Face(Cache(url, {"OPTIONS": {**options, "IGNORE_EXCEPTIONS": True}}), face)
    assert await ignoring.get("a", 5) == 5
    return str(error)


@pytest.mark.parametrize("protocol", [3, 2])
async def test_a_server_that_refuses_select(face, said, protocol):
    """A renamed SELECT is named, and not taken for HELLO's absence."""
    with valkey_server(arguments=["--rename-command", "SELECT", ""]) as server:
        await refused(face, server.tcp_url(1), NoSuchDatabase, "refuses SELECT", "/1", protocol=protocol)
        assert await Face(Cache(server.tcp_url(0)), face).get("a") is None
    assert said("refuses SELECT") == 1


@pytest.mark.parametrize("command", ["AUTH", "CLIENT"])
async def test_a_server_that_refuses_another_command(face, said, command):
    """What else is refused while connecting is named, and logged once."""
    options = {"protocol": 2, "password": "secret"} if command == "AUTH" else {"client_name": "secretary"}
    with valkey_server(arguments=["--rename-command", command, ""]) as server:
        await refused(face, server.tcp_url(0), redis.ResponseError, f"refused while connecting: unknown command '{command}'",
                      **options)  # fmt: skip
    assert said("refused while connecting") == 1


async def test_a_user_who_may_not_select(face, said, mortal):
    """A right that is missing for the greeting is named."""
    with redis.Redis(port=mortal.port) as raw:
        raw.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-select")
    await refused(
        face,
        mortal.tcp_url(1).replace("//", "//few:pw@"),
        redis.exceptions.NoPermissionError,
        "/1: refused while",
        "select",
    )
    assert said("refused while connecting") == 1


@pytest.mark.parametrize("protocol", [3, 2])
async def test_protected_mode(face, said, protocol):
    """What the server says to strangers before it hangs up is told, whatever the protocol."""
    with denying() as url:
        await refused(face, url, AccessDenied, "in protected mode", protocol=protocol)
    assert said("in protected mode") == 1


@contextmanager
def denying() -> Iterator[str]:
    """Run a server that greets each connection as one in protected mode does."""
    text = b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is set.\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with ignoring():
                while True:
                    conn, _ = listening.accept()
                    conn.sendall(text)
                    conn.close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ssl_ca_certs": "/nowhere/ca.pem"}, "ssl_ca_certs '/nowhere/ca.pem' cannot be read: No such file"),
        ({"ssl_certfile": "/nowhere/c.pem"}, "ssl_certfile '/nowhere/c.pem' cannot be read: No such file"),
        ({"ssl_certfile": "{ca}", "ssl_keyfile": "/nowhere/key.pem"}, "ssl_keyfile '/nowhere/key.pem' cannot be read"),
        ({"ssl_certfile": "{ca}"}, "no certificate with its key"),
        ({"ssl_ca_certs": "/etc/hosts"}, "ssl_ca_certs '/etc/hosts': no certificates"),
    ],
)
async def test_a_file_for_tls_that_is_of_no_use(face, said, tls, options, text):
    """It is named, it is a settings error, and no outage."""
    options = {name: path.format(ca=tls.ca) for name, path in options.items()}
    url = f"rediss://127.0.0.1:{tls.tls_port}/0"

    await refused(face, url, UnusableFile, text, **options)

    assert issubclass(UnusableFile, SettingsError)
    assert said(text) == 1
    assert said("lost") == 0


async def test_a_file_that_comes_late(face, tls, tmp_path):
    """A certificate that is being replaced is used as soon as it is there."""
    place = tmp_path / "ca.pem"
    cache = Face(Cache(f"rediss://127.0.0.1:{tls.tls_port}/0", {"OPTIONS": {"ssl_ca_certs": str(place)}}), face)
    assert isinstance(await settled(cache.get("a")), UnusableFile)

    place.write_bytes(tls.ca.read_bytes())

    assert await cache.get("a") is None


@pytest.mark.alone
async def test_tls_and_a_server_without(face, mortal):
    """`rediss://` to a server that speaks no TLS says so within a second or so, and then at once."""
    url = mortal.tcp_url().replace("redis:", "rediss:")
    cache = Face(Cache(url, {"OPTIONS": {"SOCKET_TIMEOUT": 20, "SOCKET_CONNECT_TIMEOUT": 20}}), face)
    started = time.monotonic()

    first = await settled(cache.get("a"))
    took = time.monotonic() - started
    second = await settled(cache.get("a"))

    assert isinstance(first, ServerTimeout)
    assert took < 1 + 2 * SLACK
    for error in first, second:
        assert "does not speak TLS. Write redis instead of rediss" in str(error)


@pytest.mark.few(1)
async def test_a_slow_server_with_tls(face, tls):
    """One that takes longer than that has all the time there is."""
    from fleetcache.testing import FaultProxy

    with FaultProxy(("127.0.0.1", tls.tls_port)) as proxy:
        proxy.delay(1.2)
        options = {"ssl_ca_certs": str(tls.ca), "SOCKET_TIMEOUT": 20}
        cache = Face(Cache(f"rediss://127.0.0.1:{proxy.port}/0", {"OPTIONS": options}), face)
        threading.Timer(2.5, proxy.heal).start()
        assert await cache.set("a", 1) is True


async def test_no_tls_and_a_server_with(face, tls):
    """`redis://` to a server that speaks nothing but TLS says so."""
    cache = Face(Cache(f"redis://127.0.0.1:{tls.tls_port}/0"), face)

    error = await settled(cache.get("a"))

    assert isinstance(error, NeverSent)
    assert "speaks TLS only. Write rediss instead of redis" in str(error)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("protocol", [3, 2])
async def test_a_sentinel_is_no_server(face, scheme, protocol):
    """The URL of a server that leads to a Sentinel is an error, which says the right URL, and names no key or value."""
    with Sentinel(["monitor service 127.0.0.1 1 2"]) as sentinel:
        url = f"{scheme}://127.0.0.1:{sentinel.port}/0"
        if protocol == 3:
            await refused(face, url, UnsupportedServer, "is a Sentinel", "redis+sentinel://127.0.0.1:")
            await refused(face, url[:-1] + "2" if scheme == "redis" else url, UnsupportedServer, "is a Sentinel")
        else:
            error = await settled(
                Face(Cache(url, {"OPTIONS": {"protocol": 2}}), face).set("secret-key", "secret-value")
            )
            assert "redis+sentinel://" in str(error)
            assert "secret" not in str(error)


@pytest.mark.few(1)
async def test_a_node_of_a_cluster_is_no_server(face):
    """The same for a cluster, and for the number of a database there."""
    with cluster(replicas=0) as servers:
        url = f"redis://127.0.0.1:{servers.nodes[0].port}"
        errors = [await settled(Face(Cache(f"{url}/0"), face).set(f"secret{key}", "secret")) for key in range(9)]
        errors = [error for error in errors if isinstance(error, Exception)]
        assert errors
        assert all("Write redis+cluster:// in LOCATION" in str(error) for error in errors)
        assert "secret" not in str(errors)
        await refused(face, f"{url}/1", NoSuchDatabase, "write redis+cluster:// in LOCATION, without a number")


async def test_an_unknown_command_is_told_without_its_arguments(face, mortal):
    """A key and a value are nobody's business."""
    with valkey_server(arguments=["--rename-command", "SET", "", "--rename-command", "SADD", ""]) as server:
        cache = Face(Cache(server.tcp_url()), face)
        for call in cache.set("secret-key", "secret-value"), cache.sadd("secret-key", "secret"):
            error = await settled(call)
            assert isinstance(error, redis.ResponseError)
            assert "unknown command 'S" in str(error)
            assert "secret" not in str(error)


async def test_addresses_of_version_6(face):
    """In messages an IPv6 address stands in brackets."""
    assert (bracketed("::1"), bracketed("host")) == ("[::1]", "host")
    with socket.socket(socket.AF_INET6) as unused:
        try:
            unused.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        cache = Face(Cache(f"redis://[::1]:{unused.getsockname()[1]}/3"), face)
        error = await settled(cache.get("a"))

    place = f"[::1]:{unused.getsockname()[1]}" if unused.fileno() != -1 else "[::1]:"
    assert str(error).startswith(place)
    assert " ::1" not in str(error)
    assert "[::1]" in repr(cache.whole)
