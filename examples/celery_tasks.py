"""A Celery task and a site share their keys: the site reads the old ranking while a task makes a new one."""

import os
import sys
import time

from celery import Celery

from fleetcache import cache

URL = os.environ["FLEETCACHE_URL"]
app = Celery("celery_tasks", broker=URL, backend=URL)


def compute(shop: int) -> list[str]:
    """Compute which products sell best; takes minutes, so no visitor should wait for it."""
    time.sleep(2)
    return [f"product {shop}-{place}" for place in range(2)]


def ranking(shop: int, *, refresh: bool = False) -> list[str]:
    """Return the ranking, at most five minutes old; for an hour an older one, while a task makes a new one."""
    return cache.get_or_set(
        f"ranking:{shop}",
        lambda: compute(shop),
        300,
        stale_while_revalidate=3600,
        # A function cannot travel to a worker, a task can.
        renew=lambda renewal: renew_ranking.delay(shop),
        refresh=refresh,
    )


@app.task
def renew_ranking(shop: int) -> None:
    """Make the ranking anew and store it where the site finds it."""
    ranking(shop, refresh=True)


if __name__ == "__main__":  # what the site does
    match sys.argv[1]:
        case "first":
            renew_ranking.delay(7).get(timeout=30)
        case "read":
            begun = time.monotonic()
            print(ranking(7), "at once" if time.monotonic() - begun < 1 else "after a wait")
        case "age":
            cache.invalidate("ranking:7", soft=True)  # as after five minutes
            print(cache.lookup("ranking:7").state)
        case "wait":
            while cache.lookup("ranking:7").state != "fresh":
                time.sleep(0.1)
            print("fresh")
