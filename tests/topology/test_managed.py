"""What managed services do to their clients: credentials and certificates that change, and connections that end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import credentials
from redis.credentials import CredentialProvider
from redis.exceptions import NoPermissionError
from tests.faces import FACES, Face, settled
from tests.load import RECENT, Load
from tests.nearby import wait_until_live
from tests.operations import ABSENT, PAGES

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import SentinelClient
from fleetcache.errors import (
    AccessDenied,
    ConnectionLost,
    ServerTimeout,
    SettingsError,
    TooManyConnections,
    UnsupportedServer,
)
from fleetcache.exchange.connecting import VERSION
from fleetcache.exchange.wire import pack
from fleetcache.testing import FaultProxy, cluster, sentinels, tls_server, valkey_server
from fleetcache.testing.clusters import run, wait_for
from fleetcache.testing.servers import certify

pytestmark = [pytest.mark.flaky(reruns=2), pytest.mark.newest]

_numbers = count(1)
SECRET = "hunter-2"


class Tokens(CredentialProvider):
    """Hands out the password of *user*, which a test changes."""

    def __init__(self, user: str, password: str = "p0") -> None:
        self.user = user
        self.password = password
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        return self.user, self.password


class Stream(Tokens, getattr(credentials, "StreamingCredentialProvider", object)):  # redis-py 5.3
    """Tells one listener of each new password, as redis-entraid does."""

    listener: Any = None
    failed: Any = None

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()

    def on_next(self, callback: Any) -> None:
        self.listener = callback

    def on_error(self, callback: Any) -> None:
        self.failed = callback

    def is_streaming(self) -> bool:
        return True


@pytest.fixture(scope="module")
def single() -> Iterator[Any]:
    """A Valkey to which things are done."""
    with valkey_server() as server:
        yield server


@pytest.fixture(scope="module")
def several() -> Iterator[Any]:
    """A cluster of two."""
    with cluster(primaries=2, replicas=0) as servers:
        yield servers


@pytest.fixture(params=["single", "single-near", "several", "several-near"])
def place(request: pytest.FixtureRequest) -> Place:
    """One server and a cluster, each without and with a near cache."""
    kind, _, near = request.param.partition("-")
    server = request.getfixturevalue(kind)
    nodes, url = ([server], server.tcp_url()) if kind == "single" else (server.nodes, server.url())
    return Place(nodes, url, {"NEAR": {"MAX_TTL": 2}} if near else {})


class Place:
    """Where a test's user exists."""

    def __init__(self, nodes: Any, url: str, options: dict[str, Any]) -> None:
        self.nodes = nodes
        self.url = url
        self.options = options
        self.user = f"user{next(_numbers)}"

    def acl(self, *rules: str) -> None:
        for node in self.nodes:
            run(node, "ACL", "SETUSER", self.user, *rules)

    def allow(self, *rules: str) -> None:
        self.acl("on", ">p0", *(rules or ("~*", "+@all")))

    def clients(self) -> dict[tuple[int, str], dict[str, str]]:
        """Return what the servers tell of the user's connections."""
        found = {}
        for place, node in enumerate(self.nodes):
            for line in run(node, "CLIENT", "LIST").decode().splitlines():
                facts = dict(fact.partition("=")[::2] for fact in line.split())
                if facts["user"] == self.user:
                    found[place, facts["id"]] = facts
        return found

    def kill(self) -> None:
        for node in self.nodes:
            run(node, "CLIENT", "KILL", "USER", self.user)

    def cache(self, **options: Any) -> Cache:
        cache = Cache(self.url, {"KEY_PREFIX": self.user, "OPTIONS": {**self.options, **options}})
        if cache.near is not None:
            wait_until_live(cache.near)
        return cache


def assert_flawless(load: Load) -> None:
    assert load.failures == []
    assert load.wrong == []
    assert load.calls > 50


def connections(node: Any) -> list[dict[str, str]]:
    """Return what *node* says of each connection but the one that asks."""
    lines = run(node, "CLIENT", "LIST").decode().splitlines()
    found = [dict(fact.partition("=")[::2] for fact in line.split()) for line in lines]
    return [each for each in found if each["cmd"] != "client|list"]


def all_work(nodes: Any, user: str = "default", others: int = 0) -> bool:
    """Whether the threads and the loop of a `Load`, and *others*, are connected to each node, for a second or more.

    Two ends in a row, while one caller's connection is made, are an outage.
    """
    at_work = [each for node in nodes for each in connections(node) if each["user"] == user]
    ages = [int(each["age"]) for each in at_work if "t" not in each["flags"]]
    return len(ages) >= 3 * len(nodes) + others and min(ages) > 0


# --- passwords ------------------------------------------------------------------------------------


@pytest.mark.few(2)
@pytest.mark.parametrize("ends", [False, True], ids=["sessions go on", "sessions end"])
def test_a_password_rotates_under_load(place, ends):
    """The new password is added, then handed out, then the old one is removed: no caller notices in either face."""
    provider = Tokens(place.user)
    place.allow()

    with Load(place.cache(credential_provider=provider)) as load:
        for number in range(1, 4):
            wait_for(lambda: all_work(place.nodes, place.user), "all have connected")
            place.acl(f">p{number}")
            provider.password = f"p{number}"
            place.acl(f"<p{number - 1}")
            if ends:
                place.kill()
        wait_for(lambda: all_work(place.nodes, place.user), "all have connected")

    assert_flawless(load)
    assert provider.asked >= (4 * 3 if ends else 3)


async def test_an_ended_token_is_asked_for_again(place, face):
    """A provider that hands out its old token once more is asked again before the caller hears of it."""

    class Late(Tokens):
        def get_credentials(self):
            self.asked += 1
            return self.user, "ended" if self.asked % 2 else self.password

    place.allow()
    provider = Late(place.user)
    cache = Face(Cache(place.url, {"OPTIONS": {"credential_provider": provider}}), face)

    assert await cache.set("a", 1) is True
    assert await cache.get("a") == 1
    assert provider.asked % 2 == 0
    provider.password = SECRET
    place.kill()
    with pytest.raises(
        AccessDenied, match="refused, twice, the credentials that credential_provider Late returned"
    ) as caught:
        await cache.get("a")
    assert SECRET not in str(caught.value)


@pytest.mark.few(2)
def test_a_streaming_provider_renews_connections(place):
    """Each new token lets the older connections go, in use or idle, and no reply is lost."""
    provider = Stream(place.user)
    place.allow()
    cache = place.cache(credential_provider=provider)
    cache.incr("sum", default=0)
    sums = []

    def add() -> None:
        while not load.over.is_set():
            sums.append(cache.incr("sum"))

    with Load(cache) as load:
        adding = threading.Thread(target=add)
        adding.start()
        for number in range(1, 5):
            time.sleep(0.2)
            before = ordinary(place)
            place.acl("resetpass", f">p{number}")
            provider.password = f"p{number}"
            # redis-py calls the listener, or awaits it, by which of its faces asked first.
            announced = provider.listener("token")
            assert asyncio.run(awaited(announced)) is None
            wait_for(lambda: not before & ordinary(place), "the older connections are gone")
    adding.join(10)

    assert_flawless(load)
    assert sums == list(range(sums[0], sums[0] + len(sums)))


async def awaited(awaitable: Any) -> Any:
    return await awaitable


def ordinary(place: Place) -> set[Any]:
    """Return the user's connections, without a near cache's own."""
    return {name for name, facts in place.clients().items() if "t" not in facts["flags"] and "B" not in facts["flags"]}


def test_raw_clients_take_no_listener(single, caplog):
    """A provider with room for one listener tells us; what it fails with is logged without its text."""
    place = Place([single], single.tcp_url(), {})
    place.allow()
    provider = Stream(place.user)
    cache = place.cache(credential_provider=provider)
    raw = cache.get_client()
    assert raw.ping()
    (before,) = place.clients()

    provider.listener("token")
    with caplog.at_level(logging.ERROR, "fleetcache.server"):
        provider.failed(RuntimeError(SECRET))

    wait_for(lambda: not place.clients(), "the raw client's connection is gone")
    assert raw.ping()
    assert before not in place.clients()
    assert "credential_provider Stream: no new token: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


async def test_a_provider_that_fails(place, face, caplog):
    """The error names it and not what it said; live connections go on, and the breaker stays out of it."""
    place.allow()
    provider = Tokens(place.user)
    cache = Face(Cache(place.url, {"OPTIONS": {"credential_provider": provider}}), face)
    ignoring = Face(Cache(place.url, {"OPTIONS": {"credential_provider": provider, "IGNORE_EXCEPTIONS": True}}), face)
    await cache.set("a", 1)
    good = provider.get_credentials

    def fails():
        raise OSError(SECRET)

    provider.get_credentials = fails
    assert await cache.get("a") == 1
    place.kill()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            with pytest.raises(AccessDenied, match="credential_provider Tokens raised OSError") as caught:
                await cache.get("a")
            assert SECRET not in str(caught.value)
            assert await ignoring.get("a", "default") == "default"
    assert SECRET not in caplog.text
    new = Tokens(place.user)
    new.get_credentials = fails
    with pytest.raises(AccessDenied) as caught:
        await Face(Cache(place.url, {"OPTIONS": {"credential_provider": new}}), face).get("a")
    assert "OSError" in repr((caught.value.__cause__, caught.value.__cause__.__cause__))
    provider.get_credentials = lambda: "p0"
    with pytest.raises(AccessDenied, match="raised TypeError"):
        await cache.get("a")

    provider.get_credentials = good
    assert await cache.get("a") == 1


def test_providers_are_shared(single):
    """Caches with one provider share connections, those with another do not; a dotted path names one too."""
    place = Place([single], single.tcp_url(), {})
    one, two = Tokens(place.user), Tokens(place.user)

    servers = [place.cache(credential_provider=provider).topology.primaries[0] for provider in (one, one, two)]
    named = [place.cache(credential_provider=f"{__name__}.NAMED").topology.primaries[0] for _ in range(2)]

    assert servers[0] is servers[1]
    assert servers[0] is not servers[2]
    assert named[0] is named[1]


NAMED = Tokens("named")


@pytest.mark.parametrize(
    ("provider", "message"),
    [(Tokens, "not the class Tokens"), (7, "not an int"), ("no.such.thing", "cannot be imported")],
)
def test_what_is_no_provider(provider, message):
    """What cannot be asked is refused before anything is sent."""
    with pytest.raises(SettingsError, match=message):
        Cache("redis://127.0.0.1:1", {"OPTIONS": {"credential_provider": provider}})
    with pytest.raises(SettingsError, match="cannot be passed along"):
        Cache("redis://u:p@127.0.0.1:1", {"OPTIONS": {"credential_provider": NAMED, "PASSWORD": "p"}})


async def test_a_session_that_ends_within_its_connection(face):
    """NOAUTH on a connection that was logged in means that nothing ran: it is asked again on a new one."""
    with valkey_server(arguments=["--requirepass", "p0"]) as server:
        cache = Face(Cache(server.tcp_url(), {"OPTIONS": {"PASSWORD": "p0"}}), face)
        await cache.set("count", 1)
        remote = cache.topology.primaries[0]
        for operation in (cache.get, cache.incr, cache.incr):
            if face == "blocking":
                remote.idle[-1].ask(pack((b"RESET",)), 1)
            else:
                await remote.lines.get(asyncio.get_running_loop()).ask(pack((b"RESET",)), [(b"RESET",)])
            await operation("count")
        assert await cache.get("count") == 3


# --- certificates ---------------------------------------------------------------------------------


def put(text: str, place: Path) -> None:
    """Replace the file at *place* in one step."""
    place.with_suffix(".new").write_text(text)
    os.replace(place.with_suffix(".new"), place)


@pytest.mark.few(1)
@pytest.mark.parametrize("near", [False, True])
def test_certificates_rotate_under_load(tmp_path, near):
    """New connections take the files as they are: of the authorities, of the client's certificate and of its key."""
    with tls_server(arguments=["--tls-auth-clients", "yes"]) as server:
        trust, own = tmp_path / "trust.pem", tmp_path / "own.pem"
        put(server.ca.read_text(), trust)
        put(server.certificate.read_text() + server.key.read_text(), own)
        options = {
            "ssl_ca_certs": str(trust),
            "ssl_certfile": str(own),
            "ssl_keyfile": str(own),
            "NEAR": {"MAX_TTL": 2} if near else None,
        }
        cache = Cache(f"rediss://127.0.0.1:{server.tls_port}", {"OPTIONS": options})
        authorities = server.ca.read_text()
        with Load(cache) as load:
            for number in range(3):
                time.sleep(0.3)
                (tmp_path / str(number)).mkdir()
                new = certify(tmp_path / str(number))
                # Trust comes first on both sides, then the certificates, and at last the old authority goes.
                authorities += (new / "ca.pem").read_text()
                put(authorities, trust)
                run(server, "CONFIG", "SET", "tls-ca-cert-file", str(trust))
                put((new / "server.pem").read_text() + (new / "server.key").read_text(), own)
                run(server, "CONFIG", "SET", "tls-cert-file", str(own), "tls-key-file", str(own))
                authorities = (new / "ca.pem").read_text()
                put(authorities, trust)
                run(server, "CONFIG", "SET", "tls-ca-cert-file", str(trust))
                wait_for(lambda: all_work([server]), "nobody connects with the old files")
                run(server, "CLIENT", "KILL", "TYPE", "normal")
            wait_for(lambda: all_work([server]), "all have connected")

        assert_flawless(load)
        own.write_text("no certificate")
        run(server, "CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(redis.ConnectionError):
            cache.get("a")


def test_a_cluster_with_tls():
    """Nodes are found, and slots and roles change hands, over TLS; names and addresses are both certified."""
    with cluster(primaries=2, replicas=1, tls=True) as servers:
        cache = Cache(servers.url())
        with Load(cache, loses=RECENT) as load:
            servers.move_slot(866, next(node for node in servers.primaries if node is not servers.owner(866)))
            for node in servers.nodes:
                run(node, "CONFIG", "SET", "cluster-announce-hostname", "localhost")
            for node in servers.nodes:
                run(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
            servers.settle()
            servers.failover(servers.primaries[0])
        assert load.wrong == []
        assert [error for _, error in load.failures if not isinstance(error, ConnectionLost)] == []
        asyncio.run(cache.aset_many({str(number): number for number in range(50)}))
        assert len(cache.get_many(map(str, range(50)))) == 50
        assert {node.place[0] for node in cache.topology.servers} == {"localhost"}


# --- one address ----------------------------------------------------------------------------------


@contextmanager
def announcing(servers: Any, kind: str, names: list[str]) -> Iterator[None]:
    for node, name in zip(servers.nodes, names, strict=True):
        run(node, "CONFIG", "SET", "cluster-announce-hostname", name, "cluster-preferred-endpoint-type", kind)
    wait_for(lambda: all(known(node, kind, names) for node in servers.nodes), "all know the names")
    yield
    for node in servers.nodes:
        run(node, "CONFIG", "SET", "cluster-announce-hostname", "", "cluster-preferred-endpoint-type", "ip")


def known(node: Any, kind: str, names: list[str]) -> bool:
    hosts = {(place[0] or b"").decode() for held in run(node, "CLUSTER", "SLOTS") for place in held[2:]}
    return kind != "hostname" or hosts == {name or "?" for name in names}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("hostname", ["localhost", "localhost"]), ("hostname", ["", ""]), ("unknown-endpoint", ["", ""])],
)
async def test_one_address_leads_to_all_nodes(several, face, kind, names):
    """Nodes go by other names than the one in LOCATION, or by none: then they are where the first one was."""
    url = f"redis+cluster://127.0.0.1:{several.nodes[0].port}?client_name=one{next(_numbers)}"
    with announcing(several, kind, names):
        cache = Face(Cache(url), face)

        assert await cache.set_many({str(number): number for number in range(50)}) == []
        assert len(await cache.get_many(map(str, range(50)))) == 50
        assert {node.place[0] for node in cache.topology.servers} == {names[0] or "127.0.0.1"}


async def test_addresses_are_remapped(several, face):
    """``address_remap`` says where a node is that announces what cannot be reached from here; MOVED is remapped too."""
    asked = []

    def remap(address):
        asked.append(address)
        return "127.0.0.1", address[1]

    with announcing(several, "hostname", ["one.invalid", "two.invalid"]):
        cache = Face(
            Cache(f"redis+cluster://127.0.0.1:{several.nodes[0].port}", {"OPTIONS": {"address_remap": remap}}), face
        )
        assert await cache.set_many({str(number): number for number in range(50)}) == []
        cache.topology.slots[:] = cache.topology.slots[::-1]
        assert len(await cache.get_many(map(str, range(50)))) == 50
        assert len(cache.topology.servers) == 2
        with cache.get_client() as raw:
            assert raw.ping()
        cache.topology.raw = None
    assert {host for host, _ in asked} == {"one.invalid", "two.invalid"}


async def test_a_raw_cluster_client_is_no_client(several):
    """``client=`` with a cluster's says what to do instead."""
    with redis.RedisCluster("127.0.0.1", several.nodes[0].port) as raw:
        with pytest.raises(TypeError, match="not RedisCluster. On a cluster leave it out"):
            Cache(several.url()).get("a", client=raw)


# --- users ----------------------------------------------------------------------------------------

ORDINARY = "-@all +@read +@write -@admin -@dangerous +multi +exec +eval +evalsha +time"
"""docs/managed.md has these lines."""
NEAR = "+info +client|tracking"
CLUSTER = "+cluster|slots +asking"
SENTINEL = "-@all +ping +sentinel|get-master-addr-by-name +sentinel|replicas"


def acl_log(node: Any) -> list[Any]:
    with redis.Redis(unix_socket_path=str(node.socket), decode_responses=True) as client:
        return client.acl_log(100)


async def all_of(pages: Any) -> list[Any]:
    return [item async for item in pages]


async def test_a_user_with_few_rights(place, face):
    """Each operation works with the rights that docs/managed.md lists, under a prefix of its own."""
    rules = f"{ORDINARY} {NEAR if place.options else ''} {CLUSTER if len(place.nodes) > 1 else ''}".split()
    place.acl("on", ">p0", f"~{{{place.user}}}:*", "~fleetcache:*", *rules)
    whole = Cache(
        place.url,
        {"KEY_PREFIX": f"{{{place.user}}}", "OPTIONS": {**place.options, "USERNAME": place.user, "PASSWORD": "p0"}},
    )
    if whole.near is not None:
        wait_until_live(whole.near)
    cache = Face(whole, face)

    for name, (arguments, _) in ABSENT.items():
        operation = getattr(cache, name)(*arguments)
        answer = await settled(all_of(operation) if name in PAGES else operation)
        assert not isinstance(answer, (redis.ConnectionError, NoPermissionError)), name
    async with cache.lock("lock", timeout=10):
        pass
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).get("a")
    assert await pipe.execute() == [True, 1]
    assert await cache.incr("a", 2.5) == 3.5
    await cache.clear()
    assert await cache.keys("*") == []
    with pytest.raises(NoPermissionError):
        await Face(Cache(place.url, {"OPTIONS": {"USERNAME": place.user, "PASSWORD": "p0"}}), face).get("a")
    for node in place.nodes:
        denied = [entry["object"] for entry in acl_log(node) if entry["username"] == place.user]
        assert set(denied) <= {"client|setinfo", ":1:a"}


async def test_a_database_wants_flushdb(single, face):
    """Without a prefix ``clear`` empties the database, which is a dangerous command."""
    place = Place([single], single.tcp_url(), {})
    place.allow("~*", *ORDINARY.split())
    cache = Face(Cache(place.url, {"OPTIONS": {"USERNAME": place.user, "PASSWORD": "p0"}}), face)

    with pytest.raises(NoPermissionError, match="flushdb"):
        await cache.clear()
    place.acl("+flushdb")
    await cache.clear()


@pytest.mark.few(1)
async def test_sentinels_with_users(face):
    """Sentinels and servers have users of their own, with few rights."""
    with sentinels() as watched:
        for sentinel in watched.sentinels:
            run(sentinel, "ACL", "SETUSER", "finder", "on", ">s0", "&*", *SENTINEL.split())
        for server in watched.servers:
            run(server, "ACL", "SETUSER", "site", "on", ">p0", "~shop:*", *ORDINARY.split(), "+info")
        options = {
            "SENTINELS": watched.addresses,
            "SENTINEL_KWARGS": {"username": "finder", "password": "s0"},
            "USERNAME": "site",
            "PASSWORD": "p0",
        }
        cache = Face(SentinelClient(f"redis://{watched.service}/0", {"KEY_PREFIX": "shop", "OPTIONS": options}), face)

        assert await cache.set("a", 1) is True
        assert await cache.get("a") == 1


# --- introductions --------------------------------------------------------------------------------


async def test_connections_say_who_they_are(place):
    """Every connection, the near cache's own included, bears our name and version, or the site's."""
    place.allow()
    cache = place.cache(USERNAME=place.user, PASSWORD="p0")
    cache.set("a", 1)
    await cache.aset("a", 1)

    if cache.near is not None:
        cache.get("a")
        wait_for(lambda: any("t" in facts["flags"] for facts in place.clients().values()), "it listens")

    names = {(facts["lib-name"], facts["lib-ver"]) for facts in place.clients().values()}
    assert names == {("fleetcache", VERSION)}
    assert len(place.clients()) >= 2
    await cache.aclose()

    place.kill()
    own = {"lib_name": "shop", "lib_version": "7"}
    if hasattr(redis, "DriverInfo"):
        own = {"driver_info": redis.DriverInfo(name="shop", lib_version="7")}
    other = place.cache(USERNAME=place.user, PASSWORD="p0", **own)
    other.set("a", 1)
    await other.aset("a", 1)
    assert ("shop", "7") in {(facts["lib-name"], facts["lib-ver"]) for facts in place.clients().values()}
    if "driver_info" in own:
        silent = place.cache(USERNAME=place.user, PASSWORD="p0", driver_info=None)
        silent.set("a", 1)
        assert ("", "") in {(facts["lib-name"], facts["lib-ver"]) for facts in place.clients().values()}


@pytest.mark.parametrize("face", FACES)
async def test_a_server_that_knows_no_introduction(redis_debian, face):
    """Redis 7.0 knows no CLIENT SETINFO, and nobody is the worse for it."""
    cache = Face(Cache(redis_debian.tcp_url(), {"OPTIONS": {"client_name": "introduced"}}), face)

    assert await cache.set("a", 1) is True


async def test_a_server_without_hello(face):
    """The error says what to do; with ``protocol`` 2 all works but the near cache, which says why."""
    with valkey_server(arguments=["--rename-command", "HELLO", ""]) as server:
        with pytest.raises(UnsupportedServer, match=r'OPTIONS\["protocol"\] = 2'):
            await Face(Cache(server.tcp_url()), face).get("a")

        cache = Face(Cache(server.tcp_url(), {"OPTIONS": {"protocol": 2, "NEAR": True}}), face)
        assert await cache.set("a", {"x": 1}) is True
        assert await cache.get("a") == {"x": 1}
        wait_for(lambda: 'OPTIONS["protocol"] is 2' in cache.whole.near.why, "it says why")


# --- connections that end -------------------------------------------------------------------------


@pytest.fixture(params=["plain", "tls", "cluster"])
def crowded(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Cache]]:
    """The servers, and a cache on them."""
    if request.param == "cluster":
        with cluster(primaries=2, replicas=0) as servers:
            yield servers.nodes, Cache(servers.url())
    elif request.param == "tls":
        with tls_server() as server:
            yield [server], Cache(server.tls_url())
    else:
        with valkey_server() as server:
            yield [server], Cache(server.tcp_url())


@pytest.mark.few(1)
def test_idle_connections_are_closed(crowded):
    """A server that closes connections after a second of silence is not noticed, not even by writes that run once."""
    nodes, cache = crowded
    for node in nodes:
        run(node, "CONFIG", "SET", "timeout", 1)
    silence = threading.Barrier(2, lambda: wait_for(lambda: not any(map(connections, nodes)), "they are closed"), 30)
    mine: list[Any] = []
    found: list[Any] = []

    async def awaiting() -> None:
        for _ in range(3):
            found.extend([await cache.aincr("b", default=0), await cache.aget("b")])
            await asyncio.to_thread(silence.wait)

    thread = threading.Thread(target=lambda: asyncio.run(awaiting()))
    thread.start()
    for _ in range(3):
        mine.extend([cache.incr("a", default=0), cache.get("a")])
        silence.wait()
    thread.join(30)

    assert mine == found == [1, 1, 2, 2, 3, 3]


@pytest.mark.few(1)
def test_connections_are_killed_under_load(crowded):
    """Only writes that may have run and must not run twice come to an error, which says so."""
    nodes, cache = crowded
    cache.incr("sum", default=0)
    done, lost = [], []

    def add() -> None:
        while not load.over.is_set():
            try:
                done.append(cache.incr("sum"))
            except ConnectionLost as error:
                lost.append(error)

    with Load(cache) as load:
        adding = threading.Thread(target=add)
        adding.start()
        for _ in range(4):
            wait_for(lambda: all_work(nodes, others=1), "all have connected")
            for node in nodes:
                run(node, "CLIENT", "KILL", "TYPE", "normal")
    adding.join(10)

    assert_flawless(load)
    assert len(lost) <= 4
    assert len(done) + 1 <= cache.get("sum") <= len(done) + 1 + len(lost)


async def test_a_server_that_is_full(face):
    """A caller with a connection goes on; others are told that there are too many connections, which is no outage."""
    with valkey_server(arguments=["--maxclients", "10"]) as server:
        cache = Face(Cache(server.tcp_url()), face)
        assert await cache.set("a", 1) is True
        others = []
        for _ in range(12):
            others.append(socket.create_connection(("127.0.0.1", server.port)))
        assert await cache.get("a") == 1
        other = Face(Cache(server.tcp_url(), {"OPTIONS": {"client_name": "other"}}), face)
        for _ in range(5):
            answer = await settled(other.get("a"))
            assert isinstance(answer, redis.ConnectionError)
        assert isinstance(answer, TooManyConnections), answer
        for each in others:
            each.close()
        wait_for(lambda: len(run(server, "CLIENT", "LIST").splitlines()) < 5, "there is room again")
        assert await other.get("a") == 1


async def test_a_silent_balancer(single, face):
    """Connections that were forgotten without a word cost one timeout together, not one each."""
    with FaultProxy(("127.0.0.1", single.port)) as proxy:
        cache = Face(Cache(proxy.url(), {"OPTIONS": {"SOCKET_TIMEOUT": 0.4}}), face)
        server = cache.whole.topology.primaries[0]
        if face == "blocking":
            told = [server.tell([(c.GET, "a")]) for _ in range(5)]
            for each in told:
                server.hear(each)
            assert len(server.idle) == 5
        await cache.set("a", 1)
        old = set(proxy._links)
        proxy.hold(only=lambda link: link in old)

        with pytest.raises(ServerTimeout):
            await cache.get("a")
        for _ in range(5):
            assert await cache.get("a") == 1


async def test_keepalive(single, face):
    """Sockets probe a silent way after half a minute, or as the site says, before balancers forget them."""
    for options, idle in ({}, 30), ({"socket_keepalive_options": {socket.TCP_KEEPIDLE: 77}}, 77):
        options = {"socket_keepalive": True, **options}
        cache = Face(Cache(single.tcp_url(), {"OPTIONS": options}), face)
        await cache.get("a")
        server = cache.whole.topology.primaries[0]
        if face == "blocking":
            sock = server.idle[-1].sock
        else:
            sock = server.lines.get(asyncio.get_running_loop()).transport
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if redis.Connection(**options).socket_keepalive_options:  # older releases of redis-py have no default
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
