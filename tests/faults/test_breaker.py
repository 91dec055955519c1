"""In an outage the hundredth caller waits microseconds, and each outage is told once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from statistics import median

import pytest
from tests.faces import Face, settled

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.errors import CircuitOpen, ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange import breaker as module
from fleetcache.exchange import probing
from fleetcache.exchange.breaker import Breaker
from fleetcache.exchange.contract import Verb

from .deadlines import HASTY, LIMIT, SLACK, wait_until_admitted

pytestmark = [pytest.mark.timeout(30), pytest.mark.alone]

# --- the breaker alone --------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until the test turns it."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def fail(breaker, times=1):
    for _ in range(times):
        breaker.failure(ServerGone("gone"), breaker.era)


def test_it_opens_after_failures_in_a_row(clock, journal):
    """The third failure in a row shuts everybody out; a success in between begins the count anew."""
    breaker = Breaker("here", failures=3, cooldown=1)
    fail(breaker, 2)
    breaker.admit()
    breaker.success(breaker.era)
    fail(breaker, 2)
    breaker.admit()
    assert breaker.open is False

    fail(breaker)

    assert breaker.open is True
    with pytest.raises(
        CircuitOpen, match=r"here: away for 0\.0 s, tried again in 1\.0 s\. Last error: ServerGone: gone"
    ):
        breaker.admit()
    assert journal.events == ["outage", "recovery", "outage"]


def test_one_caller_tries_at_a_time(clock):
    """Once a cooldown one caller is let through, and all are when it succeeds."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1

    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 1
    breaker.admit()
    breaker.success(breaker.era)
    for _ in range(5):
        breaker.admit()


def test_a_late_failure_does_not_put_off_the_next_try(clock):
    """Tries that hang and fail one after another leave the rhythm of tries as it is."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1
    breaker.admit()
    clock.now += 0.9

    fail(breaker)

    clock.now += 0.1
    breaker.admit()


def test_a_slow_try_is_followed_by_a_rest(clock):
    """A caller whose try took longer than the cooldown is not followed at once by another."""
    breaker = Breaker("here", failures=1, cooldown=1)
    fail(breaker)
    clock.now += 1
    breaker.admit()
    clock.now += 5

    fail(breaker)

    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 1
    breaker.admit()


def test_old_news_of_a_failure(clock, journal):
    """A call that waited through an outage and fails after its end does not begin another."""
    breaker = Breaker("here", failures=1)
    before = breaker.era
    fail(breaker)
    during = breaker.era
    breaker.success(breaker.era)

    breaker.failure(ServerTimeout("late"), before)
    breaker.failure(ServerTimeout("late"), during)

    assert breaker.failed is False
    assert journal.events == ["outage", "recovery"]


def test_old_news_of_a_success(clock, journal):
    """A reply to a call from before the outage does not end it."""
    breaker = Breaker("here", failures=1)
    before = breaker.era
    fail(breaker)

    breaker.success(before)

    assert breaker.open is True
    assert journal.events == ["outage"]


def test_a_broken_connection_shuts_nobody_out(clock, journal):
    """Any number of connections that broke at once say nothing about the next, which is tried at once."""
    breaker = Breaker("here", failures=1)
    era = breaker.era
    for _ in range(500):
        breaker.failure(ConnectionLost("reset"), era)

    breaker.admit()
    breaker.success(breaker.era)

    assert journal.events == ["outage", "recovery"]


# --- with a server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_hundredth_caller_waits_microseconds(face, mortal, journal, how):
    """After three calls that failed slowly, others fail without waiting for anything."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), face)
    await cache.set("a", 1)
    mortal.kill() if how == "killed" else mortal.pause()
    for _ in range(3):
        started = time.monotonic()
        assert isinstance(await settled(cache.get("a")), (ServerGone, ServerTimeout))
        assert time.monotonic() - started <= 2 * LIMIT + SLACK

    took = []
    for _ in range(100):
        started = time.monotonic()
        assert type(await settled(cache.get("a"))) is CircuitOpen
        took.append(time.monotonic() - started)

    print(f"{how}, {face}: {median(took) * 1e6:.0f} µs")
    assert median(took) < 0.001
    assert journal.events == ["outage"]


async def test_breaker_options(face, mortal):
    """BREAKER_FAILURES and BREAKER_COOLDOWN say when it opens and how often is tried."""
    options = {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.05}
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": options}), face)
    await cache.set("a", 1)
    mortal.kill()

    assert type(await settled(cache.get("a"))) is NeverSent
    assert type(await settled(cache.get("a"))) is CircuitOpen
    mortal.restart()
    assert wait_until_admitted(cache.whole) < 0.05 + SLACK / 2
    assert await cache.get("a") is None


async def test_nobody_listens(face):
    """A port where nobody listens is known at once."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        cache = Face(Cache(f"redis://127.0.0.1:{unused.getsockname()[1]}/0", {"OPTIONS": HASTY}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))

    assert type(error) is NeverSent
    assert "Error 111" in str(error)
    assert time.monotonic() - started < LIMIT


async def test_packets_that_nobody_answers(face):
    """Where connecting is not even refused, it ends with its own limit."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The queue of a socket that nobody accepts from is full; further packets are dropped.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        cache = Face(Cache(f"redis://127.0.0.1:{port}/0", {"OPTIONS": HASTY}), face)
        started = time.monotonic()
        error = await settled(cache.get("a"))
        took = time.monotonic() - started
        for one in waiting:
            one.close()

    assert type(error) is ServerTimeout
    assert LIMIT * 0.9 <= took <= 2 * LIMIT + SLACK


async def test_a_large_value_for_a_server_that_does_not_read(face, mortal):
    """Sending has a deadline as well, and callers that wait behind a large value keep their deadlines."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": HASTY}), face)
    await cache.set("a", 1)
    mortal.pause()

    for operation in (lambda: cache.set("large", bytes(30_000_000)), lambda: cache.get("a")):
        started = time.monotonic()
        assert isinstance(await settled(operation()), (ServerGone, ServerTimeout))
        assert time.monotonic() - started <= 2 * LIMIT + SLACK
    mortal.resume()


async def test_a_reply_in_drops(face, mortal, proxy):
    """Each drop of a reply does not have the whole limit anew."""
    cache = Face(Cache(proxy.url(), {"OPTIONS": HASTY}), face)
    Cache(mortal.url()).set("large", bytes(8_000_000))
    await cache.get("a")  # connected: the proxy delays no greeting
    # The proxy holds 64 portions of at most 64 kB, so the reply has a second drop at least, after more than the limit.
    proxy.delay(LIMIT * 0.75)

    started = time.monotonic()
    error = await settled(cache.get("large"))

    assert type(error) is ServerTimeout
    assert time.monotonic() - started <= 2 * LIMIT + SLACK


def test_shards_are_away_together(mortal):
    """Waiting for several servers takes no longer than waiting for one."""
    from fleetcache.client import ShardClient
    from fleetcache.testing import valkey_server

    with valkey_server() as second, valkey_server() as third:
        servers = (mortal, second, third)
        cache = ShardClient([server.tcp_url() for server in servers], {"OPTIONS": HASTY})
        keys = {f"key{number}": number for number in range(50)}
        cache.set_many(keys)
        assert cache.get_many(keys) == keys
        for server in servers:
            server.pause()

        started = time.monotonic()
        with pytest.raises(ServerTimeout):
            cache.get_many(keys)
        took = time.monotonic() - started

        for server in servers:
            server.resume()
    assert took <= 2 * LIMIT + SLACK / 2


# --- probes -------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], object], limit: float = 5.0) -> None:
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("how", ["stopped", "silent", "unreachable"])
@pytest.mark.parametrize("ignore", [False, True])
async def test_a_time_out_shuts_everybody_out(face, mortal, proxy, journal, how, ignore):
    """One call waits for a server that does not answer; no other one does, however long that lasts."""
    url = mortal.tcp_url() if how == "stopped" else proxy.url()
    cache = Face(Cache(url, {"OPTIONS": {**HASTY, "BREAKER_COOLDOWN": 0.1, "IGNORE_EXCEPTIONS": ignore}}), face)
    await cache.set("a", 1)
    await at_once(cache, 5)
    {"stopped": mortal.pause, "silent": proxy.hold, "unreachable": proxy.blackhole}[how]()
    if how == "unreachable":
        proxy.reset()
    took = []

    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        started = time.monotonic()
        await settled(cache.get("a"))
        took.append(time.monotonic() - started)
        await asyncio.sleep(0.01)
    mortal.resume()
    proxy.heal()
    back = wait_until_admitted(cache.whole)

    slow = [seconds for seconds in took if seconds > 0.1]
    assert len(slow) == 1
    assert slow[0] <= LIMIT + SLACK
    assert median(took) < 0.001
    assert back < 1
    assert await cache.get("a") == 1
    assert journal.events == ["outage", "recovery"]


async def at_once(cache: Face, count: int) -> None:
    """Let *count* callers have a connection each, or share the loop's."""
    server = cache.whole.topology.primaries[0]
    if cache.face == "blocking":
        for told in [server.tell([(c.GET, "a")]) for _ in range(count)]:
            server.hear(told)
    else:
        await asyncio.gather(*(cache.get("a") for _ in range(count)))


def test_a_probe_that_hangs_delays_no_other(mortal, proxy):
    """With a long timeout and a server that drops what it is sent, a new probe begins each cooldown, and finds it back."""
    options = {"SOCKET_TIMEOUT": 30, "SOCKET_CONNECT_TIMEOUT": 30, "BREAKER_COOLDOWN": 0.1}
    cache = Cache(proxy.url(), {"OPTIONS": options})
    breaker = cache.topology.primaries[0].breaker
    proxy.blackhole()
    breaker.failure(ServerTimeout("as if thirty seconds had passed"), breaker.era)
    wait_for(lambda: proxy.accepted >= 5)
    assert breaker.open

    proxy.heal()

    assert wait_until_admitted(cache) < 0.1 + SLACK
    assert cache.set("a", 1) is True
    assert proxy.accepted < 20


def test_probes_have_a_limit_where_callers_have_none(mortal, proxy, monkeypatch):
    """A server that took what it was sent, and said nothing, for many cooldowns is found well again afterwards."""
    monkeypatch.setattr("fleetcache.servers.remote.DEADLINE", LIMIT)
    options = {"SOCKET_TIMEOUT": None, "SOCKET_CONNECT_TIMEOUT": None, "BREAKER_COOLDOWN": 0.02}
    cache = Cache(proxy.url(), {"OPTIONS": options})
    cache.set("a", "a")
    breaker = cache.topology.primaries[0].breaker
    proxy.blackhole()
    breaker.failure(ServerTimeout("as if it had been noticed"), breaker.era)
    wait_for(lambda: proxy.accepted > probing.AT_ONCE)  # all that may hang at the same time do

    proxy.heal()

    wait_until_admitted(cache, 2 * LIMIT + SLACK)
    assert cache.get("a") == "a"


def test_an_interrupt_as_the_prober_starts(monkeypatch):
    """A prober whose thread was never started is not waited for: a caller tries, and starts the next."""
    breaker = Breaker("here", failures=1, cooldown=0.01)
    breaker.prober = probing.Prober(lambda: lambda: breaker.success(breaker.era))
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(threading.Thread, "start", interrupt)
        fail(breaker)
    breaker.next_try = time.monotonic() - 2 * probing.LATE

    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()

    wait_for(lambda: not breaker.failed)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_signals_do_not_put_off_a_time_out(mortal):
    """A timer that interrupts every wait does not make the kernel begin to count anew each time."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": HASTY})
    cache.set("a", "a")
    mortal.pause()
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, LIMIT / 8, LIMIT / 8)
    threading.Timer(5 * LIMIT, mortal.resume).start()
    try:
        for operation in (lambda: cache.get("a"), lambda: cache.topology.primaries[0].probe()):
            started = time.monotonic()
            with suppress(ServerTimeout):
                operation()
            assert time.monotonic() - started <= 2 * LIMIT + SLACK
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_until_admitted(cache, 5 * LIMIT + 2)
    assert cache.get("a") == "a"


def test_callers_are_refused_while_a_probe_is_under_way(mortal):
    """A caller that comes meanwhile is refused at once, not queued."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_COOLDOWN": 0.1}})
    cache.set("a", 1)
    mortal.pause()
    with pytest.raises(ServerTimeout):
        cache.get("a")

    took = []
    until = time.monotonic() + 1
    while time.monotonic() < until:
        started = time.monotonic()
        with pytest.raises(CircuitOpen):
            cache.get("a")
        took.append(time.monotonic() - started)
        time.sleep(0.002)
    mortal.resume()

    assert median(took) < 0.001
    assert max(took) < LIMIT


def test_a_slow_command_shuts_nobody_out_for_long(mortal):
    """A time-out of a single command, by a server that is well, is over with the first probe, at once."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_COOLDOWN": 30}})
    cache.set("a", 1)

    with pytest.raises(ServerTimeout):
        cache.topology.primaries[0].exchange([(Verb("BLPOP"), "nothing", 5)])

    assert cache.get("a") == 1


def test_threads_end_with_the_outage(mortal):
    """After the recovery no thread of it is left."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.05}})
    mortal.kill()
    with pytest.raises(NeverSent):
        cache.get("a")
    probe = f"fleetcache probe 127.0.0.1:{mortal.port}/0"
    assert probe in {thread.name for thread in threading.enumerate()}

    mortal.restart()
    wait_until_admitted(cache)

    wait_for(lambda: probe not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("why", ["no thread can start", "threads do not run", "forked"])
def test_without_threads_callers_try(mortal, monkeypatch, why):
    """Where threads do not run, one caller tries each cooldown, and recovery is seen all the same."""
    monkeypatch.setattr(probing, "LATE", 0.1)
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.1}})
    mortal.kill()
    if why == "no thread can start":
        monkeypatch.setattr(threading.Thread, "start", refuse)
    elif why == "threads do not run":
        monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    with pytest.raises(NeverSent):
        cache.get("a")
    if why == "forked":  # a thread of the parent's, which the child believes to run
        prober = cache.topology.primaries[0].breaker.prober
        prober.over = True
        wait_for(lambda: prober.turn.acquire(blocking=False))
        prober.over = False
    kinds = []
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        kinds.append(type(raised(cache)))
        time.sleep(0.005)
    mortal.restart()
    time.sleep(0.3)

    assert kinds[0] is CircuitOpen
    assert 2 <= kinds.count(NeverSent) <= 8
    assert cache.get("a") is None


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def raised(cache: Cache) -> Exception:
    try:
        return cache.get("a")
    except Exception as error:
        return error


def test_a_forked_child_probes_for_itself(mortal):
    """A child of a process that probes has no thread of its parent's, and finds the server back by its own."""
    cache = Cache(mortal.tcp_url(), {"OPTIONS": {**HASTY, "BREAKER_FAILURES": 1, "BREAKER_COOLDOWN": 0.1}})
    mortal.kill()
    with pytest.raises(NeverSent):
        cache.get("a")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks
        child = os.fork()
    if not child:
        with suppress(Exception):
            os.read(reading, 1)
            refused = type(raised(cache)) is CircuitOpen
            wait_until_admitted(cache)
            os._exit(0 if refused and cache.get("a") is None else 1)
        os._exit(2)
    mortal.restart()
    os.write(writing, b"x")

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert wait_until_admitted(cache) < 1
    os.close(reading)
    os.close(writing)


def test_nobody_asks(monkeypatch, clock):
    """The longer nobody asks, the rarer are probes; after an hour the next caller tries by itself."""
    asked = []
    breaker = Breaker("here", failures=1)
    breaker.prober = probing.Prober(lambda: lambda: asked.append(clock.now))
    monkeypatch.setattr(probing, "monotonic", clock)
    monkeypatch.setattr(probing, "IDLE", 3600.0)
    monkeypatch.setattr(breaker.prober.wake, "wait", lambda seconds: setattr(clock, "now", clock.now + seconds))
    monkeypatch.setattr(probing, "begun", lambda _, work, *arguments: work(*arguments) or threading.Thread())
    began = clock.now

    fail(breaker)

    rests = [later - sooner for sooner, later in pairwise(asked)]
    assert rests[:5] == [1] * 5
    assert max(rests) < 400
    assert len(asked) < 100
    assert began + 3000 < asked[-1] <= began + 3600
    breaker.admit()


PROGRAM = """
import sys, threading
from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.errors import ServerGone, ServerTimeout
cache = Cache(sys.argv[1], {"OPTIONS": {"SOCKET_TIMEOUT": 0.1, "SOCKET_CONNECT_TIMEOUT": 0.1}})
for _ in range(4):
    try:
        cache.get("a")
    except (ServerGone, ServerTimeout):
        pass
assert [thread for thread in threading.enumerate() if "probe" in thread.name]
"""


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_process_ends_in_an_outage(mortal, how):
    """It neither waits for its probes, nor complains."""
    url = mortal.tcp_url()
    mortal.kill() if how == "killed" else mortal.pause()
    started = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, url], capture_output=True, text=True, timeout=20
    )

    mortal.resume()
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.replace(url, "").count("\n") <= 1, done.stderr  # the outage itself
    assert time.monotonic() - started < 5
