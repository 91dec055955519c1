"""``python -m benchmarks.outage``: what the visitors of a Django site get while its cache server is silent.

300 requests a second arrive at a site with eight threads.  A page reads three entries, and asks a database for each entry
that it does not get, which takes 2 ms.  After two seconds the server is stopped (SIGSTOP): its connections stay open, and
nothing answers.  It goes on after ``--seconds`` seconds (20).  One backend after another has the server to itself.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import django
from django.conf import settings
from django.core.cache import caches
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path

from benchmarks.contest import Table
from fleetcache.testing import valkey_server

RATE, THREADS = 300, 8
"""Requests that arrive in a second, and requests that the site can work on at the same time."""
BEFORE, AFTER = 2.0, 8.0
"""Seconds of load before and after the silence."""
KEYS = ("menu", "article", "sidebar")
IGNORE = {"IGNORE_EXCEPTIONS": True}
BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Django": ("django.core.cache.backends.redis.RedisCache", {}),
    "django-redis": ("django_redis.cache.RedisCache", IGNORE),
    "django-redis, SOCKET_TIMEOUT 1": ("django_redis.cache.RedisCache", {**IGNORE, "SOCKET_TIMEOUT": 1}),
    "fleetcache": ("fleetcache.django.RedisCache", IGNORE),
    "fleetcache, SOCKET_TIMEOUT 1": ("fleetcache.django.RedisCache", {**IGNORE, "SOCKET_TIMEOUT": 1}),
}


@dataclass
class Visits:
    """What became of the requests that arrived in the silence."""

    waits: list[float] = field(default_factory=list)
    """Seconds from arrival to page, of the requests that were answered before the silence ended."""
    failed: int = 0
    """Errors (500) that were sent before the silence ended."""
    back: float | None = None
    """Seconds from the end of the silence to the first page whose entries all came from the cache."""


def page(request: Any, backend: str) -> HttpResponse:
    """Answer with the number of entries that the cache had."""
    found = 0
    for key in KEYS:
        if caches[backend].get(key) is None:
            time.sleep(0.002)  # the database
        else:
            found += 1
    return HttpResponse(str(found))


urlpatterns = [path("<str:backend>", page)]


def answer(site: Any, backend: str) -> tuple[int, bytes]:
    """Return the status and the body of a page of *site*."""
    statuses: list[int] = []
    environ = RequestFactory().get(f"/{backend}").environ
    response = site(environ, lambda status, _: statuses.append(int(status.split()[0])))
    body = b"".join(response)
    response.close()
    return statuses[0], body


def visit(backend: str, server: Any, silence: float) -> Visits:
    """Let requests arrive before, during and after a silence of *silence* seconds."""
    caches[backend].set_many(dict.fromkeys(KEYS, "<p>"), 3600)
    site, visits, numbers = get_wsgi_application(), Visits(), itertools.count()
    start = time.monotonic() + 0.1
    silent, again = start + BEFORE, start + BEFORE + silence

    def work() -> None:
        for number in numbers:
            arrival = start + number / RATE
            time.sleep(max(0, arrival - time.monotonic()))
            if time.monotonic() > again + AFTER:
                return
            status, body = answer(site, backend)
            now = time.monotonic()
            if silent <= arrival and now <= again:
                if status == 200:
                    visits.waits.append(now - arrival)
                else:
                    visits.failed += 1
            elif now > again and body == b"3" and visits.back is None:
                visits.back = now - again

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(silent - time.monotonic())
    server.pause()
    time.sleep(again - time.monotonic())
    server.resume()
    for thread in threads:
        thread.join()
    return visits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="how long the server is silent")
    silence = parser.parse_args().seconds
    logging.disable()
    arrived = round(RATE * silence)
    rows = []
    with valkey_server() as server:
        settings.configure(
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            CACHES={
                name: {"BACKEND": cls, "LOCATION": server.tcp_url(at), "OPTIONS": options}
                for at, (name, (cls, options)) in enumerate(BACKENDS.items())
            },
        )
        django.setup()
        for backend in BACKENDS:
            print(f"{backend} …", file=sys.stderr)
            visits = visit(backend, server, silence)
            rows.append(
                [
                    backend,
                    f"{len(visits.waits):,}",
                    f"{visits.failed:,}",
                    f"{median(visits.waits) * 1e3:,.0f}" if visits.waits else "-",
                    f"{max(visits.waits):.1f}" if visits.waits else "-",
                    f"{visits.back:.1f}" if visits.back is not None else "-",
                ]
            )
    columns = ["", "pages", "errors", "median, ms", "longest, s", "cache back after, s"]
    print(Table(f"Outage: {arrived:,} requests in {silence:g} s of silence", columns, rows))


if __name__ == "__main__":
    main()
