"""Metadata in payloads: written, read back, skipped by others, and refused where the bytes are bad."""

from __future__ import annotations

import json
import pickle
import pickletools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.django_settings import configure
from tests.golden import generate
from tests.test_codec import SERIALIZERS, golden

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.codec.compressors import BaseCompressor, IdentityCompressor, ZlibCompressor
from fleetcache.codec.herding import Herded, HerdSerializer
from fleetcache.codec.metadata import ENVELOPE, GLIMPSE, LONG, MAX_TAGS, SHORT, Described, Metadata
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import BaseSerializer, JSONSerializer, MSGPackSerializer, PickleSerializer
from fleetcache.errors import UnreadableValue, UnstorableValue
from fleetcache.testing.servers import EmbeddedServer

each_serializer = pytest.mark.parametrize("serializer", SERIALIZERS)

GOLDEN = Path(generate.__file__).with_name("fleetcache-metadata-1.json")
PICKLING = (PickleSerializer, HerdSerializer)

metadata = st.builds(
    lambda *fields, early, scope, made: Metadata(*fields, early / 100, scope if fields[3] else "", made),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.text(max_size=40), st.binary(min_size=8, max_size=8)), max_size=MAX_TAGS).map(tuple),
    st.binary(min_size=8, max_size=8),
    early=st.integers(0, 2**16 - 1),
    scope=st.text(max_size=5),
    made=st.integers(0, 2**64 - 1),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

FRESH = Metadata(fresh_until=1793880000000, stale=60000, cost=250, tags=(("tag", b"version1"),), stamp=b"stamp..8")


class Raw(BaseSerializer):
    """A serializer of a site's own: bytes as they are."""

    def dumps(self, value: Any, /) -> bytes:
        return bytes(value)

    def loads(self, payload: bytes, /) -> Any:
        return payload


class Signed(PickleSerializer):
    """Another one: a pickle with a signature before it."""

    def dumps(self, value: Any, /) -> bytes:
        return b"sig" + super().dumps(value)

    def loads(self, payload: bytes, /) -> Any:  # type: ignore[override]
        return pickle.loads(payload.removeprefix(b"sig"))


class Backwards(BaseCompressor):
    """A compressor whose output may begin with any byte."""

    def compress(self, value: bytes, /) -> bytes:
        return value[::-1]

    def decompress(self, value: bytes, /) -> bytes:
        return value[::-1]


class Marked(Backwards):
    """One whose signature begins like metadata, and which leaves short values as they are."""

    magic = SHORT

    def compress(self, value: bytes, /) -> bytes:
        return value if len(value) < 200 else SHORT + value

    def decompress(self, value: bytes, /) -> bytes:
        return value[1:]


# --- written and read back ------------------------------------------------------------------------


@pytest.mark.few(3)
@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor])
@given(value=plain, metadata=metadata)
@settings(deadline=None, max_examples=30)
def test_both_come_back(serializer: Any, compressor: Any, value: Any, metadata: Metadata) -> None:
    """Value and metadata come back, integers too, by every serializer, compressed or not."""
    codec = Codec(serializer, compressor, {"COMPRESS_MIN_LENGTH": 0})

    payload = codec.describe(value, metadata)

    assert codec.decode(payload) == Described(value, metadata)
    assert codec.decode_all([payload, codec.describe(None, metadata)])[0] == Described(value, metadata)
    assert type(codec.decode(payload).value) is type(value)


@pytest.mark.few(2)
@pytest.mark.parametrize("protocol", range(6))
@given(value=plain, metadata=metadata)
@settings(deadline=None, max_examples=30)
def test_a_pickle_stays_one(protocol: int, value: Any, metadata: Metadata) -> None:
    """An unpickler that knows nothing of metadata returns the value alone, and finds one object and no byte after it."""
    payload = Codec(PickleSerializer, options={"PICKLE_VERSION": protocol}).describe(value, metadata)

    assert payload[:1] == (SHORT if len(metadata.pack()) < 256 else LONG)
    assert pickle.loads(payload) == value
    assert pickle._loads(payload) == value  # type: ignore[attr-defined]  # the unpickler in Python
    assert [name.name for name, _, at in pickletools.genops(payload) if at + 1 == len(payload)] == ["STOP"]


@each_serializer
def test_a_head_where_it_can_be_skipped(serializer: Any) -> None:
    """Only before pickles metadata is a part of the pickle; else it is an envelope."""
    payload = Codec(serializer).describe({"a": 1}, FRESH)

    assert payload.startswith(SHORT if serializer in PICKLING else ENVELOPE)


@pytest.mark.parametrize("serializer", [Raw, Signed])
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor, Backwards])
def test_serializers_of_a_site(serializer: Any, compressor: Any) -> None:
    """A serializer whose output may begin with anything gets the envelope, and its own bytes stay its own."""
    codec = Codec(serializer, compressor, {"COMPRESS_MIN_LENGTH": 0})

    assert codec.decode(codec.describe(b"value" * 20, FRESH)) == Described(b"value" * 20, FRESH)
    for start in (SHORT, LONG, ENVELOPE, ENVELOPE + b"\5\0\0\0"):
        value = start + b"some bytes of a value"
        assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_compressor_without_a_signature(serializer: Any) -> None:
    """Whatever the compressed bytes begin with, metadata is found within."""
    codec = Codec(serializer, Backwards, {"COMPRESS_MIN_LENGTH": 0})

    assert codec.decode(codec.describe(["a", 1], FRESH)) == Described(["a", 1], FRESH)
    assert codec.decode(codec.encode(["a", 1])) == ["a", 1]


def test_a_signature_that_begins_like_metadata() -> None:
    """Neither is taken for the other."""
    codec = Codec(compressor=Marked)

    for value in ("short", "long" * 100):
        assert codec.decode(codec.describe(value, FRESH)) == Described(value, FRESH)
        assert codec.decode(codec.encode(value)) == value


def test_the_compressor_may_be_changed() -> None:
    """What was written with one compressor, or none, is read with another."""
    written = [Codec(compressor=kind).describe("text" * 100, FRESH) for kind in (IdentityCompressor, ZlibCompressor)]

    for codec in (Codec(), Codec(compressor=ZlibCompressor), Codec(HerdSerializer)):
        assert codec.decode_all(written) == [Described("text" * 100, FRESH)] * 2


def test_the_metadata_is_compressed_too() -> None:
    """Compressed bytes begin with the compressor's signature, so that other packages decompress them."""
    payload = Codec(compressor=ZlibCompressor).describe("text" * 100, FRESH)

    assert payload.startswith(ZlibCompressor.magic)
    assert pickle.loads(ZlibCompressor({}).decompress(payload)) == "text" * 100


def test_herd_values() -> None:
    """A value of a HerdClient keeps its soft expiry behind metadata."""
    read = Codec(HerdSerializer).decode(Codec(HerdSerializer).describe(Herded("value", 5), FRESH))

    assert (read.value.value, read.value.soft_expiry, read.metadata) == ("value", 5, FRESH)


def test_what_cannot_be_stored() -> None:
    """The error names the type, as without metadata."""
    with pytest.raises(UnstorableValue, match="cannot store an object"):
        Codec(JSONSerializer).describe(object(), FRESH)


@each_serializer
def test_members_and_users_get_the_value_alone(serializer: Any) -> None:
    """Bytes with metadata in the wrong place, such as a list, show nobody the metadata."""
    cache = Cache("memory://metadata", {"OPTIONS": {"SERIALIZER": serializer}})
    payload = cache.codec.describe("value", FRESH)

    assert cache.decode(payload) == "value"
    assert cache.codec.decode_member(payload) == "value"
    server = cache.topology.home("")
    names = [cache.make_key(key) for key in ("list", "hash", "plain")]
    server.exchange(
        [(c.DEL, *names), (c.RPUSH, names[0], payload), (c.HSET, names[1], "f", payload), (c.SET, names[2], payload)]
    )
    assert cache.lrange("list", 0, -1) == ["value"]
    assert cache.hget("hash", "f") == cache.hmget("hash", ["f"])[0] == cache.hvals("hash")[0] == "value"
    assert cache.hgetall("hash") == {"f": "value"}


# --- other packages -------------------------------------------------------------------------------


def test_django_and_django_redis_read_the_recorded_payloads() -> None:
    """What was recorded is, to the serializers of Django and of django-redis, the value alone."""
    clients: Any = pytest.importorskip("django_redis.client")
    django: Any = pytest.importorskip("django.core.cache.backends.redis")
    configure()
    read = 0
    for entry, found in zip(json.loads(GOLDEN.read_text()), golden(GOLDEN), strict=True):
        if entry["serializer"] != "PickleSerializer":
            continue
        name = entry["compressor"].removesuffix("Compressor").lower()
        options = {"COMPRESSOR": f"django_redis.compressors.{name}.{entry['compressor']}"}
        readers: list[Callable[[bytes], Any]] = [
            clients.DefaultClient("redis://never-connected", {"OPTIONS": options}, None).decode
        ]
        if entry["compressor"] == "IdentityCompressor":
            readers.append(django.RedisSerializer().loads)
        for reads in readers:
            assert reads(found.payload) == found.reads
            read += 1
    assert read > 100


@pytest.mark.parametrize("value", [5, None, "text", {"a": [1, 2.5]}, b"bytes"])
def test_other_packages_read_it_from_a_server(valkey: EmbeddedServer, value: Any) -> None:
    """Backends of Django and django-redis get the value from a server, with either head."""
    theirs: Any = pytest.importorskip("django_redis.cache")
    django: Any = pytest.importorskip("django.core.cache.backends.redis")
    configure()
    params = {"KEY_PREFIX": "metadata"}
    ours = Cache(valkey.tcp_url(0), params)
    name = ours.make_key("key")
    for tags in ((), tuple((f"a rather long tag, number {n}", b"version8") for n in range(MAX_TAGS))):
        payload = ours.codec.describe(value, Metadata(tags=tags))
        versions = [(c.SET, ours._tag_name(tag), version) for tag, version in tags]
        ours.topology.home(name).exchange([(c.SET, name, payload), *versions])

        assert ours.get("key", "missing") == value
        assert theirs.RedisCache(valkey.tcp_url(0), params).get("key", "missing") == value
        assert django.RedisCache(valkey.tcp_url(0), params).get("key", "missing") == value


# --- bad bytes ------------------------------------------------------------------------------------


@pytest.mark.few(3)
@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor])
def test_cut_off(serializer: Any, compressor: Any) -> None:
    """A payload that ends too early is unreadable, wherever it was cut."""
    codec = Codec(serializer, compressor)
    tags = tuple((f"tag {n}", b"version8") for n in range(MAX_TAGS))
    for payload in (codec.describe([1, "two"], FRESH), codec.describe([1, "two"], Metadata(tags=tags))):
        for length in {*range(len(payload))} - {1}:  # one byte may be a number of MessagePack
            with pytest.raises(UnreadableValue):
                codec.decode(payload[:length])


@pytest.mark.few(2)
@each_serializer
@given(
    start=st.sampled_from([SHORT, LONG, ENVELOPE]), rest=st.binary(max_size=80), length=st.none() | st.integers(0, 90)
)
@settings(deadline=None)
def test_garbage(serializer: Any, start: bytes, rest: bytes, length: int | None) -> None:
    """Bytes that begin like metadata are a value or unreadable, and never anything else."""
    if set(rest) & set(b"pr"):
        return  # a forged memo number may really take gigabytes
    if length is not None:
        rest = length.to_bytes(1 if start == SHORT else 4, "little") + rest
    codec = Codec(serializer)
    for read in (codec.decode, codec.decode_member, lambda payload: codec.decode_all([payload])):
        with suppress(UnreadableValue):
            read(start + rest)


@pytest.mark.few(2)
@each_serializer
@given(data=st.data(), metadata=metadata)
@settings(deadline=None, max_examples=50)
def test_a_changed_byte(serializer: Any, data: Any, metadata: Metadata) -> None:
    """One wrong byte in the head is other metadata, or unreadable; the value behind it is never another one unnoticed."""
    codec = Codec(serializer)
    payload = bytearray(codec.describe("value", metadata))
    at = data.draw(st.integers(0, len(payload) - len(codec._dumps("value")) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    if set(payload) & set(b"pr"):
        return  # as above

    with suppress(UnreadableValue):
        read = codec.decode(bytes(payload))
        assert not isinstance(read, Described) or isinstance(read.metadata, Metadata)


@pytest.mark.few(2)
@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor])
@given(value=plain, metadata=metadata, integers=st.booleans())
@settings(deadline=None, max_examples=30)
def test_at_a_glance(serializer: Any, compressor: Any, value: Any, metadata: Metadata, integers: bool) -> None:
    """The beginning of a payload shows its metadata, or that it has none; or that there is more to read."""
    codec = Codec(serializer, compressor)
    plainly = codec.encode(value, integers=integers)
    bare = plainly if isinstance(plainly, bytes) else b"%d" % plainly
    whole = codec.describe(value, metadata)

    assert codec.metadata(bare) is None
    assert codec.metadata(whole) == metadata
    assert codec.decode(codec.bare(whole) if value == [] else codec.redescribe(whole, FRESH)) in (
        [],
        Described([], metadata),
        Described(value, FRESH),
    )
    for payload, expected in ((bare, None), (whole, metadata)):
        with suppress(UnreadableValue):
            assert codec.metadata(payload[:GLIMPSE]) == expected
    if len(metadata.pack()) < 256 and serializer in PICKLING and not codec.compresses:
        assert codec.metadata(whole[:GLIMPSE]) == metadata
        assert codec.metadata(bare[:GLIMPSE]) is None


def test_a_value_of_another_serializer() -> None:
    """An envelope around JSON is unreadable to pickle, and a pickle with metadata is never run by another serializer."""
    enveloped, pickled = Codec(JSONSerializer).describe([1], FRESH), Codec().describe([1], FRESH)

    with pytest.raises(UnreadableValue):
        Codec().decode(enveloped)
    for other in (JSONSerializer, MSGPackSerializer):
        with pytest.raises(UnreadableValue):
            Codec(other).decode(pickled)


def test_a_longer_form_is_of_a_newer_release() -> None:
    """Metadata of another form says so."""
    payload = bytearray(Codec().describe("value", FRESH))
    payload[2] += 1

    with pytest.raises(UnreadableValue, match="newer release"):
        Codec().decode(bytes(payload))
