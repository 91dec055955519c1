"""What the servers of a cache say, each asked once, over a connection of its own that has a limit for each exchange."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from fleetcache.errors import FleetcacheError
from fleetcache.exchange.blocking import Conversation
from fleetcache.exchange.contract import Reply, Server
from fleetcache.exchange.runtime import BLOCKING
from fleetcache.exchange.wire import facts_in, pack
from fleetcache.fleet import Fleet
from fleetcache.inspection.advice import Commands
from fleetcache.twin import complete

PATIENCE = 5.0
"""How many seconds one exchange may take."""
LONGEST = 30.0
"""How many seconds an examination may take; what is not begun by then is not checked."""
MOST_SERVERS = 100

TROUBLE = (FleetcacheError, RedisError, OSError)

WANTED = ("maxmemory-policy", "stop-writes-on-bgsave-error", "tracking-table-max-keys", "maxclients")


class Line:
    """A connection to one server."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def ask(self, *commands: Sequence[Any]) -> list[Reply]:
        """Return the replies to *commands*, sent together; a refusal is returned in its place."""
        packed = b"".join(pack(tuple(_part(part) for part in command)) for command in commands)
        return self._conversation.ask(packed, len(commands))


def _part(part: Any) -> Any:
    return part.encode() if isinstance(part, str) else part


@contextmanager
def line_to(remote: Any, patience: float | None = None) -> Iterator[Line]:
    """Return a new connection to the `RemoteServer` *remote*, closed afterwards."""
    conversation = remote.converse(patience or PATIENCE)
    try:
        yield Line(conversation)
    finally:
        conversation.close()


@dataclass
class Asked:
    """What one server said, or why it said nothing."""

    server: Server
    address: str
    remote: Any
    trouble: Exception | None = None
    info: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    cluster: Mapping[str, str] = field(default_factory=dict)
    """The reply to CLUSTER INFO."""
    nodes: str = ""
    """The reply to CLUSTER NODES."""
    user: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    """The questions that the server refused to answer, each with the reason."""
    ahead: float | None = None
    """How many seconds its clock is ahead of this machine's."""
    unsure: float = 0.0
    """How much of `ahead` may be the way of the question, in seconds."""

    def number(self, name: str) -> int | None:
        """Return the fact *name* of INFO as a number; None if it is not told."""
        text = self.info.get(name, "")
        return int(text) if text.isdigit() else None

    @property
    def role(self) -> str:
        """``master`` or ``slave``; "" if it is not told."""
        return self.info.get("role", "")

    @property
    def name(self) -> str:
        """The server's name and version, such as ``Valkey 9.1.2``."""
        for known, key in (
            ("Valkey", "valkey_version"),
            ("Dragonfly", "dragonfly_version"),
            ("Redis", "redis_version"),
        ):
            if key in self.info:
                return f"{known} {self.info[key].removeprefix('df-v')}"
        return ""


def ask(server: Server, *, cluster: bool) -> Asked | None:
    """Return what *server* says; None if it is in this process."""
    try:
        remote = server.remote
    except TROUBLE as error:  # `embedded://` that does not start
        return Asked(server, server.address, None, trouble=error)
    if remote is None:
        return None
    asked = Asked(server, server.address, remote)
    try:
        with line_to(remote) as line:
            _fill(asked, line, cluster)
    except TROUBLE as error:
        asked.trouble = error
    return asked


def _fill(asked: Asked, line: Line, cluster: bool) -> None:
    before, clock = time.monotonic(), time.time()
    (now,) = line.ask(("TIME",))
    took = time.monotonic() - before
    if _told(asked, "TIME", now):
        asked.unsure = took / 2
        asked.ahead = int(now[0]) + int(now[1]) / 1e6 - clock - took / 2
    info, user, *rest = line.ask(("INFO",), ("ACL", "WHOAMI"), *(("CONFIG", "GET", name) for name in WANTED))
    if _told(asked, "INFO", info):
        asked.info = facts_in(info)
    if _told(asked, "ACL WHOAMI", user):
        asked.user = _text(user)
    asked.config = {
        name: value for reply in rest if _told(asked, "CONFIG GET", reply) for name, value in _pairs(reply).items()
    }
    if cluster:
        state, nodes = line.ask(("CLUSTER", "INFO"), ("CLUSTER", "NODES"))
        if _told(asked, "CLUSTER INFO", state):
            asked.cluster = facts_in(state)
        if _told(asked, "CLUSTER NODES", nodes):
            asked.nodes = _text(nodes)


def _told(asked: Asked, question: str, reply: Reply) -> bool:
    """Whether *reply* is an answer; a refusal is noted."""
    if isinstance(reply, Exception):
        asked.refused[question] = str(reply)
        return False
    return reply is not None


def _text(reply: Any) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)


def _pairs(reply: Any) -> dict[str, str]:
    """Return the map in *reply*, which RESP2 spells as a list."""
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=False))
    return {_text(name): _text(value) for name, value in reply.items()} if isinstance(reply, dict) else {}


def permitted(reply: Reply) -> bool:
    """Whether *reply* is anything but a refusal of this user's rights."""
    return not isinstance(reply, NoPermissionError) and not str(reply).startswith("NOPERM")


class Examination:
    """One cache that is examined: what its servers say, asked when a check first needs it."""

    def __init__(
        self,
        cache: Any,
        alias: str,
        others: Mapping[str, Any],
        fleet: Fleet | None,
        *,
        probes: bool = True,
        url: str = "",
        commands: Commands | None = None,
    ) -> None:
        self.cache = cache
        self.alias = alias
        self.url = url
        self.commands = commands or Commands()
        self.others = others
        self.fleet: Fleet | None = fleet
        self.probes = probes
        self.settings = cache.settings
        self.options = cache.settings.options
        self.until = time.monotonic() + LONGEST

    @property
    def late(self) -> bool:
        """Whether no further check should begin."""
        return time.monotonic() > self.until

    @property
    def subject(self) -> str:
        """The cache, as findings about its settings name it."""
        return self.url or (f"CACHES[{self.alias!r}]" if self.alias else "the cache")

    @property
    def location(self) -> str:
        """The place where the servers are written, as advice names it."""
        return self.url or "LOCATION"

    def option(self, name: str) -> str:
        """Return the place of an option, as findings name it."""
        return f"{self.url}: {name.lower()}" if self.url else f"{self.subject}: OPTIONS[{name!r}]"

    @property
    def is_cluster(self) -> bool:
        """Whether LOCATION names nodes of a cluster."""
        return bool(self.cache.topology.can_move)

    @cached_property
    def servers(self) -> list[Asked]:
        """Every server of the cache that is not in this process, the primaries first."""
        found: list[Asked] = []
        for server in self.all_servers[:MOST_SERVERS]:
            if self.late:
                break
            if (asked := ask(server, cluster=self.is_cluster)) is not None:
                found.append(asked)
        return found

    @cached_property
    def all_servers(self) -> list[Server]:
        """The servers that the topology knows."""
        topology = self.cache.topology
        primaries: Sequence[Server] = topology.primaries
        with suppress(*TROUBLE):  # each server says so itself
            primaries = complete(topology.survey(BLOCKING))
        known = {server.address: server for server in (*primaries, *topology.servers)}
        return list(known.values())

    @property
    def primaries(self) -> list[Asked]:
        """The servers that hold the entries, as far as they answered."""
        addresses = {server.address for server in self.cache.topology.primaries}
        return [asked for asked in self.servers if asked.address in addresses and asked.trouble is None]

    @property
    def answering(self) -> list[Asked]:
        """The servers that answered."""
        return [asked for asked in self.servers if asked.trouble is None]

    @property
    def workers(self) -> int:
        """How many processes the fleet has, as far as they publish; 0 if it is not known."""
        return len(self.fleet.workers) if self.fleet is not None else 0
