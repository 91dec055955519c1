"""A site of two views on one cache, and the tools that watch it; run in a process of its own, as tools patch globally.

    python -m tests.telemetry.site BACKEND URL TOOL [OPTION ...]

It prints as JSON what the tool has seen of each view: a list of spans, each with its name and what matters of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

BACKEND, URL, TOOL, *OPTIONS = sys.argv[1:]


around: Callable[[], AbstractContextManager[Any]] = nullcontext
"""What a request runs in, for tools that would begin it in a server."""


# --- the tools ------------------------------------------------------------------------------------


def sentry() -> Callable[[], list[dict[str, Any]]]:
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.redis import RedisIntegration
    from sentry_sdk.transport import Transport

    envelopes: list[Any] = []
    crumbs: list[str] = []

    def note(crumb: dict[str, Any], hint: Any) -> dict[str, Any]:
        if crumb.get("category") == "redis":
            crumbs.append(crumb["message"])
        return crumb

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            envelopes.append(envelope)

    options: dict[str, Any] = {"trace_lifecycle": "stream"} if "stream" in OPTIONS else {}
    prefixes = [":1:"] if "prefixes" in OPTIONS else None
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Kept,
        before_breadcrumb=note,
        traces_sample_rate=1.0,
        integrations=[
            DjangoIntegration(cache_spans="quiet" not in OPTIONS),
            RedisIntegration(cache_prefixes=prefixes),
        ],
        **options,
    )

    global around
    if "stream" in OPTIONS:
        around = partial(sentry_sdk.traces.start_span, name="request", attributes={"sentry.op": "http.server"})
    else:
        around = partial(sentry_sdk.start_transaction, name="request", op="http.server")

    def take() -> list[dict[str, Any]]:
        sentry_sdk.flush()
        found = []
        for envelope in envelopes:
            for item in envelope.items:
                payload = item.payload.json or {}
                if item.type == "transaction":
                    found += [_of_sentry(span, span.get("data", {})) for span in payload["spans"]]
                elif item.type == "span":
                    for span in payload["items"]:
                        attributes = {name: value["value"] for name, value in span["attributes"].items()}
                        found.append(_of_sentry(span, attributes))
        envelopes.clear()
        found = [span for span in found if span["op"] and span["op"].startswith(("cache", "db.redis"))]
        found += [{"op": "breadcrumb", "name": message} for message in crumbs]
        crumbs.clear()
        return found

    return take


def _of_sentry(span: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "op": span.get("op") or data.get("sentry.op"),
        "name": span.get("description") or span.get("name"),
        "status": span.get("status"),
        "tags": sorted(span.get("tags", {})),
        "data": {
            name: value for name, value in data.items() if not name.startswith(("thread.", "sentry.", "profiler"))
        },
    }


def otel() -> Callable[[], list[dict[str, Any]]]:
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    RedisInstrumentor().instrument(tracer_provider=provider)

    def take() -> list[dict[str, Any]]:
        found = [
            {
                "name": span.name,
                "kind": span.kind.name,
                "status": span.status.status_code.name,
                "scope": span.instrumentation_scope.name,
                "attributes": dict(span.attributes or {}),
            }
            for span in exporter.get_finished_spans()
        ]
        exporter.clear()
        return found

    return take


def ddtrace() -> Callable[[], list[dict[str, Any]]]:
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    spans: list[Any] = []

    class Kept(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            spans.extend(trace)

    tracer.configure(trace_processors=[Kept()])
    ddtrace.patch(redis=True, django=True)
    ddtrace.config.django.instrument_caches = "quiet" not in OPTIONS

    def take() -> list[dict[str, Any]]:
        found = [
            {
                "name": span.name,
                "resource": span.resource,
                "service": span.service,
                "type": span.span_type,
                "error": span.error,
                "tags": {**span.get_tags(), **span.get_metrics()},
            }
            for span in spans
        ]
        spans.clear()
        return [span for span in found if span["name"] in {"redis.command", "django.cache"}]

    return take


def toolbar() -> Callable[[], list[dict[str, Any]]]:
    from debug_toolbar.panels.cache import CachePanel

    panels: list[Any] = []
    generate = CachePanel.generate_stats

    def generate_stats(self: Any, *args: Any) -> None:
        panels.append(self)
        generate(self, *args)

    CachePanel.generate_stats = generate_stats

    def take() -> list[dict[str, Any]]:
        found = [
            {"name": call["name"], "hits": panel.hits, "misses": panel.misses, "calls": len(panel.calls)}
            for panel in panels
            for call in panel.calls
        ]
        panels.clear()
        return found

    return take


TOOLS = {"sentry": sentry, "otel": otel, "ddtrace": ddtrace}
if TOOL in TOOLS:
    take = TOOLS[TOOL]()

# --- the site -------------------------------------------------------------------------------------

import django  # noqa: E402
from django.conf import settings  # noqa: E402

settings.configure(
    DEBUG=TOOL == "toolbar",
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    STATIC_URL="/static/",
    INTERNAL_IPS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.staticfiles", *(["debug_toolbar"] if TOOL == "toolbar" else [])],
    MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware"] if TOOL == "toolbar" else [],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DEBUG_TOOLBAR_PANELS=["debug_toolbar.panels.cache.CachePanel"],
    DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True},
    CACHES={"default": {"BACKEND": BACKEND, "LOCATION": URL}},
)
django.setup()
if TOOL == "toolbar":
    take = toolbar()

from asgiref.sync import sync_to_async  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402


def view(request: Any) -> HttpResponse:
    """Make seven calls."""
    cache.set("a", "text", 60)
    cache.get("a")
    cache.get("missing")
    cache.set_many({"b": 1, "c": 2}, 60)
    cache.get_many(["b", "c", "missing"])
    cache.incr("b")
    cache.delete("c")
    return HttpResponse("<html><body></body></html>")


async def awaited(name: str, *args: Any) -> Any:
    """Call an operation by its a-method."""
    try:
        return await getattr(cache, f"a{name}")(*args)
    except AttributeError as error:  # Django 6.1 looks into a method that a tool has replaced on the cache
        if "__func__" not in str(error):
            raise
        return await sync_to_async(getattr(cache, name))(*args)


async def aview(request: Any) -> HttpResponse:
    """Make nine awaited calls."""
    await awaited("set", "a", "text", 60)
    await awaited("get", "a")
    await awaited("get", "missing")
    await awaited("set_many", {"b": 1, "c": 2}, 60)
    await awaited("get_many", ["b", "c", "missing"])
    await awaited("incr", "b")
    await awaited("delete", "c")
    await awaited("get_or_set", "d", "made", 60)
    await awaited("touch", "d", 30)
    return HttpResponse("<html><body></body></html>")


def errors(request: Any) -> HttpResponse:
    """Ask for what the server refuses: the entry is a list."""
    try:
        cache.get("list")
    except Exception as error:
        assert "WRONGTYPE" in str(error)
    return HttpResponse("<html><body></body></html>")


urlpatterns = [path("", view), path("awaited", aview), path("errors", errors)]
if TOOL == "toolbar":
    urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))


def main() -> None:
    """Visit each view, and print what was seen."""
    import redis
    from django.test import AsyncClient, Client

    raw = redis.Redis.from_url(URL)
    raw.flushdb()
    raw.rpush(":1:list", "item")
    raw.close()
    take()
    seen = {}
    # The first visit connects; what the tool sees of that is no concern.
    Client().get("/")
    take()
    with around():
        assert Client().get("/").status_code == 200
    seen["blocking"] = take()
    raw.delete(":1:d")
    take()

    async def visit() -> None:
        client = AsyncClient()
        await client.get("/awaited")
        raw.delete(":1:d")
        take()
        with around():
            assert (await client.get("/awaited")).status_code == 200

    asyncio.run(visit())
    seen["awaiting"] = take()
    with around():
        Client().get("/errors")
    seen["errors"] = take()
    print(json.dumps(seen, default=str))


main()
