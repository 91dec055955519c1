"""Acts: what only happens in one order, played step by step, and judged by a promise.

Caches with different settings share no flights, so two of them are to each other as two processes are.  An act raises
AssertionError if a promise is broken.  `perform` plays it in a process of its own, with a mutant in place of the
library's code if one is named.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from tests.coherence.loadmutants import install
from tests.coherence.runs import NEAR

from fleetcache import Cache
from fleetcache.policy import Policy

PATIENCE = 10.0
"""Seconds after which what does not happen never will."""

_context = multiprocessing.get_context("forkserver")
_numbers = count()


class Gate:
    """A loader that waits until it is opened."""

    def __init__(self, value: Any = "value", error: BaseException | None = None) -> None:
        self.value, self.error = value, error
        self.begun, self.opened = threading.Event(), threading.Event()
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.opened.wait(PATIENCE), "nobody opened the gate"
        if self.error is not None:
            raise self.error
        return self.value

    def wait(self) -> Gate:
        """Wait until the loader runs."""
        assert self.begun.wait(PATIENCE), "the loader was not called"
        return self

    def open(self) -> None:
        """Let the loader return."""
        self.opened.set()


class Stage:
    """Caches of one server, each of a process of its own, as it were; and threads that call them."""

    def __init__(self, url: str, **options: Any) -> None:
        prefix = f"act{os.getpid()}.{next(_numbers)}"
        self.caches = [
            Cache(url, {"KEY_PREFIX": prefix, "OPTIONS": {"socket_timeout": 5 + number, **options}})
            for number in range(3)
        ]
        self.pool = ThreadPoolExecutor(32)

    def call(self, who: int, key: str, load: Callable[[], Any], policy: Policy, **more: Any) -> Future[Any]:
        """Let the process number *who* call `get_or_set` in a thread."""
        return self.pool.submit(self.caches[who].get_or_set, key, load, policy, **more)

    def joined(self, who: int, key: str, load: Callable[[], Any], policy: Policy, **more: Any) -> Future[Any]:
        """The same, and wait until it has had time enough to find its place."""
        call = self.call(who, key, load, policy, **more)
        time.sleep(0.05)
        return call


def never() -> Any:
    """A loader that must not be called."""
    raise AssertionError("a second load")


# --- the acts -----------------------------------------------------------------------------------------


def nobody_waits_with_a_stale_value(url: str) -> None:
    """L3: while one caller renews a value, everybody else gets the old one at once."""
    stage, policy = Stage(url), Policy(timeout=60, stale_while_revalidate=60)
    stage.caches[0].get_or_set("k", lambda: "old", policy)
    stage.caches[0].invalidate("k", soft=True)
    gate = Gate("new")
    leader = stage.call(0, "k", gate, policy)
    gate.wait()

    others = [stage.call(who, "k", never, policy) for who in (0, 1, 2) for _ in range(3)]

    assert [other.result(2) for other in others] == ["old"] * 9
    gate.open()
    assert leader.result(PATIENCE) in {"old", "new"}
    assert stage.caches[1].get("k") == "new"


def relieved_and_failed(url: str) -> None:
    """L1: whoever is relieved after the lease's life and fails later, does not free the lease of the one who took it over."""
    stage, policy = Stage(url), Policy(timeout=60, lease=0.2, wait=5)
    long = Policy(timeout=60, lease=5, wait=9)
    first, second = Gate(error=ValueError("late")), Gate("new")
    late = stage.call(0, "k", first, policy)
    first.wait()
    stage.call(1, "k", second, long)
    second.wait()  # it has taken the lease over

    first.open()
    assert isinstance(late.exception(PATIENCE), ValueError)
    third = stage.joined(2, "k", never, long)
    time.sleep(0.3)

    second.open()
    assert third.result(PATIENCE) == "new"


def slower_than_its_lease(url: str) -> None:
    """L1: a load that always takes longer than a lease, and is always taken over, is stored all the same."""
    stage, policy = Stage(url), Policy(timeout=60, lease=0.2, wait=5)
    first, second = Gate("first"), Gate("second")
    one = stage.call(0, "k", first, policy)
    first.wait()
    stage.call(1, "k", second, policy)
    second.wait()

    first.open()

    assert one.result(PATIENCE) == "first"
    assert stage.call(2, "k", never, policy).result(PATIENCE) == "first"
    second.open()


def slower_than_its_value_lives(url: str) -> None:
    """L1: a load that takes longer than its value will live is stored all the same."""
    stage, policy = Stage(url), Policy(timeout=0.2)
    gate = Gate()
    one = stage.call(0, "k", gate, policy)
    gate.wait()
    time.sleep(0.5)

    gate.open()

    assert one.result(PATIENCE) == "value"
    assert stage.caches[1].get("k") == "value"


def one_flight_for_the_impatient(url: str) -> None:
    """L1: those in a process who lose patience, one after the other, start one load together."""
    stage, policy = Stage(url), Policy(timeout=60, lease=9, wait=0.4)
    elsewhere, here = Gate("elsewhere"), Gate("here")
    stage.call(0, "k", elsewhere, policy)
    elsewhere.wait()
    callers = []
    for _ in range(6):
        callers.append(stage.call(1, "k", here, policy))
        time.sleep(0.03)
    here.wait()
    time.sleep(0.35)  # all have lost patience by now

    assert here.calls == 1
    here.open()
    assert [caller.result(PATIENCE) for caller in callers] == ["here"] * 6
    elsewhere.open()


def detached_and_replaced(url: str) -> None:
    """L1, L7: a load that was given up does not end the one that runs in its place, even if there is no server."""
    stage, policy = Stage("redis://127.0.0.1:1/0", IGNORE_EXCEPTIONS=True), Policy(timeout=60, wait=0.3, lease=0.2)
    old, new = Gate("old"), Gate("new")
    stage.call(0, "k", old, policy)
    old.wait()
    patient = Policy(timeout=60, wait=9, lease=0.2)
    stage.call(0, "k", new, policy)
    new.wait()  # it has lost patience with the old one
    old.open()
    time.sleep(0.1)

    third = stage.joined(0, "k", never, patient)

    new.open()
    assert third.result(PATIENCE) == "new"


def no_server_at_all(url: str) -> None:
    """L7: while the server is away, one load at a time runs in a process, with a near cache and without."""
    for near in (None, NEAR):
        stage, gate = Stage("redis://127.0.0.1:1/0", IGNORE_EXCEPTIONS=True, NEAR=near), Gate()
        policy = Policy(timeout=60, stale_if_error=60)
        callers = [stage.joined(0, "k", gate, policy) for _ in range(4)]
        gate.wait().open()
        assert [caller.result(PATIENCE) for caller in callers] == ["value"] * 4
        assert gate.calls == 1


def early_renewals(url: str) -> None:
    """§4: the moment of an early renewal is drawn once for each copy and entry, however often it is hit."""
    for near in (None, NEAR):
        stage, policy, loads = Stage(url, NEAR=near), Policy(timeout=0.4, early=1.0), count()

        def load(loads: Iterator[int] = loads) -> int:
            next(loads)
            # A draw of 5 such times renews at once: among a hundred hits there is one, among six draws hardly.
            time.sleep(0.08)
            return 1

        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            stage.caches[0].get_or_set("k", load, policy)

        assert next(loads) <= 6, f"{near and 'near'}"


def no_failure_is_kept(url: str) -> None:
    """L4: an exception goes to those who had joined, and to nobody who comes later."""
    stage, policy = Stage(url), Policy(timeout=60)
    gate = Gate(error=ValueError("broken"))
    leader = stage.call(0, "k", gate, policy)
    gate.wait()
    joined = stage.joined(0, "k", never, policy)
    gate.open()

    assert isinstance(leader.exception(PATIENCE), ValueError)
    assert isinstance(joined.exception(PATIENCE), ValueError)
    assert stage.caches[0].get_or_set("k", lambda: "whole", policy) == "whole"
    assert stage.caches[1].get_or_set("k", never, policy) == "whole"


def nothing_deleted_is_a_fallback(url: str) -> None:
    """L5: a value that was deleted does not answer for a load that fails."""
    stage, policy = Stage(url), Policy(timeout=60, stale_if_error=60)
    stage.caches[0].get_or_set("k", lambda: "old", policy)
    stage.caches[1].delete("k")
    gate = Gate(error=ValueError("broken"))
    gate.open()

    assert isinstance(stage.call(0, "k", gate, policy).exception(PATIENCE), ValueError)


def softened_while_loading(url: str) -> None:
    """L2: what was being loaded when its name was softly invalidated is not served as fresh."""
    stage, policy = Stage(url), Policy(timeout=60)
    gate = Gate("old")
    leader = stage.call(0, "k", gate, policy)
    gate.wait()
    stage.caches[1].invalidate("k", soft=True)
    gate.open()

    assert leader.result(PATIENCE) == "old"
    assert stage.caches[0].get("k") is None
    assert stage.caches[0].get_or_set("k", lambda: "new", policy) == "new"


ACTS = {
    act.__name__: act
    for act in (
        nobody_waits_with_a_stale_value,
        relieved_and_failed,
        slower_than_its_lease,
        slower_than_its_value_lives,
        one_flight_for_the_impatient,
        detached_and_replaced,
        no_server_at_all,
        early_renewals,
        no_failure_is_kept,
        nothing_deleted_is_a_fallback,
        softened_while_loading,
    )
}


def perform(act: str, url: str, mutant: str | None = None) -> str | None:
    """Play *act* in a process of its own; return what went wrong, None if all was right."""
    ours, theirs = _context.Pipe()
    child = _context.Process(target=_play, args=(act, url, mutant, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        ours.recv()  # or EOFError, if the mutant cannot be put in place
        found: str | None = ours.recv() if ours.poll(3 * PATIENCE) else "it hangs"
    finally:
        child.kill()
        child.join(5)
        ours.close()
    return found


def _play(act: str, url: str, mutant: str | None, answer: Connection) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    install(mutant)
    answer.send(True)
    try:
        ACTS[act](url)
    except BaseException:
        answer.send(traceback.format_exc())
    else:
        answer.send(None)
    os._exit(0)
