"""The doctor finds options that do nothing or harm, and caches of one site that are in each other's way."""

from __future__ import annotations

from platform import node
from types import SimpleNamespace

import pytest
from tests.caches import own_prefix
from tests.fleet_stats.sources import Source, group, publisher
from tests.inspection.doctors import cache_at, findings

from fleetcache import Cache
from fleetcache.errors import ServerGone
from fleetcache.fleet import gather
from fleetcache.inspection.doctor import examine, options, refused


def without_effect(cache: Cache) -> set[str]:
    """Return the names of the options of *cache* without effect."""
    return {each.subject.split("'")[1] for each in examine(cache, probes=False) if each.id == "option-without-effect"}


@pytest.mark.parametrize(
    ("name", "without", "with_effect"),
    [
        ("OUTAGE_TTL", {"OUTAGE_TTL": 5}, {"OUTAGE_TTL": 5, "IGNORE_EXCEPTIONS": True}),
        ("RAISE_FOR", {"RAISE_FOR": ["a:*"]}, {"RAISE_FOR": ["a:*"], "IGNORE_EXCEPTIONS": True}),
        (
            "LOG_IGNORED_EXCEPTIONS",
            {"LOG_IGNORED_EXCEPTIONS": True},
            {"LOG_IGNORED_EXCEPTIONS": True, "IGNORE_EXCEPTIONS": True},
        ),
        ("HERD_TIMEOUT", {"HERD_TIMEOUT": 5}, {"HERD_TIMEOUT": 5, "CLIENT_CLASS": "HerdClient"}),
        ("NEAR", {"NEAR": True, "protocol": 2}, {"NEAR": True}),
        ("READ_FROM", {"READ_FROM": "replica"}, {"READ_FROM": "primary"}),
        ("REPLICA_READ_ONLY", {"REPLICA_READ_ONLY": False}, {"REPLICA_READ_ONLY": True}),
        ("PICKLE_VERSION", {"PICKLE_VERSION": 4, "SERIALIZER": "json"}, {"PICKLE_VERSION": 4}),
        ("COMPRESS_LEVEL", {"COMPRESS_LEVEL": 4}, {"COMPRESS_LEVEL": 4, "COMPRESSOR": "zlib"}),
        ("COMPRESS_MIN_LENGTH", {"COMPRESS_MIN_LENGTH": 4}, {"COMPRESS_MIN_LENGTH": 4, "COMPRESSOR": "zlib"}),
    ],
)
def test_options_without_effect(valkey, name, without, with_effect):
    """An option without effect is a finding; with what it needs, it is none."""
    assert without_effect(cache_at(valkey.tcp_url(), **without)) == {name}
    assert without_effect(cache_at(valkey.tcp_url(), **with_effect)) == set()


def test_near_cache_of_memory():
    """NEAR does nothing with memory://."""
    assert without_effect(Cache("memory://doctor", {"OPTIONS": {"NEAR": True}})) == {"NEAR"}
    assert without_effect(Cache("memory://doctor")) == set()


def test_replicas_to_read_from(valkey):
    """READ_FROM has an effect if LOCATION names replicas."""
    cache = Cache([valkey.tcp_url(), valkey.tcp_url(1)], {"OPTIONS": {"READ_FROM": "replica"}})

    assert without_effect(cache) == set()


@pytest.mark.parametrize("name", ["SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"])
@pytest.mark.parametrize("value", [None, 0])
def test_no_deadline(valkey, name, value):
    """A deadline that is None or 0 is a finding."""
    assert name in findings(cache_at(valkey.tcp_url(), **{name: value}))["timeout-absent"].subject
    assert "timeout-absent" not in findings(cache_at(valkey.tcp_url(), **{name: 3}))


def fleet(count: int, **same: object) -> SimpleNamespace:
    """Return a fleet of *count* processes on this machine."""
    workers = [
        SimpleNamespace(**{"host": node(), "version": "1", "digest": "a", "alias": "", "settings": {}, **same})
        for _ in range(count)
    ]
    return SimpleNamespace(workers=workers, totals={}, missing=[], error=None)


def test_connections_that_are_closed(valkey):
    """CLOSE_CONNECTION is told, and with many processes it is a warning."""
    cache = cache_at(valkey.tcp_url(), CLOSE_CONNECTION=True)

    assert findings(cache)["connections-closed"].severity == "info"
    assert findings(cache, fleet=fleet(options.MANY_WORKERS))["connections-closed"].severity == "warning"
    assert "connections-closed" not in findings(cache_at(valkey.tcp_url()))


def test_near_caches_that_are_too_large(valkey, monkeypatch):
    """The near caches of all processes on the machine count."""
    monkeypatch.setattr(options, "machine_memory", lambda: 1_000_000_000)
    cache = cache_at(valkey.tcp_url(), NEAR="300MB")

    assert "near-too-large" not in findings(cache)
    assert "near-too-large" not in findings(cache, fleet=fleet(3))
    assert "near-too-large" in findings(cache, fleet=fleet(4))
    assert "near-too-large" not in findings(cache, fleet=fleet(4, host="elsewhere"))
    assert "near-too-large" in findings(cache_at(valkey.tcp_url(), NEAR="2GB"))


def test_memory_of_this_machine():
    """The memory of this machine, or its container, is known."""
    assert options.machine_memory() > 50_000_000


# --- several caches -------------------------------------------------------------------------------


def site(url: str, **prefixes: str) -> dict[str, Cache]:
    return {alias: cache_at(url, prefix) for alias, prefix in prefixes.items()}


def of_site(caches: dict[str, Cache], alias: str) -> set[str]:
    found = findings(caches[alias], alias=alias, others=caches)
    return {"prefixes-nested", "clear-removes-all", "names-shared"} & found.keys()


def test_prefixes_within_each_other(valkey):
    """A prefix within another is a finding of the outer cache."""
    own = own_prefix()
    caches = site(valkey.tcp_url(), outer=own, inner=f"{own}:1", beside=f"{own}1")

    assert of_site(caches, "outer") == {"prefixes-nested"}
    assert of_site(caches, "inner") == set()
    assert of_site(caches, "beside") == set()


def test_prefixes_in_different_databases(valkey):
    """In another database nothing is shared."""
    own = own_prefix()
    caches = {"outer": cache_at(valkey.tcp_url(0), own), "inner": cache_at(valkey.tcp_url(1), f"{own}:1")}

    assert of_site(caches, "outer") == set()


def test_cache_without_prefix(valkey):
    """clear() of a cache without prefix removes the entries of the others."""
    caches = site(valkey.tcp_url(), plain="", other=own_prefix())

    assert of_site(caches, "plain") == {"clear-removes-all"}
    assert of_site(caches, "other") == set()


def test_cache_that_clears_the_database(valkey):
    """So does one with CLEAR = "database"."""
    caches = {"a": cache_at(valkey.tcp_url(), CLEAR="database"), "b": cache_at(valkey.tcp_url())}

    assert of_site(caches, "a") == {"clear-removes-all"}


def test_same_names(valkey):
    """Two caches with the same names are told; with different serializers it is a warning; another VERSION is no finding."""
    own = own_prefix()
    caches = {
        "a": cache_at(valkey.tcp_url(), own),
        "b": cache_at(valkey.tcp_url(), own),
        "json": cache_at(valkey.tcp_url(), own, SERIALIZER="json"),
        "second": cache_at(valkey.tcp_url(), own, VERSION=2),
    }

    def found(*aliases: str):
        mine = {alias: caches[alias] for alias in aliases}
        return findings(mine[aliases[0]], alias=aliases[0], others=mine).get("names-shared")

    assert found("a", "b").severity == "info"
    assert found("a", "json").severity == "warning"
    assert found("a", "second") is None


def test_refused_settings():
    """A cache that cannot be made is a finding too."""
    found = refused("default", ValueError("no such option"))

    assert (found.id, found.severity, found.subject) == ("settings-refused", "error", "CACHES['default']")


# --- processes ------------------------------------------------------------------------------------


def test_processes_that_differ(valkey):
    """Different releases, and different settings, among the processes are findings."""
    cache = cache_at(valkey.tcp_url())
    mixed = fleet(3)
    mixed.workers[0].version = "2"

    assert not {"versions-mixed", "settings-mixed"} & findings(cache, fleet=fleet(3)).keys()
    assert "1 (2), 2 (1)" in findings(cache, fleet=mixed)["versions-mixed"].found
    mixed.workers[1].digest = "b"
    assert "settings-mixed" in findings(cache, fleet=mixed)


def test_the_settings_that_differ_are_named(valkey):
    """Real processes publish a digest of each setting, so that the finding says which one differs."""
    prefix = own_prefix()
    caches = [cache_at(valkey.tcp_url(), prefix, **options) for options in ({}, {"NEAR": True, "SERIALIZER": "json"})]
    for cache in caches:
        publisher(Source(cache)).publish()

    found = findings(caches[0], fleet=gather(caches[0], live=False))["settings-mixed"].found

    assert found.endswith(". They differ in NEAR, SERIALIZER")


def test_aliases_in_one_place_do_not_differ(valkey):
    """Two caches of each process, with one server and one prefix, are compared with their own kind."""
    prefix = own_prefix()
    caches = [
        Cache(valkey.tcp_url(), {"KEY_PREFIX": prefix, "OPTIONS": options}, alias=alias)
        for alias, options in (("one", {}), ("two", {"SERIALIZER": "json"}))
    ]
    for cache in caches:
        source = Source(cache)
        source.alias = cache.tally.alias
        publisher(source).publish()
    several = gather(caches[0], live=False)

    assert "settings-mixed" not in findings(caches[0], alias="one", fleet=several)
    assert "settings-mixed" in findings(caches[0], alias="another", fleet=several)


def test_a_loader_that_always_fails(valkey):
    """A group most of whose loads fail is a finding; single failures are none."""
    one = fleet(2)
    one.totals = {"groups": {"broken": group(loads=12, load_errors=12), "users": group(loads=900, load_errors=5)}}

    found = [each for each in examine(cache_at(valkey.tcp_url()), fleet=one, probes=False) if each.id == "loads-fail"]

    assert [each.found for each in found] == [
        "2 processes have counted 12 loads in the group 'broken', of which 12 failed"
    ]


def test_no_near_cache_for_a_cache_that_nobody_reads(valkey):
    """Processes that have read nothing gain nothing by copies."""
    cache = cache_at(valkey.tcp_url())
    one = fleet(2)
    for reads, expected in ((0, False), (1, True)):
        one.totals = {"groups": {"users": group(server=reads, writes=9)}}

        assert ("near-possible" in findings(cache, fleet=one, probes=True)) is expected


def test_processes_that_cannot_be_read(valkey):
    """Figures that cannot be read are told."""
    one = fleet(1)
    cache = cache_at(valkey.tcp_url())
    assert "workers-unreadable" not in findings(cache, fleet=one)

    one.missing = ["host:1"]

    found = findings(cache, fleet=one)["workers-unreadable"]
    assert "host:1" in found.found and "another release" in found.advice

    one.error = ServerGone("host:1: gone")

    assert findings(cache, fleet=one)["workers-unreadable"].advice == "Let the server answer again first."


def test_connections_of_all_processes(valkey):
    """More connections than maxclients, in all processes together, are a finding."""
    cache = cache_at(valkey.tcp_url(), MAX_CONNECTIONS=3000)

    assert "connections-many" not in findings(cache, fleet=fleet(2))
    assert "4 processes may open 12000" in findings(cache, fleet=fleet(4))["connections-many"].found


def test_counted_errors_of_the_fleet(valkey):
    """Failed calls that the fleet has counted are told."""
    one = fleet(2)
    one.totals = {"errors": {"ServerGone": 3}}

    found = findings(cache_at(valkey.tcp_url()), fleet=one)["errors-counted"].found

    assert found == "2 processes have counted ServerGone (3)"
    one.totals["since"] = 1_700_000_000.0
    found = findings(cache_at(valkey.tcp_url()), fleet=one)["errors-counted"].found
    assert found == "2 processes have counted ServerGone (3), since 2023-11-14 22:13:20 UTC at the earliest"


def test_counted_errors_of_this_process(own):
    """Failed calls, and unreadable payloads, of this process are told."""
    cache = cache_at(own.tcp_url())
    assert not {"errors-counted", "unreadable-counted"} & findings(cache).keys()

    cache.get_client().set(cache.make_key("a"), b"\x80nonsense")
    assert cache.get("a") is None
    assert "1 unreadable" in findings(cache)["unreadable-counted"].found
    own.stop()
    with pytest.raises(ServerGone):
        cache.get("a")
    own.restart()

    assert "this process has counted" in findings(cache)["errors-counted"].found
