"""The journal against a model that remembers everything."""

from __future__ import annotations

from collections import defaultdict
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcache.near import journal as journals
from fleetcache.near.journal import Journal

SLOTS = st.integers(0, 2)
MOSTLY = "aaaabcd"
"""Reads of one name overlap, and others make the journal forget."""

step = st.one_of(
    st.tuples(st.sampled_from(["depart", "depart and execute", "depart first"]), SLOTS, st.just("a")),
    st.tuples(st.just("execute"), SLOTS, st.just("")),
    st.tuples(st.just("arrive"), SLOTS, st.just("")),
    st.tuples(st.sampled_from(["write", "read"]), st.just(0), st.sampled_from(MOSTLY)),
    st.tuples(st.sampled_from(["announce", "own write", "read"]), st.just(0), st.just("a")),
)


class Model:
    """A server, the reads that are under way to it, and all that ever happened."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.versions: dict[str, int] = defaultdict(int)
        self.unannounced: list[str] = []
        self.reading: dict[int, tuple[str, int, int, int | None]] = {}
        self.events: list[tuple[str, str, int]] = []

    def do(self, what: str, slot: int = 0, name: str = "") -> None:
        reading = self.reading.get(slot)
        match what:
            case "write":
                self.versions[name] += 1
                self.unannounced.append(name)
            case "announce" if self.unannounced:
                self.note_write(self.unannounced.pop(0))
            case "own write":
                self.note_write(name)
                self.versions[name] += 1
                self.note_write(name)
            case "end":
                # What was still to be announced is never heard of.
                self.unannounced = []
                self.journal.end()
                self.events.append(("end", "", 0))
            case "depart" | "depart and execute" if reading is None:
                found = None if what == "depart" else self.versions[name]
                self.reading[slot] = (name, self.journal.depart(name), len(self.events), found)
            case "depart first" if reading is None:
                self.reading[slot] = (name, 0, len(self.events), self.versions[name])
            case "execute" if reading is not None and reading[3] is None:
                self.reading[slot] = (*reading[:3], self.versions[reading[0]])
            case "arrive" if reading is not None and reading[3] is not None:
                self.arrive(*self.reading.pop(slot))
            case "read":
                self.arrive(name, self.journal.depart(name), len(self.events), self.versions[name])

    def note_write(self, name: str) -> None:
        self.journal.write(name)
        self.events.append(("write", name, 0))

    def arrive(self, name: str, departed: int, since: int, version: int) -> None:
        # A name's first read leaves no copy; it is noted only where another read is, which it may contradict.
        may_stay = (departed or self.journal.knows(name)) and self.journal.read(name, departed, hash(version))
        meanwhile = [event for event in self.events[since:] if event[1] in {name, ""}]
        written = any(kind in {"write", "end"} for kind, *_ in meanwhile)
        contradicted = any(kind == "read" and found != version for kind, _, found in meanwhile)
        # Two reads that contradict each other concern all that are under way: see `test_values_that_return`.
        concerned = any(kind == "contradiction" for kind, *_ in meanwhile)
        newest = max((found for kind, of, found in self.events if kind == "read" and of == name), default=0)
        if may_stay:
            assert not written
            assert version >= newest, "a version is kept that is older than one that was read"
        elif journals.SPAN > 1000 and departed:
            assert written or contradicted or concerned, "refused for no reason"
        # A first read has no number, so that all that were noted before count as under way with it.
        noted = [found for kind, of, found in self.events if kind == "read" and of == name]
        self.events.append(("read", name, version))
        if contradicted or (not departed and any(found != version for found in noted)):
            self.events.append(("contradiction", name, 0))


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(step, min_size=20, max_size=60),
    ends=st.sets(st.integers(0, 60), max_size=2),
    span=st.sampled_from([2, 3, 4, 2048]),
)
def test_what_is_kept_is_new(steps, ends, span):
    """What may be kept was not written since the read was sent, and nobody has read anything newer; however much is forgotten."""
    with patch.object(journals, "SPAN", span):
        model = Model()

        for number, step in enumerate(steps):
            if number in ends:
                model.do("end")
            model.do(*step)


@settings(max_examples=100, deadline=None)
@given(others=st.integers(0, 20), span=st.integers(2, 6))
def test_what_was_forgotten_refuses(others, span):
    """A read that was under way while its name was written is refused, whatever was noted of other names since."""
    with patch.object(journals, "SPAN", span):
        journal = Journal()
        departed = journal.depart("a")
        journal.write("a")
        for number in range(others):
            journal.depart(f"other{number}")
            journal.write(f"other{number}")

        assert not journal.read("a", departed, 1)
        assert len(journal.recent) + len(journal.older) <= 2 * span
        assert journal.read("b", journal.now, 1)


def test_the_end_of_everything():
    """No read that was sent before is kept, and any that is sent after."""
    journal = Journal()
    departed = journal.depart("a")

    journal.end()

    assert not journal.read("a", departed, 1)
    assert journal.read("b", journal.now, 1)


def test_values_that_return():
    """Of reads that overlap, one that brings what was read last may be kept, whatever was read between."""
    journal = Journal()
    departed = journal.now

    assert journal.read("a", departed, 1)
    assert journal.read("a", journal.now, 2)
    assert not journal.read("a", departed, 1)
    assert not journal.read("a", departed, 1), "a contradiction concerns all that were under way"
    assert journal.read("a", journal.now, 1)
