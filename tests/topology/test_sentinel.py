"""Services under Sentinels: how the primary is found, and found again under load."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from tests.faces import AWAITING, Face, settled
from tests.load import NOTHING, RECENT, Load

from fleetcache import Cache
from fleetcache.client import ClusterClient, HerdClient, SentinelClient
from fleetcache.errors import (
    AccessDenied,
    CircuitOpen,
    NeverSent,
    NotPrimary,
    ServerTimeout,
    SettingsError,
    UnsupportedServer,
)
from fleetcache.exchange.sentinels import Sentinels
from fleetcache.testing import WatchedServers, sentinels, valkey_server
from fleetcache.testing.clusters import Sentinel, free_ports, role, run, wait_for

pytestmark = [pytest.mark.flaky(reruns=2), pytest.mark.newest]

_numbers = count(1)


@pytest.fixture(scope="module")
def servers() -> Iterator[WatchedServers]:
    """A primary, two replicas and three Sentinels, to which things are done."""
    with sentinels() as servers:
        yield servers


@pytest.fixture
def whole(servers: WatchedServers) -> Any:
    """Make a cache that knows nothing of the servers yet."""

    def whole(url: Any = "", kind: Any = Cache, **options: Any) -> Any:
        number = next(_numbers)
        options = {"SOCKET_TIMEOUT": 1 + number / 10000, **options}  # shares nothing with others
        return kind(url or servers.url(), {"KEY_PREFIX": f"s{number}", "OPTIONS": options})

    return whole


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often Sentinels were asked, by the ``id`` of the asking object; servers of other tests may be probed still."""
    found: Counter[int] = Counter()
    ask = Sentinels._ask

    def noting(self: Sentinels, server: Any) -> Any:
        found[id(self)] += 1
        return ask(self, server)

    monkeypatch.setattr(Sentinels, "_ask", noting)
    return found


def at_once(cache: Face, calls: int) -> Any:
    """Call `get` so often at the same time, in tasks or in threads; return what came of it, once awaited."""

    async def all_calls() -> list[Any]:
        if cache.face == AWAITING:
            return await asyncio.gather(*(cache.get("a") for _ in range(calls)))
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(cache.whole.get("a"))) for _ in range(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return all_calls()


def follow(servers: WatchedServers, victim: Any) -> None:
    """Start *victim* again if it died, as a replica; Sentinels would take ten seconds for that."""
    if not victim.runs:
        victim.restart()
    if victim is not servers.primary:
        run(victim, "REPLICAOF", "127.0.0.1", servers.primary.port)
    servers.settle()


# --- finding the primary --------------------------------------------------------------------------


async def test_the_primary_is_found(fresh, servers, asked):
    """Making a cache asks nobody; reads and writes go to the primary, raw clients too; no connection to a Sentinel stays."""
    cache = fresh(servers.url(3).replace("redis+", "valkey+"))
    assert not asked[id(cache.whole.topology.primary.sentinels)]

    assert await cache.set("a", 1) is True
    assert await cache.get("a") == 1

    assert run(servers.primary, "INFO", "keyspace")["db3"]["keys"]
    assert cache.get_client().get(cache.make_key("a")) == b"1"
    for sentinel in cache.whole.topology.primary.sentinels.known:
        assert not sentinel.server.open
        assert not sentinel.server.lines.values()
    cache.get_client().close()


async def test_one_asks_for_all(fresh, asked):
    """However many want to connect at once, one of them asks a Sentinel."""
    cache = fresh()

    assert await at_once(cache, 30) == [None] * 30

    assert asked[id(cache.whole.topology.primary.sentinels)] == 1


async def test_sentinels_that_are_not_there_are_passed_over(fresh, servers):
    """One Sentinel is enough, wherever it stands in the URL; one that hangs costs a part of the time."""
    gone = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    cache = fresh(f"redis+sentinel://{gone},127.0.0.1:{servers.addresses[2][1]}/service")
    slow = fresh(SOCKET_TIMEOUT=2 + next(_numbers) / 10000)
    servers.sentinels[0].pause()
    try:
        began = time.monotonic()
        assert await slow.get("a") is None
        assert 0.6 < time.monotonic() - began < 1.5
        slow.whole.topology.primary.replace_connections()
        began = time.monotonic()
        assert await slow.get("a") is None  # the others are asked first now
        assert time.monotonic() - began < 0.5
    finally:
        servers.sentinels[0].resume()
    assert await cache.set("a", 1) is True


async def test_a_sentinel_that_is_behind(fresh, servers):
    """A server that a Sentinel calls the primary, but that is a replica, is not used: its own primary is, if it is one."""
    wrong, right = next(each for each in servers.servers if each is not servers.primary), servers.primary
    with ExitStack() as stack:
        watching = [
            stack.enter_context(Sentinel([f"monitor other 127.0.0.1 {each.port} 9"])) for each in (wrong, right)
        ]
        behind, ahead = (f"127.0.0.1:{each.port}" for each in watching)
        cache = fresh(f"redis+sentinel://{behind},{ahead}/other")
        misled = fresh(f"redis+sentinel://{behind}/other")

        for each in cache, misled:
            assert await each.set("a", 1) is True
            assert each.whole.topology.primary.sentinels.last == ("127.0.0.1", right.port)


async def test_a_replica_that_follows_nobody(fresh):
    """Where a Sentinel names a replica, and its primary is away, that is no failure of the server: nobody is shut out."""
    with valkey_server() as server, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run(server, "REPLICAOF", "127.0.0.1", unused.getsockname()[1])
        with Sentinel([f"monitor other 127.0.0.1 {server.port} 9"]) as sentinel:
            cache = fresh(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
            for _ in range(5):
                with pytest.raises(NotPrimary, match="is a replica"):
                    await cache.get("a")
            assert not cache.whole.topology.primary.away
            run(server, "REPLICAOF", "NO", "ONE")
            assert await settled_within(cache, 1) is None


async def settled_within(cache, seconds):
    until = time.monotonic() + seconds
    while isinstance(found := await settled(cache.get("a")), Exception) and time.monotonic() < until:
        pass
    return found


async def test_addresses_are_remapped(fresh, servers):
    """ADDRESS_REMAP says where a server is reached that a Sentinel, or a replica, names by another address."""
    wrong, right = next(each for each in servers.servers if each is not servers.primary), servers.primary
    named = []

    def remap(place):
        named.append(place)
        return {9: ("127.0.0.1", right.port), 10: ("127.0.0.1", wrong.port)}.get(place[1], place)

    with ExitStack() as stack:
        lost, behind = (stack.enter_context(Sentinel([f"monitor other 127.0.0.1 {port} 9"])) for port in (9, 10))
        for sentinel in lost, behind:
            cache = fresh(f"redis+sentinel://127.0.0.1:{sentinel.port}/other", ADDRESS_REMAP=remap)
            assert await cache.set("a", 1) is True
            assert cache.whole.topology.primary.sentinels.last == ("127.0.0.1", right.port)
    assert named == [("127.0.0.1", 9), ("127.0.0.1", 10), ("127.0.0.1", right.port)]


async def test_discovery_has_a_bound(fresh, servers):
    """Sentinels and servers that hang cost SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT together at most."""
    cache = fresh(SOCKET_TIMEOUT=0.6 + next(_numbers) / 10000, SOCKET_CONNECT_TIMEOUT=0.3)
    hanging = [*servers.sentinels[:2], *servers.servers]
    for each in hanging:
        each.pause()
    try:
        began = time.monotonic()
        with pytest.raises(ServerTimeout):
            await cache.get("a")
        assert time.monotonic() - began < 0.9 + 0.5
    finally:
        for each in hanging:
            each.resume()
    servers.settle()


@pytest.mark.few(1)
@pytest.mark.parametrize(("kind", "options"), [(SentinelClient, {}), (Cache, {"READ_FROM": "replica"})])
async def test_replicas(fresh, servers, kind, options):
    """SentinelClient takes the URL too, and reads from replicas, as READ_FROM has it; without one, from the primary."""
    cache = fresh(kind=kind, **options)
    replica = cache.whole.topology.replicas[0]
    await cache.set("a", 1)
    wait_for(lambda: cache.whole.get("a") == 1, "the replicas have it")

    assert await cache.get("a") == 1
    assert replica.sentinels.last[1] in {each.port for each in servers.servers if each is not servers.primary}

    with sentinels(replicas=0) as alone:
        cache = fresh(alone.url(), kind, **options)
        assert await cache.set("a", 1) is True
        assert await cache.get("a") == 1


# --- servers that come and go ---------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("how", ["COORDINATED", ""])
def test_a_failover_under_load(whole, servers, asked, how):
    """Another server becomes the primary by command, and nobody sees an error, or a wrong value if it is coordinated."""
    before = servers.primary
    with Load(whole(SOCKET_TIMEOUT=4 + next(_numbers) / 10000), loses=NOTHING if how else RECENT) as load:
        time.sleep(0.2)
        servers.failover(*how.split())
        wait_for(lambda: role(before)[0] == b"slave", "the old one follows")
        time.sleep(0.3)
    servers.settle()

    assert (load.wrong, load.failures) == ([], [])
    assert load.cache.topology.primary.sentinels.last == ("127.0.0.1", servers.primary.port)
    assert asked[id(load.cache.topology.primary.sentinels)] < 20


@pytest.mark.few(1)
def test_failovers_again_and_again(whole):
    """However often the primary changes in an orderly way, no call fails, with a near cache neither.

    For some moments all Sentinels name a server that is a replica already.
    """
    with sentinels(replicas=1) as servers:  # those of the other tests would rest for long afterwards
        for options in ({"NEAR": {"T_TOPO": 2}}, {}, {"NEAR": True}):
            before = servers.primary
            cache = whole(servers.url(), SOCKET_TIMEOUT=4 + next(_numbers) / 10000, **options)
            # A fail-over that follows another one at once may be undone, with what was written meanwhile.
            with Load(cache, loses=RECENT) as load:
                time.sleep(0.2)
                servers.failover("COORDINATED")
                wait_for(lambda was=before: role(was)[0] == b"slave", "the old one follows")
                time.sleep(0.3)
            servers.settle()

            assert (load.wrong, load.failures) == ([], [])


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_primary_fails_under_load(whole, asked, fault):
    """Errors come in time and only while no primary is known; a second after there is one, all is well."""
    timeout = 0.5 + next(_numbers) / 10000
    with sentinels() as servers:  # those of the other tests would rest after a fail-over
        victim = servers.primary
        with Load(whole(servers.url(), SOCKET_TIMEOUT=timeout), loses=RECENT) as load:
            time.sleep(0.2)
            failed = time.monotonic()
            getattr(victim, fault)()
            wait_for(
                lambda: servers.primary is not victim and role(servers.primary)[0] == b"master", "another is primary"
            )
            promoted = time.monotonic()
            time.sleep(2.5)
            victim.resume()
            time.sleep(0.5)

    assert load.wrong == []
    assert load.failures
    assert all(isinstance(error, (NeverSent, CircuitOpen, ServerTimeout)) for _, error in load.failures)
    assert all(failed <= when < promoted + 2 for when, _ in load.failures)
    assert load.slowest < 2.5 * timeout
    assert asked[id(load.cache.topology.primary.sentinels)] < 50


def test_sentinels_fail_under_load(whole, servers):
    """While one or two Sentinels are away, new connections are made as ever; while all are, where the last one led."""
    cache = whole()
    with Load(cache) as load:
        for sentinel in servers.sentinels:
            sentinel.kill()
            time.sleep(0.3)
            cache.topology.primary.replace_connections()
            time.sleep(0.3)
    for sentinel in servers.sentinels:
        sentinel.restart()
    servers.settle()

    assert (load.wrong, load.failures) == ([], [])
    assert load.slowest < 1


@pytest.mark.few(1)
async def test_idle_connections_to_the_old_primary(fresh, servers):
    """What hangs costs one call its time: other idle connections to the same server are not tried."""
    cache = fresh(SOCKET_TIMEOUT=0.5 + next(_numbers) / 10000)
    await at_once(cache, 30)
    victim = servers.primary
    victim.pause()
    try:
        with pytest.raises(ServerTimeout):
            await cache.get("a")
        assert not cache.whole.topology.primary.idle
        wait_for(lambda: servers.primary is not victim and role(servers.primary)[0] == b"master", "another is primary")
        promoted = time.monotonic()
        while isinstance(found := await settled(cache.get("a")), Exception):
            assert time.monotonic() < promoted + 3, found
    finally:
        victim.resume()
        follow(servers, victim)


async def test_connections_that_lead_elsewhere(fresh, servers):
    """When one connection has found another primary, all others go, though the old one still answers."""
    cache = fresh()
    await cache.set("a", 1)
    before = servers.primary
    after = servers.failover()
    assert role(before)[0] == b"master"
    if cache.face == AWAITING:
        await asyncio.to_thread(cache.whole.topology.primary.connect_apart().disconnect)
        await asyncio.sleep(0.01)
    else:
        cache.whole.topology.primary.connect_apart().disconnect()

    await cache.set("b", 2)

    assert run(after, "EXISTS", cache.make_key("b")) == 1
    follow(servers, before)


# --- passwords ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[WatchedServers]:
    """Servers with one password, and Sentinels with another; each also has a user."""
    with sentinels(password="servers-secret", sentinel_password="sentinels-secret", replicas=1) as servers:
        for server in servers.servers:
            run(server, "ACL", "SETUSER", "site", "on", ">site-secret", "~*", "&*", "+@all", "-@dangerous")
        for sentinel in servers.sentinels:
            run(sentinel, "ACL", "SETUSER", "asker", "on", ">asker-secret", "+auth", "+hello", "+sentinel")
        yield servers


@pytest.mark.few(1)
@pytest.mark.parametrize("server", [":servers-secret@", "site:site-secret@"])
@pytest.mark.parametrize(
    "sentinel", [{"password": "sentinels-secret"}, {"username": "asker", "password": "asker-secret"}]
)
async def test_passwords(fresh, guarded, server, sentinel):
    """Servers have passwords and users of their own, and so have Sentinels; INFO need not be permitted."""
    url = guarded.url().replace("//", f"//{server}")
    cache = fresh(url, SENTINEL_KWARGS=sentinel)
    other = fresh("redis://service/0", SentinelClient, SENTINELS=guarded.addresses, SENTINEL_KWARGS=sentinel,
                  PASSWORD="servers-secret")  # fmt: skip

    assert await cache.set("a", 1) is True
    assert await cache.get("a") == 1
    assert await other.get("a") is None
    assert cache.get_client().get(cache.make_key("a")) == b"1"
    cache.get_client().close()
    assert "secret" not in repr(cache.whole.settings) + repr(cache.whole)


@pytest.mark.parametrize(
    ("user", "options", "message"),
    [
        ("", {"SENTINEL_KWARGS": {"password": "sentinels-secret"}}, r"service \(primary\)/0: .* wants .*OPTIONS\['PASSWORD'"),
        (":bad@", {"SENTINEL_KWARGS": {"password": "sentinels-secret"}}, r"service \(primary\)/0: .* refused .*\['PASSWORD'"),
        (":servers-secret@", {}, "wants a password of user 'default'. Check what a Sentinel wants: .*SENTINEL_KWARGS"),
        (":servers-secret@", {"SENTINEL_KWARGS": {"password": "bad"}}, "refused the password .*SENTINEL_KWARGS"),
    ],
)  # fmt: skip
async def test_wrong_passwords(fresh, guarded, user, options, message):
    """Whose password is wrong, and where to write it, is said; never the password."""
    cache = fresh(guarded.url().replace("//", f"//{user}"), **options)

    with pytest.raises(AccessDenied, match=message) as refused:
        await cache.get("a")
    assert "bad" not in str(refused.value)


async def test_encrypted(fresh, tls):
    """Under rediss+sentinel:// the servers speak TLS, whatever the Sentinels do."""
    with Sentinel([f"monitor secret 127.0.0.1 {tls.tls_port} 9"]) as sentinel:
        query = f"ssl_ca_certs={tls.ca}"
        cache = fresh(f"rediss+sentinel://127.0.0.1:{sentinel.port}/secret/5?{query}")

        assert await cache.set("a", 1) is True
        assert await cache.get("a") == 1


# --- what cannot be -------------------------------------------------------------------------------


async def test_a_service_that_nobody_knows(fresh, servers):
    """The error names the service and the Sentinels that were asked; it is an outage, and can be ignored as one."""
    url = servers.url().replace("service", "Servise")
    asked = ", ".join(f"127.0.0.1:{port}" for _, port in servers.addresses)

    with pytest.raises(NeverSent, match=f"no Sentinel knows a service 'Servise'. Asked: {asked}. Compare the name"):
        await fresh(url).get("a")
    assert await fresh(url, IGNORE_EXCEPTIONS=True).get("a", 5) == 5


async def test_no_sentinel(fresh, servers):
    """Sentinels that are not there, and servers that are none, are named."""
    one, other = free_ports(2)
    with pytest.raises(NeverSent, match=f"no Sentinel could be asked: .*:{one}[./].*:{other}[./]"):
        await fresh(f"redis+sentinel://127.0.0.1:{one},127.0.0.1:{other}/service").get("a")
    with pytest.raises(UnsupportedServer, match=f"{servers.primary.port}/0: the server is no Sentinel .*redis://"):
        await fresh(f"redis+sentinel://127.0.0.1:{servers.primary.port}/service").get("a")


@pytest.mark.parametrize(
    ("location", "kind", "options", "message"),
    [
        ("redis+sentinel://h:1", Cache, {}, "service is missing"),
        ("redis+sentinel://h:1//0", Cache, {}, "the database must be a whole number|service is missing"),
        ("redis+sentinel:///service", Cache, {}, "a host is missing"),
        ("redis+sentinel://h,,i/service", Cache, {}, "a host is missing"),
        ("redis+sentinel://h:1,:a@i/service", Cache, {}, "stands before the @"),
        ("redis+sentinel://h:1,i:x/service", Cache, {}, "the port must be a number up to 65535"),
        ("redis+sentinel://h:1/service/two", Cache, {}, "must be a whole number, not 'two'"),
        ("redis+sentinel://h:1/service/2/3", Cache, {}, "must be a whole number"),
        ("redis+sentinel://:a#b@h:1/service", Cache, {}, "%23"),
        ("redis+sentinel://h/s", ClusterClient, {}, "redis.cluster://"),
        ("redis+sentinel://h/s", Cache, {"CONNECTION_FACTORY": "fleetcache.pool.ConnectionFactory"}, "ask Sentinels"),
        ("redis+sentinel://h/s?sockt_timeout=1", Cache, {}, "sockt_timeout"),
        ("memory://", SentinelClient, {"SENTINELS": [("h", 1)]}, "rediss://"),
        ("redis+sentinal://h/s", Cache, {}, "Did you mean 'redis.sentinel'"),
    ],
)
def test_settings_that_cannot_be(location, kind, options, message):
    """What cannot be is refused before anything is sent."""
    with pytest.raises(SettingsError, match=message):
        kind(location, {"OPTIONS": options})


def test_urls():
    """The hosts are the Sentinels'; user, password, database and parameters are the servers'."""
    cache = HerdClient("rediss+sentinel://user:p,w@h1:26380,h2,[::1]:7/My-Service/4?ssl_cert_reqs=none&client_name=me")

    (server,) = cache.topology.servers
    assert server.address == "My-Service (primary)/4"
    known = [each.server.address for each in server.sentinels.known]
    assert known == ["h1:26380/0", "h2:26379/0", "[::1]:7/0"]
    kwargs = server.pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("user", "p,w", 4)
    assert (kwargs["ssl_cert_reqs"], kwargs["client_name"]) == ("none", "me")
    asked = server.sentinels.known[0].server.pool.connection_kwargs
    assert (asked.get("username"), asked.get("password"), asked["socket_timeout"]) == (None, None, 5 / 3)
    assert "p,w" not in repr(cache) + repr(cache.settings)
