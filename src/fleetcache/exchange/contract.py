"""The contract of a server: `Verb`, `Command`, `Reply` and the protocol `Server`, for all code above and below.

A *command* is a tuple whose first part is a `Verb`.  A *reply* is the server's answer; an error is kept as a
value until the operation reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Protocol, Self, TypeAlias

Command: TypeAlias = tuple[Any, ...]
Reply: TypeAlias = Any


Suits: TypeAlias = Callable[[Reply, Command], bool]
Replies: TypeAlias = frozenset[type] | Suits
"""The types that a reply may have; or, for lists and the like, a check whether a reply suits a command."""

ALL, EVERYTHING = 2**31, -1


class Verb(bytes):
    """The name of a command, with the properties of the command.

    ``reads``: a replica may answer it.  ``harmless``: a second run has the same effect and the same reply, so it
    may be repeated after a connection died before its reply.  ``repeats_elsewhere``: it may run on a second server
    although the first may have run it.  ``sole``: two servers must never both run it.  (`repeating` uses these three.)
    ``key`` is the place of the first key, 0 if there is none; ``names``: the number of keys from there on, at most.
    ``writes``: how many of them it may change, `ALL`, or `EVERYTHING` on the server.
    ``aside``: it is sent beside another command, for ends of the library; tools that show what a program does leave it out.
    ``answers`` are the types that a reply to it may have, unless ``suits`` decides; without both,
    any reply is accepted.
    """

    def __new__(cls, name: str, *_: Any, **__: Any) -> Self:
        return super().__new__(cls, name.encode())

    def __init__(
        self,
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
        aside: bool = False,
    ) -> None:
        self.answers = replies if isinstance(replies, frozenset) else frozenset[type]()
        self.suits = None if isinstance(replies, frozenset) else replies
        self.reads = reads
        self.harmless = harmless or reads
        self.repeats_elsewhere = repeats_elsewhere or self.harmless
        self.sole = sole
        self.key = key
        self.writes = writes if writes is not None else 0 if reads or not key else 1
        self.names = max(names, self.writes)
        self.aside = aside


class Script(str):  # noqa: SLOT000 - it has attributes
    """A Lua script; a command holds its digest (`EVALSHA`).

    ``lua`` is its text, for a server that does not know the digest; ``name`` is the script's name in both.
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
    """One server, remote or in this process; topologies consist of servers.

    Both faces run *commands* back to back, and return one reply for each, in order.  A refusal by
    the server is returned in its place as a ``redis.exceptions.ResponseError``; a server that
    cannot be asked raises ``redis.exceptions.ConnectionError`` or ``TimeoutError``.  If another
    server gave some of the replies, the list is `Redirected`.
    """

    address: str

    @property
    def away(self) -> bool:
        """Whether its breaker is open: it failed a moment ago, and calls are refused."""
        return False

    @property
    def remote(self) -> Any:
        """The `RemoteServer` with the connections, started if necessary; None if the server is in this process."""
        return None

    @property
    def primary(self) -> Server:
        """The server that has the latest writes: this one, unless replicas answer for it."""
        return self

    def exchange(self, commands: Sequence[Command]) -> list[Reply]: ...

    def tell(self, commands: Sequence[Command]) -> Any:
        """Send *commands*, so that several servers work at the same time; `hear` returns the replies."""
        return self.exchange(commands)

    def hear(self, told: Any) -> list[Reply]:
        """Return the replies to the commands that `tell` sent.  Each `tell` needs its `hear` or `drop`."""
        replies: list[Reply] = told
        return replies

    def drop(self, told: Any) -> None:
        """Give up the replies to the commands that `tell` sent; `hear` will not be called."""
        del told

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]: ...

    def client(self) -> Any:
        """Return a raw redis-py client of this server."""

    def close_idle(self) -> None:
        """Close the idle connections."""
        return

    async def aclose_idle(self) -> None:
        """Close the idle connections, and the running loop's as soon as its calls have their replies."""
        self.close_idle()


class Redirected(list[Reply]):
    """Replies of which some come from another server than the one that was asked."""
