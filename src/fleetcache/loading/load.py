"""What a loader may ask and say about the load that it is part of: `current_load`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fleetcache.marks import MISSING, Timeout
from fleetcache.tagging import checked

if TYPE_CHECKING:
    from fleetcache.loading.flights import Flight

CURRENT: ContextVar[Load | None] = ContextVar("fleetcache.load", default=None)
"""The load whose loader runs in this context."""


class Load:
    """One call of a loader, as the loader sees it."""

    def __init__(self, key: Any, timeout: Timeout, old: Any = MISSING, flight: Flight | None = None) -> None:
        self.key = key
        """The key whose value is loaded."""
        self.timeout = timeout
        """For how many seconds the value will be fresh; the loader may set it."""
        self.tags: tuple[str, ...] = ()
        """The tags that the loader has added."""
        self.skipped = False
        """Whether the value will not be stored."""
        self.kept = False
        """Whether the loader has found that the old value still holds."""
        self.lasting: set[str] = set()
        """The tags whose versions live long enough for a timeout that the loader has set."""
        self._old = old
        self.flights: Sequence[Flight] = () if flight is None else (flight,)
        self.outer = running_load()

    @property
    def stale(self) -> Any:
        """The old value; None if there is none."""
        return None if self._old is MISSING else self._old

    @property
    def is_stale(self) -> bool:
        """Whether there is an old value, which may be None."""
        return self._old is not MISSING

    def tag(self, *tags: str) -> None:
        """Give the value *tags* as well.  It is not stored if one of them may have been invalidated during the load."""
        self.tags = checked((*self.tags, *tags))

    def skip(self) -> None:
        """Do not store the value; the callers that wait for it get it."""
        self.skipped = True

    def unchanged(self) -> Any:
        """Begin a new life of the old value, and return it, so that the loader can return it as well."""
        if self._old is MISSING:
            raise LookupError("there is no old value to keep: ask current_load().is_stale first")
        self.kept = True
        return self._old

    @property
    def has_ended(self) -> bool:
        """Whether nobody waits for what the loader will return."""
        return bool(self.flights) and all(flight.outcome is not None for flight in self.flights)

    def chain(self) -> Iterator[Load]:
        """Yield this load, and the loads within whose loaders it was begun."""
        load: Load | None = self
        while load is not None:
            yield load
            load = load.outer


def running_load() -> Load | None:
    """Return the load whose loader runs in this context, if any."""
    load = CURRENT.get()
    while load is not None and load.has_ended:
        load = load.outer  # an interrupt kept it from being taken back, or its loader has left a task behind
    return load


class LoadOfMany(Load):
    """One call of a loader of many values: `key` is the list of its keys, `stale` a dict of their old values.

    What the loader says is about all its values; an old value that still holds it can return like a new one.
    """

    def __init__(self, keys: list[Any], timeout: Timeout, old: dict[Any, Any], flights: Sequence[Flight]) -> None:
        super().__init__(keys, timeout, old or MISSING)
        self.flights = flights

    @property
    def stale(self) -> dict[Any, Any]:
        """The old values there are, by their keys."""
        return {} if self._old is MISSING else self._old

    def unchanged(self) -> Any:
        """Refuse: the loader returns a mapping, old values included."""
        raise TypeError("a loader of many values keeps an old value by returning it: {key: current_load().stale[key]}")


def current_load() -> Load:
    """Return the load that the calling loader is part of; raise LookupError outside of a loader."""
    load = running_load()
    if load is None:
        raise LookupError("current_load() is for loaders: functions that get_or_set or @cached calls")
    return load


def loads_here() -> list[Flight]:
    """Return the flights within whose loaders the caller runs, the innermost first."""
    load = running_load()
    return [] if load is None else [flight for each in load.chain() for flight in each.flights]
