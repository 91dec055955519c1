"""Workers of a fleet that is not there: entries and a history, in the form in which processes publish them."""

from __future__ import annotations

import time
from importlib.metadata import version
from random import Random
from typing import Any

from fleetcache.fleet import entries, places
from fleetcache.stats.latency import Latency

GROUPS = {
    # reads a second and worker; near, server, stale of them; seconds of a load; bytes of a value
    "users": (90, 0.71, 0.22, 0.01, 0.012, 900),
    "products": (60, 0.82, 0.14, 0.01, 0.045, 2_300),
    "search": (14, 0.20, 0.38, 0.02, 0.310, 18_000),
    "pages": (22, 0.55, 0.38, 0.03, 0.120, 41_000),
    "sessions": (75, 0.00, 0.97, 0.00, 0.000, 400),
    "prices": (40, 0.64, 0.21, 0.00, 0.020, 120),
}
STATES = (("live", ""),) * 17 + (
    ("armed", ""),
    ("suspect", "cache-1:6379: the server did not answer in time"),
    ("aside", "cache-1:6379: this connection leads to another server"),
)
KEYS = ("users:1138", "products:77:full", "search:blue-shoes", "pages:/", "prices:eu:77", "users:4711")


def worker(random: Random, seconds: float, advice: Any = None) -> dict[str, Any]:
    """Return the snapshot of a process that has run for *seconds*."""
    groups = {name: _group(random, seconds, *figures) for name, figures in GROUPS.items()}
    hits = sum(group["near"] for group in groups.values())
    state, why = random.choice(STATES)
    copies = {
        "state": state,
        "why": why,
        "hits": hits,
        "entries": random.randrange(20_000, 40_000),
        "bytes": random.randrange(40_000_000, 64_000_000),
        "max_bytes": 64_000_000,
        "evictions": {"size": random.randrange(90_000), "expired": random.randrange(9_000), "ended": 0, "too large": 0},
        "misses": int(hits * random.uniform(0.3, 0.5)),
        "filled": int(hits * 0.3),
        "refused": random.randrange(900),
        "invalidations": {"push": random.randrange(90_000), "own write": random.randrange(9_000), "overtaken": 0},
        "lag": {
            "< 512 us": random.randrange(800),
            "< 1024 us": random.randrange(300),
            "< 4096 us": random.randrange(9),
        },
    }
    reads = sum(group["server"] + group["missed"] for group in groups.values())
    return {
        "since": time.time() - seconds,
        "groups": groups,
        "commands": {
            "GET": _command(random, reads, 0.0002),
            "SET": _command(random, reads // 9, 0.00025),
            "EVALSHA": _command(random, reads // 30, 0.0004),
            "MGET": _command(random, reads // 50, 0.0005),
        },
        "loads": {"latency": _latency(random, 200, 0.05)},
        "errors": {"ServerTimeout": random.randrange(3)} if random.random() < 0.1 else {},
        "top": {
            "hits": [[key, random.randrange(2_000, 9_000)] for key in KEYS],
            "bytes": [[key, random.randrange(10**6, 10**8)] for key in KEYS[:4]],
            "seconds": [[key, random.uniform(1, 40)] for key in KEYS[:3]],
        },
        "near": copies,
        "loading": {
            "loads": 900,
            "joined": random.randrange(400),
            "waited": random.randrange(900),
            "protection": "full",
        },
        "servers": [],
        "advice": advice or _advice(hits / (hits + copies["misses"])),
        "audit": {"compared": random.randrange(2_000, 9_000), "violations": 0, "events": []},
    }


def _advice(ratio: float) -> dict[str, Any]:
    sizes = [
        {"max_bytes": int(64_000_000 * factor), "hit_ratio": 1 - (1 - ratio) * less, "error": 0.008}
        for factor, less in ((1 / 4, 1.6), (1 / 2, 1.25), (1, 1.0), (2, 0.82), (4, 0.71))
    ]
    text = f"At 128 MB the near hit ratio would be {100 * sizes[3]['hit_ratio']:.0f} %; now, at 64 MB, it is {100 * ratio:.0f} %."
    return {"rate": 1 / 64, "reads": 900_000, "now": ratio, "sizes": sizes, "enough": True, "text": text}


def _group(
    random: Random, seconds: float, rate: float, near: float, server: float, stale: float, load: float, size: int
) -> dict[str, float]:
    reads = int(rate * seconds * random.uniform(0.8, 1.2))
    missed = int(reads * (1 - near - server - stale)) if load else int(reads * 0.03)
    loads = int(missed * 0.8) if load else 0
    return {
        "near": int(reads * near), "server": int(reads * server), "stale": int(reads * stale), "missed": missed,
        "loads": loads, "joined": missed - loads if load else 0, "load_errors": 0, "load_seconds": loads * load,
        "writes": loads, "deletes": int(missed * 0.1), "bytes_read": int(reads * server * size),
        "bytes_written": loads * size, "saved": reads * (near + server + stale) * load,
    }  # fmt: skip


def _latency(random: Random, count: int, mean: float) -> dict[str, Any]:
    latency = Latency()
    for _ in range(count):
        latency.note(random.lognormvariate(0, 0.5) * mean)
    found: dict[str, Any] = latency.figures()
    return found


def _command(random: Random, calls: int, mean: float) -> dict[str, Any]:
    return {"calls": calls, "errors": 0, "latency": _latency(random, 200, mean)}


def publish(
    cache: Any,
    count: int,
    *,
    hosts: int = 8,
    life: int = 600_000,
    mixed: bool = True,
    seed: int = 1,
    audit: Any = None,
) -> None:
    """Write the entries of *count* processes on some *hosts*; if *mixed*, some run another version, or other settings.

    The first one has the *audit* that is given.
    """
    random, now = Random(seed), time.time()
    prefix = cache.settings.key_prefix
    servers = cache.info()["servers"]
    for place in range(count):
        host, pid = f"web-{place % hosts + 1}", 1000 + place
        part = place % places.PARTS
        seconds = random.uniform(300, 90_000)
        facts = {
            "host": host,
            "pid": pid,
            "version": "0.0.9" if mixed and place % 50 == 49 else version("fleetcache"),
            "digest": "77aa01c2d3e4" if mixed and place % 40 == 39 else "4be19f0a6c55",
            "started": now - seconds,
            "at": now - random.uniform(0, 9),
            "interval": 10.0,
        }
        name = places.worker_name(part, prefix, host, pid, f"{place:08x}")
        listed = places.list_name(part, prefix)
        server = cache.topology.home(listed)
        snapshot = {**worker(random, seconds), "servers": servers}
        if audit is not None and not place:
            snapshot["audit"] = audit
        packed = entries.packed(facts, snapshot)
        replies = server.exchange(
            [
                (places.ENTER, name, packed, "PX", life),
                (places.LIST, listed, int((now + life / 1000) * 1000), name),
                (places.LIVE_ON, listed, life),
            ]
        )
        assert not [reply for reply in replies if isinstance(reply, Exception)], replies


def tell_history(cache: Any, hours: float = 24, *, workers: int = 8, seed: int = 1) -> None:
    """Write the history of the last *hours*: a day with a quiet night, and twenty minutes in which much was missed."""
    random = Random(seed)
    now = int(time.time()) // places.PERIOD
    count = int(hours * 3600 // places.PERIOD)
    for number in range(now - count + 1, now + 1):
        name = places.history_name(number, cache.settings.key_prefix)
        age = now - number
        busy = 0.35 + 0.65 * (1 - abs(age % 288 - 30) / 288) ** 2
        ill = 30 <= age < 34
        adds = []
        for group, (rate, near, server, stale, load, _) in GROUPS.items():
            reads = int(rate * workers * places.PERIOD * busy * random.uniform(0.9, 1.1))
            near, server = (near * 0.1, server * 0.6) if ill else (near, server)
            missed = max(reads - int(reads * (near + server + stale)), 0)
            figures = {
                "near": reads * near, "server": reads * server, "stale": reads * stale, "missed": missed,
                "loads": missed * 0.8, "joined": missed * 0.2, "writes": missed * 0.8,
                "saved": reads * (near + server + stale) * load * 1e6,
            }  # fmt: skip
            adds += [(places.ADD, name, f"{figure}:{group}", int(sum)) for figure, sum in figures.items() if sum >= 1]
        cache.topology.home(name).exchange([*adds, (places.LIVE_ON, name, places.DAY * 1000)])
