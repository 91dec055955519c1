"""The doctor finds servers that are away, old, full, or wrongly configured; and does not find them where all is well."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import redis
from tests.inspection.doctors import USUAL, cache_at, findings

from fleetcache import Cache
from fleetcache.inspection.doctor import examine, servers


def test_nothing_is_wrong(empty):
    """A well configured server, and ordinary entries, give no finding."""
    cache = cache_at(empty)
    cache.set_many({"a": 1, "b": [2], "c": "text" * 100})

    assert findings(cache, probes=True).keys() <= {"near-possible"}


def test_findings_are_json(own):
    """A finding can be printed as JSON, and names its section of the page."""
    for each in examine(cache_at(own.tcp_url())):
        assert json.loads(json.dumps(each.as_dict()))["docs"] == f"docs/doctor.md#{each.id}"


def test_server_that_is_away(own):
    """A server that does not run is a finding, and nothing else is checked of it."""
    cache = cache_at(own.tcp_url())
    own.stop()

    found = findings(cache, probes=True)

    assert found.keys() == {"server-away"}
    assert found["server-away"].severity == "error"
    assert "refused" in found["server-away"].found


def test_server_that_hangs(own):
    """A server that accepts connections and answers nothing is a finding, after the time that the settings give it."""
    cache = cache_at(own.tcp_url(), SOCKET_TIMEOUT=0.2, SOCKET_CONNECT_TIMEOUT=0.2)
    own.pause()

    assert findings(cache, probes=True).keys() == {"server-away"}


def test_wrong_password(own):
    """A password that the server does not accept is told from a server that is away."""
    redis.Redis.from_url(own.tcp_url()).config_set("requirepass", "right")

    assert findings(cache_at(own.tcp_url(), PASSWORD="wrong")).keys() == {"server-refuses"}
    assert "server-refuses" not in findings(cache_at(own.tcp_url(), PASSWORD="right"))


def test_memory_without_limit(own, good):
    """maxmemory 0 is a finding."""
    assert "memory-unlimited" in findings(cache_at(own.tcp_url()))
    assert "memory-unlimited" not in findings(cache_at(good.tcp_url()))


def test_policy_without_eviction(own, good):
    """A limit without eviction is a finding; without a limit the policy does not matter yet."""
    cache = cache_at(own.tcp_url())
    assert "eviction-off" not in findings(cache)

    own_client = redis.Redis.from_url(own.tcp_url())
    own_client.config_set("maxmemory", "64mb")

    assert "eviction-off" in findings(cache)
    assert "eviction-off" not in findings(cache_at(good.tcp_url()))


def test_policy_that_evicts_only_some(own):
    """A volatile policy is a finding if entries have no timeout."""
    redis.Redis.from_url(own.tcp_url()).config_set("maxmemory-policy", "volatile-lru")
    cache = cache_at(own.tcp_url())
    cache.set("a", 1)
    assert "eviction-of-some" not in findings(cache)

    cache.set("b", 1, None)

    assert "eviction-of-some" in findings(cache)


def test_memory_that_is_full(own):
    """Near the limit is a warning; at the limit, without eviction, an error."""
    client = redis.Redis.from_url(own.tcp_url())
    cache = cache_at(own.tcp_url())
    assert "memory-full" not in findings(cache)

    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", int(used * 1.05))
    assert findings(cache)["memory-full"].severity == "warning"

    client.config_set("maxmemory", used // 2)
    assert findings(cache)["memory-full"].severity == "error"


def test_evictions(own):
    """Evicted entries are told."""
    client = redis.Redis.from_url(own.tcp_url())
    cache = cache_at(own.tcp_url())
    assert "evictions" not in findings(cache)
    client.config_set("maxmemory-policy", "allkeys-lru")
    cache.set_many({f"key{number}": "x" * 10_000 for number in range(200)})

    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1_000_000)
    cache.set("one more", "x" * 10_000)

    assert "evictions" in findings(cache)


def test_writes_that_are_stopped(own):
    """A server that could not save, and refuses writes for it, is a finding."""
    client = redis.Redis.from_url(own.tcp_url())
    cache = cache_at(own.tcp_url())
    assert "writes-stopped" not in findings(cache)
    client.config_set("save", "3600 1")
    client.config_set("stop-writes-on-bgsave-error", "yes")
    (Path(client.config_get("dir")["dir"]) / "dump.rdb").mkdir()  # the file cannot be put in its place
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        pass

    assert "writes-stopped" in findings(cache)


def test_many_connections(own):
    """Connections near maxclients are a finding, and so are connections that were refused."""
    client = redis.Redis.from_url(own.tcp_url())
    cache = cache_at(own.tcp_url())
    assert "connections-many" not in findings(cache)
    client.config_set("maxclients", 10)

    others = [redis.Redis.from_url(own.tcp_url()) for _ in range(8)]
    for other in others:
        other.client_setname("one")
    found = findings(cache)
    for other in others:
        other.close()

    assert "maxclients = 10" in found["connections-many"].found


def test_tracking_table(own):
    """A table of tracked keys that is nearly full is told."""
    client = redis.Redis.from_url(own.tcp_url(), protocol=3, single_connection_client=True)
    cache = cache_at(own.tcp_url())
    client.config_set("tracking-table-max-keys", 10)
    assert "tracking-table-full" not in findings(cache)

    client.execute_command("CLIENT", "TRACKING", "ON")
    for number in range(10):
        client.set(f"k{number}", 1)
        client.get(f"k{number}")

    assert "tracking-table-full" in findings(cache)


def test_release_whose_time_is_over(redis_debian, good, monkeypatch):
    """A release that its makers do not correct any more is a finding, from its last day on."""
    cache = cache_at(redis_debian.tcp_url())
    assert "version-ended" in findings(cache)
    assert "version-ended" not in findings(cache_at(good.tcp_url()))

    monkeypatch.setitem(servers.ENDS, ("Redis", 7, 0), date(2999, 1, 1))

    assert "version-ended" not in findings(cache)


def test_release_that_is_too_old(good, monkeypatch):
    """A release that lacks commands is an error."""
    cache = cache_at(good.tcp_url())
    assert "version-unsupported" not in findings(cache)

    monkeypatch.setattr(servers, "OLDEST", 99)

    assert findings(cache)["version-unsupported"].severity == "error"


def test_every_server_of_a_cluster_is_asked(valkey_cluster):
    """Each primary is asked, and a cluster that works has only the usual findings."""
    cache = cache_at(valkey_cluster.url())
    cache.set_many({f"key{number}": number for number in range(50)})

    found = examine(cache)

    assert {each.id for each in found} <= USUAL
    assert len({each.subject for each in found if each.id == "memory-unlimited"}) == 3


def test_memory_server():
    """A server in memory is not asked, and its settings are checked."""
    cache = Cache("memory://doctor", {"OPTIONS": {"OUTAGE_TTL": 5}})

    assert findings(cache, probes=True).keys() == {"option-without-effect"}


def test_other_errors_are_findings(good, monkeypatch):
    """A check that fails is told, and the others go on."""
    # A function of this file would be taken for one of the site's.
    monkeypatch.setattr("fleetcache.inspection.doctor.entries.sample", int)
    cache = cache_at(good.tcp_url(), OUTAGE_TTL=1)

    found = findings(cache)

    assert "TypeError: int()" in found["not-checked"].found
    assert "option-without-effect" in found
