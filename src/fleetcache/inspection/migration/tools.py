"""Tools that watch caches, and what they see of fleetcache's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fleetcache.inspection.migration.report import Note

PAGE = "docs/tracing.md"
RAW = "fleetcache speaks to the servers by itself, so that its instrumentation of redis-py sees only raw clients"


class Tool(NamedTuple):
    """A tool, and what changes for it."""

    distribution: str
    text: str
    docs: str = PAGE
    todo: bool = False


TOOLS: Sequence[Tool] = (
    Tool(
        "sentry-sdk",
        "sentry-sdk sees what it saw of redis-py and of Django's caches, and awaited calls too: fleetcache makes these spans.",
    ),
    Tool(
        "opentelemetry-instrumentation-redis",
        "opentelemetry-instrumentation-redis: fleetcache makes the spans that it made of redis-py. Hooks of RedisInstrumentor are not called.",
    ),
    Tool(
        "ddtrace",
        "ddtrace sees what it saw of redis-py and of Django's caches, and awaited calls too: fleetcache makes these spans.",
    ),
    Tool("newrelic", f"newrelic: {RAW}.", "docs/observing.md"),
    Tool("elastic-apm", f"elastic-apm: {RAW}.", "docs/observing.md"),
    Tool("scout-apm", f"scout-apm: {RAW}.", "docs/observing.md"),
    Tool(
        "django-prometheus",
        "django-prometheus: its Redis backend is derived from django_redis. Install the stand-in to keep it, or use fleetcache's own metrics.",
        "docs/metrics.md",
    ),
    Tool(
        "django-debug-toolbar",
        "django-debug-toolbar: its Cache panel shows what it showed. The panel fleetcache.django.toolbar.FleetcachePanel shows more.",
        "docs/toolbar.md",
    ),
    Tool("django-silk", "django-silk: it profiles queries and views; nothing changes."),
)


def tools(installed: Callable[[str], bool], caches: Mapping[str, Any]) -> list[Note]:
    """Return what the tools that are installed, or that a BACKEND names, will see."""
    backends = [str(entry.get("BACKEND", "")) for entry in caches.values() if isinstance(entry, Mapping)]
    found = [Note(text=tool.text, docs=tool.docs, todo=tool.todo) for tool in TOOLS if installed(tool.distribution)]
    if any(backend.startswith("django_prometheus.cache.backends.redis") for backend in backends):
        text = "django_prometheus.cache.backends.redis is derived from django_redis.cache.RedisCache: install the stand-in."
        found.append(Note(text=text, docs="docs/migration.md#packages-that-import-django_redis", todo=True))
    return found
