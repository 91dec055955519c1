"""A server that is away, hangs, or refuses: each page says so in time, and shows the rest."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from tests.admin.site import client, site
from tests.admin.test_pages import PAGES, of, see

from fleetcache.testing import FaultProxy, cluster, valkey_server

LIMIT = 0.5
"""SOCKET_TIMEOUT of the caches here, in seconds."""


@pytest.mark.parametrize("page", PAGES)
def test_server_that_is_away(page: str) -> None:
    """A port on which nobody listens breaks no page, and the other cache is shown."""
    with site({"away": of("redis://127.0.0.1:1/0", NEAR=True), "default": of("memory://outage")}):
        from django.core.cache import caches

        caches["default"].set("a:1", 1)
        caches["default"].get("a:1")
        text = see(client(superuser=True), page, cache="away")

        if page == "overview":
            assert "100.0 % hits" in text
        assert "127.0.0.1:1" in text


def test_what_is_not_known_is_not_zero() -> None:
    """Figures that could not be read are not told as 0, and one box says why."""
    with site({"default": of("redis://127.0.0.1:1/0")}):
        browser = client(superuser=True)
        text = see(browser, "overview")
        html = browser.get("/admin/fleetcache/overview/").content.decode()

    assert re.search(
        r"What the processes have published cannot be read: 127\.0\.0\.1:1/0: .* The charts are missing too\.", text
    )
    assert html.count('class="fc-trouble"') == 1
    assert "Saved not known in 6 h; not known of the workers that could be read" in text
    assert "Errors not known in 6 h" in text
    assert "first point" not in text and "Hit ratio" not in text


@pytest.mark.parametrize(("engine", "status"), [("cache", 302), ("cached_db", 200)])
def test_sessions_in_a_cache_that_is_away(valkey: Any, engine: str, status: int) -> None:
    """They lock everybody out, and do not if the database has them too, as docs/admin.md says."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        options = {"SOCKET_TIMEOUT": LIMIT, "SOCKET_CONNECT_TIMEOUT": LIMIT, "IGNORE_EXCEPTIONS": True}
        with site({"default": of(proxy.url(), **options)}, SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
            browser = client(superuser=True)
            assert browser.get("/admin/fleetcache/overview/").status_code == 200
            proxy.hold()
            answer = browser.get("/admin/fleetcache/overview/")
            proxy.heal()

    assert answer.status_code == status


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("page", PAGES)
def test_server_that_hangs(valkey: Any, page: str, ignored: bool) -> None:
    """A server that accepts connections and answers nothing costs a page some SOCKET_TIMEOUTs at most, once."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        options = {"SOCKET_TIMEOUT": LIMIT, "SOCKET_CONNECT_TIMEOUT": LIMIT, "IGNORE_EXCEPTIONS": ignored}
        with site({"default": of(proxy.url(), **options)}):
            from django.core.cache import caches

            browser = client(superuser=True)
            caches["default"].set("a:1", 1)
            proxy.hold()
            began = time.monotonic()
            text = see(browser, page)
            took = time.monotonic() - began
            proxy.heal()

        assert str(proxy.port) in text
        # The doctor asks over connections of its own, with a limit of its own.
        assert took < (12 if page == "doctor" else 3 * LIMIT)


def test_many_caches_of_servers_that_hang(valkey: Any) -> None:
    """The first page asks no further servers when some took too long."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        proxy.blackhole()
        options = {"SOCKET_TIMEOUT": 1.0, "SOCKET_CONNECT_TIMEOUT": 1.0}
        hanging = {f"c{number}": of(proxy.url(number), **options) for number in range(8)}
        with site(hanging):
            browser = client(superuser=True)
            began = time.monotonic()
            text = see(browser, "overview")

            assert time.monotonic() - began < 5
            assert "Not asked: servers of the caches above took too long." in text


def test_node_of_a_cluster_that_is_away() -> None:
    """The pages show what the other nodes hold, and say which part is missing."""
    with cluster(replicas=0) as servers, site({"default": of(servers.url(), SOCKET_TIMEOUT=LIMIT)}):
        from django.core.cache import caches

        cache = caches["default"]
        for number in range(30):
            cache.set(f"a:{number}", 1, tags=[f"tag{number}"])
        cache.set("lock:x", 1)
        gone = servers.nodes[0]
        gone.kill()

        for page in ("overview", "workers", "tags", "held", "slowlog"):
            text = see(client(superuser=True), page)
            assert str(gone.port) in text, page
        assert "tag1" in see(client(superuser=True), "tags")


@pytest.mark.parametrize(
    "allowed", ["+get +set +scan +dbsize +hello +ping +client +info", "+@all -slowlog -commandlog"]
)
def test_user_who_may_little(allowed: str) -> None:
    """What the server refuses is named on the page; the others are there."""
    with valkey_server() as server:
        admin = server.url(0)
        with site({"default": of(admin), "poor": of(f"redis://poor:pw@127.0.0.1:{server.port}/0")}):
            from django.core.cache import caches

            raw = caches["default"].get_client()
            raw.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">pw", "~*", "&*", *allowed.split())
            for page in PAGES:
                text = see(client(superuser=True), page, cache="poor")
                if page == "slowlog":
                    assert "does not allow this user" in text


@pytest.mark.newest
def test_database_that_is_full_of_other_names(valkey: Any) -> None:
    """A page that looks for names stops in time, says how far it came, and goes on by a link."""
    with site({"default": of(valkey.url(5))}):
        from django.core.cache import caches

        cache = caches["default"]
        raw = cache.get_client()
        with raw.pipeline(transaction=False) as pipeline:
            for number in range(200_000):
                pipeline.set(f"alien:{number}", number)
            pipeline.execute()
        cache.set("a", 1, tags=["needle"])
        browser, query, seen = client(superuser=True), {}, []
        for _ in range(100):
            began = time.monotonic()
            answer = browser.get("/admin/fleetcache/tags/", query)
            assert time.monotonic() - began < 2
            seen.append(b"needle" in answer.content)
            onward = re.search(rb"cursor=([0-9a-f.]+)", answer.content)
            if onward is None:
                break
            assert b"the time of this page is over" in answer.content
            query = {"cursor": onward[1].decode()}
        raw.flushdb()

        assert seen.count(True) >= 1
        assert onward is None
