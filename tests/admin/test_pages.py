"""Each page, over each kind of server: what it shows, and what it says it does not show."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from importlib.metadata import version
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from tests.admin.fleet import publish, tell_history
from tests.admin.site import client, site
from tests.caches import own_prefix
from tests.fleet_stats.sources import Source, cache_at, group, publisher, snapshot

from fleetcache.fleet import gather

TO_VIEWERS = ("overview", "workers", "groups", "tags", "held", "slowlog", "doctor")
"""The pages that the permission ``view_cache`` opens."""

PAGES = (*TO_VIEWERS, "keys")


def of(location: Any, **options: Any) -> dict[str, Any]:
    """Return an entry of ``CACHES``, of a cache that does not publish its figures unless *options* say so."""
    options = {"STATS": {"PUBLISH": 0}, **options}
    return {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": location,
        "KEY_PREFIX": own_prefix(),
        "OPTIONS": options,
    }


def text_of(answer: Any) -> str:
    """Return what a page says, without its tags, and with single spaces."""
    content = answer.content.decode()
    main = content[content.index('id="content-main"') :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", main)))


def see(browser: Client, page: str, **query: Any) -> str:
    """Return what *page* says; it has to be there."""
    answer = browser.get(f"/admin/fleetcache/{page}/", query)
    assert answer.status_code == 200, answer
    return text_of(answer)


@pytest.fixture(params=["valkey", "redis_debian", "cluster", "memory"])
def default(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The cache ``default`` of a site, on each kind of server."""
    from django.core.cache import caches

    places: dict[str, Callable[[], str]] = {
        "valkey": lambda: request.getfixturevalue("valkey").url(0),
        "redis_debian": lambda: request.getfixturevalue("redis_debian").tcp_url(0),
        "cluster": lambda: request.getfixturevalue("valkey_cluster").url(),
        "memory": lambda: "memory://admin-pages",
    }
    near = request.param in {"valkey", "cluster"}
    with site({"default": of(places[request.param](), NEAR=near)}):
        yield caches["default"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_there(default: Any, page: str) -> None:
    """Each page is there, for a user without and with all permissions."""
    default.set("users:1", 1)
    default.get("users:1")

    assert page not in TO_VIEWERS or see(client("view_cache"), page)
    assert see(client(superuser=True), page)


def test_a_fleet_is_shown(valkey: Any) -> None:
    """Workers are sorted and shown page by page, by host; those that differ are named; each has a page."""
    with site({"default": of(valkey.url(7))}):
        from django.core.cache import caches

        publish(caches["default"], 200)
        browser = client("view_cache")
        text = see(browser, "workers")

        assert "Page 1 of 5, 201 rows" in text
        assert f"Not all workers run the same fleetcache: 197 of 201 run {version('fleetcache')}, 4 0.0.9." in text
        assert "195 of 201 run 4be19f" in text
        assert re.search(r"web-3 25 \d+ live", text)
        assert re.search(r"hits were compared with the server, 0 were wrong: ≥ 5\.[56] nines", text)
        pids = [
            [
                int(pid)
                for pid in re.findall(r"&amp;pid=(\d+)", _body(browser, f"?sort={order}pid&p={page}"))
                if int(pid) != os.getpid()
            ]
            for order, page in (("", 1), ("-", 5))
        ]
        assert pids[0][:2] == [1000, 1001]
        assert pids[0][:50] == sorted(pids[0])
        assert (pids[1][-1], pids[1] == sorted(pids[1], reverse=True)) == (1000, True)
        assert _body(browser, "?host=web-3").count("&amp;pid=") == 25

        one = text_of(
            browser.get("/admin/fleetcache/workers/one/", {"cache": "default", "host": "web-1", "pid": "1000"})
        )
        assert "Process 1000 on web-1" in one
        assert "128 MB" in one
        gone = text_of(browser.get("/admin/fleetcache/workers/one/", {"cache": "default", "host": "web-1", "pid": "7"}))
        assert "This process has ended" in gone


def _body(browser: Client, query: str) -> str:
    return browser.get(f"/admin/fleetcache/workers/{query}").content.decode()


def test_groups_are_sorted_by_what_they_save(valkey: Any) -> None:
    """What the cache is worth is a sum over the fleet, by group; what it could still save is one click away."""
    with site({"default": of(valkey.url(8))}):
        from django.core.cache import caches

        publish(caches["default"], 3, mixed=False)
        saved, lost = (_groups(order) for order in ("-saved", "-load_seconds"))

        assert saved[0] in {"search", "products", "pages"}
        assert lost[0] == "search"
        assert set(saved) == {"users", "products", "search", "pages", "sessions", "prices"}


def _groups(order: str) -> list[str]:
    content = client("view_cache").get("/admin/fleetcache/groups/", {"sort": order}).content.decode()
    return re.findall(r"<tr><td>(\w+)</td>", content)


def test_history_is_drawn(valkey: Any) -> None:
    """The first page has a column for every five minutes, and says in words what a picture shows."""
    with site({"default": of(valkey.url(9))}):
        from django.core.cache import caches

        tell_history(caches["default"], 6)
        for hours in (1, 6):
            content = client("view_cache").get("/admin/fleetcache/overview/", {"hours": hours}).content.decode()
            columns = content[content.index("Reads in each five minutes") :].partition("</svg>")[0]
            assert columns.count('<rect class="fc-server"') == hours * 12
            assert f"reads in the last {hours} h" in content
            assert re.search(r'aria-label="\d\d\.\d % of [\d,]+ reads found a value: \d', content)


def test_a_history_that_has_just_begun(valkey: Any) -> None:
    """An empty chart of hit ratios says why; a site with one worker has no sums of "workers"."""
    with site({"default": of(valkey.url(10), STATS={"PUBLISH": 60})}):
        from django.core.cache import caches

        caches["default"].get("users:1")
        browser = client("view_cache")
        assert "The first point comes after five minutes of reads." in see(browser, "overview")
        assert "Sums of the one worker that runs now, since it began." in see(browser, "groups")

        tell_history(caches["default"], 6)
        publish(caches["default"], 2)
        assert "The first point" not in see(browser, "overview")
        assert "Sums of the 3 workers that run now, each since it began." in see(browser, "groups")


def test_groups_have_a_hit_ratio(valkey: Any) -> None:
    """Near, server and stale reads together are the hits, by which groups can be sorted."""
    with site({"default": of(valkey.url(11))}):
        from django.core.cache import caches

        publish(caches["default"], 3, mixed=False)

        assert re.search(r"missed 60\.\d % 20\.\d % 38\.\d % 2\.\d % 40\.\d %", see(client("view_cache"), "groups"))
        assert _groups("found")[0] == "search"


def test_leases_and_locks_are_found(valkey: Any) -> None:
    """A load that runs and a lock that is held are shown with the time that is left; entries that look alike are not."""
    with site({"default": of(valkey.url(10)), "other": of(valkey.url(10))}):
        from django.core.cache import caches

        cache, seer = caches["default"], client("view_cache", "view_keys")
        cache.set("no lock".replace(" ", "-"), "0" * 31)
        cache.lock("lock:report", timeout=50).acquire()
        caches["other"].lock("lock:elsewhere", timeout=50).acquire()
        seen = []

        def load() -> int:
            seen.append(see(seer, "held"))
            return 1

        cache.get_or_set("report:{1}", load, lease=30)

        assert re.search(r"report:\{1\} 1 loading [0-9a-f]{8} (29\.\d|30) s", seen[0])
        assert re.search(r"lock:report 1 …[0-9a-f]{8} [\d.]+ m?s (49\.\d|50) s", seen[0])
        assert "lock:elsewhere" not in seen[0]
        assert "no-lock" not in seen[0]
        assert "No lease is held" in see(seer, "held")


def test_the_slow_log_is_read(valkey: Any, redis_debian: Any) -> None:
    """A command that took long is shown, its arguments to those who may see keys, those of sessions to superusers."""
    for server in (valkey, redis_debian):
        with site({"default": of(server.url(0))}):
            from django.core.cache import caches

            raw = caches["default"].get_client()
            raw.config_set("slowlog-log-slower-than", 0)
            raw.get("customer-4711")
            raw.get("x:1:django.contrib.sessions.cacheSECRET")
            raw.config_set("slowlog-log-slower-than", 10_000)
            viewer, seer, boss = client("view_cache"), client("view_cache", "view_keys"), client(superuser=True)

            texts = [see(browser, "slowlog") for browser in (viewer, seer, boss)]

            assert ["GET customer-4711" in text for text in texts] == [False, True, True]
            assert ["SECRET" in text for text in texts] == [False, False, True]
            assert "GET 1" in texts[0]
            raw.slowlog_reset()


def test_keys_of_sessions_are_kept_from_others(valkey: Any) -> None:
    """Who reads the key of a session can take it over: the hottest keys show it to superusers only."""
    key = "django.contrib.sessions.cacheSECRET"
    with site({"default": of(valkey.url(11))}):
        from django.core.cache import caches

        cache = caches["default"]
        cache.set(key, 1)
        for _ in range(500):
            cache.get(key)

        assert "SECRET" in see(client(superuser=True), "groups")
        assert "SECRET" not in see(client("view_cache", "view_keys"), "groups")


def test_a_wrong_hit_is_shown_with_what_had_happened(valkey: Any) -> None:
    """A violation is named on the page of the fleet, and told on that of its worker; the key to those who may see keys."""
    history = [{"at": 1_795_000_000.0, "what": "push", "value": "ab12"}, {"at": 1_795_000_001.5, "what": "hit"}]
    event = {"at": 1_795_000_002.0, "key": "users:4711", "promise": "fence", "history": history}
    audit = {"compared": 1000, "violations": 1, "events": [event, "of another version"]}
    with site({"default": of(valkey.url(12))}):
        from django.core.cache import caches

        publish(caches["default"], 2, audit=audit)
        viewer, seer = client("view_cache"), client("view_cache", "view_keys")
        whole = see(viewer, "workers")
        one = {"cache": "default", "host": "web-1", "pid": "1000"}
        with timezone.override("Europe/Berlin"):
            texts = [text_of(browser.get("/admin/fleetcache/workers/one/", one)) for browser in (viewer, seer)]

        assert re.search(r"Audit: [\d,]+ near hits were compared with the server, 1 was wrong", whole)
        for text in texts:
            assert "1,000 near hits were compared with the server, 1 was wrong: 3.0 nines." in text
            assert "users:" in text and "2026-11-18 12:06:42 CET: fence" in text
            assert re.search(r"2 s before: push ab12 .*500 ms before: hit", text)
        assert ["users:4711" in text for text in texts] == [False, True]


def test_the_figures_of_a_worker_are_explained(valkey: Any) -> None:
    """What was evicted for want of room is told apart from what has expired; each figure of its page has a sentence."""
    with site({"default": of(valkey.url(12))}):
        from django.core.cache import caches

        publish(caches["default"], 2, mixed=False)
        browser = client("view_cache")
        whole = browser.get("/admin/fleetcache/workers/").content.decode()
        one = {"cache": "default", "host": "web-1", "pid": "1000"}
        text = text_of(browser.get("/admin/fleetcache/workers/one/", one))

    assert 0 < whole.index(">Evicted<") < whole.index(">Expired<")
    assert "Values that were read and not kept, because a change came between." in text
    assert re.search(r"lag [\d,]+ in less than 512 µs, [\d,]+ in less than 1.02 ms", text)
    assert "`" not in text


def test_what_was_never_loaded_saved_nothing_that_is_known(valkey: Any) -> None:
    """A cache that only stores sessions is not said to have saved 0 seconds."""
    with site({"default": of(valkey.url(13))}):
        from django.core.cache import caches

        cache = caches["default"]
        cache.set("a", 1)
        cache.get("a")
        without = see(client("view_cache"), "overview")
        cache.get_or_set("x:b", lambda: 1)
        after = see(client("view_cache"), "overview")

    assert "Saved not known: nothing was loaded by get_or_set or @cached" in without
    assert "Saved not known in 6 h; 0 s since the processes began" in after


def test_the_fleet_has_advice(valkey: Any) -> None:
    """The workers' advice on MAX_BYTES is shown as one mean, and how many workers stand behind it."""
    with site({"default": of(valkey.url(12))}):
        from django.core.cache import caches

        publish(caches["default"], 3)

        text = see(client("view_cache"), "workers")

    assert re.search(r"At 128 MB the near hit ratio would be \d\d %, .*The mean of 3 workers\.", text)
    assert re.search(r"16 MB \d\d\.\d % 0\.8 %", text)


def test_the_own_process_has_a_page(valkey: Any) -> None:
    """The figures of the process that answers are those of now, with advice for its near cache."""
    with site({"default": of(valkey.url(13), NEAR=True)}):
        import os

        from django.core.cache import caches

        cache = caches["default"]
        for number in range(50):
            cache.get_or_set(f"users:{number}", lambda: 1)
            cache.get(f"users:{number}")
        browser = client(superuser=True)
        (worker,) = re.findall(
            r'href="([^"]*pid=\d+[^"]*)"', browser.get("/admin/fleetcache/workers/").content.decode()
        )

        text = text_of(browser.get(unescape(worker)))

        assert f"Process {os.getpid()}" in text
        assert "max_bytes 64 MB" in text


def test_the_rate_of_processes_that_began_at_different_times(valkey: Any) -> None:
    """Without a history it is the sum of what each did on average, not all figures divided by the age of the oldest."""
    from fleetcache.django.admin.overview import _rates  # Django has to be set up first

    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    now = time.time()
    for age, reads in ((10_000, 20_000), (20, 2000)):
        publisher(Source(cache, snapshot(since=now - age, groups={"users": group(near=reads)}))).publish()

    rates = _rates(gather(cache, live=False), ())["text"]

    assert 95 <= float(rates.removesuffix("/s reads, 0/s writes, 0/s deletes")) <= 102


def test_a_finding_names_the_command_that_explains_it(valkey: Any) -> None:
    """The pages of the documentation are in the package, at no address to which a page of the admin could link."""
    with site({"default": of(valkey.tcp_url(9))}):
        said = see(client("view_cache"), "doctor")

    assert "maxmemory is not set" in said
    assert "Explained by python manage.py fleetcache docs doctor#memory-unlimited" in said
