"""Metrics by any StatsD client: ``start(send)`` calls a function of yours with what has changed, every ten seconds.

StatsD's counters are told differences, and so are sent here.  Of distributions only percentiles are sent, each as soon as
enough times were measured since it was sent last: a StatsD client would need each single time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeAlias

from fleetcache.forks import Guard, in_children, keep, own
from fleetcache.interrupts import let_pass
from fleetcache.stats.beginnings import BEGINNINGS, PROCESS
from fleetcache.stats.latency import ENOUGH, Latency
from fleetcache.telemetry import metrics
from fleetcache.telemetry.metrics import GROUPS, METRICS, Collector, Labels, Metric, Points, complain
from fleetcache.threads import Bell, begun

Tags: TypeAlias = dict[str, str]
Send: TypeAlias = Callable[[str, str, float, Tags], object]
"""A function of (name, kind, value, tags); kind is ``"c"``, a difference to add to a counter, or ``"g"``, a gauge."""

FAILED = "what caches have counted could not be sent"

LONGEST = 10.0
"""After so many seconds a push ends with the next figure that cannot be sent: the agent may be away."""

FAREWELL = 0.3
"""How long, in seconds, the end of the pushes waits for one that has begun."""


def tagged(client: Any) -> Send:
    """Return a function that sends by *client*, one with tags, such as DogStatsD: ``increment`` and ``gauge``."""

    def send(name: str, kind: str, value: float, tags: Tags) -> None:
        listed = [f"{tag}:{_tag(text)}" for tag, text in tags.items()]
        (client.increment if kind == "c" else client.gauge)(name, value, tags=listed)

    return send


def plain(client: Any) -> Send:
    """Return a function that sends by *client* of the package ``statsd``, which knows no tags: they are parts of the name."""

    def send(name: str, kind: str, value: float, tags: Tags) -> None:
        whole = ".".join([name, *(_word(text) for text in tags.values())])
        (client.incr if kind == "c" else client.gauge)(whole, value)

    return send


class StatsD:
    """Sends, at each `push`, what all caches of this process have counted since the one before.

    An exception that *send* raises is logged, at most once a minute, and what could not be sent is sent with the next push.
    The names of metrics begin with *prefix*; the first *groups* groups of keys are told apart.
    """

    def __init__(self, send: Send, *, prefix: str = "fleetcache", groups: int = GROUPS) -> None:
        if not callable(send):
            raise TypeError(f"statsd: a function is expected, not {type(send).__name__}; see `plain` and `tagged`")
        self.send = send
        self.prefix = prefix
        self.collector = Collector(metrics.own, groups)
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        self.sent: dict[str, Points] = {}
        """What the counters have been told."""

    def push(self) -> None:
        """Send what has changed; it never raises."""
        until = monotonic() + LONGEST
        try:
            for metric, points in zip(METRICS, self.collector.collect().values(), strict=True):
                for labels, value in points.items():
                    if not self._sends(metric, labels, value) and monotonic() > until:
                        return
        except Exception as error:  # noqa: BLE001 - a tool that fails must not end the program's own work
            let_pass(error)
            complain("statsd", FAILED)

    def _sends(self, metric: Metric, labels: Labels, value: Any) -> bool:
        """Send a figure, and return whether that succeeded; a failure keeps no other figure from being sent."""
        try:
            self._push(metric, labels, value)
        except Exception as error:  # noqa: BLE001 - as above
            let_pass(error)
            complain("statsd", FAILED)
            return False
        return True

    def _push(self, metric: Metric, labels: Labels, value: Any) -> None:
        name = f"{self.prefix}.{metric.name.removeprefix('cache.')}"
        tags = dict(zip(("cache.name", *metric.labels), labels, strict=True))
        told = self.sent.setdefault(metric.name, {})
        if metric.kind == "gauge":
            self.send(name, "g", value, tags)
        elif metric.kind == "counter":
            if more := value - told.get(labels, 0):
                self.send(name, "c", more, tags)
            told[labels] = value
        else:
            for percent, enough in ENOUGH.items():
                which = (*labels, str(percent))
                recent = _since(value, told.get(which))
                if recent.count >= enough:
                    self.send(f"{name}.p{percent}", "g", recent.percentile(percent), tags)
                    told[which] = value


def start(send: Send, seconds: float = 10.0, *, prefix: str = "fleetcache", groups: int = GROUPS) -> Callable[[], None]:
    """Push every so many *seconds* in a thread, in forked children too; return a function that ends this.

    The thread begins when the process first connects to a server.  *send* is called in it.
    """
    if seconds <= 0:
        raise ValueError("statsd: more than 0 seconds are expected")
    pushing = Pushing(StatsD(send, prefix=prefix, groups=groups), seconds)
    BEGINNINGS.append(pushing.begin)
    if PROCESS.connects:
        pushing.begin()
    return pushing.end


class Pushing:
    """The thread that pushes."""

    def __init__(self, statsd: StatsD, seconds: float) -> None:
        self.statsd = statsd
        self.seconds = seconds
        self.guard = Guard()
        self.ended = False
        self.thread: Any = None
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        keep(self.thread)
        self.thread = None
        self.wake = Bell()

    def begin(self) -> None:
        """Start the thread, if it does not run."""
        if self.thread is not None or self.ended:
            return
        own()
        with self.guard.lock:
            if self.thread is None:
                self.thread = begun("pushes", self._run)

    def _run(self) -> None:
        due = monotonic() + self.seconds
        while not self.ended:
            self.wake.wait(due - monotonic())
            with self.guard.lock:  # for `end`
                if monotonic() >= due and not self.ended:
                    try:
                        self.statsd.push()
                    except BaseException:  # noqa: BLE001 - such as SystemExit: nobody else hears of it in this thread
                        complain("statsd", FAILED)
                    due = monotonic() + self.seconds

    def end(self) -> None:
        """Push no more; wait a moment for a push that has begun."""
        self.ended = True
        if self.begin in BEGINNINGS:
            BEGINNINGS.remove(self.begin)
        self.wake.ring()
        lock = self.guard.lock
        if lock.acquire(timeout=FAREWELL):
            lock.release()


def _since(now: Latency, before: Latency | None) -> Latency:
    """Return the times that came after *before*."""
    found = Latency()
    found.add(now)
    if before is not None:
        found.counts = [max(new - old, 0) for new, old in zip(now.counts, before.counts, strict=True)]
    return found


def _tag(text: str) -> str:
    """Return *text* without what ends a tag, or a whole metric: groups are parts of keys, which may hold anything."""
    return re.sub(r"[|,\x00-\x20\x7f]+", "_", text)


def _word(text: str) -> str:
    """Return *text* as one part of a name."""
    return "".join(each if each.isalnum() or each in "-_" else "_" for each in text) or "_"
