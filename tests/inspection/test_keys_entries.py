"""One entry described, changed and deleted, and many deleted by pattern; on every kind of server, by both faces."""

from __future__ import annotations

import re
import time

import pytest
from redis import Redis
from tests.caches import own_prefix

from fleetcache import Cache
from fleetcache.inspection import keys
from fleetcache.inspection.describing import LIMIT
from fleetcache.keys import epoch_name
from fleetcache.testing import cluster


class Acts:
    """The functions of one face, awaited."""

    def __init__(self, face):
        self.face = face

    def __getattr__(self, name):
        if self.face == "awaiting":
            return getattr(keys, f"a{name}")

        async def act(*args, **kwargs):
            return getattr(keys, name)(*args, **kwargs)

        return act

    async def steps(self, *args, **kwargs):
        if self.face == "awaiting":
            return [step async for step in keys.adelete_pattern(*args, **kwargs)]
        return list(keys.delete_pattern(*args, **kwargs))


@pytest.fixture
def acts(face):
    return Acts(face)


@pytest.fixture
def whole(make):
    return make().whole


async def test_a_plain_entry_is_described(whole, acts):
    """Its type, lifetime, length, codec and value."""
    whole.set("a", {"b": 1}, timeout=100)
    whole.set("n", 5, timeout=None)

    found, number = await acts.describe(whole, "a"), await acts.describe(whole, "n")

    assert (found.kind, found.key, found.version, found.codec) == ("string", "a", "1", ("pickle 4",))
    assert 90 < found.ttl <= 100 and found.length > 10 and found.about is None
    assert "of type dict" in found.preview.text
    assert (number.ttl, number.codec, number.preview.text) == (None, ("integer",), "5")
    assert not (await acts.describe(whole, "none")).exists


async def test_an_entry_says_of_itself(whole, acts):
    """Its tags and whether they hold, when it was made and what it cost, how long it is fresh and stale."""
    began = time.time()
    whole.set("a", "x", tags=["blue", "red"], timeout=100)
    whole.get_or_set("loaded", lambda: time.sleep(0.02) or "v", timeout=100, stale_while_revalidate=50)

    tagged = (await acts.describe(whole, "a")).about
    whole.invalidate_tags("red")
    given_up = (await acts.describe(whole, "a")).about
    loaded = await acts.describe(whole, "loaded")

    assert [(tag.name, tag.valid) for tag in tagged.tags] == [("blue", True), ("red", True)]
    assert [(tag.name, tag.valid) for tag in given_up.tags] == [("blue", True), ("red", False)]
    assert (tagged.standing, given_up.standing) == ("fresh", "given up")
    assert loaded.about.cost >= 0.02 and loaded.about.stale == 50 and 90 < loaded.about.fresh <= 100
    assert abs(loaded.about.made - began) < 30
    assert loaded.ttl > 140


async def test_members_are_shown(whole, acts):
    """The first of each kind."""
    whole.hset("hash", "field", {"a": 1})
    whole.sadd("set", 7)
    whole.zadd("zset", {"member": 1.5})
    whole.rpush("list", *range(100))

    found = {name: await acts.describe(whole, name) for name in ("hash", "set", "zset", "list")}

    assert [(member.name, member.value.form) for member in found["hash"].members] == [("field", "pickle")]
    assert [member.value.text for member in found["set"].members] == ["7"]
    assert [member.score for member in found["zset"].members] == [1.5]
    assert [member.value.text for member in found["list"].members] == [str(number) for number in range(20)]
    assert found["list"].length == 100


async def test_a_lifetime_is_set(whole, acts):
    """Also for ever; the fresh life of an entry with metadata moves with it."""
    whole.set("a", 1, timeout=10)
    whole.get_or_set("loaded", lambda: 1, timeout=10, stale_while_revalidate=50)

    assert await acts.set_ttl(whole, "a", 1000)
    assert await acts.set_ttl(whole, "loaded", 1000)
    assert not await acts.set_ttl(whole, "none", 1000)

    assert 900 < whole.ttl("a") <= 1000 and 900 < whole.ttl("loaded") <= 1000
    assert await acts.set_ttl(whole, "a", None) and await acts.set_ttl(whole, "a", None)
    assert whole.ttl("a") is None
    with pytest.raises(ValueError, match="delete"):
        await acts.set_ttl(whole, "a", 0)


async def test_a_changed_entry_is_left_alone(whole, acts):
    """Whoever acts on what they saw learns that it is another value by now."""
    whole.set("a", "one")
    whole.rpush("list", 1, 2)
    seen, listed = (await acts.describe(whole, "a")).digest, (await acts.describe(whole, "list")).digest
    whole.set("a", "two")
    whole.rpush("list", 3)

    for key, digest in ("a", seen), ("list", listed):
        with pytest.raises(keys.EntryChanged, match="has changed"):
            await acts.set_ttl(whole, key, 5, digest=digest)
        with pytest.raises(keys.EntryChanged, match="has changed"):
            await acts.delete(whole, [key], digest=digest)
    now = (await acts.describe(whole, "a")).digest
    assert await acts.delete(whole, ["a"], digest=now) == 1
    with pytest.raises(keys.EntryChanged, match="is gone"):
        await acts.delete(whole, ["a"], digest=now)
    assert whole.llen("list") == 3


async def test_entries_are_deleted(whole, acts):
    """The count is of those that were there, and copies near are given up."""
    whole.set_many({"a": 1, "b": 2, "c": 3})
    whole.get("a")

    assert await acts.delete(whole, ["a", "b", "none"]) == 2
    assert (whole.get("a"), whole.get("b"), whole.get("c")) == (None, None, 3)


async def test_a_pattern_is_deleted_in_steps(whole, acts):
    """A dry run counts and shows names; then each step says how far it came, and only what matches is gone."""
    whole.set_many({f"users:{number}": number for number in range(60)})
    whole.set("other", 1, tags=["users:tag"])
    whole.set("users:old", 1, version=2)

    dry = await acts.steps(whole, "users:*", dry_run=True, budget=0)
    assert (dry[-1].matched, dry[-1].deleted, dry[-1].done) == (60, 0, True)
    assert 0 < len(dry[-1].shown) <= 20 and all(":users:" in name for name in dry[-1].shown)
    assert whole.get("users:1") == 1

    steps = await acts.steps(whole, "users:*", dry_run=False, budget=0)
    assert steps[-1].deleted == steps[-1].matched == 60
    assert whole.get_many([f"users:{number}" for number in range(60)]) == {}
    assert whole.get("other") == 1 and whole.get("users:old", version=2) == 1
    everywhere = await acts.steps(whole, "*", dry_run=False, version=keys.ALL)
    assert everywhere[-1].deleted == 2


async def test_a_deletion_goes_on_elsewhere(valkey, acts):
    """Another process takes the cursor, and nothing is left."""
    cache = Cache(valkey.tcp_url(13), {"KEY_PREFIX": own_prefix()})
    cache.set_many({f"k{number}": number for number in range(5000)})
    deleted, cursor, calls = 0, None, 0

    while calls == 0 or cursor:
        calls += 1
        for step in keys.delete_pattern(cache, "*", dry_run=False, budget=0, cursor=cursor):
            break
        deleted, cursor = deleted + step.deleted, step.cursor

    assert calls > 2
    assert deleted == 5000 and keys.page(cache).entries == []


async def test_what_is_being_loaded_is_not_stored_after_its_pattern_was_deleted(valkey, acts):
    """A deletion by pattern ends the loads that began before it."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})

    def load():
        list(keys.delete_pattern(cache, "users:*", dry_run=False))
        return "old"

    assert cache.get_or_set("users:1", load) == "old"
    assert cache.get("users:1") is None


async def test_names_that_are_no_text_are_shown_changed_and_deleted(valkey, redis_debian, valkey_cluster, acts):
    """They were stored by another client, on any server."""
    for location in valkey.tcp_url(), [valkey.tcp_url(3), redis_debian.tcp_url(3)], valkey_cluster.url():
        shards = {"CLIENT_CLASS": "fleetcache.client.ShardClient"} if isinstance(location, list) else {}
        cache = Cache(location, {"KEY_PREFIX": own_prefix(), "OPTIONS": shards})
        name = f"{cache.key_prefix}:1:".encode() + b"\xff\xfe"
        server = cache.topology.primaries[-1] if shards else None
        raw = server.client() if server else cache.get_client()
        raw.set(name, "value")

        (row,) = keys.page(cache).entries
        found = await acts.describe(cache, keys.meant(row.shown))
        assert found.preview.text == "value" and found.key == "\\xff\\xfe"
        assert await acts.set_ttl(cache, row.name, 100, digest=found.digest)
        assert 0 < raw.ttl(name) <= 100
        assert await acts.delete(cache, [row.name]) == 1
        assert raw.get(name) is None


@pytest.mark.newest
def test_a_long_value_is_read_in_part(valkey):
    """Of a hundred megabytes the beginning is read, and its end tells it from another."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    raw, name = cache.get_client(), cache.make_key("long")
    raw.setrange(name, 100_000_000, b"end")
    before = raw.info("stats")["total_net_output_bytes"]

    found = keys.describe(cache, "long", unpickle=True)
    read = raw.info("stats")["total_net_output_bytes"] - before
    raw.setrange(name, 100_000_000, b"END")

    assert found.length == 100_000_003 and found.read == LIMIT and not found.preview.whole
    assert read < 200_000
    with pytest.raises(keys.EntryChanged):
        keys.delete(cache, ["long"], digest=found.digest)
    raw.delete(name)


def test_members_that_are_too_large_are_not_read(valkey):
    """A list of values of many megabytes says so instead."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    cache.get_client().rpush(cache.make_key("large"), *[bytes(3_000_000)] * 3)

    found = keys.describe(cache, "large")

    assert found.members == () and "Its members are not read" in found.problems[0]


LARGE, SMALL = bytes(8_000_000), [b"small %d" % number for number in range(10_000)]
UNEVEN = {
    "hash": lambda raw, name: (raw.hset(name, mapping=dict.fromkeys(SMALL[:500], 1)), raw.hset(name, "large", LARGE)),
    "hash-few": lambda raw, name: raw.hset(name, mapping={"large": LARGE, "other": b'"x"'}),
    "list-first": lambda raw, name: (raw.rpush(name, LARGE), raw.rpush(name, *SMALL)),
    "list-tenth": lambda raw, name: (raw.rpush(name, *SMALL[:10], LARGE), raw.rpush(name, *SMALL)),
    "list-few": lambda raw, name: raw.rpush(name, "a", LARGE, "b"),
    "set": lambda raw, name: (raw.sadd(name, LARGE), raw.sadd(name, *SMALL[:500])),
    "zset": lambda raw, name: (raw.zadd(name, {LARGE: -1}), raw.zadd(name, dict.fromkeys(SMALL, 1))),
    "stream": lambda raw, name: (raw.xadd(name, {"f": LARGE}), [raw.xadd(name, {"f": "x"}) for _ in range(300)]),
}
EVEN = {
    "hash": lambda raw, name: raw.hset(name, mapping=dict.fromkeys(SMALL, bytes(100))),
    "list": lambda raw, name: raw.rpush(name, *(each * 60 for each in SMALL)),
    "set": lambda raw, name: raw.sadd(name, *(each * 60 for each in SMALL)),
    "zset": lambda raw, name: (raw.zadd(name, {each * 60: 1 for each in SMALL}), raw.zadd(name, {bytes(5_000_000): 9})),
    "stream": lambda raw, name: [raw.xadd(name, {"f": bytes(9000)}) for _ in range(600)],
}


def described_twice(cache, store):
    """Let *store* make an entry; return its description, which is the same twice, and the bytes that the server sends for both."""
    raw, name = cache.get_client(), cache.make_key("twice")
    store(raw, name)
    cache.get("nothing")
    before = raw.info("stats")["total_net_output_bytes"]

    found, again = keys.describe(cache, "twice"), keys.describe(cache, "twice")
    sent = raw.info("stats")["total_net_output_bytes"] - before
    raw.delete(name)

    assert found.digest == again.digest
    return found, sent


@pytest.mark.parametrize("place", ["valkey", "redis_debian"])
@pytest.mark.parametrize("kind", UNEVEN)
def test_one_large_member_among_small_ones_is_not_read(request, place, kind):
    """The server sends little, and the page says what is not shown; of a hash the other fields are shown."""
    server = request.getfixturevalue(place)
    cache = Cache(server.tcp_url(), {"KEY_PREFIX": own_prefix()})
    found, sent = described_twice(cache, UNEVEN[kind])

    assert sent < 1_000_000
    if kind == "hash-few":
        shown = {member.name: member.value.text for member in found.members}
        assert shown["large"] == "8,000,000 bytes, not read"
        assert "x" in shown["other"]
    elif kind == "hash":
        assert len(found.members) == 20
    else:
        assert found.members == ()
        assert "Its members are not read" in found.problems[0]


@pytest.mark.parametrize("kind", EVEN)
def test_the_first_of_many_megabytes_are_shown(valkey, kind):
    """A collection is large because it has many members, or a large one at the end: the first are shown."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    raw, name = cache.get_client(), cache.make_key("even")
    EVEN[kind](raw, name)

    found = keys.describe(cache, "even")
    raw.delete(name)

    assert found.problems == ()
    assert len(found.members) == 20


@pytest.mark.parametrize("place", ["valkey", "redis_debian"])
@pytest.mark.parametrize("kind", ["set", "zset"])
def test_a_large_member_that_no_sample_shows_is_cut(request, place, kind):
    """Among a thousand members that take as much together, a large one looks like none; its beginning is read."""
    server = request.getfixturevalue(place)
    cache = Cache(server.tcp_url(), {"KEY_PREFIX": own_prefix()})
    raw, name, large = cache.get_client(), cache.make_key("hidden"), bytes(2_000_000)
    usual = [b"%05d" % number + bytes(5000) for number in range(1100)]
    if kind == "set":
        raw.sadd(name, *usual)
        for _ in range(400):  # until SSCAN finds it among the first
            raw.sadd(name, large)
            if large in raw.sscan(name, 0, count=20)[1]:
                break
            raw.srem(name, large)
            large += b"."
    else:
        raw.zadd(name, {large: -1, **dict.fromkeys(usual, 1)})
    before = raw.info("stats")["total_net_output_bytes"]

    found = keys.describe(cache, "hidden")
    sent = raw.info("stats")["total_net_output_bytes"] - before
    raw.delete(name)

    assert sent < 1_000_000
    assert found.members or "not read" in found.problems[0]


@pytest.mark.parametrize("kind", ["list", "set", "zset"])
def test_a_user_who_may_run_no_scripts_sees_no_large_set(valkey, kind):
    """What nothing bounds is not read; a list and a sorted set are judged by the sizes of their first members."""
    prefix = own_prefix()
    with Redis.from_url(valkey.tcp_url()) as raw:
        raw.acl_setuser(
            prefix, enabled=True, passwords=["+pw"], categories=["+@read"], commands=["-eval_ro"], keys=["*"]
        )
        cache = Cache(valkey.tcp_url().replace("://", f"://{prefix}:pw@"), {"KEY_PREFIX": prefix})
        EVEN[kind](raw, cache.make_key("even"))
        found = keys.describe(cache, "even")
        raw.delete(cache.make_key("even"))
        raw.acl_deluser(prefix)

    assert len(found.members) == (0 if kind == "set" else 20)
    assert [each.partition(":")[0] for each in found.problems] == ["Its members are not read"] * (kind == "set")


def many_fields(raw, name):
    raw.hset(name, mapping={b"%03d" % number + LONG: b"v" for number in range(30)})
    for _ in range(100):  # each lets the server go on with growing its table, after which the order is the same
        raw.hget(name, "none")


NAMES = {
    "hash": many_fields,
    "hash-few": lambda raw, name: raw.hset(name, mapping={b"%03d" % number + LONG: b"v" for number in range(3)}),
    "stream": lambda raw, name: [raw.xadd(name, {b"%03d" % number + LONG: b"v"}) for number in range(30)],
}
LONG = b"\xc3\xa4\xff\x00" * 25_000
"""A part of a name: two bytes that are a letter, one that is none, and a control character."""


@pytest.mark.parametrize("place", ["valkey", "redis_debian"])
@pytest.mark.parametrize("kind", NAMES)
def test_long_names_are_cut(request, place, kind):
    """Of the name of a field no more is read than is shown, by its bytes."""
    server = request.getfixturevalue(place)
    cache = Cache(server.tcp_url(), {"KEY_PREFIX": own_prefix()})
    found, sent = described_twice(cache, NAMES[kind])

    assert sent < 100_000
    assert len(found.members) == (3 if kind == "hash-few" else 20)
    for member in found.members:
        text = member.value.text if kind == "stream" else member.name
        assert re.match(r"0\d\dä\\xff\\x00ä", text)
        assert "… (100,003 bytes)" in text
        assert len(text) < 2500
        assert member.value.text.endswith("v")
    if kind == "stream":
        assert found.members[0].value.problem == "of 100,004 bytes, 501 were read"


@pytest.mark.parametrize("kind", NAMES)
def test_long_names_are_cut_without_scripts(valkey, kind):
    """A user who may run no scripts sees the same."""
    prefix = own_prefix()
    with Redis.from_url(valkey.tcp_url()) as raw:
        denied = ["-eval_ro", "-object"]
        raw.acl_setuser(prefix, enabled=True, passwords=["+pw"], categories=["+@read"], commands=denied, keys=["*"])
        url = valkey.tcp_url().replace("://", f"://{prefix}:pw@")
        NAMES[kind](raw, Cache(url, {"KEY_PREFIX": prefix}).make_key("names"))
        caches = [Cache(each, {"KEY_PREFIX": prefix}) for each in (url, valkey.tcp_url())]
        poor, rich = (keys.describe(cache, "names") for cache in caches)
        raw.delete(caches[0].make_key("names"))
        raw.acl_deluser(prefix)

    assert poor.members == rich.members
    assert all(len(member.name) < 2500 for member in poor.members)


def test_names_in_few_bytes_are_cut(own):
    """Also where the server keeps all fields in one piece, because its settings allow long ones."""
    cache = Cache(own.tcp_url(), {"KEY_PREFIX": own_prefix()})
    cache.get_client().config_set("hash-max-listpack-value", 1_000_000)
    cache.get_client().hset(cache.make_key("names"), mapping={LONG: b"v"})

    found = keys.describe(cache, "names")

    assert found.encoding == "listpack"
    assert found.members[0].name.endswith("… (100,000 bytes)")
    assert len(found.members[0].name) < 2500


def test_an_entry_of_a_stream_is_cut(valkey):
    """Of an entry with long values, or with many, 64 kB are read."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    raw, name = cache.get_client(), cache.make_key("stream")
    raw.xadd(name, {"a": bytes(100_000), "b": "never read"})
    raw.xadd(name, {f"f{number}": "" for number in range(20_000)})

    found = keys.describe(cache, "stream")

    long, many = (member.value for member in found.members)
    assert long.problem == f"of 100,012 bytes, {LIMIT - 16:,} were read"
    assert long.text.startswith("a=\\x00") and long.text.endswith("…")
    assert many.problem.startswith("of 108,890 bytes, ")
    assert many.text.startswith("f0=, f1=, ") and many.text.endswith("…")


def test_a_stream_is_shown(valkey):
    """Other clients may have stored one beside the cache's entries."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()})
    cache.get_client().xadd(cache.make_key("stream"), {"a": "1"})

    found = keys.describe(cache, "stream")

    assert (found.kind, found.length, found.members[0].value.text) == ("stream", 1, "a=1")


def test_a_copy_near_is_shown(valkey):
    """Whether this process has one, and how often it was served."""
    cache = Cache(valkey.tcp_url(), {"KEY_PREFIX": own_prefix()}, near={"DOORKEEPER": False})
    cache.set("a", "x")
    for _ in range(100):
        cache.fence()
        cache.get("a")
        found = keys.describe(cache, "a")
        if found.near and found.hits:
            break

    assert found.near and found.hits
    assert not keys.describe(cache, "b").near


@pytest.mark.newest
def test_a_cluster_with_a_node_away(acts):
    """The page names the node, and shows what the others hold; a deletion says what it did not reach."""
    with cluster(replicas=0) as servers:
        cache = Cache(servers.url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {"SOCKET_TIMEOUT": 1}})
        cache.set_many({f"k{number}": number for number in range(300)})
        for node in servers.primaries:
            node_client(node).config_set("cluster-require-full-coverage", "no")
        epoch = cache.topology.home(
            epoch_name(cache.key_prefix)
        ).address  # by which loads that are under way are refused
        gone = next(node for node in servers.primaries if f":{node.port}/" in epoch)
        lost = int(node_client(gone).dbsize())
        gone.kill()

        rows, pages = all_pages(cache)
        kinds = {row.kind for row in rows}
        for page in pages:
            assert page.away == [f"127.0.0.1:{gone.port}/0"] and not page.complete
        steps = list(keys.delete_pattern(cache, "*", dry_run=False))

    assert lost > 0 and len({row.key for row in rows}) == 300 - lost
    assert kinds == {"string"}
    assert steps[-1].done and steps[-1].away and steps[-1].deleted == 300 - lost


@pytest.mark.newest
def test_a_cluster_that_serves_no_keys_shows_names():
    """Where a lost node stops the whole cluster, names are still found, with the reason why there is no more."""
    with cluster(replicas=0) as servers:
        cache = Cache(servers.url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {"SOCKET_TIMEOUT": 1}})
        cache.set_many({f"k{number}": number for number in range(300)})
        servers.primaries[0].kill()
        for _ in range(600):
            rows, _ = all_pages(cache)
            if rows[0].problem:
                break
            time.sleep(0.05)

    assert rows[0].kind == "" and "CLUSTERDOWN" in rows[0].problem.upper().replace(" ", "")


def all_pages(cache):
    pages = [keys.page(cache)]
    while pages[-1].cursor:
        pages.append(keys.page(cache, cursor=pages[-1].cursor))
    return [row for page in pages for row in page.entries], pages


def node_client(node):
    return Redis(port=node.port)
