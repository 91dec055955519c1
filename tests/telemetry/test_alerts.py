"""The alerts of docs/grafana fire when a server is away, also where one worker answers for a fleet that cannot be read."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.caches import own_prefix
from tests.telemetry.test_metrics_docs import queries, rules
from tests.waiting import until

from fleetcache import Cache
from fleetcache.telemetry import prometheus
from fleetcache.testing import valkey_server

pytestmark = pytest.mark.newest

CRITICAL = {"FleetcacheServerAway", "FleetcacheFleetUnreadable", "FleetcacheNoFigures"}


def cache_on(server, alias, **settings):
    options = {"IGNORE_EXCEPTIONS": True, "NEAR": True, "STATS": {"PUBLISH": 0.1}}
    return Cache(
        server.tcp_url(), {"KEY_PREFIX": own_prefix() + alias, "OPTIONS": {**options, **settings}}, alias=alias
    )


def scraped(registry):
    """Return the samples of a scrape by name, as Prometheus keeps them: a label without text is none."""
    found = defaultdict(list)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name].append(({name: text for name, text in sample.labels.items() if text}, sample.value))
    return found


def evaluated(expression, samples):
    """Return the values of an *expression* of the kinds that are used about outages, by the labels of its sums.

    They are ``absent(metric)``, and an aggregation ``by`` labels with a comparison, perhaps summed up again.
    """
    if absent := re.fullmatch(r"absent\((\w+)\)", expression):
        return {} if samples[absent[1]] else {(): 1.0}
    if outer := re.fullmatch(r"sum\((1 - )?(.*)\)", expression):
        inner = evaluated(outer[2], samples)
        return {(): sum((1 - value) if outer[1] else value for value in inner.values())} if inner else {}
    how, by, name, ends = re.fullmatch(
        r"(max|min|sum) by \(([\w, ]+)\) \((\w+)(?:\{[^}]*\})?\)(?: == ([01]))?", expression
    ).groups()
    found = defaultdict(list)
    for labels, value in samples[name]:
        found[tuple(labels.get(label.strip()) for label in by.split(","))].append(value)
    values = {labels: {"max": max, "min": min, "sum": sum}[how](each) for labels, each in found.items()}
    return {labels: value for labels, value in values.items() if ends is None or value == float(ends)}


def fired(registry):
    """Return the names of the alerts about outages whose expressions have a value now."""
    samples = scraped(registry)
    return {name for name, expression, _ in rules() if name in CRITICAL and evaluated(expression, samples)}


def shown(registry):
    """Return what the panel of servers that are away shows."""
    samples = scraped(registry)
    return [evaluated(expression, samples).get(()) for title, expression in queries() if title == "Servers away"]


def test_the_alert_fires_although_the_fleet_cannot_be_read():
    """The process that answers tells of the outage itself; when the server is back, all is as before."""
    with valkey_server() as server:
        cache, registry = cache_on(server, "shop"), CollectorRegistry(auto_describe=True)
        prometheus.install(registry, fleet=cache)
        cache.get("users:1")
        until(lambda: scraped(registry)["fleetcache_requests_total"])
        assert fired(registry) == set()
        assert shown(registry) == [0, 0]

        server.stop()
        cache.get("users:1")
        until(lambda: cache.get("users:1") or fired(registry) == {"FleetcacheServerAway", "FleetcacheFleetUnreadable"})

        assert shown(registry) == [1, 1]
        samples = scraped(registry)
        assert samples["fleetcache_near_state"][0][0]["state"] != "live"
        assert {labels["cache"] for labels, _ in samples["fleetcache_near_state"]} == {"shop"}
        assert [value for _, value in samples["fleetcache_owed_tags"]] == [0]
        counters = {name for name, found in samples.items() if found and name.endswith(("_total", "_count"))}
        assert counters == set()  # one that began with 0 would look like a burst when the fleet is back

        server.restart()
        until(lambda: fired(registry) == set())
        assert shown(registry) == [0, 0]


def test_nothing_at_all_is_an_alert_too():
    """A registry that no cache is installed with has none of the figures on which the other alerts look."""
    assert fired(CollectorRegistry()) == {"FleetcacheNoFigures"}


def test_several_caches_are_one_fleet_each():
    """Each has its own figures and its own outage, under its alias; a list of them is installed at once."""
    with valkey_server() as server, valkey_server() as other:
        caches = [cache_on(server, "shop"), cache_on(other, "sessions")]
        registry = CollectorRegistry(auto_describe=True)
        prometheus.install(registry, fleet=caches)
        for cache in caches:
            cache.get("users:1")

        def read():
            return {labels["cache"] for labels, _ in scraped(registry)["fleetcache_requests_total"]}

        until(lambda: read() == {"shop", "sessions"})
        other.stop()
        caches[1].get("users:1")

        until(lambda: fired(registry) == {"FleetcacheServerAway", "FleetcacheFleetUnreadable"})
        readable = scraped(registry)["fleetcache_fleet_readable"]
        assert sorted((labels["cache"], value) for labels, value in readable) == [("sessions", 0), ("shop", 1)]
        assert read() == {"shop"}


def test_caches_in_one_place_are_told_apart_and_counted_once(valkey):
    """Caches with one server and one prefix share a fleet: each entry has the alias of its cache, whichever is asked."""
    prefix = own_prefix()

    def cache_as(alias, **options):
        settings = {"KEY_PREFIX": prefix, "OPTIONS": {"STATS": {"PUBLISH": 0.1}, **options}}
        return Cache(valkey.tcp_url(3), settings, alias=alias)

    one, two = cache_as("one"), cache_as("two", SOCKET_TIMEOUT=4)
    one.get("users:1"), two.get("users:1"), two.get("users:1")

    for fleet in (one, [one, two]):
        registry = CollectorRegistry(auto_describe=True)
        prometheus.install(registry, fleet=fleet)

        def reads():
            found = scraped(registry)["fleetcache_requests_total"]
            return {labels["cache"]: value for labels, value in found if labels["result"] == "miss"}

        until(lambda: reads() == {"one": 1, "two": 2})


@pytest.mark.parametrize("fleet", ["default", [object()], {"default": 1}])
def test_a_fleet_that_is_no_cache_is_refused(fleet):
    """At once, and not with the first scrape."""
    with pytest.raises(TypeError, match="a cache of fleetcache, or a list of some, is expected"):
        prometheus.install(CollectorRegistry(), fleet=fleet)
