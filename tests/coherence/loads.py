"""Whether what loading calls returned, and how often they loaded, can be right: a checker of histories.

A history is what happened, as the processes saw it, on a clock that all of them share: loads (the runs of loaders), calls
(``get_or_set`` and reads) and invalidations.  Every value names its origin, the load or the ``set`` that made it, so that
nothing has to be searched: a key with n operations needs O(n log n).

What is checked (`check`), by the promises of loading:

* **unknown**: a call returned what no load of its key made, what was begun only later, or what was not to be stored;
  or nothing, where it loads;
* **given up**: a call began after a hard invalidation was acknowledged, and got a value whose load had begun before the
  invalidation was invoked.  Copies of other processes may lag, but only values that were complete when it was acknowledged;
* **soft**: the same of a soft invalidation, got as a fresh value;
* **expired**: a value was served as fresh after its fresh life;
* **too stale**: a value was served for longer after its fresh life than the call allowed; `stale_if_error` only allows
  it if a load failed meanwhile;
* **loaded twice**: in the fleet a load began although nothing had ended the lease of the one before it, nor the life of
  its value: no invalidation, failure, expiry, take-over or impatience;
* **not stored**: a load was led by a call that began when the value of another had been stored, and nothing had ended it;
* **two at a time**: the same in one process while the earlier load ran; those who lose patience start one together;
* **hangs**, **deadline**: a call never returned, or took longer than its patience and one load;
* **exception**: a loader's exception reached a call that had not joined that load;
* **fail-safe**: or one for which there was a stale value that it allowed;
* **throttle**: a call was refused although no load had failed in the last *retry_after* seconds;
* **cancellation**, **quit**: what befell one caller befell another;
* **lost**: a value was made, and its caller got an error;
* **error**: a call failed before any server did.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf

RUNNING, DONE, FAILED, SKIPPED, CANCELLED, QUIT = "running", "done", "failed", "skipped", "cancelled", "quit"
"""How loads end.  Calls may also end by these:"""
RAISED, THROTTLED, TIMED_OUT, ERROR, HUNG, DOUBTFUL = "raised", "throttled", "timed out", "error", "hung", "doubtful"

GET_OR_SET, GET, LOOKUP = "get_or_set", "get", "lookup"
"""The kinds of calls; a *get* has only fresh values."""

DELETE, SET, SOFT, TAG, CLEAR, LOSS = "delete", "set", "soft", "tag", "clear", "loss"
"""The kinds of invalidations.  A *loss* removes everything, leases too, and gives up nothing that is made anew."""

EVERYTHING = "*"
"""The key of an invalidation of all keys."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The policy by which the calls of a key load, in seconds."""

    timeout: float = 60.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    early: float = 0.0
    jitter: float = 0.0
    lease: float = 1.0
    wait: float = 2.0
    retry_after: float = 0.0
    soft_timeout: float = inf
    hard_timeout: float = inf
    longest: float = inf
    """How long a load takes at most."""


@dataclass(frozen=True, slots=True)
class Load:
    """One run of a loader, for the call that led it."""

    id: str
    process: str
    key: str
    call: str
    began: float
    ended: float = inf
    outcome: str = RUNNING
    tags: tuple[str, ...] = ()
    version: int = 0
    """That of the database's row, which it has read."""

    def __str__(self) -> str:
        return f"{self.began:.4f}-{self.ended:.4f} load {self.id} of {self.key} for {self.call}: {self.outcome}, v{self.version}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that wants a value.

    *origin* is the load or `set` that made what it returned, or the load whose exception it raised.
    """

    id: str
    process: str
    key: str
    invoked: float
    returned: float = inf
    outcome: str = HUNG
    origin: str = ""
    kind: str = GET_OR_SET
    cancelled: bool = False
    """Whether it was cancelled by its own caller."""
    refresh: bool = False
    fenced: bool = False
    """Whether no copy may answer it."""
    stale: bool | None = None
    """Whether it was told that the value is stale; None if that is not said."""
    detail: str = ""
    batch: bool = False
    """Whether it is one of several keys of one call, which fails as a whole."""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{self.invoked:.4f}-{self.returned:.4f} {self.kind} {self.id} of {self.key}: "
            f"{self.outcome} {self.origin or 'nothing'}{detail}"
        )


@dataclass(frozen=True, slots=True)
class Invalidation:
    """One invalidation of a key, of a tag (*key* is its name), or of everything; of a `set`, its value and *life*."""

    id: str
    process: str
    kind: str
    key: str
    invoked: float
    returned: float = inf
    outcome: str = DOUBTFUL
    life: float = inf
    version: int = 0
    tags: tuple[str, ...] = ()
    """Of a `set`, those of its value."""

    def __str__(self) -> str:
        return f"{self.invoked:.4f}-{self.returned:.4f} {self.kind} {self.id} of {self.key}: {self.outcome}, v{self.version}"


Operation = Load | Call | Invalidation


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that *operation* broke, and what shows it."""

    promise: str
    operation: Operation
    because: Operation | None = None
    by: float = 0.0
    """How many seconds too late, or too early."""

    def __str__(self) -> str:
        proof = f"\n    because of {self.because}" if self.because else ""
        return f"{self.promise} (by {self.by:.4f} s): {self.operation}{proof}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a whole history."""

    terms: Mapping[str, Terms] = field(default_factory=dict)
    """Of each key; of those left out, *usual*."""
    usual: Terms = Terms()
    lag: float = 0.0
    """For how long copies of other processes may be served after an invalidation: T_LIVE, or 0 without near caches."""
    late_clears: float = 0.0
    """On a cluster, for how long after a `clear` there may be what was loaded meanwhile, until it is deleted again."""
    outages: Sequence[tuple[float, float]] = ()
    """When servers did not answer all, and leases may not be had."""
    returns: Sequence[tuple[float, float]] = ()
    """When they came back: a load that began without a lease is joined no more, as nobody knows what has changed since."""
    epochs: Sequence[tuple[float, float]] = ()
    """When others took the place of servers: what was acknowledged around then may be undone, and leases gone."""
    failing_since: float = inf
    """From when on calls may fail: how soon servers are tried again after an outage is checked elsewhere."""
    swallows: bool = False
    """Whether invalidations that fail in an outage do not say so."""
    slack: float = 0.15
    """Seconds by which clocks and schedulers may differ."""
    handover: float = 0.25
    """Seconds that a load may begin after its lease was taken."""
    grace: float = 1.0
    """Seconds that a call may take longer than its wait and a load."""


REPLICATION = 0.5
"""Seconds in which what was acknowledged has reached the replicas."""


def check(history: Iterable[Operation], rules: Rules) -> list[Violation]:
    """Return the promises that *history* breaks; see the module's text for what they are."""
    loads: dict[str, list[Load]] = defaultdict(list)
    calls: dict[str, list[Call]] = defaultdict(list)
    invalidations: dict[str, list[Invalidation]] = defaultdict(list)
    for each in history:
        match each:
            case Load():
                loads[each.key].append(each)
            case Call():
                calls[each.key].append(each)
            case _:
                invalidations[f"#{each.key}" if each.kind == TAG else each.key].append(_doubted(each, rules))
    violations = [
        violation
        for key in loads.keys() | calls.keys()
        for violation in _Key(rules, key, loads[key], calls[key], invalidations).violations()
    ]
    return sorted(violations, key=_moment)


def _moment(violation: Violation) -> float:
    operation = violation.operation
    return operation.began if isinstance(operation, Load) else operation.invoked


def _doubted(each: Invalidation, rules: Rules) -> Invalidation:
    """Return *each*, doubtful if its acknowledgement may mean nothing."""
    undone = any(each.returned > begin - REPLICATION and each.invoked < end for begin, end in rules.epochs)
    unsent = rules.swallows and _overlaps(each.invoked, each.returned, rules.outages)
    if each.outcome == DONE and (undone or unsent):
        return replace(each, returned=inf, outcome=DOUBTFUL)
    return each


def _overlaps(begin: float, end: float, times: Sequence[tuple[float, float]]) -> bool:
    return any(begin <= until and end >= since for since, until in times)


class _Acknowledged:
    """Invalidations: which of those that were invoked after a moment was acknowledged first?"""

    def __init__(self, invalidations: Iterable[Invalidation]) -> None:
        ordered = sorted((each for each in invalidations if each.outcome == DONE), key=lambda each: each.invoked)
        self._invoked = [each.invoked for each in ordered]
        self._first = list(accumulate(reversed(ordered), lambda one, two: min(one, two, key=_returned)))[::-1]

    def first(self, after: float) -> Invalidation | None:
        place = bisect_right(self._invoked, after)
        return self._first[place] if place < len(self._first) else None


def _returned(each: Invalidation) -> float:
    return each.returned


def _load_began(load: Load) -> float:
    return load.began


class _Events:
    """What allows another load: did any of it happen between two moments?"""

    def __init__(self, events: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(events)
        self._begins = [begin for begin, _ in ordered]
        self._ends = list(accumulate((end for _, end in ordered), max))

    def between(self, since: float, until: float) -> bool:
        place = bisect_right(self._begins, until)
        return place > 0 and self._ends[place - 1] >= since


class _Key:
    """The operations on one key, arranged for looking things up."""

    def __init__(
        self,
        rules: Rules,
        key: str,
        loads: Sequence[Load],
        calls: Sequence[Call],
        everywhere: Mapping[str, Sequence[Invalidation]],
    ) -> None:
        self.rules, self.terms = rules, rules.terms.get(key, rules.usual)
        self.loads = sorted(loads, key=_load_began)
        self.calls = calls
        self.by_id = {call.id: call for call in calls}
        self.led = {load.call: load for load in self.loads}
        tags = {tag for each in (*loads, *everywhere.get(key, ())) for tag in each.tags}
        places = {place: everywhere.get(place, ()) for place in (key, EVERYTHING, *(f"#{tag}" for tag in tags))}
        self.sets = {each.id: each for each in places[key] if each.kind == SET}
        self.origins = {load.id: load for load in self.loads}
        self.stored: dict[str, float] = {}
        for call in calls:
            if call.outcome == DONE and call.origin:
                self.stored[call.origin] = min(call.returned, self.stored.get(call.origin, inf))
        self.acknowledged: dict[tuple[str, bool, str | None], _Acknowledged] = {}
        for place, found in places.items():
            chosen: dict[tuple[str, bool, str | None], list[Invalidation]] = defaultdict(list)
            for each in found:
                if each.kind != LOSS:
                    chosen[place, each.kind == SOFT, None].append(each)
                    chosen[place, each.kind == SOFT, each.process].append(each)
            self.acknowledged |= {which: _Acknowledged(those) for which, those in chosen.items()}
        self._see_events([each for found in places.values() for each in found])
        self.waiting: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        """For each process, when calls began, and until when any that had begun by then went on."""
        for process in {load.process for load in loads}:
            own = sorted((each.invoked, each.returned) for each in calls if each.process == process)
            self.waiting[process] = [begin for begin, _ in own], list(accumulate((end for _, end in own), max))
        self.failures = sorted(load.ended for load in self.loads if load.outcome == FAILED)

    def _see_events(self, invalidations: Sequence[Invalidation]) -> None:
        terms, slack = self.terms, self.rules.slack
        shortest = terms.timeout * (1 - terms.jitter)
        pause = max(0.0, terms.retry_after - slack)
        held = [load for load in self.loads if not self._relieved(load)]
        ends = [(load.ended + pause, load.ended + terms.retry_after) for load in held if load.outcome == FAILED]
        ends += [(load.ended, load.ended) for load in held if load.outcome in {SKIPPED, CANCELLED, QUIT}]
        removals = [(each.invoked, each.returned) for each in invalidations if each.kind != SOFT]
        removals += [
            (each.invoked + each.life - slack, each.returned + each.life + slack)
            for each in self.sets.values()
            if each.life < inf
        ]
        removals += self.rules.epochs
        softened = [(each.invoked, each.returned) for each in invalidations if each.kind == SOFT]
        self.softened = _Events(softened)
        """What may keep from being stored what is not stored yet."""
        for load in self.loads:
            if load.outcome == DONE:
                begin = load.ended if terms.early else load.ended + shortest - slack
                softened.append((begin, self.stored.get(load.id, load.ended) + terms.timeout + slack))
        self.removals = _Events([*removals, *self.rules.outages])
        """What removes values."""
        self.local = _Events([*removals, *softened, *ends, *self.rules.returns])
        """What allows another load in the same process."""
        self.events = _Events([*removals, *softened, *ends, *self.rules.outages])

    def violations(self) -> Iterator[Violation]:
        for call in self.calls:
            yield from self._limits(call)
            if call.outcome == DONE:
                yield from self._value(call)
            elif call.outcome != HUNG:
                yield from self._end(call)
        yield from self._loads()
        for process in {load.process for load in self.loads}:
            yield from self._at_once([load for load in self.loads if load.process == process])

    # --- what was returned --------------------------------------------------------------------------

    def _value(self, call: Call) -> Iterator[Violation]:
        if not call.origin:
            if call.kind == GET_OR_SET:
                yield Violation("unknown", call)
            return
        load, write = self.origins.get(call.origin), self.sets.get(call.origin)
        if load is not None:
            if load.began > call.returned or load.outcome in {FAILED, CANCELLED, QUIT}:
                yield Violation("unknown", call, load, load.began - call.returned)
                return
            if load.outcome == SKIPPED and call.invoked > self._flown(load):
                yield Violation("unknown", call, load, call.invoked - load.ended)  # it was not to be stored
            began, complete, tags = load.began, load.ended, load.tags
            # What was returned by anybody had been stored before, if it was stored at all.
            ends = self.stored[load.id] + self.terms.timeout
        elif write is not None and write.invoked <= call.returned:
            # What was set while something else was invalidated may have come after it.
            began, complete, tags = (write.returned if write.outcome == DONE else inf), write.returned, write.tags
            ends = write.returned + write.life if write.outcome == DONE else inf
        else:
            yield Violation("unknown", call, write)
            return
        for place in (call.key, EVERYTHING, *(f"#{tag}" for tag in tags)):
            if hard := self._given_up(call, began, complete, place):
                yield Violation("given up", call, hard, call.invoked - hard.returned)
        softened = self._given_up(call, began, complete, call.key, soft=True)
        if softened and softened.returned < ends:
            yield from self._stale(call, softened.returned, "soft", softened)
        elif call.invoked > ends + self.rules.slack:
            yield from self._stale(call, ends, "expired", load or write)

    def _given_up(
        self, call: Call, began: float, complete: float, place: str, soft: bool = False
    ) -> Invalidation | None:
        """Return the invalidation that forbids what *call* returned, a hard one or a *soft* one."""
        lag = 0.0 if call.fenced else self.rules.lag
        # A copy of what was complete only later cannot be an old one.
        known = max(call.invoked - lag, min(call.invoked, complete))
        own = call.invoked
        if place == EVERYTHING and self.rules.late_clears:
            known = own = call.invoked - max(lag, self.rules.late_clears)
        for whose, until in ((None, known), (call.process, own)):
            acknowledged = self.acknowledged.get((place, soft, whose))
            if acknowledged and (first := acknowledged.first(began)) and first.returned < until:
                return first
        return None

    def _stale(self, call: Call, since: float, promise: str, because: Operation | None) -> Iterator[Violation]:
        """Check a value that is stale *since* then."""
        terms, slack, age = self.terms, self.rules.slack, call.invoked - since
        if call.kind == GET or call.stale is False:
            yield Violation(promise, call, because, age)
        elif call.stale:
            if age > max(terms.stale_while_revalidate, terms.stale_if_error) + slack:
                yield Violation("too stale", call, because, age)
        elif age > terms.stale_while_revalidate + (slack if terms.stale_while_revalidate else 0.0):
            if not terms.stale_if_error:
                yield Violation(promise if terms.stale_while_revalidate == 0 else "too stale", call, because, age)
            elif not self._failed(call) or age > terms.stale_if_error + slack:
                yield Violation("too stale", call, because, age)

    def _failed(self, call: Call) -> bool:
        """Whether a load failed during *call*, or so recently that none was tried, or took too long for it."""
        terms, retry = self.terms, self.terms.retry_after
        if call.returned - call.invoked >= min(terms.soft_timeout, terms.hard_timeout) - self.rules.slack / 10:
            return True
        place = bisect_left(self.failures, call.invoked - (retry + self.rules.slack if retry else 0.0))
        return place < len(self.failures) and self.failures[place] <= call.returned

    # --- how calls ended ------------------------------------------------------------------------------

    def _limits(self, call: Call) -> Iterator[Violation]:
        if call.outcome == HUNG:
            yield Violation("hangs", call)
            return
        limit = min(self.terms.wait + self.terms.longest, self.terms.hard_timeout) + self.rules.grace
        if call.returned - call.invoked > limit:
            yield Violation("deadline", call, by=call.returned - call.invoked - limit)

    def _end(self, call: Call) -> Iterator[Violation]:
        led, slack = self.led.get(call.id), self.rules.slack
        if call.batch and call.outcome in {RAISED, THROTTLED, QUIT}:
            return  # another key may be the reason
        match call.outcome:
            case "raised":
                load = self.origins.get(call.origin)
                joined = load and load.process == call.process and self._flown(load) >= call.invoked
                if not joined or load.began > call.returned or load.outcome != FAILED:
                    yield Violation("exception", call, load, call.invoked - load.ended if load else 0.0)
                elif last := self._certain(call):
                    yield Violation("fail-safe", call, last)
            case "throttled":
                if not self.terms.retry_after or not self._failed(call):
                    yield Violation("throttle", call)
            case "cancelled":
                if not call.cancelled:
                    yield Violation("cancellation", call, led)
            case "quit":
                if led is None or led.outcome != QUIT:
                    yield Violation("quit", call, led)
            case "timed out":
                if call.returned - call.invoked < self.terms.hard_timeout - slack:
                    yield Violation("error", call)
            case "error":
                if led is not None and led.outcome == DONE and not call.batch:  # another key may have no value
                    yield Violation("lost", call, led)
                elif call.returned < self.rules.failing_since:
                    yield Violation("error", call)
            case _:
                yield Violation("error", call)

    def _certain(self, call: Call) -> Load | None:
        """Return the load whose value had to answer *call* when its load failed."""
        terms, slack = self.terms, self.rules.slack
        kept = terms.timeout * (1 - terms.jitter) + terms.stale_if_error - slack
        for load in reversed(self.loads[: bisect_left(self.loads, call.invoked, key=_load_began)]):
            if load.outcome == DONE and self.stored.get(load.id, inf) < call.invoked and terms.stale_if_error:
                start = self._start(load)
                there = call.returned < load.ended + kept and not self.removals.between(start, call.returned)
                return load if there and not self.softened.between(start, self.stored[load.id]) else None
        return None

    # --- how often was loaded -------------------------------------------------------------------------

    def _start(self, load: Load) -> float:
        """Return when what led to *load* began."""
        call = self.by_id.get(load.call)
        return min(call.invoked, load.began) if call else load.began

    def _flown(self, load: Load) -> float:
        """Return until when *load* could be joined: its leader still has to free the lease."""
        call = self.by_id.get(load.call)
        return max(load.ended, call.returned if call and call.outcome in {DONE, RAISED} else 0.0)

    def _impatient(self, load: Load, *, surely: bool = False) -> bool:
        """Whether some caller in the process of *load* had waited long enough for others, perhaps or *surely*, when it began."""
        begins, longest = self.waiting.get(load.process, ((), ()))
        place = bisect_right(begins, load.began - self.terms.wait + (0.0 if surely else self.rules.slack))
        return place > 0 and longest[place - 1] >= load.began

    def _relieved(self, load: Load) -> bool:
        """Whether another took the lease over before *load* ended: its end does not free that one's."""
        first = bisect_left(self.loads, load.began + self.terms.lease, key=_load_began)
        return first < len(self.loads) and self.loads[first].began < load.ended

    def _refreshes(self, load: Load) -> bool:
        return load.call in self.by_id and self.by_id[load.call].refresh

    def _loads(self) -> Iterator[Violation]:
        """Check that each load had a reason, after the one before it in the fleet."""
        before: Load | None = None
        for load in self.loads:
            # Who has lost patience loads beside the one that has the lease.
            holder, before = before, before if before and self._impatient(load) else load
            if holder is None:
                continue
            since = min(self._start(holder), self._start(load))
            too_early = holder.began + self.terms.lease - self.rules.handover - load.began
            if too_early <= 0 or self._impatient(load) or self._refreshes(load) or self._refreshes(holder):
                continue
            if not self.events.between(since, load.began):
                yield Violation("loaded twice", load, holder, too_early)
        yield from self._unstored()

    def _unstored(self) -> Iterator[Violation]:
        """Check that no load was led by a call that began when a value was there."""
        kept = sorted(
            (self.stored[load.id], place)
            for place, load in enumerate(self.loads)
            if load.outcome == DONE and load.id in self.stored and not self._impatient(load)
        )
        for load in self.loads:
            place = bisect_left(kept, self._start(load), key=lambda each: each[0])
            if not place or self._refreshes(load):
                continue
            before = self.loads[kept[place - 1][1]]
            if not self.events.between(self._start(before), load.began):
                yield Violation("not stored", load, before, load.began - before.ended)

    def _at_once(self, loads: Sequence[Load]) -> Iterator[Violation]:
        """Check that in a process loads do not overlap without a reason."""
        running: list[Load] = []
        for load in loads:
            running = [each for each in running if each.ended > load.began and each.outcome != CANCELLED]
            for each in running:
                since = min(self._start(each), self._start(load))
                if self._refreshes(load) or self._refreshes(each) or self.local.between(since, load.began):
                    continue
                early = each.began + self.terms.wait - self.rules.slack - load.began
                if not self._impatient(load) or (self._impatient(each, surely=True) and early > 0):
                    yield Violation("two at a time", load, each, each.ended - load.began)
            running.append(load)
