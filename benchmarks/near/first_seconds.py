"""What does the advice on MAX_BYTES take in the first seconds of CPU time of a process?  It is not part of `make bench`, as it lasts.

`python -m benchmarks.near.first_seconds 4MB 1 10 30` reads a store of 4 MB, does 1 ms of other work after each five reads, and prints what the
advice has charged itself after 10 and 30 seconds of CPU time.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from time import process_time, thread_time

from benchmarks.contenders import TIMEOUT, Backend
from benchmarks.near.caches import DJANGO_OURS, close_at_end, wait_until_live
from fleetcache.testing.servers import EmbeddedServer

NAMES = 60_000
PAGE = {"rows": [{"id": number, "name": f"n{number}", "price": number * 1.5} for number in range(30)]}


def run(max_bytes: str, work: float, moments: Sequence[float]) -> None:
    """Read by Zipf's law, with *work* seconds of other work after each five reads; print a line at each of the *moments*."""
    with EmbeddedServer(port=True) as server, ExitStack() as stack:
        options = {"NEAR": {"MAX_BYTES": max_bytes}, "STATS": {"AUDIT": 0}}
        cache = Backend(DJANGO_OURS.path, options=options)(server.tcp_url())
        close_at_end(cache, stack)
        chance = random.Random(1)
        for start in range(0, NAMES, 500):
            sizes = {rank: int(min(chance.lognormvariate(6.9, 1), 20_000)) for rank in range(start, start + 500)}
            cache.set_many({f"page:{rank}": bytes(size) for rank, size in sizes.items()}, timeout=100 * TIMEOUT)
        wait_until_live(cache)
        weights = list(accumulate(1 / rank for rank in range(1, NAMES + 1)))
        advisor = cache.near.advisor
        advisor.started()
        began = process_time()
        for moment in moments:
            while process_time() < began + moment:
                for number, rank in enumerate(chance.choices(range(NAMES), cum_weights=weights, k=50)):
                    cache.get(f"page:{rank}")
                    now = thread_time()
                    while number % 5 == 0 and thread_time() < now + work:
                        json.dumps(PAGE)
            taken, found = advisor.credit.taken, cache.near.advice()
            print(
                f"{moment:g} s: {taken:.2f} s, {taken / moment:.1%}; {found['reads']:,} reads, hit ratio {found['now']:.1%}"
            )


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]) / 1000, [float(each) for each in sys.argv[3:]])
