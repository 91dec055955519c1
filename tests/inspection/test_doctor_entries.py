"""The doctor looks at a sample of the entries: whose they are, how long they live, and who can read them."""

from __future__ import annotations

import gzip
import json
import lzma
import pickle
import zlib

import pytest
import redis
from tests.inspection.doctors import cache_at, findings

from fleetcache import Cache
from fleetcache.codec.metadata import Metadata, head
from fleetcache.inspection.doctor import entries, formats
from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.formats import format_of
from fleetcache.inspection.doctor.sampling import sample


def put(url: str, cache: Cache, *payloads: bytes) -> None:
    """Store *payloads* as entries of *cache*, as another program would."""
    raw = redis.Redis.from_url(url)
    for number, payload in enumerate(payloads):
        raw.set(cache.make_key(f"raw{number}"), payload, ex=1000)


def about_entries(cache: Cache) -> dict[str, str]:
    wanted = {
        "database-shared",
        "timeout-missing",
        "pickles-found",
        "format-foreign",
        "library-missing",
        "unreadable-for-others",
    }
    return {id: each.severity for id, each in findings(cache).items() if id in wanted}


def test_entries_of_this_cache(empty):
    """Usual entries of every kind, leases and tags give no finding."""
    cache = cache_at(empty)
    cache.set_many({f"k{number}": [number] for number in range(50)})
    cache.set("n", 5)
    cache.hset("h", "a", 1)
    cache.expire("h", 100)
    cache.sadd("s", 1)
    cache.expire("s", 100)
    with cache.lock("l", timeout=100):
        assert about_entries(cache) == {}


def test_tags_are_no_entries(empty):
    """Versions of tags have long lives, and are not counted; tagged entries are told."""
    cache = cache_at(empty)
    cache.set("a", [1], tags=["t"])

    assert about_entries(cache) == {"unreadable-for-others": "info"}
    assert "none of them in an envelope" in findings(cache)["unreadable-for-others"].found


def test_entries_of_others(empty):
    """Names of other programs are told; if clear() removes them, it is a warning."""
    cache = cache_at(empty)
    redis.Redis.from_url(empty).set("celery:task:1", "x", ex=100)

    assert about_entries(cache) == {"database-shared": "info"}
    found = findings(cache)["database-shared"].found
    assert "names are not this cache's, such as celery:…: another program's, or the site's own" in found
    assert about_entries(cache_at(empty, CLEAR="database")) == {"database-shared": "warning"}


def test_entries_of_another_cache_of_the_site(empty):
    """Names of another cache of the same settings are not those of other programs."""
    one, other = cache_at(empty), cache_at(empty)
    other.set("a", 1)

    assert "database-shared" in findings(one)
    assert "database-shared" not in findings(one, alias="one", others={"one": one, "other": other})


def test_entries_without_timeout(empty):
    """Many entries without a timeout are told; with TIMEOUT = None any."""
    cache = cache_at(empty)
    cache.set_many({f"k{number}": 1 for number in range(100)})
    cache.set("for ever".replace(" ", "-"), 1, None)
    assert about_entries(cache) == {}

    cache.set_many({f"n{number}": 1 for number in range(20)}, None)
    assert about_entries(cache) == {"timeout-missing": "info"}

    lasting = cache_at(empty, TIMEOUT=None)
    lasting.set("a", 1)
    assert "TIMEOUT = None" in findings(lasting)["timeout-missing"].advice


def test_pickles_where_none_should_be(empty):
    """With a serializer that does not unpickle, pickles are a finding, compressed or not; they are not unpickled."""
    cache = cache_at(empty, SERIALIZER="json")
    cache.set("a", {"b": 1})
    assert about_entries(cache) == {}

    put(empty, cache, pickle.dumps(Trap()), zlib.compress(pickle.dumps([1] * 1000)))

    assert about_entries(cache) == {"pickles-found": "warning"}
    assert "2 of 3" in findings(cache)["pickles-found"].found


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_locks_that_are_held_are_no_entries(empty, serializer):
    """They are not unreadable, and a lock without an end is no entry without a timeout."""
    cache = cache_at(empty, SERIALIZER=serializer)
    cache.set("a", {"b": 1})
    held = [cache.lock(f"lock:{number}", timeout=None if number % 2 else 60) for number in range(30)]
    assert all(lock.acquire() for lock in held)
    redis.Redis.from_url(empty).lock(cache.make_key("of redis-py")).acquire()

    assert about_entries(cache) == {}
    found = sample(Examination(cache, "", {}, None, probes=False))
    assert (found.looked_at, found.locks, found.lasting) == (1, 31, 0)


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_entries_of_another_serializer(empty):
    """JSON is foreign where pickles are expected."""
    cache = cache_at(empty)
    put(empty, cache, json.dumps({"a": 1}).encode())

    assert about_entries(cache) == {"format-foreign": "warning"}


def test_library_that_is_not_installed(empty, monkeypatch):
    """Compressed entries whose library is missing are an error."""
    cache = cache_at(empty, COMPRESSOR="zlib")
    cache.set("a", "text" * 1000)
    assert about_entries(cache) == {}

    monkeypatch.setattr(entries, "library_of", lambda name: "zlib")

    assert about_entries(cache) == {"library-missing": "error"}


def test_envelopes(empty):
    """Entries that only fleetcache reads are told, and how many are in an envelope."""
    cache = cache_at(empty, SERIALIZER="json")
    cache.set("a", [1], tags=["t"])

    assert "1 are in an envelope" in findings(cache)["unreadable-for-others"].found


def test_many_other_names(empty):
    """The cache's own entries are found among many others, in bounded work."""
    raw = redis.Redis.from_url(empty).pipeline(transaction=False)
    for number in range(5000):
        raw.set(f"other:{number}", "x", ex=1000)
    raw.execute()
    cache = cache_at(empty, SERIALIZER="json")
    put(empty, cache, *[pickle.dumps([number]) for number in range(30)])

    assert "pickles-found" in findings(cache)


def test_user_who_may_not_scan(good):
    """A refused SCAN is told."""
    admin = redis.Redis.from_url(good.tcp_url())
    admin.execute_command("ACL", "SETUSER", "noscan", "reset", "on", ">pw", "~*", "+@all", "-scan")
    cache = Cache(good.tcp_url().replace("://", "://noscan:pw@"), {"KEY_PREFIX": "shop"})

    found = [each for each in findings(cache).values() if each.id == "not-checked"]

    assert "a sample of the entries" in found[0].found


# --- formats --------------------------------------------------------------------------------------

METADATA = Metadata(tags=(("t", b"12345678"),))


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"12", "integer"),
        (b"-12", "integer"),
        (pickle.dumps([1]), "pickle"),
        (pickle.dumps([1], 2), "pickle"),
        (pickle.dumps([1], 5), "pickle"),
        (b'{"a": 1}', "json"),
        (b'"text"', "json"),
        (b"null", "json"),
        (b"\x93\x01\x02\x03", "other"),
        (b"\x80", "other"),
        (b"0123456789abcdef" * 2, "token"),
        (zlib.compress(pickle.dumps([1] * 9999)), "pickle compressed by zlib"),
        (gzip.compress(b'{"a": "' + b"b" * 9999 + b'"}'), "json compressed by gzip"),
        (lzma.compress(pickle.dumps("text" * 99)), "pickle compressed by lzma"),
        (head(METADATA, pickled=True) + pickle.dumps(1), "pickle with metadata (head)"),
        (head(METADATA, pickled=False) + b'{"a": 1}', "json with metadata (envelope)"),
        (
            zlib.compress(head(METADATA, pickled=True) + pickle.dumps(1)),
            "pickle with metadata (head) compressed by zlib",
        ),
        (b"x\x9cnot compressed at all", "other"),
    ],
    ids=map(str, range(18)),  # the payloads differ from run to run
)
def test_formats(payload, shown):
    """The format is known from the beginning of a payload."""
    assert str(format_of(payload[: formats.SAMPLE], len(payload))) == shown


@pytest.mark.parametrize("compressor", ["zlib", "gzip", "lzma", "lz4", "zstd"])
@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_formats_of_caches(compressor, serializer):
    """What caches write is recognised, with every compressor."""
    pytest.importorskip({"lz4": "lz4.frame"}.get(compressor, "zlib"))
    cache = Cache("memory://formats", {"OPTIONS": {"COMPRESSOR": compressor, "SERIALIZER": serializer}})
    payload = cache.encode({"key": "value" * 2000})
    assert isinstance(payload, bytes)

    assert str(format_of(payload[: formats.SAMPLE], len(payload))) == f"{serializer} compressed by {compressor}"
