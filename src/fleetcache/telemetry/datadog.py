"""Spans in Datadog: ``redis.command`` for each exchange with a server, and ``django.cache`` for awaited operations.

Nothing has to be called where ddtrace has patched redis-py or Django.  The blocking methods of Django's caches have their
``django.cache`` spans from ddtrace itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from time import time_ns
from types import SimpleNamespace
from typing import Any

from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.telemetry.tracing import End, Sent, Tool, masked, outcomes, place_of, quote, sent, text

TRACED = frozenset(("get", "set", "add", "delete", "incr", "decr", "get_many", "set_many", "delete_many"))
"""The methods of Django's caches that ddtrace wraps."""

LOADS = frozenset(("get_or_set", "get_or_set_many"))
"""Django's own `get_or_set` calls methods that are wrapped; ours asks by itself."""

ROWS = frozenset(
    (  # noqa: SIM905 - as a list literal it would be longer
        "GET GETDEL GETEX GETRANGE GETSET LINDEX LRANGE RPOP LPOP HGET HGETALL HKEYS HMGET HRANDFIELD HVALS MGET"
    ).split()
)
"""The commands of which ddtrace counts what they return."""

LONGEST = 1000
PART = 100
"""How many characters of the commands, and of one key, are told."""

forced = SimpleNamespace(cache_spans=False)


def install(*, cache_spans: bool = True, redis_spans: bool = True) -> End:
    """Make spans for the caches that are created from now on; return a function that ends this.

    Without this call it depends on what ddtrace has patched.  Call it for ``django.cache`` spans of caches without Django.
    """
    forced.cache_spans = cache_spans
    if redis_spans:
        TOOL.hear()
    if cache_spans:
        TOOL.watch()
    return uninstall


def uninstall() -> None:
    """Make no more spans."""
    forced.cache_spans = False
    TOOL.end()


def notice() -> None:
    """Make the spans of what ddtrace has patched in this process."""
    if getattr(sys.modules.get("redis"), "_datadog_patch", False):
        TOOL.hear()
    if _wants_cache_spans():
        TOOL.watch()


def _wants_cache_spans() -> bool:
    if forced.cache_spans:
        return True
    patched = getattr(sys.modules.get("django"), "_datadog_patch", False)
    return bool(patched and getattr(_config("django"), "instrument_caches", False))


def _config(name: str) -> Any:
    return getattr(import_module("ddtrace").config, name, None)


def _tracer() -> Any:
    return import_module("ddtrace.trace").tracer


def _service(settings: Any, default: str) -> str:
    """Return the name of the service that spans of a server have: set by the user, or ddtrace's own."""
    for name in ("service", "service_name", "_default_service"):
        if (found := getattr(settings, name, None)) is not None:
            return str(found)
    return default


# --- exchanges ------------------------------------------------------------------------------------


def hear(exchange: Exchange) -> None:
    """Make the span of one exchange."""
    now, tracer = time_ns(), _tracer()
    place = place_of(exchange.server)
    if not tracer.enabled or not place.remote:
        return
    commands, settings = sent(exchange), _config("redis")
    names, whole = commands.names, _statement(commands)
    short = getattr(settings, "resource_only_command", True)
    span = tracer.start_span(
        "redis.command",
        child_of=tracer.context_provider.active(),
        service=_service(settings, "redis"),
        resource="\n".join(names) if short else whole,
        span_type="redis",
    )
    span.start_ns = now - int(exchange.seconds * 1e9)
    _tag(span, {"span.kind": "client", "component": "redis", "db.system": "redis", "redis.raw_command": whole})
    if (host := place.host or place.path) is not None:
        _tag(span, {"out.host": host, "server.address": host})
    numbers = {"network.destination.port": place.port, "out.redis_db": place.database, "_dd.measured": 1}
    if commands.is_single:
        numbers["redis.args_length"] = len(commands.commands[0])
        numbers["db.row_count"] = _rows(names[0], exchange)
    else:
        numbers["redis.pipeline_length"] = len(names)
    for name, number in numbers.items():
        if number is not None:
            span.set_metric(name, number)
    if (error := next(outcomes(exchange), None)) is not None:
        _fail(span, error)
    span.finish(now / 1e9)


def _fail(span: Any, error: BaseException) -> None:
    span.error = 1  # `set_exc_info` would ask for a traceback, which a refusal of the server has not
    kind = type(error)
    _tag(span, {"error.type": f"{kind.__module__}.{kind.__qualname__}", "error.message": quote(error, keys=True)})


def _tag(span: Any, tags: Mapping[str, str]) -> None:
    for name, value in tags.items():
        span.set_tag(name, value)


def _statement(commands: Sent) -> str:
    """Return the commands with their keys; values, which ddtrace shows the beginning of, are left out."""
    lines = (" ".join(part[:PART] for part in masked(command)) for command in commands.commands)
    whole = "\n".join(lines)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}..."


def _rows(name: str, exchange: Exchange) -> int | None:
    """Return how many values a read has brought, as ddtrace counts them."""
    if name not in ROWS:
        return None
    reply = exchange.replies[0] if exchange.replies else None
    if not reply or isinstance(reply, Exception):
        return 0
    if name in {"MGET", "HMGET"}:
        there = sum(1 for part in reply if part)
        return there if name == "MGET" else min(there, 1)
    return 1


# --- operations -----------------------------------------------------------------------------------


def watch(operation: Operation) -> Finish | None:
    """Begin the span of one operation."""
    if operation.name not in LOADS and (operation.name not in TRACED or _has_span(operation)):
        return None
    tracer = _tracer()
    if not (tracer.enabled and _wants_cache_spans()):
        return None
    kind, settings = type(operation.cache), _config("django")
    method = getattr(kind, operation.name)
    prefix = getattr(operation.cache, "key_prefix", "")
    resource = f"{method.__module__}.{operation.name} {prefix}".strip().lower()
    service = getattr(settings, "cache_service_name", None)
    span = tracer.trace("django.cache", service=service, resource=resource, span_type="cache")
    _tag(span, {"component": "django", "django.cache.backend": f"{kind.__module__}.{kind.__name__}"})
    if operation.keys:
        _tag(span, {"django.cache.key": " ".join(text(key)[:PART] for key in operation.keys)[:LONGEST]})
    return _finishing(span, operation)


def _finishing(span: Any, operation: Operation) -> Callable[[Any, BaseException | None, Facts], None]:
    def finish(result: Any, error: BaseException | None, facts: Facts) -> None:
        many = operation.name in {"get_many", "get_or_set_many"} and error is None
        span.set_metric("db.row_count", len(result) if many else int(bool(facts.hit)))
        if error is not None:
            _fail(span, error)
        span.finish()

    return finish


def _has_span(operation: Operation) -> bool:
    """Whether ddtrace has wrapped this method, so that the call has a span already."""
    if operation.awaited:
        return False
    wrapped = import_module("ddtrace.internal.wrapping")
    traced = import_module("ddtrace.contrib.internal.django.cache").traced_cache
    method = getattr(type(operation.cache), operation.name)
    while method is not None:
        if wrapped.is_wrapped_with(method, traced):
            return True
        method = getattr(method, "__wrapped__", None)
    return False


TOOL = Tool(hear, watch)
