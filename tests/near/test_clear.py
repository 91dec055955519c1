"""clear() and the copies of what another client has deleted, whose announcement has not come yet."""

from __future__ import annotations

from tests.near.conftest import copied

from fleetcache.testing import FaultProxy, tracked


async def test_clear_gives_up_copies_of_what_is_gone_already(valkey, copies, raw):
    """The server has no such name any more, so no scan finds it; after clear() nobody here is served the old value."""
    with FaultProxy(("127.0.0.1", valkey.port)) as link:
        cache = copies(link.url(9), near={"T_LIVE": 30})
        await cache.set("key", "old")
        assert await copied(cache, "key") == "old"
        link.hold(tracked)
        assert raw.delete(cache.make_key("key")) == 1
        assert await cache.get("key") == "old"

        await cache.clear()

        assert await cache.get("key") is None
        link.heal()
