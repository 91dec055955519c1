"""Our own writes void the lease of an entry: what is being loaded then is not stored over what was written."""

from __future__ import annotations

import time

import pytest
import redis
from tests.caches import own_prefix, params
from tests.faces import Face
from tests.test_pipeline import counted
from tests.topology.test_cluster import run

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.client import ShardClient
from fleetcache.keys import epoch_name, gone_name, lease_name

VOIDING = {
    "delete": lambda cache: cache.delete("a"),
    "delete-many": lambda cache: cache.delete_many(["a", "b"]),
    "set-ended": lambda cache: cache.set("a", 1, 0),
    "set-short": lambda cache: cache.set("a", 1, 5),
    "set-xx-short": lambda cache: cache.set("a", 1, 5, xx=True),
    "set-many-short": lambda cache: cache.set_many({"b": 1, "a": 1}, 5),
    "set-many-ended": lambda cache: cache.set_many({"b": 1, "a": 1}, 0),
    "add-short": lambda cache: cache.add("a", 1, 5),
    "incr-short": lambda cache: cache.incr("a", default=0, timeout=5),
    "touch-short": lambda cache: cache.touch("a", 5),
    "expire": lambda cache: cache.expire("a", 5),
    "pexpire": lambda cache: cache.pexpire("a", 5),
    "expire-at": lambda cache: cache.expire_at("a", int(time.time()) + 5),
    "pexpire-at": lambda cache: cache.pexpire_at("a", int(time.time() * 1000) + 5000),
    "moved-away": lambda cache: cache.incr_version("a"),
    "moved-here": lambda cache: cache.incr_version("a", version=0),
}
SEVERAL = {"delete-pattern": lambda cache: cache.delete_pattern("a*")}
KEEPING = {
    "get": lambda cache: cache.get("a"),
    "set": lambda cache: cache.set("a", 1, 300),
    "set-for-ever": lambda cache: cache.set("a", 1, None),
    "set-many": lambda cache: cache.set_many({"b": 1, "a": 1}, 300),
    "add": lambda cache: cache.add("a", 1, 300),
    "touch": lambda cache: cache.touch("a", 300),
    "persist": lambda cache: cache.persist("a"),
    "incr": lambda cache: cache.incr("a", default=0),
    "delete-another": lambda cache: cache.delete("b"),
}
HELD = {**VOIDING, **SEVERAL}


def lease(cache, name: str, *words: object):
    """Set, or with no *words* get, the lease of the entry called *name*, beside the entry."""
    server = cache.whole.topology.home(name)
    verb = c.SET if words else c.GET_NOW
    (reply,) = server.exchange([(verb, lease_name(name), *words)])
    return reply


async def prepared(cache) -> str:
    """Store entries, and hold the lease of one; return its name."""
    await cache.set("a", 1, 300)
    await cache.set("a", 1, 300, version=0)
    name = cache.whole.make_key("a")
    assert lease(cache, name, b"held") == b"OK"
    return name


@pytest.mark.parametrize("operation", HELD.values(), ids=HELD)
async def test_what_ends_or_shortens_an_entry_voids_its_lease(cache, operation):
    """A load that began before is not stored when the entry is gone."""
    name = await prepared(cache)

    await operation(cache)

    assert lease(cache, name) is None


@pytest.mark.parametrize("operation", KEEPING.values(), ids=KEEPING)
async def test_what_outlives_a_lease_leaves_it(cache, operation):
    """While there is an entry nothing is stored over it, so a lease may go on."""
    name = await prepared(cache)

    await operation(cache)

    assert lease(cache, name) == b"held"


async def test_a_number_that_begins_short(cache):
    """A number that no server can add to is stored by Python, with its timeout: if it is new, its lease is void."""
    name = cache.whole.make_key("a")
    lease(cache, name, b"held")

    await cache.incr("a", 0.5, default=0, timeout=5)

    assert lease(cache, name) is None


@pytest.mark.parametrize("transaction", [False, True], ids=["pipeline", "transaction"])
@pytest.mark.parametrize("operation", VOIDING.values(), ids=VOIDING)
@pytest.mark.together
async def test_a_pipeline_voids_alike(cache, operation, transaction):
    """Each operation works in a pipeline and in a transaction as it does alone, with the result that it has alone."""
    name = await prepared(cache)
    wanted = await operation(cache)
    await cache.delete_many(["b"])
    name = await prepared(cache)
    pipe = cache.pipeline(transaction=transaction)
    pipe.get("a")
    operation(pipe)
    pipe.get("none", 5)

    first, found, last = await pipe.execute()

    assert (first, found, last) == (1, wanted, 5)
    assert lease(cache, name) is None


@pytest.mark.parametrize("operation", HELD.values(), ids=HELD)
async def test_shards_hold_a_lease_beside_its_entry(face, valkey, redis_debian, operation):
    """The place of the lease's own name does not matter."""
    cache = Face(ShardClient([valkey.url(9), redis_debian.url(9)], params({"KEY_PREFIX": own_prefix()})), face)
    name = await prepared(cache)

    await operation(cache)

    assert lease(cache, name) is None


@pytest.mark.parametrize("key", ["a", "{user}a", "}a{", "{}a", "ä b"])
async def test_any_name_has_a_lease(cache, key):
    """Braces and letters of all kinds."""
    name = cache.whole.make_key(key)
    lease(cache, name, b"held")

    await cache.delete_many([key])

    assert lease(cache, name) is None


@pytest.mark.parametrize("operation", HELD.values(), ids=HELD)
async def test_a_lease_ends_before_its_entry_does(operation, face, monkeypatch):
    """The other way round, a load could be stored between the two."""
    cache = Face(Cache("memory://voids", params({})), face)
    name = await prepared(cache)
    (server,) = cache.whole.topology.servers
    asked: list[tuple[object, ...]] = []
    exchange = server.exchange

    def noted(commands):
        asked.extend(commands)
        return exchange(commands)

    monkeypatch.setattr(server, "exchange", noted)
    await operation(cache)

    voids = [place for place, command in enumerate(asked) if command[0] is c.VOID and lease_name(name) in command]
    writes = [place for place, command in enumerate(asked) if command[0] is not c.VOID and name in map(_text, command)]
    assert voids
    assert voids[0] < min(place for place in writes if asked[place][0].writes)


def _text(part: object) -> object:
    return part.decode(errors="replace") if type(part) is bytes else part


async def test_a_set_that_outlives_every_lease_is_one_command(make, monkeypatch):
    """What is stored for longer costs what it did, and a delete takes one round trip still."""
    cache = make()
    if cache.whole.topology.servers[0].remote is None:
        return
    await cache.get("a")
    asked = counted(monkeypatch)

    await cache.set("a", 1, 300)
    await cache.set("a", 1)
    await cache.set("a", 1, None)
    await cache.delete("a")
    await cache.set("a", 1, 5)

    assert asked == [1, 1, 1, 2, 2]


async def test_clearing_ends_what_is_being_loaded(cache):
    """The names of entries that are missing cannot be found, so all loads under the prefix end with its epoch."""
    epoch = cache.whole.make_key("")
    epoch = type(epoch)(epoch_name(cache.whole.key_prefix))
    for operation in (cache.clear, lambda: cache.delete_pattern("x*")):
        await cache.set(epoch, 5)

        await operation()

        assert await cache.get(epoch) is None


async def test_what_delete_pattern_notes(cache):
    """A note is written only if there is an epoch that a load may know, and a long glob as one that matches everything."""
    prefix = cache.whole.key_prefix
    epoch, gone = epoch_name(prefix), gone_name(prefix)
    assert lease_name(epoch).partition("}")[0] == gone.replace(":gone:", ":lease:").partition("}")[0]
    home = cache.whole.topology.home(epoch)
    home.exchange([(c.DEL, epoch), (c.DEL, gone)])

    await cache.delete_pattern("a*")
    assert home.exchange([(c.LRANGE, gone, 0, -1)]) == [[]]

    await cache.get_or_set("b", lambda: 1)
    (version,) = home.exchange([(c.GET_NOW, epoch)])
    for pattern in ("a*", "x" * 1000):
        await cache.delete_pattern(pattern)

    notes, left = home.exchange([(c.LRANGE, gone, 0, -1), (c.PTTL_NOW, gone)])
    assert notes == [b"--------*", version + cache.whole.make_pattern("a*").encode()]
    assert 90_000 < left <= 100_000


async def test_a_redis_py_pipeline_has_one_result_for_each_call(valkey):
    """What its caller collects, he counts: there, leases stay."""
    cache = Face(Cache(valkey.url(9), params({})), "blocking")
    name = await prepared(cache)
    with redis.Redis(unix_socket_path=str(valkey.socket), db=9) as raw:
        pipe = raw.pipeline()
        cache.whole.delete("a", client=pipe)
        cache.whole.set_many({"a": 1, "b": 2}, 5, client=pipe)

        assert pipe.execute() == [1, True, True]
        assert await cache.delete("a", client=raw) is True

    assert lease(cache, name) is None


async def test_a_map_that_is_out_of_date_voids_too(face, valkey_cluster):
    """A command that is sent again to the node that holds the slot takes the lease's along."""
    cache = Face(Cache(valkey_cluster.url(), params({"SOCKET_TIMEOUT": 1.25})), face)
    await cache.get("a")
    topology = cache.whole.topology
    name = await prepared(cache)
    right = topology.home(name)
    for operation in (VOIDING["delete"], VOIDING["delete-many"], VOIDING["set-short"], VOIDING["set-many-short"]):
        topology.slots[:] = [next(node for node in topology.primaries if node is not right)] * len(topology.slots)

        await operation(cache)

        (left,) = right.exchange([(c.GET_NOW, lease_name(name))])
        assert left is None
        right.exchange([(c.SET, lease_name(name), b"held")])


async def test_a_user_without_the_right_to_leases(face, valkey):
    """Who may touch only his prefix writes as before; the server is not asked again for a minute."""
    prefix = own_prefix()
    run(valkey, "ACL", "SETUSER", prefix, "on", ">p0", f"~{prefix}:*", "+@all")
    run(valkey, "ACL", "LOG", "RESET")
    cache = Face(Cache(valkey.url(9), params({"KEY_PREFIX": prefix, "USERNAME": prefix, "PASSWORD": "p0"})), face)
    pipe = cache.pipeline(transaction=True)
    pipe.set("a", 1).delete("a")

    assert await pipe.execute() == [True, True]
    assert await cache.set("a", 1) is True
    assert await cache.delete("a") is True
    assert await cache.set_many({"a": 1}, 5) == []
    assert await cache.delete_many(["a"]) == 1

    log = run(valkey, "ACL", "LOG", 100)
    refused = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log if not isinstance(entry, dict)] or log
    assert sum(entry[b"count"] for entry in refused if entry[b"username"] == prefix.encode()) == 1
