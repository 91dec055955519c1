"""The demo's last scene: an expensive page that expires while visitors reload it, and whose database goes away.

The page is the outcome of a query that looks at every name in an SQLite database.  The sites are the same but for
BACKEND and ``OPTIONS["LOADING"]``.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from atlas import characters
from load import WrongPageError, fetch

if TYPE_CHECKING:
    from run import Site

DATABASE = "names.sqlite3"
VISITORS = 12
PAUSE = 0.04
"""Seconds between two requests of a visitor."""
LEAST = 2.5
"""Seconds of load on each site, with the database and without it."""


def make_database(path: Path) -> None:
    """Write the names into a database."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE names (code INTEGER PRIMARY KEY, name TEXT)")
        database.executemany("INSERT INTO names VALUES (?, ?)", characters.NAMES.items())
    database.close()


@dataclass
class Seen:
    """What the visitors of a site saw in some seconds."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: list[str] = field(default_factory=list)
    queries: int = 0

    @property
    def served(self) -> float:
        """The percentage of the requests that were answered with the page."""
        return 100 * len(self.latencies) / (len(self.latencies) + self.failed or 1)

    def percentile(self, share: float) -> float:
        """Return the milliseconds that *share* of the pages did not exceed."""
        ordered = sorted(self.latencies) or [float("nan")]
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def reload(site: Site, seconds: float, facts: dict[str, int]) -> Seen:
    """Let visitors reload the page."""
    seen = Seen(queries=-queries(site))
    end = time.monotonic() + seconds

    def visit() -> None:
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                page = json.loads(fetch(site.port, "/census/")[1])
            except (OSError, ValueError, WrongPageError):
                seen.failed += 1
            else:
                seen.latencies.append(time.perf_counter() - started)
                if page["counts"] != facts:
                    seen.wrong.append(f"/census/ of {site.name}: wrong counts")
            time.sleep(PAUSE)

    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(VISITORS)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join()
    seen.queries += queries(site)
    return seen


def queries(site: Site) -> int:
    """Return how many queries the site has begun."""
    return int(json.loads(fetch(site.port, "/census/queries/")[1])["queries"])


@dataclass
class Comparison:
    """What was seen of two sites, with the database and without it."""

    names: tuple[str, str]
    expiring: list[Seen]
    away: list[Seen]

    @property
    def latencies(self) -> list[float]:
        """The seconds of all pages."""
        return [latency for seen in (*self.expiring, *self.away) for latency in seen.latencies]

    @property
    def faults(self) -> list[str]:
        """What must not happen: a wrong page, or a failure that a stale page could have covered."""
        found = [fault for seen in (*self.expiring, *self.away) for fault in seen.wrong]
        found += [
            f"{seen.failed} pages of {name} failed while its database was there"
            for name, seen in zip(self.names, self.expiring, strict=True)
            if seen.failed
        ]
        if self.away[1].failed:
            found.append(f"{self.away[1].failed} pages of {self.names[1]} failed while its database was away")
        return found

    def __str__(self) -> str:
        rows: list[tuple[str, Callable[[Seen], float], list[Seen]]] = [
            ("queries", lambda seen: seen.queries, self.expiring),
            ("latency p50, ms", lambda seen: seen.percentile(0.50), self.expiring),
            ("latency p99, ms", lambda seen: seen.percentile(0.99), self.expiring),
            ("served with the database away, %", lambda seen: seen.served, self.away),
        ]
        one, other = self.names
        lines = [f"{'':34}{one:>14}{other:>20}"]
        for row, figure, (before, after) in rows:
            lines.append(f"{row:34}{figure(before):14,.1f}{figure(after):20,.1f}")
        (before, after), (failing, serving) = self.expiring, self.away
        lines.append(
            f"\n{other} asked the database {after.queries} times where {one} asked {before.queries} times, and served "
            f"{serving.served:.0f} % of the\npages without it where {one} served {failing.served:.0f} %."
        )
        return "\n".join(lines)


def compare(one: Site, other: Site, names: tuple[str, str], folder: Path, seconds: float) -> Comparison:
    """Let visitors reload the page of each site in turn, then the same with the database away."""
    database = folder / DATABASE
    make_database(database)
    facts = characters.census_by_hand()
    seconds = max(LEAST, seconds)
    found = Comparison(names, [], [])
    for name, site in zip(names, (one, other), strict=True):
        site.wait_until_ready()
        queries(site)  # begins to count
        started = time.perf_counter()
        fetch(site.port, "/census/")
        taken = 1000 * (time.perf_counter() - started)
        print(f"   {name}: cold, the page takes {taken:.0f} ms; now {seconds:.1f} s of reloading …", flush=True)
        found.expiring.append(reload(site, seconds, facts))
    for name, site in zip(names, (one, other), strict=True):
        print(f"   {name}: {LEAST:.1f} s of reloading with the database away …", flush=True)
        fetch(site.port, "/census/")
        hidden = database.rename(database.with_suffix(".away"))
        found.away.append(reload(site, LEAST, facts))
        hidden.rename(database)
    return found
