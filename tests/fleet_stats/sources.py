"""Figures of processes that do not exist, published as if they did."""

from __future__ import annotations

import copy
from typing import Any

from tests.caches import params

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.fleet.publishing import Publisher
from fleetcache.near.advice import FACTORS
from fleetcache.stats.latency import Latency

PLACES = ("valkey", "cluster", "sentinel", "shards", "memory")


def cache_at(place: str, ask: Any, **settings: Any) -> Cache:
    """Return a cache on servers of this kind, which publishes nothing by itself."""
    given = params({"STATS": {"PUBLISH": 0}, **settings})
    match place:
        case "valkey":
            return Cache(ask("valkey").tcp_url(3), given)
        case "cluster":
            return Cache(ask("valkey_cluster").url(), given)
        case "sentinel":
            return Cache(ask("watched_servers").url(3), given)
        case "shards":
            return ShardClient([ask("valkey").tcp_url(4), ask("redis_debian").tcp_url(4)], given)
    return Cache("memory://fleet", given)


class Source:
    """The shared parts of a cache whose figures a test sets."""

    def __init__(self, cache: Cache, figures: dict[str, Any] | None = None) -> None:
        self.settings, self.topology = cache.settings, cache.topology
        self.figures = snapshot() if figures is None else figures
        self.tally = self
        self.alias = ""
        self.groups: dict[str, Any] = {}

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(self.figures)


def publisher(source: Any, interval: float = 10.0) -> Publisher:
    """Return what publishes the figures of *source*, as soon as a test calls it."""
    made = Publisher(source)
    made.kept = source  # type: ignore[attr-defined]  # a publisher alone lets its source go
    made.given = interval
    return made


def group(**figures: float) -> dict[str, float]:
    """Return the figures of a group, all 0 but these."""
    names = ("near", "server", "stale", "missed", "loads", "joined", "load_errors", "load_seconds")
    more = ("writes", "deletes", "bytes_read", "bytes_written", "saved")
    return {**dict.fromkeys(names + more, 0), **figures}


def latency(*times: tuple[float, int]) -> dict[str, Any]:
    """Return the latency of these seconds, each with its count."""
    found = Latency()
    for seconds, count in times:
        for _ in range(count):
            found.note(seconds)
    return found.figures()


def snapshot(**parts: Any) -> dict[str, Any]:
    """Return a snapshot as `Cache.snapshot` makes it, with these parts in place of its own."""
    return {
        "since": 1000.0,
        "groups": {"users": group(near=6, server=3, missed=1, loads=1, load_seconds=0.5, saved=4.5, writes=2)},
        "commands": {"GET": {"calls": 4, "errors": 1, "latency": latency((0.001, 3), (0.01, 1))}},
        "loads": {"latency": latency((0.5, 1))},
        "errors": {"ServerGone": 1},
        "top": {"hits": [["user:1", 5, 2.0], ["user:2", 1, 0]], "bytes": [], "seconds": []},
        "near": {"state": "live", "why": "", "hits": 6, "entries": 2, "invalidations": {"push": 1, "own write": 0}},
        "loading": {"loads": 1, "joined": 0, "protection": "full"},
        "servers": [{"address": "127.0.0.1:6379/0", "away": False}],
        "advice": None,
        "audit": {"compared": 10, "violations": 0, "events": []},
        **parts,
    }


def advice(*ratios: float, reads: int = 100, max_bytes: int = 64, error: float = 0.004) -> dict[str, Any]:
    """Return the advice of a process with these hit ratios at five sizes."""
    sizes = [
        {"max_bytes": int(max_bytes * 1_000_000 * factor), "hit_ratio": ratio, "error": error}
        for factor, ratio in zip(FACTORS, ratios, strict=True)
    ]
    return {"rate": 0.25, "reads": reads, "now": ratios[2], "sizes": sizes, "enough": True, "text": "A sentence."}


RISING = advice(0.5, 0.6, 0.7, 0.8, 0.9)
