"""Entries that another client of the server has written: what is trusted of them, and that every reader bears the rest."""

from __future__ import annotations

import copy
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.admin.fleet import worker
from tests.admin.site import client, site
from tests.admin.test_pages import of
from tests.caches import params
from tests.fleet_stats.sources import RISING, snapshot

from fleetcache import Cache
from fleetcache.cli import parser, run
from fleetcache.fleet import entries, figures, gather, places
from fleetcache.fleet.checking import checked
from fleetcache.telemetry import prometheus
from fleetcache.telemetry.metrics import Collector, Reading

MOMENT = {"at": 1000.0, "what": "hit", "value": "ab"}
EVENT = {"at": 1001.0, "key": "u:1", "promise": "bound", "copy": "ab", "server": "cd", "history": [MOMENT]}


def whole() -> dict[str, Any]:
    """Return a snapshot with everything in it, as it comes out of an entry."""
    audit = {"every": 9, "compared": 3, "violations": 1, "better_than": None, "text": "x", "events": [EVENT]}
    given = worker(Random(1), 1000.0, RISING) | {
        "audit": audit,
        "servers": [{"address": "a:1", "away": True}],
        "errors": {"ServerGone": 2},
    }
    found: dict[str, Any] = entries.unpacked(entries.packed({}, given))["snapshot"]
    return found


def test_what_fleetcache_writes_is_trusted_as_it_is(valkey: Any) -> None:
    """Nothing of it is left out, of a process that does everything, and of one that does nothing."""
    with closing(Cache(valkey.tcp_url(3), params({"NEAR": True, "STATS": {"PUBLISH": 0}}))) as cache:
        cache.set("u:1", 1)
        for _ in range(20):
            cache.get("u:1")
        cache.get_or_set("v:1", lambda: 1, 300)
        taken = [cache.snapshot(), Cache("memory://nothing", params({})).snapshot()]
    written = [entries.unpacked(entries.packed({}, each))["snapshot"] for each in taken]

    for each in (*written, whole(), snapshot(), {}):
        assert checked(json.loads(json.dumps(each)))[1] == []
    for each in (*written, whole()):
        assert checked(each)[0] == each


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("near.state", {}, "near.state"),
        ("near.why", ["x"], "near.why"),
        ("near.hits", "many", "near.hits"),
        ("near.evictions", {"size": "x", "ended": 2}, "near.evictions.size"),
        ("near.lag", {str(n): n for n in range(1000)}, "near.lag"),
        ("near", [1], "near"),
        ("loading.protection", {}, "loading.protection"),
        ("audit.compared", -1, "audit.compared"),
        ("audit.events", [{**EVENT, "at": 1e19}, {**EVENT, "history": [{"at": "x"}, 5]}, 7], "audit.events.at"),
        ("groups.users.near", "x", "groups.users.near"),
        ("commands.GET.calls", {"a": 1}, "commands.GET.calls"),
        ("commands.GET.latency", {"first": 0, "counts": [-5], "sum": 1}, "commands.GET.latency"),
        ("top.hits", [["a"]], "top.hits"),
        ("servers", [3, {"address": ["x"]}], "servers"),
        ("advice.sizes", 5, "advice"),
        ("since", 1e18, "since"),
    ],
)
def test_what_fleetcache_cannot_have_written_is_left_out_and_named(path: str, value: Any, named: str) -> None:
    """All else of the entry counts."""
    given = whole()

    kept, spoilt = checked(put(given, path.split("."), value))

    assert named in spoilt
    assert kept.keys() - {"near", "servers"} == given.keys() - {"near", "servers", *({named} - {*kept})}
    assert checked(kept) == (kept, [])


def test_figures_of_later_versions_are_not_called_spoilt() -> None:
    """Numbers are kept, and all else is left out without a word."""
    given = whole()
    given["near"] |= {"later": 3, "stranger": ["x"]}
    given["latest"] = {"a": 1}

    kept, spoilt = checked(given)

    assert spoilt == []
    assert kept["near"]["later"] == 3
    assert not {"stranger", "latest"} & {*kept, *kept["near"]}


STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 1e19, "x", "nan", "\x1b[2J\u202e", [], {}, [1], {"a": 1}, {"a": "b"}, [[1, 2]], {"< ² us": 1}),
    *({"": {}}, [{"at": "x"}], [{"at": 1e18, "history": 5}], [{"at": 1, "history": [5]}], "\ud800", {"\ud800": 1}),
)


def paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the ways to everything in *found*."""
    yield path
    inside = found.items() if isinstance(found, dict) else enumerate(found[:2]) if isinstance(found, list) else ()
    for name, each in inside:
        yield from paths(each, (*path, name))


def put(found: Any, path: Any, value: Any) -> Any:
    """Return *found* with another *value* there."""
    whole = copy.deepcopy(found)
    inside = whole
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    return whole


@pytest.fixture(scope="module")
def spoilt() -> list[dict[str, Any]]:
    """Snapshots, in each of which something is strange."""
    base = whole()
    cases = [(path, value) for path in paths(base) if path for value in STRANGE]
    return [put(base, path, value) for path, value in Random(1).sample(cases, 700)]


def entry(published: Any, pid: int = 7) -> bytes:
    """Return the entry of a process, as any client may write it."""
    now = time.time()
    facts = {"host": "h", "pid": pid, "version": "1", "digest": "d", "started": now - 9, "at": now, "interval": 10}
    return zlib.compress(json.dumps({"format": 1, **facts, "snapshot": published}).encode())


def test_sums_bear_whatever_is_published(spoilt: list[dict[str, Any]]) -> None:
    """Each part, each sum and each metric is there, and can be written as JSON in UTF-8."""
    good = whole()

    for each in spoilt:
        kept, _ = checked(entries.unpacked(entry(each))["snapshot"])
        text = json.dumps([figures.total([good, kept]), restored := figures.restored(kept)], ensure_ascii=False)
        assert text.encode()
        collector = Collector(lambda restored=restored: [Reading("n", ("c", "h"), restored)], 50)  # type: ignore[misc]
        assert collector.collect()


HOSTILE: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda given: {**given, "near": {"state": {}}},
    lambda given: {
        **given,
        "near": {"evictions": {"a": "x"}, "invalidations": [1], "lag": {"< 8 us": "x", "< ² us": 1}},
    },
    lambda given: {**given, "near": {"state": "live", "hits": "1", "misses": [], "max_bytes": {}, "why": "\ud800"}},
    lambda given: {**given, "audit": {"compared": -1, "violations": 0}},
    lambda given: {**given, "audit": {"compared": 3, "events": [{**EVENT, "at": 1e19}, {**EVENT, "at": []}]}},
    lambda given: {**given, "audit": {"compared": 3, "events": [{**EVENT, "history": [5, {"at": "x"}]}]}},
    lambda given: {**given, "audit": {"compared": 3, "events": [{**EVENT, "promise": "\ud800", "history": 5}]}},
)


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_everything_that_shows_the_fleet_bears_it(valkey: Any, case: int) -> None:
    """Pages, commands and a scrape name the entry that is spoilt, and show the rest."""
    with site({"default": (settings := of(valkey.url(9)))}, DEBUG_PROPAGATE_EXCEPTIONS=True):
        from django.core.cache import caches

        cache, prefix, browser = caches["default"], settings["KEY_PREFIX"], client("view_cache")
        for pid, published in ((7, HOSTILE[case](whole())), (8, whole())):
            name = places.worker_name(0, prefix, "h", pid, "ab")
            cache.get_client().set(name, entry(published, pid))
            cache.get_client().zadd(places.list_name(0, prefix), {name: 9e12})

        assert "has parts that fleetcache does not write so" in str(gather(cache).missing)
        for page in ("overview", "workers", "groups", "workers/one"):
            asked = {"host": "h", "pid": 7} if page.endswith("one") else {}
            assert browser.get(f"/admin/fleetcache/{page}/", asked).status_code == 200
        for words in ("stats --json", "stats --by worker", "top --once --interval 0.1"):
            out, err = io.StringIO(), io.StringIO()
            given = [*words.split(), "--url", f"{valkey.tcp_url(9)}?key_prefix={prefix}"]
            assert run(parser().parse_args(given), out, err) == 0
        registry = CollectorRegistry()
        prometheus.install(registry, fleet=cache)
        assert b'worker="h:8"' in generate_latest(registry)
