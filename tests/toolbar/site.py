"""A Django site with debug-toolbar: its settings, its views, and the toolbars that its requests made."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.django_settings import configure

configure()

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.http import HttpResponse
from django.test import override_settings

from fleetcache.django.toolbar import Recording

PANEL = "fleetcache.django.toolbar.FleetcachePanel"
PANELS = ["debug_toolbar.panels.cache.CachePanel", PANEL]
HIDDEN = "/hidden"

USER = "users:1"
"""Named, because the panel shows the lines that make calls."""

gates: dict[str, Any] = {}
"""What views wait for, set by tests."""


def shows(request: Any) -> bool:
    """Show the toolbar on all pages but one."""
    return not request.path.startswith(HIDDEN)


def page() -> HttpResponse:
    return HttpResponse("<html><body>page</body></html>")


def plain(request: Any) -> HttpResponse:
    cache = caches["default"]
    cache.set(USER, [1, 2])
    cache.get(USER)
    cache.get("users:2")
    cache.get_or_set("prices:1", lambda: cache.get("prices:list") or 5)
    return page()


async def awaiting(request: Any) -> HttpResponse:
    cache = caches["default"]
    await cache.aset(USER, [1, 2])
    await cache.aget(USER)
    await cache.aget("users:2")

    async def load() -> int:
        return await cache.aget("prices:list") or 5

    await cache.aget_or_set("prices:1", load)
    return page()


async def gathering(request: Any) -> HttpResponse:
    cache = caches["default"]
    await asyncio.gather(*(cache.aget(f"k:{number}") for number in range(5)))
    await sync_to_async(cache.get)("k:thread")
    return page()


async def shop(request: Any) -> HttpResponse:
    """A page as shops have: many reads, of every kind."""
    cache = caches["default"]
    products = [f"products:{number}" for number in range(12)]
    await cache.aget_many(products)
    await cache.aset_many({key: {"name": "shoe", "price": 49} for key in products[:10]}, 60)
    for key in products[:3]:
        await cache.aget(key)
        await cache.aget(key)
        await cache.aget(key)
    await cache.aget_or_set("prices:eur", lambda: 1.08, 60)
    await sync_to_async(cache.get)("sessions:8d1f")
    await cache.ahset("baskets:17", "shoe", 2)
    return page()


def failing(request: Any) -> HttpResponse:
    cache = caches["default"]
    try:
        cache.incr("counters:none")
    except ValueError:
        return page()
    raise AssertionError


def iterating(request: Any) -> HttpResponse:
    cache = caches["default"]
    cache.set("i:1", 1)
    for key in cache.iter_keys("i:*"):
        cache.get(key)
    return page()


def piped(request: Any) -> HttpResponse:
    pipeline = caches["default"].pipeline()
    pipeline.set("p:1", 1)
    pipeline.get("p:1")
    pipeline.execute()
    return page()


def many(request: Any, count: int) -> HttpResponse:
    for number in range(count):
        caches["default"].get(f"m:{number}")
    return page()


def meeting(request: Any, name: str) -> HttpResponse:
    """Call the cache under its own name, when all others are in their views too."""
    gates["threads"].wait(10)
    caches["default"].get(f"{name}:before")
    gates["threads"].wait(10)
    caches["default"].get(f"{name}:after")
    gates["threads"].wait(10)
    return page()


async def ameeting(request: Any, name: str) -> HttpResponse:
    await gates["tasks"].wait()
    await caches["default"].aget(f"{name}:before")
    await gates["tasks"].wait()
    await caches["default"].aget(f"{name}:after")
    await gates["tasks"].wait()
    return page()


async def outliving(request: Any) -> HttpResponse:
    """Start a task that calls the cache after the response."""
    cache = caches["default"]

    async def later() -> None:
        await gates["later"].wait()
        await cache.aget("late")

    gates["task"] = asyncio.create_task(later())
    return page()


@contextmanager
def site(
    location: str, *, panels: list[str] | None = None, config: Any = None, options: Any = None
) -> Iterator[list[Any]]:
    """Make the process a site with the toolbar; return the toolbars of its requests."""
    made: list[Any] = []

    def keep(sender: Any, toolbar: Any, **kwargs: Any) -> None:
        made.append(toolbar)

    configured = {"SHOW_TOOLBAR_CALLBACK": "tests.toolbar.site.shows", "RENDER_PANELS": True, "IS_RUNNING_TESTS": False}
    entry = {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": location,
        "KEY_PREFIX": f"tb{id(made)}",
        "OPTIONS": options or {},
    }
    others = override_settings(
        DEBUG=True,
        ROOT_URLCONF="tests.toolbar.urls",
        ALLOWED_HOSTS=["*"],
        STATIC_URL="/static/",
        MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        CACHES={"default": entry},
    )
    of_toolbar = override_settings(
        DEBUG_TOOLBAR_PANELS=PANELS if panels is None else panels,
        DEBUG_TOOLBAR_CONFIG={**configured, **(config or {})},
    )
    # The apps are set up as soon as they are named, and read STATIC_URL; debug-toolbar's settings import its model,
    # which can be made only while its app is installed.
    with (
        others,
        override_settings(
            INSTALLED_APPS=[
                "django.contrib.contenttypes",
                "django.contrib.staticfiles",
                "debug_toolbar",
                "fleetcache.django",
            ]
        ),
        of_toolbar,
    ):
        from debug_toolbar.toolbar import DebugToolbar

        for kind in DebugToolbar.get_panel_classes():
            kind.ready()
        DebugToolbar._created.connect(keep)
        try:
            yield made
        finally:
            DebugToolbar._created.disconnect(keep)
            caches["default"].clear()
            for end in Recording._expecting:
                end()
            Recording._expecting.clear()
