"""Fresh, stale, given up: by the clock of the server, and by the versions of tags."""

from __future__ import annotations

import hashlib
import json
from weakref import WeakKeyDictionary

import pytest
from freezegun import freeze_time
from tests.faces import FACES, Face

from fleetcache import Cache, judging
from fleetcache import commands as c
from fleetcache.codec.metadata import LONG, MAX_TAGS, Described, Metadata
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import JSONSerializer
from fleetcache.judging import Standing, mark
from fleetcache.twin import complete

MINUTE = 60_000


async def found(cache: Face, method: str, *args, **kwargs):
    """Return what a coroutine method of the face's cache returns."""
    whole = cache.whole if cache.face == "awaiting" else cache.whole._still
    operation = getattr(whole, method)(*args, **kwargs)
    return await operation if cache.face == "awaiting" else complete(operation)


def shown(server) -> int:
    """Return the time of *server* in milliseconds."""
    ((seconds, microseconds),) = server.exchange(((c.TIME,),))
    return int(seconds) * 1000 + int(microseconds) // 1000


async def test_moment(cache):
    """The time is that of the server that holds the name, and never behind it."""
    server = cache.topology.home(cache.name("a"))
    first = await found(cache, "_moment", server)  # a cluster learns where its names are
    server = cache.topology.home(cache.name("a"))

    before = shown(server)
    moment = await found(cache, "_moment", server)
    again = await found(cache, "_moment", server)

    assert before - 1 <= moment <= again + 1
    assert again <= shown(server) + 1000
    assert first <= again + 1


async def test_the_server_is_asked_once_a_minute(valkey, monkeypatch):
    """In between the difference of the clocks is used."""
    cache = Cache(valkey.tcp_url(0))
    server, now = cache.topology.home(""), judging.clock()
    monkeypatch.setattr(judging, "clock", lambda: now)
    monkeypatch.setattr(judging, "_clocks", WeakKeyDictionary())
    cache._note_time(server, 5000, now - 2)  # a reply to a script said so

    assert complete(cache._still._moment(server)) == 7000
    now += 57
    assert await cache._moment(server) == 64_000
    now += 1
    assert await cache._moment(server) == pytest.approx(shown(server), abs=1000)
    now += 59
    assert complete(cache._still._moment(server)) == pytest.approx(shown(server) + 59_000, abs=1000)


@pytest.mark.parametrize("face", FACES)
async def test_time_in_memory_may_stand_still(face):
    """``memory://`` is asked each time, so tests may freeze its clock."""
    cache = Face(Cache("memory://judging"), face)
    server = cache.topology.home("")
    with freeze_time("2030-01-01") as clock:
        first = await found(cache, "_moment", server)
        cache._note_time(server, 5, judging.clock())
        assert await found(cache, "_moment", server) == first
        clock.tick(1.5)
        assert await found(cache, "_moment", server) == first + 1500


@pytest.mark.parametrize("face", FACES)
async def test_without_the_time_nothing_is_fresh(face):
    """In an ignored outage an entry with an end of its own is stale, one without is fresh."""
    options = {"IGNORE_EXCEPTIONS": True, "SOCKET_CONNECT_TIMEOUT": 0.2}
    cache = Face(Cache("redis://127.0.0.1:1", {"OPTIONS": options}), face)

    assert await found(cache, "_moment", cache.topology.home("")) is None
    assert await found(cache, "_judge", "a", Described(1, Metadata(fresh_until=2**60))) is Standing.STALE
    assert await found(cache, "_judge", "a", Described(1, Metadata())) is Standing.FRESH
    assert await found(cache, "_judge", "a", Described(1, Metadata(tags=(("t", b"version1"),)))) is Standing.GIVEN_UP


async def test_standings(cache):
    """An entry is stale from the end of its fresh life on, and given up whatever its age if a tag has another version."""
    name = cache.name("a")
    await cache.get("a")
    now = await found(cache, "_moment", cache.topology.home(name))
    (tag,) = await found(cache, "_capture", ["tag"], MINUTE)
    other = (tag[0], b"another1")
    missing = ("missing", tag[1])
    table = [
        (0, (), Standing.FRESH),
        (now + MINUTE, (), Standing.FRESH),
        (now - MINUTE, (), Standing.STALE),
        (now, (), Standing.STALE),
        (1, (), Standing.GIVEN_UP),
        (now - 2 * MINUTE, (), Standing.GIVEN_UP),
        (now + MINUTE, (tag,), Standing.FRESH),
        (now - MINUTE, (tag,), Standing.STALE),
        (0, (other,), Standing.GIVEN_UP),
        (now + MINUTE, (tag, missing), Standing.GIVEN_UP),
        (now - MINUTE, (other, missing), Standing.GIVEN_UP),
    ]
    for fresh_until, tags, standing in table:
        described = Described("value", Metadata(fresh_until=fresh_until, stale=2 * MINUTE, tags=tags))
        assert await found(cache, "_judge", name, described) is standing
        # What is known is not asked for again, be it right or wrong.
        if tags:
            assert await found(cache, "_judge", name, described, dict(tags)) is not Standing.GIVEN_UP
        forgotten = Standing.GIVEN_UP if tags else standing
        assert await found(cache, "_judge", name, described, dict.fromkeys(dict(tags))) is forgotten
    entries = [(name, Metadata(fresh_until=fresh_until, stale=2 * MINUTE, tags=tags)) for fresh_until, tags, _ in table]
    assert [each.standing for each in await found(cache, "_judgements", entries)] == [each for *_, each in table]
    assert await found(cache, "_judgements", []) == []


async def test_the_scope_of_tags(cache):
    """The tags of an entry are those of the version under which it was stored, for a reader of another one too."""
    (tag,) = await found(cache, "_capture", ["tag"], MINUTE, 7)

    for scope, standing in (("7", Standing.FRESH), ("", Standing.GIVEN_UP), ("1", Standing.GIVEN_UP)):
        described = Described("value", Metadata(tags=(tag,), scope=scope))
        assert await found(cache, "_judge", cache.name("a"), described) is standing
    assert (cache._scope(7), cache._scope(None)) == ("7", "1")


@pytest.mark.parametrize("serializer", [None, JSONSerializer])
@pytest.mark.parametrize("tags", [(), tuple((f"a rather long tag, {n}", b"version1") for n in range(MAX_TAGS))])
def test_marks(serializer, tags):
    """A payload with metadata is told by its stamp, any other by its digest, and nothing by nothing."""
    codec = Codec(serializer) if serializer else Codec()
    metadata = Metadata(tags=tags)
    payload = codec.describe(["value"], metadata)

    mode, head = mark(payload)

    assert mode == "head"
    assert payload.startswith(head)
    assert head.endswith(metadata.stamp)
    assert mark(codec.describe(["value"], Metadata(tags=tags))) != (mode, head)
    for plain in (json.dumps("value").encode(), codec.encode("value"), b"12", LONG, payload[:30], b""):
        assert mark(plain) == ("sha1", hashlib.sha1(plain).hexdigest().encode())
    assert mark(None) == ("", b"")
