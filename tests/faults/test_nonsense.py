"""A server that answers commands with replies of types that they do not have."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import RedisError
from tests.faults.test_interrupts import Scripted

from fleetcache import Cache
from fleetcache.errors import FleetcacheError

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
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_reply_of_the_wrong_type_is_the_servers_fault(operation):
    """Replies of types that a command does not have are an error of the server's, or what is missing; and an outage if that is ignored."""
    found = {}
    for ignored in (False, True):
        for name, reply in NONSENSE.items():
            fake = Scripted(*[reply] * 3)
            options = {"SOCKET_TIMEOUT": 1, "IGNORE_EXCEPTIONS": ignored}
            try:
                getattr(Cache(fake.url, {"OPTIONS": options}), operation)(*OPERATIONS[operation])
            except (FleetcacheError, RedisError) as error:
                if ignored:
                    found[name] = repr(error)
            except Exception as error:  # noqa: BLE001 - what this is about
                found[name] = repr(error)

    assert found == {}
