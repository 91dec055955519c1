"""Which copies does the near cache keep?  Its hit ratio, next to LRU's and plain FIFO's in as many bytes.

The traces are synthetic and the same in every run.  All but the loop ask for 20,000 names, of copies between 300 bytes
and some 20 kB (log-normal, the median 1 kB), in stores of a hundredth and of a tenth of what all of those take.

``zipf 0.8``, ``zipf 1.0``  The n-th most popular name is asked for in proportion to n ** -0.8, or n ** -1.
``zipf and scans``          zipf 1.0, and after each 5,000 requests 2,500 names in a row that nobody asks for again.
``loop``                    Names in turn, over and over, half as many again as the store holds.
``shifting``                zipf 1.0, but each 10,000 requests another tenth of the names trades its popularity.
``sessions``                Visitors come and go: each asks for a session of its own 2 to 40 times in a row, mixed with
                            those of 50 others, and each time for one page of zipf 0.8.

LRU and FIFO are charged for the same copies and a dict of them, but for nothing else they need.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, count, islice
from math import inf
from sys import getsizeof
from time import process_time
from typing import Protocol

from benchmarks.contest import Pace, Table, show, times
from fleetcache.near.door import Doorkeeper
from fleetcache.near.store import PACKED, Epoch, Store
from fleetcache.testing.servers import EmbeddedServer

NAMES = 20_000
SHARES = (0.01, 0.1)
REQUESTS = 10_000  # for each round of the pace
PAYLOAD = bytes(1_000_000)

Trace = Callable[[random.Random, int], Iterator[str]]
"""Yields names without end, for a source of chance and the number of copies that the store holds."""


def weighted(exponent: float) -> list[float]:
    """Return the cumulated weights of NAMES names under Zipf's law."""
    return list(accumulate(rank**-exponent for rank in range(1, NAMES + 1)))


def zipf(chance: random.Random, exponent: float) -> Iterator[int]:
    cumulated, ranks = weighted(exponent), range(NAMES)
    while True:
        yield from chance.choices(ranks, cum_weights=cumulated, k=1000)


def popular(exponent: float) -> Trace:
    return lambda chance, _: (f"page:{rank}" for rank in zipf(chance, exponent))


def scans(chance: random.Random, _: int) -> Iterator[str]:
    pages, rows = zipf(chance, 1.0), count()
    while True:
        yield from (f"page:{rank}" for rank in islice(pages, 5_000))
        yield from (f"row:{row}" for row in islice(rows, 2_500))


def loop(_: random.Random, capacity: int) -> Iterator[str]:
    while True:
        yield from (f"row:{row}" for row in range(capacity * 3 // 2))


def shifting(chance: random.Random, _: int) -> Iterator[str]:
    pages, names = zipf(chance, 1.0), list(range(NAMES))
    while True:
        yield from (f"page:{names[rank]}" for rank in islice(pages, 10_000))
        places = chance.sample(range(NAMES), NAMES // 10)
        for one, other in zip(places, reversed(places), strict=True):
            names[one], names[other] = names[other], names[one]


def sessions(chance: random.Random, _: int) -> Iterator[str]:
    pages, visitors = zipf(chance, 0.8), count()
    present: list[list[int]] = []  # a visitor's number, and the requests to come
    while True:
        while len(present) < 50:
            present.append([next(visitors), chance.randint(2, 40)])
        at = chance.randrange(len(present))
        yield f"session:{present[at][0]}"
        yield f"page:{next(pages)}"
        present[at][1] -= 1
        if not present[at][1]:
            del present[at]


TRACES: Mapping[str, Trace] = {
    "zipf 0.8": popular(0.8),
    "zipf 1.0": popular(1.0),
    "zipf and scans": scans,
    "loop": loop,
    "shifting": shifting,
    "sessions": sessions,
}


class Policy(Protocol):
    """A bounded store, as a trace sees it."""

    def ask(self, name: str, size: int) -> bool:
        """Return whether a copy is there; if not, let there be one, or know the name."""


class Ours:
    def __init__(self, max_bytes: int) -> None:
        self.store = Store(max_bytes)
        self.epoch = Epoch(inf)

    def ask(self, name: str, size: int) -> bool:
        entry = self.store.copies.get(name)
        if entry is None:
            self.store.put(name, PACKED, PAYLOAD[:size], inf, self.epoch)
            return False
        entry.hits += 1
        return True


class Admitting:
    """The same, with the doorkeeper that lets in a name at its second read."""

    def __init__(self, max_bytes: int) -> None:
        self.door = Doorkeeper(max_bytes)
        self.store = Store(max_bytes, self.door)
        self.epoch = Epoch(inf)

    def ask(self, name: str, size: int) -> bool:
        entry = self.store.copies.get(name)
        if entry is None:
            if self.door.knows(name):
                self.store.put(name, PACKED, PAYLOAD[:size], inf, self.epoch)
            return False
        entry.hits += 1
        return True


class Fifo:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.weights: OrderedDict[str, int] = OrderedDict()
        self.copies: dict[str, None] = {}

    def ask(self, name: str, size: int) -> bool:
        if name in self.copies:
            return True
        self.copies[name] = None
        self.weights[name] = weight = weigh(name, size)
        self.held += weight
        while self.held + getsizeof(self.copies) > self.max_bytes:
            oldest, weight = self.weights.popitem(last=False)
            del self.copies[oldest]
            self.held -= weight
        return False


class Lru(Fifo):
    def ask(self, name: str, size: int) -> bool:
        if not super().ask(name, size):
            return False
        self.weights.move_to_end(name)
        return True


POLICIES: Mapping[str, Callable[[int], Policy]] = {
    "with doorkeeper": Admitting,
    "S3-FIFO": Ours,
    "LRU": Lru,
    "FIFO": Fifo,
}

_probe = Store(1 << 30)
_empty = _probe._held
_probe.put("name", PACKED, b"", inf, Epoch())
_bare = _probe._held - _empty - len("name")


def weigh(name: str, size: int) -> int:
    """Return the weight of a copy in a Store."""
    return _bare + len(name) + size


def size_of(name: str) -> int:
    """Return the size of a name's payload, always the same."""
    return min(int(random.Random(name).lognormvariate(6.6, 1.0)), 20_000)


def measure(server: EmbeddedServer, pace: Pace) -> list[Table]:
    """Run every trace through every policy; the server is not asked."""
    sizes: dict[str, int] = {}
    whole = sum(weigh(name, size_of(name)) for name in (f"page:{rank}" for rank in range(NAMES)))
    rows = []
    for title, trace in TRACES.items():
        for share in SHARES:
            max_bytes = int(whole * share)
            names = list(islice(trace(random.Random(title), int(NAMES * share)), REQUESTS * pace.rounds))
            sizes |= {name: size_of(name) for name in {*names} - sizes.keys()}
            cells = []
            costs = []
            for policy in POLICIES.values():
                ask = policy(max_bytes).ask
                started = process_time()
                hits = sum(ask(name, sizes[name]) for name in names)
                costs.append((process_time() - started) / len(names))
                cells.append(f"{100 * hits / len(names):.1f}")
            rows.append((title, f"{share:.0%}", *cells, *(times(cost * 1e6) for cost in costs)))
    columns = ("", "store", *(f"{name} %" for name in POLICIES), *(f"{name} µs" for name in POLICIES))
    notes = [
        f"{REQUESTS * pace.rounds:,} requests each; hits in a hundred requests, and microseconds of each request with its misses",
    ]
    return [Table("Eviction: hit ratio", columns, rows, notes)]


if __name__ == "__main__":
    show(measure, __doc__)
