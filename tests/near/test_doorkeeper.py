"""Which reads leave copies: with the doorkeeper, the second of a name, and not the first."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from itertools import count
from math import inf

import pytest
from tests.near.conftest import copied, copy, one_face

from fleetcache.near import door as module
from fleetcache.near.door import Doorkeeper
from fleetcache.near.store import Epoch, Store


@pytest.fixture
def near(copies):
    """A cache whose first reads leave no copies, as is usual."""
    return copies(near={"DOORKEEPER": True})


def read_others(door):
    """Read a hundred thousand other names once each, in two ways."""
    for number in range(50_000):
        door.knows(f"other:{number}")
    for start in range(50_000, 100_000, 100):
        door.known([f"other:{number}" for number in range(start, start + 100)])


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


async def test_a_name_that_was_near_is_known(copies, raw, asked):
    """When a copy ends because its entry changed, the next read leaves another."""
    near = copies(near={"DOORKEEPER": True, "MAX_BYTES": 1_000_000})
    await near.set("key", 1)
    await copied(near, "key")
    # Many more other names than there are cells make the doorkeeper forget.
    read_others(near.near.store.door)
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
    alone, together = Doorkeeper(10_000_000), Doorkeeper(10_000_000)
    names = [f"name:{number % 10}" for number in range(50)]

    one_by_one = [name for name in names if alone.knows(name)]
    at_once = {found for start in range(0, 50, 10) for found in together.known(names[start : start + 10])}

    assert set(one_by_one) == at_once == set(names)
    assert together.known(["name:0", "name:0", "another", "another"]) == {"name:0", "another"}


def test_names_are_forgotten():
    """After many others a name is new again, however many names there ever were."""
    door = Doorkeeper(1_000_000)
    assert not door.knows("name")
    assert door.knows("name")

    read_others(door)

    assert not door.knows("name")
    assert door.bytes == door.max_bytes == 4 * 2048


def sharing(door, names):
    """Return *names* names that share both cells of *door*'s table."""
    _, _, mask, _ = door._table
    found = defaultdict(list)
    for number in count():
        name = f"name:{number}"
        group = found[hash(name) & mask, (hash(name) >> module.TAG) & mask]
        group.append(name)
        if len(group) == names:
            return group


@pytest.mark.parametrize("names", [2, 3, 4])
@pytest.mark.parametrize("together", [False, True])
def test_names_that_share_their_cells(names, together):
    """Names that share both cells and are read in turn are all known after some rounds."""
    door = Doorkeeper(16_000)
    left = sharing(door, names)
    rounds = 0
    while left:
        known = door.known(left) if together else {name for name in left if door.knows(name)}
        left = [name for name in left if name not in known]
        rounds += 1
        assert rounds < 1000


def hits_of_passes(store, number, passes):
    """Read *number* names in a fixed order again and again, and return the hits in each hundred reads, by pass."""
    epoch, ratios = Epoch(inf), []
    for _ in range(passes):
        hits = 0
        for name in (f"p:1:user:{rank}" for rank in range(number)):
            entry = store.copies.get(name)
            if entry is not None:
                entry.hits += 1
                hits += 1
            elif store.door is None or store.door.knows(name):
                store.put(name, 1, None, inf, epoch)
        ratios.append(100 * hits / number)
    return ratios


@pytest.mark.parametrize(("max_bytes", "number"), [(1_000_000, 3_000), (1_000_000, 300), (8_000_000, 24_000)])
def test_a_loop_that_fits(max_bytes, number):
    """A loop over names whose copies fit has nearly all hits after some passes, as without a doorkeeper."""
    assert hits_of_passes(Store(max_bytes), number, 2)[-1] == 100
    store = Store(max_bytes, Doorkeeper(max_bytes))
    assert hits_of_passes(store, number, 14)[-1] > 95
    assert store.bytes <= max_bytes


async def test_the_same_many_again_and_again(copies, asked):
    """All of a thousand names get copies, although many share a cell of the table."""
    near = copies(near={"DOORKEEPER": True, "MAX_BYTES": 1_000_000})
    names = [f"user:{number}" for number in range(1000)]
    await near.set_many(dict.fromkeys(names, "x"))
    await near.fence()
    for _ in range(60):
        await near.get_many(names)
    asked()

    assert len(await near.get_many(names)) == 1000

    assert asked() == 0


def test_the_table_grows_with_the_reads(monkeypatch):
    """It is small until many names are read, whatever the size of the store; the store counts its bytes."""
    monkeypatch.setattr(module, "chance", random.Random(1).random)
    store = Store(16_000_000_000, Doorkeeper(16_000_000_000))
    door, empty = store.door, store.bytes
    assert door.bytes == 4096
    assert door.max_bytes < 16_000_000_000 // 50

    for number in range(20_000):
        door.knows(f"name:{number}")

    assert 20_000 * module.CELL < door.bytes < 20_000 * 8 * module.CELL
    assert store.bytes == empty + door.bytes - 4096


def test_a_full_store_and_a_table_that_grows():
    """The room for the largest table is kept free of copies, so the store stays within its bytes."""
    store = Store(4_000_000, Doorkeeper(4_000_000))
    epoch = Epoch(inf)
    for number in range(20_000):
        store.put(f"name:{number}", number, None, inf, epoch)
    assert store.bytes <= 4_000_000 - store.door.max_bytes + store.door.bytes

    store.door.known([f"other:{number}" for number in range(100_000)])

    assert store.door.bytes == store.door.max_bytes
    assert store.bytes <= 4_000_000


def test_the_programs_own_chance():
    """The doorkeeper takes no numbers from the sequence of `random`, which the program may have seeded."""
    random.seed(1)
    Doorkeeper(16_000).known([f"name:{number}" for number in range(1000)])
    assert random.random() == random.Random(1).random()
