"""The connection on which one primary announces changes, and the thread that reads it.

A daemon thread connects, waits for bytes and sends questions when they are due.  A reader that is about to
serve a copy, and finds that no thread has drained the socket for a millisecond, drains it itself, without
waiting; so a busy process learns of a change as fast as it reads.  Event loops need nothing of their own: the
socket does not belong to any of them.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.exchange.connecting import socket_of
from fleetcache.exchange.contract import Reply, Server
from fleetcache.exchange.runtime import BLOCKING
from fleetcache.exchange.wire import facts_in
from fleetcache.forks import OURS, in_children, keep, own
from fleetcache.interrupts import let_pass
from fleetcache.near.clock import clock
from fleetcache.near.gate import Gate
from fleetcache.near.pauses import pause
from fleetcache.near.reads import NEVER, Reads
from fleetcache.near.refusals import Refused
from fleetcache.near.stages import State
from fleetcache.near.tracking import CANARY_LIFE, DOUBT, Tracking
from fleetcache.servers.remote import RemoteServer
from fleetcache.sharing import tidy
from fleetcache.threads import Bell, start
from fleetcache.topology.contract import Topology
from fleetcache.twin import complete

log = logging.getLogger("fleetcache.near")

CHUNK = 65536

SLICE = 4
"""How many chunks are applied at a time, so that the lock is held for some milliseconds at most."""

BACKLOG = 32
"""After this many slices without a pause, 8 MB, the connection is given up until the flood ends."""

CALM = 0.001
"""How long, in seconds, the thread leaves the socket to the readers, or the lock to others, before it goes on."""

CROWDED = 0.01
"""The seconds between two reads of the thread while announcements flow; readers and fences do not wait for it."""

IDLE = 60.0
"""The listener ends after this many seconds without a read, or ``max_ttl`` if that is more."""

LATE = 0.003
"""If no reader has drained the socket for this many seconds, the thread does, and a reader waits for the lock."""

UNSURE = "no other server says who the primary is"

NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Listener:
    """Drives the `Tracking` of one *server* of *topology*, for all near caches of the process; None: it never starts."""

    tracking_class = Tracking
    """Tests replace it by classes that break a rule."""

    def __init__(self, server: Server | None, topology: Topology) -> None:
        self.server = server
        self.topology = topology
        self.tracking = self.tracking_class(
            server, (lambda name: topology.home(name) is server) if topology.can_move else None
        )
        self.gate = GATE
        self.leaving: deque[Reads] = deque()
        """Reads of near caches that are gone; a finalizer appends them, at any moment."""
        self.buffer = bytearray(CHUNK)
        self._start_afresh()
        in_children(self.after_fork)

    def _start_afresh(self) -> None:
        self.thread: threading.Thread | None = None
        """The thread that listens; any other thread of this listener ends."""
        self.failed = ""
        """The bug that was logged last."""
        self.probing = False
        self.sock: Any = None
        self.plain = True
        self.wake = Bell()
        self.checked = self.assured = NEVER
        """When other servers were last asked who the primary is, and when one last answered."""
        self.looked = NEVER
        """When a reader last drained the socket."""

    @property
    def wanted(self) -> bool:
        """Whether a near cache reads from this server."""
        if not self.tracking.readers or self.server is None:
            return False
        return not self.topology.can_move or self.server in self.topology.primaries

    @property
    def remote(self) -> RemoteServer | None:
        """The `RemoteServer` with the connections; None if the server is in this process."""
        return None if self.server is None else self.server.remote

    # --- called by readers ------------------------------------------------------------------------

    def serve(self, reads: Reads) -> None:
        """Pass announcements on to *reads* from now on, and start the thread if it does not run."""
        own()
        if self.thread is not None and reads in self.tracking.readers:
            return
        self.gate.run(self._serve, reads, clock(), must=False)
        with self.gate.lock:
            if self.thread is not None or not self.wanted:
                return
            self.assured = clock()
            self.thread = threading.Thread(target=self._run, name="fleetcache near", daemon=True)
            started = False
            try:
                started = self._begin(self.thread)
            finally:
                if not started:  # if it starts all the same, after an interrupt, it ends at once
                    self.thread = None

    def _serve(self, reads: Reads, now: float) -> None:
        self._part()
        if reads not in self.tracking.readers:
            reads.used = now
            self.tracking.join(reads, now)
            self.flush()

    def _part(self) -> None:
        """Release the reads whose near caches are gone.  A change."""
        with suppress(IndexError):  # that was all
            while True:
                self.tracking.leave(self.leaving.popleft())

    def _begin(self, thread: threading.Thread) -> bool:
        """Start *thread*; return whether that was possible."""
        try:
            start(thread)
        except RuntimeError as error:  # the interpreter is shutting down, or the machine allows no more
            self.tracking.why = str(error)
            return False
        return True

    def release(self, reads: Reads) -> None:
        """Pass no more announcements on to *reads*; if there are no other reads, end, and leave the server to a new listener."""
        self.gate.run(self.tracking.leave, reads)
        if not self.tracking.readers:
            if self.server is not None and LISTENERS.get(self.server) is self:
                del LISTENERS[self.server]
            self.gate.run(self.give_up, "closed", State.ASLEEP, "closed")
            self.wake.ring()

    def wrote(self, names: Iterable[str] | None) -> None:
        """Note that this process writes *names*, None for all names, or has written them."""
        if names is None:
            self.gate.run(self.tracking.end_epoch, "own flush")
            return
        for name in names:
            if self.tracking.knows(name):
                self.gate.run(self.tracking.wrote, name)

    def look(self, now: float) -> None:
        """Drain the socket, unless another thread is doing it."""
        if not OURS:
            own()
        # A thread that drains for long may be waiting for the GIL, and gets it when this thread waits for the lock.
        if not self.gate.busy or now - self.looked > LATE:
            self.gate.run(self._look, now, must=False)

    def _look(self, now: float) -> None:
        self.looked = now
        if self.sock is None:
            return
        self.tracking.drain_begins(now)
        self.tracking.pulse(now)
        self.drain(now)

    def drain(self, now: float) -> bool:
        """Apply the announcements that have arrived, without waiting; return whether there may be more.  A change."""
        if self.sock is None:
            return False
        tracking, receive, buffer = self.tracking, self.sock.recv_into, self.buffer
        try:
            for _ in range(SLICE):
                size = receive(buffer)
                if not size:
                    raise ConnectionError("the server closed the connection")  # noqa: TRY301 - as if the socket had said so
                tracking.received(bytes(memoryview(buffer)[:size]), now)
                if size < CHUNK and self.plain:
                    break  # that was all
            else:
                return True
        except NOT_NOW:
            pass  # that was all
        except Refused as refusal:
            self._hang_up()
            tracking.refuse(str(refusal))
            return False
        except Exception as error:  # noqa: BLE001 - a reader must not fail for it, whatever it is
            let_pass(error)  # an interrupted change is repaired by the gate
            reason = "connection" if isinstance(error, (RedisError, OSError)) else "failure"
            self.give_up(reason, State.DEAD, f"{type(error).__name__}: {error}")
            return False
        tracking.drained(now)
        self.flush()
        return False

    def flush(self) -> None:
        """Send the outgoing bytes, as many as the socket takes.  A change."""
        outgoing = self.tracking.outgoing
        if not outgoing or self.sock is None:
            return
        try:
            with suppress(*NOT_NOW):
                del outgoing[: self.sock.send(outgoing)]
        except OSError as error:
            let_pass(error)
            self.give_up("connection", State.DEAD, f"{type(error).__name__}: {error}")

    @property
    def patience(self) -> float:
        """How long, in seconds, a caller may wait."""
        return (self.remote and self.remote.timeout) or 5.0

    # --- fences -----------------------------------------------------------------------------------

    def fence(self, now: float, then: Callable[[], object]) -> bool:
        """Call *then* when every write acknowledged before *now* is known; return whether to wait for that."""
        waits = bool(self.gate.run(self._fence, now, then))
        if waits:
            self.wake.ring()
        return waits

    def _fence(self, now: float, then: Callable[[], object]) -> bool:
        waits = self.tracking.fence(now, then)
        self.flush()
        return waits

    def distrust(self) -> None:
        """Note that a fence was not passed in time: no copy is served until the server has answered."""
        self.gate.run(self.tracking.distrust)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        tried, last = 0, None
        RUNNING[self] = None
        while self.thread is threading.current_thread():
            if self.wanted:
                self._live()
            if self.wanted:
                self._look_around()  # a primary that is away may have a successor
            tidy()
            self.tracking.speak()
            with self.gate.lock:
                if not self.gate.run(self._goes_on):
                    self.thread = None
                    return
            state = self.tracking.state
            if self.tracking.lived or state is not last:
                tried, last = 0, state
            self.wake.wait(pause(state, tried))
            tried += 1

    def _goes_on(self) -> bool:
        """Whether to listen again; if not, restore the state from before the first read."""
        now = clock()
        self._let_idle_go(now)
        if self.wanted:
            return True
        for reads in self.tracking.readers:
            self.tracking.leave(reads)
        self._unwatch()
        RUNNING.pop(self, None)
        return False

    def _let_idle_go(self, now: float) -> None:
        """Release reads whose near caches are gone, or idle for so long that every copy has expired."""
        self._part()
        self.tracking.journal.tidy()
        for reads in self.tracking.readers:
            if now - reads.used > max(IDLE, reads.options.max_ttl):
                self.tracking.leave(reads)
        if not self.tracking.readers and self.tracking.state is not State.ASLEEP:
            self.give_up("idle", State.ASLEEP, "nobody reads")

    def _live(self) -> None:
        """Connect, and listen for as long as that goes well."""
        try:
            connection = self._connect()
        except Refused as refusal:
            if self.wanted:  # otherwise the last near cache has left, and there are no prefixes
                self.gate.run(self.tracking.refuse, str(refusal))
            return
        except (RedisError, OSError) as error:
            self.gate.run(self.tracking.lost, "connection", State.DEAD, str(error))
            return
        except Exception as error:  # noqa: BLE001 - a bug ends no thread
            self._fail(error)
            return
        try:
            self._listen()
        except Exception as error:  # noqa: BLE001 - here, too
            self._fail(error)
        finally:
            connection.disconnect()

    def _fail(self, error: Exception) -> None:
        """Start anew after *error*, which is a bug and no failure of the server."""
        why = f"{type(error).__name__}: {error}"
        if why != self.failed:  # once: the same bug may occur at each attempt
            self.failed = why
            log.error("%s: the near cache's listener failed, and starts anew", self.tracking.address, exc_info=error)
        self.gate.run(self.give_up, "failure", State.DEAD, why)

    def _connect(self) -> Any:
        """Connect, and ask for announcements; return the connection."""
        self.tracking.counts.connects += 1
        server = self.remote
        if server is None:
            raise Refused("this server is in the process itself")
        if server.pool.connection_kwargs.get("protocol") in {2, "2"}:
            raise Refused('announcements need RESP3, and OPTIONS["protocol"] is 2')
        if self._is_unsure(clock()):
            raise ConnectionError(UNSURE)
        server.watch(self.met)
        self.topology.watch(self.moved)
        self.checked = clock()
        connection = server.connect_apart()
        try:
            sock = socket_of(connection)
            sock.settimeout(0)
            self.gate.run(self._connected, sock, self.tracking.own_name())
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _connected(self, sock: Any, name: str) -> None:
        if not self.wanted:
            return  # since a moment ago
        self.sock = sock
        self.plain = type(sock) is socket.socket
        self.tracking.connected(clock(), name)
        self.flush()

    def _listen(self) -> None:
        """Apply announcements and send commands that are due, until the connection is given up."""
        sock = self.sock
        if sock is None:
            return
        drained = NEVER
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            due = NEVER
            while self.sock is sock:
                now = clock()
                if now >= due or self.tracking.agreed:
                    due = self._turn(now)
                self.tracking.speak()
                if self.tracking.agreed:
                    continue  # just now
                if not selector.select(max(due - clock(), 0)):
                    continue
                now = clock()
                if now - self.looked < LATE and not self.tracking.waiters:
                    self.wake.wait(CALM)  # readers drain the socket themselves
                    continue
                if now - drained < CROWDED:
                    self.wake.wait(max(min(drained + CROWDED, due) - now, 0))
                drained = now
                self._catch_up()

    def _catch_up(self) -> None:
        """Apply all announcements that have arrived, or give up if they do not end."""
        for _ in range(BACKLOG):
            if not self.gate.run_patiently(self.drain, clock()):
                return
            time.sleep(0)  # let a reader that waits for the lock have it
        self.gate.run(self.give_up, "overload", State.ASIDE, "more is announced than can be applied here")

    def _turn(self, now: float) -> float:
        """Send a question, a canary or TOUCH if it is due; return when the next is."""
        tracking, sock = self.tracking, self.sock
        if tracking.agreed and (server := self.remote) is not None:
            # First close ordinary connections that lead to another server: their values must not be kept.
            server.reached(tracking.run_id)
            self.gate.run_patiently(self._arm, sock, now)
        touching = tracking.touching
        if touching.wanted and now >= touching.due:
            self._touch(now)
        for reads in tracking.readers:
            if (watcher := reads.store.watcher) is not None:
                watcher.turn(now)
            if reads.auditor is not None:
                reads.auditor.turn(now)
        due = self.gate.run_patiently(self._do_what_is_due, now)
        unsure = now > self.checked + (tracking.options.t_topo if tracking.state is State.LIVE else DOUBT)
        if not self.probing and (unsure or tracking.canary_due(now)) and self.sock is sock:
            self.probing = True  # first: `_probe`, which resets it, may end before `_begin` returns
            if not self._begin(threading.Thread(target=self._probe, name="fleetcache canary", daemon=True)):
                self.probing = False
        if due is None:
            return now
        return min(due, touching.due) if touching.wanted else float(due)

    def _touch(self, now: float) -> None:
        """Report to the server which copies are in use (`TOUCH`)."""
        tracking, began = self.tracking, time.thread_time()
        entries = tracking.touching.warm()
        # Inspecting the copies takes longer the more there are; a hundredth of the thread's time is spent on it.
        tracking.touching.due = now + max(tracking.options.touch or 0, 100 * (time.thread_time() - began))
        if entries:
            self.gate.run_patiently(tracking.touching.tell, entries, clock())

    def _arm(self, sock: Any, now: float) -> None:
        if self.sock is sock and self.tracking.agreed:
            self.tracking.arm(now)

    def _do_what_is_due(self, now: float) -> float:
        tracking = self.tracking
        if self.sock is None:
            return now
        self._let_idle_go(now)
        if self.sock is None:
            return now
        if tracking.outgrown:
            self.give_up("other prefixes", State.CONNECTING, "other prefixes")
            return now
        if self._is_unsure(now):
            self.give_up("silence", State.DEAD, UNSURE)
            return now
        try:
            until = tracking.tick(now)
        except TimeoutError as error:
            self.give_up("silence", State.DEAD, str(error))
            return now
        self.drain(now)  # TLS may hold bytes that the selector does not see
        more = False
        for reads in tracking.readers:
            reads.settle()
            more = reads.store.sweep(now) or more
        return min(until, now + CALM) if more else until

    def _probe(self) -> None:
        """Ask other servers who the primary is; write a due canary; check to which server ordinary connections lead."""
        try:
            tidy()
            self._look_around()
            server = self.remote
            if server is None or not self.wanted:
                return
            name = ""
            if self.tracking.canary_due(clock()):
                name = self.tracking.own_name()
                self.gate.run(self.tracking.new_canary, name, clock())
            canary = [(c.SET, name, 1, "PX", CANARY_LIFE)] if name else []
            *written, server_part, replication = server.exchange_apart(
                [*canary, (c.INFO, "server"), (c.INFO, "replication")]
            )
            self.gate.run(self._probed, name, written, (server_part, replication))
        except (RedisError, OSError, Refused):
            pass  # the server is away, or holds no slot; the lease decides whether copies are served
        except Exception:
            log.exception("%s: the near cache's probe failed", self.tracking.address)
        finally:
            self.probing = False
            self.tracking.speak()

    def _look_around(self) -> None:
        """Let the topology ask other servers than this one for the primaries."""
        self.checked = clock()
        try:
            complete(self.topology.survey(BLOCKING, self.server))
        except (RedisError, OSError):  # no server answers: ask again soon, and meanwhile go on
            self.checked += DOUBT - self.tracking.options.t_topo
        else:
            self.assured = clock()

    def _is_unsure(self, now: float) -> bool:
        """Whether for too long no server has named the primary."""
        return self.topology.can_move and now > self.assured + 2 * self.tracking.options.t_topo

    def _probed(self, name: str, written: Sequence[Reply], about: Sequence[Reply]) -> None:
        for reply in written:
            if isinstance(reply, RedisError):
                self.tracking.canary_refused(reply)
            else:
                self.tracking.canary_written(name, clock())
                self.flush()
        facts: dict[str, str] = {}
        for part in about:
            facts |= facts_in(part)
        if not self.tracking.is_same_server(facts.get("run_id", ""), facts.get("role", "")):
            self.give_up("another server", State.DEAD, "the primary is another server now")

    # --- ends -------------------------------------------------------------------------------------

    def met(self, run_id: str) -> None:
        """Note that a new ordinary connection leads to the server *run_id*."""
        self.gate.run(self._met, run_id)
        if self.sock is None and self.tracking.last_met not in {"", run_id}:
            self.wake.ring()  # perhaps this server offers what the last one did not

    def _met(self, run_id: str) -> None:
        if not self.tracking.is_same_server(run_id):
            self.give_up("another server", State.DEAD, "the primary is another server now")

    def give_up(self, reason: str, state: State, why: str) -> None:
        """Give up the connection and all copies.  A change."""
        self._hang_up()
        self.tracking.lost(reason, state, why)

    def _hang_up(self) -> None:
        """Give up the socket; the thread, which may be waiting for it, closes it."""
        sock, self.sock = self.sock, None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                let_pass(error)

    def moved(self, losers: Iterable[Server]) -> None:
        """Note that *losers* have lost names, or are no primaries any more."""
        if any(loser is self.server for loser in losers):
            self.gate.run(self.tracking.end_epoch, "moved")
        if not self.wanted:
            self.gate.run(self.give_up, "moved", State.ASLEEP, "it is no primary any more")
            self.wake.ring()

    def _unwatch(self) -> None:
        self.topology.unwatch(self.moved)
        if (server := self.remote) is not None:
            server.unwatch(self.met)

    def after_fork(self) -> None:
        """Forget the parent's connection and thread; the first read begins anew."""
        sock = self.sock
        keep(self.thread)
        self._start_afresh()
        if sock is not None:
            sock.close()  # this process's copy only
        self.tracking.after_fork()


def listener_of(server: Server, topology: Topology) -> Listener:
    """Return the process's listener of *server*, of *topology*."""
    with GATE.lock:
        found = LISTENERS.get(server)
        if found is None:
            found = LISTENERS[server] = Listener(server, topology)
        return found


LISTENERS: weakref.WeakValueDictionary[Server, Listener] = weakref.WeakValueDictionary()
"""Each listener that a near cache, or its own thread, knows of."""

RUNNING: dict[Listener, None] = {}
"""The listeners that have a thread: without a thread there are no copies."""


def _void() -> None:
    for listener in list(RUNNING):
        listener.tracking.void()


def _give_up() -> None:
    for listener in list(RUNNING):
        # The questions that are noted may no longer be those that were sent.
        listener.give_up("interrupt", State.DEAD, "interrupted")


GATE = Gate(_void, _give_up)
in_children(RUNNING.clear)
