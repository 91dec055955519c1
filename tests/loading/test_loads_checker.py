"""The checker of loads finds every kind of wrong answer in a history of a few lines, and nothing in right ones."""

from __future__ import annotations

import random
import time
from math import inf

import pytest
from tests.coherence.loads import (
    CANCELLED,
    CLEAR,
    DELETE,
    DONE,
    DOUBTFUL,
    ERROR,
    FAILED,
    GET,
    HUNG,
    LOOKUP,
    LOSS,
    QUIT,
    RAISED,
    RUNNING,
    SET,
    SKIPPED,
    SOFT,
    TAG,
    THROTTLED,
    TIMED_OUT,
    Call,
    Invalidation,
    Load,
    Rules,
    Terms,
    check,
)

pytestmark = pytest.mark.newest

TERMS = Terms(timeout=10, lease=4, wait=6, longest=5)
SWR = Terms(timeout=10, stale_while_revalidate=5, lease=4, wait=6, longest=5)
SIE = Terms(timeout=10, stale_if_error=20, lease=4, wait=6, longest=5)
RETRY = Terms(timeout=10, retry_after=3, lease=4, wait=6, longest=5)


def load(name, began, ended, *, call="", process="p", outcome=DONE, key="k", tags=()):
    return Load(name, process, key, call or f"c{name}", began, ended, outcome, tags)


def call(origin, invoked, returned, *, name="", process="p", outcome=DONE, key="k", **more):
    return Call(name or f"r{invoked}", process, key, invoked, returned, outcome, origin, **more)


def led(name, began, ended, *, process="p", outcome=DONE, wait=0.0, tags=(), key="k"):
    """A load, and the call that led it."""
    ends = {DONE: DONE, SKIPPED: DONE, FAILED: RAISED, CANCELLED: CANCELLED, QUIT: QUIT}[outcome]
    origin = name if outcome in {DONE, SKIPPED, FAILED} else ""
    leader = call(
        origin,
        began - 0.1 - wait,
        ended + 0.1,
        name=f"c{name}",
        process=process,
        outcome=ends,
        key=key,
        cancelled=outcome == CANCELLED,
    )
    return [load(name, began, ended, process=process, outcome=outcome, tags=tags, key=key), leader]


def gone(kind, invoked, returned, *, process="w", key="k", outcome=DONE, name="i", life=inf):
    return Invalidation(name, process, kind, key, invoked, returned, outcome, life)


FIRST = led("1", 1, 2)

RIGHT = {
    "nothing happened": ([], {}),
    "a load and those who join it": (
        [*FIRST, call("1", 1.2, 2.1), call("1", 1.3, 2.1, process="q"), call("1", 3, 4)],
        {},
    ),
    "a load after the value's life": ([*FIRST, call("1", 11.9, 12), *led("2", 12.2, 13)], {}),
    "a read that finds nothing": ([call("", 0, 1, kind=GET)], {}),
    "what was invalidated while it was read": ([*FIRST, gone(DELETE, 3, 5), call("1", 4, 6)], {}),
    "a load after a delete": ([*FIRST, gone(DELETE, 3, 4), *led("2", 5, 6), call("2", 7, 8)], {}),
    "a load during a delete, for who was there before": ([*FIRST, gone(DELETE, 1.3, 1.5), call("1", 1.4, 2.2)], {}),
    "two loads at a time around a delete": ([*FIRST, gone(DELETE, 1.2, 1.3), *led("2", 1.5, 3), call("2", 4, 5)], {}),
    "a doubtful delete": ([*FIRST, gone(DELETE, 3, 4, outcome=DOUBTFUL), call("1", 5, 6)], {}),
    "another key's delete": ([*FIRST, gone(DELETE, 3, 4, key="other"), call("1", 5, 6)], {}),
    "another tag's": ([*led("1", 1, 2, tags=("t",)), gone(TAG, 3, 4, key="u"), call("1", 5, 6)], {}),
    "what was set": ([*FIRST, gone(SET, 3, 4, name="s"), call("s", 5, 6)], {}),
    "of two sets at once either": ([gone(SET, 3, 5, name="s"), gone(SET, 4, 6, name="u"), call("s", 7, 8)], {}),
    "a load after a set of a short life": ([*FIRST, gone(SET, 3, 4, name="s", life=1), *led("2", 6, 7)], {}),
    "a copy that does not know yet": ([*FIRST, gone(DELETE, 3, 4), call("1", 4.2, 4.3)], {"lag": 0.3}),
    "what a clear of a cluster has not found yet": (
        [*FIRST, gone(CLEAR, 3, 4, key="*"), call("1", 4.2, 4.3)],
        {"late_clears": 0.3},
    ),
    "a soft one, with a stale life": ([*FIRST, gone(SOFT, 3, 4), call("1", 8, 8.1)], {"usual": SWR}),
    "stale within its limit": ([*FIRST, call("1", 16, 16.1)], {"usual": SWR}),
    "stale, and said so": ([*FIRST, call("1", 30, 30.1, kind=LOOKUP, stale=True)], {"usual": SIE}),
    "stale when a load failed": ([*FIRST, *led("2", 20, 21, outcome=FAILED)[:1], call("1", 20, 21.1)], {"usual": SIE}),
    "an exception if nothing was stored": (
        [*FIRST, gone(SOFT, 1.5, 1.6), *led("2", 3, 4, outcome=FAILED)],
        {"usual": SIE},
    ),
    "a take-over": ([load("1", 1, inf, outcome=RUNNING), *led("2", 5.1, 6, process="q")], {}),
    "impatience": ([*FIRST[:1], *led("2", 8, 9, process="q", wait=6)], {}),
    "after the end of who had relieved another": (
        [
            load("1", 1, inf, outcome=RUNNING),
            *led("2", 5.1, 6, process="q", outcome=FAILED),
            *led("3", 6.2, 8, process="r"),
        ],
        {},
    ),
    "a take-over beside impatience": (
        [
            load("1", 1, 9),
            load("2", 4.8, 9, process="q"),
            call("", -2, 9, process="q", name="c2", outcome=CANCELLED, cancelled=True),
            *led("3", 5.2, 7, process="r"),
        ],
        {},
    ),
    "impatience in the process": ([load("1", 1, 11), *led("2", 7, 9, wait=6)], {}),
    "impatience with a load that had waited": (
        [load("1", 6.9, 11, call="c1"), call("1", 1, 11.1, name="c1"), *led("2", 7.05, 9, wait=6)],
        {},
    ),
    "after a failure": ([*led("1", 1, 2, outcome=FAILED), *led("2", 2.1, 3)], {}),
    "after a failure, later": ([*led("1", 1, 2, outcome=FAILED), *led("2", 5.1, 6)], {"usual": RETRY}),
    "after a cancellation": ([*led("1", 1, 2, outcome=CANCELLED), *led("2", 2.1, 3)], {}),
    "after a skip": ([*led("1", 1, 2, outcome=SKIPPED), *led("2", 2.3, 3)], {}),
    "after a loss": ([*FIRST, gone(LOSS, 3, 4, key="*"), *led("2", 4.2, 5)], {}),
    "in an outage": ([*FIRST, *led("2", 1.2, 2, process="q")], {"outages": [(0, 3)]}),
    "after an outage, beside a load without a lease": (
        [*FIRST, *led("2", 1.3, 2)],
        {"outages": [(0, 3)], "returns": [(1.2, 3)]},
    ),
    "a forced load": ([*FIRST, *led("2", 3, 4)[:1], call("2", 2.9, 4.1, name="c2", refresh=True)], {}),
    "early": ([*FIRST, *led("2", 4, 5)], {"usual": Terms(timeout=10, early=1.0, lease=4)}),
    "an exception for who joined": ([*led("1", 1, 2, outcome=FAILED), call("1", 1.5, 2.1, outcome=RAISED)], {}),
    "refused after a failure": (
        [*led("1", 1, 2, outcome=FAILED), call("", 4, 4.1, outcome=THROTTLED)],
        {"usual": RETRY},
    ),
    "cancelled by its caller": ([call("", 1, 2, outcome=CANCELLED, cancelled=True)], {}),
    "a time limit": ([call("", 1, 3, outcome=TIMED_OUT)], {"usual": Terms(hard_timeout=2)}),
    "an error in an outage": ([call("", 1, 2, outcome=ERROR)], {"failing_since": 1.5}),
    "an invalidation that an epoch may undo": ([*FIRST, gone(DELETE, 3, 4), call("1", 6, 7)], {"epochs": [(4.2, 5)]}),
    "one that failed in silence": (
        [*FIRST, gone(DELETE, 3, 4), call("1", 6, 7)],
        {"outages": [(3.5, 5)], "swallows": True},
    ),
}


@pytest.mark.parametrize(("history", "rules"), RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(history, rules):
    assert check(history, Rules(**{"usual": TERMS, **rules})) == []


WRONG = {
    "from nowhere": ("unknown", [call("7", 1, 2)], {}),
    "of another key": ("unknown", [*led("1", 1, 2, key="other"), call("1", 3, 4)], {}),
    "before it was loaded": ("unknown", [*FIRST, call("1", 0, 0.5)], {}),
    "before it was set": ("unknown", [gone(SET, 3, 4, name="s"), call("s", 1, 2)], {}),
    "what was not to be stored": ("unknown", [*led("1", 1, 2, outcome=SKIPPED), call("1", 3, 4)], {}),
    "nothing": ("unknown", [call("", 1, 2)], {}),
    "what a failed load made": ("unknown", [load("1", 1, 2, outcome=FAILED), call("1", 3, 4)], {}),
    "deleted": ("given up", [*FIRST, gone(DELETE, 3, 4), call("1", 5, 6)], {}),
    "deleted during its load": ("given up", [*FIRST, gone(DELETE, 1.3, 1.5), call("1", 5, 6)], {}),
    "joined after the delete": ("given up", [*FIRST, gone(DELETE, 1.3, 1.5), call("1", 1.6, 2.1)], {}),
    "joined after the delete, near": ("given up", [*FIRST, gone(DELETE, 1.3, 1.5), call("1", 1.6, 2.1)], {"lag": 2}),
    "deleted by the same process": (
        "given up",
        [*FIRST, gone(DELETE, 3, 4, process="p"), call("1", 4.1, 6)],
        {"lag": 2},
    ),
    "deleted long ago": ("given up", [*FIRST, gone(DELETE, 3, 4), call("1", 4.4, 6)], {"lag": 0.3}),
    "deleted, and no copy may answer": (
        "given up",
        [*FIRST, gone(DELETE, 3, 4), call("1", 4.1, 6, fenced=True)],
        {"lag": 0.3},
    ),
    "set": ("given up", [*FIRST, gone(SET, 3, 4, name="s"), call("1", 5, 6)], {}),
    "set again": ("given up", [gone(SET, 1, 2, name="s"), gone(SET, 3, 4, name="u"), call("s", 5, 6)], {}),
    "by tag": ("given up", [*led("1", 1, 2, tags=("t",)), gone(TAG, 3, 4, key="t"), call("1", 5, 6)], {}),
    "by tag during its load": (
        "given up",
        [*led("1", 1, 2, tags=("t",)), gone(TAG, 1.2, 1.3, key="t"), call("1", 5, 6)],
        {},
    ),
    "a set by tag": (
        "given up",
        [Invalidation("s", "w", SET, "k", 1, 2, DONE, inf, 0, ("t",)), gone(TAG, 3, 4, key="t"), call("s", 5, 6)],
        {},
    ),
    "cleared": ("given up", [*FIRST, gone(CLEAR, 3, 4, key="*"), call("1", 5, 6)], {}),
    "cleared on a cluster": (
        "given up",
        [*FIRST, gone(CLEAR, 3, 4, key="*"), call("1", 4.4, 6)],
        {"late_clears": 0.3},
    ),
    "deleted, and stale": ("given up", [*FIRST, gone(DELETE, 3, 4), call("1", 13, 14)], {"usual": SWR}),
    "soft, with no stale life": ("soft", [*FIRST, gone(SOFT, 3, 4), call("1", 5, 6)], {}),
    "soft, to get": ("soft", [*FIRST, gone(SOFT, 3, 4), call("1", 5, 6, kind=GET)], {"usual": SWR}),
    "soft during its load": ("soft", [*FIRST, gone(SOFT, 1.2, 1.4), call("1", 5, 6, kind=GET)], {"usual": SWR}),
    "soft, and old": ("too stale", [*FIRST, gone(SOFT, 3, 4), call("1", 9.3, 9.4)], {"usual": SWR}),
    "expired": ("expired", [*FIRST, call("1", 12.5, 13)], {}),
    "expired, to get": ("expired", [*FIRST, call("1", 12.5, 13, kind=GET)], {"usual": SWR}),
    "expired, and said to be fresh": (
        "expired",
        [*FIRST, call("1", 12.5, 13, kind=LOOKUP, stale=False)],
        {"usual": SWR},
    ),
    "a set that expired": ("expired", [gone(SET, 1, 2, name="s", life=1), call("s", 3.5, 4)], {}),
    "too stale": ("too stale", [*FIRST, call("1", 17.5, 18)], {"usual": SWR}),
    "too stale, and said so": ("too stale", [*FIRST, call("1", 18, 18.1, kind=LOOKUP, stale=True)], {"usual": SWR}),
    "stale although no load failed": ("too stale", [*FIRST, call("1", 20, 21.1)], {"usual": SIE}),
    "too stale, even for a failure": (
        "too stale",
        [*FIRST, load("2", 35, 36, outcome=FAILED), call("1", 35, 36.1)],
        {"usual": SIE},
    ),
    "two loads in the fleet": ("loaded twice", [*FIRST, *led("2", 1.3, 2, process="q")], {}),
    "one load after the other": ("loaded twice", [*FIRST, *led("2", 2.5, 3)], {}),
    "a hasty take-over": ("loaded twice", [load("1", 1, inf, outcome=RUNNING), *led("2", 3, 4, process="q")], {}),
    "no pause after a failure": (
        "loaded twice",
        [*led("1", 1, 2, outcome=FAILED), *led("2", 2.5, 3)],
        {"usual": RETRY},
    ),
    "a value that was not stored": ("not stored", [*FIRST, call("1", 2, 2.2), *led("2", 5.5, 6)], {}),
    "the end of who was relieved": (
        "loaded twice",
        [*led("1", 1, 6, outcome=FAILED), *led("2", 5.1, 9, process="q"), *led("3", 6.2, 8, process="r")],
        {},
    ),
    "two loads in a process": ("two at a time", [*FIRST, *led("2", 1.3, 2)], {}),
    "a take-over from oneself": ("two at a time", [load("1", 1, 9), *led("2", 5.2, 6)], {}),
    "impatience of each": ("two at a time", [load("1", 1, 11), *led("2", 7, 9, wait=6), *led("3", 7.3, 9, wait=6)], {}),
    "two loads in an outage": ("two at a time", [*FIRST, *led("2", 1.3, 2)], {"outages": [(0, 3)]}),
    "never returned": ("hangs", [call("", 1, inf, outcome=HUNG)], {}),
    "too long": ("deadline", [*led("1", 1, 2), call("1", 1.5, 14)], {}),
    "an old exception": ("exception", [*led("1", 1, 2, outcome=FAILED), call("1", 2.5, 3, outcome=RAISED)], {}),
    "another process's exception": (
        "exception",
        [*led("1", 1, 2, outcome=FAILED), call("1", 1.5, 3, outcome=RAISED, process="q")],
        {},
    ),
    "an exception in place of a stale value": (
        "fail-safe",
        [*FIRST, *led("2", 20, 21, outcome=FAILED)],
        {"usual": SIE},
    ),
    "refused without a reason": ("throttle", [call("", 4, 4.1, outcome=THROTTLED)], {"usual": RETRY}),
    "cancelled for another": (
        "cancellation",
        [*led("1", 1, 2, outcome=CANCELLED), call("", 1.5, 2, outcome=CANCELLED)],
        {},
    ),
    "quit for another": ("quit", [*led("1", 1, 2, outcome=QUIT), call("", 1.5, 2, outcome=QUIT)], {}),
    "a value that was lost": (
        "lost",
        [load("1", 1, 2, call="c"), call("", 0.9, 2.5, name="c", outcome=ERROR)],
        {"outages": [(0, 3)]},
    ),
    "an error without a reason": ("error", [call("", 1, 2, outcome=ERROR)], {}),
    "a hasty time limit": ("error", [call("", 1, 2, outcome=TIMED_OUT)], {"usual": Terms(hard_timeout=3)}),
}


@pytest.mark.parametrize(("promise", "history", "rules"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_found(promise, history, rules):
    found = check(history, Rules(**{"usual": TERMS, **rules}))

    assert promise in {violation.promise for violation in found}, found
    assert all(str(violation) for violation in found)


def test_long_histories_are_checked_quickly():
    """A key that is loaded and deleted 20,000 times is checked in much less than a minute."""
    chance, history, now = random.Random(1), [], 0.0
    for number in range(20_000):
        process = f"p{chance.randrange(4)}"
        history += led(f"{number}", now + 0.5, now + 1, process=process, tags=("t",))
        history.append(call(f"{number}", now + 0.6, now + 1.1, process=process, name=f"r{number}"))
        history.append(
            gone(chance.choice((DELETE, TAG)), now + 2, now + 2.1, key=chance.choice("k"), name=f"i{number}")
        )
        if history[-1].kind == TAG:
            history[-1] = gone(TAG, now + 2, now + 2.1, key="t", name=f"i{number}")
        now += 3
    started = time.monotonic()

    assert check(history, Rules(usual=TERMS)) == []
    assert time.monotonic() - started < 20
