"""Near caches of which each breaks one rule.  A checker that does not notice proves nothing."""

from __future__ import annotations

from typing import Any

from fleetcache.near import Near
from fleetcache.near.tracking import FRESH, Tracking


class NoToken(Tracking):
    """A read leaves a copy whatever was announced since it was sent."""

    def may_keep(self, name: str, departed: int, digest: int) -> bool:
        return True


class NoOwnWriteDrop(Tracking):
    """Own writes are left to the server to announce."""

    def wrote(self, name: str) -> None:
        pass


class NoCompletedReadRule(Tracking):
    """A read that completes leaves a copy, whatever others have read since it was sent."""

    def may_keep(self, name: str, departed: int, digest: int) -> bool:
        return self.journal.read(name, departed, 0)


class NoEpochOnReconnect(Tracking):
    """Copies survive the connection on which they would have been invalidated."""

    def end_epoch(self, reason: str) -> None:
        if reason not in {"connection", "connected", "silence"}:
            super().end_epoch(reason)


class NoLease(Tracking):
    """Copies are served as long as the connection seems to be there."""

    def leased(self, now: float) -> bool:
        return self.proven

    def _extend(self) -> None:
        if self.proven:
            self.epoch.until = self._caught_up + FRESH


class LeaseFromReceipt(Tracking):
    """A PONG vouches for the time at which it comes, not for that of its PING."""

    def vouched(self, sent: float, now: float) -> float:
        return now


class PongFirst(Tracking):
    """Announcements are put aside, and applied when there is time: with the next that comes."""

    later: tuple[Any, ...] = ()

    def received(self, data: Any, now: float) -> None:
        earlier, self.later = self.later, ()
        for push in earlier:
            super()._announced(push, now)
        super().received(data, now)

    def _announced(self, push: Any, now: float) -> None:
        self.later = (*self.later, push)


class NoRunId(Tracking):
    """Nobody asks where connections lead."""

    def met(self, run_id: str, role: str = "") -> bool:
        return True


class NoCanary(Tracking):
    """That the server said OK is proof enough."""

    def arm(self, now: float) -> None:
        super().arm(now)
        self.proven = True

    def canary_due(self, now: float) -> bool:
        return False

    def _unheard(self) -> None:
        pass


class EndlessCopies(Tracking):
    """Copies do not expire."""

    def arrive(self, name: str, departed: int, value: Any, payload: Any, digest: int, deadline: float | None) -> None:
        super().arrive(name, departed, value, payload, digest, deadline and deadline + 3600)


class NoFlush(Tracking):
    """That everything was removed is not heard."""

    def flushed(self) -> None:
        pass


MUTANTS = {
    mutant.__name__: mutant
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
    )
}


def install(mutant: str | None) -> None:
    """From now on near caches of this process are such mutants."""
    if mutant is not None:
        Near.tracking_class = MUTANTS[mutant]
