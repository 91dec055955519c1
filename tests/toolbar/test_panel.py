"""The panel shows every call of a request, of both faces, and none of another request."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading
from typing import Any

import pytest
from django.core.cache import caches
from django.test import AsyncClient, Client
from tests.toolbar.site import PANEL, gates, site

from fleetcache.django import toolbar as panels
from fleetcache.stats import exchanges, operations
from fleetcache.telemetry import tracing
from fleetcache.watching import PLAIN


def panel(toolbar: Any) -> Any:
    return toolbar.get_panel_by_id("FleetcachePanel")


def calls(toolbar: Any) -> list[dict[str, Any]]:
    return panel(toolbar).get_stats()["calls"]


def seen(toolbar: Any) -> list[tuple[str, str]]:
    """Return the operation and the level of each call."""
    return [(call["name"], call["level"]) for call in calls(toolbar)]


EXPECTED = [
    ("set", ""),
    ("get", "server"),
    ("get", "missed"),
    ("get_or_set", "loaded"),
    ("get", "missed"),
]
"""The last `get` is that of the loader."""


@pytest.fixture(params=["plain", "awaiting"])
def view(request) -> str:
    """A view of either kind."""
    return request.param


def test_calls_under_wsgi(valkey, view):
    """Blocking and awaited calls are shown, under a server for WSGI."""
    with site(valkey.tcp_url()) as made:
        assert Client().get(f"/{view}").status_code == 200

        (toolbar,) = made
        assert seen(toolbar) == EXPECTED
        assert {call["awaited"] for call in calls(toolbar)} == {view == "awaiting"}


async def test_calls_under_asgi(valkey, view):
    """Blocking and awaited calls are shown, under a server for ASGI."""
    with site(valkey.tcp_url()) as made:
        response = await AsyncClient().get(f"/{view}")

        assert response.status_code == 200
        (toolbar,) = made
        assert seen(toolbar) == EXPECTED


def test_what_is_known_of_a_call(valkey):
    """Of each call the panel knows the time, the bytes, the group, the round trips, the alias and the place."""
    with site(valkey.tcp_url()) as made:
        Client().get("/plain")

        stored, found, missed, loaded, of_loader = calls(made[0])
        assert stored["bytes"] == found["bytes"] == len(pickle.dumps([1, 2]))
        assert stored["milliseconds"] > 0
        assert [call["group"] for call in (found, missed, loaded, of_loader)] == ["users", "users", "prices", "prices"]
        assert [call["exchanges"] for call in (stored, found, missed, of_loader)] == [1, 1, 1, 1]
        assert loaded["exchanges"] >= 2
        assert {call["alias"] for call in calls(made[0])} == {"default"}
        assert "tests/toolbar/" in found["trace"]
        assert "site.py" in found["trace"]
        assert "reading.py" not in found["trace"]


async def test_place_of_a_call(valkey, view):
    """The place shows the code of the site, not the machinery that runs it, in either kind of view."""
    with site(valkey.tcp_url()) as made:
        await AsyncClient().get(f"/{view}")

        files = set(re.findall(r'djdt-file">([^<]+)<', calls(made[0])[0]["trace"]))
        assert "site.py" in files
        assert not files & {"thread.py", "sync.py", "futures.py", "events.py", "operations.py"}


def test_near_reads(valkey):
    """A read from a copy has no round trip."""
    with site(valkey.tcp_url(), options={"NEAR": {"DOORKEEPER": False}}) as made:
        for _ in range(20):
            Client().get("/many/1")
            caches["default"].set("m:0", 1)
            caches["default"].get("m:0")
            Client().get("/many/1")
            if seen(made[-1]) == [("get", "near")]:
                break

        (call,) = calls(made[-1])
        assert (call["level"], call["exchanges"]) == ("near", 0)
        assert "1 near" in panel(made[-1]).nav_subtitle


def test_keys_are_masked_unless_asked_for(valkey):
    """Keys are masked, also in the text of errors; a setting shows them."""
    with site(valkey.tcp_url(), panels=[PANEL]) as made:
        page = Client().get("/plain").content.decode()
        Client().get("/failing")

        assert "users:1" not in page
        assert "Keys are masked" in page
        assert calls(made[0])[0]["keys"][0].startswith("users:…")
        assert calls(made[1])[0]["error"] == "ValueError"

    with site(valkey.tcp_url(), panels=[PANEL], config={"FLEETCACHE_SHOW_KEYS": True}) as made:
        page = Client().get("/plain").content.decode()
        Client().get("/failing")

        assert "users:1" in page
        assert "Keys are masked" not in page
        assert "counters:none" in calls(made[1])[0]["error"]


def test_failed_call(valkey):
    """A call that raised is shown as failed."""
    with site(valkey.tcp_url()) as made:
        Client().get("/failing")

        assert seen(made[0]) == [("incr", "failed")]


def test_code_within_an_iteration(valkey):
    """Calls of code that runs between the results of an iterator are its own, with their own round trips."""
    with site(valkey.tcp_url()) as made:
        Client().get("/iterating")

        assert seen(made[0]) == [("set", ""), ("iter_keys", ""), ("get", "server")]
        assert [call["exchanges"] for call in calls(made[0])][2] == 1
        assert panel(made[0]).get_stats()["aside"] >= 1


def test_pipeline(valkey):
    """A pipeline is one call, whose operations are named."""
    with site(valkey.tcp_url()) as made:
        Client().get("/piped")

        (call,) = calls(made[0])
        assert (call["name"], call["parts"], call["exchanges"]) == ("pipeline", ["set", "get"], 1)


def test_number_of_calls_is_bounded(valkey, monkeypatch):
    """Beyond a number of calls only their number is kept."""
    monkeypatch.setattr(panels, "MOST", 3)
    with site(valkey.tcp_url()) as made:
        page = Client().get("/many/5").content.decode()

        assert len(calls(made[0])) == 3
        assert "and 2 more that were not recorded" in page


def test_the_cache_panel_goes_on_working(valkey):
    """debug-toolbar's own panel sees the blocking calls, beside ours; the awaited ones only ours sees."""
    with site(valkey.tcp_url()) as made:
        Client().get("/plain")
        caches["default"].clear()
        Client().get("/awaiting")

        of_cache = [toolbar.get_panel_by_id("CachePanel").get_stats()["total_calls"] for toolbar in made]
        assert of_cache == [4, 0]  # it leaves out what runs within get_or_set
        assert [len(calls(toolbar)) for toolbar in made] == [5, 5]


def test_panel_alone(valkey):
    """It works without the other panels."""
    with site(valkey.tcp_url(), panels=[PANEL]) as made:
        Client().get("/plain")

        assert seen(made[0]) == EXPECTED


async def test_tasks_and_threads_of_a_request(valkey):
    """Calls of tasks and threads that a view starts belong to its request."""
    with site(valkey.tcp_url()) as made:
        await AsyncClient().get("/gathering")

        assert seen(made[0]) == [("get", "missed")] * 6
        assert [call["exchanges"] for call in calls(made[0])] == [1] * 6


def test_threads_do_not_see_each_other(valkey):
    """Requests that run at the same time in threads have their own calls only."""
    names = [f"name{number}" for number in range(4)]
    gates["threads"] = threading.Barrier(len(names))
    with site(valkey.tcp_url(), config={"FLEETCACHE_SHOW_KEYS": True}) as made:
        threads = [threading.Thread(target=Client().get, args=(f"/meeting/{name}",)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(keys_of(toolbar) for toolbar in made) == [[f"{name}:before", f"{name}:after"] for name in names]


async def test_tasks_do_not_see_each_other(valkey):
    """Requests that run at the same time in tasks of one loop have their own calls only."""
    names = [f"name{number}" for number in range(4)]
    gates["tasks"] = asyncio.Barrier(len(names))
    with site(valkey.tcp_url(), config={"FLEETCACHE_SHOW_KEYS": True}) as made:
        await asyncio.gather(*(AsyncClient().get(f"/ameeting/{name}") for name in names))

        assert sorted(keys_of(toolbar) for toolbar in made) == [[f"{name}:before", f"{name}:after"] for name in names]


def keys_of(toolbar: Any) -> list[str]:
    return [key for call in calls(toolbar) for key in call["keys"]]


async def test_task_that_outlives_its_request(valkey):
    """What a task does after the response is not recorded."""
    gates["later"] = asyncio.Event()
    with site(valkey.tcp_url()) as made:
        await AsyncClient().get("/outliving")
        gates["later"].set()
        await gates["task"]

        assert panel(made[0]).calls == []


def test_hidden_toolbar_watches_nothing(valkey):
    """While no request shows the toolbar nobody watches or listens; afterwards neither."""
    with site(valkey.tcp_url()) as made:
        Client().get("/hidden")
        assert made == []
        assert not operations._watching
        assert not exchanges._hearing

        Client().get("/plain")
        assert len(made) == 1
        assert not operations._watching
        assert not exchanges._hearing
        assert panels._shown.get() is None


def test_caches_are_watched_only_where_the_toolbar_is_shown(valkey):
    """A cache that was made before is watched in a request that shows the toolbar; before and after, caches are the usual ones."""
    with site(valkey.tcp_url()) as made:
        Client().get("/hidden")
        usual = type(caches["default"])
        assert PLAIN not in vars(usual)

        Client().get("/plain")
        assert seen(made[0])[:3] == EXPECTED[:3]
        assert type(caches["default"]) is usual


async def test_tasks_are_watched_only_where_the_toolbar_is_shown(valkey):
    """The same for tasks, also if their parent has made the cache."""
    with site(valkey.tcp_url()) as made:
        before = caches["default"]
        await asyncio.create_task(AsyncClient().get("/awaiting"))

        assert seen(made[0]) == EXPECTED
        assert caches["default"] is before
        assert PLAIN not in vars(type(before))


def test_without_the_panel_nothing_is_wrapped(valkey):
    """Without the panel in DEBUG_TOOLBAR_PANELS the caches are the usual ones."""
    with site(valkey.tcp_url(), panels=["debug_toolbar.panels.cache.CachePanel"]):
        Client().get("/plain")

        assert not operations.is_watched()
        assert not exchanges.is_heard()


def test_page_and_totals(valkey):
    """The page of the panel and the totals beside its name."""
    with site(valkey.tcp_url()) as made:
        page = Client().get("/awaiting").content.decode()

        assert "5 calls in" in panel(made[0]).nav_subtitle
        assert "await get_or_set" in page
        assert "<td>prices</td>" in page
        assert "FleetcachePanel_total_time" in Client().get("/plain").headers["Server-Timing"]


# --- the toolbar's own Cache panel ----------------------------------------------------------------


@pytest.fixture
def noticed(monkeypatch):
    """The toolbar is noticed when a cache is made, which tests switch off."""
    monkeypatch.setattr(tracing, "_allowed", tracing.allowed("toolbar"))


CACHE_PANEL = "debug_toolbar.panels.cache.CachePanel"


@pytest.mark.parametrize("made_before", [False, True])
def test_the_own_panel_watches_only_while_it_records(valkey, view, noticed, made_before):
    """Its page has the calls of both faces; before and after, no cache of the process is watched, nor are its methods replaced."""
    with site(valkey.tcp_url(), panels=[CACHE_PANEL]) as made:
        if made_before:
            Client().get("/hidden")
        for number in (1, 2):
            Client().get(f"/{view}")

            counted = made[number - 1].get_panel_by_id("CachePanel").calls
            assert [call["name"] for call in counted][:3] == ["set", "get", "get"]
            assert not operations.is_watched()
            assert PLAIN not in vars(type(caches["default"]))
            assert "get" not in vars(caches["default"])


def test_a_request_without_the_toolbar_is_not_watched(valkey, noticed):
    """The process has the toolbar, but this request does not show it."""
    with site(valkey.tcp_url(), panels=[CACHE_PANEL]):
        Client().get("/plain")
        Client().get("/hidden")

        assert not operations.is_watched()
        assert PLAIN not in vars(type(caches["default"]))
