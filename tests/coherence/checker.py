"""Whether what a cache answered can be right, given what was written: a checker of histories.

A history is what happened, as the processes saw it: each operation with its process, its key, the
version it wrote or read, and when it was begun and had returned, on a clock that all of them share
(``time.monotonic`` is one on a machine).  A key's versions are integers that grow in the order in
which the server applies the writes, so that nothing has to be searched: a key whose n-th write
made version n needs O(n log n).  Let the server draw them: ``INCR`` on the key itself, or a script
that draws one and stores or deletes.  Of a key that has one writer it may count them itself.

What may be absent has versions too:

* a key is absent before its first write: version 0;
* a *delete* is a write, and has a version of its own;
* a write with a *lifetime* is followed by the absence that its expiry makes, right after its version;
* a *loss* (FLUSHALL, a restart without data, `clear`) is the delete of unknown version: what was
  acknowledged before it began is gone, and what had begun before it ended may be.

A reader that finds nothing cannot know which absence it was.  So an absent read is right if any of them
would be, and proves to later reads no more than the oldest that would be.

What is checked, of each read that returned (`check`):

* **future**: it returned what nobody had begun to write by then, or what was never whole;
* **own write**: a write of its process had returned before it began, and it returned an older version;
* **monotonic**: the same, of an earlier read of its process;
* **stale**: the same, of anybody's write that had returned *delta* seconds before it began;
* **expired**: it began after the lifetime of what it returned had ended (and *delta* seconds after
  a touch that cut it);
* **quiescence**: it began *delta* seconds after the server was asked for the *truth*, when nobody
  wrote any more, and returned something else;
* **deadline**: it, or a write, took longer than *deadline*.

A write that failed or was given up may take effect at any time later, or never: it explains what
is read, and demands nothing.  An epoch, in which the server may have lost acknowledged writes
without a trace, ends all demands of what was before it.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

NOTHING = 0
"""The version of a read that found no value."""

SOMETHING = -1
"""The version of a read that found a value and did not look at it (`has_key`)."""

TORN = -2
"""The version of a read that found what nobody can have written."""

EVERY_KEY = "*"
"""The key of a loss that befell them all."""

READ, WRITE, DELETE, TOUCH, LOSS, TRUTH = "read", "write", "delete", "touch", "loss", "truth"
DONE, DOUBTFUL, FAILED = "done", "doubtful", "failed"

# Lifetimes are milliseconds at the server, which looks at its clock once in a command.
EXPIRY_SLACK = 0.005


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one key.

    *kind* is ``read``, ``write``, ``delete``, ``touch`` (gives *version*, which is there, another
    *lifetime*), ``loss`` (no version) or ``truth`` (a read of the server itself, when all writes
    are over).  *outcome* is ``done``, ``doubtful`` (it raised: it may have happened, or happen
    yet) or ``failed`` (it did nothing).  *version* None of a doubtful write is one that it never
    learned.  *delta* is the staleness allowed to a read, if it is not everybody's: 0 after a
    fence, with *invoked* the time at which that began.
    """

    process: str
    task: str
    kind: str
    key: str
    version: int | None
    invoked: float
    returned: float
    outcome: str = DONE
    lifetime: float | None = None
    delta: float | None = None

    def __str__(self) -> str:
        version = {NOTHING: "nothing", SOMETHING: "something", TORN: "torn"}.get(self.version or 0, self.version)
        shown = "?" if self.version is None else version
        ends = "" if self.outcome == DONE else f" {self.outcome}"
        lives = "" if self.lifetime is None else f" for {self.lifetime} s"
        return (
            f"{self.invoked:.6f}-{self.returned:.6f} {self.process}/{self.task} "
            f"{self.kind} {self.key} {shown}{lives}{ends}"
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that *operation* broke, and the operation that shows it."""

    promise: str
    operation: Operation
    because: Operation | None = None
    by: float = 0.0
    """How many seconds too late, or too long."""

    def __str__(self) -> str:
        proof = f"\n    after {self.because}" if self.because else ""
        return f"{self.promise} (by {self.by:.4f} s): {self.operation}{proof}"


@dataclass(slots=True)
class Pending:
    """An operation that is going on; what is learned of it is set here."""

    version: int | None = None
    versions: dict[str, int] = field(default_factory=dict)
    """The versions of several keys, where they differ."""
    outcome: str = DONE
    """What it is if nothing is raised."""


class Recorder:
    """Notes the operations of one process, those of all its threads and tasks.

    ::

        recorder = Recorder("web-1")
        with recorder.noting("read", "a") as read:
            read.version = cache.get("a", NOTHING)
        with recorder.noting("write", "a") as write:
            write.version = cache.incr("a")

    What raises is noted as doubtful, and raises on.
    """

    def __init__(self, process: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.process = process
        self.clock = clock
        self.history: list[Operation] = []

    @contextmanager
    def noting(
        self,
        kind: str,
        *keys: str,
        version: int | None = None,
        lifetime: float | None = None,
        task: str = "",
        delta: float | None = None,
    ) -> Iterator[Pending]:
        """Note one operation on *keys*."""
        pending, outcome, invoked = Pending(version), DOUBTFUL, self.clock()
        try:
            yield pending
            outcome = pending.outcome
        finally:
            returned = self.clock()
            task = task or threading.current_thread().name
            for key in keys:
                found = pending.versions.get(key, pending.version)
                self.history.append(
                    Operation(self.process, task, kind, key, found, invoked, returned, outcome, lifetime, delta)
                )


Epoch = tuple[float, float]


def check(
    history: Iterable[Operation],
    *,
    delta: float,
    epochs: Sequence[Epoch] = (),
    deadline: float | None = None,
) -> list[Violation]:
    """Return the promises that *history* breaks; see the module's text for what they are.

    *delta* is the staleness that is allowed, in seconds.  Each of *epochs* is the time from which
    on, and by which, servers may have lost acknowledged writes or have been exchanged for others.
    """
    history = list(history)
    violations = [violation for key in _by_key(history) for violation in _check_key(_Key(key), delta, sorted(epochs))]
    if deadline is not None:
        violations += [
            Violation("deadline", operation, by=operation.returned - operation.invoked - deadline)
            for operation in history
            if operation.kind != TRUTH and operation.returned - operation.invoked > deadline
        ]
    return sorted(violations, key=lambda violation: violation.operation.invoked)


def stalest(history: Iterable[Operation]) -> float:
    """Return how long the stalest read came after the acknowledgement of what it ought to have seen."""
    return max((key.age(read) for key in map(_Key, _by_key(history)) for read in key.reads), default=0.0)


def _by_key(history: Iterable[Operation]) -> list[list[Operation]]:
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.outcome != FAILED:
            keys[operation.key].append(operation)
    everywhere = keys.pop(EVERY_KEY, [])
    return [operations + everywhere for operations in keys.values()]


@dataclass(frozen=True, slots=True)
class _Effect:
    """What a write did to its key, placed among the versions: at least at *low*, at most at *high*."""

    low: float
    high: float
    present: bool
    begun: float
    acked: float
    operation: Operation


class _Key:
    """The operations on one key, arranged for looking things up."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.reads = [each for each in operations if each.kind == READ and each.outcome == DONE]
        self.truths = [each for each in operations if each.kind == TRUTH and each.outcome == DONE]
        writes = [each for each in operations if each.kind in {WRITE, DELETE}]
        self.effects = [_effect(each) for each in writes if each.version is not None]
        self.expiries = _expiries(operations)
        self.ends = {each.low: each for each in self.expiries}
        # Writes that were given up before they learned their version.
        unlearned = [each for each in writes if each.version is None]
        self.unlearned = min((each.invoked for each in unlearned if each.kind == WRITE), default=inf)
        effects = [*self.effects, *self.expiries]
        effects += [_Effect(0, inf, each.kind == WRITE, each.invoked, inf, each) for each in unlearned]
        self.losses = [_loss(each, effects, self.unlearned) for each in operations if each.kind == LOSS]
        self.effects += self.losses
        effects += self.losses
        self.all = effects
        # After an epoch a version may be made again.
        self.values = {each.low: each for each in sorted(self.effects, key=_begun, reverse=True) if each.present}
        self.of = {
            present: _Explanations([each for each in effects if each.present == present]) for present in (True, False)
        }
        ordered = sorted(effects, key=lambda each: each.low)
        self._lows = [each.low for each in ordered]
        # The first acknowledgement of all that are as high.
        self._acked = list(accumulate(reversed([each.acked for each in ordered]), min))[::-1]

    def place(self, read: Operation) -> float:
        """Return the highest place among the versions that what *read* found can have."""
        if read.version in {NOTHING, SOMETHING}:
            return self.of[read.version == SOMETHING].highest(read.returned)
        return _value(read)

    def age(self, read: Operation) -> float:
        """Return for how long something newer than what *read* found had been acknowledged."""
        newer = bisect_right(self._lows, self.place(read))
        return max(0.0, read.invoked - self._acked[newer]) if newer < len(self._acked) else 0.0


class _Explanations:
    """What may have made a key absent, or present without its value being looked at."""

    def __init__(self, effects: Sequence[_Effect]) -> None:
        begun = sorted(effects, key=_begun)
        self._begun = [each.begun for each in begun]
        self._highest = list(accumulate([each.high for each in begun], max))
        highs = sorted(effects, key=lambda each: each.high)
        self._highs = [each.high for each in highs]
        self._lowest = list(accumulate(reversed([each.low for each in highs]), min))[::-1]

    def highest(self, moment: float) -> float:
        """Return the newest place of those that had begun by *moment*; 0 is before all."""
        count = bisect_right(self._begun, moment)
        return self._highest[count - 1] if count else 0.0

    def lowest(self, bound: float) -> float:
        """Return the oldest place of those that are not before *bound*."""
        place = bisect_left(self._highs, bound)
        return max(bound, self._lowest[place]) if bound and place < len(self._lowest) else bound


class _Demands:
    """Effects by the time from which on they had to be seen; which is the newest of them at a time?"""

    def __init__(self, effects: Iterable[_Effect]) -> None:
        effects = sorted(effects, key=lambda each: each.acked)
        self._acked = [each.acked for each in effects]
        self._newest = list(accumulate(effects, _newer))

    def before(self, moment: float) -> _Effect | None:
        """Return the newest effect that was acknowledged before *moment*."""
        count = bisect_left(self._acked, moment)
        return self._newest[count - 1] if count else None


def _begun(effect: _Effect) -> float:
    return effect.begun


def _newer(one: _Effect, other: _Effect) -> _Effect:
    return other if other.low > one.low else one


def _effect(write: Operation) -> _Effect:
    version = float(write.version or 0)
    acked = write.returned if write.outcome == DONE else inf
    return _Effect(version, version, write.kind == WRITE, write.invoked, acked, write)


def _expiries(operations: Iterable[Operation]) -> list[_Effect]:
    """Return the absences that follow versions with a lifetime."""
    lives: dict[int, list[Operation]] = defaultdict(list)
    for each in operations:
        if each.kind in {WRITE, TOUCH} and each.version is not None:
            lives[each.version].append(each)
    effects = []
    for version, given in lives.items():
        ends = [each.invoked + each.lifetime for each in given if each.lifetime is not None]
        if not ends:
            continue
        # Renewals of one version are made one after the other; the last one that is certain holds.
        last = max(given, key=lambda each: each.invoked)
        certain = last.lifetime is not None and all(each.outcome == DONE for each in given)
        end = last.returned + (last.lifetime or 0) + EXPIRY_SLACK if certain else inf
        effects.append(_Effect(version + 0.5, version + 0.5, False, min(ends) - EXPIRY_SLACK, end, last))
    return effects


def _loss(loss: Operation, effects: Sequence[_Effect], unlearned: float) -> _Effect:
    low = max((each.low for each in effects if each.acked < loss.invoked), default=0.0)
    high = max((each.high for each in effects if each.begun < loss.returned), default=0.0)
    if unlearned < loss.returned:
        high = inf
    acked = loss.returned if loss.outcome == DONE else inf
    # Between a version and the next, where its expiry is too.
    return _Effect(low // 1 + 0.75, high if high == inf else high // 1 + 0.75, False, loss.invoked, acked, loss)


def _check_key(key: _Key, delta: float, epochs: Sequence[Epoch]) -> Iterator[Violation]:
    begins, ends = [begin for begin, _ in epochs], [end for _, end in epochs]
    demands: dict[object, list[_Effect]] = defaultdict(list)
    for effect in key.expiries:
        demands[bisect_right(ends, effect.operation.invoked)].append(effect)
    for effect in key.effects:
        era = bisect_right(ends, effect.operation.invoked)
        demands[era].append(effect)
        demands[era, effect.operation.process].append(effect)
    due = {whose: _Demands(effects) for whose, effects in demands.items()}
    nothing_due = _Demands(())
    seen: dict[tuple[int, str], tuple[float, Operation]] = {}
    proven: dict[int, tuple[float, tuple[int, str]]] = {}
    # In the order of time; what begins when another returns has not seen it return.
    moments = [(read.invoked, 0, number) for number, read in enumerate(key.reads)]
    moments += [(read.returned, 1, number) for number, read in enumerate(key.reads)]
    for _, returns, number in sorted(moments):
        read = key.reads[number]
        if returns:
            place, whose = proven[number]
            if place > seen.get(whose, (0.0,))[0]:
                seen[whose] = place, read
            continue
        era = bisect_left(begins, read.returned)
        allowed = delta if read.delta is None else read.delta
        bounds = [
            (promise, effect.low, effect.operation, effect.acked + lag)
            for promise, lag, effect in (
                ("own write", 0.0, due.get((era, read.process), nothing_due).before(read.invoked)),
                ("stale", allowed, due.get(era, nothing_due).before(read.invoked - allowed)),
            )
            if effect is not None
        ]
        if earlier := seen.get((era, read.process)):
            bounds.append(("monotonic", earlier[0], earlier[1], earlier[1].returned))
        place = key.place(read)
        for promise, bound, because, since in bounds:
            if place < bound:
                yield Violation(promise, read, because, read.invoked - since)
        yield from _from_the_future(key, read)
        yield from _expired(key, read, allowed)
        yield from _unsettled(key, read, allowed)
        if read.version in {NOTHING, SOMETHING}:
            place = key.of[read.version == SOMETHING].lowest(max((bound for _, bound, *_ in bounds), default=0.0))
        proven[number] = place, (bisect_right(ends, read.invoked), read.process)


def _expired(key: _Key, read: Operation, allowed: float) -> Iterator[Violation]:
    end = key.ends.get(_value(read) + 0.5)
    if end is None:
        return
    # That a touch has cut a lifetime must be heard of, like any write.
    cut = end.operation.returned + allowed if end.operation.kind == TOUCH else 0.0
    if (excess := read.invoked - max(end.acked, cut)) > 0:
        yield Violation("expired", read, end.operation, excess)


def _from_the_future(key: _Key, read: Operation) -> Iterator[Violation]:
    if read.version == NOTHING:
        return
    if read.version == SOMETHING:
        known = key.of[True].highest(read.returned) > 0
        write = None
    else:
        write = key.values.get(_value(read))
        known = write is not None and write.begun <= read.returned
    if not known and (read.version == TORN or write is not None or key.unlearned > read.returned):
        by = write.begun - read.returned if write else 0.0
        yield Violation("future", read, write.operation if write else None, by)


def _value(read: Operation) -> float:
    return float(read.version or 0)


def _explains(effect: _Effect, read: Operation) -> bool:
    """Whether *read* may have found what *effect* made."""
    if read.version in {NOTHING, SOMETHING}:
        return effect.present == (read.version == SOMETHING)
    return effect.present and effect.low == read.version


def _unsettled(key: _Key, read: Operation, allowed: float) -> Iterator[Violation]:
    """Compare with the server, if that was asked when nobody wrote any more."""
    truths = [each for each in key.truths if each.returned + allowed < read.invoked]
    if not truths:
        return
    truth = max(truths, key=lambda each: each.invoked)
    if read.version == truth.version or (read.version == SOMETHING and truth.version != NOTHING):
        return
    # What happened since, or may yet: expiry, and writes that were given up.
    since = [each for each in key.all if each.begun <= read.returned and each.acked >= truth.invoked]
    if any(_explains(each, read) for each in since) or (_value(read) not in key.values and key.unlearned < inf):
        return
    yield Violation("quiescence", read, truth, read.invoked - truth.returned)
