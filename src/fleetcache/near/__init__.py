"""Copies of values in the process, kept current by the servers' invalidations.

One store and one listener per primary serve all cache objects of one configuration in a process,
blocking and awaiting alike.  docs/guarantees.md says what is promised; `tracking` how it is kept.

A cache looks into ``copies`` by itself, without a call; everything else goes through `Near`.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from os.path import commonprefix
from queue import Empty, SimpleQueue
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.exchange import Server
from fleetcache.forks import in_children
from fleetcache.keys import default_key_function
from fleetcache.near.changes import Changes
from fleetcache.near.listener import Listener, clock
from fleetcache.near.store import PACKED, Entry, Store
from fleetcache.near.tracking import CANARY, Counts, State, Tracking
from fleetcache.settings import NearOptions, Settings
from fleetcache.topology import Topology

__all__ = ["CANARY", "PACKED", "Near", "announced", "clock", "open_near"]

SAMPLES = ("a", "Z", "0", "user:1")
"""Keys whose names show how a site's own KEY_FUNCTION begins them all."""


class Near:
    """The near cache of one configuration in this process."""

    tracking_class = Tracking

    def __init__(
        self, options: NearOptions, prefixes: Sequence[str], topology: Topology, *, warns: bool = False
    ) -> None:
        self.options = options
        self.prefixes = tuple(prefixes)
        self.store = Store(options.max_bytes)
        self.copies = self.store.copies
        self.counts = Counts()
        self.changes = Changes(self._void, self._give_up)
        self.warns = warns
        self.topology = topology
        self.home = topology.home
        self.listeners: dict[Server, Listener] = {}
        self.nowhere = self._listener(None)
        self.only: Tracking | None = None
        if not topology.moves:
            for server in topology.primaries:
                self._listen_to(server)
            if len(self.listeners) == 1:
                self.only = self.listener("").tracking
        topology.watch(self._moved)
        NEARS.append(self)
        in_children(self.after_fork)

    def _listener(self, server: Server | None) -> Listener:
        address = server.address if server else ""
        tracking = self.tracking_class(address, self.prefixes, self.options, self.store, self.counts)
        tracking.server, tracking.warns = server, self.warns
        if self.topology.moves:
            tracking.holds = lambda name: self.home(name) is server
        return Listener(server, tracking, self.changes, self.topology)

    def listener(self, name: str) -> Listener:
        """Return who listens to the primary that holds *name*, or who never begins if that is not known."""
        server = self.home(name)
        return self.listeners.get(server) or self._listen_to(server)

    def _listen_to(self, server: Server) -> Listener:
        with self.lock:
            if server in self.topology.primaries and server not in self.listeners:
                self.listeners[server] = self._listener(server)
            return self.listeners.get(server, self.nowhere)

    def _moved(self, losers: Iterable[Server]) -> None:
        """*losers* hold less than they did, or nothing any more."""
        for server in losers:
            if (listener := self.listeners.get(server)) is not None:
                self.changes.make(listener.tracking.end_epoch, "moved")
        with self.lock:
            gone = [
                self.listeners.pop(server, None) for server in {*self.listeners}.difference(self.topology.primaries)
            ]
        for listener in filter(None, gone):
            listener.close()

    def tracking(self, name: str) -> Tracking:
        """Return what is known of the primary that holds *name*."""
        return self.only or self.listener(name).tracking

    def wake(self, name: str) -> None:
        """Begin to listen to the primary that holds *name*, unless it has begun."""
        self.listener(name).start()

    @property
    def lock(self) -> Any:
        """What is held while anything is changed."""
        return self.changes.lock

    def _void(self) -> None:
        for listener in list(self.listeners.values()):
            listener.tracking.void()

    def _give_up(self) -> None:
        self.store.clear()
        for listener in list(self.listeners.values()):
            # What was sent may not agree any more with what is noted of it.
            listener.give_up("interrupt", State.DEAD, "interrupted")

    # --- reading ----------------------------------------------------------------------------------

    def copy(self, name: str) -> Entry | None:
        """Return the copy of *name* if it may be served."""
        entry = self.copies.get(name)
        if entry is None:
            tracking = self.tracking(name)
            if name not in tracking.pending:
                return None
            self.changes.make(tracking.settle, must=False)
            entry = self.copies.get(name)
            if entry is None:
                return None
        now = clock()
        if now >= entry.deadline:
            return None
        if now < entry.epoch.until:
            return entry
        # Nobody has looked for announcements in the last millisecond.
        listener = self.listener(name)
        listener.look(now)
        entry = self.copies.get(name)
        if entry is None or now >= entry.deadline:
            return None
        return entry if now < entry.epoch.until or listener.tracking.vouches(entry.epoch, now) else None

    def arrive(self, arrivals: Iterable[tuple[Any, ...]]) -> None:
        """Note reads that have completed: each a `Tracking`, and what its `arrive` is to be told."""
        for tracking, *arrival in arrivals:
            tracking.arrive(*arrival)

    def wrote(self, names: Iterable[str] | None) -> None:
        """Note that this process writes *names*, None for all there are, or has done so."""
        # Caches of other configurations may have copies of the same entries.
        for near in NEARS:
            near.forget(names)

    def forget(self, names: Iterable[str] | None) -> None:
        """Give up the copies of *names*, and whatever is being read of them."""
        if names is None:
            self.changes.make(self._forget_all)
            return
        for name in names:
            if name.startswith(self.prefixes):
                self.changes.make(self.tracking(name).wrote, name)

    def _forget_all(self) -> None:
        for listener in list(self.listeners.values()):
            listener.tracking.end_epoch("own flush")

    # --- fences -----------------------------------------------------------------------------------

    def fence(self) -> None:
        """Wait until every write that was acknowledged before now is known here."""
        began = clock()
        # No Event: who is interrupted within its methods leaves its lock held, for who would set it.
        passed: dict[Listener, SimpleQueue[None]] = {listener: SimpleQueue() for listener in [*self.listeners.values()]}
        waits = [listener for listener, queue in passed.items() if listener.fence(began, partial(queue.put, None))]
        for listener in waits:  # all have been asked by now
            try:
                passed[listener].get(timeout=max(began + listener.patience - clock(), 0))
            except Empty:
                listener.fall_back()

    async def afence(self) -> None:
        """Wait until every write that was acknowledged before now is known here."""
        began, loop = clock(), asyncio.get_running_loop()

        async def pass_one(listener: Listener) -> None:
            passed = loop.create_future()

            def let_pass() -> None:
                if not passed.done():
                    passed.set_result(None)

            def tell() -> None:
                with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                    loop.call_soon_threadsafe(let_pass)

            if listener.fence(began, tell):
                try:
                    await asyncio.wait_for(passed, listener.patience)
                except TimeoutError:
                    listener.fall_back()

        await asyncio.gather(*(pass_one(listener) for listener in list(self.listeners.values())))

    # --- looking at it ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How far copies can be trusted; of several primaries, the one that is worst off."""
        order = list(State)
        states = [listener.tracking.state for listener in list(self.listeners.values())]
        return max(states, key=order.index, default=State.ASLEEP)

    @property
    def why(self) -> str:
        """Why it is not live, "" if it is."""
        return "; ".join(
            f"{each.tracking.address}: {each.tracking.why}"
            for each in list(self.listeners.values())
            if each.tracking.why
        )

    def stats(self) -> dict[str, Any]:
        """Return what has been counted since the process began; see docs/guarantees.md."""
        hits = self.store.hits
        with self.lock:
            counts, store = self.counts, self.store
            return {
                "state": str(self.state),
                "why": self.why,
                "hits": hits,
                "misses": counts.misses,
                "entries": store.entries,
                "bytes": store.bytes,
                "max_bytes": self.options.max_bytes,
                "filled": counts.filled,
                "refused": counts.refused,
                "evictions": dict(store.evicted),
                "invalidations": dict(counts.invalidations),
                "pushes": counts.pushes,
                "epochs": dict(counts.epochs),
                "connects": counts.connects,
                "canaries": counts.canaries,
                "lag": {f"< {2 ** (bucket + 1)} us": count for bucket, count in enumerate(counts.lags) if count},
            }

    def close(self) -> None:
        """Stop listening."""
        for listener in list(self.listeners.values()):
            listener.close()

    def after_fork(self) -> None:
        """In a child: begin with nothing, and leave the parent's connections alone."""
        self.store.clear()
        self.counts.__init__()  # type: ignore[misc]  # the parent's
        for listener in (self.nowhere, *self.listeners.values()):
            listener.after_fork()


def open_near(settings: Settings, prefixes: Sequence[str], topology: Topology, warns: bool = False) -> Near | None:
    """Return a near cache of the names that begin with *prefixes*, as `announced` returned them; None without any."""
    options = settings.options.near
    return Near(options, prefixes, topology, warns=warns) if options is not None and prefixes else None


def announced(settings: Settings) -> tuple[str, ...]:
    """Return what the names begin with that are kept near: what was set, or what all names of a cache begin with.

    They are none if *settings* ask for no near cache, or need none.
    """
    options = settings.options.near
    if options is None or all(url.startswith("memory:") for url in settings.location):
        return ()
    names = [settings.key_function(key, settings.key_prefix, settings.version) for key in SAMPLES]
    if not all(isinstance(name, str) for name in names):
        raise SettingsError("NEAR: KEY_FUNCTION has to return text; the server announces changes by text")
    plain = settings.key_function is default_key_function
    beginning = f"{settings.key_prefix}:" if plain else commonprefix(names)  # noqa: RUF071 - of strings
    if options.prefixes:
        if plain and not any(part.startswith(beginning) or beginning.startswith(part) for part in options.prefixes):
            raise SettingsError(
                f"NEAR: PREFIXES {options.prefixes!r}: no entry's name begins like that. They are names on the server, "
                f"such as {names[-1]!r} for the key {SAMPLES[-1]!r}"
            )
        return options.prefixes
    if not beginning:
        raise SettingsError(
            "NEAR: the names that KEY_FUNCTION makes have no common beginning, by which the server could tell which "
            "changes to announce. Name some: OPTIONS['NEAR'] = {'PREFIXES': ['shop:']}"
        )
    return (beginning,)


NEARS: list[Near] = []
"""Every near cache of the process.  There are as many as configurations, and they stay."""


def _at_exit() -> None:
    """Stop listening, so that the threads end; `threads` waits for them."""
    for near in NEARS:
        near.close()


atexit.register(_at_exit)
