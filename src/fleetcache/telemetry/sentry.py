"""Spans and breadcrumbs in Sentry: those of its own integrations for redis-py and Django's caches, and what these miss.

Nothing has to be called if ``sentry_sdk.init()`` runs before the first cache is created: each command then has the
``db.redis`` span and the breadcrumb of Sentry's ``RedisIntegration``, and with ``DjangoIntegration(cache_spans=True)``
each operation has its ``cache.*`` span, also an awaited one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.telemetry.tracing import End, Sent, Tool, outcomes, place_of, place_of_cache, sent, text

ORIGIN = "auto.db.redis"
CACHE_ORIGIN = "auto.cache.fleetcache"
FILTERED = "[Filtered]"
MOST = 10
"""How many arguments of a command, and commands of a pipeline, are told."""

TAKES_ONE_KEY = frozenset(("decr", "decrby", "get", "incr", "incrby", "pttl", "set", "setex", "setnx", "ttl"))
TAKES_KEYS = frozenset(("del", "touch", "unlink", "mget"))

OPS: Mapping[str, str] = {
    **dict.fromkeys(
        ("get", "get_many", "get_or_set", "get_or_set_many", "get_with_ttl", "has_key", "lookup"), "cache.get"
    ),
    **dict.fromkeys(("set", "add", "set_many", "incr", "decr", "touch", "incr_version", "decr_version"), "cache.put"),
    **dict.fromkeys(("expire", "pexpire", "expire_at", "pexpire_at", "persist"), "cache.put"),
    **dict.fromkeys(("delete", "delete_many", "delete_pattern", "invalidate", "invalidate_tags"), "cache.remove"),
    "clear": "cache.flush",
}
"""The operations that have spans: Sentry's page "Caches" knows these four."""

CACHE_COMMANDS: Mapping[str, str] = {"GET": "cache.get", "MGET": "cache.get", "SET": "cache.put", "SETEX": "cache.put"}

forced = SimpleNamespace(cache_spans=False, redis_spans=False)
"""What `install` has asked for, whatever Sentry's integrations say."""


def install(*, cache_spans: bool = True, redis_spans: bool = True) -> End:
    """Make spans for the caches that are created from now on; return a function that ends this.

    Without this call Sentry's own integrations decide.  Call it for caches without Django, or to have ``cache.*``
    spans although ``DjangoIntegration(cache_spans=True)`` is not set.
    """
    forced.cache_spans, forced.redis_spans = cache_spans, redis_spans
    if redis_spans:
        TOOL.hear()
    if cache_spans:
        TOOL.watch()
    return uninstall


def uninstall() -> None:
    """Make no more spans."""
    forced.cache_spans = forced.redis_spans = False
    TOOL.end()


def notice() -> None:
    """Make the spans that the integrations of this process would make."""
    client = _sdk().get_client()
    if not client.is_active():
        return
    if client.get_integration("redis") is not None:
        TOOL.hear()
    if _wants_cache_spans(client):
        TOOL.watch()


def _sdk() -> Any:
    return import_module("sentry_sdk")


def _wants_cache_spans(client: Any) -> bool:
    """Whether operations have spans: as Sentry's integration for Django decides for a cache of Django's."""
    if forced.cache_spans:
        return True
    integration = client.get_integration("django")
    if integration is None:
        return False
    if getattr(integration, "cache_spans", False) is True:
        return True
    return getattr(client, "spotlight", None) is not None and import_module("django.conf").settings.DEBUG is True


# --- both of its interfaces for spans -------------------------------------------------------------


class Spans:
    """Makes spans by ``sentry_sdk.start_span``."""

    def __init__(self, sdk: Any) -> None:
        self.sdk = sdk

    def current(self) -> Any:
        """Return the span within which this code runs; None if there is none."""
        return self.sdk.get_current_span()

    def start(self, op: str, name: str, origin: str, *, ago: float | None = None, query: str | None = None) -> Any:
        """Start a span: one that is current until its end, or one that began *ago* seconds ago."""
        if ago is None:
            return self.sdk.start_span(op=op, name=name, origin=origin)
        began = datetime.now(UTC) - timedelta(seconds=ago)
        return self.sdk.start_span(op=op, name=name, origin=origin, start_timestamp=began)

    def enter(self, span: Any) -> None:
        """Make *span* the current one."""
        span.__enter__()

    def leave(self, span: Any, error: BaseException | None) -> None:
        """End the current *span*."""
        span.__exit__(None if error is None else type(error), error, None)

    def end(self, span: Any, *, failed: bool) -> None:
        """End *span*, which was not made current."""
        if failed:
            span.set_status("internal_error")
        span.finish(end_timestamp=datetime.now(UTC))

    def describe(self, span: Any, data: Mapping[str, Any]) -> None:
        """Set *data*."""
        for name, value in data.items():
            span.set_data(name, value)

    def of_server(self, address: str) -> dict[str, Any]:
        """Return the data about the server at *address*."""
        place = place_of(address)
        database = None if place.database is None else str(place.database)
        return _known(
            {
                "db.system": "redis",
                "db.driver.name": "fleetcache",
                "db.name": database,
                "server.address": place.host or place.path,
                "server.port": place.port,
            }
        )

    def tell(self, span: Any, commands: Sent, *, in_cluster: bool) -> None:
        """Say what was sent."""
        span.set_tag("redis.is_cluster", in_cluster)
        if not commands.is_single:
            span.set_tag("redis.transaction", commands.transaction)
            first = [_statement(self.sdk, command) for command in commands.commands[:MOST]]
            span.set_data("redis.commands", {"count": len(commands.commands), "first_ten": first})
            return
        (command,) = commands.commands
        span.set_tag("redis.command", text(command[0]))
        span.set_tag("db.operation", text(command[0]))
        if (key := _key(command)) is not None:
            span.set_tag("redis.key", key)


class StreamedSpans(Spans):
    """Makes spans by ``sentry_sdk.traces.start_span``: for ``trace_lifecycle="stream"``."""

    def current(self) -> Any:
        return self.sdk.traces.get_current_span()

    def start(self, op: str, name: str, origin: str, *, ago: float | None = None, query: str | None = None) -> Any:
        attributes = _known({"sentry.op": op, "sentry.origin": origin, "db.query.text": query})
        span = self.sdk.traces.start_span(name=name, attributes=attributes, active=ago is None)
        if ago is not None and hasattr(span, "_start_timestamp"):
            # There is no public way yet to say when a span began.
            span._start_timestamp -= timedelta(seconds=ago)
        return span

    def enter(self, span: Any) -> None:
        """Do nothing: such a span is current as soon as it is started."""

    def end(self, span: Any, *, failed: bool) -> None:
        if failed:
            span.status = "error"
        span.end(end_timestamp=datetime.now(UTC))

    def describe(self, span: Any, data: Mapping[str, Any]) -> None:
        for name, value in data.items():
            span.set_attribute(name, value)

    def of_server(self, address: str) -> dict[str, Any]:
        data = super().of_server(address)
        return {{"db.system": "db.system.name", "db.name": "db.namespace"}.get(name, name): data[name] for name in data}

    def tell(self, span: Any, commands: Sent, *, in_cluster: bool) -> None:
        if commands.is_single:
            (command,) = commands.commands
            self.describe(span, _known({"db.operation.name": text(command[0]), "db.redis.key": _key(command)}))


def _spans(sdk: Any, client: Any) -> Spans:
    """Return the interface that *client* is configured for."""
    options = client.options or {}
    lifecycle = options.get("trace_lifecycle") or (options.get("_experiments") or {}).get("trace_lifecycle")
    return StreamedSpans(sdk) if lifecycle == "stream" else Spans(sdk)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


# --- exchanges ------------------------------------------------------------------------------------


def hear(exchange: Exchange) -> None:
    """Make the breadcrumb and the span of one exchange."""
    sdk = _sdk()
    client = sdk.get_client()
    integration = client.get_integration("redis")
    if not (integration is not None or forced.redis_spans) or not place_of(exchange.server).remote:
        return
    commands, limit = sent(exchange), getattr(integration, "max_data_size", None)
    if commands.is_single:
        query = _statement(sdk, commands.commands[0])
        name = _short(query, limit)
        crumb = _known(
            {
                "redis.is_cluster": exchange.in_cluster,
                "redis.command": commands.names[0],
                "db.operation": commands.names[0],
                "redis.key": _key(commands.commands[0]),
            }
        )
    else:
        query, name = None, "redis.pipeline.execute"
        crumb = {"redis.is_cluster": exchange.in_cluster, "redis.transaction": commands.transaction}
    sdk.add_breadcrumb(message=name, type="redis", category="redis", data=crumb)
    spans = _spans(sdk, client)
    if spans.current() is None:
        return
    failed = next(outcomes(exchange), None) is not None
    prefixes = getattr(integration, "cache_prefixes", None)
    if prefixes and commands.is_single:
        _cache_span_of_command(spans, exchange, commands.commands[0], prefixes, limit, query)
    span = spans.start("db.redis", name, ORIGIN, ago=exchange.seconds, query=query)
    spans.describe(span, spans.of_server(exchange.server))
    spans.tell(span, commands, in_cluster=exchange.in_cluster)
    spans.end(span, failed=failed)


def _cache_span_of_command(
    spans: Spans, exchange: Exchange, command: tuple[Any, ...], prefixes: Any, limit: int | None, query: str | None
) -> None:
    """Make the ``cache.*`` span that ``RedisIntegration(cache_prefixes=…)`` makes of commands about such keys."""
    op = CACHE_COMMANDS.get(text(command[0]))
    keys = tuple(map(text, command[1:] if command[0] == b"MGET" else command[1:2]))
    if op is None or not any(key.startswith(prefix) for key in keys for prefix in prefixes):
        return
    place = place_of(exchange.server)
    data: dict[str, Any] = {
        "cache.key": list(keys),
        "network.peer.address": place.host,
        "network.peer.port": place.port,
    }
    reply = exchange.replies[0] if exchange.replies else None
    if op == "cache.put":
        data["cache.item_size"] = len(command[2]) if isinstance(command[2], bytes) else len(str(command[2]))
    else:
        payloads = [part for part in (reply if type(reply) is list else [reply]) if isinstance(part, bytes)]
        data["cache.hit"] = bool(payloads)
        if payloads:
            data["cache.item_size"] = sum(map(len, payloads))
    span = spans.start(op, _short(", ".join(keys), limit), ORIGIN, ago=exchange.seconds, query=query)
    spans.describe(span, _known(data))
    spans.end(span, failed=False)


def _statement(sdk: Any, command: tuple[Any, ...]) -> str:
    """Return *command* as Sentry shows it: with its key, and with the rest only if data of users may be sent."""
    options = sdk.get_client().options or {}
    collected = options.get("data_collection")
    if collected is not None and collected.get("provided_by_user"):
        shows, masks = bool(collected.get("database_query_data")), False
    else:
        shows, masks = bool(options.get("send_default_pii")), True
    parts = [text(command[0])]
    for place, part in enumerate(command[1 : MOST + 2]):
        if place == 0 or shows:
            parts.append(repr(text(part)) if isinstance(part, (str, bytes)) else repr(part))
        elif masks:
            parts.append(FILTERED)
    return " ".join(parts)


def _short(name: str, limit: int | None) -> str:
    return f"{name[: limit - 3]}..." if limit and len(name) > limit else name


def _key(command: tuple[Any, ...]) -> str | None:
    """Return the key of *command*, if it is one that is known to have one."""
    name = text(command[0]).lower()
    single = name in TAKES_ONE_KEY or (name in TAKES_KEYS and len(command) == 2)
    return text(command[1]) if single and len(command) > 1 else None


# --- operations -----------------------------------------------------------------------------------


def watch(operation: Operation) -> Finish | None:
    """Begin the span of one operation."""
    op = OPS.get(operation.name)
    if op is None or _has_span(operation):
        return None
    sdk = _sdk()
    client = sdk.get_client()
    if not (client.is_active() and _wants_cache_spans(client)):
        return None
    spans = _spans(sdk, client)
    if spans.current() is None:
        return None
    keys = [text(key) for key in operation.keys]
    # In a scope of its own: tasks, and threads with a copied context, share that of their request.
    scope = sdk.new_scope()
    scope.__enter__()
    try:
        span = spans.start(op, ", ".join(keys) or operation.name, CACHE_ORIGIN)
        spans.enter(span)
    except BaseException:
        scope.__exit__(None, None, None)
        raise
    place = place_of_cache(operation.cache)
    spans.describe(
        span,
        _known(
            {
                "cache.key": keys or None,
                "cache.operation": operation.name,
                "cache.write": op != "cache.get",
                "network.peer.address": place.host or place.path,
                "network.peer.port": place.port,
            }
        ),
    )
    return _finishing(spans, span, scope, op, operation.name)


def _finishing(
    spans: Spans, span: Any, scope: Any, op: str, name: str
) -> Callable[[Any, BaseException | None, Facts], None]:
    def finish(result: Any, error: BaseException | None, facts: Facts) -> None:
        data: dict[str, Any] = {"cache.item_size": facts.bytes if op in {"cache.get", "cache.put"} else None}
        if op == "cache.get":
            data["cache.hit"] = facts.hit
            if name in {"get_or_set", "get_or_set_many"} and error is None:
                data["cache.write"] = facts.level == "loaded"
        try:
            spans.describe(span, _known(data))
        finally:
            spans.leave(span, error)
            scope.__exit__(None, None, None)

    return finish


def _has_span(operation: Operation) -> bool:
    """Whether Sentry has replaced this method on the cache, so that the call has a span already."""
    replaced = vars(operation.cache)
    return not operation.awaited and "_sentry_patched" in replaced and operation.name in replaced


TOOL = Tool(hear, watch)
