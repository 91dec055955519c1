"""What a load takes in the fleet, and so what is saved: the same in every process, on every page."""

from __future__ import annotations

from time import sleep
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.caches import own_prefix, params

from fleetcache import Cache
from fleetcache.fleet import gather, history, places
from fleetcache.fleet.means import FIELDS, MOST
from fleetcache.stats.groups import SPARED
from fleetcache.telemetry.prometheus import install

from .sources import publisher


def process(server: Any, prefix: str, number: int) -> Cache:
    """Return a cache of a configuration of its own, which counts by itself, as in another process."""
    stats = {"PUBLISH": 0, "GROUPS": {"r:*": "r", f"p{number}": "p"}}
    return Cache(server.url(9), params({"KEY_PREFIX": prefix, "STATS": stats}), alias="shop")


def hash_of(cache: Cache) -> dict[bytes, bytes]:
    """Return what is stored about loads."""
    found: dict[bytes, bytes] = cache.get_client().hgetall(places.loads_name(cache.settings.key_prefix))
    return found


def slow() -> int:
    """Load for a while."""
    sleep(0.05)
    return 1


def read(cache: Cache, times: int = 100) -> None:
    """Find a value that another process has loaded."""
    for _ in range(times):
        assert cache.get_or_set("r:1", slow) == 1


def test_a_warm_cache_saves_what_loads_have_taken_before(valkey: Any) -> None:
    """A process that loads nothing knows what a load takes from one that is gone; every page shows the same sum."""
    prefix = own_prefix()
    first, second, third = (process(valkey, prefix, number) for number in range(3))
    first.get_or_set("r:1", slow)
    publisher(first._common).publish()
    mean = first.snapshot()["groups"]["r"]["load_seconds"]
    told = [publisher(each._common) for each in (second, third)]
    for each, one in zip((second, third), told, strict=True):
        read(each)
        one.publish()

    assert second.snapshot()["groups"]["r"]["saved"] == pytest.approx(100 * mean, rel=1e-4)
    assert gather(second, live=False).totals["groups"]["r"]["saved"] == pytest.approx(200 * mean, rel=1e-4)
    assert sum(period.groups.get("r", {}).get("saved", 0) for period in history(second, 1)) == pytest.approx(
        200 * mean, rel=1e-4
    )
    registry = CollectorRegistry()
    install(registry, fleet=second)
    (metric,) = (each for each in registry.collect() if each.name == "fleetcache_time_saved_seconds")
    values = [sample.value for sample in metric.samples if sample.labels["group"] == "r"]
    assert sum(values) == pytest.approx(200 * mean, rel=1e-4)


def test_what_was_read_before_the_mean_was_known(valkey: Any) -> None:
    """It is added to the history as soon as another process has loaded."""
    prefix = own_prefix()
    reader, loader = process(valkey, prefix, 0), process(valkey, prefix, 1)
    loader.set("r:1", 1)
    telling = publisher(reader._common)
    read(reader)
    telling.publish()
    assert reader.snapshot()["groups"]["r"]["saved"] == 0

    loader.get_or_set("r:2", slow)
    publisher(loader._common).publish()
    mean = loader.snapshot()["groups"]["r"]["load_seconds"]
    for _ in range(6):
        telling.publish()

    (group,) = (period.groups["r"] for period in history(reader, 0.1) if "r" in period.groups)
    assert sum(group.get(level, 0) for level in SPARED) == 100
    assert group["saved"] == pytest.approx(100 * mean, rel=1e-4)


def test_loads_are_added_once_and_bounded(valkey: Any) -> None:
    """The mean is that of all loads, each of which is told once; it stands for 1,000 at most, and nonsense is replaced."""
    cache = process(valkey, own_prefix(), 0)
    assert cache.tally is not None
    telling, name = publisher(cache._common), places.loads_name(cache.settings.key_prefix)
    raw = cache.get_client()
    raw.hset(name, mapping={"r": "10 3000000", "p": "nonsense"})
    for key in ("r:1", "p0"):
        cache.tally.loaded([cache.make_key(key)] * 10, 10.0)
    telling.publish()
    assert hash_of(cache) == {b"r": b"20 2000000", b"p": b"10 1000000"}
    assert cache.tally.means == {"r": 2.0, "p": 1.0}

    for _ in range(6):
        telling.publish()
    assert hash_of(cache) == {b"r": b"20 2000000", b"p": b"10 1000000"}

    cache.tally.loaded([cache.make_key("r:1")] * 5000, 5000.0)
    for _ in range(6):
        telling.publish()
    assert hash_of(cache)[b"r"].startswith(b"%d 100" % MOST)
    assert raw.ttl(name) > 29 * 86400


def test_a_full_hash_gets_no_more_groups(valkey: Any) -> None:
    """Groups may be parts of keys that users choose."""
    cache = process(valkey, own_prefix(), 0)
    assert cache.tally is not None
    name = places.loads_name(cache.settings.key_prefix)
    cache.get_client().hset(name, mapping={f"g{at}": "1 1" for at in range(FIELDS)})
    cache.tally.loaded([cache.make_key("r:1")], 1.0)

    publisher(cache._common).publish()

    assert len(hash_of(cache)) == FIELDS
    assert cache.tally.means == {"r": 1.0}
