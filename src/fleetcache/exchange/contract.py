"""Bytes on a connected socket: the only place where sync and async differ.

This page holds the words both sides use: a *command* is a tuple whose first part is a `Verb`;
a *reply* is what the server said, with an error kept as a value until someone asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Protocol, Self, TypeAlias

Command: TypeAlias = tuple[Any, ...]
Reply: TypeAlias = Any


Suits: TypeAlias = Callable[[Reply, Command], bool]
Replies: TypeAlias = frozenset[type] | Suits
"""The types that a reply may have; where that does not tell, as within lists, whether a reply suits a command."""

ALL, EVERYTHING = 2**31, -1


class Verb(bytes):
    """The name of a command, which knows what may be done with the command.

    ``reads``: a replica may answer it.  ``harmless``: running it twice leaves and answers what
    running it once does, so it may be repeated after a connection died with the reply unread.
    ``repeats_elsewhere``: it may run on a second server although the first may have run it.  ``sole``: two
    servers must never both run it.  (`repeating` is where these three are looked at.)
    ``key`` is where the first key stands, 0 if there is none; ``names``: how many keys stand from
    there on, at most.  ``writes``: how many of them it may change, `ALL`, or `EVERYTHING` there is.
    ``answers`` are the types that a reply to it may have, unless ``suits`` decides; without both
    a reply may be anything.
    """

    reads: bool
    harmless: bool
    repeats_elsewhere: bool
    sole: bool
    key: int
    names: int
    writes: int
    answers: frozenset[type]
    suits: Suits | None

    def __new__(
        cls,
        name: str,
        replies: Replies = frozenset(),
        *,
        reads: bool = False,
        harmless: bool = False,
        repeats_elsewhere: bool = False,
        sole: bool = False,
        key: int = 1,
        names: int = 1,
        writes: int | None = None,
    ) -> Self:
        verb = super().__new__(cls, name.encode())
        verb.answers, verb.suits = (replies, None) if isinstance(replies, frozenset) else (frozenset(), replies)
        verb.reads = reads
        verb.harmless = harmless or reads
        verb.repeats_elsewhere = repeats_elsewhere or verb.harmless
        verb.sole = sole
        verb.key = key
        verb.writes = writes if writes is not None else 0 if reads or not key else 1
        verb.names = max(names, verb.writes)
        return verb


class Script(str):  # noqa: SLOT000 - it has attributes
    """A Lua script, written into a command as the digest by which the server knows it.

    ``lua`` is its text, for a server that does not; both bear the script's ``name``.
    """

    name: str
    lua: Script

    @classmethod
    def of(cls, name: str, lua: str) -> Script:
        """Return the script *lua*."""
        script = cls(sha1(lua.encode()).hexdigest())  # noqa: S324 - the server's choice
        script.lua = cls(lua)
        script.name = script.lua.name = name
        return script


class Server(Protocol):
    """One server, wherever it runs: what a topology is made of.

    Both faces run *commands* back to back, and return one reply each, in order.  A refusal by
    the server is returned in its place as a ``redis.exceptions.ResponseError``; a server that
    cannot be asked raises ``redis.exceptions.ConnectionError`` or ``TimeoutError``.  Replies of
    which another server gave some are `Redirected`.
    """

    address: str

    @property
    def away(self) -> bool:
        """Whether it failed a moment ago, and is not asked for now."""
        return False

    @property
    def remote(self) -> Any:
        """The `RemoteServer` that has the connections, started if need be; None if the server lives in this process."""
        return None

    @property
    def primary(self) -> Server:
        """The server that knows what was written a moment ago: this one, unless replicas answer for it."""
        return self

    def exchange(self, commands: Sequence[Command]) -> list[Reply]: ...

    def tell(self, commands: Sequence[Command]) -> Any:
        """Send *commands*, so that several servers can be at work at once; `hear` returns the replies."""
        return self.exchange(commands)

    def hear(self, told: Any) -> list[Reply]:
        """Return the replies to what `tell` sent.  Whoever tells must hear."""
        replies: list[Reply] = told
        return replies

    def drop(self, told: Any) -> None:
        """Let go of what `tell` sent and nobody will hear."""
        del told

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]: ...

    def client(self) -> Any:
        """Return a raw redis-py client of this server."""

    def close_idle(self) -> None:
        """Close the connections that nobody is using."""
        return

    async def aclose_idle(self) -> None:
        """Close the connections that nobody is using; the running loop's, as soon as its calls have their replies."""
        self.close_idle()


class Redirected(list[Reply]):
    """Replies some of which come from another server than the one that was asked."""
