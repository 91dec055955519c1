"""The pages of keys on a server with a million of them: each request asks little of it, and nothing that blocks it."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from redis import Redis
from tests.admin.site import client, site

from fleetcache.testing import valkey_server

HOME = "/admin/fleetcache/keys/"
ALL = ("view_cache", "view_keys", "change_key", "delete_key", "clear_cache")

ASKED = {
    *(
        "hget",
        "hstrlen",
        "scan",
        "dbsize",
        "eval_ro",
        "type",
        "pttl",
        "memory|usage",
        "object|encoding",
        "object|idletime",
        "exists",
    ),
    *("strlen", "hlen", "llen", "scard", "zcard", "getrange", "hscan", "sscan", "lrange", "zrange"),
    *("unlink", "del", "evalsha", "eval", "get", "lpush", "ltrim", "pexpire", "persist", "time", "mget"),
}
"""Each takes the same time however much the server holds; ``del`` is of leases, ``eval`` ends what is being loaded."""

OURS = {"info", "config|resetstat", "hello", "client|setinfo", "client|setname", "select", "ping", "client|no-touch"}
"""What the test itself asks, and what begins a connection."""

MOST_WORK, MOST_MEAN, MOST_EACH = 300_000, 10_000, 100_000
"""Microseconds of the server's time for a request, for its calls of one command on average, and for a single call.

A call takes a millisecond, but a server that shares its processor is interrupted while it runs.
"""


class Meter:
    """Adds up the server's work for each request."""

    def __init__(self, user, port):
        self.user, self.raw = user, Redis(port=port)
        self.worst, self.commands, self.means = ("", 0.0), set(), {}

    def ask(self, method, url, *args, **kwargs):
        self.raw.config_resetstat()
        answer = getattr(self.user, method)(url, *args, **kwargs)
        stats = self.raw.info("commandstats")
        asked = {name.removeprefix("cmdstat_"): each["usec"] for name, each in stats.items()}
        self.commands |= asked.keys()
        for name in asked.keys() - OURS:
            mean = stats[f"cmdstat_{name}"]["usec_per_call"]
            self.means[name] = max(self.means.get(name, 0), mean)
        work = sum(usec for name, usec in asked.items() if name not in OURS)
        self.worst = max(self.worst, (f"{method} {url[:80]}", work), key=lambda each: each[1])
        return answer

    def page(self, url):
        answer = self.ask("get", url)
        assert answer.status_code == 200
        return answer.content.decode()

    def post(self, url, form):
        """Post, and follow the redirection as a browser does: by a request of its own."""
        answer = self.ask("post", url, form)
        assert answer.status_code == 302
        return self.page(answer.url)


def fill(raw, count):
    """Store *count* keys, and some that hold very much; return how many members those have."""
    script = """
        for i = ARGV[1], ARGV[2] do redis.call('SET', 'shop:1:k:' .. string.format('%d', i), 'v') end
    """
    for start in range(0, count, 10_000):
        raw.eval(script, 0, start, start + 9_999)
    members = max(count // 5, 20_000)
    for start in range(0, members, 20_000):
        numbers = range(start, start + 20_000)
        raw.hset("shop:1:hash", mapping=dict.fromkeys(numbers, b"v" * 20))
        raw.sadd("shop:1:set", *[b"m%d" % number for number in numbers])
        raw.zadd("shop:1:zset", {b"m%d" % number: number for number in numbers})
        raw.rpush("shop:1:list", *numbers)
    raw.setrange("shop:1:long", 100_000_000, b"end")
    return members


@pytest.mark.newest
@pytest.mark.alone
@pytest.mark.few(1)
@pytest.mark.parametrize("count", [50_000, 1_000_000])
def test_no_request_asks_much_of_the_server(count):
    """Pages, entries, a count and a deletion, with every key on the way."""
    with valkey_server() as server:
        port = int(re.search(r":(\d+)/", server.tcp_url())[1])
        raw = Redis(port=port)
        members = fill(raw, count)
        raw.config_set("slowlog-log-slower-than", MOST_EACH)
        raw.slowlog_reset()
        entry = {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": server.tcp_url(),
            "KEY_PREFIX": "shop",
            "OPTIONS": {"STATS": {"PUBLISH": 0}},
        }
        with site({"default": entry}):
            meter = Meter(client(*ALL), port)

            listed = walk(meter, f"{HOME}?pattern=*", most=20)
            nothing = walk(meter, f"{HOME}?pattern=nothing")
            alls = walk(meter, f"{HOME}?pattern=k:77777*&show=all")
            kinds = walk(meter, f"{HOME}?kind=zset")
            for name in ("hash", "set", "zset", "list", "long", "k:7"):
                page = meter.page(f"{HOME}entry/?name={quote('shop:1:' + name)}")
                assert "Memory" in page
                assert name == "k:7" or f"{members:,} members" in page or "100,000,003 bytes" in page
            steps, page = counted_and_deleted(meter, "k:*")

        slow = [(each["duration"], each["command"][:60]) for each in raw.slowlog_get(10)]
        left = raw.dbsize()
    assert len(listed) == 20 and nothing[-1].count("There is no such key") == 1
    assert "k:77777" in alls[0] + alls[-1] or count < 77_777
    assert any("zset" in each for each in kinds)
    assert f"{count:,} keys were deleted" in page and left < 10
    assert meter.commands - OURS <= ASKED
    assert meter.worst[1] < MOST_WORK
    assert max(meter.means.values()) < MOST_MEAN
    assert slow == []


def walk(meter, url, most=1000):
    """Follow the links to the next page; return the pages."""
    pages = []
    while url and len(pages) < most:
        pages.append(meter.page(url))
        found = re.search(r'<a href="([^"]*)" rel="next"', pages[-1])
        url = found and found[1].replace("&amp;", "&")
    return pages


def counted_and_deleted(meter, pattern):
    """Delete by pattern; return how many requests it took, and the last page."""
    page, steps = meter.post(f"{HOME}erase/", {"pattern": pattern, "act": "count"}), 1
    while "were deleted" not in page:
        assert "Try again" not in page
        state = re.search(r'name="state" value="([^"]*)"', page)[1]
        act = "begin" if "Delete them" in page else "step"
        page, steps = meter.post(f"{HOME}erase/", {"state": state, "act": act}), steps + 1
    return steps, page
