"""What was counted reaches OpenTelemetry, Prometheus and StatsD as it is, read back by their own tools."""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import types
import weakref
from collections import defaultdict
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import statsd as statsd_package
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.caches import own_prefix, params
from tests.fleet_stats.sources import Source, cache_at, group, latency, publisher, snapshot
from tests.forks import ended_well, in_child
from tests.waiting import until

from fleetcache import Cache
from fleetcache.cache import _shared
from fleetcache.stats.latency import Latency
from fleetcache.stats.tally import TALLIES
from fleetcache.telemetry import metrics, otel, prometheus, statsd


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Exporters see the caches of this test only, and read them anew each time."""
    _shared.lately.clear()
    gc.collect()
    monkeypatch.setattr(metrics, "TALLIES", fresh := Fresh(set(TALLIES)))
    monkeypatch.setattr(metrics, "RECENT", 0)
    return fresh


class Fresh:
    """The tallies that were not there before."""

    def __init__(self, old):
        self.old = {id(tally) for tally in old}
        self.kept = old

    def __iter__(self):
        return (tally for tally in TALLIES if id(tally) not in self.old)


@pytest.fixture
def used(valkey):
    """A cache of which two groups were read: 3 hits, 1 miss and a load of users; 1 miss of pages; and a failed exchange."""
    cache = Cache(valkey.tcp_url(5), params({}), alias="shop")
    for _ in range(4):
        cache.get_or_set("users:1", lambda: "value")
    cache.get("pages:1")
    cache.set("pages:1", "x" * 100)
    cache.tally.errors["ServerGone"] += 2
    return cache


def scraped(registry):
    """Return the samples that a scrape brings, by name, each with its labels and value."""
    found = defaultdict(list)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


def only(samples, **labels):
    """Return the one value that has these labels."""
    (value,) = [value for found, value in samples if labels.items() <= found.items()]
    return value


def collected(reader):
    """Return the points of each metric that an OpenTelemetry reader collects."""
    data = reader.get_metrics_data()
    return {
        metric.name: (metric, [(dict(point.attributes), point.value) for point in metric.data.data_points])
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


# --- Prometheus -----------------------------------------------------------------------------------


def test_a_scrape_brings_what_was_counted(used):
    """Reads by outcome, level and group, writes, loads with their distribution, commands, errors, the breaker."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)

    found = scraped(registry)

    reads = found["fleetcache_requests_total"]
    assert only(reads, cache="shop", group="users", level="server", result="hit") == 3
    assert only(reads, cache="shop", group="users", level="none", result="miss") == 1
    assert only(reads, group="pages", result="miss") == 1
    assert only(found["fleetcache_loads_total"], group="users") == 1
    assert only(found["fleetcache_load_duration_seconds_count"], cache="shop") == 1
    assert only(found["fleetcache_load_duration_seconds_bucket"], le="+Inf") == 1
    assert only(found["fleetcache_writes_total"], group="pages") == 1
    assert only(found["fleetcache_written_bytes_total"], group="pages") > 100
    assert only(found["fleetcache_errors_total"], error="ServerGone") == 2
    assert only(found["fleetcache_operations_total"], command="GET") >= 4
    assert only(found["fleetcache_time_saved_seconds"], group="users") > 0
    assert {value for _, value in found["fleetcache_breaker_state"]} == {0}
    assert only(found["fleetcache_near_state"], state="off") == 1
    assert "users:1" not in generate_latest(registry).decode()


def test_the_output_is_openmetrics_too(used):
    """Both formats that Prometheus asks for can be made."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)

    assert b'fleetcache_requests_total{cache="shop"' in openmetrics(registry)


def test_histograms_hold_every_time_once():
    """Buckets grow to the count; each time is in the first bucket whose limit is not below it."""
    latency = Latency()
    for seconds in (1e-7, 20e-6, 0.001, 0.003, 1.5, 500.0):
        latency.note(seconds)

    found = dict(metrics.buckets(latency))

    assert list(found) == list(metrics.BOUNDS)
    assert metrics.BOUNDS[0] == pytest.approx(16e-6)
    assert 16 < metrics.BOUNDS[-1] < 18
    for bound, count in found.items():
        assert count == sum(seconds <= bound for seconds in (1e-7, 20e-6, 0.001, 0.003, 1.5, 500.0))


def test_django_prometheus_names_are_there_if_wanted(used):
    """Dashboards made for django-prometheus go on: reads, hits, misses and failed commands."""
    registry, without = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    used.tally.calls[b"GET"].errors += 4
    prometheus.install(registry, django_names=True)
    prometheus.install(without)

    found = {name: dict(values)["redis"] for name, values in _by_backend(scraped(registry)).items()}

    assert found["django_cache_get_hits_total"] == 3
    assert found["django_cache_get_misses_total"] == 2
    assert found["django_cache_get_fail_total"] == 4
    assert found["django_cache_get_total"] == 9
    assert not [name for name in scraped(without) if name.startswith("django")]


def test_django_prometheus_names_of_a_fleet(valkey):
    """They are there for each process, so that no counter falls when a process ends; two of one name are two."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__, KEY_PREFIX="both")
    for near in (1000, 3000):
        publisher(Source(cache, snapshot(groups={"a": group(near=near)}))).publish()
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry, fleet=cache, django_names=True)

    samples = scraped(registry)["django_cache_get_hits_total"]

    assert sorted(value for _, value in samples) == [1000, 3000]
    assert len({labels["worker"] for labels, _ in samples}) == 2
    assert {labels["backend"] for labels, _ in samples} == {"redis"}


def _by_backend(found):
    return {
        name: [(labels["backend"], value) for labels, value in samples]
        for name, samples in found.items()
        if name.startswith("django_cache")
    }


def test_groups_are_bounded_and_stay_the_same(used):
    """The first that were used have series of their own; what comes later is added to `other`, and no sum changes."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry, groups=1)
    before = scraped(registry)["fleetcache_requests_total"]
    for n in range(150):
        used.get(f"group{n}:1")

    after = scraped(registry)["fleetcache_requests_total"]

    assert {labels["group"] for labels, _ in before + after} == {"users", "other"}
    assert only(after, group="other", result="miss") == 151


def test_a_large_fleet_makes_a_small_scrape(used, monkeypatch):
    """Beyond a number of processes groups are added up, zeros are left out, and buckets are fewer; sums stay the same."""
    workers = []
    monkeypatch.setattr(metrics.Fleets, "gather", lambda cache, live: SimpleNamespace(workers=workers, error=None))
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry, fleet=used, crowd=3)

    def grow(number):
        groups = {f"g{place}": group(near=place + 1, writes=2) for place in range(20)}
        commands = {"GET": {"calls": 8, "errors": 0, "latency": latency((0.001, 100), (0.5, 1))}}
        figures = snapshot(groups=groups, commands=commands)
        workers.append(SimpleNamespace(host="web", pid=number, name=str(number), alias="", snapshot=figures))
        return scraped(registry)

    def near(found):
        return sum(value for labels, value in found["fleetcache_requests_total"] if labels["level"] == "near")

    small = [grow(number) for number in range(3)][-1]
    large = grow(3)
    larger = grow(4)

    assert near(small) == 3 * 210 and near(large) == 4 * 210 and near(larger) == 5 * 210
    assert {labels["group"] for labels, _ in small["fleetcache_writes_total"]} == {f"g{place}" for place in range(20)}
    assert {labels["group"] for labels, _ in large["fleetcache_writes_total"]} == {"all"}
    assert small["fleetcache_deletes_total"] and not large["fleetcache_deletes_total"]
    bounds = {labels["le"] for labels, _ in large["fleetcache_operation_duration_seconds_bucket"]}
    assert bounds < {labels["le"] for labels, _ in small["fleetcache_operation_duration_seconds_bucket"]}
    assert "+Inf" in bounds and len(bounds) == 7
    assert only(large["fleetcache_operation_duration_seconds_count"], worker="web:3", command="GET") == 101
    workers.clear()
    back = grow(9)
    assert near(back) == 210 and len(back["fleetcache_writes_total"]) == 20


def test_a_process_alone_is_no_crowd(used):
    """The caches of one process are told apart by groups, however many they are."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry, crowd=0)

    assert only(scraped(registry)["fleetcache_loads_total"], group="users") == 1


def test_a_counter_never_falls(used):
    """Neither if a figure does, for a moment, nor when a cache that was counted is gone."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)
    used.tally.group(used.make_key("users:1")).server += 5
    assert only(scraped(registry)["fleetcache_requests_total"], group="users", level="server", result="hit") == 8
    used.tally.group(used.make_key("users:1")).server -= 1
    assert only(scraped(registry)["fleetcache_requests_total"], group="users", level="server", result="hit") == 8

    other = Cache("memory://gone", params({}), alias="shop")
    other.get_or_set("users:1", lambda: 1)
    other.get("users:1")
    scraped(registry)
    tally = weakref.ref(other.tally)
    del other
    _shared.lately.clear()
    gc.collect()

    assert tally() is None
    for _ in range(2):
        found = scraped(registry)
        assert only(found["fleetcache_requests_total"], group="users", level="server", result="hit") == 9
        assert only(found["fleetcache_load_duration_seconds_count"], cache="shop") == 2


def test_caches_of_one_name_are_added(valkey):
    """A scrape with the same series twice would be refused."""
    settings = [params({}), params({"SOCKET_TIMEOUT": 4})]
    caches = [Cache(valkey.tcp_url(5), each, alias="shop") for each in settings]
    for cache in caches:
        cache.get("users:1")
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)

    found = scraped(registry)

    assert only(found["fleetcache_requests_total"], cache="shop", result="miss") == 2
    assert len(found["fleetcache_breaker_state"]) == 1


def test_near_figures_are_there(valkey):
    """Copies, their memory, why they went."""
    prefix = own_prefix()
    settings = {"KEY_PREFIX": prefix, "OPTIONS": {"NEAR": {"DOORKEEPER": False}}}
    cache = Cache(valkey.tcp_url(5), settings, alias="near")
    cache.set("users:1", 1)
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)

    def hits():
        cache.get("users:1")
        return only(scraped(registry)["fleetcache_requests_total"], level="near", group="users")

    until(hits)
    cache.set("users:1", 2)
    found = scraped(registry)

    assert only(found["fleetcache_near_state"], state="live") == 1
    assert only(found["fleetcache_max_size_bytes"], cache="near") == 64_000_000
    assert only(found["fleetcache_invalidations_total"], cause="own_write") >= 1
    assert "size" in {labels["reason"] for labels, _ in found["fleetcache_evictions_total"]}


def test_a_child_counts_anew(used):
    """A forked worker serves its own figures, not its parent's."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)
    scraped(registry)

    def child():
        used.get("users:1")
        found = scraped(registry)
        assert only(found["fleetcache_requests_total"], group="users", result="hit", level="server") == 1
        assert only(found["fleetcache_loads_total"], group="users") == 0

    assert ended_well(in_child(child))


def test_what_cannot_be_read_hides_nothing_else(used, monkeypatch, caplog):
    """A tally that fails, or one metric, is logged; the others are served."""
    other = Cache("memory://broken", alias="broken")
    monkeypatch.setattr(other.tally, "snapshot", lambda: 1 / 0)
    monkeypatch.setattr(metrics, "_said", metrics.Said())
    registry = CollectorRegistry(auto_describe=True)
    prometheus.install(registry)

    found = scraped(registry)

    assert {labels["cache"] for labels, _ in found["fleetcache_requests_total"]} == {"shop"}
    assert "'broken'" in caplog.text
    assert "ZeroDivisionError" in caplog.text

    monkeypatch.setattr(other.tally, "snapshot", lambda: snapshot(errors=None))
    found = scraped(registry)
    assert only(found["fleetcache_requests_total"], cache="broken", level="near") == 6
    assert "cache.errors" in caplog.text


# --- OpenTelemetry --------------------------------------------------------------------------------


def test_opentelemetry_collects_what_was_counted(used):
    """Observable counters and gauges, with the names, units and attributes of the documentation."""
    reader = InMemoryMetricReader()
    otel.install(MeterProvider([reader]))

    found = collected(reader)

    metric, reads = found["cache.requests"]
    hit = {"cache.name": "shop", "cache.request.type": "hit", "cache.level": "server", "cache.group": "users"}
    assert (hit, 3) in reads
    assert (metric.unit, metric.data.is_monotonic) == ("{request}", True)
    assert found["cache.load.duration.count"][1] == [({"cache.name": "shop"}, 1)]
    assert found["cache.load.duration.sum"][0].unit == "s"
    assert ({"cache.name": "shop", "le": "+Inf"}, 1) in found["cache.load.duration.bucket"][1]
    assert ({"cache.name": "shop", "error.type": "ServerGone"}, 2) in found["cache.errors"][1]
    assert found["cache.time_saved"][0].unit == "s"
    assert [value for _, value in found["cache.breaker.state"][1]] == [0]
    names = {metric.name for metric in metrics.METRICS if metric.kind != "histogram"}
    assert {name.rpartition(".")[0] if name.endswith((".sum", ".count", ".bucket")) else name for name in found} <= {
        *names,
        "cache.load.duration",
        "cache.operation.duration",
    }


def test_opentelemetry_sees_one_moment_and_ends(used, monkeypatch):
    """All instruments of a collection are read from one snapshot; after the end none is."""
    monkeypatch.setattr(metrics, "RECENT", 5)
    calls, whole = [], used.tally.snapshot
    monkeypatch.setattr(used.tally, "snapshot", lambda: calls.append(1) or whole())
    reader = InMemoryMetricReader()
    end = otel.install(MeterProvider([reader]))

    assert "cache.requests" in collected(reader)
    assert len(calls) == 1

    end()
    assert not any(points for _, points in collected(reader).values())


def test_opentelemetry_is_installed_again(used):
    """A provider makes each instrument once, so a second installation takes over; the end of the first is then nothing."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    end = otel.install(provider)
    otel.install(provider)

    end()
    assert "cache.requests" in collected(reader)


# --- StatsD ---------------------------------------------------------------------------------------


@pytest.fixture
def port():
    """A UDP socket as a StatsD server has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        yield receiver


def received(receiver):
    """Return the lines that have arrived."""
    receiver.settimeout(0.2)
    lines = []
    try:
        while True:
            lines += receiver.recv(65536).decode().splitlines()
    except TimeoutError:
        return lines


def test_the_statsd_package_sends_differences(used, port):
    """Over UDP: counters what has come since the last push, gauges as they are, labels as parts of the name."""
    client = statsd_package.StatsClient(*port.getsockname())
    pushes = statsd.StatsD(statsd.plain(client))
    for at in range(20):
        used.get_or_set(f"loads:{at}", dict)

    pushes.push()
    first = received(port)
    used.get("users:1")
    pushes.push()
    second = received(port)

    client.close()

    assert "fleetcache.requests.shop.hit.server.users:3|c" in first
    assert "fleetcache.requests.shop.hit.server.users:1|c" in second
    assert not [line for line in second if line.startswith("fleetcache.requests.shop.miss")]
    assert [line for line in first if line.startswith("fleetcache.load.duration.p95.shop:") and line.endswith("|g")]
    assert not [line for line in first if line.startswith("fleetcache.load.duration.p99")]  # of 20 loads there is none
    assert not [line for line in second if line.startswith("fleetcache.load.duration")]
    assert "fleetcache.near.state.shop.off:1|g" in second


TAGGED = """
import sys
from ddtrace.vendor.dogstatsd import DogStatsd
from fleetcache import Cache
from fleetcache.telemetry import statsd

cache = Cache("memory://tagged", {}, alias="shop")
for _ in range(4):
    cache.get_or_set("users:1", lambda: "value")
client = DogStatsd(host="127.0.0.1", port=int(sys.argv[1]), disable_telemetry=True)
statsd.StatsD(statsd.tagged(client)).push()
client.flush()
client.close_socket()
"""


def test_a_client_with_tags_gets_tags(port):
    """DogStatsD's client: labels are tags."""
    # In a process of its own: ddtrace stays in a process that has imported it, and disturbs those that it forks in C.
    command = [sys.executable, "-c", TAGGED, str(port.getsockname()[1])]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr

    lines = received(port)

    wanted = "cache.name:shop,cache.request.type:hit,cache.level:server,cache.group:users"
    assert f"fleetcache.requests:3|c|#{wanted}" in lines


def test_a_tag_ends_where_its_group_does():
    """A group is a part of a key, which may hold what separates tags, and metrics."""
    sent = []
    client = types.SimpleNamespace(
        increment=lambda name, value, tags: sent.append(tags), gauge=lambda *args, **more: None
    )

    statsd.tagged(client)("requests", "c", 1, {"cache.group": "evil|c\ninjected:1|c,x"})

    assert sent == [["cache.group:evil_c_injected:1_c_x"]]


def test_a_client_that_raises_loses_nothing(used, caplog, monkeypatch):
    """The error is logged once, nothing is raised, and what was not sent comes with the next push."""
    monkeypatch.setattr(metrics, "_said", metrics.Said())
    broken, sent = [True], []

    def send(*what):
        if broken:
            raise OSError("no route")
        sent.append(what)

    pushes = statsd.StatsD(send)
    pushes.push()
    pushes.push()
    assert caplog.text.count("could not be sent") == 1

    broken.clear()
    pushes.push()

    hits = {"cache.name": "shop", "cache.request.type": "hit", "cache.level": "server", "cache.group": "users"}
    assert ("fleetcache.requests", "c", 3, hits) in sent


def test_ended_it_sends_nothing_more():
    """A push that has begun ends first, and none begins afterwards."""
    began, goes_on, sent = threading.Event(), threading.Event(), []

    class Slow:
        def push(self):
            began.set()
            goes_on.wait(15)
            sent.append("a push")

    pushing = statsd.Pushing(Slow(), 0.01)
    pushing.begin()
    assert began.wait(15)
    threading.Timer(0.05, goes_on.set).start()
    pushing.end()
    before = [*sent]
    pushing.thread.join(15)

    assert before == sent == ["a push"]


def test_started_it_pushes_from_the_first_connection_on(valkey, caplog):
    """In a thread of the process, and in that of a forked child, until it is ended; bad arguments are refused."""
    caplog.set_level(logging.ERROR)
    program = f"""
import os, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from fleetcache import Cache
from fleetcache.telemetry import statsd
sent = []
end = statsd.start(lambda *what: sent.append(what), 0.05)
cache = Cache({valkey.tcp_url(5)!r}, {{"KEY_PREFIX": "pushed"}}, alias="shop")
assert threading.active_count() == 1
def reads():
    return sum(value for name, kind, value, tags in sent if name == "fleetcache.requests")
def wait(wanted):
    until = time.monotonic() + 15
    while reads() != wanted:
        assert time.monotonic() < until, sent
        time.sleep(0.01)
cache.get("a")
wait(1)
pid = os.fork()
if pid == 0:
    sent.clear()
    cache.get("a"); cache.get("a"); cache.get("a")
    wait(3)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
end()
cache.get("a")
time.sleep(0.2)
assert reads() == 1
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env={**os.environ}
    )
    assert (ran.returncode, ran.stderr) == (0, "")

    with pytest.raises(ValueError, match="more than 0 seconds"):
        statsd.start(print, 0)
    with pytest.raises(TypeError, match="a function is expected, not str"):
        statsd.StatsD("localhost")


def test_a_figure_that_cannot_be_sent_starves_no_other(used, monkeypatch):
    """An agent may refuse one figure for ever: the others arrive."""
    monkeypatch.setattr(metrics, "_said", metrics.Said())
    sent = set()

    def send(name, kind, value, tags):
        if name == "fleetcache.requests":
            raise ValueError("no such tag")
        sent.add(name)

    statsd.StatsD(send).push()

    assert "fleetcache.writes" in sent


def test_a_push_never_raises(used, monkeypatch):
    """Not what code in C raises without arguments, either, which looks like an interruption."""
    monkeypatch.setattr(metrics, "_said", metrics.Said())

    statsd.StatsD(lambda *what: SimpleQueue().get_nowait()).push()


def test_a_send_that_ends_the_process_does_not_end_the_pushes(monkeypatch):
    """SystemExit in a thread ends that thread only, and nothing would be sent any more."""
    monkeypatch.setattr(metrics, "_said", metrics.Said())
    pushed, again = [], threading.Event()

    class Ends:
        def push(self):
            pushed.append(1)
            if len(pushed) > 1:
                again.set()
            raise SystemExit

    pushing = statsd.Pushing(Ends(), 0.01)
    pushing.begin()

    assert again.wait(15)
    pushing.end()
