"""An ordeal of interrupts for the blocking face: exceptions that a signal's handler raises at random instants.

``python -m tests.faults.interrupts`` raises 2,000 of each kind on one server, shards, a cluster and behind
Sentinels, with and without NEAR, under MAX_CONNECTIONS, and ends with 1 if any of them is lost or leaves harm;
``--count`` and names (``one``, ``shards``, ``cluster``, ``sentinel``) ask for less.  `test_interrupts.py` beside it
runs a few of each, as many as the environment's ``FLEETCACHE_INTERRUPTS`` says.

An interrupt that comes while a finalizer runs is lost by Python itself, in any program.  So the same is done to
a function that uses no cache, which shows how many those are.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fleetcache import Cache
from fleetcache.client import ShardClient
from fleetcache.servers.remote import SERVERS
from fleetcache.testing import cluster, sentinels, valkey_server

SOON, LATE = 0.0001, 0.004
"""The shortest and the longest time, in seconds, until an interrupt."""
PLACES = 3
NAMES = [f"key{number}" for number in range(8)]


class TimeLimit(Exception):
    """As Celery's and RQ's are: an Exception like any other."""


KINDS = (KeyboardInterrupt, TimeLimit, TimeoutError)


class Alarm:
    """Raises *kind* once, soon after `arm`."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.armed = False
        self.raised = 0
        self.finalizing = False
        """Whether the last one was raised in a finalizer, which may ignore it without a report, as redis-py's do."""
        self.place = ""
        """Where it was raised."""

    def __call__(self, _: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.raised += 1
            self.finalizing = is_finalizing(frame)
            steps = traceback.extract_stack(frame, limit=5)
            self.place = " > ".join(f"{Path(step.filename).name}:{step.lineno} {step.name}" for step in steps)
            raise self.kind("the time is over")

    def arm(self) -> None:
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(SOON, LATE))


def is_finalizing(frame: FrameType | None) -> bool:
    """Return whether *frame* is a finalizer, or was called by one."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupt(
    work: Callable[[], None], kind: type[BaseException], count: int, look: Callable[[], None]
) -> Counter[str]:
    """Interrupt *work*, which is run again and again, *count* times by *kind*; return what became of them.

    After each of them *look* may count what it left behind.
    """
    became: Counter[str] = Counter()
    alarm = Alarm(kind)
    signal.signal(signal.SIGALRM, alarm)
    sys.unraisablehook = lambda _: became.update(["in a finalizer"])

    def until_heard(before: int) -> None:
        while alarm.raised == before:
            work()

    while alarm.raised < count:
        finalized = became["in a finalizer"]
        try:
            try:
                alarm.arm()
                until_heard(alarm.raised)
                if became["in a finalizer"] == finalized:
                    became["in a finalizer" if alarm.finalizing else f"lost at {alarm.place}"] += 1
            except kind:
                became["heard"] += 1
        except kind:  # it came just as the loop ended
            became["heard"] += 1
        except Exception as error:  # noqa: BLE001 - counted
            alarm.armed = False
            became[f"became {type(error).__name__}: {error}"] += 1
        alarm.armed = False
        look()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return became


def value_of(name: str) -> dict[str, Any]:
    return {"name": name, "parts": [name * 3] * 20}


class Ordeal:
    """A cache in use, and what its users saw and would see after an interrupt."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.harm: Counter[str] = Counter()
        self.right = {name: value_of(name) for name in NAMES}
        cache.set_many(self.right, None)
        cache.set("number", 0, None)
        self.least = 0
        self.lock: Any = None

    def work(self) -> None:
        """Use the cache as a request would, and compare."""
        cache, name = self.cache, random.choice(NAMES)
        if cache.get(name) != self.right[name]:
            self.harm["wrong value"] += 1
        cache.set(name, self.right[name], 300)
        if cache.get_many(NAMES) != self.right:
            self.harm["wrong values"] += 1
        number = cache.incr("number")
        if number <= self.least:
            self.harm["wrong number"] += 1
        self.least = number
        cache.set_many({name: self.right[name] for name in NAMES[:3]}, 300)
        with cache.pipeline() as pipe:
            found = pipe.get(NAMES[0]).ttl(NAMES[1]).get(NAMES[2]).execute()
        if (found[0], found[2]) != (self.right[NAMES[0]], self.right[NAMES[2]]):
            self.harm["wrong in a pipeline"] += 1
        self.lock = cache.lock("lock", blocking=False)
        if self.lock.acquire():
            self.lock.release()
        else:
            self.harm["lock left"] += 1
            cache.delete("lock")

    def look(self) -> None:
        """Count the places and connections that nobody gave back; other threads may have some for a moment."""
        if self.lock is not None and self.lock.token is not None:
            self.lock.release()  # it was interrupted while it was held, and its holder knows
        until = time.monotonic() + 1
        while (held := self.held()) and time.monotonic() < until:
            time.sleep(0.001)
        self.harm.update(held)

    @staticmethod
    def held() -> list[str]:
        """Return what is in use although nobody uses anything."""
        found = []
        for server in list(SERVERS):
            if server.seats is not None and len(server.seats.taken) > len(server.idle):
                found.append("place lost")
            if len(server.open) > len(server.idle):
                found.append("connection left open")
        return found


def control(count: int) -> dict[str, dict[str, int]]:
    """Interrupt a function that uses no cache."""
    payload = pickle.dumps([value_of(name) for name in NAMES])

    def work() -> None:
        for _ in range(20):
            json.loads(json.dumps(pickle.loads(payload)))  # noqa: S301 - made here

    return {kind.__name__: dict(interrupt(work, kind, count, lambda: None)) for kind in KINDS}


def ordeal(name: str, locations: Any, options: dict[str, Any], count: int) -> dict[str, dict[str, int]]:
    """Interrupt the users of the cache at *locations*, and return what became of the interrupts, and the harm."""
    logging.disable(logging.CRITICAL)
    cache = (ShardClient if name == "shards" else Cache)(
        locations, {"OPTIONS": {"MAX_CONNECTIONS": PLACES, "SOCKET_TIMEOUT": 5, **options}}
    )
    found = {}
    for kind in KINDS:
        victim = Ordeal(cache)
        found[kind.__name__] = dict(interrupt(victim.work, kind, count, victim.look) + victim.harm)
    return found


def in_a_process(*arguments: Any) -> tuple[int, dict[str, dict[str, int]]]:
    """Return how a process of its own ended that was told *arguments*, and what it found."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.interrupts", "--inside", json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=3000)  # noqa: S603
    return done.returncode, json.loads(done.stdout or "{}")


def harm_in(found: dict[str, dict[str, int]]) -> dict[str, int]:
    """Return what is in *found* beside interrupts that were heard, or came to a finalizer."""
    return {
        f"{kind}: {what}": number
        for kind, outcomes in found.items()
        for what, number in outcomes.items()
        if what not in {"heard", "in a finalizer"} and number
    }


@contextmanager
def topologies(names: list[str]) -> Iterator[dict[str, Any]]:
    """Start the servers of *names*, and yield where they are."""
    with ExitStack() as stack:
        start: dict[str, Callable[[], Any]] = {
            "one": lambda: stack.enter_context(valkey_server()).tcp_url(),
            "shards": lambda: [stack.enter_context(valkey_server()).tcp_url() for _ in range(3)],
            "cluster": lambda: stack.enter_context(cluster()).url(),
            "sentinel": lambda: stack.enter_context(sentinels()).url(0),
        }
        yield {name: start[name]() for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["one", "shards", "cluster", "sentinel"])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        arguments = json.loads(asked.inside)
        print(json.dumps(ordeal(*arguments) if len(arguments) > 1 else control(*arguments)))
        return 0
    bad = False
    print("control", *in_a_process(asked.count))
    with topologies(asked.names) as places:
        for name, place in places.items():
            for near in (False, True):
                began = time.monotonic()
                code, found = in_a_process(name, place, {"NEAR": near}, asked.count)
                bad = bad or code != 0 or bool(harm_in(found))
                print(
                    name,
                    "with NEAR" if near else "",
                    f"exit {code}",
                    found,
                    f"{time.monotonic() - began:.0f} s",
                    flush=True,
                )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
