"""Leases: the fleet's permission to load one entry, at the server that holds it.

A lease is a key of its own beside the entry.  Its value is a *generation*, by which the value that is loaded may be
stored; the *holder*, who alone may release it; and for how long others wait for the holder.  Whoever takes it
over after that moment keeps the generation, so a load that takes longer than a lease can still be stored.  Every
write that gives up the entry deletes the lease, and what was being loaded is not stored.

So a value is stored only if nothing gave it up since its load began: its lease is there, the entry is the one that was
there when the load began, and each *guard*, a tag or the epoch of the whole cache, has the version that it had then.

A user without the right to run scripts gets simpler leases (`SET NX`) and fills that compare less; one without the
right to write leases gets none.  Either is said once, in the log and in ``info()``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from redis.exceptions import NoPermissionError, ResponseError

from fleetcache import commands as c
from fleetcache.codec.metadata import VERSION
from fleetcache.core import LEASES
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.judging import mark
from fleetcache.keys import lease_name
from fleetcache.loading.guards import RENEWALS, Guarding, Guards
from fleetcache.loading.wishes import MISSING_ENTRY, Mark
from fleetcache.marks import MISSING

log = logging.getLogger("fleetcache.loading")

STORED, LEASE_GONE, ENTRY_CHANGED, GUARD_CHANGED = 1, 0, -1, -2
"""The replies of the script that stores what was loaded."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at the server about an entry."""

    word: str
    """``"mine"``: the caller has the lease; ``"held"``: another one; ``"free"``: nobody; ``"failed"``: a load failed, and
    nobody shall try for a while; ``"entry"``: there is another entry than the one that was judged; ``"gone"``: that one
    is missing now; ``"unknown"``: the server is away, or there are no leases."""
    generation: bytes | None = None
    left: float = 0.0
    """For how many seconds the holder is waited for, or nobody shall try."""
    payload: bytes | None = None
    """The entry, of ``"entry"``."""
    holder: bytes = b""
    guards: Mapping[str, bytes] | None = None
    """The versions of the guards, by their names at the server; None if they could not be captured."""


UNKNOWN = Standing("unknown")


class Leases(Guarding):
    """Takes leases, looks at them, and stores what was loaded under them."""

    async def _take_lease(
        self, name: str, judged: Mark, holder: str, lease: float, guards: Sequence[str] = (), life: int | None = None
    ) -> Standing:
        """Take the lease of the entry called *name* for *lease* seconds, unless there is another entry than *judged*.

        In the same exchange the versions of the *guards* are captured, for an entry that lives for *life* milliseconds.
        """
        if not self._flights.scripts:
            return await self._take_plainly(name, judged, holder, lease, guards, life)
        return await self._ask_lease(name, judged, holder, times_of(lease), guards, life, lease)

    async def _look_at_lease(self, name: str, judged: Mark, holder: str = "") -> Standing:
        """Return what stands about the entry called *name*, without taking the lease."""
        if not self._flights.scripts:
            return await self._look_plainly(name, judged)
        return await self._ask_lease(name, judged, holder, (), (), None, 0.0)

    async def _ask_lease(
        self,
        name: str,
        judged: Mark,
        holder: str,
        times: tuple[int, ...],
        guards: Sequence[str],
        life: int | None,
        lease: float,
    ) -> Standing:
        command = taking(name, judged, holder, times)
        home = self.topology.route(command)
        plan, places = self._with_guards(home, command, guards, life)
        answers = await self._ask_all(plan, None, scripts=True)
        reply = answers[0][0]
        if any(c.refuses_scripts(each) for each in chain(*answers)):
            self._do_without_scripts(next(each for each in chain(*answers) if c.refuses_scripts(each)))
            if times:
                return await self._take_lease(name, judged, holder, lease, guards, life)
            return await self._look_at_lease(name, judged)
        if isinstance(reply, ResponseError):
            self._instead(self._refusal(reply, command), None, (command,))
            return UNKNOWN
        if type(reply) is not list:
            return UNKNOWN
        return _standing(reply, _versions(answers, places))

    def _with_guards(
        self, home: Server, command: Command, guards: Sequence[str], life: int | None
    ) -> tuple[list[tuple[Server, list[Command]]], list[list[str]]]:
        """Return *command*, with the commands that capture the *guards*, by server, and the guards of each server."""
        plan: list[tuple[Server, list[Command]]] = [(home, [command])]
        names: list[list[str]] = [[]]
        for server, places in self.topology.shares(guards, reads=False) if guards else ():
            own = [guards[place] for place in places]
            commands = self._captures(own, life)
            if server is home:
                plan[0][1].extend(commands)
                names[0] = own
            else:
                plan.append((server, commands))
                names.append(own)
        return plan, names

    # --- the end of a load ------------------------------------------------------------------------

    async def _fill_entry(
        self,
        name: str,
        generation: bytes | None,
        judged: Mark,
        payload: bytes | int,
        life: int | None,
        guards: Guards,
    ) -> int | None:
        """Store *payload* for *life* milliseconds if nothing has given it up; return what came of it, None in an outage."""
        for _ in range(RENEWALS):
            found = await self._fill(name, generation, judged, payload, life, guards)
            if found != GUARD_CHANGED or not (spared := await self._spared_guards({name: guards})):
                return found
            guards = spared[name]
        return GUARD_CHANGED

    async def _fill(
        self,
        name: str,
        generation: bytes | None,
        judged: Mark,
        payload: bytes | int,
        life: int | None,
        guards: Guards,
    ) -> int | None:
        """Store *payload* under *guards*, as they are now."""
        if not self._flights.scripts or generation is None:
            return await self._fill_plainly(name, generation, judged, payload, life, guards)
        near = [guard for guard in guards if self.topology.together((name, guard))]
        far = {guard: version for guard, version in guards.items() if guard not in near}
        if far and not await self._hold(far):
            return GUARD_CHANGED
        keys = (name, lease_name(name), *near)
        words = (generation, *judged, payload, "" if life is None else life, *(guards[guard] for guard in near))
        command = (c.STORE, c.FILL, len(keys), *keys, *words)
        ((reply,),) = await self._ask_all([(self.topology.route(command), [command])], None, scripts=True)
        if isinstance(reply, ResponseError):
            if c.refuses_scripts(reply):
                self._do_without_scripts(reply)
                return await self._fill(name, generation, judged, payload, life, guards)
            raise self._refusal(reply, command)
        found: int | None = reply
        if far and found == STORED and not await self._hold(far) and not await self._spared_guards({name: guards}):
            # The epoch ended in between: what was stored is deleted, unless another value is there already.
            await self._run(c.RELEASE, name, payload, instead=0)
            return GUARD_CHANGED
        return found

    async def _free_lease(self, name: str, holder: str, pause: float = 0.0) -> None:
        """Release the lease if *holder* has it; or have nobody try for *pause* seconds, because the load failed."""
        if not self._flights.leases:
            return
        if self._flights.scripts:
            command = (c.FREE, c.LETGO, 2, name, lease_name(name), holder, round(pause * 1000))
            await self._ask_all([(self.topology.route(command), [command])], None, scripts=True)
            return
        at = self.topology.home(name)
        ((held,),) = await self._ask_all([(at, [(c.GET_NOW, lease_name(name))])], None)
        if held is not None and held.split(b" ")[1:2] == [holder.encode()]:
            await self._ask_all([(at, [(c.VOID, lease_name(name))])], None)

    # --- without scripts --------------------------------------------------------------------------

    def _do_without_scripts(self, refusal: Reply) -> None:
        if self._flights.scripts:
            self._flights.scripts = False
            log.warning(
                "%s: this user may run no scripts (%s): loads are protected less. Allow EVALSHA, EVAL, and keys that "
                "begin with fleetcache:",
                self.topology.primaries[0].address,
                refusal,
                extra={"event": "scripts"},
            )

    def _do_without_leases(self, refusal: Reply) -> None:
        if self._flights.leases:
            self._flights.leases = False
            log.warning(
                "%s: this user may write no leases (%s): each process loads by itself. Allow keys that begin with fleetcache:",
                self.topology.primaries[0].address,
                refusal,
                extra={"event": "leases"},
            )

    async def _take_plainly(
        self, name: str, judged: Mark, holder: str, lease: float, guards: Sequence[str], life: int | None
    ) -> Standing:
        mine = b""
        if self._flights.leases:
            mine = os.urandom(8).hex().encode()
            words = (lease_name(name), b"%s %s 0" % (mine, holder.encode()), "PX", max(round(lease * 1000), 1), "NX")
            ((reply,),) = await self._ask_all([(self.topology.home(name), [(c.HOLD, *words)])], None)
            if isinstance(reply, NoPermissionError):
                self._do_without_leases(reply)
            mine = mine if type(reply) is bytes else b""
        guards = guards if self._flights.leases else [guard for guard in guards if guard != self._epoch]
        found = await self._capture_guards(guards, life)
        seen = replace(await self._look_plainly(name, judged), guards=found)
        if mine and seen.word in {"entry", "gone"}:
            await self._free_lease(name, holder)
            return seen
        if seen.word == "held" and seen.holder == holder.encode():
            return replace(seen, word="mine")  # a script took it before the next one was refused
        if seen.word == "free" or (mine and seen.generation == mine):
            return replace(seen, word="mine", generation=mine or None)
        return seen

    async def _capture_guards(self, guards: Sequence[str], life: int | None) -> dict[str, bytes] | None:
        """Return the versions of *guards*, made if there are none; None in an ignored outage."""
        found: dict[str, bytes] = {}
        longer = () if life is None else ("PX", life * 2)
        for guard in guards:
            new = os.urandom(VERSION)
            try:
                there = await self.ask((c.ADD, guard, new, *longer, "NX", "GET"), MISSING)
            except NoPermissionError as error:
                if guard != self._epoch:
                    raise
                self._do_without_leases(error)  # he may write those, but no epoch
                continue
            if there is MISSING:
                return None
            found[guard] = new if there is None else there
        return found

    async def _look_plainly(self, name: str, judged: Mark) -> Standing:
        commands: list[Command] = [(c.GET_NOW, name)]
        if self._flights.leases:
            commands.append((c.GET_NOW, lease_name(name)))
        (replies,) = await self._ask_all([(self.topology.home(name), commands)], MISSING)
        payload, held = (*replies, None)[:2]
        if payload is MISSING:
            return UNKNOWN
        if mark(payload) != judged:
            return Standing("gone") if payload is None else Standing("entry", payload=payload)
        if held is None:
            return Standing("free")
        generation, holder, *_ = bytes(held).split(b" ")
        return Standing("held", generation, holder=holder)

    async def _fill_plainly(
        self,
        name: str,
        generation: bytes | None,
        judged: Mark,
        payload: bytes | int,
        life: int | None,
        guards: Mapping[str, bytes],
    ) -> int | None:
        """Store *payload* after a look at the lease, the entry and the guards; a write in between is not noticed."""
        seen = await self._look_plainly(name, judged)
        if seen is UNKNOWN:
            return None
        if seen.word in {"entry", "gone"}:
            return ENTRY_CHANGED
        if generation is not None and seen.generation != generation:
            return LEASE_GONE
        if guards and not await self._hold(guards):
            return GUARD_CHANGED
        lifetime = () if life is None else ("PX", life)
        if judged == MISSING_ENTRY:
            stored = await self.ask((c.SET_IF, name, payload, *lifetime, "NX"), None)
            return ENTRY_CHANGED if stored is None else STORED
        return STORED if await self.ask((c.SET, name, payload, *lifetime), None) else None


def overtaken(refusal: int | None, judged: Mark) -> bool:
    """Whether somebody may have stored a value meanwhile, which all callers get in place of what was made here.

    The lease is gone if he loaded too and was done first, or if he gave up the entry and perhaps stored another one.
    """
    return refusal == ENTRY_CHANGED or (refusal == LEASE_GONE and judged == MISSING_ENTRY)


def taking(name: str, judged: Mark, holder: str, times: tuple[int, ...]) -> Command:
    """Return the command that takes the lease of the entry called *name*; without *times* it only looks."""
    return (c.LEASE, c.TAKE, 2, name, lease_name(name), *judged, os.urandom(8).hex(), holder, *times)


def times_of(lease: float) -> tuple[int, int]:
    """Return for how many milliseconds the holder of a lease of *lease* seconds is waited for, and how long it may store."""
    milliseconds = max(round(lease * 1000), 1)
    return milliseconds, milliseconds * LEASES


def _standing(reply: Reply, guards: Mapping[str, bytes] | None) -> Standing:
    """Return the reply of the script `TAKE` as a `Standing`."""
    left, word, *rest = reply
    if word == b"entry":
        return Standing("entry", payload=rest[0], guards=guards)
    generation, holder = rest or (None, b"")
    return Standing(word.decode(), generation, left / 1000, holder=holder, guards=guards)


def _versions(answers: Sequence[Sequence[Reply]], names: Sequence[Sequence[str]]) -> dict[str, bytes] | None:
    """Return the versions of guards in the *answers* of several servers; None if one could not be captured."""
    found: dict[str, bytes] = {}
    for place, (replies, own) in enumerate(zip(answers, names, strict=True)):
        lists = replies[1:] if place == 0 else replies
        if any(type(each) is not list for each in lists):
            return None
        found.update(zip(own, chain(*lists), strict=True))
    return found
