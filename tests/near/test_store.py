"""The store of the near cache."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleetcache.near import store as store_module
from fleetcache.near.store import CELL, ENDED, GHOSTS, LARGEST, PACKED, Entry, Epoch, Queue, Store

pytestmark = pytest.mark.alone

FOR_EVER = inf


def entries(head: Queue) -> Iterator[Entry]:
    """Yield the copies of a queue, the front first."""
    entry = head.after
    while not isinstance(entry, Queue):
        yield entry
        entry = entry.after


def validate(store: Store) -> None:
    """Check everything that is to be true between two calls."""
    queues = {head: list(entries(head)) for head in (store._gone, store._main, store._small)}
    ring = [each for head, queue in queues.items() for each in (head, *queue)]
    assert all(
        before.after is after and after.before is before
        for before, after in zip(ring, [*ring[1:], ring[0]], strict=True)
    )
    assert sum(map(len, queues.values())) == len(store.copies)
    assert all(store.copies[entry.name] is entry for queue in queues.values() for entry in queue)
    for head in (store._main, store._small):
        assert all(entry.queue is head for entry in queues[head])
        assert head.weight == sum(entry.weight for entry in queues[head])
    held = sum(entry.weight for entry in store.copies.values())
    assert store.bytes == Store(store.max_bytes)._held + held + getsizeof(store.copies) + CELL * len(store._ghosts)
    assert store.bytes <= store.max_bytes or not store.copies
    assert getsizeof(store.copies) <= store._table
    assert any(store._hand is each for each in ring)
    assert len(store._ghosts) & (len(store._ghosts) - 1) == 0


# Against a model ---------------------------------------------------------------------------------

NAMES = st.sampled_from([f"name:{number}" for number in range(60)] + [f"имя:{number}" for number in range(20)])
SIZES = st.sampled_from([None, 0, 100, 1_000, 3_000, 20_000])


class Copies(RuleBasedStateMachine):
    """A store beside a dict that never evicts."""

    @initialize(max_bytes=st.sampled_from([10_000, 30_000, 100_000]))
    def begin(self, max_bytes: int) -> None:
        self.store = Store(max_bytes)
        self.copies = self.store.copies
        self.model: dict[str, Entry] = {}
        self.epochs = [Epoch(FOR_EVER), Epoch(FOR_EVER)]
        self.now = 0.0
        self.hits = 0

    @rule(name=NAMES, size=SIZES, life=st.integers(1, 20), which=st.integers(0, 1))
    def put(self, name: str, size: int | None, life: int, which: int) -> None:
        payload = None if size is None else bytes(size)
        self.model.pop(name, None)

        kept = self.store.put(name, PACKED, payload, self.now + life, self.epochs[which])

        assert kept is (name in self.copies)
        if kept:
            entry = self.model[name] = self.copies[name]
            assert (entry.name, entry.value, entry.payload) == (name, PACKED, payload)
            assert (entry.deadline, entry.epoch, entry.hits) == (self.now + life, self.epochs[which], 0)

    @rule(name=NAMES, times=st.integers(1, 4))
    def hit(self, name: str, times: int) -> None:
        entry = self.copies.get(name)
        if entry is not None:
            assert entry is self.model[name]
            entry.hits += times
            self.hits += times

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        there = name in self.copies

        assert self.store.drop(name) is there
        assert name not in self.copies
        self.model.pop(name, None)

    @rule(which=st.integers(0, 1))
    def end_one_epoch(self, which: int) -> None:
        self.epochs[which].until = ENDED
        self.epochs[which] = Epoch(FOR_EVER)

    @rule()
    def end_all_epochs(self) -> None:
        for which in (0, 1):
            self.end_one_epoch(which)
        self.store.forget()
        assert not [*entries(self.store._main), *entries(self.store._small)]

    @rule(passed=st.integers(0, 10), limit=st.sampled_from([1, 7, 1000]))
    def sweep(self, passed: int, limit: int) -> None:
        self.now += passed
        before = len(self.copies)

        more = self.store.sweep(self.now, limit)

        assert before - len(self.copies) <= limit
        if limit == 1000:
            assert not more

    @rule(limit=st.sampled_from([1, 7]))
    def sweep_to_the_end(self, limit: int) -> None:
        for _ in range(2):  # the first may be the rest of a round
            while self.store.sweep(self.now, limit):
                pass
        assert all(entry.epoch.until != ENDED and self.now < entry.deadline for entry in self.copies.values())

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()
        self.hits = 0
        assert not self.copies

    @invariant()
    def only_what_was_put(self) -> None:
        """What is there is what was put last; what is missing was evicted."""
        if not hasattr(self, "store"):
            return
        assert self.copies is self.store.copies
        assert all(self.model[name] is entry for name, entry in self.copies.items())
        gone = len(self.model) - len(self.copies)
        if not sum(self.store.evictions.values()):
            assert not gone
        assert self.store.entries == len(self.copies)
        assert self.store.hits == self.hits
        validate(self.store)


TestCopies = Copies.TestCase
TestCopies.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# What is kept ------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Store:
    """A store of about a hundred copies of 1 kB."""
    return Store(130_000)


def keep(store: Store, *names: str, size: int = 1_000) -> None:
    epoch = Epoch(FOR_EVER)
    for name in names:
        store.put(name, PACKED, bytes(size), FOR_EVER, epoch)


def hit(store: Store, *names: str, times: int = 1) -> None:
    for name in names:
        if name in store.copies:
            store.copies[name].hits += times


def series(prefix: str, length: int) -> list[str]:
    return [f"{prefix}:{number}" for number in range(length)]


def test_copies_that_were_hit_outlast_a_scan(store):
    """Names asked for once push out each other, not those that are asked for again and again."""
    hot = series("hot", 50)
    keep(store, *hot)
    hit(store, *hot)

    for name in series("once", 2_000):
        keep(store, name)
        hit(store, random.choice(hot))

    assert sum(name in store.copies for name in hot) >= 49
    validate(store)


def test_a_name_that_comes_back_enters_the_main_queue(store):
    """The name of a copy evicted before it was hit is remembered."""
    keep(store, *series("once", 200))
    evicted = [name for name in series("once", 200) if name not in store.copies][-10:]

    keep(store, *evicted, "new")

    # One or two may have been overwritten: the table forgets by chance.
    assert sum(store.copies[name].queue is store._main for name in evicted) >= 5
    assert store.copies["new"].queue is store._small


def test_a_name_is_forgotten_in_time(store):
    """The table of names does not remember for ever."""
    keep(store, "old", *series("once", 5_000))

    keep(store, "old")

    assert store.copies["old"].queue is store._small


def test_a_dropped_name_is_not_remembered(store):
    """An invalidation says nothing about how popular a name is."""
    keep(store, "a")
    store.drop("a")

    keep(store, "a")

    assert store.copies["a"].queue is store._small


def test_a_copy_that_replaces_another_keeps_its_queue(store):
    """A refilled copy need not earn its place again."""
    keep(store, "hot")
    hit(store, "hot")
    keep(store, *series("once", 200))
    assert store.copies["hot"].queue is store._main

    keep(store, "hot", size=500)

    assert store.copies["hot"].queue is store._main
    validate(store)


def test_main_gives_a_round_for_each_hit_up_to_three():
    """A copy with a thousand hits of long ago leaves soon after one with three."""
    store = Store(13_000)
    names = series("main", 8)
    keep(store, *names)
    hit(store, *names)
    keep(store, *series("once", 20))
    entry = store._main.after
    entry.hits += 1_000
    looks = []

    while entry.name in store.copies:
        seen = entry.seen
        store._evict_one()
        if entry.seen != seen:
            looks.append(entry.hits - entry.seen)
        keep(store, *(other for other in names if other not in store.copies and other != entry.name))
        hit(store, *(other for other in names if other != entry.name))

    assert looks == [2, 1, 0]


def test_one_eviction_looks_at_few_copies():
    """Where every copy was hit, a put does not look at all of them."""
    store = Store(1_000_000)
    names = series("hot", 3_000)
    keep(store, *names, size=10)
    hit(store, *names, times=3)

    looked = [entry.name for entry in store.copies.values() if entry.seen]
    keep(store, "new", size=10)
    looked = [entry.name for entry in store.copies.values() if entry.seen and entry.name not in looked]

    assert "new" in store.copies
    assert len(looked) <= 400
    validate(store)


def test_a_copy_too_large_is_refused_and_the_older_one_goes(store):
    """No copy takes more than a quarter; what it would have replaced is not served in its place."""
    keep(store, "a", "b")

    assert store.put("a", PACKED, bytes(130_000 // LARGEST), FOR_EVER, Epoch()) is False

    assert list(store.copies) == ["b"]
    assert store.evictions["too large"] == 1
    validate(store)


@pytest.mark.parametrize("max_bytes", [0, 100, 2_000, 3_000])
def test_a_tiny_store_refuses(max_bytes):
    """A limit below what an empty store takes leaves it empty."""
    store = Store(max_bytes)

    keep(store, *series("a", 10), size=0)

    assert len(store.copies) * 200 <= max_bytes
    validate(store)


def test_a_dict_that_grows_has_its_room():
    """At no number of copies does the dict's growth exceed the limit, or empty a part of the store."""
    store = Store(1_000_000)
    fullest = 0
    for number in range(20_000):
        keep(store, f"n:{number}", size=0)
        assert store.bytes <= store.max_bytes
        fullest = max(fullest, len(store.copies))
        assert len(store.copies) > 0.8 * fullest

    assert store.bytes > 0.85 * store.max_bytes


# What is of no use any more ----------------------------------------------------------------------


def test_forgotten_copies_leave_first(store):
    """After the epochs ended, room is made of the copies made in them, however often those were hit."""
    old = series("old", 90)
    keep(store, *old)
    hit(store, *old, times=3)
    store.forget()

    keep(store, *series("new", 85))

    assert all(name in store.copies for name in series("new", 85))
    assert store.evictions["ended"] >= 60
    assert store.evictions["size"] == 0
    validate(store)


def test_forgotten_copies_may_be_dropped_replaced_and_forgotten_again(store):
    """Each way out of the store works for a copy that was given up."""
    keep(store, "a", "b", "c")
    store.forget()
    keep(store, "a", "d")
    store.drop("b")
    store.forget()
    validate(store)

    while store.sweep(0.0, 1):
        validate(store)

    assert not store.copies
    assert store.evictions["ended"] == 3


def test_a_sweep_removes_what_is_past_its_deadline_or_epoch(store):
    """A late epoch may recover, an ended one may not."""
    ended, late = Epoch(5.0), Epoch(1.0)
    store.put("expired", PACKED, None, 2.0, late)
    store.put("late", PACKED, None, 3.0, late)
    store.put("ended", PACKED, None, 3.0, ended)
    ended.until = ENDED

    assert store.sweep(2.0) is False

    assert list(store.copies) == ["late"]
    assert store.evictions == {"size": 0, "expired": 1, "ended": 1, "too large": 0}


def test_a_sweep_in_slices_misses_nothing(store):
    """Drops and puts between the slices do not hide a copy from a round."""
    epoch = Epoch(FOR_EVER)
    for number, name in enumerate(series("a", 90)):
        store.put(name, PACKED, None, 1.0 if number % 3 else 9.0, epoch)
    living = {f"a:{number}" for number in range(0, 90, 3)}

    number = 0
    while store.sweep(2.0, 7):
        number += 1
        dropped = f"a:{number * 7 % 90}"
        store.drop(dropped)
        living.discard(dropped)
        store.put(f"b:{number}", PACKED, None, 9.0, epoch)
        living.add(f"b:{number}")
        validate(store)

    assert store.copies.keys() == living


def test_a_dropped_copy_keeps_no_other_alive(store):
    """A reader may hold a copy for long: it does not hold all that were dropped since."""
    keep(store, "a", "b")
    store.put("c", frozenset({1}), None, 1.0, Epoch())
    value = weakref.ref(store.copies["c"].value)
    held = store.copies["b"]

    store.drop("b")
    store.drop("c")

    assert value() is None
    assert (held.name, held.payload) == ("b", bytes(1_000))


def test_clear_leaves_nothing_to_the_garbage_collector(store):
    """A child of a fork may never collect what its parent made."""
    values = [frozenset({number}) for number in range(50)]
    for number, value in enumerate(values):
        store.put(f"a:{number}", value, None, 1.0, Epoch())
    store.forget()
    for number, value in enumerate(values[25:]):
        store.put(f"b:{number}", value, None, 1.0, Epoch())
    references = [weakref.ref(value) for value in values]
    del value, values
    copies = store.copies

    gc.disable()
    try:
        store.clear()
        held = [reference for reference in references if reference() is not None]
    finally:
        gc.enable()

    assert held == []
    assert store.copies is copies == {}
    assert store.bytes == Store(store.max_bytes).bytes
    validate(store)


# Threads -----------------------------------------------------------------------------------------


def test_readers_need_no_lock():
    """While a writer puts, evicts, drops and forgets, each reader sees whole copies of the name it asked for."""
    store = Store(50_000)
    copies = store.copies
    names = series("a", 200)
    done = threading.Event()
    wrong: list[Any] = []
    found = [0] * 3

    def read(which: int) -> None:
        chance = random.Random(which)
        while not done.is_set():
            name = chance.choice(names)
            entry = copies.get(name)
            if entry is None:
                continue
            entry.hits += 1
            value, payload = entry.value, entry.payload
            if (value, payload) not in {(name, None), (PACKED, name.encode())} or entry.deadline != 1.0:
                wrong.append((name, value, payload))
            found[which] += 1

    readers = [threading.Thread(target=read, args=(which,)) for which in range(3)]
    for reader in readers:
        reader.start()
    chance = random.Random(7)
    epoch = Epoch()
    for number in range(6_000):
        name = chance.choice(names)
        if number % 2:
            store.put(name, name, None, 1.0, epoch)
        else:
            store.put(name, PACKED, name.encode(), 1.0, epoch)
        if number % 3 == 0:
            store.drop(chance.choice(names))
        if number % 1_000 == 0:
            store.forget()
        assert store.hits >= 0  # looks at all copies without a lock of its own
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert all(found)
    validate(store)


# Bytes -------------------------------------------------------------------------------------------


def name_of(number: int) -> str:
    return f"app:1:{number}"


def long_name_of(number: int) -> str:
    return f"{number}:".ljust(120, "x")


def foreign_name_of(number: int) -> str:
    return f"приложение:{number}"


Content = Callable[[int], tuple[Any, bytes | None]]
CONTENTS: dict[str, Content] = {
    "absent": lambda number: (PACKED, None),
    "None": lambda number: (None, None),
    "bool": lambda number: (number % 2 == 0, None),
    "small int": lambda number: (number % 200, None),
    "int": lambda number: (number + 1_000, None),
    "large int": lambda number: (number + (1 << 200), None),
    "float": lambda number: (number / 7, None),
    "short text": lambda number: (f"text {number}", None),
    "foreign text": lambda number: (f"текст {number}", None),
    "tuple": lambda number: ((number + 1_000, f"text {number}"), None),
    "100 B": lambda number: (PACKED, b"%0100d" % number),
    "1 kB": lambda number: (PACKED, b"%01000d" % number),
    "50 kB": lambda number: (PACKED, b"%050000d" % number),
}


def mixed(number: int) -> tuple[Any, bytes | None]:
    kinds = list(CONTENTS.values())
    return kinds[number % (len(kinds) - 1)](number)


CASES = [
    *[(100, name_of, kind) for kind in CONTENTS],
    *[(1_000, foreign_name_of, kind) for kind in CONTENTS if kind != "50 kB"],
    *[(1_000, long_name_of, kind) for kind in ("absent", "int", "1 kB", "mixed")],
    (20_000, name_of, "absent"),
    (50_000, name_of, "mixed"),
    (400, foreign_name_of, "50 kB"),
]


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Yield what returns the bytes that were asked of the allocator since, and are still held."""
    gc.collect()  # empties the free lists too, which give what the allocator would have been asked for
    gc.disable()  # nothing of a store may wait for it
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("count, name, kind", CASES, ids=[f"{c}-{n.__name__}-{k}" for c, n, k in CASES])
def test_bytes_are_what_is_held(count, name, kind):
    """The count is within a tenth of what was asked of the allocator, and of what it gave."""
    content = CONTENTS.get(kind, mixed)
    epoch = Epoch()

    with counting() as held:
        store = Store(1 << 30)
        for number in range(count):
            store.put(name(number), *content(number), number + 0.5, epoch)
        asked = given = held()
        if count < 5_000:  # small objects are given multiples of 16 bytes
            given += sum(-trace.size % 16 for trace in tracemalloc.take_snapshot().traces)

    assert len(store.copies) == count
    assert store.bytes == pytest.approx(asked, rel=0.1)
    assert store.bytes == pytest.approx(given, rel=0.1)


def test_bytes_are_what_is_held_after_evictions_and_drops():
    """The count stays right when a full store has turned over several times."""
    epoch = Epoch()
    chance = random.Random(1)

    with counting() as held:
        store = Store(2_000_000)
        for number in range(12_000):
            at = chance.randrange(20_000)
            store.put(name_of(at), *mixed(at), number + 0.5, epoch)
            if number % 4 == 0:
                store.drop(name_of(chance.randrange(20_000)))
        asked = held()

    assert store.evictions["size"] > 1_000
    assert store.bytes == pytest.approx(asked, rel=0.1)


def test_puts_and_drops_leave_nothing_behind():
    """However often names are invalidated and filled again, or come but once, everything inside stays as it was."""
    store = Store(1_000_000)
    epoch = Epoch()
    names = series("a", 100)
    most = 0

    def churn(rounds: int) -> None:
        nonlocal most
        for turn in range(rounds):
            for name in names:
                store.put(name, PACKED, b"x" * 100, 1.0, epoch)
            for name in names:
                store.drop(name)
            store.put(f"once:{turn}", PACKED, b"", 1.0, epoch)
            store.drop(f"once:{turn}")
            most = max(most, getsizeof(store.copies))

    churn(20)
    with counting():
        churn(200)
        # Of the store only: threads that other tests have left may make something meanwhile.
        traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, store_module.__file__)])
        kept = sum(trace.size for trace in traces.statistics("filename"))

    assert kept < 20_000
    assert not store.copies
    assert most <= 16 * 1024
    assert len(store._ghosts) == GHOSTS
    assert store._held == Store(0)._held
    assert store._main.weight == store._small.weight == 0
    validate(store)
