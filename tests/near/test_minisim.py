"""The simulated store of the advice evicts what the near cache's own store evicts."""

from __future__ import annotations

from math import inf
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetcache.near.minisim import VOID, Mini, Sampled, weight_of
from fleetcache.near.store import PACKED, Entry, Epoch, Store

MAX_BYTES = 20_000
NAMES = 60

Step = tuple[Literal["read", "change", "sweep", "forget"], int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, NAMES), st.sampled_from((10, 200, 1000, 4000))),
        st.tuples(st.just("change"), st.integers(0, NAMES), st.just(0)),
        st.tuples(st.just("sweep"), st.just(0), st.integers(0, 50)),
        st.tuples(st.just("forget"), st.just(0), st.just(0)),
    ),
    max_size=300,
)


class Pair:
    """A store and its simulation with all names, which see the same reads."""

    def __init__(self) -> None:
        self.store = Store(MAX_BYTES)
        self.mini = Mini(MAX_BYTES, 1, 0, 0, self.gone, door=False)
        self.known: dict[str, Sampled] = {}
        self.now = 1.0

    def gone(self, sampled: Sampled) -> None:
        assert self.known.pop(sampled.name) is sampled

    def read(self, name: str, size: int) -> None:
        """Hit a copy or keep one, which expires before long."""
        self.now += 1
        entry, sampled = self.store.copies.get(name), self.known.get(name)
        if entry is not None and self.now < entry.deadline:
            assert sampled is not None
            entry.hits += 1
            return
        if sampled is None:
            sampled = Sampled(name, inf, 1)
        else:
            sampled.past += 1
        deadline = self.now + size % 77
        self.store.put(name, PACKED, bytes(size), deadline, Epoch(inf))
        kept = self.store.copies.get(name)
        # As `Advisor` does: the simulation knows the weight and, by the copy's own counter, the hits.
        self.mini.keep(sampled, weight_of(name, PACKED, bytes(size)), deadline)
        if sampled.count:
            self.known[name] = sampled
            assert kept is not None
            sampled.join(kept)

    def change(self, name: str) -> None:
        self.store.drop(name)
        if name in self.known:
            self.mini.change(self.known[name])

    def sweep(self, seconds: int) -> None:
        self.now += seconds
        while self.store.sweep(self.now):
            pass
        self.mini.sweep(self.now)
        # The store asks how large its dict is, which depends on its past; the simulation counts with what it may have at most.
        self.store._table = self.mini._table

    def forget(self) -> None:
        for name in list(self.known):
            self.change(name)

    def check(self) -> None:
        """Both have the same copies in the same order, and the same ghosts."""
        store, mini = self.store, self.mini
        for head, queue in ((store._main, mini.main), (store._small, mini.small)):
            copies = [copy for copy in queue if mini._is_there(copy)]
            assert [sampled.name for sampled, *_ in copies] == [entry.name for entry in ring(head)]
            for (sampled, weight, seen, deadline, _), entry in zip(copies, ring(head), strict=True):
                assert (weight, sampled.hits - seen, deadline) == (
                    entry.weight,
                    entry.hits - entry.seen,
                    entry.deadline,
                )
        assert (mini.entries, mini.held, mini._waiting) == (store.entries, store.held, store._small.weight)
        assert mini._ghosts == store._ghosts
        assert self.known.keys() == store.copies.keys()
        assert len(mini.small) + len(mini.main) <= 2 * mini.entries + VOID


def ring(head: Entry) -> list[Entry]:
    """Return the copies of a queue, its front first."""
    found, entry = [], head.after
    while entry.name:
        found.append(entry)
        entry = entry.after
    return found


@settings(deadline=None)
@given(steps=steps)
@example(steps=[("read", number % 40, 200) for number in range(3000)])
@example(steps=[(("read", "change")[number % 2], 1, 10) for number in range(1000)])
def test_simulation_evicts_what_the_store_evicts(steps: list[Step]) -> None:
    """After any reads, changes and expiries, with copies of all sizes."""
    pair = Pair()
    for kind, number, size in steps:
        if kind == "read":
            pair.read(f"n{number}", size)
        elif kind == "change":
            pair.change(f"n{number}")
        elif kind == "sweep":
            pair.sweep(size)
        else:
            pair.forget()
    pair.check()


def test_simulation_of_half_the_names_keeps_them() -> None:
    """When the rate is halved, the copies of the other names are dropped, and those that stay keep their order."""
    known: dict[str, Sampled] = {}
    mini = Mini(MAX_BYTES, 1, 0, 0, lambda sampled: known.pop(sampled.name), door=True)
    for number in range(40):
        sampled = known[f"n{number}"] = Sampled(f"n{number}", inf, 1)
        mini.keep(sampled, 300, inf)
    before = [copy[0].name for copy in mini.small]

    mini.lower()

    assert [copy[0].name for copy in mini.small] == [name for name in before if hash(name) < mini.limit]
    assert mini.entries == len(known) == len(mini.small)
    assert mini.held == 300 * mini.entries
