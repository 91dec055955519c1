"""``client=``: operations on a client, or a pipeline, of the caller."""

from __future__ import annotations

import gc
import weakref

import pytest
import redis

from fleetcache import Cache
from fleetcache.client import HerdClient


@pytest.mark.parametrize("near", [None, True])
def test_a_client_is_not_kept(valkey, near):
    """An operation leaves no reference to its client, not even one that only the collector would find."""
    cache = Cache(valkey.url(), {"KEY_PREFIX": "kept", "OPTIONS": {"NEAR": near}})
    gc.collect()
    gc.disable()
    try:
        client = redis.Redis.from_url(valkey.url())
        known = weakref.ref(client)
        cache.set("a", 1, client=client)
        assert cache.get("a", client=client) == 1
        assert cache.get_many(["a"], client=client) == {"a": 1}
        client.close()
        del client
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("near", [None, True])
def test_a_pipeline_gives_its_connection_back(valkey, near):
    """A WATCHing pipeline holds a connection until it dies, which an operation on it does not put off."""
    cache = Cache(valkey.url(), {"KEY_PREFIX": "watching", "OPTIONS": {"NEAR": near}})
    raw = redis.Redis.from_url(valkey.url(), max_connections=3)
    for _ in range(10):
        pipe = raw.pipeline()
        pipe.watch("x")
        pipe.multi()
        cache.set("a", 1, client=pipe)
        del pipe
    raw.close()


@pytest.mark.parametrize("kind", [Cache, HerdClient])
@pytest.mark.parametrize("near", [None, True])
def test_a_pipeline_cannot_answer(valkey, near, kind):
    """A read is refused before anything is in the pipeline, whose replies would be counted wrongly by its owner."""
    cache = kind(valkey.url(), {"KEY_PREFIX": "answer", "OPTIONS": {"NEAR": near}})
    raw = redis.Redis.from_url(valkey.url())
    with raw.pipeline() as pipe:
        for read in (
            lambda: cache.get("a", client=pipe),
            lambda: cache.get("a", client=pipe, fresh=True),
            lambda: cache.get_many(["a", "b"], client=pipe),
            lambda: cache.get_many(["a", "b"], client=pipe, fresh=True),
            lambda: cache.has_key("a", client=pipe),
            lambda: cache.ttl("a", client=pipe),
        ):
            with pytest.raises(TypeError, match="a redis-py pipeline cannot answer now"):
                read()
        assert len(pipe) == 0
    raw.close()
