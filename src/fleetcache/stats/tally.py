"""What a process counts of one cache: reads, loads and bytes by group of keys, commands, errors, the largest keys.

All caches of one configuration share a `Tally`; ``OPTIONS["STATS"] = False`` makes none.  A read from a copy in the
process costs nothing: the copy counts its hits anyway, and knows its group.  Everything else adds to plain integers,
without a lock.  A sample of the exchanges is timed, and tells which keys are read most.  Whether an exchange is in the
sample depends on nothing but chance and on how many of its kind there were before: the distance from one to the next has
the geometric distribution, as if a coin was tossed for each.  So a program that reads its keys in turn does not deceive it,
and each exchange of the sample stands for the reciprocal of its probability.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import log
from operator import itemgetter
from time import perf_counter, time
from typing import Any, Final, Protocol, TypeVar

from redis.exceptions import ResponseError

from fleetcache.forks import chance, in_children
from fleetcache.stats.beginnings import PROCESS
from fleetcache.stats.groups import SPARED, SUMS, Group, Grouping, Groups
from fleetcache.stats.latency import Latency
from fleetcache.stats.top import Top, largest

SHOWN: Final = 20
"""How many keys a snapshot has in each list of the largest."""
STEPS: Final = ((32, 1), (512, 4), (2048, 16), (8192, 64))
"""Up to this many exchanges of a kind, one in so many is in the sample: a process that has read little can say something, too."""
LATER: Final = 128
"""One in this many of those after them.  To sample an exchange takes as long as to count 20."""
NAMES: Final = 32
"""Of how many names of one MGET the reads are noted at most."""
SAMPLES: Final = 64
"""How many samples are kept until they are added to the distributions."""
FEW: Final = 8
"""More commands than this are counted by `Counter`, which takes longer to begin with."""
PARTS: Final = ("near", "loading", "servers", "advice", "audit")
"""What a snapshot has from other objects."""

verb_of = itemgetter(0)
T = TypeVar("T")


class Copies(Protocol):
    """The near cache."""

    def hits_by_group(
        self, count: int, sums: Callable[[], T]
    ) -> tuple[T, list[tuple[Group, int, int]], list[tuple[str, int]]]:
        """Return *sums*, which have the hits of removed copies, and of the same moment those of the present ones.

        They are by group, of values and of "missing"; then come the *count* names with the most hits.
        """


class Calls:
    """The calls of one command.

    To count one that is asked alone, subtract 1 from `left`; at 0 it is in the sample.
    """

    __slots__ = ("due", "errors", "latency", "left", "others", "weight")

    def __init__(self) -> None:
        self.left = 1
        """How many calls are left until one is in the sample again."""
        self.due = 1
        """What the count will be then."""
        self.others = 0
        """Calls in exchanges of several commands, of which there is another sample."""
        self.weight = 1
        """For how many calls the latest one of the sample stands."""
        self.errors = 0
        """Refusals, and calls that got no reply."""
        self.latency = Latency()

    @property
    def count(self) -> int:
        """How many calls there were."""
        return self.due - self.left + self.others

    def start(self) -> float:
        """Return the time, at which an exchange begins that is in the sample; draw how many calls are left until the next one.

        It is drawn now: until there is a reply, any number of other tasks may call.
        """
        count = self.due - self.left
        if count > STEPS[-1][0]:
            self.weight, gap = LATER, _drawn(LATER)
        else:
            self.weight, gap = next(every for last, every in STEPS if count <= last), _gap(count)
        self.due, self.left = count + gap, gap
        return perf_counter()


def _gap(count: int) -> int:
    """Return how far the next call of the sample is from that with the number *count*."""
    past = count
    for last, every in STEPS:
        if past < last:
            reached = past + _drawn(every)
            if reached <= last:
                return reached - count
            past = last  # a coin does not remember, so from here on another one is tossed
    return past + _drawn(LATER) - count


def _drawn(every: int) -> int:
    """Return how often a coin is tossed until it shows what it shows once in *every* times."""
    return 1 + int(log(1 - chance.random()) / log(1 - 1 / every)) if every > 1 else 1


class Tally:
    """What this process has counted of the caches of one configuration since it began."""

    def __init__(self, grouping: Grouping, options: Any = None) -> None:
        self.options = options
        """``OPTIONS["STATS"]``, a `StatsOptions`."""
        self.alias = ""
        """The alias of the first cache of this configuration that has one."""
        self.parts: Callable[[], Callable[[], Mapping[str, Any]] | None] = _nothing
        """Returns a function, None if its object is gone, that returns the `PARTS`, and under ``copies`` the near store."""
        self.known = Groups(grouping)
        """The group of each name."""
        self.seen = self.known.seen
        """The groups of names that were seen lately."""
        self.calls: dict[bytes, Calls] = {}
        """By the name of the command; `called` makes those that are not there."""
        self.together = Calls()
        """All exchanges of several commands; its latency is not used."""
        self.errors: Counter[str] = Counter()
        """Exchanges that failed, by the class of the error."""
        self.samples: list[Any] = []
        """The exchanges that were timed lately: see `settle`."""
        self.means: Mapping[str, float] = {}
        """The mean time of a load in the fleet, in seconds, by group, as far as it is known: see `fleetcache.fleet.means`."""
        self.hits, self.bytes, self.seconds = self.known.hits, Top(), Top()
        self._begin()
        TALLIES.add(self)
        in_children(self.after_fork)

    def _begin(self) -> None:
        self.since = time()
        for group in (*self.known.named.values(), self.known.own):
            group.clear()  # in place: copies, and reads under way, refer to it
        self.calls.clear()
        self.errors.clear()
        self.samples = []
        self.together, self.loads = Calls(), Latency()
        for top in (self.hits, self.bytes, self.seconds):
            top.clear()

    def after_fork(self) -> None:
        """Start to count anew, in a child."""
        self._begin()

    def group(self, name: str) -> Group:
        """Return the group to which the entry called *name* belongs."""
        return self.known[name]

    @property
    def groups(self) -> dict[str, Group]:
        """The groups, by their names."""
        return self.known.named

    # --- entries ----------------------------------------------------------------------------------

    def wrote(self, name: str, payload: bytes | int | None) -> None:
        """Count an entry that was stored; a *payload* of None has a length that is not known."""
        group = self.seen.get(name) or self.known[name]
        group.writes += 1
        if payload is not None:
            group.bytes_written += len(payload) if type(payload) is bytes else len(str(payload))

    def wrote_all(self, names: Sequence[str], payloads: Sequence[bytes | int]) -> None:
        """Count entries that were stored together."""
        groups = self.known.of(names)
        first = groups[0]
        if groups.count(first) < len(groups) or int in set(map(type, payloads)):
            for name, payload in zip(names, payloads, strict=True):
                self.wrote(name, payload)
            return
        first.writes += len(groups)
        first.bytes_written += sum(map(len, payloads))  # type: ignore[arg-type]  # bytes

    def deleted(self, names: Iterable[str | bytes]) -> None:
        """Count entries that were to be deleted."""
        for name in names:
            self.known[name if isinstance(name, str) else name.decode(errors="replace")].deletes += 1

    def read_all(
        self, names: Sequence[str], keys: Iterable[Any], payloads: Sequence[bytes | None], found: Collection[Any]
    ) -> None:
        """Count reads that a server answered together with *payloads*; *found* are those of the *keys* that have a value."""
        groups = self.known.of(names)
        first = groups[0]
        if groups.count(first) == len(groups):  # nearly always: one group, and a few steps in C
            first.server += len(found)
            first.missed += len(groups) - len(found)
            first.bytes_read += sum(map(len, filter(None, payloads)))
            return
        for group, key, payload in zip(groups, keys, payloads, strict=True):
            if key in found and payload is not None:
                group.sizes.append(len(payload))
            else:
                group.read("missed", payload)

    # --- loads ------------------------------------------------------------------------------------

    def loaded(self, names: Sequence[str], seconds: float, *, failed: bool = False) -> None:
        """Count a loader that has run for the entries called *names*, each with an equal share of the time."""
        self.loads.note(seconds)
        share = seconds / len(names)
        for name in names:
            group = self.known[name]
            group.loads += 1
            group.load_errors += failed
            group.load_seconds += share
            self.seconds.add(self.known.grouping.key(name), share)

    # --- exchanges --------------------------------------------------------------------------------

    def asks(self, plan: Iterable[tuple[Any, Sequence[tuple[Any, ...]]]]) -> float:
        """Count the commands of *plan*, which are asked together; return the time if this exchange is in the sample, else 0."""
        known, called = self.calls.get, self.called
        for _, commands in plan:
            if len(commands) < FEW:
                for command in commands:
                    (known(command[0]) or called(command[0])).others += 1
            else:
                for verb, count in Counter(map(verb_of, commands)).items():
                    called(verb).others += count
        together = self.together
        together.left -= 1
        return together.start() if together.left <= 0 else 0.0

    def called(self, verb: bytes) -> Calls:
        """Return the calls of the command *verb*."""
        return self.calls.get(verb) or self.calls.setdefault(verb, Calls())

    def answered(
        self,
        sampled: Calls,
        began: float,
        command: tuple[Any, ...],
        answers: Iterable[tuple[tuple[Any, ...], Any]],
        *,
        timed: bool,
    ) -> None:
        """Note an exchange of the sample of *sampled* that began at *began*: *answers* are its commands with their replies.

        Its time counts for *command*, if *timed*, and if no connection was made meanwhile: the exchange may have waited for it.
        """
        took = perf_counter() - began if timed and PROCESS.connected < began else None
        reads: list[tuple[float, Sequence[str], list[int | None]]] = []
        for asked, reply in answers:
            weight: float = sampled.weight
            if asked[0] == b"GET" and type(reply) is bytes and isinstance(asked[1], str):
                self.known[asked[1]].settle()  # a group is read as often as it is in the sample
                reads.append((weight, asked[1:], [len(reply)]))
            elif asked[0] == b"MGET" and type(reply) is list and len(reply) == len(asked) - 1:
                names, values = asked[1:], reply
                if (of := len(names)) > NAMES:  # those from any place on, in a ring
                    begin, weight = int(chance.random() * of), weight * of / NAMES
                    names, values = _part(names, begin), _part(values, begin)
                for group in {*self.known.of(names)}:
                    group.settle()
                reads.append((weight, names, [len(each) if type(each) is bytes else None for each in values]))
        self.samples.append((self.called(command[0]), took, reads))
        if len(self.samples) >= SAMPLES:
            self.settle()

    def settle(self) -> None:
        """Add the samples to the distributions: many at a time, since code that runs seldom runs slowly."""
        for group in list(self.groups.values()):
            group.settle()
        samples, self.samples = self.samples, []
        known, key_of, own = self.known, self.known.grouping.key, self.known.own
        add_hits, add_bytes = self.hits.add, self.bytes.add
        for calls, took, reads in samples:
            if took is not None:
                calls.latency.note(took)
            for weight, names, sizes in reads:
                variance = weight * (weight - 1)
                for name, size in zip(names, sizes, strict=True):
                    if size is not None and known[name] is not own:
                        key = key_of(name)
                        add_hits(key, weight, variance)
                        add_bytes(key, weight * size, variance * size * size)

    def failed(self, error: BaseException, commands: Iterable[tuple[Any, ...]]) -> None:
        """Count *error*, which ended an exchange of *commands*; a refusal has been counted of its own command."""
        self.errors[type(error).__name__] += 1
        if not isinstance(error, ResponseError):
            for command in commands:
                self.called(command[0]).errors += 1

    # --- reading ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything that was counted, in a form for JSON; docs/observing.md says what each figure means."""
        look = self.parts()
        parts = {} if look is None else {**look()}
        copies = parts.pop("copies", None)
        return {**self.figures(copies), **dict.fromkeys(PARTS), **parts}

    def figures(self, copies: Copies | None = None) -> dict[str, Any]:
        """Return what was counted, and the hits of the *copies* that the near cache has now."""
        self.settle()
        groups, hits = self._sums(), self.hits.known()
        if copies is not None:
            groups, by_group, hottest = copies.hits_by_group(SHOWN, self._sums)
            for group, near, missed in by_group:
                if group.name in groups:
                    groups[group.name]["near"] += near
                    groups[group.name]["missed"] += missed
            for name, count in hottest:
                key = self.known.grouping.key(name)
                total, variance = hits.get(key, (0, 0))
                hits[key] = (total + count, variance)
        for name, sums in groups.items():
            sums["saved"] = saved(sums, self.means.get(name))
        commands = {
            verb.decode(): {"calls": each.count, "errors": each.errors, "latency": each.latency.figures()}
            for verb, each in self.calls.copy().items()
        }
        top = {"hits": hits, "bytes": self.bytes.known(), "seconds": self.seconds.known()}
        return {
            "since": self.since,
            "groups": groups,
            "commands": commands,
            "loads": {"latency": self.loads.figures()},
            "errors": dict(self.errors),
            "top": {name: largest(sums, SHOWN) for name, sums in top.items()},
        }

    def _sums(self) -> dict[str, dict[str, Any]]:
        return {name: {each: getattr(group, each) for each in SUMS} for name, group in self.groups.copy().items()}


def _part(ring: Sequence[Any], begin: int) -> Any:
    """Return `NAMES` of *ring*, from the place *begin* on; after the last comes the first."""
    return (*ring[begin : begin + NAMES], *ring[: max(begin + NAMES - len(ring), 0)])


def saved(sums: Mapping[str, Any], mean: float | None) -> float:
    """Return the seconds of loads that the cache has saved in a group: each read that needed none, by the *mean* load.

    That is the fleet's; if it is not known, the process's own.
    """
    if mean is None:
        mean = sums["load_seconds"] / sums["loads"] if sums["loads"] else 0.0
    return float(mean * sum(sums[level] for level in SPARED))


def _nothing() -> None:
    return None


TALLIES: weakref.WeakSet[Tally] = weakref.WeakSet()
"""The tallies of all caches of this process that are in use, or were lately."""
