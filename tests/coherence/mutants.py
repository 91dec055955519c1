"""Near caches of which each breaks one rule.  A checker that does not notice proves nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from copy import copy
from itertools import chain
from typing import Any

from fleetcache.exchange.contract import Server
from fleetcache.near import listener, near
from fleetcache.near.listener import Listener, clock
from fleetcache.near.near import Near
from fleetcache.near.reads import NEVER, Read, Reads
from fleetcache.near.stages import Stage
from fleetcache.near.store import PACKED, Entry
from fleetcache.near.tracking import FRESH, Tracking
from fleetcache.topology import opening
from fleetcache.topology.cluster import Cluster
from fleetcache.topology.contract import Topology


def renumbered(read: Read, number: int) -> Read:
    """Return *read* as if it had been sent when the journal's number was *number*."""
    read = copy(read)
    read.number = number
    return read


class NoToken(Reads):
    """A read leaves a copy whatever was announced since it was sent."""

    def judge(self, read: Read) -> None:
        super().judge(renumbered(read, read.number and self.tracking.journal.now))


class NoOwnWriteDrop(Tracking):
    """Own writes are left to the server to announce."""

    def wrote(self, name: str) -> None:
        pass


class NoCompletedReadRule(Reads):
    """A read that completes leaves a copy, whatever others have read since it was sent."""

    def judge(self, read: Read) -> None:
        journal = self.tracking.journal
        written, *_ = journal.recent.get(read.name) or journal.older.get(read.name) or (0,)
        unwritten = read.number >= max(written, journal._floor)
        super().judge(renumbered(read, journal.now if unwritten else read.number))


class NoEpochOnReconnect(Tracking):
    """Copies survive the connection on which they would have been invalidated."""

    def end_epoch(self, reason: str) -> None:
        if reason not in {"connection", "connected", "silence"}:
            super().end_epoch(reason)


class NoLease(Tracking):
    """Copies are served as long as the connection seems to be there."""

    def leased(self, now: float) -> bool:
        return self.stage.proven

    def _extend(self) -> None:
        if self.stage.proven:
            self.epoch.until = self._drained + FRESH


class LeaseFromReceipt(Tracking):
    """A PONG vouches for the time at which it comes, not for that of its PING."""

    def vouched(self, sent: float, now: float) -> float:
        return now


class PongFirst(Tracking):
    """Announcements are applied some time later, but PONGs, and what proves that announcements come, at once."""

    later: tuple[tuple[float, Any], ...] = ()

    def _announced(self, push: Any, now: float) -> None:
        if self._canary is not None and self._canary.name in (push[1] or ()):
            super()._announced(push, now)
        else:
            self.later = (*self.later, (now + 0.02, push))

    def tick(self, now: float) -> float:
        while self.later and self.later[0][0] <= now:
            (_, push), *later = self.later
            self.later = tuple(later)
            super()._announced(push, now)
        return super().tick(now)


class NoRunId(Tracking):
    """Nobody asks where connections lead."""

    def is_same_server(self, run_id: str, role: str = "") -> bool:
        return True


class NoCanary(Tracking):
    """That the server said OK is proof enough."""

    def arm(self, now: float) -> None:
        super().arm(now)
        self._enter(Stage.PROVEN)

    def canary_due(self, now: float) -> bool:
        return False

    def _unheard(self) -> None:
        pass


class EndlessCopies(Reads):
    """Copies do not expire."""

    def judge(self, read: Read) -> None:
        read = copy(read)
        read.left, read.sent = (read.left if read.left == -2 else -1), read.sent + 3600
        super().judge(read)


class NoFlush(Tracking):
    """That everything was removed is not heard."""

    def flushed(self) -> None:
        pass


class KeptAcrossMoves(Tracking):
    """Copies survive that their slot has moved to another primary."""

    def end_epoch(self, reason: str) -> None:
        if reason != "moved":
            super().end_epoch(reason)


class VouchedByTheOldOne(Near):
    """A copy is good while whoever it came from says so."""

    def copy(self, name: str) -> Entry | None:
        now, entry = clock(), self.copies.get(name)
        for reads in list(self.reads.values()):
            if entry is not None and entry.epoch is reads.tracking.epoch and now < entry.deadline:
                reads.listener.look(now)
                return entry if now < entry.epoch.until and self.copies.get(name) is entry else None
        return super().copy(name)


class AskingAnybody(Tracking):
    """A server that answers is good enough, whether or not it is the primary; nothing ends because others say so."""

    def connected(self, now: float, name: str) -> None:
        super().connected(now, name)
        self._question = ("PING",)

    def end_epoch(self, reason: str) -> None:
        if reason != "moved":
            super().end_epoch(reason)

    def is_same_server(self, run_id: str, role: str = "") -> bool:
        return True


class ListeningOn(Listener):
    """Who was the primary is listened to for ever."""

    @property
    def wanted(self) -> bool:
        return bool(self.tracking.readers)

    def moved(self, losers: Iterable[Server]) -> None:
        pass


class KeepingOn(VouchedByTheOldOne):
    """Whoever was the primary is not forgotten."""

    def _forget_gone(self) -> None:
        pass


class NoLookAround(Listener):
    """Nobody else is asked who the primaries are."""

    def _look_around(self) -> None:
        pass


class SharedLease(Tracking):
    """An answer of one primary vouches for the copies of all."""

    newest = NEVER

    def vouched(self, sent: float, now: float) -> float:
        SharedLease.newest = max(SharedLease.newest, sent)
        return sent

    def leased(self, now: float) -> bool:
        return self.stage.proven and now < SharedLease.newest + self.options.t_live

    def _extend(self) -> None:
        if self.stage.proven:
            self.epoch.until = min(SharedLease.newest + self.options.t_live, self._drained + FRESH)


class WrongNode(Listener):
    """All listeners listen to the same primary, and are content with it."""

    def __init__(self, server: Server | None, topology: Topology) -> None:
        super().__init__(server, topology)
        if server is None:
            return
        tracking = self.tracking
        first = self.server = topology.primaries[0]

        def own_name() -> str:
            holds, tracking.holds = tracking.holds, lambda name: topology.home(name) is first
            try:
                return Tracking.own_name(tracking)
            finally:
                tracking.holds = holds

        tracking.own_name = own_name  # type: ignore[method-assign]


class FillsOnTheWay(Cluster):
    """What another node than the slot's own has answered leaves copies too."""

    async def settle(self, *asked: Any) -> list[Any]:
        return list(await super().settle(*asked))


class AbsentCopies(Reads):
    """That an entry is missing is remembered, although another node may announce that it has come to be."""

    def judge(self, read: Read) -> None:
        tracking = self.tracking
        moves = tracking.can_move
        if read.payload is None and read.value is PACKED and tracking.holds(read.name):
            tracking.can_move = False
        super().judge(read)
        tracking.can_move = moves


KINDS: dict[type, tuple[Any, str]] = {
    Tracking: (Listener, "tracking_class"),
    Reads: (Near, "reads_class"),
    Near: (near, "Near"),
    Listener: (listener, "Listener"),
    Cluster: (opening, "Cluster"),
}
"""Where what a mutant is a kind of is looked up by those who use it."""

MUTANTS: dict[str, tuple[type, ...]] = {
    mutant.__name__: (mutant,)
    for mutant in (
        NoToken,
        NoOwnWriteDrop,
        NoCompletedReadRule,
        NoEpochOnReconnect,
        NoLease,
        LeaseFromReceipt,
        PongFirst,
        NoRunId,
        NoCanary,
        EndlessCopies,
        NoFlush,
        NoLookAround,
        SharedLease,
        WrongNode,
        FillsOnTheWay,
        AbsentCopies,
    )
}
MUTANTS["KeptAcrossMoves"] = (KeptAcrossMoves, VouchedByTheOldOne)
MUTANTS["KeptAcrossPromotions"] = (AskingAnybody, ListeningOn, KeepingOn)


# Who renames a method makes a mutant harmless without knowing it.
for _mutant in chain(*MUTANTS.values()):
    for _name, _member in vars(_mutant).items():
        if inspect.isfunction(_member):
            assert hasattr(_mutant.__base__, _name), f"{_mutant.__name__}.{_name} overrides nothing"


def install(mutant: str | None) -> None:
    """From now on near caches of this process are such mutants."""
    for each in MUTANTS[mutant] if mutant is not None else ():
        place, name = next(KINDS[kind] for kind in each.__mro__ if kind in KINDS)
        setattr(place, name, each)
