"""A request is fenced before its view runs, in both of Django's modes."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from tests.django_settings import configure
from tests.faces import FACES

configure()

from asgiref.sync import iscoroutinefunction
from django.core.cache import caches
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from fleetcache.django import FenceMiddleware, RedisCache
from fleetcache.testing import FaultProxy, tracked

happened: list[str] = []
"""What was called, in order."""

together: list[asyncio.Barrier] = []
"""Where fences meet, in tests that want them to run at once."""


class Counted(RedisCache):
    """A cache whose fences are noted."""

    def __init__(self, location: Any, params: Any) -> None:
        super().__init__(location, params)
        self.called = location.rpartition("/")[2]

    def fence(self, *args: Any, **kwargs: Any) -> bool:
        happened.append(f"fence {self.called}")
        return True

    async def afence(self, *args: Any, **kwargs: Any) -> bool:
        happened.append(f"afence {self.called}")
        for barrier in together:
            await barrier.wait()
        return True


def entry(name: str, near: Any = True, **settings: Any) -> dict[str, Any]:
    """Return a counted cache's entry of ``CACHES``."""
    return {"BACKEND": f"{__name__}.Counted", "LOCATION": f"memory://{name}", "OPTIONS": {"NEAR": near}, **settings}


def view(request):
    happened.append("view")
    return HttpResponse("seen")


async def aview(request):
    happened.append("view")
    return HttpResponse("seen")


def page(request):
    return HttpResponse(str(caches["default"].get("page")))


async def apage(request):
    return HttpResponse(str(await caches["default"].aget("page")))


urlpatterns = [path("view", view), path("aview", aview), path("page", page), path("apage", apage)]


@contextmanager
def site(**entries: Any) -> Iterator[None]:
    """Run a site with these caches."""
    happened.clear()
    with override_settings(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["fleetcache.django.FenceMiddleware"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, **entries},
    ):
        yield
        caches.close_all()


def get(face: str, url: str) -> bytes:
    """Return what the site answers, under WSGI or ASGI."""
    if face == "blocking":
        return Client().get(f"/{url}").content
    return asyncio.run(AsyncClient().get(f"/a{url}")).content


@pytest.mark.parametrize(
    "entries, fenced",
    [
        ({}, []),
        ({"a": entry("a")}, ["a"]),
        ({"a": entry("a"), "b": entry("b", "64MB"), "c": entry("c", {"T_LIVE": 2})}, ["a", "b", "c"]),
        ({"a": entry("a", False), "b": entry("b"), "c": entry("c", None)}, ["b"]),
        ({"a": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {}}, "b": entry("b")}, ["b"]),
        ({"a": {"BACKEND": f"{__name__}.Counted", "LOCATION": "memory://a"}}, []),
    ],
    ids=["none", "one", "three", "some off", "another backend", "no options"],
)
def test_near_caches_are_fenced_before_the_view(face, entries, fenced):
    """Each cache with NEAR is, once, and no other; blocking or awaiting as the request is."""
    call = "fence" if face == "blocking" else "afence"
    with site(**entries):
        assert get(face, "view") == b"seen"

    assert happened == [*(f"{call} {name}" for name in fenced), "view"]


def test_awaiting_fences_go_out_together():
    """A request waits for the slowest, not for the sum."""
    with site(a=entry("a"), b=entry("b")):

        async def ask() -> bytes:
            together.append(asyncio.Barrier(2))
            async with asyncio.timeout(10):
                return (await AsyncClient().get("/aview")).content

        try:
            assert asyncio.run(ask()) == b"seen"
        finally:
            together.clear()

    assert sorted(happened[:2]) == ["afence a", "afence b"]


def test_other_settings_are_heard_of():
    """Tests that override CACHES need not make the middleware anew."""
    middleware = FenceMiddleware(view)
    request = RequestFactory().get("/")

    with site(a=entry("a")):
        middleware(request)
        with site(b=entry("b")):
            middleware(request)
            assert happened == ["fence b", "view"]
        happened.clear()
        middleware(request)
        assert happened == ["fence a", "view"]


def test_a_misconfigured_cache_is_its_users_concern():
    """A site whose cache cannot be made answers requests that do not use it, as it does without the middleware."""
    with site(a=entry("a", {"T_LIVE": 0}), b=entry("b")):
        assert get("blocking", "view") == b"seen"

    assert happened == ["fence b", "view"]


@pytest.mark.parametrize("face", FACES)
def test_what_django_asks_of_a_middleware(face):
    """It says which mode it is in, so that Django wraps neither it nor the view in threads."""
    middleware = FenceMiddleware(view if face == "blocking" else aview)

    assert FenceMiddleware.sync_capable
    assert FenceMiddleware.async_capable
    assert iscoroutinefunction(middleware) is (face == "awaiting")


def test_blocking_views_under_asgi():
    """The kind of the view does not matter: the fence is awaited."""
    with site(a=entry("a")):

        async def ask() -> tuple[bytes, bytes]:
            client = AsyncClient()
            return (await client.get("/aview")).content, (await client.get("/view")).content

        assert asyncio.run(ask()) == (b"seen", b"seen")

    assert happened == ["afence a", "view"] * 2


@pytest.fixture
def behind_time(valkey):
    """The URL of a server whose announcements are 30 ms under way."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        proxy.delay(0.03, only=tracked)
        yield proxy.url(11)


def pages(face: str, writer: redis.Redis, name: str, count: int) -> list[bool]:
    """Return whether each of *count* requests showed what another program had written just before."""

    async def ask() -> list[bool]:
        shown = []
        for number in range(count):
            await asyncio.to_thread(writer.set, name, number)
            shown.append((await AsyncClient().get("/apage")).content == str(number).encode())
        return shown

    if face == "awaiting":
        return asyncio.run(ask())
    return [
        writer.set(name, number) and Client().get("/page").content == str(number).encode() for number in range(count)
    ]


def test_a_request_sees_what_was_written_before_it(face, valkey, behind_time):
    """However late announcements come; without the middleware a request may miss the newest write."""
    with (
        redis.Redis.from_url(valkey.tcp_url(11)) as writer,
        site(
            default={
                "BACKEND": "fleetcache.django.RedisCache",
                "LOCATION": behind_time,
                "KEY_PREFIX": f"fence-{face}",
                "OPTIONS": {"NEAR": True},
            }
        ),
    ):
        name = caches["default"].make_key("page")
        until_live(caches["default"])

        assert all(pages(face, writer, name, 20))
        with override_settings(MIDDLEWARE=[]):
            assert not all(pages(face, writer, name, 20))
        writer.delete(name)


def test_a_request_is_answered_while_the_server_is_silent(face, valkey):
    """A fence waits for SOCKET_TIMEOUT at most, and only once."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        entry = {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": proxy.url(11),
            "OPTIONS": {"NEAR": True, "SOCKET_TIMEOUT": 0.3, "IGNORE_EXCEPTIONS": True},
        }
        with site(default=entry):
            until_live(caches["default"])
            proxy.hold()

            began = time.monotonic()
            assert get(face, "view") == b"seen"
            first = time.monotonic() - began
            for _ in range(5):
                assert get(face, "view") == b"seen"
            rest = time.monotonic() - began - first

            assert first < 1
            assert rest < 1
            proxy.heal()


def until_live(cache: RedisCache) -> None:
    """Read until the near cache serves copies."""
    until = time.monotonic() + 10
    while cache.info()["near"]["state"] != "live":
        cache.get("page")
        assert time.monotonic() < until, cache.info()
        time.sleep(0.01)
