"""Leases of many entries, each step in one write to each server: see `leases`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from redis.exceptions import ResponseError

from fleetcache import commands as c
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.keys import lease_name
from fleetcache.loading.guards import RENEWALS, Guards
from fleetcache.loading.leases import GUARD_CHANGED, STORED, UNKNOWN, Leases, Standing, _standing, taking, times_of
from fleetcache.loading.wishes import Mark


@dataclass(frozen=True, slots=True)
class Claim:
    """One lease that is wanted."""

    name: str
    judged: Mark
    holder: str


@dataclass(frozen=True, slots=True)
class Filling:
    """One value that is to be stored."""

    name: str
    generation: bytes | None
    judged: Mark
    payload: bytes | int
    life: int | None
    guards: Guards


class LeasesOfMany(Leases):
    """Takes leases of many entries, and stores what was loaded under them."""

    async def _take_leases(
        self, claims: Sequence[Claim], lease: float, guards: Sequence[str], life: int | None
    ) -> list[Standing]:
        """Take the leases in *claims* as `_take_lease` takes one; each `Standing` has the versions of all *guards*."""
        if not self._flights.scripts:
            return [
                await self._take_lease(claim.name, claim.judged, claim.holder, lease, guards, life) for claim in claims
            ]
        times = times_of(lease)
        plan: dict[Server, list[Command]] = {}
        shares = self.topology.shares([claim.name for claim in claims], reads=False)
        for server, places in shares:
            plan[server] = [
                taking(claims[place].name, claims[place].judged, claims[place].holder, times) for place in places
            ]
        captured: list[tuple[Server, list[str]]] = []
        for server, places in self.topology.shares(guards, reads=False):
            own = [guards[place] for place in places]
            captured.append((server, own))
            plan.setdefault(server, []).extend(self._captures(own, life))
        answers = dict(zip(plan, await self._ask_all(list(plan.items()), None, scripts=True), strict=True))
        refused = next((reply for reply in chain(*answers.values()) if c.refuses_scripts(reply)), None)
        if refused is not None:
            self._do_without_scripts(refused)
            return await self._take_leases(claims, lease, guards, life)
        counts = {server: len(places) for server, places in shares}
        versions = self._versions_of(captured, answers, counts)
        found: list[Standing] = [UNKNOWN] * len(claims)
        for server, places in shares:
            for place, reply, command in zip(places, answers[server], plan[server], strict=False):
                if isinstance(reply, ResponseError):
                    self._instead(self._refusal(reply, command), None, (command,))
                elif type(reply) is list:
                    found[place] = _standing(reply, versions)
        return found

    def _versions_of(
        self,
        captured: Sequence[tuple[Server, Sequence[str]]],
        answers: Mapping[Server, Sequence[Reply]],
        counts: Mapping[Server, int],
    ) -> dict[str, bytes] | None:
        """Return the versions of guards in *answers*, after *counts* other replies; None if one could not be captured."""
        found: dict[str, bytes] = {}
        for server, names in captured:
            lists = answers[server][counts.get(server, 0) :]
            if any(type(each) is not list for each in lists):
                return None
            found.update(zip(names, chain(*lists), strict=True))
        return found

    async def _fill_entries(self, fillings: Sequence[Filling]) -> list[int | None]:
        """Store each of *fillings* as `_fill_entry` does; return what came of each."""
        results = await self._fill_all(fillings)
        for _ in range(RENEWALS):
            refused = {
                each.name: place
                for place, (each, result) in enumerate(zip(fillings, results, strict=True))
                if result == GUARD_CHANGED
            }
            spared = (
                await self._spared_guards({name: fillings[at].guards for name, at in refused.items()})
                if refused
                else {}
            )
            if not spared:
                break
            fillings = [replace(each, guards=spared.get(each.name, each.guards)) for each in fillings]
            again = [refused[name] for name in spared]
            for place, result in zip(again, await self._fill_all([fillings[at] for at in again]), strict=True):
                results[place] = result
        return results

    async def _fill_all(self, fillings: Sequence[Filling]) -> list[int | None]:
        """Store each of *fillings* as `_fill` does."""
        if not self._flights.scripts or any(each.generation is None for each in fillings):
            return [
                await self._fill(each.name, each.generation, each.judged, each.payload, each.life, each.guards)
                for each in fillings
            ]
        far = [
            {guard: seen for guard, seen in each.guards.items() if not self.topology.together((each.name, guard))}
            for each in fillings
        ]
        changed = await self._changed(far)
        commands = [self._fill_command(each, away) for each, away in zip(fillings, far, strict=True)]
        results: list[int | None] = [GUARD_CHANGED if not changed.isdisjoint(away) else None for away in far]
        asked = [place for place, result in enumerate(results) if result is None]
        shares = self.topology.shares([fillings[place].name for place in asked], reads=False)
        plan = [(server, [commands[asked[place]] for place in places]) for server, places in shares]
        for (_, places), replies in zip(shares, await self._ask_all(plan, None, scripts=True), strict=True):
            for place, reply in zip(places, replies, strict=True):
                at = asked[place]
                if c.refuses_scripts(reply):
                    self._do_without_scripts(reply)
                    return await self._fill_all(fillings)
                if isinstance(reply, ResponseError):
                    raise self._refusal(reply, commands[at])
                results[at] = reply
        ended = await self._changed([away for away, result in zip(far, results, strict=True) if result == STORED])
        late = {
            each.name: each.guards
            for each, away, result in zip(fillings, far, results, strict=True)
            if result == STORED and not ended.isdisjoint(away)
        }
        spared = await self._spared_guards(late) if late else {}
        for place, each in enumerate(fillings):
            if each.name in late and each.name not in spared:
                # As in `_fill_entry`: what was stored is deleted, unless another value is there already.
                await self._run(c.RELEASE, each.name, each.payload, instead=0)
                results[place] = GUARD_CHANGED
        return results

    def _fill_command(self, each: Filling, far: Mapping[str, bytes]) -> Command:
        near = [guard for guard in each.guards if guard not in far]
        keys = (each.name, lease_name(each.name), *near)
        life = "" if each.life is None else each.life
        words = (each.generation, *each.judged, each.payload, life, *(each.guards[guard] for guard in near))
        return (c.STORE, c.FILL, len(keys), *keys, *words)

    async def _changed(self, guards: Iterable[Mapping[str, bytes]]) -> set[str]:
        """Return those of *guards* that do not have their versions any more, or whose server is away."""
        wanted = {name: version for each in guards for name, version in each.items()}
        if not wanted:
            return set()
        names, changed = list(wanted), set(wanted)
        for places, reply in await self._ask_many(c.MGET_NOW, names, None):
            for place, version in zip(places, reply or (), strict=False):
                if wanted[names[place]] == version:
                    changed.discard(names[place])
        return changed

    async def _free_leases(self, claims: Sequence[Claim], pause: float = 0.0) -> None:
        """Release the leases in *claims* as `_free_lease` releases one."""
        if not claims or not self._flights.leases:
            return
        if not self._flights.scripts:
            for claim in claims:
                await self._free_lease(claim.name, claim.holder, pause)
            return
        milliseconds = round(pause * 1000)
        plan = [
            (
                server,
                [
                    (c.FREE, c.LETGO, 2, claims[at].name, lease_name(claims[at].name), claims[at].holder, milliseconds)
                    for at in places
                ],
            )
            for server, places in self.topology.shares([claim.name for claim in claims], reads=False)
        ]
        await self._ask_all(plan, None, scripts=True)
