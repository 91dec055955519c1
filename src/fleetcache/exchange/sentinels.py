"""Finding the primary and the replicas of a service: Sentinels name them, and the server itself must confirm its role.

Every new connection begins with a question to a Sentinel.  A Sentinel that was cut off, or has not yet heard of a
fail-over, may name a server that is gone; then the next Sentinel is asked, and from then on this one last.  During a
fail-over all Sentinels may name a server that has just become a replica; that server then names its primary (`INFO`).
(https://valkey.io/topics/sentinel-clients/)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from redis import exceptions as redis

from fleetcache.errors import (
    NeverSent,
    NotPrimary,
    ServerGone,
    ServerTimeout,
    UnsupportedServer,
    advice_of,
    advised,
    fault_of,
    is_outage,
)
from fleetcache.exchange.contract import Reply, Verb
from fleetcache.exchange.wire import place_in
from fleetcache.forks import chance

T = TypeVar("T")
Place: TypeAlias = tuple[str, int]
Remap: TypeAlias = Callable[[Place], Place]

MOMENT = 0.2
"""How long, in seconds, a Sentinel's answer serves all new connections before it is asked again."""
SOON = 0.1
"""The same after a wrong answer: the right one should follow soon."""
PATIENCE = 5.0
"""After this many seconds no further server is tried, if there is no SOCKET_TIMEOUT."""
UP = {"s_down", "o_down", "disconnected"}.isdisjoint
ASK = Verb("SENTINEL", harmless=True, key=0)


@dataclass(eq=False)
class Sentinel:
    """One Sentinel, its connection *server*, and its last answer."""

    server: Any
    said: Sequence[Place] | Exception = ()
    rests_until: float = 0.0
    doubted: float = 0.0
    """When it last gave no answer or a wrong one."""


@dataclass
class Sentinels:
    """The Sentinels of *service*, which know where its primary is, or its replicas."""

    address: str
    service: str
    primary: bool
    known: Sequence[Sentinel]
    remap: Remap | None = None
    last: Place | None = None
    turn: Any = field(default_factory=threading.RLock)

    def lead(self, to: Callable[[Place], T], until: float = inf) -> T:
        """Return the result of *to* at the first place named by a Sentinel that proves right; give up at *until*."""
        until = monotonic() + PATIENCE if until == inf else until
        tried: dict[Place, Exception] = {}
        for sentinel in sorted(self.known, key=lambda each: each.doubted):
            self._hurry(until)
            said = self._said(sentinel)
            for place in () if isinstance(said, Exception) else said:
                if (found := self._follow(place, to, tried, until)) is not None:
                    if self.last != place and self.last is not None:
                        sentinel.said = (self.last,)  # this Sentinel will repeat the old place for a while
                    return found
            sentinel.doubted = monotonic()
            if any(isinstance(error, NotPrimary) for error in tried.values()):
                sentinel.rests_until = min(sentinel.rests_until, monotonic() + SOON)
        # Without Sentinels no other server is promoted, so the last primary is still the primary.
        if self.last and all(isinstance(each.said, Exception) for each in self.known) and monotonic() < until:
            return to(self.last)
        raise next(iter(tried.values()), None) or self._nobody_knows()

    def _follow(
        self, place: Place | None, to: Callable[[Place], T], tried: dict[Place, Exception], until: float
    ) -> T | None:
        """Return the result of *to* at *place* or, if that is a replica by now, at its primary; None if both fail."""
        while place is not None and place not in tried:
            self._hurry(until)
            try:
                found = to(place)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if not is_outage(error):
                    raise
                tried[place] = error
                place = self._remapped(error.primary) if isinstance(error, NotPrimary) and error.primary else None
            else:
                self.last = place
                return found
        return None

    def _hurry(self, until: float) -> None:
        if monotonic() > until:
            raise ServerTimeout(f"{self.address}: not found in time, because Sentinels or servers do not answer")

    def _remapped(self, place: Place) -> Place:
        return place if self.remap is None else self.remap(place)

    def _said(self, sentinel: Sentinel) -> Sequence[Place] | Exception:
        with self.turn:
            if monotonic() >= sentinel.rests_until:
                said = self._ask(sentinel.server)
                sentinel.said = said if isinstance(said, Exception) else [self._remapped(place) for place in said]
                sentinel.rests_until = monotonic() + MOMENT
            return sentinel.said

    def _ask(self, server: Any) -> Sequence[Place] | Exception:
        questions = [(ASK, "GET-MASTER-ADDR-BY-NAME", self.service)]
        if not self.primary:
            questions.append((ASK, "REPLICAS", self.service))
        try:
            found, *others = server.exchange(questions)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            return error
        finally:
            # The next question may be hours away.
            server.close_idle()
        if isinstance(found, Exception):
            if "unknown command" not in str(found):
                return found
            return UnsupportedServer(
                f"{server.address}: the server is no Sentinel ({found}). Sentinels usually listen on port 26379; "
                f"the URL of a server itself begins with redis://"
            )
        if found is None:
            return ()
        try:
            replicas = replicas_in(others[0]) if others else []
            return [*chance.sample(replicas, len(replicas)), place_in(*found)]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            return ServerGone(f"{server.address}: sent no valid address of a server: {type(error).__name__}")

    def _nobody_knows(self) -> Exception:
        errors = [each.said for each in self.known if isinstance(each.said, Exception)]
        if len(errors) < len(self.known):
            asked = ", ".join(sentinel.server.address.partition("/")[0] for sentinel in self.known)
            fault = f"{self.address}: no Sentinel knows a service {self.service!r}. Asked: {asked}."
            return NeverSent(advised(fault, "Compare the name in {} with what SENTINEL MASTERS lists there"))
        for error in errors:
            if not is_outage(error):
                return type(error)(*error.args)  # a new exception each time: a shared one would collect tracebacks
        fault = f"{self.address}: no Sentinel could be asked: {'; '.join(map(fault_of, errors))}"
        return NeverSent(advised(fault, next(filter(None, (advice_of(error, "{}") for error in errors)), "")))


def replicas_in(reply: Reply) -> list[Place]:
    """Return the places of the replicas that a Sentinel considers healthy."""
    found = []
    for facts in () if isinstance(reply, Exception) else reply:
        about = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
        if UP(about[b"flags"].decode().split(",")):
            found.append(place_in(about[b"ip"], about[b"port"]))
    return found
