"""The checker finds every kind of wrong answer in a history of a few lines, and nothing in right ones."""

from __future__ import annotations

import random
import time

import pytest
from tests.coherence.checker import (
    DELETE,
    DOUBTFUL,
    FAILED,
    LOSS,
    NOTHING,
    READ,
    SOMETHING,
    TORN,
    TOUCH,
    TRUTH,
    WRITE,
    Operation,
    Recorder,
    check,
    stalest,
)

pytestmark = pytest.mark.newest

DELTA = 1.0


def op(kind, version, invoked, returned, *, process="p", key="k", outcome="done", lifetime=None, delta=None):
    return Operation(process, "t", kind, key, version, invoked, returned, outcome, lifetime, delta)


def write(version, invoked, returned, *, process="w", **more):
    return op(WRITE, version, invoked, returned, process=process, **more)


def read(version, invoked, returned, **more):
    return op(READ, version, invoked, returned, **more)


RIGHT = {
    "nothing happened": [],
    "nothing is there before the first write": [read(NOTHING, 0, 1), write(1, 2, 3)],
    "a write under way may be seen, and then not": [
        write(1, 0, 9),
        read(1, 1, 2, process="p"),
        read(NOTHING, 3, 4, process="q"),
    ],
    "reads that overlap may come in any order": [write(1, 0, 1), write(2, 2, 6), read(2, 3, 5), read(1, 4, 7)],
    "staleness within the bound": [write(1, 0, 1), write(2, 2, 3), read(1, 3.9, 4)],
    "another process's write is not one's own": [write(1, 0, 1), write(2, 2, 3, process="w"), read(1, 3.5, 4)],
    "a doubtful write may be seen": [write(1, 0, 1), write(2, 2, 3, outcome=DOUBTFUL), read(2, 4, 5)],
    "or not": [write(1, 0, 1), write(2, 2, 3, outcome=DOUBTFUL, process="p"), read(1, 9, 10)],
    "one that never learned its version": [write(1, 0, 1), write(None, 2, 3, outcome=DOUBTFUL), read(2, 4, 5)],
    "a failed write is none": [write(1, 0, 1), write(None, 2, 3, outcome=FAILED), read(1, 9, 10)],
    "a delete": [write(1, 0, 1), op(DELETE, 2, 2, 3), read(NOTHING, 5, 6), write(3, 7, 8), read(3, 9, 10)],
    "the first delete or the second": [
        op(DELETE, 1, 0, 1),
        write(2, 2, 3),
        op(DELETE, 3, 4, 5),
        read(NOTHING, 4.5, 5.5),
        read(2, 4.6, 5.6, process="q"),
    ],
    "expiry": [write(1, 0, 1, lifetime=2), read(1, 2.9, 3), read(NOTHING, 3.1, 3.2)],
    "expiry that a touch put off": [
        write(1, 0, 1, lifetime=2),
        op(TOUCH, 1, 1.1, 1.2, process="w", lifetime=None),
        read(1, 9, 10),
    ],
    "a cut lifetime that is not known yet": [
        write(1, 0, 1, lifetime=60),
        op(TOUCH, 1, 1.1, 1.2, process="w", lifetime=0.1),
        read(1, 2.1, 2.2),
    ],
    "an expiry that is not known yet": [write(1, 0, 1), write(2, 2, 3, lifetime=0.1), read(1, 3.9, 4)],
    "a loss": [write(1, 0, 1), op(LOSS, None, 2, 3, process="n"), read(NOTHING, 5, 6)],
    "a write during a loss may be gone": [
        write(1, 0, 1),
        op(LOSS, None, 2, 5, process="n"),
        write(2, 3, 4),
        read(NOTHING, 9, 10),
    ],
    "or be there": [write(1, 0, 1), op(LOSS, None, 2, 5, process="n"), write(2, 3, 4), read(2, 9, 10)],
    "has_key": [write(1, 0, 1), read(SOMETHING, 2, 3), op(DELETE, 2, 4, 5), read(NOTHING, 9, 10)],
    "has_key, of an unknown version": [
        write(None, 0, 1, outcome=DOUBTFUL),
        read(7, 2, 3),
        read(SOMETHING, 4, 5),
        read(7, 6, 7),
    ],
    "the same as the server": [write(1, 0, 1), op(TRUTH, 1, 2, 3, process="s"), read(1, 5, 6)],
    "expired since the server was asked": [
        write(1, 0, 1, lifetime=3),
        op(TRUTH, 1, 2, 3, process="s"),
        read(NOTHING, 5, 6),
    ],
    "fresh enough for a fence": [write(1, 0, 1), write(2, 2, 3), read(1, 3, 4, delta=0)],
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(history):
    assert check(history, delta=DELTA, deadline=10) == []


WRONG = {
    "from nowhere": ("future", [write(1, 0, 1), read(7, 2, 3)]),
    "before it was written": ("future", [read(1, 0, 1), write(1, 2, 3)]),
    "something before anything was written": ("future", [read(SOMETHING, 0, 1), write(1, 2, 3)]),
    "half of two values": ("future", [write(1, 0, 1), read(TORN, 2, 3)]),
    "what was deleted as a value": ("future", [op(DELETE, 1, 0, 1), read(1, 2, 3)]),
    "own write": ("own write", [write(1, 0, 1), write(2, 2, 3, process="p"), read(1, 3.1, 4)]),
    "own delete": ("own write", [write(1, 0, 1), op(DELETE, 2, 2, 3), read(1, 3.1, 4)]),
    "own flush": ("own write", [write(1, 0, 1), op(LOSS, None, 2, 3), read(1, 3.1, 4)]),
    "back in time": ("monotonic", [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)]),
    "back from nothing": ("monotonic", [
        write(1, 0, 1), op(DELETE, 2, 2, 9, process="w"), read(NOTHING, 3, 4), read(1, 5, 6),
    ]),  # fmt: skip
    "back to nothing": ("monotonic", [write(1, 0, 9), read(1, 1, 2), read(NOTHING, 3, 4)]),
    "from something back to nothing": ("monotonic", [
        op(DELETE, 1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(SOMETHING, 5, 6), read(NOTHING, 7, 8),
    ]),
    "stale": ("stale", [write(1, 0, 1), write(2, 2, 3), read(1, 4.1, 5)]),
    "stale nothing": ("stale", [write(1, 2, 3), read(NOTHING, 4.1, 5)]),
    "stale something": ("stale", [write(1, 0, 1), op(DELETE, 2, 2, 3, process="w"), read(SOMETHING, 4.1, 5)]),
    "stale after a loss": ("stale", [write(1, 0, 1), op(LOSS, None, 2, 3, process="n"), read(1, 4.1, 5)]),
    "stale after a fence": ("stale", [write(1, 0, 1), write(2, 2, 3), read(1, 3.1, 5, delta=0)]),
    "expired": ("expired", [write(1, 0, 1, lifetime=2), read(1, 3.1, 4)]),
    "a lifetime that was cut": ("expired", [
        write(1, 0, 1, lifetime=60), op(TOUCH, 1, 1.1, 1.2, process="w", lifetime=0.1), read(1, 2.3, 2.5),
    ]),  # fmt: skip
    "stale after an expiry": ("stale", [write(1, 0, 1), write(2, 2, 3, lifetime=0.1), read(1, 4.2, 5)]),
    "never healed": ("quiescence", [
        write(1, 0, 1), write(2, 2, 3, outcome=DOUBTFUL), op(TRUTH, 2, 4, 5, process="s"), read(1, 6.1, 7),
    ]),  # fmt: skip
    "too late": ("deadline", [write(1, 0, 1), read(1, 2, 22.5)]),
}  # fmt: skip


@pytest.mark.parametrize(("promise", "history"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_found(promise, history):
    found = check(history, delta=DELTA, deadline=20)

    assert promise in {violation.promise for violation in found}, found
    assert all(str(violation) for violation in found)


def test_an_epoch_ends_the_demands_of_what_was_before():
    """After a fail-over that lost writes, older versions are right again; but not for ever."""
    history = [
        write(1, 0, 1), write(2, 2, 3), read(2, 3.5, 4),
        read(1, 8, 8.5), write(2, 9, 9.5, process="w"), read(1, 10.6, 10.7),
    ]  # fmt: skip

    found = check(history, delta=DELTA, epochs=[(5, 6)])

    assert [(violation.promise, violation.operation.invoked) for violation in found] == [("stale", 10.6)]


def test_what_was_asked_during_an_epoch_proves_nothing():
    """It may still have come from the old server."""
    history = [write(1, 0, 1), write(2, 2, 3), read(2, 5.5, 7), read(1, 8, 9)]

    assert check(history, delta=DELTA, epochs=[(5, 6)]) == []


def test_losses_of_everything_concern_each_key():
    history = [
        write(1, 0, 1, key="a"), write(5, 0, 1, key="b"), op(LOSS, None, 2, 3, key="*"),
        read(1, 4.5, 5, key="a", process="q"), read(NOTHING, 4.5, 5, key="b", process="q"),
    ]  # fmt: skip

    assert [violation.operation.key for violation in check(history, delta=DELTA)] == ["a"]


def test_staleness_is_measured():
    """From the acknowledgement of the first newer write to the beginning of the read."""
    history = [write(1, 0, 1), write(2, 2, 3), write(3, 3, 4), read(1, 3.5, 4), read(2, 4.25, 5)]

    assert stalest(history) == 0.5


def test_the_recorder_notes_what_happened():
    moments = iter(range(100))
    recorder = Recorder("p", clock=lambda: next(moments))

    with recorder.noting(READ, "k") as pending:
        pending.version = 7
    with recorder.noting(WRITE, "a", "b", version=1, lifetime=2.0) as pending:
        pending.versions["b"] = 9
    with pytest.raises(TimeoutError), recorder.noting(WRITE, "k"):
        raise TimeoutError

    assert [(each.kind, each.key, each.version, each.outcome) for each in recorder.history] == [
        (READ, "k", 7, "done"),
        (WRITE, "a", 1, "done"),
        (WRITE, "b", 9, "done"),
        (WRITE, "k", None, "doubtful"),
    ]
    assert [(each.invoked, each.returned) for each in recorder.history] == [(0, 1), (2, 3), (2, 3), (4, 5)]


def test_long_histories_are_checked_quickly():
    """A register that is read right, 50,000 times, in much less than a minute."""
    chance, history, now = random.Random(1), [], 0.0
    for version in range(1, 25_001):
        history.append(write(version, now, now + 1))
        history.append(read(version, now + 1.1, now + 2, process=f"p{chance.randrange(4)}"))
        history.append(read(version - 1, now + 0.1, now + 0.2, process=f"p{chance.randrange(4)}"))
        now += 3
    started = time.monotonic()

    assert check(history, delta=0) == []
    assert time.monotonic() - started < 20
