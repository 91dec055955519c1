"""Operations on entries of any kind: their time to live and version; scanning, deleting by pattern, clearing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from numbers import Integral
from time import monotonic
from typing import Any, TypeVar, overload

from redis.exceptions import ResponseError

from fleetcache import commands as c
from fleetcache.codec.metadata import Metadata
from fleetcache.core import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.exchange.contract import Command, Server, Verb
from fleetcache.failsafe import TROUBLE
from fleetcache.judging import Standing
from fleetcache.keys import CacheKey, Key, Version, default_key_function, epoch_name, frame, gone_name, unique
from fleetcache.near.near import CANARY
from fleetcache.patterns import pattern_of, pattern_of_all
from fleetcache.reading import Reading
from fleetcache.servers.borrowed import is_pipeline
from fleetcache.stats.payloads import MINUTE
from fleetcache.times import moment
from fleetcache.twin import blocking, iterating

D = TypeVar("D")

LONGEST_GLOB = 500
"""A longer glob is noted as one that matches everything."""


class Keyspace(Reading):
    """Operations that do not read the content of an entry, except whether it is fresh, in the same round trip."""

    # --- lifetimes --------------------------------------------------------------------------------

    async def atouch(
        self, key: Key, timeout: Timeout = DEFAULT_TIMEOUT, version: Version = None, client: Any = None
    ) -> bool:
        """Give *key* a new timeout, and return whether it exists; for None, whether it had a timeout.

        An entry with a stale life is fresh for that time, stale for as long after it as before, and keeps its tags.  One
        whose fresh life has ended is missing, and stays as it is.
        """
        return await self._expire(key, self.milliseconds(timeout), version, client)

    touch = blocking(atouch)

    @overload
    async def aget_with_ttl(
        self, key: Key, default: None = None, version: Version = None
    ) -> tuple[Any | None, float | None]: ...
    @overload
    async def aget_with_ttl(self, key: Key, default: D, version: Version = None) -> tuple[Any | D, float | None]: ...
    async def aget_with_ttl(self, key: Key, default: Any = None, version: Version = None) -> tuple[Any, float | None]:
        """Return the value of *key* and its seconds to live: None for ever, 0 with *default* if missing.

        Only the fresh life counts, not the stale one.
        """
        name = self.name(key, version)
        get, pttl = (c.GET, c.PTTL) if self.near is None else (c.GET_NOW, c.PTTL_NOW)
        payload, left = await self._ask_several([(get, name), (pttl, name)], None)
        self._overtake(name)
        seen = await self._examine(name, payload, exact=False)
        value = self._counted(name, seen.served(), payload)
        if value is MISSING:
            return default, 0
        left = _shorter(left, seen.milliseconds)
        return value, None if left == -1 else max(left, 0) / 1000

    get_with_ttl = blocking(aget_with_ttl)

    async def attl(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return the seconds *key* has to live: None for ever, 0 if it is missing.

        Only the fresh life counts, not the stale one.
        """
        return await self._left(c.TTL, key, version, client)

    ttl = blocking(attl)

    async def apttl(self, key: Key, version: Version = None, client: Any = None) -> int | None:
        """Return the milliseconds *key* has to live: None for ever, 0 if it is missing.

        Only the fresh life counts, not the stale one.
        """
        return await self._left(c.PTTL, key, version, client)

    pttl = blocking(apttl)

    async def _left(self, verb: Verb, key: Any, version: Any, client: Any) -> int | None:
        name, self = self.name(key, version), self._through(client)
        left, shown = await self._ask_beside((verb, name), self._glimpse(name, primary=False), -2)
        if not self.codec.is_plain(shown) and (metadata := await self._shown(name, shown, primary=False)) is not None:
            standing, fresh = await self._judgement(name, metadata, exact=False)
            if standing is not Standing.FRESH:
                return 0
            left = _shorter(left, fresh if fresh is None or verb is c.PTTL else (fresh + 500) // 1000)
        return None if left == -1 else max(left, 0)

    async def apersist(self, key: Key, version: Version = None, client: Any = None) -> bool:
        """Let *key* live, and be fresh, for ever; return whether it had a timeout."""
        return await self._expire(key, None, version, client)

    persist = blocking(apersist)

    async def aexpire(self, key: Key, timeout: Timeout, version: Version = None, client: Any = None) -> bool:
        """Let *key* live for *timeout* seconds; return whether it exists.  See `touch`."""
        return await self._expire(key, self.milliseconds(timeout), version, client)

    expire = blocking(aexpire)

    async def apexpire(self, key: Key, timeout: Timeout, version: Version = None, client: Any = None) -> bool:
        """Let *key* live for *timeout* milliseconds; return whether it exists.  See `touch`."""
        return await self._expire(key, self.milliseconds(timeout, unit=1), version, client)

    pexpire = blocking(apexpire)

    async def _expire(self, key: Any, milliseconds: int | None, version: Any, client: Any) -> bool:
        name = self.name(key, version)
        if milliseconds is None:
            return await self._live((c.PERSIST, name), None, client)
        return await self._live((c.PEXPIRE, name, milliseconds), milliseconds, client)

    async def aexpire_at(self, key: Key, when: datetime | float, version: Version = None, client: Any = None) -> bool:
        """Let *key* live until *when*, a datetime or seconds since 1970; return whether it exists.  See `touch`."""
        return await self._live((c.EXPIREAT, self.name(key, version), moment(when)), 0, client)

    expire_at = blocking(aexpire_at)

    async def apexpire_at(self, key: Key, when: datetime | float, version: Version = None, client: Any = None) -> bool:
        """Let *key* live until *when*, a datetime or milliseconds since 1970; return whether it exists.  See `touch`."""
        return await self._live((c.PEXPIREAT, self.name(key, version), moment(when, unit=1000)), 0, client)

    pexpire_at = blocking(apexpire_at)

    async def _live(self, command: Command, lifetime: int | None, client: Any) -> bool:
        """Run *command*, which gives an entry another life, and return whether the entry is there and not stale.

        *lifetime* as with `_ask_voiding`.
        """
        if is_pipeline(client):
            return bool(await self._ask_voiding(command, lifetime, False, client))
        self = self._through(client)
        name, glimpse = command[1], self._glimpse(command[1], primary=True)
        if lifetime is None or lifetime >= self._lease_life:
            reply, shown = await self._ask_beside(command, glimpse, False)
        else:
            plan = [(self.topology.route(command), (*self._voids((name,)), glimpse, command))]
            ((*_, shown, reply),) = await self._ask_all(plan, False)
        if (
            not reply
            or self.codec.is_plain(shown)
            or (metadata := await self._shown(name, shown, primary=True)) is None
        ):
            return bool(reply)
        # The command counted the whole life of the entry, and its stale life comes after that.
        standing, left = await self._judgement(name, metadata)
        if standing is not Standing.GIVEN_UP and left is not None and not self._runtime.once:
            await self._relive(name, metadata, command if standing is Standing.FRESH else None)
        if metadata.tags and standing is Standing.FRESH and not self._runtime.once:
            await self._keep_tags(metadata, command)
        return standing is Standing.FRESH

    async def _keep_tags(self, metadata: Metadata, command: Command) -> None:
        """Let the tags in *metadata* live at least as long as their entry, to which *command* has given another life."""
        life = None
        if command[0] is not c.PERSIST:
            now = await self._moment(self.topology.home(command[1]))
            if now is None:
                return  # an outage
            life = _end(command, now) - now + metadata.stale
        await self._capture([tag for tag, _ in metadata.tags], life, self._version_in(metadata.scope))

    async def _relive(self, name: str, metadata: Metadata, command: Command | None) -> None:
        """Let the entry with *metadata* be fresh for as long as *command* says, or as before if that is None."""
        now = await self._moment(self.topology.home(name))
        payload = await self.ask((c.GET_NOW, name), None)
        found = None if payload is None else self.codec.metadata(payload)
        if now is None or payload is None or found is None or found.stamp != metadata.stamp:
            return  # an outage, or another caller has stored or deleted meanwhile
        until = metadata.fresh_until if command is None else _end(command, now)
        life = until + metadata.stale - now
        if until and life <= 0:
            return
        changed = self.codec.redescribe(payload, replace(metadata, fresh_until=until))
        words = ("PX", life) if until else ()
        await self._run(c.SWAP, name, payload, changed, *words, instead=None)

    # --- versions -----------------------------------------------------------------------------------

    async def aincr_version(
        self, key: Key, delta: int = 1, version: int | None = None, client: Any = None
    ) -> int | Any:
        """Move the value of *key*, with its time to live, to a version higher by *delta*; return that version.

        The entry keeps what it says of itself, also if it is stale: its fresh life, and its tags, those of the version
        in which it was stored.
        """
        version = self.version if version is None else version
        old = self.name(key, version)
        if isinstance(key, CacheKey):
            key = self._reverser(version)(key)  # a complete name would not change with the version
        new = self.name(key, version + delta)
        self = self._through(client)
        if not self.topology.together((old, new)):
            moved = await self._move(old, new)
        else:
            try:
                moved = await self._ask_voiding((c.RENAME, old, new), 0, None)
            except ResponseError as error:
                if "no such key" not in str(error):
                    raise
                moved = False
        if moved is False:
            raise ValueError(f"Key {old!r} not found")
        return None if moved is None else version + delta

    incr_version = blocking(aincr_version)

    async def _move(self, old: str, new: str) -> bool | None:
        """Move an entry to another server or slot: write there, then delete here."""
        await self._runtime.alone()
        try:
            payload, left = await self._ask_several([(c.GET_NOW, old), (c.PTTL_NOW, old)], None)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                self._together((old, new), "moving what is no plain value")
            raise
        if payload is None:
            return None if left is None else False
        lifetime = ("PX", left) if left > 0 else ()
        if not await self._ask_voiding((c.SET, new, payload, *lifetime), 0, None):
            return None
        await self._ask_voiding((c.DEL, old), 0, 0)
        return True

    async def adecr_version(
        self, key: Key, delta: int = 1, version: int | None = None, client: Any = None
    ) -> int | Any:
        """Move the value of *key* to a version lower by *delta*; return that version."""
        return await self.aincr_version(key, -delta, version, client)

    decr_version = blocking(adecr_version)

    # --- scanning ---------------------------------------------------------------------------------

    async def ascan(
        self,
        cursor: int = 0,
        search: str = "*",
        itersize: int | None = None,
        version: Version = None,
        client: Any = None,
    ) -> tuple[int, list[str]]:
        """Return the next cursor, 0 at the end, and a page of keys that match the glob *search*.

        A key that exists during the whole scan is returned at least once.
        """
        if not isinstance(cursor, Integral):
            raise TypeError(f"scan: the cursor has to be a whole number, 0 at the start, not {type(cursor).__name__}")
        self = self._through(client)
        reverse = self._reverser(version)
        cursor, names = await self._page(cursor, self.make_pattern(search, version), itersize)
        # Other clients may have stored names that are no text.
        found = [name.decode(errors="replace") for name in names or ()]
        if self._namer is not default_key_function:
            found = [name for name in found if CANARY not in name]  # otherwise no pattern finds them
        return cursor, [reverse(name) for name in found if not self._is_tag(name)]

    scan = blocking(ascan)

    async def _page(self, cursor: int, pattern: str, itersize: int | None) -> tuple[int, list[bytes] | None]:
        """Return the next cursor and a page of names; None in place of the page of a server that is away.

        One cursor goes through all servers, one after another.
        """
        servers = (cursor and self.topology.primaries) or await self._primaries()
        at, place = divmod(cursor, len(servers))
        count = self.settings.options.scan_itersize if itersize is None else itersize
        command = (c.SCAN, at, "MATCH", pattern, "COUNT", count)
        (((at, found),),) = await self._ask_all([(servers[place], (command,))], (0, None))
        place += int(at) == 0
        return (int(at) * len(servers) + place if place < len(servers) else 0), found

    async def _primaries(self) -> Sequence[Server]:
        if self.topology.can_move:
            await self._runtime.alone()  # two steps: first the primaries are asked for
        try:
            return await self.topology.survey(self._runtime)
        except TROUBLE as error:  # without the primaries, the topology's own server raises the same
            return self._failsafe.instead(error, self.topology.servers[:1], tuple)

    def _reverser(self, version: Version = None) -> Callable[[str], str]:
        """Return the function that returns the key within a name of *version*."""
        kind: Any = type(self)
        if kind.reverse_key is not Keyspace.reverse_key:
            return self.reverse_key
        return self._own_reverser(version)

    def _own_reverser(self, version: Version = None) -> Callable[[str], str]:
        """Return the same function as it is without a site's `reverse_key`."""
        if self.settings.reverse_key_function is not None:
            return self.settings.reverse_key_function
        found = None
        if self._namer is not default_key_function:
            found = frame(self._namer, self.key_prefix, self.version if version is None else version)
        head, tail = found or (self.name("", version), "")
        return lambda name: name.removeprefix(head).removesuffix(tail)

    def reverse_key(self, name: str) -> str:
        """Return the key within *name*, in the cache's own prefix and version."""
        return self._own_reverser()(name)

    async def akeys(self, search: str, version: Version = None, client: Any = None) -> list[str]:
        """Return all keys that match the glob *search*, each once."""
        await self._runtime.alone()
        return unique([key async for key in self.aiter_keys(search, None, client, version)])

    keys = blocking(akeys)

    async def aiter_keys(
        self, search: str, itersize: int | None = None, client: Any = None, version: Version = None
    ) -> AsyncIterator[str]:
        """Yield the keys that match the glob *search*, page by page; a key may come twice."""
        cursor, pages = 0, c.Round()
        while True:
            cursor, page = await self.ascan(cursor, search, itersize, version, client)
            for key in page:
                yield key
            if not cursor or not self._goes_on(pages, cursor):
                return

    iter_keys = iterating(aiter_keys)

    def make_pattern(self, pattern: str, version: Version = None, prefix: str | None = None) -> CacheKey:
        """Return a glob for the server; special characters in prefix and version are quoted."""
        if isinstance(pattern, CacheKey):
            return pattern
        prefix = self.key_prefix if prefix is None else prefix
        version = self.version if version is None else version
        return CacheKey(pattern_of(self._namer, pattern, prefix, version))

    # --- many at once -----------------------------------------------------------------------------

    async def adelete_pattern(
        self,
        pattern: str,
        version: Version = None,
        prefix: str | None = None,
        client: Any = None,
        itersize: int | None = None,
    ) -> int | None:
        """Delete the keys that match the glob *pattern*, page by page, and return how many there were."""
        self = self._through(client)
        glob = self.make_pattern(pattern, version, prefix)
        await self._end_epoch(self.key_prefix if prefix is None else prefix, glob)
        return await self._unlink(glob, itersize)

    delete_pattern = blocking(adelete_pattern)

    async def _end_loads(self, glob: str) -> None:
        """Let nothing be stored that is being loaded now under a name that matches *glob*."""
        await self._end_epoch(self.key_prefix, glob)

    async def _end_epoch(self, prefix: str, glob: str) -> None:
        """Refuse what is being loaded under *prefix*: a load of an entry that is missing leaves no name to be found.

        The *glob* is noted, so that a load of an entry that it does not match is stored in the next epoch.
        """
        await self._runtime.alone()
        epoch, gone = epoch_name(prefix), gone_name(prefix)
        home = self.topology.home(epoch)
        if monotonic() >= self.stats.unscripted + MINUTE:
            noted = glob if len(glob) <= LONGEST_GLOB else "*"
            command = (c.FREE, c.ENDING, 2, epoch, gone, noted, self._lease_life)
            ((reply,),) = await self._ask_all([(home, [command])], None, scripts=True)
            if not isinstance(reply, ResponseError):
                return
            if not c.refuses_scripts(reply):
                self._instead(self._refusal(reply, command), None, (command,))
                return
        # Without the list nobody knows what was deleted, and all loads are refused.
        await self._ask_all([(home, [(c.VOID, gone), (c.VOID, epoch)])], None)

    async def _unlink(self, pattern: str, itersize: int | None = None, *, tags: bool = False) -> int | None:
        """Delete the names that match *pattern*, the versions of tags only with *tags*; what is being loaded is not stored."""
        await self._runtime.alone()
        servers = await self._primaries()
        cursor, replies, pages = 0, list[Any](), c.Round()
        while True:
            server = servers[cursor % len(servers)]
            cursor, names = await self._page(cursor, pattern, itersize)
            if names is not None and not tags:
                names = [name for name in names if not self._is_tag(name)]
            if names is None:
                replies.append(None)
            elif names:
                replies += await self._unlink_names([(server, names)])
            if cursor and not self._goes_on(pages, cursor):
                return None
            if not cursor:
                return None if None in replies else sum(map(int, replies))

    async def aclear(self, client: Any = None) -> None:
        """Empty the database, or with a KEY_PREFIX remove all entries with it, of every version."""
        self = self._through(client)
        scope = self.settings.options.clear
        if scope == "prefix" or (scope == "auto" and self.key_prefix):
            pattern = pattern_of_all(self._namer, self.key_prefix)
            await self._end_epoch(self.key_prefix, pattern)
            await self._unlink(pattern, tags=True)
            if self.near is not None:
                self.near.wrote(
                    None
                )  # also what another process has deleted a moment ago: it is not on the server any more
        else:
            await self._ask_all([(server, ((c.FLUSHDB,),)) for server in await self._primaries()], None)

    clear = blocking(aclear)


def _shorter(left: int, fresh: int | None) -> int:
    """Return the shorter of two times to live: the reply to PTTL or TTL, and the fresh life, None if it has no end."""
    return left if fresh is None else fresh if left == -1 else min(left, fresh)


def _end(command: Command, now: int) -> int:
    """Return when the life that *command* gives ends, in milliseconds since 1970; 0 for never."""
    if command[0] is c.PERSIST:
        return 0
    when: int = command[2]
    return now + when if command[0] is c.PEXPIRE else when * 1000 if command[0] is c.EXPIREAT else when
