"""A function whose result is kept: one call for the whole fleet, stale results, and a tag."""

import time
from concurrent.futures import ThreadPoolExecutor

from fleetcache import cached, caches

calls = []


@cached(300, key="report:{shop}", stale_while_revalidate=60, tags=["shop:{shop}"])
def report(shop: int) -> dict[str, int]:
    """Count what the shop has sold; takes half a second."""
    calls.append(shop)
    time.sleep(0.5)
    return {"shop": shop, "sold": 42}


if __name__ == "__main__":
    with ThreadPoolExecutor(20) as crowd:
        results = list(crowd.map(report, [7] * 20))
    print(f"20 callers, {len(calls)} call, all got {results[0]}")

    caches["default"].invalidate_tags("shop:7")  # the shop has sold something
    report(7)
    print(f"after the invalidation: {len(calls)} calls")
