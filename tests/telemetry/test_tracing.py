"""When spans are made: for the tools of a process, as soon as a cache is created, unless that is switched off."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError
from tests.caches import own_prefix

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.errors import ServerGone
from fleetcache.stats import Exchange, exchanges, listen, operations
from fleetcache.stats.exchanges import is_heard
from fleetcache.stats.operations import is_watched
from fleetcache.stats.payloads import Said
from fleetcache.telemetry import otel_spans, tracing
from fleetcache.telemetry.tracing import (
    NOTICES,
    Notice,
    Place,
    allowed,
    masked,
    notice,
    outcomes,
    place_of,
    quote,
    sent,
)

HOME = Path(__file__).resolve().parent.parent.parent


def exchange(*commands: Any, replies: Any = None, error: Any = None) -> Exchange:
    return Exchange("127.0.0.1:6379/0", commands, replies, 0.001, error)


# --- what was sent, and to where ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address, place",
    [
        ("127.0.0.1:6379/1", Place("127.0.0.1", 6379, None, 1)),
        ("[::1]:6379/0", Place("::1", 6379, None, 0)),
        ("cache.example:7000/0", Place("cache.example", 7000, None, 0)),
        ("/run/valkey.sock/2", Place(path="/run/valkey.sock", database=2)),
        ("mymaster (primary)/3", Place(database=3, service="mymaster")),
        ("memory://x", Place(remote=False)),
        ("what else", Place()),
    ],
)
def test_places(address, place):
    """An address is taken apart; one of another form has no parts, which is no error."""
    assert place_of(address) == place


@pytest.mark.parametrize(
    "commands, names, transaction",
    [
        ([(c.GET, "a")], ["GET"], False),
        ([(c.VOID, "lease"), (c.DEL, "a")], ["DEL"], False),
        ([(c.GLIMPSE, "a", 0, 9), (c.EXISTS, "a")], ["EXISTS"], False),
        ([(c.GET_NOW, "a"), (c.PTTL_NOW, "a")], ["GET"], False),
        ([(c.MULTI,), (c.SET, "a", b"1"), (c.EXEC,)], ["SET"], True),
        ([(c.VOID, "lease"), (c.MULTI,), (c.SET, "a", 1), (c.SET, "b", 1), (c.EXEC,)], ["SET", "SET"], True),
        ([(c.GET, "a"), (c.DEL, "b")], ["GET", "DEL"], False),
        ([(c.PTTL_NOW, "a"), (c.PTTL_NOW, "b")], ["PTTL", "PTTL"], False),
    ],
)
def test_what_was_sent(commands, names, transaction):
    """Commands that the library sends beside another one are left out, and so is the frame of a transaction."""
    found = sent(exchange(*commands))

    assert (found.names, found.transaction) == (names, transaction)
    assert found.is_single == (len(names) == 1 and not transaction)


@pytest.mark.parametrize(
    "command, shown",
    [
        ((c.SET, "k", b"secret", "PX", 5), "SET k ? ? ?"),
        ((c.MGET, "a", b"b"), "MGET a b"),
        ((c.DEL, "a", "b"), "DEL a b"),
        ((c.EVALSHA, c.INCR, 1, "k", 5), "EVALSHA incr ? k ?"),
        ((c.SCAN, 0, "MATCH", "secret*"), "SCAN ? ? ?"),
        ((c.TIME,), "TIME"),
        ((b"GET", "k"), "GET k"),
    ],
)
def test_masked_commands(command, shown):
    """Keys are shown, and nothing else that may be a value."""
    assert " ".join(masked(command)) == shown


def test_outcomes():
    """Errors are those of the exchange, of its replies, and within a transaction."""
    refused, gone = ResponseError("WRONGTYPE"), ConnectionError()

    assert list(outcomes(exchange((c.GET, "a"), replies=[b"1"]))) == []
    assert list(outcomes(exchange((c.GET, "a"), replies=[refused]))) == [refused]
    assert list(outcomes(exchange((c.MULTI,), (c.EXEC,), replies=[b"OK", [b"1", refused]]))) == [refused]
    assert list(outcomes(exchange((c.GET, "a"), error=gone))) == [gone]
    unknown = NoScriptError("No matching script.")
    assert list(outcomes(exchange((c.EVALSHA, c.INCR, 1, "a"), replies=[unknown]))) == []  # EVAL comes next
    assert list(outcomes(exchange((c.EVALSHA, "a digest of the program", 0), replies=[unknown]))) == [unknown]


async def test_nodes_of_clusters(valkey, valkey_cluster):
    """An exchange says whether its server is a node of a cluster, which Sentry's tag shows."""
    heard: list[Exchange] = []
    end = listen(heard.append)
    for url in (valkey.tcp_url(3), valkey_cluster.url()):
        cache = Cache(url, {"KEY_PREFIX": own_prefix()})
        cache.set("a", 1)
        await cache.aget("a")
    end()

    assert [each.in_cluster for each in heard if each.commands[0][0] in {b"SET", b"GET"}] == [False, False, True, True]
    assert all(place_of(each.server).port for each in heard)


# --- noticing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, names",
    [
        (None, ["sentry", "opentelemetry", "ddtrace", "toolbar"]),
        ("off", []),
        ("", []),
        ("sentry", ["sentry"]),
        (" Sentry, ddtrace", ["sentry", "ddtrace"]),
    ],
)
def test_the_switch(value, names):
    """The environment says which tools are noticed."""
    assert [each.name for each in allowed(value)] == names


def test_a_tool_that_breaks_breaks_no_cache(monkeypatch, caplog):
    """A tool for which no spans can be made is logged once a minute, and the cache works."""
    broken = SimpleNamespace(notice=lambda: 1 / 0)
    monkeypatch.setitem(sys.modules, "broken_tool", broken)
    monkeypatch.setattr(tracing, "_allowed", (Notice("broken", "broken_tool", "broken_tool"),))
    for _ in range(2):
        cache = Cache(f"memory://{own_prefix()}")
        cache.set("a", 1)

    assert cache.get("a") == 1
    assert [each.getMessage() for each in caplog.records] == ["broken was found, but no spans can be made for it"]


def test_nothing_is_imported(monkeypatch):
    """A tool that the program does not use is not imported, and neither is our module for it."""
    code = (
        "import sys; from fleetcache import Cache; Cache('memory://x').set('a', 1); "
        "ours = [f'fleetcache.telemetry.{name}' for name in ('sentry', 'otel_spans', 'datadog', 'toolbar')]; "
        "tools = ('sentry', 'opentelemetry.instrumentation', 'ddtrace', 'debug_toolbar', *ours); "  # redis-py imports others
        "print([name for name in sys.modules if name.startswith(tools)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)

    assert done.stdout.strip() == "[]"


def run(code: str, url: str, **environment: str) -> str:
    """Run *code* in a process of its own, with ``URL`` in it; return what it prints."""
    given = {**os.environ, **environment}
    command = [sys.executable, "-c", f"URL = {url!r}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME, env=given, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SENTRY = """
import sentry_sdk
from fleetcache import Cache
from fleetcache.stats.exchanges import is_heard
from fleetcache.stats.operations import is_watched
crumbs = []
def note(crumb, hint): crumbs.append(crumb["message"])
early = Cache(URL)
sentry_sdk.init(before_breadcrumb=note)
late = Cache(URL)
early.set("a", 1); late.set("b", 1)
print(is_heard(), is_watched(), crumbs)
"""


def test_a_tool_that_is_initialised_late(valkey):
    """Caches that were made before it are not seen; those made afterwards are.  Without Django nothing is watched."""
    assert run(SENTRY, valkey.tcp_url(3)) == "True False [\"SET ':1:b' [Filtered] [Filtered] [Filtered]\"]"


def test_switched_off(valkey):
    """With the switch a tool that is at work gets nothing."""
    assert run(SENTRY, valkey.tcp_url(3), FLEETCACHE_TRACING="off") == "False False []"


TOGETHER = """
import asyncio
import sentry_sdk
from fleetcache import Cache
from fleetcache.telemetry import sentry
spans = {}
def keep(event, hint): spans.update({span["span_id"]: span for span in event["spans"]}, request=event["contexts"]["trace"])
sentry_sdk.init(traces_sample_rate=1.0, before_send_transaction=keep, default_integrations=False)
sentry.install()
cache = Cache(URL)
async def work():
    await cache.aget("warm")
    with sentry_sdk.start_transaction(name="request"):
        await asyncio.gather(*map(cache.aget, "abc"), *(asyncio.to_thread(cache.get, key) for key in "de"))
        with sentry_sdk.start_span(op="after"): pass
asyncio.run(work())
request = spans.pop("request")["span_id"]
parents = {span["op"]: set() for span in spans.values()}
for span in spans.values():
    parents[span["op"]].add("request" if span["parent_span_id"] == request else spans[span["parent_span_id"]]["op"])
print(len(spans), parents)
"""


def test_operations_at_the_same_time_have_the_right_parents(valkey):
    """Tasks and threads of a request share its scope, where Sentry watches neither: no span is taken for the current one there."""
    found = run(TOGETHER, valkey.tcp_url(4))

    assert found == "11 {'cache.get': {'request'}, 'db.redis': {'cache.get'}, 'after': {'request'}}"


INSTALLED_EARLY = """
import sentry_sdk
from fleetcache import Cache
from fleetcache.telemetry import sentry
from fleetcache.stats.exchanges import is_heard
from fleetcache.stats.operations import is_watched
end = sentry.install()
sentry.install()
early = Cache(URL)
early.set("a", 1)
spans = []
sentry_sdk.init(traces_sample_rate=1.0, before_send_transaction=lambda event, hint: spans.extend(event["spans"]))
with sentry_sdk.start_transaction(name="x"):
    early.set("a", None)
    early.get("a")
    early.get_or_set("b", lambda: 1, 60)
    early.clear()
print([(span["op"], span["data"].get("cache.hit")) for span in spans])
end()
print(is_heard(), is_watched())
"""


def test_installed_before_the_tool(valkey):
    """`install` sees to caches that are made before the tool is initialised; a stored None is a hit; it can end."""
    first, second = run(INSTALLED_EARLY, valkey.tcp_url(4)).splitlines()

    found = eval(first)
    assert [each for each in found if each[0] != "db.redis"] == [
        ("cache.put", None),
        ("cache.get", True),
        ("cache.get", False),
        ("cache.flush", None),
    ]
    assert len(found) > 8
    assert second == "False False"


OTEL = """
import asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter(); provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
from fleetcache import Cache
from fleetcache.telemetry.otel_spans import FleetcacheInstrumentor
FleetcacheInstrumentor().instrument(tracer_provider=provider, operations=True, keys=True)
cache = Cache(URL)
def show():
    spans = exporter.get_finished_spans(); exporter.clear()
    names = {span.context.span_id: span.name for span in spans}
    for span in sorted(spans, key=lambda span: span.start_time):
        told = span.attributes
        print(span.name, span.parent and names.get(span.parent.span_id), (told.get("db.query.text") or "-").replace(chr(10), "; "), told.get("cache.level"),
              told.get("cache.hit"), span.end_time > span.start_time)
cache.set("a", 1); cache.get("a")
async def work():
    await asyncio.gather(cache.aget("a"), cache.aget("b"))
asyncio.run(work())
show()
with cache.pipeline() as pipe: pipe.get("a").incr("a").execute()
for key in cache.iter_keys("*"): cache.get(key)
show()
from opentelemetry.instrumentation.utils import suppress_instrumentation
with suppress_instrumentation(): cache.get("a")
FleetcacheInstrumentor().uninstrument()
cache.get("a")
show()
"""


def test_opentelemetry_operations(valkey):
    """Spans of exchanges are within those of their operations, also of tasks that run side by side; iterations enclose nothing."""
    lines = run(OTEL, valkey.tcp_url(5)).splitlines()

    assert lines[:4] == [
        "cache.set None - None None True",
        "SET cache.set SET :1:a ? ? ? None None True",
        "cache.get None - server True True",
        "GET cache.get GET :1:a None None True",
    ]
    assert sorted(lines[4:8]) == [
        "GET cache.get GET :1:a None None True",
        "GET cache.get GET :1:b None None True",
        "cache.get None - server False True",
        "cache.get None - server True True",
    ]
    assert lines[8].startswith("cache.pipeline None")
    assert lines[9].startswith("GET EVAL cache.pipeline")
    rest = [line.split()[:2] for line in lines[10:]]
    assert sorted(rest) == [["GET", "cache.get"], ["SCAN", "None"], ["cache.get", "None"], ["cache.iter_keys", "None"]]


PROGRAM = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider(); provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
from fleetcache import Cache
Cache(URL).get("a")
"""


def test_opentelemetry_instrument(valkey, tmp_path):
    """The command ``opentelemetry-instrument`` finds fleetcache by its entry point, and makes one span of one exchange."""
    points = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["entry-points"][
        "opentelemetry_instrumentor"
    ]
    installed = tmp_path / "fleetcache_here-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: fleetcache-here\nVersion: 1\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (installed / "entry_points.txt").write_text(f"[opentelemetry_instrumentor]\n{lines}\n")
    (tmp_path / "program.py").write_text(f"URL = {valkey.tcp_url(3)!r}\n{PROGRAM}")
    environment = {**os.environ, "PYTHONPATH": f"{HOME / 'src'}:{tmp_path}"}

    done = subprocess.run(
        [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable, tmp_path / "program.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"db.operation.name": "GET"') == 1


class Broken:
    """A provider of tracers that cannot make spans."""

    def get_tracer(self, *args, **kwargs):
        return self

    def start_span(self, *args, **kwargs):
        raise RuntimeError("no room for spans")


async def test_a_backend_that_raises_breaks_no_cache(valkey, caplog, monkeypatch):
    """A tracer that raises is logged once a minute for exchanges, once for operations; both faces work."""
    for module in (exchanges, operations):
        monkeypatch.setattr(module, "_said", Said())
    end = otel_spans.install(tracer_provider=Broken(), operations=True)
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": own_prefix()})
    try:
        for _ in range(2):
            cache.set("a", 1)
            assert cache.get("a") == await cache.aget("a") == 1
    finally:
        end()

    assert [each.exc_info[1].args for each in caplog.records] == [("no room for spans",)] * 2


def test_a_process_without_tools_is_left_alone():
    """In this process, which has initialised none, nobody listens and nobody watches."""
    notice()

    assert not is_heard()
    assert not is_watched()
    assert len(NOTICES) == 4


HOOKS = """
import redis
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider, asked = InMemorySpanExporter(), TracerProvider(), []
provider.add_span_processor(SimpleSpanProcessor(exporter))

def on_request(span, instance, args, kwargs):
    asked.append((instance is None, args, kwargs))
    span.set_attribute("seen.request", args[0])

def on_response(span, instance, response):
    span.set_attribute("seen.response", repr(response))
    if response == b"broken":
        raise RuntimeError(response)

RedisInstrumentor().instrument(tracer_provider=provider, request_hook=on_request, response_hook=on_response)
from fleetcache import Cache
cache = Cache(URL, {"KEY_PREFIX": PREFIX})
cache.set("a", 5)
cache.get("a")
cache.hset("h", "f", 1)
try:
    cache.get("h")
except Exception as error:
    print(type(error).__name__)
pipeline = cache.pipeline(); pipeline.get("a"); pipeline.get("b"); pipeline.execute()
for span in exporter.get_finished_spans():
    print(span.name, span.attributes.get("seen.request"), span.attributes.get("seen.response"), span.attributes.get("server.address"))
print(asked[1])
"""


def test_hooks_of_the_redis_instrumentation(valkey):
    """They are called as for django-redis, with the span, the command and the reply; there is no redis-py client to give them."""
    prefix = own_prefix()
    lines = run(f"PREFIX = {prefix!r}\n{HOOKS}", valkey.tcp_url(3)).splitlines()

    assert lines[1:] == [  # the first one is the error of `get`, which the program got
        "SET SET b'OK' 127.0.0.1",
        "GET GET b'5' 127.0.0.1",
        "HSET HSET 1 127.0.0.1",
        "GET GET None 127.0.0.1",
        "GET GET None [b'5', None] 127.0.0.1",
        f"(True, ('GET', '{prefix}:1:a'), {{}})",
    ]


SERVICE = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from fleetcache import Cache
from fleetcache.telemetry import otel_spans

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel_spans.install(tracer_provider=provider, operations=True)
Cache(URL).get("a")
for span in exporter.get_finished_spans():
    print(span.name, span.attributes["server.address"], span.attributes.get("net.peer.name"), span.attributes.get("server.port"))
"""


def test_a_server_that_sentinels_know_is_named_by_its_service(watched_servers):
    """Its address may change with each connection; the name under which it is asked for is the host of the span."""
    found = run(SERVICE, watched_servers.url(3)).splitlines()

    service = watched_servers.url(3).split("?")[0].rstrip("/").split("/")[-2]
    assert found == [f"GET {service} {service} None", f"cache.get {service} None None"]


SECRETS = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from fleetcache import Cache
from fleetcache.telemetry import otel_spans
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel_spans.install(tracer_provider=provider, operations=True, keys=KEYS)
cache = Cache(URL, {"KEY_PREFIX": PREFIX})
NAME = "a" + "nn"  # the source of what is called stands in tracebacks
def load(): raise LookupError("no user:" + NAME)
for work in (lambda: cache.incr("user:" + NAME), lambda: cache.get_or_set("user:" + NAME, load), lambda: cache.set("user:" + NAME, lambda: 1)):
    try: work()
    except Exception: pass
for span in exporter.get_finished_spans():
    if span.status.description:
        print(span.name, span.status.description)
print(NAME in "".join(span.to_json() for span in exporter.get_finished_spans()))
"""


@pytest.mark.parametrize("keys", [False, True])
def test_errors_show_keys_only_if_they_may_be_shown(valkey, keys):
    """Neither in the status of a span, nor in its event: an error of the cache quotes the key, one of the program anything."""
    *failed, shows = run(f"KEYS = {keys}; PREFIX = {own_prefix()!r}\n{SECRETS}", valkey.tcp_url(3)).splitlines()

    assert shows == str(keys)
    assert {line.partition(":")[0] for line in failed} >= {"cache.incr ValueError", "cache.get_or_set LookupError"}


@pytest.mark.parametrize(
    ("error", "keys", "text"),
    [
        (
            ResponseError("unknown command 'SET', with args beginning with: 'user:5' 'secret' "),
            True,
            "unknown command 'SET'",
        ),
        (ResponseError("No permissions to access the key 'user:5'"), False, ""),
        (
            ServerGone("127.0.0.1:1/0: it has closed the connection"),
            False,
            "127.0.0.1:1/0: it has closed the connection",
        ),
    ],
)
def test_what_spans_quote_of_an_error(error, keys, text):
    """Never the values that a server quotes, and keys only where they may be shown."""
    assert quote(error, keys=keys) == text
