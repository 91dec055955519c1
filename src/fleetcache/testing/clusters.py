"""Clusters, and primaries under Sentinels, for tests: on free ports of 127.0.0.1, ready within seconds.

Nodes that join by `CLUSTER MEET` take six seconds to agree.  Here every node starts with a finished ``nodes.conf``,
so only the two seconds remain that a primary waits before it serves.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from fleetcache.errors import ServerNotStarted
from fleetcache.testing.proxy import FaultProxy
from fleetcache.testing.servers import PORTS, EmbeddedServer, TLSServer, certify, free_ports, program

SLOTS = 16384
PATIENCE = 20.0


def wait_for(condition: Callable[[], object], what: str, why: Callable[[], object] = str) -> None:
    """Wait until *condition* holds; if it does not in time, raise an error that names *what* was awaited and *why*."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise ServerNotStarted(f"{what}: not within {PATIENCE:g} s. {why()}")
        time.sleep(0.01)


def run(server: EmbeddedServer, *command: Any) -> Any:
    """Return the reply of *server* to *command*, in bytes, without a proxy between."""
    words = server.arguments
    password = words[words.index("--requirepass") + 1] if "--requirepass" in words else None
    with redis.Redis(unix_socket_path=str(server.socket), socket_timeout=5, password=password) as client:
        return client.execute_command(*command)


def role(server: EmbeddedServer) -> tuple[bytes, bytes]:
    """Return the `ROLE` of *server*, ``master`` or ``slave``, and the state of a slave's link."""
    kind, *rest = run(server, "ROLE")
    return kind, rest[2] if kind == b"slave" else b""


class ClusterNode(EmbeddedServer):
    """A node of a `ServerCluster`.  Like any `EmbeddedServer` it can be killed, restarted and paused."""

    shift = 0
    """The difference between its port and the port by which the other nodes know it."""

    def __init__(self, name: str, port: int, book: str, proxy: FaultProxy | None, **options: Any) -> None:
        self.name = name
        self.book = book
        self.proxy = proxy
        self.announced = proxy.port if proxy else port
        """The port by which others know it."""
        super().__init__(port=port, **options)

    def end_proxy(self) -> None:
        """Close the proxy, if there is one: the node's address then leads nowhere."""
        if self.proxy:
            self.proxy.__exit__()

    def _listening(self) -> list[str]:
        found = self.directory / "nodes.conf"
        if not found.exists():
            found.write_text(self.book)
        more = ["--cluster-enabled", "yes", "--cluster-config-file", found.name]
        if self.proxy:
            more += ["--cluster-announce-port", str(self.announced)]
            more += ["--cluster-announce-bus-port", str(self.port + PORTS)]
        return [*super()._listening(), *more]


class TLSClusterNode(ClusterNode, TLSServer):
    """A node that speaks TLS with clients and other nodes: they know it by its TLS port."""

    shift = 1

    def _listening(self) -> list[str]:
        return [*super()._listening(), "--tls-cluster", "yes", "--tls-replication", "yes"]


class ServerCluster:
    """A cluster of *primaries* (a number), which share the slots evenly, each with *replicas* (a number).

    With *proxied* each node has a ``proxy``, and clients and replicas reach the node only through it.
    *options* are those of ``EmbeddedServer``, for every node; with ``certificates`` those of `TLSServer`.
    """

    def __init__(self, primaries: int = 3, replicas: int = 1, *, proxied: bool = False, **options: Any) -> None:
        self.kind: Any = TLSClusterNode if "certificates" in options else ClusterNode
        speed = ["--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]
        speed += ["--cluster-allow-replica-migration", "no"]  # a primary without slots stays a primary
        self.options = {**options, "arguments": [*speed, *options.get("arguments", ())]}
        self.proxied = proxied
        planned = [self._plan(port) for port in free_ports(primaries * (1 + replicas))]
        book = ""
        for place, (name, port, proxy) in enumerate(planned):
            at = place % primaries
            kind = f"master - 0 0 {place + 1}" if place < primaries else f"slave {planned[at][0]} 0 0 {at + 1}"
            first, end = (SLOTS * each // primaries for each in (at, at + 1))
            held = f" {first}-{end - 1}" if place < primaries else ""
            book += f"{name} {self._place(port, proxy)} {kind} connected{held}\n"
        self.nodes = [self._start(*node, book, primaries) for node in planned]
        self.settle()

    def _plan(self, port: int) -> tuple[str, int, FaultProxy | None]:
        """Return the name, the port and the proxy of a node."""
        proxy = FaultProxy(("127.0.0.1", port)).__enter__() if self.proxied else None
        return secrets.token_hex(20), port, proxy

    def _start(self, name: str, port: int, proxy: FaultProxy | None, book: str, epoch: int) -> ClusterNode:
        """Start a node that finds *book*, the lines of all nodes, in its ``nodes.conf``."""
        here = self._place(port, proxy)
        book = book.replace(f"{here} ", f"{here} myself,") + f"vars currentEpoch {epoch} lastVoteEpoch 0\n"
        node: ClusterNode = self.kind(name, port, book, proxy, **self.options)
        return node

    def _place(self, port: int, proxy: FaultProxy | None) -> str:
        """Return the address of the node at *port* in the form of ``nodes.conf``."""
        announced = proxy.port if proxy else port
        return f"127.0.0.1:{announced + self.kind.shift}@{port + self.kind.shift + PORTS}"

    def url(self) -> str:
        """Return a URL that names every node; with TLS, it also names the authority to trust."""
        hosts = ",".join(f"127.0.0.1:{node.announced + node.shift}" for node in self.nodes)
        if self.kind is ClusterNode:
            return f"redis+cluster://{hosts}"
        return f"rediss+cluster://{hosts}?ssl_ca_certs={quote(str(self.options['certificates'] / 'ca.pem'))}"

    @property
    def running(self) -> list[ClusterNode]:
        """The nodes that run."""
        return [node for node in self.nodes if node.runs]

    @property
    def primaries(self) -> list[ClusterNode]:
        """The nodes that hold slots, in the order of their slots."""
        by_port = {node.announced: node for node in self.nodes}
        return list(dict.fromkeys(by_port[port] for _, _, port in sorted(self._slots(self.running[0]))))

    def owner(self, slot: int) -> ClusterNode:
        """Return the primary that holds *slot*."""
        held = next(port for first, last, port in self._slots(self.running[0]) if first <= slot <= last)
        return next(node for node in self.nodes if node.announced == held)

    def replica(self, primary: ClusterNode) -> ClusterNode:
        """Return a replica of *primary* that runs."""
        known = [line.split() for line in run(self.running[0], "CLUSTER", "NODES").decode().splitlines()]
        names = {name for name, _, _, followed, *_ in known if followed == primary.name}
        return next(node for node in self.running if node.name in names)

    @staticmethod
    def _slots(node: ClusterNode) -> list[tuple[int, int, int]]:
        """Return the map of *node* (`CLUSTER SLOTS`): first slot, last slot, and the port of their primary."""
        return [(first, last, primary[1]) for first, last, primary, *_ in run(node, "CLUSTER", "SLOTS")]

    def settle(self) -> None:
        """Wait until all nodes that run agree, all slots are served, and all replicas follow."""

        def state(node: ClusterNode) -> tuple[bool, bytes]:
            return b"cluster_state:ok" in run(node, "CLUSTER", "INFO"), role(node)[1]

        def states() -> dict[int, tuple[bool, bytes]]:
            return {node.port: state(node) for node in self.running}

        ready = {(True, b""), (True, b"connected")}
        wait_for(lambda: ready.issuperset(states().values()), "all nodes serve or follow", states)
        self._agree()

    def _agree(self) -> None:
        wait_for(lambda: len({str(sorted(self._slots(node))) for node in self.running}) == 1, "all see the same")

    @contextmanager
    def moving(self, slot: int, to: ClusterNode) -> Iterator[ClusterNode]:
        """Keep *slot* on its way within the block, which gets the old owner; its entries move when the block ends."""
        old = self.owner(slot)
        run(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", old.name)
        run(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.name)
        yield old
        while keys := run(old, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            run(old, "MIGRATE", "127.0.0.1", to.port + to.shift, "", 0, 5000, "KEYS", *keys)
        for node in dict.fromkeys([to, old, *self.primaries]):
            run(node, "CLUSTER", "SETSLOT", slot, "NODE", to.name)

    def move_slot(self, slot: int, to: ClusterNode) -> None:
        """Move *slot* and its entries to another primary."""
        if self.owner(slot) is not to:
            with self.moving(slot, to):
                pass

    def failover(self, primary: ClusterNode) -> ClusterNode:
        """Promote a replica of *primary*, which may be dead; return the replica when it is the primary."""
        heir = self.replica(primary)
        run(heir, "CLUSTER", "FAILOVER", *(() if primary.runs else ("TAKEOVER",)))
        wait_for(lambda: role(heir)[0] == b"master", f"{heir.port} is primary")
        self._agree()
        return heir

    def add_node(self) -> ClusterNode:
        """Start a primary without slots, and return it when every node knows it."""
        name, port, proxy = self._plan(*free_ports(1))
        node = self._start(name, port, proxy, f"{name} {self._place(port, proxy)} master - 0 0 0 connected\n", 0)
        for other in self.running:  # one would be enough, but on a busy machine the message may be lost
            run(node, "CLUSTER", "MEET", "127.0.0.1", other.port + other.shift)
        self.nodes.append(node)
        wait_for(lambda: all(name.encode() in run(each, "CLUSTER", "NODES") for each in self.running), "all met")
        self.settle()
        return node

    def remove_node(self, node: ClusterNode) -> None:
        """Move the slots of *node* to another primary, remove it from the cluster (`CLUSTER FORGET`), and stop it."""
        to = next(other for other in self.primaries if other is not node)
        for first, last, port in self._slots(self.running[0]):
            for slot in range(first, last + 1) if port == node.announced else ():
                self.move_slot(slot, to)
        self.nodes.remove(node)
        for other in self.running:
            run(other, "CLUSTER", "FORGET", node.name)
        node.stop()
        node.end_proxy()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            node.end_proxy()


@contextmanager
def cluster(primaries: int = 3, replicas: int = 1, *, tls: bool = False, **options: Any) -> Iterator[ServerCluster]:
    """Run a `ServerCluster`, which is ready in about two seconds and ends with the block or the process.

    With *tls*, which needs ``redis-server``, its nodes speak TLS with each other and, like `tls_server`, with clients.
    """
    with ExitStack() as stack:
        if tls:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetcache-tls-"))
            options = {"binary": program("redis-server"), "certificates": certify(Path(directory)), **options}
        running = ServerCluster(primaries, replicas, **options)
        stack.callback(running.stop)
        yield running


@dataclass(frozen=True)
class WatchedServers:
    """A primary and its replicas, the ``servers``, which three ``sentinels`` watch as *service*.

    If there are ``proxies``, the servers are known by the ports of these.
    """

    sentinels: Sequence[EmbeddedServer]
    servers: Sequence[EmbeddedServer]
    service: str
    proxies: Sequence[FaultProxy]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses of the Sentinels."""
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    def url(self, db: int = 0) -> str:
        """Return a URL that names the service and every Sentinel."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"redis+sentinel://{hosts}/{self.service}/{db}"

    @property
    def primary(self) -> EmbeddedServer:
        """The server that the Sentinels name as the primary."""
        asked = next(sentinel for sentinel in self.sentinels if sentinel.runs)
        _, port = run(asked, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        known = [each.port for each in self.proxies or self.servers]
        return self.servers[known.index(int(port))]

    def settle(self) -> None:
        """Wait until the Sentinels know each other and every server, and all replicas follow."""

        def known(sentinel: EmbeddedServer, what: str) -> int:
            return len(run(sentinel, "SENTINEL", what, self.service))

        others = len(self.sentinels) - 1, len(self.servers) - 1
        wait_for(
            lambda: (
                all((known(one, "SENTINELS"), known(one, "REPLICAS")) == others for one in self.sentinels)
                and all(role(server)[1] in {b"", b"connected"} for server in self.servers if server.runs)
            ),
            "the Sentinels know all",
        )

    def failover(self, *how: str) -> EmbeddedServer:
        """Let the Sentinels promote another server (`SENTINEL FAILOVER`), and return it when it is the primary.

        *how* may be ``"COORDINATED"``, from Valkey 9 on: the primary then first replicates all its writes.
        """
        before = self.primary
        wait_for(lambda: run(self.sentinels[0], "SENTINEL", "FAILOVER", self.service, *how), "a fail-over begins")
        wait_for(lambda: self.primary is not before and role(self.primary)[0] == b"master", "another is primary")
        return self.primary


@contextmanager
def sentinels(
    quorum: int = 2,
    replicas: int = 2,
    service: str = "service",
    *,
    password: str = "",
    sentinel_password: str = "",
    proxied: bool = False,
    binary: Path | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[WatchedServers]:
    """Run a primary, its *replicas* (a number), and three Sentinels, *quorum* of which must agree that it is down.

    *password* is that of the servers, *sentinel_password* that of the Sentinels.  With *proxied*, clients, replicas
    and Sentinels reach each server through a proxy.  *binary* and *arguments* are for the servers.
    """
    with ExitStack() as stack:
        common = ["--repl-diskless-sync-delay", "0", *arguments]
        if password:
            common += ["--requirepass", password, "--masterauth", password]
        ports = free_ports(1 + replicas)
        proxies = [stack.enter_context(FaultProxy(("127.0.0.1", port))) for port in ports if proxied]
        known = [proxy.port for proxy in proxies] or ports
        servers: list[EmbeddedServer] = []
        for port, announced in zip(ports, known, strict=True):
            own = [*common, "--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(announced)]
            if servers:
                own += ["--replicaof", f"127.0.0.1 {known[0]}"]
            servers.append(stack.enter_context(EmbeddedServer(port=port, binary=binary, arguments=own)))
        lines = [
            f"monitor {service} 127.0.0.1 {known[0]} {quorum}",
            f"down-after-milliseconds {service} 1000",
            f"failover-timeout {service} 3000",
            *([f"auth-pass {service} {password}"] if password else ()),
            *([f"sentinel-pass {sentinel_password}"] if sentinel_password else ()),
        ]
        own = ["--requirepass", sentinel_password] if sentinel_password else []
        watching = [stack.enter_context(Sentinel(lines, binary=binary, arguments=own)) for _ in range(3)]
        found = WatchedServers(watching, servers, service, proxies)
        found.settle()
        yield found


class Sentinel(EmbeddedServer):
    """A Sentinel: the server program with a configuration file, in which it keeps its state."""

    def __init__(self, lines: Sequence[str], *, binary: Path | None = None, arguments: Sequence[str] = ()) -> None:
        self.lines = "".join(f"sentinel {line}\n" for line in lines)
        super().__init__(port=True, binary=binary, arguments=arguments)

    def _listening(self) -> list[str]:
        place, program = self.directory / "sentinel.conf", self.directory / "sentinel"
        if not place.exists():
            place.write_text(self.lines)
            program.write_text(f'#!/bin/sh\nexec "{self.binary}" "{place}" --sentinel "$@"\n')
            program.chmod(0o700)
            self.binary = program
        return super()._listening()
