"""A panel for django-debug-toolbar: every call of a cache in a request, of both faces, and what came of it.

``DEBUG_TOOLBAR_PANELS`` names it: ``"fleetcache.django.toolbar.FleetcachePanel"``.

A request's panel stands in a context variable, which the request's tasks and threads inherit from it, so that requests
which run at the same time do not see each other's calls.

Only caches that are made while somebody watches are watched, so the cache objects of a context, which are light, are made
anew when a request that shows the toolbar begins, and when it ends.  Other requests have the usual ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import asdict, dataclass, field
from functools import cache as memoized
from pathlib import Path
from sysconfig import get_path
from time import perf_counter
from typing import Any, ClassVar

import asgiref
from django.conf import settings
from django.core.cache import caches
from django.template import Context, Engine

import fleetcache
from fleetcache.django.backend import RedisCache
from fleetcache.inspection.keys import masked_key
from fleetcache.keys import CacheKey
from fleetcache.stats import exchanges, operations
from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.groups import OTHER
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.stats.tally import Tally

HOME = str(Path(fleetcache.__file__).parent)
ASGIREF = str(Path(asgiref.__file__).parent)
STDLIB = get_path("stdlib")
TEMPLATES = Path(__file__).parent / "templates"
MOST = 1000
"""How many calls of a request are kept; of further ones only the number is known."""
KEYS = 3
"""How many keys of a call are shown."""
SHOW_KEYS = "FLEETCACHE_SHOW_KEYS"
"""The name in DEBUG_TOOLBAR_CONFIG that shows whole keys."""


@dataclass
class Call:
    """One call of a cache."""

    name: str
    awaited: bool
    alias: str
    keys: list[str]
    more: int
    """How many further keys it had."""
    group: str
    parts: list[str]
    """The operations of a pipeline."""
    level: str = "running"
    """``near``, ``server``, ``stale``, ``loaded``, ``missed``, ``failed``; "" if no value was asked for; ``running`` until its end."""
    bytes: int | None = None
    milliseconds: float = 0.0
    exchanges: int = 0
    """How often a server was asked."""
    error: str = ""
    trace: Any = ""


@dataclass
class Sums:
    """The sums of some calls."""

    calls: int = 0
    milliseconds: float = 0.0
    exchanges: int = 0
    bytes: int = 0
    levels: Counter[str] = field(default_factory=Counter)

    def add(self, call: Call) -> None:
        """Add *call*."""
        self.calls += 1
        self.milliseconds += call.milliseconds
        self.exchanges += call.exchanges
        self.bytes += call.bytes or 0
        self.levels[call.level] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the sums for the template."""
        return {**asdict(self), "levels": {level: self.levels[level] for level in LEVELS}}


LEVELS = ("near", "server", "stale", "loaded", "missed", "failed")

_shown: ContextVar[Recording | None] = ContextVar("fleetcache panel", default=None)
"""The panel of the request that this code runs for."""
_running: ContextVar[Call | None] = ContextVar("fleetcache call", default=None)


class Recording:
    """What the panel adds to debug-toolbar's `Panel`."""

    is_async = True
    title = "Fleetcache"
    nav_title = "Fleetcache"
    nav_icon = "debug_toolbar/img/cache.svg"
    _expecting: ClassVar[list[Callable[[], None]]] = []
    get_stats: Callable[[], dict[str, Any]]
    record_stats: Callable[[dict[str, Any]], None]
    record_server_timing: Callable[[str, str, float], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[Call] = []
        self.left_out = 0
        self.aside = 0
        """How often a server was asked outside calls, such as by what `iter_keys` yields from."""
        self._ends: list[Callable[[], None]] = []

    # --- recording --------------------------------------------------------------------------------

    @classmethod
    def ready(cls) -> None:
        """Let caches be made so that one can listen to their servers: they all share the connections and the near cache."""
        if not cls._expecting:
            cls._expecting.append(exchanges.expect())

    def enable_instrumentation(self) -> None:
        """Begin to record the calls in this context."""
        if not self._ends:
            _shown.set(self)
            self._ends = [operations.watch(self._begin), exchanges.listen(self._hear)]
            renew_caches()

    def disable_instrumentation(self) -> None:
        """Stop recording; a task that outlives its request is not recorded any more."""
        if not self._ends:
            return
        for end in self._ends:
            end()
        self._ends = []
        renew_caches()
        if _shown.get() is self:
            _shown.set(None)

    def _begin(self, operation: Operation) -> Finish | None:
        """Record the begin of a call, and return what records its end."""
        if _shown.get() is not self:
            return None
        if len(self.calls) >= MOST:
            self.left_out += 1
            return None
        call = self._call(operation)
        self.calls.append(call)
        # Not while the program uses what the operation yields: that code may make calls itself.
        token: Token[Call | None] | None = None if operation.iterates else _running.set(call)
        began = perf_counter()

        def finish(result: Any, error: BaseException | None, facts: Facts) -> None:
            call.milliseconds = (perf_counter() - began) * 1000
            call.level = "failed" if error is not None else level_of(facts)
            call.bytes = facts.bytes
            if error is not None:  # its text may hold the key
                call.error = type(error).__name__ + f": {error}" * self._shows_keys
            if token is not None:
                with suppress(ValueError):  # the end is in another context
                    _running.reset(token)

        return finish

    def _call(self, operation: Operation) -> Call:
        cache, keys = operation.cache, operation.keys
        if operation.name.startswith("lock."):
            keys = tuple(CacheKey(key) for key in keys)  # whole names
        group = group_of(cache, keys[0]) if keys else ""
        return Call(
            name=operation.name,
            awaited=operation.awaited,
            alias=alias_of(cache),
            keys=[self._shown_key(key) for key in keys[:KEYS]],
            more=max(len(keys) - KEYS, 0),
            group=group,
            parts=list(operation.parts),
            trace=self._trace(),
        )

    def _hear(self, exchange: Exchange) -> None:
        if _shown.get() is not self:
            return
        if (call := _running.get()) is not None:
            call.exchanges += 1
        else:
            self.aside += 1

    def _shown_key(self, key: Any) -> str:
        return str(key) if self._shows_keys else masked_key(str(key))

    @property
    def _shows_keys(self) -> bool:
        return bool(getattr(settings, "DEBUG_TOOLBAR_CONFIG", {}).get(SHOW_KEYS, False))

    def _trace(self) -> str:
        """Return where the call was made, as HTML, without the library's own frames."""
        from debug_toolbar.utils import get_stack_trace, render_stacktrace

        return str(render_stacktrace([frame for frame in get_stack_trace() if not is_machinery(frame[0])]))

    # --- showing ----------------------------------------------------------------------------------

    def generate_stats(self, request: Any, response: Any) -> None:
        """Keep what was recorded."""
        total, groups = Sums(), dict[str, Sums]()
        for call in self.calls:
            total.add(call)
            if call.group:
                groups.setdefault(call.group, Sums()).add(call)
        self.record_stats(
            {
                "calls": [asdict(call) for call in self.calls],
                "left_out": self.left_out,
                "aside": self.aside,
                "total": total.as_dict(),
                "groups": {name: groups[name].as_dict() for name in sorted(groups)},
                "masked": not self._shows_keys,
            }
        )

    def generate_server_timing(self, request: Any, response: Any) -> None:
        """Tell the time of all calls in the header Server-Timing."""
        total = self.get_stats().get("total", {})
        title = f"Fleetcache {total.get('calls', 0)} calls"
        self.record_server_timing("total_time", title, total.get("milliseconds", 0.0))

    @property
    def nav_subtitle(self) -> str:
        """The totals."""
        total = self.get_stats().get("total")
        if not total:
            return ""
        calls, asked, near = total["calls"], total["exchanges"], total["levels"]["near"]
        text = f"{calls} call{'s' * (calls != 1)} in {total['milliseconds']:.2f} ms"
        return f"{text}, {near} near, {asked} round trip{'s' * (asked != 1)}"

    @property
    def content(self) -> str:
        """The page of the panel."""
        # An engine of its own: the app need not be in INSTALLED_APPS.
        engine = Engine(dirs=[str(TEMPLATES)], autoescape=True)
        text: str = engine.get_template("fleetcache/toolbar.html").render(Context(self.get_stats()))
        return text


def renew_caches() -> None:
    """Forget the cache objects of this thread or task, so that new ones are made, watched or not."""
    for alias in caches:
        made = getattr(caches._connections, alias, None)
        if isinstance(made, RedisCache):
            made.close()
            del caches[alias]


def is_machinery(path: str) -> bool:
    """Whether the file at *path* says nothing about who made a call: of the library, Python's own, or asgiref's."""
    if "site-packages" in path:
        return path.startswith((HOME, ASGIREF))
    return path.startswith((HOME, STDLIB, "<frozen"))


def level_of(facts: Facts) -> str:
    """Return where the value of an operation is from, in one word; "" if no value was asked for."""
    if facts.hit is False and facts.level != "loaded":
        return "missed"
    return facts.level or ""


def group_of(cache: Any, key: Any) -> str:
    """Return the group in which *cache* counts *key*; "" if nothing is counted."""
    tally: Tally | None = getattr(cache, "tally", None)
    if tally is None:
        return ""
    with suppress(Exception):  # a key that the operation is about to refuse, or a function of the site's
        # Not `cache.name`, which warns of keys.
        name = key if isinstance(key, CacheKey) else cache._namer(key, cache.key_prefix, cache.version)
        return tally.group(name).name
    return OTHER


def alias_of(cache: Any) -> str:
    """Return the alias of *cache* in this thread or task; its address if it is none of Django's caches."""
    wanted = getattr(cache, "settings", None)
    for alias in caches:
        made = getattr(caches._connections, alias, None)  # not `caches[alias]`, which makes it
        if made is not None and (made is cache or getattr(made, "settings", made) is wanted):
            return str(alias)
    return ", ".join(server.address for server in cache.topology.servers[:1])


@memoized
def _panel() -> Any:
    # debug-toolbar cannot be imported without Django's settings.
    from debug_toolbar.panels import Panel

    return type("FleetcachePanel", (Recording, Panel), {"__module__": __name__, "__doc__": Recording.__doc__})


def __getattr__(name: str) -> Any:
    if name == "FleetcachePanel":
        return _panel()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
