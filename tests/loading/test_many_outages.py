"""get_or_set_many while a server is away, and for users with few rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError
from tests.caches import own_prefix
from tests.faces import AWAITING, Face, settled
from tests.loading.gates import calling
from tests.loading.test_many import Batches

from fleetcache import Cache
from fleetcache.testing import FaultProxy


@pytest.fixture
def link(valkey: Any) -> Iterator[FaultProxy]:
    """The way to a server, which the test cuts."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        yield link


def distant(link: FaultProxy, face: str, **options: Any) -> Face:
    """Return a cache on the other side of *link*."""
    hasty = {"SOCKET_TIMEOUT": 0.5, "SOCKET_CONNECT_TIMEOUT": 0.5, "BREAKER_COOLDOWN": 0.05}
    return Face(Cache(link.url(), {"KEY_PREFIX": own_prefix(), "OPTIONS": {**hasty, **options}}), face)


def cut(link: FaultProxy) -> None:
    """Let the server be away."""
    link.blackhole()
    link.reset()


@pytest.mark.parametrize("ignored", [False, True])
async def test_a_server_that_goes_away_during_a_load(link, face, ignored):
    """What was made is returned; later calls raise, or load where errors are ignored."""
    cache, load = distant(link, face, IGNORE_EXCEPTIONS=ignored), Batches(opened=False)
    first = calling(cache, "get_or_set_many", ["a", "b"], load.of(cache))
    await load.entered()
    cut(link)
    load.gate.set()

    assert await first == {"a": "made a", "b": "made b"}
    later = await settled(cache.get_or_set_many(["a"], Batches("later").of(cache)))
    assert later == {"a": "later a"} if ignored else isinstance(later, ConnectionError)
    assert cache.whole._flights.running == {}


async def test_what_is_kept_in_an_outage(link, face):
    """With OUTAGE_TTL a batch and single calls share what either has loaded; an own write gives it up."""
    cache = distant(link, face, IGNORE_EXCEPTIONS=True, OUTAGE_TTL=30)
    await cache.set("other", 1)
    load = Batches()
    cut(link)

    for _ in range(3):
        assert await cache.get_or_set_many(["a", "b"], load.of(cache)) == {"a": "made a", "b": "made b"}
    assert await cache.get_or_set("a", lambda: "single") == "made a"
    assert await cache.get_or_set("c", lambda: "single") == "single"
    assert await cache.get_or_set_many(["b", "c"], load.of(cache)) == {"b": "made b", "c": "single"}
    await cache.delete("a")
    await cache.get_or_set_many(["a", "b"], load.of(cache))
    assert load.asked == [["a", "b"], ["a"]]


@pytest.mark.parametrize(
    "rules", ["-eval -evalsha", "resetkeys ~{prefix}:*", "resetkeys ~{prefix}:* ~fleetcache:lease:*"]
)
async def test_users_with_few_rights(valkey, face, rules):
    """Without scripts or leases batches are loaded and stored all the same."""
    prefix, user = own_prefix(), f"few-{own_prefix()}"
    with redis.Redis(unix_socket_path=str(valkey.socket)) as admin:
        rights = rules.format(prefix=prefix).split()
        admin.execute_command("ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", *rights)
        url = valkey.tcp_url().replace("://", f"://{user}:secret@")
        # Another cache for each face: what a user may do is remembered.
        options = {"SOCKET_TIMEOUT": 5 if face == AWAITING else 6}
        cache = Face(Cache(url, {"KEY_PREFIX": prefix, "OPTIONS": options}), face)
        load = Batches(lacks=("c",))

        found = await cache.get_or_set_many(["a", "b", "c"], load.of(cache), 60)

        assert found == await cache.get_many(["a", "b", "c"]) == {"a": "made a", "b": "made b"}
        assert load.asked == [["a", "b", "c"]]
        tagged = await cache.get_or_set_many(["d", "e"], load.of(cache), 60, tags=["all"])
        assert tagged == await cache.get_many(["d", "e"]) == {"d": "made d", "e": "made e"}
        assert await cache.invalidate_tags("all") == 1
        assert await cache.get_many(["d", "e"]) == {}
        admin.execute_command("ACL", "DELUSER", user)
