"""A Django project with Celery in one file; the comments say where its parts stand in a project."""

import os
import sys

import django
from celery import Celery, shared_task
from django.conf import settings

URL = os.environ["FLEETCACHE_URL"]

settings.configure(  # shop/settings.py
    CACHES={"default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": URL, "KEY_PREFIX": "shop"}},
    CELERY_BROKER_URL=URL,
    CELERY_RESULT_BACKEND=URL,
    CELERY_TASK_DEFAULT_QUEUE="shop",
)
django.setup()  # not needed in a project

app = Celery("celery_site")  # shop/celery.py, which shop/__init__.py imports
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()  # the module tasks of each app in INSTALLED_APPS

from django.core.cache import cache  # noqa: E402 - after the settings of this file


@shared_task
def renew_ranking(shop: int) -> None:  # shop/tasks.py
    """Make the ranking, and store it where the site reads it."""
    cache.set(f"ranking:{shop}", [f"product {shop}-{place}" for place in range(2)], 300)


if __name__ == "__main__":  # a view
    renew_ranking.delay(int(sys.argv[1])).get(timeout=30)
    print(cache.get(f"ranking:{sys.argv[1]}"))
