"""A server that answers commands with replies that are none to them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import RedisError
from tests.faults.scripted import Scripted

from fleetcache import Cache
from fleetcache.commands import Round
from fleetcache.errors import FleetcacheError, ServerGone

NONSENSE = {
    "integer": b":5\r\n",
    "double": b",1.5\r\n",
    "nan": b",nan\r\n",
    "boolean": b"#t\r\n",
    "list": b"*2\r\n:1\r\n:2\r\n",
    "lists": b"*2\r\n*1\r\n:1\r\n*1\r\n+a\r\n",
    "map": b"%1\r\n+a\r\n:1\r\n",
    "set": b"~2\r\n:1\r\n:2\r\n",
    "big number": b"(123456789012345678901234567890\r\n",
    "redirection": b"-MOVED x\r\n",
    "redirection to no slot": b"-MOVED 99999 127.0.0.1:1\r\n",
    "redirection to no port": b"-ASK 1 127.0.0.1:99999\r\n",
    "want of a script": b"-NOSCRIPT x\r\n",
    "refusal of a type": b"-WRONGTYPE x\r\n",
    "refusal among others": b"*2\r\n-ERR x\r\n+a\r\n",
    "one too few": b"*1\r\n+a\r\n",
    "no cursor": b"*2\r\n+a\r\n*0\r\n",
    "long cursor": b"*2\r\n+" + b"9" * 5000 + b"\r\n*0\r\n",
    "page of numbers": b"*2\r\n+0\r\n*1\r\n:1\r\n",
    "pairs": b"*1\r\n*2\r\n+a\r\n+b\r\n",
    "text": b"+1.x\r\n",
}
OPERATIONS: dict[str, tuple[Any, ...]] = {
    "get": ("a",),
    "get_many": (["a", "b"],),
    "set": ("a", 1),
    "add": ("a", 1),
    "delete": ("a",),
    "delete_many": (["a", "b"],),
    "has_key": ("a",),
    "ttl": ("a",),
    "touch": ("a", 5),
    "hget": ("h", "f"),
    "hvals": ("h",),
    "sadd": ("s", 1),
    "smembers": ("s",),
    "lpush": ("l", 1),
    "lrange": ("l", 0, -1),
    "zcount": ("z", 0, 1),
    "clear": (),
    "keys": ("*",),
    "delete_pattern": ("*",),
    "hmget": ("h", ["f", "g", "h"]),
    "hgetall": ("h",),
    "hkeys": ("h",),
    "smismember": ("s", 1, 2, 3),
    "spop": ("s", 2),
    "sscan": ("s",),
    "zadd": ("z", {"m": 1}),
    "zincrby": ("z", 1, "m"),
    "zscore": ("z", "m"),
    "zrank": ("z", "m", True),
    "zrange": ("z", 0, -1, False, True),
    "zpopmin": ("z", 1),
}


COMMAND = re.compile(rb"(?:^|\r\n)\*\d+(?=\r\n\$)")


class ToEach(Scripted):
    """Answers each command of what was read at once, and not only the first, for which a client would wait in vain."""

    def answer(self, data: bytes) -> bytes:
        return super().answer(data) * len(COMMAND.findall(data))


@pytest.mark.few(8)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_reply_of_the_wrong_type_is_the_servers_fault(operation):
    """Replies of types that a command does not have are an error of the server's, or what is missing; and an outage if that is ignored."""
    found = {}
    for ignored in (False, True):
        for name, reply in NONSENSE.items():
            fake = ToEach(*[reply] * 3)
            options = {"SOCKET_TIMEOUT": 0.3, "IGNORE_EXCEPTIONS": ignored}
            try:
                getattr(Cache(fake.url, {"OPTIONS": options}), operation)(*OPERATIONS[operation])
            except (FleetcacheError, RedisError) as error:
                if ignored:
                    found[name] = repr(error)
            except Exception as error:  # noqa: BLE001 - what this is about
                found[name] = repr(error)

    assert found == {}


@pytest.mark.parametrize("count", [1, 3])
def test_a_transaction_with_another_number_of_replies_is_the_servers_fault(count):
    """Replies to EXEC that are too few or too many are taken for none of the commands'."""
    for reply in (b"*%d\r\n" % count + b"+OK\r\n" * count, b"_\r\n", b"+OK\r\n"):
        exchange = b"+OK\r\n" + b"+QUEUED\r\n" * 2 + reply
        with pytest.raises(ServerGone):
            Cache(Scripted(exchange).url).pipeline(transaction=True).set("a", 1).set("b", 2).execute()
        with pytest.raises(ServerGone):
            Cache(Scripted(exchange).url).pipeline(transaction=True).get("a").get("b").execute()
    exchange = b"+OK\r\n" + b"+QUEUED\r\n" * 2 + b"*%d\r\n" % count + b"+OK\r\n" * count
    with pytest.raises(ServerGone):
        Cache(Scripted(exchange).url).set_many({"a": 1, "b": 2})


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_scan_in_circles_ends(length):
    """A server whose cursors repeat is left."""
    circle = [b"*2\r\n+%d\r\n*1\r\n+:1:a\r\n" % (1 + at % length) for at in range(100)]
    scans: dict[str, Callable[[Cache], Any]] = {
        "keys": lambda cache: cache.keys("*"),
        "iter_keys": lambda cache: list(cache.iter_keys("*")),
        "sscan": lambda cache: cache.sscan("s"),
    }
    for scan in scans.values():
        with pytest.raises(ServerGone, match="repeats"):
            scan(Cache(Scripted(*circle).url))
    assert Cache(Scripted(*circle).url, {"OPTIONS": {"IGNORE_EXCEPTIONS": True}}).keys("*") == ["a"]
    with pytest.raises(ServerGone, match="repeats"):
        Cache(Scripted(b":0\r\n", *[b"*2\r\n+1\r\n*0\r\n"] * 100).url).delete_pattern("*")  # its epoch first


def test_long_scans_do_not_repeat():
    """Cursors that differ are followed, in whatever order they come."""
    cursors = list(range(1, 10_000))
    random.shuffle(cursors)
    pages = Round()
    for cursor in cursors:
        pages.step(cursor)


MAPS = {
    "no slots": b"*1\r\n*3\r\n:0\r\n:8589934592\r\n%s",
    "text for slots": b"*1\r\n*3\r\n+a\r\n+b\r\n%s",
    "slots below 0": b"*1\r\n*3\r\n:-5\r\n:-1\r\n%s",
    "slots in reverse": b"*1\r\n*3\r\n:16383\r\n:0\r\n%s",
    "nobody": b"*1\r\n*2\r\n:0\r\n:16383\r\n",
    "a number": b":5\r\n",
    "a map": b"%%1\r\n:0\r\n:16383\r\n",
    "a number for a host": b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n:1\r\n:1\r\n+x\r\n",
    "no such port": b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n+localhost\r\n:65536\r\n+x\r\n",
    "no such name": b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n+" + b"a" * 64 + b"\r\n:1\r\n+x\r\n",
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_of_a_cluster_that_is_none_is_the_servers_fault(name):
    """A node that sends no map of the slots does not answer."""
    reply = MAPS[name].replace(b"%s", b"*3\r\n+127.0.0.1\r\n:1\r\n+x\r\n").replace(b"%%", b"%")
    location = Scripted(*[reply] * 9).url.replace("redis", "redis+cluster").removesuffix("/0")
    options = {"SOCKET_TIMEOUT": 1}
    with pytest.raises(ServerGone):
        Cache(location, {"OPTIONS": options}).get("a")
    assert Cache(location, {"OPTIONS": {**options, "IGNORE_EXCEPTIONS": True}}).get("a", "instead") == "instead"


@pytest.mark.parametrize(
    "replies",
    [
        (b":5\r\n", b"*0\r\n"),
        (b"*1\r\n+a\r\n", b"*0\r\n"),
        (b"*2\r\n+a\r\n+b\r\n", b"*0\r\n"),
        (b"*2\r\n+localhost\r\n+70000\r\n", b"*0\r\n"),
        (b"*2\r\n+localhost\r\n+1\r\n", b":1\r\n"),
        (b"*2\r\n+localhost\r\n+1\r\n", b"*1\r\n%1\r\n+ip\r\n+localhost\r\n"),
        (b"*2\r\n+localhost\r\n+1\r\n", b"*1\r\n*3\r\n+ip\r\n+localhost\r\n+flags\r\n"),
    ],
)
def test_a_sentinel_that_names_no_place_could_not_be_asked(replies):
    """Replies of a Sentinel that name no server are an outage."""
    location = Scripted(*[b"".join(replies)] * 9).url.replace("redis", "redis+sentinel").replace("/0", "/service/0")
    options = {"SOCKET_TIMEOUT": 1, "READ_FROM": "replica", "BREAKER_FAILURES": 100}
    with pytest.raises(ServerGone):
        Cache(location, {"OPTIONS": options}).get("a")
    assert Cache(location, {"OPTIONS": {**options, "IGNORE_EXCEPTIONS": True}}).get("a", "instead") == "instead"
