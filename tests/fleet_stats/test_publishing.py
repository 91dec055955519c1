"""When a process publishes its figures, and what it never does meanwhile."""

from __future__ import annotations

import _weakrefset
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import types
import weakref
from contextlib import contextmanager

import pytest
from tests import nearby
from tests.caches import own_prefix
from tests.fleet_stats.sources import Source, cache_at, publisher
from tests.forks import FORKS, ended_well, in_child
from tests.waiting import until

from fleetcache import Cache
from fleetcache.cache import _shared
from fleetcache.errors import CircuitOpen, ServerTimeout
from fleetcache.fleet import gather, history
from fleetcache.fleet.publishing import PUBLISHING, USUAL, Publishing, digest
from fleetcache.settings import Settings
from fleetcache.stats import listen
from fleetcache.stats.beginnings import PROCESS
from fleetcache.stats.tally import Tally
from fleetcache.telemetry.metrics import own
from fleetcache.testing import FaultProxy, valkey_server


def cache_on(valkey, prefix, **stats):
    return Cache(valkey.tcp_url(3), {"KEY_PREFIX": prefix, "OPTIONS": {"STATS": {"PUBLISH": 0.05, **stats}}})


def published(cache):
    """Return the workers that are published under the prefix of *cache*, by their names."""
    raw = cache.get_client()
    return [name.decode() for name in raw.scan_iter(f"fleetcache:worker:*:{cache.key_prefix}:*")]


@pytest.fixture
def calm():
    """No cache of an earlier test publishes, also if something refers to it still, and a cache of this test shares nothing with it.

    Something does if a test fails and runs again: the traceback.
    """
    _shared.lately.clear()
    _shared.known.clear()
    gc.collect()
    PUBLISHING.publishers.clear()
    PUBLISHING.wake.ring()
    until(lambda: not threads(), 20)  # it may wait for a server of an earlier test


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "fleetcache publishes"]


def test_a_process_publishes_from_its_first_connection_on(valkey):
    """Creating caches starts nothing, because workers may be forked later; using one starts one thread for all."""
    program = f"""
import threading, time
from fleetcache import Cache
from fleetcache.fleet import gather

def cache_on(prefix):
    return Cache({valkey.tcp_url(3)!r}, {{"KEY_PREFIX": prefix, "OPTIONS": {{"STATS": {{"PUBLISH": 0.05}}}}}})

def threads():
    return [thread for thread in threading.enumerate() if thread.name == "fleetcache publishes"]

caches = [cache_on("begins"), cache_on("begins too")]
assert threads() == []
caches[0].get("a")
assert len(threads()) == 1
caches.append(cache_on("begins late"))
until = time.monotonic() + 5
for cache in caches:
    while not gather(cache).workers[0].name:
        assert time.monotonic() < until
assert len(threads()) == 1
"""
    _run(program)


def _run(program):
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True, timeout=20
    )
    assert (ran.returncode, ran.stderr) == (0, "")


async def test_awaiting_a_cache_begins_it_too(valkey):
    """A process that only awaits its caches publishes as well."""
    cache = cache_on(valkey, "awaits")

    await cache.aget("a")

    until(lambda: published(cache))


class Failing:
    """A topology on which what is added to the history fails, before or after it was sent."""

    def __init__(self, topology, error, sends):
        self.topology, self.error, self.sends = topology, error, sends

    def home(self, name):
        server = self.topology.home(name)

        def exchange(commands):
            adds = commands[0][0] == b"HINCRBY" and self.error is not None
            replies = None if adds and not self.sends else server.exchange(commands)
            if adds:
                error, self.error = self.error, None
                raise error
            return replies

        return types.SimpleNamespace(exchange=exchange)


@pytest.mark.parametrize(("error", "sends"), [(CircuitOpen("away"), False), (ServerTimeout("no reply"), True)])
def test_the_history_gets_everything_once(error, sends, valkey):
    """What was not sent is told later; what may have arrived is not told again."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    source = Source(cache)
    published = publisher(source)
    source.topology = Failing(cache.topology, error, sends)

    published.publish()
    assert published.failures == 1
    for _ in range(6):
        published.publish()

    assert published.failures == 0
    assert sum(period.sum("near") for period in history(cache, 1)) == 6


@pytest.mark.parametrize("given", [False, {"PUBLISH": 0}, True])
def test_nothing_is_published_if_it_is_not_wanted(given, calm, valkey):
    """Without STATS, with PUBLISH = 0, or left out without Django's app, there is no thread."""
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": "never", "OPTIONS": {"STATS": given}})

    cache.set("a", 1)

    assert threads() == []
    assert published(cache) == []


def test_left_out_it_is_what_the_app_says(valkey, monkeypatch):
    """`fleetcache.django` sets the usual interval when it is ready, perhaps after a cache was made."""
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": "usual"})
    cache.set("a", 1)
    monkeypatch.setattr(USUAL, "seconds", 0.05)
    PUBLISHING.of(cache._common).due = 0

    PUBLISHING.usually(0.05)

    until(lambda: published(cache))


def test_the_thread_keeps_no_cache_and_ends_with_the_last(calm, valkey):
    """A cache of which nobody has a reference is collected, and the thread that published for it ends."""
    cache = cache_on(valkey, "collected")
    cache.get("a")
    assert threads()
    gone = weakref.ref(cache._common)

    del cache
    _shared.lately.clear()
    gc.collect()

    until(lambda: gone() is None)
    until(lambda: not threads())


def test_no_listener_hears_it(valkey):
    """`listen` reports the exchanges of callers, for whom a span or a line of a panel stands; so do the counted commands."""
    seen = []
    end = listen(lambda exchange: seen.append([command[0] for command in exchange.commands]))
    cache = cache_on(valkey, "unheard")
    cache.get("a")
    until(lambda: published(cache))
    end()

    assert seen == [[b"GET"]]
    assert set(cache.snapshot()["commands"]) == {"GET"}


def test_an_outage_is_logged_once_and_the_pauses_grow(valkey, caplog):
    """It never raises, and says so again only after it has succeeded."""
    caplog.set_level(logging.INFO, "fleetcache.fleet")
    cache = Cache("redis://127.0.0.1:1/0", {"OPTIONS": {"STATS": {"PUBLISH": 0}}})
    source = Source(cache)
    away = publisher(source)

    pauses = []
    for _ in range(6):
        before = away.due
        away.publish()
        pauses.append(away.due)
        assert away.due != before
    from time import monotonic

    assert 300 * 0.89 < away.due - monotonic() < 300 * 1.11
    assert away.failures == 6
    (line,) = [record for record in caplog.records if record.name == "fleetcache.fleet"]
    assert "are not published" in line.getMessage()

    source.topology = cache_at("valkey", {"valkey": valkey}.__getitem__).topology
    away.publish()

    assert away.failures == 0
    assert "published again" in caplog.records[-1].getMessage()


def test_a_user_without_the_right_is_told_once(valkey, caplog):
    """A user who may write only the keys of the site uses the cache as before; the log says why he is not shown."""
    raw = cache_at("valkey", {"valkey": valkey}.__getitem__).get_client()
    raw.execute_command("ACL", "SETUSER", "site", "reset", "on", ">right", "~mine:*", "&*", "+@all")
    url = valkey.tcp_url(3).replace("://", "://site:right@")
    cache = Cache(url, {"KEY_PREFIX": "mine", "OPTIONS": {"STATS": {"PUBLISH": 0.05}}})

    assert cache.set("a", 1)
    publishes = PUBLISHING.of(cache._common)
    until(lambda: publishes.failures >= 2)

    assert cache.get("a") == 1
    lines = [record.getMessage() for record in caplog.records if record.name == "fleetcache.fleet"]
    assert len(lines) == 1
    assert "NoPermission" in lines[0]


def test_a_history_that_is_refused_is_told_once(valkey, caplog):
    """The entry is published all the same, and the log says what is missing."""
    caplog.set_level(logging.INFO, "fleetcache.fleet")
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__, KEY_PREFIX="mute")
    cache.get_client().execute_command(
        "ACL", "SETUSER", "mute", "reset", "on", ">right", "~*", "&*", "+@all", "-hincrby"
    )
    url = valkey.tcp_url(3).replace("://", "://mute:right@")
    source = Source(Cache(url, {"KEY_PREFIX": "mute", "OPTIONS": {"STATS": {"PUBLISH": 0}}}))
    published = publisher(source)
    for _ in range(13):
        published.publish()

    assert published.failures == 0
    assert [worker.name for worker in gather(cache, live=False).workers] == [published.name]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "fleetcache.fleet"]
    assert "the history" in line
    assert "NoPermission" in line


@pytest.mark.parametrize("ahead", [-600, 600])
def test_the_clocks_of_workers_need_not_agree(ahead, valkey, monkeypatch):
    """A process whose clock is wrong is listed, and takes no other one from the list."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__, KEY_PREFIX=f"clocks{ahead}")
    right, wrong = publisher(Source(cache)), publisher(Source(cache))
    right.part = wrong.part = 1
    right.publish()
    now = time.time
    monkeypatch.setattr("fleetcache.fleet.publishing.time.time", lambda: now() + ahead)
    wrong.publish()
    monkeypatch.undo()
    right.publish()

    assert {worker.name for worker in gather(cache, live=False).workers} == {right.name, wrong.name}


def test_a_snapshot_that_raises_ends_no_thread(valkey, caplog):
    """Whatever goes wrong, the other caches of the process are published."""
    cache = cache_at("valkey", {"valkey": valkey}.__getitem__)
    source = Source(cache)
    source.snapshot = lambda: 1 / 0
    broken = publisher(source)

    broken.publish()

    assert broken.failures == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_forked_child_publishes_an_entry_of_its_own(valkey):
    """It counts anew, under another name; its parent goes on."""
    cache = cache_on(valkey, "forked")
    cache.get("a")
    cache.tally.group("b:1").joined += 5
    until(lambda: published(cache))
    (parent,) = published(cache)

    def child():
        assert not PROCESS.connects
        cache.set("a", 1)
        cache.tally.group("users").joined += 1
        own = until(lambda: [name for name in published(cache) if f":{os.getpid()}:" in name])
        fleet = gather(cache)
        assert len(own) == 1
        assert {worker.pid for worker in fleet.workers} == {os.getpid(), os.getppid()}
        mine = next(worker for worker in fleet.workers if worker.own)
        assert {each["joined"] for each in mine.snapshot["groups"].values()} == {0, 1}

    assert ended_well(in_child(child))
    assert parent in published(cache)


@pytest.mark.parametrize("by", FORKS)
def test_the_workers_of_uwsgi_publish_and_the_process_that_forks_them_does_not(by, calm, valkey, monkeypatch):
    """Forked by C code beside a thread that holds the GIL, a worker would wait for the GIL for ever."""
    loader = os.getpid()
    uwsgi = types.SimpleNamespace(
        worker_id=lambda: int(os.getpid() != loader), mule_id=lambda: 0, opt={"enable-threads": b"true"}
    )
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    cache = cache_on(valkey, f"workers {by}")
    cache.get("a")
    assert threads() == []

    def child():
        cache.get("a")
        until(lambda: published(cache))

    with nearby.at_rest():
        assert ended_well(in_child(child, by))


def test_caches_are_made_while_the_thread_looks_for_what_is_due():
    """A thread that looks at all publishers, or reads the metrics of all caches, goes on while other threads add some."""
    publishing = Publishing()
    sources = [Source(cache_at("memory", None)) for _ in range(10)]
    made, tallies = iter(sources), []

    def another():
        source = next(made)
        publishing.publishers[source] = publisher(source)
        tallies.append(Tally(None))

    another()
    another()

    with while_iterating(another):
        due = publishing.next_due()
    with while_iterating(another):
        read = list(own())

    assert due is not None
    assert read
    assert len(publishing.publishers) > 3


@contextmanager
def while_iterating(add, times=3):
    """Call *add* some times in the middle of an iteration over a weak dict or set, as another thread might."""
    left = iter(range(times))

    def trace(frame, event, _):
        if frame.f_code.co_filename not in {weakref.__file__, _weakrefset.__file__}:
            return None
        if event == "line" and frame.f_code.co_name in {"keys", "values", "__iter__"} and next(left, None) is not None:
            add()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_the_interpreter_ends_at_once(valkey):
    """The thread does not keep a program from ending, nor does a server that does not answer."""
    program = f"""
import time
from fleetcache import Cache
cache = Cache({valkey.tcp_url(3)!r}, {{"KEY_PREFIX": "ends", "OPTIONS": {{"STATS": {{"PUBLISH": 0.02}}}}}})
cache.set("a", 1)
time.sleep(0.2)
"""
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True, timeout=10
    )

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "runs"), [({}, False), ({b"enable-threads": True}, True), ({"threads": b"2"}, True)]
)
def test_uwsgi_without_threads_publishes_nothing_and_says_so(options, runs, valkey, monkeypatch, caplog):
    """There a thread would run only during requests, and time out between two of them."""
    uwsgi = types.SimpleNamespace(worker_id=lambda: 1, mule_id=lambda: 0, opt=options)
    cache = cache_on(valkey, "uwsgi")
    cache.get("a")
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    publishing, source = Publishing(), Source(cache)
    publishing.enlist(source)

    publishing.begin()
    publishing.begin()

    assert (publishing.thread is not None) is runs
    assert len([message for message in caplog.messages if "enable-threads" in message]) == (not runs)
    publishing.end()


def test_equal_settings_have_equal_digests():
    """In every process; a password does not change it, an option does."""

    def of(url, **options):
        return digest(Settings.read(url, {"OPTIONS": options}))

    assert of("redis://a/0") == of("redis://a/0")
    assert of("redis://:secret@a/0") == of("redis://:other@a/0")
    assert of("redis://a/0", PASSWORD="x") == of("redis://a/0", PASSWORD="y")
    assert of("redis://a/0", NEAR=True) != of("redis://a/0")
    assert of("redis://a/0", SERIALIZER="json") != of("redis://a/0")


# --- a process that ends --------------------------------------------------------------------------

ENDS = """
import time
from fleetcache import Cache
cache = Cache({url!r}, {{"KEY_PREFIX": {prefix!r}, "OPTIONS": {{"SOCKET_TIMEOUT": 60, "STATS": {{"PUBLISH": {every}}}}}}})
cache.get("users:1")
print("used", flush=True)
{then}
"""


def ends(url, prefix, every, then=""):
    """Run a process that uses a cache and ends; it has no time to publish by itself if *every* is large."""
    program = ENDS.format(url=url, prefix=prefix, every=every, then=then)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def missed(cache):
    return sum(period.sum("missed") for period in history(cache, 1))


def test_a_process_that_ends_tells_the_history(valkey):
    """A worker that lives a few seconds is counted, although its turn to publish never came; it leaves no entry."""
    prefix = own_prefix()
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": prefix, "OPTIONS": {"STATS": False}})

    for number in (1, 2):
        _, errors = ends(valkey.tcp_url(3), prefix, 600).communicate(timeout=60)
        assert errors == ""
        assert missed(cache) == number
    assert gather(cache).workers == []


def test_what_was_published_is_not_told_again(valkey):
    """Only what the history does not have yet is added."""
    prefix = own_prefix()
    cache = Cache(valkey.tcp_url(3), {"KEY_PREFIX": prefix, "OPTIONS": {"STATS": False}})
    running = ends(valkey.tcp_url(3), prefix, 0.05, "input(); cache.get('users:2')")
    until(lambda: missed(cache) == 1)

    _, errors = running.communicate("\n", timeout=60)

    assert errors == ""
    assert missed(cache) == 2


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_no_process_waits_at_its_end_for_a_server_that_is_away(how):
    """Its SOCKET_TIMEOUT of a minute is not waited for, and at most the log has a line that the server is lost."""
    with valkey_server() as server, FaultProxy(server.socket) as proxy:
        running = ends(proxy.url(), own_prefix(), 600, "input()")
        assert running.stdout.readline() == "used\n"
        proxy.hold() if how == "silent" else server.stop()

        _, errors = running.communicate("\n", timeout=40)

        assert running.returncode == 0
        assert all(": lost: " in line for line in errors.splitlines()), errors
