"""What do a connection, an announcement and a request cost?

The constants of the model beside this file, measured on real servers with real connections: CPU as the kernel accounts it
to the server's or the client's process, memory as the server counts it.  Written to ``constants.json``.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import hiredis
import redis
from benchmarks.cluster import cpu_of
from benchmarks.contenders import BLOCKING, OURS, SMALL, TIMEOUT
from benchmarks.contest import FULL, QUICK, Pace, arguments
from benchmarks.foreign import alone, another, flood
from benchmarks.near.caches import PREFIX, announced, wait_until_live
from benchmarks.near.misses import COLD_KEYS, advancing, cold

from fleetcache.testing import cluster, redis_server, valkey_server
from fleetcache.testing.servers import EmbeddedServer

FILE = Path(__file__).with_suffix(".json")
LISTENERS = (0, 1, 10, 100, 500)
"""Connections that are told of each write; the slope between them is what one costs."""
DEPTH = 100
"""Writes that are sent at once: their announcements leave in one message to each listener."""
CROWD = 50
"""Connections that ask at the same moment, as those of a busy site do."""
LIVELY = 0.1
"""Another ``T_LIVE`` than 1, to tell the cost of a lease by."""
RATES = (10, 100, 1_000, 10_000)
"""Announcements a second."""
NAME = f"{PREFIX}user:000001:profile"
VALUE = "x" * 100
LEASE, GET, MISS, SET = "a lease", "GET", "GET and PTTL", "SET"
ASKED: Mapping[str, Sequence[tuple[Any, ...]]] = {
    LEASE: [("SET", f"{PREFIX}~near:0123456789ab:1", "", "XX")],
    GET: [("GET", NAME)],
    MISS: [("GET", NAME), ("PTTL", NAME)],
    SET: [("SET", NAME, VALUE, "PX", 600_000)],
}
"""What is asked of a server; by a near cache for a lease, and when it has no copy."""
FLEETS = ((1, 12, 0), (1, 12, 20), (1, 12, 100), (3, 6, 300))
"""Primaries, processes with a near cache, and writes a second."""
CRUSHED = (100, 500)


@dataclass(kw_only=True)
class ServerCosts:
    """What a server pays, in CPU seconds and bytes."""

    connection_bytes: float
    """Memory of a connection at rest that has been used for one GET."""
    listener_bytes: float
    """Memory of a connection at rest that is told of changes."""
    unread_bytes: float
    """Memory of an announcement that a listener has not read."""
    message_bytes: float
    """Sent to each listener for each message, the names in it aside."""
    name_bytes: float
    """Sent for each name, its characters aside."""
    expiries: float
    """Announcements of an entry that is written once and then expires."""
    message: float
    """CPU of a message to one listener."""
    name: float
    """CPU of each name in a message to one listener."""
    writes: dict[str, list[float]]
    """CPU of a SET by listeners: one at a time, and `DEPTH` sent at once."""
    requests: dict[str, list[float]]
    """CPU of what is asked: one at a time, and when `CROWD` connections ask at once."""
    look: float
    """CPU of a near cache's look around: a new connection, two parts of INFO, on a cluster CLUSTER SLOTS too."""
    idle: float
    """CPU of each idle connection, in a second."""


@dataclass(kw_only=True)
class ClientCosts:
    """What a process pays, in CPU seconds."""

    get: float
    """A get without a near cache."""
    peer_get: float
    """A get of django-redis."""
    hit: float
    """A get that the near cache answers: a small dict, decoded for the caller."""
    miss: float
    """A get that it does not."""
    idle: float
    """Listening to one server while nothing is written, in a second, with ``T_LIVE`` 1 and ``CANARY`` 10."""
    lease: float
    """What the idle cost grows by for each lease more that is asked for in a second."""
    applied: list[list[float]]
    """Announcements in a second, and CPU in a second, the idle cost included; from few to many."""


# --- connections that only listen -----------------------------------------------------------------

TRACK = (("HELLO", 3), ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", PREFIX))


@dataclass
class Heard:
    """What a connection was sent."""

    bytes: int = 0
    messages: int = 0
    names: int = 0


class Listeners:
    """Connections that are told of changes under `PREFIX`, and a thread that throws away what they are told."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.socks: list[socket.socket] = []
        self.heard = Heard()
        """What the first of them was sent."""

    def grow(self, port: int, count: int) -> Heard:
        """Add connections until there are *count*, and return what the first has heard."""
        first = not self.socks
        while len(self.socks) < count:
            self.socks.append(dial(port, *TRACK))
            self.selector.register(self.socks[-1], selectors.EVENT_READ)
        if first and self.socks:
            threading.Thread(target=self._throw_away, daemon=True).start()
        return self.heard

    def _throw_away(self) -> None:
        heard = self.heard
        while True:
            for key, _ in self.selector.select():
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if key.fileobj is self.socks[0]:
                    heard.bytes += len(data)
                    heard.messages += data.count(b">")
                    heard.names += data.count(b"$") - data.count(b">")


listeners = Listeners()
"""Those of this process."""


def listen(port: int, count: int) -> Heard:
    """Let *count* connections of this process listen; return what the first of them has heard so far."""
    return listeners.grow(port, count)


def dial(port: int, *commands: Sequence[Any]) -> socket.socket:
    """Return a connection on which *commands* were answered, if only by a refusal."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = hiredis.Reader(notEnoughData=...)
    for command in commands:
        sock.sendall(hiredis.pack_command(tuple(command)))
        while reader.gets() is ...:
            reader.feed(sock.recv(65536))
    return sock


# --- a server -------------------------------------------------------------------------------------


def of_server(server: EmbeddedServer, pace: Pace) -> ServerCosts:
    """Measure what *server* pays."""
    repeats, count = (3, 500) if pace == QUICK else (5, 1500)
    normal, listener, idle = _memory(server, 200 if pace == QUICK else 1000, 2 if pace == QUICK else 5)
    with redis.Redis.from_url(server.url()) as client:
        client.set(NAME, VALUE)
    requests = {
        what: [_cpu(server, asked, crowd, count, repeats) for crowd in (1, CROWD)] for what, asked in ASKED.items()
    }
    writes, message_bytes, name_bytes = _writes(server, repeats, 100 if pace == QUICK else 400)
    one, many = (_slope([(count, found[at]) for count, found in writes.items()]) for at in (0, 1))
    name = max(0.0, (many - one / DEPTH) / (1 - 1 / DEPTH))
    return ServerCosts(
        connection_bytes=normal,
        listener_bytes=listener,
        unread_bytes=_unread(server),
        message_bytes=message_bytes,
        name_bytes=name_bytes,
        expiries=_expiries(server),
        message=one - name,
        name=name,
        writes={str(count): found for count, found in writes.items()},
        requests=requests,
        look=_look(server, repeats, count // 10),
        idle=idle,
    )


def _name(number: int) -> str:
    return f"{PREFIX}user:{number:06}:profile"


def _memory(server: EmbeddedServer, count: int, rest: float) -> tuple[float, float, float]:
    """Return the bytes of an ordinary connection and of one that listens, and the CPU of an idle one in a second."""
    kinds = {
        "ordinary": [("HELLO", 3), ("GET", NAME)],
        "listening": [*TRACK, *ASKED[LEASE]],
    }
    found = []
    with redis.Redis.from_url(server.url()) as client:
        for commands in kinds.values():
            before, still = _at_rest(client, rest)
            socks = [dial(server.port, *commands) for _ in range(count)]
            after, moved = _at_rest(client, rest)
            found += [(after - before) / count, (moved - still) / count]
            for sock in socks:
                sock.close()
    return found[0], found[2], max(0.0, statistics.mean(found[1::2]))


def _at_rest(client: redis.Redis, rest: float) -> tuple[float, float]:
    """Return the bytes that the server uses once its buffers have shrunk, and its CPU in a second."""
    time.sleep(3)
    before, began = client.info("cpu"), time.monotonic()
    time.sleep(rest)
    after, ended = client.info("cpu"), time.monotonic()
    spent = sum(after[kind] - before[kind] for kind in ("used_cpu_user", "used_cpu_sys"))
    return client.info("memory")["used_memory"], spent / (ended - began)


def _cpu(server: EmbeddedServer, commands: Sequence[Sequence[Any]], crowd: int, count: int, repeats: int) -> float:
    """Return the server's CPU for *commands*, sent together *count* times, by *crowd* connections at the same moment."""
    socks = [dial(server.port) for _ in range(crowd)]
    request = b"".join(hiredis.pack_command(tuple(command)) for command in commands)
    found = []
    rounds = count // crowd
    for _ in range(repeats):
        before = cpu_of(server)
        for _ in range(rounds):
            for sock in socks:
                sock.sendall(request)
            for sock in socks:
                sock.recv(65536)
        found.append((cpu_of(server) - before) / rounds / crowd)
    for sock in socks:
        sock.close()
    return statistics.median(found)


def _look(server: EmbeddedServer, repeats: int, count: int) -> float:
    """Return the server's CPU for somebody who comes, looks who is there, and goes."""
    asked = [("HELLO", 3), ("CLIENT", "SETINFO", "LIB-NAME", "redis-py"), ("CLIENT", "SETINFO", "LIB-VER", "8.1.0")]
    spent = []
    for _ in range(repeats):
        before = cpu_of(server)
        for _ in range(count):
            dial(server.port, *asked, ("INFO", "server"), ("INFO", "replication"), ("CLUSTER", "SLOTS")).close()
        spent.append((cpu_of(server) - before) / count)
    return statistics.median(spent)


def _writes(server: EmbeddedServer, repeats: int, count: int) -> tuple[dict[int, list[float]], float, float]:
    """Return the server's CPU of a write by listeners, one at a time and `DEPTH` at once; bytes of a message and a name."""
    costs: dict[int, list[float]] = {}
    sock = dial(server.port)
    with another() as other:
        for amount in LISTENERS:
            costs[amount] = []
            for depth in (1, DEPTH):
                number = count * (1 if depth == 1 else 5)
                spent = []
                for _ in range(repeats):
                    before = other.start(listen, server.port, amount).result()
                    cpu = cpu_of(server)
                    _write(sock, number, depth)
                    spent.append((cpu_of(server) - cpu) / number)
                    time.sleep(0.2)
                    after = other.start(listen, server.port, amount).result()
                costs[amount].append(statistics.median(spent))
        heard = Heard(*(b - a for a, b in zip(astuple(before), astuple(after), strict=True)))
    each = len(f"${len(NAME)}\r\n{NAME}\r\n")
    return costs, (heard.bytes - heard.names * each) / heard.messages, each - len(NAME)


def _write(sock: socket.socket, count: int, depth: int) -> None:
    """Set *count* names, *depth* at a time."""
    for start in range(0, count, depth):
        names = [_name(number) for number in range(start, start + depth)]
        sock.sendall(b"".join([hiredis.pack_command(("SET", name, VALUE, "PX", 600_000)) for name in names]))
        waiting = len(b"+OK\r\n") * depth
        while waiting:
            waiting -= len(sock.recv(65536))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line of least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _unread(server: EmbeddedServer, batch: int = 100_000) -> float:
    """Return the memory of an announcement to a listener that has stopped to read."""
    deaf = dial(server.port, *TRACK)
    address = "{}:{}".format(*deaf.getsockname())
    sock = dial(server.port)
    used = []
    with redis.Redis.from_url(server.url()) as client:
        for _ in range(5):  # the first ones fill the kernel's buffers
            _write(sock, batch, DEPTH)
            used.append(next(int(each["tot-mem"]) for each in client.client_list() if each["addr"] == address))
    deaf.close()
    return (used[-1] - used[-2]) / batch


def _expiries(server: EmbeddedServer, count: int = 200) -> float:
    """Return how often an entry is announced that is written once and expires."""
    with redis.Redis.from_url(server.url()) as client, another() as other:
        client.flushall()
        before = other.start(listen, server.port, 1).result().names
        for number in range(count):
            client.set(_name(number), 1, px=1000)
        deadline = time.monotonic() + 10
        while client.dbsize() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.2)
        return float(other.start(listen, server.port, 1).result().names - before) / count


# --- a client -------------------------------------------------------------------------------------


def of_client(server: EmbeddedServer, pace: Pace) -> ClientCosts:
    """Measure what a process pays that uses *server*."""
    repeats, seconds = (2, 1.0) if pace == QUICK else (3, 4.0)
    url = server.tcp_url()
    idle = alone(idle_cpu, url, 1.0, seconds * repeats)
    lively = alone(idle_cpu, url, LIVELY, seconds * repeats)
    return ClientCosts(
        idle=idle,
        lease=(lively - idle) / (3 / LIVELY - 3),
        applied=[alone(applied_cpu, url, rate, repeats, seconds) for rate in RATES],
        **{what: alone(get_cpu, url, what, repeats) for what in ("get", "peer_get", "hit", "miss")},
    )


def _near(url: str, **options: Any) -> Any:
    from fleetcache import Cache

    cache = Cache(url, {"OPTIONS": {"NEAR": options or True}})
    wait_until_live(cache)
    return cache


def idle_cpu(url: str, t_live: float, seconds: float) -> float:
    """Return the CPU in a second of a process that does nothing but listen."""
    _near(url, T_LIVE=t_live)
    time.sleep(0.5)
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def applied_cpu(url: str, rate: int, repeats: int, seconds: float) -> list[float]:
    """Return what a process is told in a second while *rate* names are written in it, and its CPU in a second."""
    cache = _near(url)
    names = [_name(at) for at in range(1000)]
    told, spent = [], []
    with another() as writer:
        for _ in range(repeats):
            before = announced(cache)
            cpu, wall = time.process_time(), time.perf_counter()
            writing = writer.start(flood, url, names, rate, seconds)
            time.sleep(seconds)
            wall = time.perf_counter() - wall
            spent.append((time.process_time() - cpu) / wall)
            told.append((announced(cache) - before) / wall)
            writing.result()
    return [statistics.median(told), statistics.median(spent)]


def get_cpu(url: str, what: str, repeats: int, count: int = 5000) -> float:
    """Return the CPU of a get of a small dict."""
    with ExitStack() as stack:
        if what == "miss":
            cache, names = cold(url, stack), [f"cold:{at}" for at in range(COLD_KEYS)]
        else:
            cache = _near(url) if what == "hit" else BLOCKING[OURS if what == "get" else "django-redis"](url)
            names = ["small"]
        cache.set("small", SMALL, TIMEOUT)
        turn = advancing(cache.get, itertools.cycle(names))
        turn(count)
        spent = []
        for _ in range(repeats):
            cpu = time.process_time()
            turn(count)
            spent.append((time.process_time() - cpu) / count)
    return statistics.median(spent)


# --- real points, to check the simulation with ----------------------------------------------------


@dataclass(kw_only=True)
class Fleet:
    """What some near caches cost while something was written."""

    primaries: int
    processes: int
    writes: float
    """In a second, as many as were done."""
    server: float
    """CPU seconds of all servers in a second."""
    client: float
    """CPU seconds of each process in a second."""


@dataclass(kw_only=True)
class Crush:
    """What a server did for `CROWD` connections that write all the time, while raw connections listened."""

    listeners: int
    writes: float
    """In a second."""
    messages: float
    """To each listener, in a second."""
    server: float
    """CPU seconds of the server in a second."""


def fleet(primaries: int, processes: int, rate: int, seconds: float) -> Fleet:
    """Let real near caches listen, one in each process, while *rate* names a second are written."""
    with ExitStack() as stack:
        if primaries == 1:
            server = stack.enter_context(valkey_server())
            nodes, url = [server], server.tcp_url()
        else:
            servers = stack.enter_context(cluster(primaries=primaries, replicas=0))
            nodes, url = servers.primaries, servers.url()
        others = [stack.enter_context(another()) for _ in range(processes)]
        for work in [other.start(open_near, url) for other in others]:
            work.result()
        writer = stack.enter_context(another())
        writer.start(paced, url, 1, 0.1).result()

        def spent() -> tuple[float, float]:
            return sum(map(cpu_of, nodes)), sum(other.start(time.process_time).result() for other in others)

        began, before = time.monotonic(), spent()
        done = writer.start(paced, url, rate, seconds).result()
        took, after = time.monotonic() - began, spent()
    on_servers, in_processes = ((b - a) / took for a, b in zip(before, after, strict=True))
    return Fleet(
        primaries=primaries, processes=processes, writes=done / took, server=on_servers, client=in_processes / processes
    )


_nears: list[Any] = []


def open_near(url: str, patience: float = 30) -> None:
    """Make a near cache in this process that listens to all primaries."""
    from fleetcache import Cache

    cache = Cache(url, {"OPTIONS": {"NEAR": True}})
    _nears.append(cache)
    deadline = time.monotonic() + patience
    while cache.near.state != "live":
        if time.monotonic() > deadline:
            raise TimeoutError(f"the near cache is still {cache.near.state} after {patience} s")
        cache.get_many([f"user:{at:06}:profile" for at in range(100)])  # some of each primary
        time.sleep(0.01)


def paced(url: str, rate: int, seconds: float) -> int:
    """Set names in turn, *rate* times a second and evenly; return how many were set."""
    from fleetcache import Cache

    cache = Cache(url, {})
    keys = [_name(at).removeprefix(PREFIX) for at in range(1000)]
    done, began = 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        due = int(rate * now)
        if due > done:
            cache.set_many(dict.fromkeys([keys[number % len(keys)] for number in range(done, due)], VALUE), TIMEOUT)
        done = due
        time.sleep(0.005)
    return done


def crush(server: EmbeddedServer, amount: int, seconds: float) -> Crush:
    """Let `CROWD` connections write as fast as the server lets them."""
    socks = [dial(server.port) for _ in range(CROWD)]
    requests = [hiredis.pack_command(("SET", _name(at), VALUE, "PX", 600_000)) for at in range(CROWD)]
    with another() as other:
        before = other.start(listen, server.port, amount).result()
        done, began, cpu = 0, time.monotonic(), cpu_of(server)
        while (took := time.monotonic() - began) < seconds:
            for sock, request in zip(socks, requests, strict=True):
                sock.sendall(request)
            for sock in socks:
                sock.recv(65536)
            done += CROWD
        cpu = cpu_of(server) - cpu
        messages = other.start(listen, server.port, amount).result().messages - before.messages
    for sock in socks:
        sock.close()
    return Crush(listeners=amount, writes=done / took, messages=messages / took, server=cpu / took)


@dataclass(kw_only=True)
class Constants:
    """Everything, and where it was measured."""

    where: str
    servers: dict[str, ServerCosts]
    client: ClientCosts
    fleets: list[Fleet]
    crushes: list[Crush]

    @classmethod
    def load(cls) -> Constants:
        """Return what was measured last."""
        found = json.loads(FILE.read_text(encoding="utf-8"))
        return cls(
            where=found["where"],
            servers={name: ServerCosts(**costs) for name, costs in found["servers"].items()},
            client=ClientCosts(**found["client"]),
            fleets=[Fleet(**each) for each in found["fleets"]],
            crushes=[Crush(**each) for each in found["crushes"]],
        )


# --- the program ----------------------------------------------------------------------------------


def servers(pace: Pace) -> dict[str, Any]:
    """Measure what servers pay."""
    from benchmarks.report import circumstances  # other processes shall not have to import all that

    costs = {}
    with valkey_server() as valkey, redis_server() as plain:
        for server in (valkey, plain):
            costs[version(server)] = asdict(of_server(server, pace))
        return {"where": circumstances(valkey), "servers": costs}


def client(pace: Pace) -> dict[str, Any]:
    """Measure what a process pays."""
    with valkey_server() as server:
        return {"client": asdict(of_client(server, pace))}


def checked(pace: Pace) -> dict[str, Any]:
    """Measure what the model is checked with."""
    seconds = 2.0 if pace == QUICK else 6.0
    fleets = [fleet(*each, seconds if each[-1] else 4 * seconds) for each in FLEETS]
    with valkey_server() as server:
        crushes = [crush(server, amount, seconds / 2) for amount in CRUSHED]
    return {"fleets": [asdict(each) for each in fleets], "crushes": [asdict(each) for each in crushes]}


def main() -> None:
    """Measure everything, print it and, unless ``--quick``, keep each part as soon as it is there."""
    pace = arguments(__doc__).pace
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for measure in (servers, client, checked):
        found = _rounded(measure(pace))
        sys.stdout.write(f"{json.dumps(found, indent=2)}\n")
        kept |= found
        if pace == FULL:
            FILE.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(found: Any) -> Any:
    """Return *found* with four digits of each number."""
    if isinstance(found, dict):
        return {name: _rounded(each) for name, each in found.items()}
    if isinstance(found, list):
        return [_rounded(each) for each in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def version(server: EmbeddedServer) -> str:
    """Return the name and the version of *server*."""
    with redis.Redis.from_url(server.url()) as client:
        info = client.info("server")
    return f"{info.get('server_name', 'redis').capitalize()} {info.get('valkey_version', info['redis_version'])}"


if __name__ == "__main__":
    main()
