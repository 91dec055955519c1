"""Values that have to be made first: what the a-methods await, `aexecute` awaits too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.django_settings import configure
from tests.faces import AWAITING, BLOCKING, FACES, Face, settled

configure()

from django.core.exceptions import SynchronousOnlyOperation  # noqa: E402
from django.utils.asyncio import async_unsafe  # noqa: E402
from django.utils.functional import SimpleLazyObject  # noqa: E402

from fleetcache.django import RedisCache  # noqa: E402

STORING = {
    "set": lambda to, value: to.set("a", value),
    "add": lambda to, value: to.add("a", value),
    "set_many": lambda to, value: to.set_many({"a": value}),
    "get_or_set": lambda to, value: to.get_or_set("a", value),
    "hset": lambda to, value: to.hset("a", "field", value),
    "rpush": lambda to, value: to.rpush("a", value),
    "sadd": lambda to, value: to.sadd("a", value),
}


def lazy() -> Any:
    """Return what Django makes on first use, of the database, as an unread queryset is."""
    return SimpleLazyObject(async_unsafe(lambda: "made"))


@pytest.fixture(params=["valkey", "memory"])
def site(request: pytest.FixtureRequest) -> RedisCache:
    """A cache of Django's, empty."""
    url = "memory://lazy" if request.param == "memory" else request.getfixturevalue("valkey").tcp_url(13)
    cache = RedisCache(url, {"KEY_PREFIX": f"lazy-{request.node.name}"})
    cache.clear()
    return cache


@pytest.mark.parametrize("operation", STORING)
async def test_a_lazy_value_in_a_pipeline(site, operation):
    """It is made in a thread, as by the a-methods, and the operations keep their order."""
    pipe = site.pipeline()
    pipe.delete("a")
    STORING[operation](pipe, lazy())
    pipe.has_key("a")

    results = await pipe.aexecute()

    assert results[0] == 0
    assert results[2] is True
    if operation in {"set", "add", "set_many", "get_or_set"}:
        assert await site.aget("a") == "made"


@pytest.mark.parametrize("operation", STORING)
async def test_a_lazy_value_where_it_cannot_be_made(site, operation):
    """A blocking call in a coroutine is refused by Django, in a pipeline as elsewhere."""
    pipe = site.pipeline()
    STORING[operation](pipe, lazy())

    with pytest.raises(SynchronousOnlyOperation):
        pipe.execute()
    with pytest.raises(SynchronousOnlyOperation):
        STORING[operation](site, lazy())


async def test_a_lazy_value_in_a_transaction(site):
    """It is made before anything is sent."""
    pipe = site.pipeline(transaction=True)
    pipe.set("a", lazy()).set("b", 2)

    assert await pipe.aexecute() == [True, True]
    assert await site.aget_many(["a", "b"]) == {"a": "made", "b": 2}


@pytest.mark.parametrize("face", FACES)
async def test_a_loader_in_a_pipeline(site, face):
    """get_or_set() of a pipeline takes what get_or_set() takes: awaiting, a coroutine function too."""
    calls = []

    async def load() -> str:
        calls.append(await asyncio.sleep(0, "called"))
        return "made"

    for loader in (load, lambda: "made"):
        cache = Face(site, face)
        await cache.delete("a")
        pipe = cache.pipeline()
        pipe.set("b", 1).get_or_set("a", loader).incr("b")
        found = await settled(pipe.execute())

        if face == BLOCKING and loader is load:
            assert type(found) is TypeError
            assert "load is a coroutine function" in str(found)
        else:
            assert found == [True, "made", 2]
    assert calls == ["called"] * (face == AWAITING)


async def test_a_loader_that_fails_in_a_pipeline(site):
    """Its error is the result of its operation alone."""

    async def load() -> str:
        raise LookupError("nothing there")

    pipe = site.pipeline()
    pipe.set("b", 1).get_or_set("a", load).incr("b")
    results = await pipe.aexecute(raise_on_error=False)

    assert results[0] is True
    assert type(results.errors[1]) is LookupError
    assert results[2] == 2


@pytest.mark.parametrize("face", FACES)
async def test_a_coroutine_for_a_default(site, face):
    """It runs if there is no value, and is closed otherwise; a blocking call says what to do."""
    cache, calls = Face(site, face), []

    async def load() -> str:
        calls.append("called")
        return "made"

    if face == BLOCKING:
        error = await settled(cache.get_or_set("a", load()))
        assert type(error) is TypeError
        assert "load is a coroutine function" in str(error)
        await cache.set("a", "made")
    else:
        assert await cache.get_or_set("a", load()) == "made"
    assert await cache.get_or_set("a", load()) == "made"
    assert calls == ["called"] * (face == AWAITING)
