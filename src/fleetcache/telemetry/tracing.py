"""What the span exporters have in common: what was sent, to where, and the tools that are noticed by themselves.

A tool is *noticed* when a cache is created: if it is imported already, and watches redis or Django's caches, fleetcache
begins to make the spans that the tool would have made of redis-py's calls.  Nothing is imported for it, and nothing
happens with ``FLEETCACHE_TRACING=off`` in the environment.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import NoScriptError

from fleetcache.errors import is_outage
from fleetcache.interrupts import let_pass
from fleetcache.stats.exchanges import Exchange, Hearing, listen
from fleetcache.stats.operations import Watcher, watch
from fleetcache.stats.payloads import Said

log = logging.getLogger("fleetcache.telemetry")

SWITCH = "FLEETCACHE_TRACING"
"""The environment variable that says which tools are noticed: "off" for none, or some of their names; all if it is not set."""

End: TypeAlias = Callable[[], None]


# --- tools ----------------------------------------------------------------------------------------


class Tool:
    """What fleetcache does for one tool: at most one listener to exchanges, and one watcher of operations."""

    def __init__(self, hearing: Hearing, watcher: Watcher) -> None:
        self.hearing = hearing
        self.watcher = watcher
        self.ends: dict[str, End] = {}

    def hear(self) -> None:
        """Make spans of exchanges from now on."""
        if "hearing" not in self.ends:
            self.ends["hearing"] = listen(self.hearing)

    def watch(self) -> None:
        """Make spans of operations from now on."""
        if "watcher" not in self.ends:
            self.ends["watcher"] = watch(self.watcher)

    @property
    def is_on(self) -> bool:
        """Whether it makes any spans."""
        return bool(self.ends)

    def end(self) -> None:
        """Make no more spans, until the tool is noticed or installed again."""
        while self.ends:
            self.ends.popitem()[1]()


class Notice(NamedTuple):
    """How a tool is noticed."""

    name: str
    """What ``FLEETCACHE_TRACING`` calls it."""
    sign: str
    """The module that is imported if the tool is used."""
    module: str
    """Ours, with a function ``notice()``."""


NOTICES = (
    Notice("sentry", "sentry_sdk", "fleetcache.telemetry.sentry"),
    Notice("opentelemetry", "opentelemetry.instrumentation.redis", "fleetcache.telemetry.otel_spans"),
    Notice("ddtrace", "ddtrace", "fleetcache.telemetry.datadog"),
    Notice("toolbar", "debug_toolbar.panels.cache", "fleetcache.telemetry.toolbar"),
)

_said = Said()


def allowed(names: str | None) -> tuple[Notice, ...]:
    """Return which tools may be noticed, as the environment variable says."""
    if names is None:
        return NOTICES
    wanted = re.split(r"[\s,]+", names.strip().lower())
    return tuple(notice for notice in NOTICES if notice.name in wanted)


_allowed = allowed(os.environ.get(SWITCH))


def notice() -> None:
    """Begin to make spans for the tools that are at work in this process; called whenever a cache is created."""
    for each in _allowed:
        if each.sign in sys.modules:
            try:
                import_module(each.module).notice()
            except Exception as error:
                let_pass(error)
                if _said.is_new(each.name):
                    log.exception("%s was found, but no spans can be made for it", each.name)


# --- what was sent, and to where ------------------------------------------------------------------


class Place(NamedTuple):
    """Where a server is."""

    host: str | None = None
    port: int | None = None
    path: str | None = None
    """Of a Unix socket."""
    database: int | None = None
    remote: bool = True
    """Whether it is no server in this process."""
    service: str | None = None
    """The name that Sentinels know it by; which server that is may change with each connection."""


FORMS = (
    re.compile(r"(?P<path>/.*)/(?P<database>\d+)"),
    re.compile(r"\[?(?P<host>[^\s\[\]/]+?)\]?:(?P<port>\d+)/(?P<database>\d+)"),
    re.compile(r"(?P<service>.*) \((?:primary|replica)\)/(?P<database>\d+)"),
)


@lru_cache(1000)
def place_of(address: str) -> Place:
    """Return the place at *address*, as servers write theirs: ``host:port/database``, ``/path/of.socket/database``."""
    if address.startswith("memory:"):
        return Place(remote=False)
    for form in FORMS:
        if found := form.fullmatch(address):
            parts = found.groupdict()
            port = int(parts["port"]) if "port" in parts else None
            place = Place(parts.get("host"), port, parts.get("path"), int(parts["database"]))
            return place._replace(service=parts.get("service"))
    return Place()


class Sent(NamedTuple):
    """The commands of one exchange, as a client that sends each by itself would have them."""

    commands: Sequence[tuple[Any, ...]]
    """Without those that fleetcache sends beside another one for its own ends, and without MULTI and EXEC."""
    transaction: bool

    @property
    def is_single(self) -> bool:
        """Whether it is one command, no pipeline."""
        return len(self.commands) == 1 and not self.transaction

    @property
    def names(self) -> list[str]:
        """The names of the commands."""
        return [command[0].decode() for command in self.commands]


FRAME = frozenset((b"MULTI", b"EXEC"))


def sent(exchange: Exchange) -> Sent:
    """Return what was sent in *exchange*."""
    whole = exchange.commands
    if len(whole) == 1:
        return Sent(whole, transaction=False)
    transaction = any(command[0] == b"MULTI" for command in whole)
    inner = [command for command in whole if command[0] not in FRAME and not getattr(command[0], "aside", False)]
    return Sent(inner or whole, transaction)


def outcomes(exchange: Exchange) -> Iterator[BaseException]:
    """Yield the errors that came of *exchange*: that for which there are no replies, or those that are replies.

    A script of fleetcache that the server does not know yet, as after a restart, is none: it is sent whole next.
    """
    if exchange.error is not None:
        yield exchange.error
    for place, reply in enumerate(exchange.replies or ()):
        if isinstance(reply, Exception):
            if not (isinstance(reply, NoScriptError) and hasattr(exchange.commands[place][1], "lua")):
                yield reply
        elif type(reply) is list:
            yield from (part for part in reply if isinstance(part, Exception))


ARGUMENTS = re.compile(r",? with args beginning with:.*", re.DOTALL)
"""What the server quotes of a command that it does not know: keys and values."""


def quote(error: BaseException, *, keys: bool) -> str:
    """Return the text of *error* for a span: without values and, unless *keys* may be shown, only that of an outage."""
    return ARGUMENTS.sub("", str(error)) if keys or is_outage(error) else ""


def text(part: Any) -> str:
    """Return one part of a command as text; a script by its name."""
    if isinstance(name := getattr(part, "name", None), str):
        return name
    return part.decode(errors="replace") if isinstance(part, bytes) else str(part)


def masked(command: tuple[Any, ...]) -> list[str]:
    """Return the parts of *command*, its keys as they are, and a question mark for everything else."""
    verb = command[0]
    first, count = getattr(verb, "key", 1), max(getattr(verb, "names", 1), 1)
    keys = range(first, min(first + count, len(command))) if first else ()
    name = {1: text(command[1])} if first == 3 and len(command) > 1 else {}  # of a script
    return [text(verb), *(text(command[at]) if at in keys else name.get(at, "?") for at in range(1, len(command)))]


def place_of_cache(cache: Any) -> Place:
    """Return the place of the first primary of *cache*."""
    servers = cache.topology.primaries or cache.topology.servers
    return place_of(servers[0].address)
