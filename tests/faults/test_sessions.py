"""A Django site whose cache is away keeps answering."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import time
from importlib import import_module

import pytest
from tests.django_settings import configure

from fleetcache.servers.remote import RemoteServer

from .deadlines import HASTY, LIMIT, SLACK

configure()

from django.core.cache import cache, caches
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

pytestmark = [pytest.mark.timeout(30), pytest.mark.alone]


def visits(request):
    """Count a visitor's visits in the session, and everybody's in the cache."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    everybody = cache.get_or_set("everybody", 0) + 1
    cache.set("everybody", everybody)
    return HttpResponse(f"{request.session['visits']} {everybody}")


async def avisits(request):
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    everybody = await cache.aget_or_set("everybody", 0) + 1
    await cache.aset("everybody", everybody)
    return HttpResponse(f"{visits} {everybody}")


urlpatterns = [path("visits", visits), path("avisits", avisits)]


@pytest.fixture(scope="module")
def database():
    """The table of sessions, in memory."""
    call_command("migrate", "sessions", verbosity=0)


@pytest.fixture(params=["cache", "cached_db"])
def site(request, mortal, database):
    """A site with sessions in the cache, or in the cache and the database."""
    with override_settings(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}",
        CACHES={
            "default": {
                "BACKEND": "fleetcache.django.RedisCache",
                "LOCATION": mortal.tcp_url(),
                "OPTIONS": {**HASTY, "IGNORE_EXCEPTIONS": True, "BREAKER_COOLDOWN": 0.2},
            }
        },
    ):
        yield request.param
    caches.close_all()


@pytest.fixture
def asked(monkeypatch):
    """Count what is asked of servers."""
    asked = []
    for name in ("exchange", "aexchange"):
        method = getattr(RemoteServer, name)

        def counted(self, commands, method=method):
            asked.extend(commands)
            return method(self, commands)

        monkeypatch.setattr(RemoteServer, name, counted)
    return asked


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_site_answers_while_the_server_is_away(site, mortal, asked, how):
    """Each request is answered, in time, with few commands; afterwards sessions last again."""
    client = Client()
    assert client.get("/visits").content == b"1 1"
    assert client.get("/visits").content == b"2 2"
    mortal.kill() if how == "killed" else mortal.pause()
    asked.clear()

    started = time.monotonic()
    for _ in range(10):
        assert client.get("/visits").status_code == 200
        assert Client().get("/visits").content == b"1 1"
    took = time.monotonic() - started

    assert len(asked) < 300
    assert took < 8 * LIMIT + SLACK
    mortal.restart() if how == "killed" else mortal.resume()
    time.sleep(0.2)
    fresh = Client()
    assert [fresh.get("/visits").content.split()[0] for _ in range(3)] == [b"1", b"2", b"3"]


async def test_an_async_site_answers_while_the_server_is_away(site, mortal, asked):
    """Async views and async session methods do as well."""
    if site != "cache":
        return  # the database in memory belongs to another thread
    client = AsyncClient()
    assert (await client.get("/avisits")).content == b"1 1"
    assert (await client.get("/avisits")).content == b"2 2"
    mortal.kill()
    asked.clear()

    responses = await asyncio.gather(*(AsyncClient().get("/avisits") for _ in range(20)))

    assert {response.content for response in responses} == {b"1 1"}
    assert len(asked) < 400


def test_creating_a_session_asks_once(site, mortal, asked):
    """Django tries 10,000 keys when add() says that a session's key is taken; here it tries one."""
    store = import_module(f"django.contrib.sessions.backends.{site}").SessionStore
    mortal.kill()

    session = store()
    session.create()

    assert session.session_key
    assert len(asked) < 10


def test_other_keys_are_not_added(site, mortal):
    """Only a session counts as added while the server is away."""
    mortal.kill()

    assert cache.add("key", 1) is False
    assert cache.add("django.contrib.sessions.cacheabc", {}) is True
