"""`lookup` of an entry that has a near copy: the server tells of the entry, the state tells of the copy."""

from __future__ import annotations

import pytest
from tests.near.conftest import copied, copies, near, raw, trips

__all__ = ["copies", "near", "raw", "trips"]  # fixtures of the near cache's tests

OPTIONS = {"stale_if_error": 60, "tags": ["x", "y"]}


@pytest.mark.parametrize("value", ["text", 5, None, {"a": [1]}, 2**80, b"\x00"])
async def test_all_is_known_of_an_entry_with_a_copy(near, trips, value):
    """Its tags, its age, its cost and its life, which may be longer than the copy's."""
    await near.get_or_set("key", lambda: value, 300, **OPTIONS)
    assert await copied(near, "key") == value
    await near.fence()

    found = await near.lookup("key")

    assert (found.value, found.state, found.tags) == (value, "near", ("x", "y"))
    assert found.age is not None
    assert found.cost is not None
    assert 290 < found.left <= 300
    trips.clear()
    assert await near.get("key") == value
    assert trips == [], "looking at it has not given up the copy"
    assert (await near.lookup("key", fresh=True)).state == "fresh"


async def test_a_plain_entry(near):
    """As one with metadata."""
    await near.set("key", [1], 300)
    await copied(near, "key")
    await near.fence()

    found = await near.lookup("key")

    assert (found.value, found.state, found.tags, found.age) == ([1], "near", (), None)
    assert 290 < found.left <= 300
    assert (await near.lookup("missing")).state == "missing"


async def test_a_copy_of_another_value_is_given_up(near, raw):
    """Nobody reads it after somebody has seen a newer value."""
    await near.set("key", "old", 300)
    await copied(near, "key")
    near.whole.near.copies[near.make_key("key")].value = "a copy that was not told"

    found = await near.lookup("key")

    assert (found.value, found.state) == ("old", "fresh")
    assert await near.get("key") == "old"
