"""Which reads leave copies: with the doorkeeper, the second of a name, and not the first."""

from __future__ import annotations

import threading

import pytest
from tests.near.conftest import copied, copy, one_face

from fleetcache.near.door import Doorkeeper


@pytest.fixture
def near(copies):
    """A cache whose first reads leave no copies, as is usual."""
    return copies(near={"DOORKEEPER": True})


async def test_the_third_read_is_near(near, asked):
    """The first read leaves no copy, the second does, and the third asks no server."""
    await near.set("key", "value")
    await near.fence()
    asked()

    assert [await near.get("key") for _ in range(5)] == ["value"] * 5

    assert asked() == 3, "GET; GET and PTTL"


async def test_the_third_of_many_is_near(near, asked, trips):
    """The same for many names: only those that are read again are asked for their times to live."""
    await near.set_many({"a": 1, "b": 2, "c": 3})
    await near.fence()
    assert await near.get_many(["a", "b"]) == {"a": 1, "b": 2}
    trips.clear()
    asked()

    assert await near.get_many(["a", "b", "c", "missing"]) == {"a": 1, "b": 2, "c": 3}
    assert trips == [["MGET", "PTTL", "PTTL"]]
    assert asked() == 3
    assert await near.get_many(["a", "b"]) == {"a": 1, "b": 2}
    assert asked() == 0


async def test_a_name_that_was_near_is_known(near, raw, asked):
    """When a copy ends because its entry changed, the next read leaves another."""
    await near.set("key", 1)
    await copied(near, "key")
    # As many other names as there are cells make the doorkeeper forget.
    near.near.store.door.known(f"other:{number}" for number in range(1_000_000))
    raw.set(near.make_key("key"), 2)
    await near.fence()
    asked()

    assert [await near.get("key") for _ in range(3)] == [2, 2, 2]

    assert asked() == 2


async def test_names_that_are_read_once_leave_no_trace(near):
    """Neither in the store nor in the journal."""
    for number in range(100):
        await near.get(f"once:{number}")
    await near.get_many([f"once, with others:{number}" for number in range(100)])

    journal = near.near.sole.tracking.journal
    assert not journal.recent
    assert not near.near.copies
    assert near.near.counts.misses == 200


@one_face
async def test_what_nobody_reads_waits_for_nobody(near):
    """A first read, and a write of a name that nobody reads, take no lock."""
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with near.near.lock:
            held.set()
            end.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)

    done = threading.Thread(target=lambda: (near.whole.set("key", 1), near.whole.get("key"), near.whole.delete("key")))
    done.start()
    done.join(5)
    waited = done.is_alive()
    end.set()
    holder.join()
    done.join()

    assert not waited


async def test_a_first_read_that_contradicts_a_copy(near):
    """It ends the copy, if another reader has left one since it was sent."""
    await near.set("key", "new")
    name = str(near.make_key("key"))
    early = near.near.depart(name)
    assert early.number == 0
    late = near.near.depart(name)
    assert late.number > 0

    near.near.arrive(late, "old", b"old", -1)
    assert copy(near, name).value == "old"
    near.near.arrive(early, "new", b"new", None)

    assert copy(near, name) is None


def test_one_by_one_or_together():
    """Names are known in the same way whether they come alone or together."""
    alone, together = Doorkeeper(100_000), Doorkeeper(100_000)
    names = [f"name:{number % 40}" for number in range(200)]

    one_by_one = [name for name in names if alone.knows(name)]
    at_once = {found for start in range(0, 200, 40) for found in together.known(names[start : start + 40])}

    assert set(one_by_one) == at_once
    assert len(at_once) > 20


def test_names_are_forgotten():
    """After many others a name is new again, however many names there ever were."""
    door = Doorkeeper(1_000_000)
    assert not door.knows("name")
    assert door.knows("name")

    door.known(f"other:{number}" for number in range(100_000))

    assert not door.knows("name")
    assert door.bytes == 4 * 1024
