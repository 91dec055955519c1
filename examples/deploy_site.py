"""A Django site with the settings and health checks that a rolling deployment needs, in one file."""

import os

import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CACHES={
        "default": {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": os.environ["FLEETCACHE_URL"],
            "KEY_PREFIX": "shop",
            # Raise it in a release that changes the shape of kept values: old processes keep theirs apart.
            "VERSION": 2,
            "OPTIONS": {
                "IGNORE_EXCEPTIONS": True,  # without the cache the site is slower, not down
                "SOCKET_TIMEOUT": 1,
                "LOADING": {"STALE_IF_ERROR": 3600, "LEASE": 10},
            },
        }
    },
)
django.setup()

from django.core.cache import cache, caches  # noqa: E402 - after the settings
from django.core.wsgi import get_wsgi_application  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402


def front(request):
    """Show the front page, which one process makes for all."""
    return HttpResponse(cache.get_or_set("front", lambda: f"made by {os.getpid()}", 60))


def alive(request):
    """For liveness and readiness: this process answers.  It asks no cache: a restart mends no server."""
    return HttpResponse("alive")


def cached(request):
    """For monitors: whether the cache answers this process."""
    try:
        caches["default"].strict.set("health", "ok", 10)
    except RedisError as error:
        return JsonResponse({"cache": type(error).__name__}, status=503)
    return JsonResponse({"cache": "ok"})


urlpatterns = [path("", front), path("health/alive", alive), path("health/cache", cached)]
application = get_wsgi_application()
