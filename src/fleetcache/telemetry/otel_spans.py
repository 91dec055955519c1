"""Spans in OpenTelemetry: one for each exchange with a server, and on request one for each operation.

Nothing has to be called where opentelemetry-instrumentation-redis is at work, or where the program is started by
``opentelemetry-instrument``.  The attributes follow the conventions for database clients; unless
``OTEL_SEMCONV_STABILITY_OPT_IN`` contains ``database``, the names by which that instrumentation calls them are there too.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from importlib import import_module
from inspect import getclosurevars
from time import time_ns
from traceback import format_tb
from types import SimpleNamespace
from typing import Any, TypeAlias

from fleetcache.interrupts import let_pass
from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.stats.payloads import Said
from fleetcache.telemetry.tracing import End, Sent, Tool, masked, outcomes, place_of, place_of_cache, quote, sent, text

REDIS = "opentelemetry.instrumentation.redis"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
LONGEST = 1000
"""How many characters of a statement are told."""

chosen = SimpleNamespace(tracer=None, keys=False, operations=False, request_hook=None, response_hook=None)
"""The tracer, what `install` was asked for, and the hooks of the program."""

Hook: TypeAlias = Callable[..., Any]

log = logging.getLogger("fleetcache.telemetry")
_said = Said()


def install(
    *,
    tracer_provider: Any = None,
    operations: bool = False,
    keys: bool = False,
    request_hook: Hook | None = None,
    response_hook: Hook | None = None,
) -> End:
    """Make spans for the caches that are created from now on; return a function that ends this.

    With *operations* each operation of a cache has a span ``cache.get`` and so on, and those of its exchanges are
    within it.  With *keys* the text of a command shows its key, ``SET user:5 ?``; else ``SET ? ?``, and a span of an
    operation does not show its keys.  The hooks are those of `RedisInstrumentor`: ``request_hook(span, None, command, {})``
    for a single command, and ``response_hook(span, None, reply)``, with a list of replies for several commands.
    """
    chosen.tracer, chosen.keys, chosen.operations = _tracer(tracer_provider), keys, operations
    chosen.request_hook, chosen.response_hook = request_hook, response_hook
    TOOL.hear()
    if operations:
        TOOL.watch()
    return uninstall


def uninstall() -> None:
    """Make no more spans."""
    chosen.tracer, chosen.keys, chosen.operations = None, False, False
    chosen.request_hook = chosen.response_hook = None
    TOOL.end()


def notice() -> None:
    """Make spans if redis-py is instrumented, by its tracer."""
    if TOOL.is_on:
        return
    instrumentor = sys.modules[REDIS].RedisInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        found = _given_to_redis()
        chosen.tracer = found.get("tracer") or _tracer(None)
        chosen.request_hook, chosen.response_hook = found.get("request_hook"), found.get("response_hook")
        TOOL.hear()


def _tracer(provider: Any) -> Any:
    return import_module("opentelemetry.trace").get_tracer("fleetcache", tracer_provider=provider)


def _given_to_redis() -> Mapping[str, Any]:
    """Return the tracer and the hooks with which redis-py was instrumented; nothing if they are hidden."""
    try:
        wrapper = import_module("redis").Redis.execute_command._self_wrapper
        return getclosurevars(wrapper).nonlocals
    except (AttributeError, TypeError):
        return {}


# --- names ----------------------------------------------------------------------------------------


@lru_cache
def _names(opted_in: str | None) -> tuple[bool, bool]:
    """Return whether attributes have their old names, and whether a pipeline's span has its old name."""
    words = [word.strip() for word in (opted_in or "").split(",")]
    stable, both = "database" in words, "database/dup" in words
    return not stable or both, not (stable or both)


def _name(commands: Sent, old: bool) -> str:
    """Return the name of the span: that of the command, or of all if they have one in common."""
    names = commands.names
    if commands.is_single:
        return names[0]
    if old:
        return " ".join(names)[:LONGEST]
    return " ".join(["MULTI" if commands.transaction else "PIPELINE", *(names[:1] if len(set(names)) == 1 else ())])


def _statement(commands: Sent) -> str:
    """Return the text of the commands, without values."""
    if chosen.keys:
        lines = [" ".join(masked(command)) for command in commands.commands]
    else:
        lines = [" ".join([text(command[0]), *["?"] * (len(command) - 1)]) for command in commands.commands]
    whole = "\n".join(lines)
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 3]}..."


def _attributes(exchange: Exchange, commands: Sent, old: bool) -> dict[str, Any]:
    place, names = place_of(exchange.server), commands.names
    statement = _statement(commands)
    attributes: dict[str, Any] = {
        "db.system.name": "redis",
        "db.operation.name": _name(commands, old=False),
        "db.query.text": statement,
    }
    if place.database is not None:
        attributes["db.namespace"] = str(place.database)
    if not commands.is_single and len(names) > 1:
        attributes["db.operation.batch.size"] = len(names)
    if commands.is_single and names[0] in {"EVALSHA", "EVAL"}:
        attributes["db.stored_procedure.name"] = str(getattr(commands.commands[0][1], "name", "script"))
    attributes["network.transport"] = "unix" if place.path else "tcp"
    if (address := place.host or place.path or place.service) is not None:
        attributes["server.address"] = address
    if place.port is not None:
        attributes["server.port"] = place.port
    if old:
        attributes |= {"db.system": "redis", "db.statement": statement}
        attributes |= {"db.redis.database_index": place.database or 0}
        attributes |= {"net.transport": "other" if place.path else "ip_tcp", "net.peer.name": address or "localhost"}
        if place.port is not None:
            attributes["net.peer.port"] = place.port
        if commands.is_single:
            attributes["db.redis.args_length"] = len(commands.commands[0])
        else:
            attributes["db.redis.pipeline_length"] = len(names)
    return attributes


# --- exchanges ------------------------------------------------------------------------------------


def hear(exchange: Exchange) -> None:
    """Make the span of one exchange."""
    now = time_ns()
    tracer = chosen.tracer
    if tracer is None or _is_suppressed() or not place_of(exchange.server).remote:
        return
    commands = sent(exchange)
    old, old_name = _names(os.environ.get(OPT_IN))
    trace = import_module("opentelemetry.trace")
    span = tracer.start_span(
        _name(commands, old_name),
        kind=trace.SpanKind.CLIENT,
        attributes=_attributes(exchange, commands, old),
        start_time=now - int(exchange.seconds * 1e9),
    )
    _call_hooks(span, exchange, commands)
    if span.is_recording() and (error := next(outcomes(exchange), None)) is not None:
        _fail(span, error, trace)
        if error is not exchange.error:
            span.set_attribute("db.response.status_code", _status_code(error))
    span.end(now)


def _call_hooks(span: Any, exchange: Exchange, commands: Sent) -> None:
    """Call the hooks of the program as `RedisInstrumentor` does: after the reply, and with None for the redis-py client."""
    if chosen.request_hook is not None and commands.is_single:
        verb, *rest = commands.commands[0]
        _call_hook(chosen.request_hook, span, (verb.decode(), *rest), {})
    if chosen.response_hook is None or exchange.replies is None:
        return
    if not commands.is_single:
        _call_hook(chosen.response_hook, span, list(exchange.replies))
    elif not isinstance(exchange.replies[0], Exception):
        _call_hook(chosen.response_hook, span, exchange.replies[0])


def _call_hook(hook: Hook, span: Any, *what: Any) -> None:
    try:
        hook(span, None, *what)
    except Exception as error:
        let_pass(error)
        if _said.is_new(repr(hook)):
            log.exception("the hook %r failed; there is no redis-py client, so it gets None for it", hook)


def _fail(span: Any, error: BaseException, trace: Any) -> None:
    """Say what has failed; the text of *error* may quote a key, or be one of the program's."""
    kind, quoted = type(error), quote(error, keys=chosen.keys)
    text = f"{kind.__name__}: {quoted}" if quoted else kind.__name__
    frames = "".join(format_tb(error.__traceback__))
    told = {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.message": quoted}
    span.set_attribute("error.type", kind.__qualname__)
    span.add_event(
        "exception", {**told, "exception.stacktrace": f"Traceback (most recent call last):\n{frames}{text}\n"}
    )
    span.set_status(trace.Status(trace.StatusCode.ERROR, text))


PREFIXES: Mapping[str, str] = {
    "NoScriptError": "NOSCRIPT",
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "ExecAbortError": "EXECABORT",
    "OutOfMemoryError": "OOM",
}
"""The prefixes that redis-py takes off the refusals of these classes."""


def _status_code(error: BaseException) -> str:
    """Return the prefix of a server's refusal, such as WRONGTYPE."""
    first = str(error).partition(" ")[0]
    return first if first.isupper() else PREFIXES.get(type(error).__name__, "ERR")


def _is_suppressed() -> bool:
    """Whether the program asks for no spans: ``with suppress_instrumentation():``."""
    get_value = import_module("opentelemetry.context").get_value
    return bool(get_value("suppress_instrumentation"))


# --- operations -----------------------------------------------------------------------------------


def watch(operation: Operation) -> Finish | None:
    """Begin the span of one operation."""
    if not chosen.operations or chosen.tracer is None or _is_suppressed():
        return None
    trace = import_module("opentelemetry.trace")
    context = import_module("opentelemetry.context")
    attributes: dict[str, Any] = {"cache.operation": operation.name, "cache.awaited": operation.awaited}
    place = place_of_cache(operation.cache)
    if (address := place.host or place.path or place.service) is not None:
        attributes["server.address"] = address
    if operation.keys:
        attributes["cache.key.count"] = len(operation.keys)
        if chosen.keys:
            attributes["cache.key"] = [text(key) for key in operation.keys]
    if operation.parts:
        attributes["cache.operations"] = list(operation.parts)
    name = operation.name if operation.name.startswith("lock.") else f"cache.{operation.name}"
    span = chosen.tracer.start_span(name, attributes=attributes)
    token = None if operation.iterates else context.attach(trace.set_span_in_context(span))
    return _finishing(span, token, trace, context)


def _finishing(span: Any, token: Any, trace: Any, context: Any) -> Callable[[Any, BaseException | None, Facts], None]:
    def finish(result: Any, error: BaseException | None, facts: Facts) -> None:
        if token is not None:
            context.detach(token)
        told = {"cache.hit": facts.hit, "cache.level": facts.level, "cache.item_size": facts.bytes}
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if error is not None:
            _fail(span, error, trace)
        span.end()

    return finish


TOOL = Tool(hear, watch)


# --- opentelemetry-instrument ---------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Return the class `FleetcacheInstrumentor`, which is made where opentelemetry-instrumentation is installed."""
    if name != "FleetcacheInstrumentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _instrumentor()
    return made


def _instrumentor() -> Any:
    base: Any = import_module("opentelemetry.instrumentation.instrumentor").BaseInstrumentor

    class FleetcacheInstrumentor(base):  # type: ignore[misc]  # it may not be installed
        """Makes the spans of fleetcache: ``FleetcacheInstrumentor().instrument()``, with the arguments of `install`."""

        def instrumentation_dependencies(self) -> Collection[str]:
            return ()

        def _instrument(self, **kwargs: Any) -> None:
            known = ("tracer_provider", "operations", "keys", "request_hook", "response_hook")
            install(**{name: kwargs[name] for name in known if kwargs.get(name) is not None})

        def _uninstrument(self, **kwargs: Any) -> None:
            uninstall()

    FleetcacheInstrumentor.__module__ = __name__
    FleetcacheInstrumentor.__qualname__ = FleetcacheInstrumentor.__name__
    return FleetcacheInstrumentor
