"""What tools see of a site on django-redis they see of it on fleetcache too: the one line is changed, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.newest

HOME = Path(__file__).resolve().parent.parent.parent
DJANGO_REDIS = "django_redis.cache.RedisCache"
FLEETCACHE = "fleetcache.django.RedisCache"

Spans = list[dict[str, Any]]


@cache
def visited(backend: str, url: str, tool: str) -> dict[str, Spans]:
    """Return what *tool*, with its options, has seen of the views of the site on *backend*."""
    command = [sys.executable, "-m", "tests.telemetry.site", backend, url, *tool.split()]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "no spans can be made" not in done.stderr, done.stderr
    seen: dict[str, Spans] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.fixture
def site(valkey):
    """Visits a site with a tool: returns what was seen on django-redis, and on fleetcache."""
    return lambda tool: [visited(backend, valkey.tcp_url(3), tool) for backend in (DJANGO_REDIS, FLEETCACHE)]


def command_in(statement: str) -> str:
    """Return the command and its key in Sentry's or Datadog's text; a script is one, however it is sent."""
    words = statement.split(" ")
    return "script" if words[0] in {"EVAL", "EVALSHA"} else " ".join(words[:2]).replace("'", "")


def lost(before: Spans, after: Spans, told: Any) -> Counter[Any]:
    """Return what *told* says of spans before, and does not say of spans after."""
    return Counter(map(told, before)) - Counter(map(told, after))


def of_sentry(span: dict[str, Any]) -> tuple[Any, ...]:
    data = span.get("data", {})
    name = command_in(span["name"]) if span["op"] in {"db.redis", "breadcrumb"} else span["name"]
    return (
        span["op"],
        name,
        data.get("cache.hit"),
        tuple(data.get("cache.key", ())),
        data.get("server.port"),
        data.get("db.name"),
        data.get("db.namespace"),
        data.get("db.redis.key"),
    )


@pytest.mark.parametrize("mode", ["sentry", "sentry stream", "sentry quiet", "sentry stream quiet", "sentry prefixes"])
def test_sentry(site, mode):
    """Each span and breadcrumb of Sentry's integrations is there, by both of its interfaces for spans.

    Django's own `get_or_set` reads once more after it has stored, which Sentry shows as a second miss.
    """
    before, after = site(mode)

    assert lost(before["blocking"], after["blocking"], of_sentry) == Counter()
    again = lost(before["awaiting"], after["awaiting"], of_sentry)
    assert {(op, name) for op, name, *_ in again} <= {
        ("breadcrumb", "GET :1:d"),
        ("db.redis", "GET :1:d"),
        ("cache.get", "d"),
        ("cache.get", ":1:d"),
    }
    assert max(again.values()) == 1
    for face in ("blocking", "awaiting"):
        shown = Counter(span["op"] for span in after[face])
        assert shown["db.redis"] == shown["breadcrumb"] == {"blocking": 7, "awaiting": 10}[face]
        caches = {op: count for op, count in shown.items() if op.startswith("cache")}
        if "quiet" in mode:
            assert caches == {}
    assert [span["status"] for span in after["errors"] if span["op"] == "db.redis"] != [None]


@pytest.mark.parametrize("mode", ["sentry", "sentry stream"])
def test_sentry_sees_more(site, mode):
    """Each operation has one span, also those that Sentry's integration leaves out; their data is right."""
    _, after = site(mode)
    blocking, awaiting = (
        [each for each in after[face] if each["op"].startswith("cache")] for face in after if face != "errors"
    )

    assert Counter(span["op"] for span in blocking) == {"cache.get": 3, "cache.put": 3, "cache.remove": 1}
    assert Counter(span["op"] for span in awaiting) == {"cache.get": 4, "cache.put": 4, "cache.remove": 1}
    by_operation = {span["data"]["cache.operation"]: span["data"] for span in awaiting}
    assert list(by_operation) == ["set", "get", "set_many", "get_many", "incr", "delete", "get_or_set", "touch"]
    assert by_operation["get_many"]["cache.hit"] is True
    assert by_operation["get_or_set"]["cache.hit"] is False
    assert by_operation["set"]["cache.item_size"] == 19  # of the payload
    assert {span["data"]["network.peer.address"] for span in awaiting} == {"127.0.0.1"}


def of_otel(span: dict[str, Any]) -> tuple[Any, ...]:
    attributes = span["attributes"]
    statement = attributes.get("db.statement", attributes.get("db.query.text"))
    script = span["name"].startswith("EVAL")
    return (
        "script" if script else span["name"],
        span["kind"],
        span["status"],
        span["scope"],
        None if script or "NX" in statement else statement.split(" ")[0],
        attributes.get("db.system", attributes.get("db.system.name")),
        attributes.get("net.peer.name", attributes.get("server.address")),
        attributes.get("net.peer.port", attributes.get("server.port")),
        attributes.get("db.redis.database_index"),
    )


def test_opentelemetry(site):
    """Each span of OpenTelemetry's instrumentation of redis-py is there, with its provider, names and attributes."""
    before, after = site("otel")

    assert lost(before["blocking"], after["blocking"], of_otel) == Counter()
    again = lost(before["awaiting"], after["awaiting"], of_otel)
    assert {name for name, *_ in again} == {"GET"}  # Django's own `get_or_set` reads once more
    assert max(again.values()) == 1
    assert lost(before["errors"], after["errors"], of_otel) == Counter()
    (failed,) = after["errors"]
    assert failed["attributes"]["db.response.status_code"] == "WRONGTYPE"
    assert failed["attributes"]["error.type"] == "ResponseError"


def test_opentelemetry_with_new_names(valkey, monkeypatch):
    """Where a site has opted in, the conventions' own names are there, and the old ones are not."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "database,http")
    after = visited.__wrapped__(FLEETCACHE, valkey.tcp_url(3), "otel")

    (batch,) = (span for span in after["blocking"] if span["attributes"].get("db.operation.batch.size"))
    assert batch["name"] == "MULTI SET"
    assert batch["attributes"] == {
        "db.system.name": "redis",
        "db.operation.name": "MULTI SET",
        "db.operation.batch.size": 2,
        "db.query.text": "SET ? ? ? ?\nSET ? ? ? ?",
        "db.namespace": "3",
        "network.transport": "tcp",
        "server.address": "127.0.0.1",
        "server.port": batch["attributes"]["server.port"],
    }


def of_ddtrace(span: dict[str, Any]) -> tuple[Any, ...]:
    tags = span["tags"]
    redis = span["name"] == "redis.command"
    return (
        span["name"],
        command_in(span["resource"]) if redis else tags.get("django.cache.key"),
        span["service"],
        span["type"],
        span["error"],
        tags.get("db.row_count") if redis or span["resource"].endswith(".get") else None,
        tags.get("out.host"),
        tags.get("network.destination.port"),
        tags.get("out.redis_db"),
        tags.get("component"),
        tags.get("span.kind"),
        tags.get("_dd.measured"),
    )


@pytest.mark.parametrize("mode", ["ddtrace", "ddtrace quiet"])
def test_datadog(site, mode):
    """Each span of ddtrace's integrations of redis-py and Django's caches is there; values are not in it."""
    before, after = site(mode)

    assert lost(before["blocking"], after["blocking"], of_ddtrace) == Counter()
    again = lost(before["awaiting"], after["awaiting"], of_ddtrace)
    # Django's own `get_or_set` calls `get`, `add` and `get`; ours is one operation.
    assert {key for _, key, *_ in again} <= {"GET", "d"}
    assert lost(before["errors"], after["errors"], of_ddtrace) == Counter()
    commands = [span for face in ("blocking", "awaiting") for span in after[face] if span["name"] == "redis.command"]
    assert len(commands) == 17
    assert all("text" not in span["tags"]["redis.raw_command"] for span in commands)
    caches = [span for span in after["awaiting"] if span["name"] == "django.cache"]
    assert len(caches) == (0 if "quiet" in mode else 8)


def test_debug_toolbar(site):
    """The toolbar's own panel counts each call once, blocking or awaited, as it does with django-redis."""
    before, after = site("toolbar")

    assert after["blocking"] == before["blocking"]
    assert [call["name"] for call in after["blocking"]] == [
        "set",
        "get",
        "get",
        "set_many",
        "get_many",
        "incr",
        "delete",
    ]
    assert {(call["hits"], call["misses"]) for call in after["blocking"]} == {(3, 2)}
    assert after["awaiting"] == before["awaiting"]
    assert len(after["awaiting"]) == 9
