"""Loading that breaks one rule each.  A checker that does not notice proves nothing.

A mutant is a function that changes the library's code in this process, for good.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fleetcache import commands, judging, policy, tagging
from fleetcache.core import Core
from fleetcache.exchange.contract import Script
from fleetcache.keys import lease_name
from fleetcache.loading import leases, wishes
from fleetcache.loading.flights import Failed, Flight, Flights
from fleetcache.loading.invalidation import Invalidation
from fleetcache.loading.joining import Joining
from fleetcache.loading.leading import Leading
from fleetcache.loading.leases import Leases
from fleetcache.marks import MISSING
from fleetcache.twin import blocking
from fleetcache.values import Values

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(change: Callable[[], None]) -> Callable[[], None]:
    """Add *change* to the mutants."""
    MUTANTS[change.__name__] = change
    return change


def install(name: str | None) -> None:
    """From now on loading in this process is the mutant of that name."""
    if name is not None:
        MUTANTS[name]()


def replace(kind: type, name: str, method: Any) -> None:
    """Replace a method, and its blocking face if it has one.  Who renames a method makes a mutant harmless without knowing it."""
    assert hasattr(kind, name), f"{kind.__name__} has no {name}"
    setattr(kind, name, method)
    face = name.removeprefix("a")
    if name.startswith("a") and face in vars(kind):
        blocking(method).__set_name__(kind, face)


def rewrite(name: str, old: str, new: str) -> None:
    """Replace *old* by *new* in a script."""
    script = getattr(commands, name)
    assert old in script.lua, f"{name} does not have {old!r}"
    setattr(commands, name, Script.of(script.name, script.lua.replace(old, new)))


# --- leases -------------------------------------------------------------------------------------------


@mutant
def no_look_after_the_lease() -> None:
    """Whoever gets the lease loads, whether or not the entry is there by then."""
    rewrite("TAKE", "if not same(ARGV[1], ARGV[2]) then", "if false then")
    rewrite("FILL", "if not same(ARGV[2], ARGV[3]) then return -1 end", "")


@mutant
def fill_without_comparison() -> None:
    """What was loaded is stored, whether or not the lease is still there."""
    rewrite("FILL", "if generation ~= ARGV[1] or failed ~= '' then", "if false then")


@mutant
def fill_over_foreign_set() -> None:
    """What was loaded is stored over what another program has stored meanwhile."""
    rewrite("FILL", "if not same(ARGV[2], ARGV[3]) then return -1 end", "")


def _without_voids(*verbs: str) -> None:
    voiding = Core._ask_voiding

    async def ask_voiding(self: Any, command: Any, lifetime: Any, instead: Any, client: Any = None) -> Any:
        if any(command[0] is getattr(commands, verb) for verb in verbs):
            return await self.ask(command, instead, client)
        return await voiding(self, command, lifetime, instead, client)

    replace(Core, "_ask_voiding", ask_voiding)


@mutant
def delete_leaves_leases() -> None:
    """A delete lets what is being loaded be stored."""
    _without_voids("DEL")


@mutant
def short_set_leaves_leases() -> None:
    """So does a `set` that ends before the load does."""
    _without_voids("SET")


@mutant
def soft_leaves_leases() -> None:
    """So does a soft invalidation, of a name that has no entry yet."""
    invalidate = Invalidation.ainvalidate

    async def ainvalidate(self: Any, key: Any, version: Any = None, *, soft: bool = False) -> bool:
        return (not soft or await self.ahas_key(key, version)) and await invalidate(self, key, version, soft=soft)

    replace(Invalidation, "ainvalidate", ainvalidate)


@mutant
def release_by_generation() -> None:
    """Whoever fails frees the lease of the one who took it over."""
    rewrite("LETGO", "or holder ~= ARGV[1]", "")


@mutant
def takeover_with_a_new_generation() -> None:
    """Who takes a lease over has what the one before him loads refused."""
    rewrite("TAKE", "if not generation then generation = ARGV[3] end", "generation = ARGV[3]")


@mutant
def release_before_store() -> None:
    """The lease is free before the value is there."""
    rewrite("FILL", "if generation ~= ARGV[1] or failed ~= '' then", "if false then")
    fill = Leases._fill_entry

    async def late_fill(self: Any, name: str, generation: Any, *rest: Any) -> Any:
        await self.ask((commands.VOID, lease_name(name)), 0)
        return await fill(self, name, generation, *rest)

    replace(Leases, "_fill_entry", late_fill)


# --- flights ------------------------------------------------------------------------------------------


@mutant
def join_without_generation() -> None:
    """Whoever joins asks whether the tags stand, but not whether the lease does."""

    async def check(self: Any, flight: Flight, wish: Any) -> Any:
        if await self._guards_hold(flight):
            return flight
        self.flights.detach(flight)
        return MISSING

    replace(Joining, "_check", check)


@mutant
def join_without_tags() -> None:
    """Whoever joins asks whether the lease stands, but not whether the tags do."""

    async def guards_hold(self: Any, flight: Flight) -> bool:
        return True

    replace(Joining, "_guards_hold", guards_hold)


@mutant
def impatience_of_each() -> None:
    """Each caller who loses patience loads by himself."""

    def loses_patience(self: Any, flight: Flight, wish: Any) -> bool:
        wish.impatient = True
        self.flights.detach(flight)
        return True

    replace(Flight, "patience", lambda self, began, wait, *rest: began + wait)
    replace(Joining, "_loses_patience", loses_patience)


@mutant
def failure_is_kept() -> None:
    """A failed flight stays where callers find it."""
    close = Flights.close

    def closing(self: Flights, flight: Flight, outcome: Any = None) -> None:
        if isinstance(outcome or flight.outcome, Failed):
            flight.end(outcome)
        else:
            close(self, flight, outcome)

    replace(Flights, "close", closing)


@mutant
def unshielded_wait() -> None:
    """A caller who is cancelled takes the load along, whoever else waits for it."""

    def leave(self: Flights, flight: Flight, waker: Any) -> None:
        flight.waiting.discard(waker)
        if flight.outcome is None and flight.task is not None:
            self.detach(flight)
            flight.abandon()

    replace(Flights, "leave", leave)


@mutant
def removed_by_another() -> None:
    """A flight that ends is taken from the table by its name, even if there is another one by now."""

    def detach(self: Flights, flight: Flight) -> None:
        flight.detached = True
        with suppress(KeyError):
            del self.running[flight.name]

    replace(Flights, "detach", detach)


# --- lives --------------------------------------------------------------------------------------------


@mutant
def fallback_after_delete() -> None:
    """What was deleted is kept for loads that fail."""

    delete = Values.adelete

    async def adelete(self: Any, key: Any, version: Any = None, *rest: Any) -> bool:
        there = await self.ahas_key(key, version)
        return bool(await (self.ainvalidate(key, version, soft=True) if there else delete(self, key, version, *rest)))

    replace(Values, "adelete", adelete)


@mutant
def stale_without_limit() -> None:
    """A stale value is served for as long as it is kept, and that is long."""
    policy.Policy.stale = property(lambda self: 3600.0)  # type: ignore[assignment,method-assign]
    decide = policy.decide

    def forever(left: Any, cost: float, wanted: Any, draw: float) -> Any:
        return decide(left, cost, wanted, draw) if left is None or left > 0 else policy.Decision.RENEW

    policy.decide = wishes.decide = forever  # type: ignore[attr-defined]


# --- tags ---------------------------------------------------------------------------------------------


@mutant
def versions_that_count() -> None:
    """The version of a tag is a number, which begins again when it was removed."""

    class Counted:
        @staticmethod
        def urandom(length: int) -> bytes:
            return (1).to_bytes(length)

    for place in (tagging, leases):
        if hasattr(place, "os"):
            vars(place)["os"] = Counted


@mutant
def missing_version_is_valid() -> None:
    """A tag without a version gives nothing up."""

    verdict = judging.verdict

    def lenient(metadata: Any, now: Any, known: Any, *, exact: bool) -> Any:
        versions = dict(metadata.tags)
        known = {tag: versions.get(tag) if found is None else found for tag, found in known.items()}
        return verdict(metadata, now, known, exact=exact)

    vars(judging)["verdict"] = lenient


@mutant
def captured_after_loading() -> None:
    """An entry gets the versions that its tags have when its load ends."""
    packed = Leading._packed

    async def late(self: Any, wish: Any, flight: Flight, *rest: Any) -> Any:
        flight.guards = await self._capture_guards(list(flight.guards or ()), None)
        return await packed(self, wish, flight, *rest)

    replace(Leading, "_packed", late)


@mutant
def early_for_each_hit() -> None:
    """Each hit draws anew whether it renews the value early."""
    assert hasattr(wishes, "drawn")
    vars(wishes)["drawn"] = lambda stamp: random.expovariate(1.0)
