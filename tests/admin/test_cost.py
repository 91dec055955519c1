"""What a page costs: the time of a processor, and the commands that it sends, beside a full database and a large fleet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.admin.fleet import publish, tell_history
from tests.admin.site import client, site
from tests.admin.test_pages import PAGES, of, see

from fleetcache.testing import valkey_server

pytestmark = [pytest.mark.newest, pytest.mark.alone]

NAMES = 1_000_000
WORKERS = 200

BOUNDED = {
    # Answered in the same time whatever the database holds,
    "acl|whoami", "client|setinfo", "client|tracking", "config|get", "dbsize", "get", "getrange", "hello", "info", "ping",
    "memory|usage", "pttl", "strlen", "time", "type", "multi", "exec", "auth", "select",
    # or bounded by their arguments, and by what fleetcache itself has written.
    "commandlog|get", "slowlog|get", "scan", "mget", "zrevrange", "hgetall",
    # From the background of this process: canaries of the near cache.
    "set",
}  # fmt: skip


@pytest.fixture(scope="module")
def raw() -> Iterator[Any]:
    """A raw client of the server of a site with a million names and three hundred workers."""
    with valkey_server() as server, site({"default": of(server.url(0), NEAR=True)}):
        from django.core.cache import caches

        cache = caches["default"]
        raw = cache.get_client()
        fill = "for i = ARGV[1], ARGV[2] do redis.call('SET', ARGV[3] .. ':1:users:' .. i, i) end"
        for begin in range(0, NAMES, NAMES // 10):
            raw.eval(fill, 0, begin, begin + NAMES // 10 - 1, cache.key_prefix)
        publish(cache, WORKERS, life=3_600_000)
        tell_history(cache)
        cache.get("users:1")
        yield raw


@pytest.mark.parametrize("page", PAGES)
def test_page_takes_little_of_a_processor(raw: Any, page: str) -> None:
    """Each page needs less than 0.3 s of this process, and of the server together."""
    browser = client(superuser=True)
    see(browser, page)
    used = raw.info("cpu")
    began = time.process_time()

    see(browser, page)

    mine = time.process_time() - began
    after = raw.info("cpu")
    servers = sum(after[word] - used[word] for word in ("used_cpu_sys", "used_cpu_user"))
    assert mine + servers < 0.3


@pytest.mark.parametrize("page", PAGES)
def test_page_sends_no_command_without_a_bound(raw: Any, page: str) -> None:
    """No command takes the server long, and none is of a kind that would in a larger database."""
    browser = client(superuser=True)
    raw.config_set("slowlog-log-slower-than", 50_000)  # KEYS takes twice as long here
    raw.slowlog_reset()
    raw.config_resetstat()

    see(browser, page)

    sent = {name.removeprefix("cmdstat_") for name in raw.info("commandstats")}
    assert sent - BOUNDED == {"config|resetstat"}
    assert raw.slowlog_get() == []
