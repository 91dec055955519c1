"""A Celery task that renews what the site reads: both use the same keys.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 celery -A examples.celery_tasks worker
"""

import os

from celery import Celery

from fleetcache import cached

app = Celery("examples", broker=os.environ.get("BROKER_URL", "memory://"), backend="cache+memory://")


@cached(3600, key="ranking:{shop}")
def ranking(shop: int) -> list[str]:
    """Compute which products sell best; takes minutes, so the site only reads it."""
    return [f"product {shop}-{place}" for place in range(3)]


@app.task
def renew_ranking(shop: int) -> None:
    """Load the ranking anew and store it."""
    ranking.refresh(shop)
