"""All questions in one run: printed and, unless ``--quick``, written to ``docs/performance.md``, the targets first."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks import awaiting, cluster, counting, eviction, growth, hotpath, loading, near, remote, staleness
from benchmarks.contenders import FLOOR, OURS
from benchmarks.contest import FULL, Contest, Table, arguments, once, times
from benchmarks.loading.calls import PAIRS
from benchmarks.loading.cold import COST
from benchmarks.loading.peers import AWAITING, BLOCKING, ITSELF
from benchmarks.loading.plot import plot
from benchmarks.loading.tags import OURS as INVALIDATE
from benchmarks.near.caches import LOCMEM
from benchmarks.near.hits import BLOCKING_LOCMEM, kept
from benchmarks.near.misses import LIMITS, NEAR_OFF, ON
from benchmarks.plots import PAGE, SECTION, draw
from fleetcache.testing.servers import EmbeddedServer

DISTRIBUTIONS = (
    "fleetcache", "django", "django-redis", "django-valkey", "django-vcache",
    "django-cachex", "dogpile.cache", "cashews", "aiocache", "redis", "valkey", "hiredis", "libvalkey",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A ratio that is to be reached: at most *limit*, or at least, where faster means more."""

    what: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not run"
        met = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "met" if met else "**not met**"


def targets(blocking: Mapping[str, Contest], crowd: Contest) -> list[Target]:
    """Return what remote calls are to reach."""
    found = []
    for operation, wall, cpu in (("get", 1.1, 1.25), ("set", 1.25, 1.5)):
        contest = blocking[operation]
        found += [
            Target(f"{operation}: wall / floor", wall, contest.ratio(OURS, FLOOR)),
            Target(f"{operation}: CPU / floor", cpu, contest.ratio(OURS, FLOOR, "cpu")),
            Target(f"{operation}: CPU / django-redis", 0.65, contest.ratio(OURS, "django-redis", "cpu")),
        ]
    get_many, set_many = blocking["get_many(100)"], blocking["set_many(100)"]
    return [
        *found,
        Target("get_many(100): wall / floor", 1.3, get_many.ratio(OURS, FLOOR)),
        Target("get_many(100): wall / django-redis", 0.5, get_many.ratio(OURS, "django-redis")),
        Target("set_many(100): wall / django-redis", 0.35, set_many.ratio(OURS, "django-redis")),
        Target("aget, 100 tasks: rate / redis.asyncio", 9, crowd.ratio("redis.asyncio", OURS), at_least=True),
        Target("aget, 100 tasks: rate / django-vcache", 1.8, crowd.ratio("django-vcache", OURS), at_least=True),
        Target("aget, 100 tasks: rate / Django", 30, crowd.ratio("Django", OURS), at_least=True),
    ]


def near_targets(found: near.Outcome, stale: staleness.Outcome) -> list[Target]:
    """Return what the near cache is to reach."""
    hits, misses = found.hits, found.misses
    targets = [
        Target("near hit, str: time / LocMemCache", 0.12, hits.contests["get, str"].ratio(OURS, LOCMEM)),
        Target("near hit, small dict: time / LocMemCache", 0.42, hits.contests["get, small dict"].ratio(OURS, LOCMEM)),
        Target(
            "near hits, get_many(100): time / LocMemCache",
            0.6,
            hits.contests["get_many(100), small dicts"].ratio(OURS, LOCMEM),
        ),
        Target("near hit, aget of a str: time / LocMemCache's get", 0.4, hits.awaiting.ratio(OURS, BLOCKING_LOCMEM)),
        Target("near hits, 4 threads: rate / 1 thread", 0.8, kept(hits.threads, OURS), at_least=True),
        *(
            Target(f"{ON}, {operation}: time / without", LIMITS[operation], contest.ratio(OURS, NEAR_OFF))
            for operation, contest in misses.contests.items()
        ),
    ]
    idle = stale.seen.get(staleness.IDLE)
    targets.append(Target("staleness, idle reader: p99, ms", 5, idle and idle.percentile(0.99) * 1e3))
    return targets


def counting_targets(contests: Mapping[str, Contest]) -> list[Target]:
    """Return what counting may add."""
    limits = {"get": 1.02, "near get, str": 1.05}
    return [
        Target(f"counting, {operation}: time / without", limit, contests[operation].ratio(*counting.BOTH))
        for operation, limit in limits.items()
    ]


def cluster_targets(contests: Mapping[str, Contest]) -> list[Target]:
    """Return what calls on a cluster are to reach."""
    get, get_many, crowd = contests["get"], contests["get_many(100)"], contests[cluster.AGET]
    return [
        Target("cluster get: time / one server", 1.15, get.ratio(OURS, cluster.SINGLE)),
        Target("cluster get_many(100): time / redis-py", 0.5, get_many.ratio(OURS, cluster.REDIS_PY)),
        Target("cluster aget, 100 tasks: rate / redis.asyncio", 5, crowd.ratio(cluster.REDIS_PY, OURS), at_least=True),
    ]


def loading_targets(found: loading.Outcome) -> list[Target]:
    """Return what loading and tags are to reach: of a fleet, with every way of ours to ask."""
    ours = [name for name in (*BLOCKING, *AWAITING) if name.startswith(OURS)]
    late = 1.1 * COST + 0.02
    return [
        *(Target(f"{pair}: time", pair.limit, found.calls.ratio(pair)) for pair in PAIRS if pair.limit),
        *(Target(f"cold key, {name}: loads", 1, found.cold.most(name)) for name in ours if name != ITSELF),
        *(
            Target(f"cold key, {name}: last caller done, s", late, found.cold.late(name))
            for name in ours
            if name != ITSELF
        ),
        *(Target(f"hot key, {name}: callers who waited", 0, found.hot.waited(name)) for name in ours if name != ITSELF),
        *(Target(f"hot key, {name}: loads / timeout", 1.6, found.hot.loads(name)) for name in ours),
        Target("invalidate_tags: time with the most entries / with one", 1.2, found.tags.steepness(INVALIDATE)),
    ]


def verdicts(reached: Sequence[Target]) -> Table:
    """Write the targets beside what was measured."""
    rows = [
        (each.what, f"{'≥' if each.at_least else '≤'} {each.limit:g}", times(each.measured), each.verdict)
        for each in reached
    ]
    return Table("Targets", ("", "target", "measured", ""), rows)


def circumstances(server: EmbeddedServer) -> str:
    """Name the machine's class and every version that matters."""
    with redis.Redis.from_url(server.url()) as client:
        info = client.info("server")
    name = info.get("server_name", "redis").capitalize()
    versions = [f"Python {platform.python_version()}", f"{name} {info.get('valkey_version', info['redis_version'])}"]
    for distribution in DISTRIBUTIONS:
        try:
            versions.append(f"{distribution} {importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{distribution} (not installed)")
    machine = f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()}"
    return f"Machine: {machine}; the server on the same machine, over TCP loopback.\n\nVersions: {', '.join(versions)}."


def _processor() -> str:
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    return named[1] if named else platform.processor() or "unknown processor"


INTRODUCTION = """\
# Performance

What fleetcache costs next to its peers and to the *floor*: a bare socket with hiredis and pickle, which is the least
that could do the work from Python (for `aget`, the same on one connection that all tasks share).

Written by `{command}`: everything was measured in one run, in {rounds} rounds of short turns in random order.
[Outages](outages.md#what-an-outage-costs) has the table of `make bench ONLY=outage`.

- A *ratio* is the median over the rounds of two turns of the same round, so it survives a noisy machine. The microseconds are this machine's.
- *CPU* is what the whole client process spent, its own threads included.
- Every contender had to give back the right values first.
- `fleetcache` is the Django backend, `fleetcache.Cache` the same without Django.
- In the tables whose names begin with "Near" all caches answer from the memory of the process, and the floor is a dict, a clock and pickle.

{circumstances}
"""


def main() -> None:
    """Measure everything, print it and write the page."""
    pace = arguments(__doc__).pace
    with EmbeddedServer(port=True) as server:
        about = circumstances(server)
        blocking = remote.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        crowds = awaiting.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        grown = growth.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        nearby = near.measure(server, pace)
        stale = staleness.measure(server, pace)
        evicted = eviction.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        counted = counting.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        scattered = cluster.measure(server, pace)
    with EmbeddedServer(port=True) as server:
        profiles = hotpath.measure(server)
    loaded = loading.measure(pace)
    reached = [
        *targets(blocking, crowds.contests[100]),
        *near_targets(nearby, stale),
        *counting_targets(counted),
        *cluster_targets(scattered.contests),
        *loading_targets(loaded),
    ]
    short = {each.what.partition(":")[0] for each in reached if each.verdict == "**not met**"}
    tables = once(
        [
            verdicts(reached),
            *remote.tables(blocking),
            *awaiting.tables(crowds),
            *growth.tables(grown),
            *near.tables(nearby),
            *staleness.tables(stale),
            *evicted,
            *counting.tables(counted),
            *cluster.tables(scattered),
            *loading.tables(loaded),
            # What falls short is reported with its profile.
            *(profile for profile in profiles if profile.title.removeprefix("Profile: ") in short),
        ]
    )
    command = "make bench" if pace == FULL else "make bench ARGS=--quick"
    page = INTRODUCTION.format(command=command, rounds=pace.rounds, circumstances=about)
    page = "\n".join([page, SECTION, *(f"{table}\n" for table in tables)])
    sys.stdout.write(page)
    if pace == FULL:
        plot(loaded.hot)
        PAGE.write_text(page, encoding="utf-8")
        draw()


if __name__ == "__main__":
    main()
