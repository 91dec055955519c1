"""What the processes under load talk to: one server, a cluster, or a primary under Sentinels; each behind proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.coherence import keys

from fleetcache.servers.embedded import find_binary
from fleetcache.testing import FaultProxy, clients, cluster, redis_server, sentinels, valkey_server
from fleetcache.testing.clusters import ClusterNode, ServerCluster, run
from fleetcache.testing.proxy import Link
from fleetcache.testing.servers import EmbeddedServer, program
from fleetcache.topology.cluster import slot_of

SERVERS = {"valkey": valkey_server, "redis": redis_server}
BINARIES: dict[str, Callable[[], Path]] = {"valkey": find_binary, "redis": lambda: program("redis-server")}

ONCE = Retry(NoBackoff(), 0)
"""What a writer sends twice draws two versions, of which it learns one."""

PATIENCE = 5.0
"""Seconds that a writer waits for a server that others may take the place of."""


def peers(link: Link) -> bool:
    """Choose the connections of replicas, and of Sentinels."""
    return link.peer


def plain(server: EmbeddedServer, timeout: float = 10) -> redis.Redis:
    """Return a client of *server* itself."""
    return redis.Redis(unix_socket_path=str(server.socket), socket_timeout=timeout, protocol=2, retry=ONCE)


class One:
    """One server."""

    def __init__(self, stack: ExitStack, kind: str, replicas: int, options: dict[str, Any]) -> None:
        self.servers: list[EmbeddedServer] = [stack.enter_context(SERVERS[kind](**options))]
        self.proxies = [stack.enter_context(FaultProxy(self.servers[0].socket))]
        self.url = self.proxies[0].url()

    @property
    def primaries(self) -> list[EmbeddedServer]:
        """The servers that hold something, between them everything."""
        return self.servers

    def proxy(self, server: EmbeddedServer) -> FaultProxy:
        """Return the proxy by which *server* is reached."""
        return self.proxies[self.servers.index(server)]

    def client(self, without: EmbeddedServer | None = None) -> Any:
        """Return a client that knows nothing of proxies, and finds its way *without* asking that server."""
        return plain(self.servers[0])

    def held(self, names: Iterable[str], node: EmbeddedServer) -> list[str]:
        """Return which of *names* *node* holds."""
        return list(names)

    def restart(self) -> None:
        """Kill what there is, and start it again, empty."""
        self.servers[0].restart()

    def settle(self) -> None:
        """Wait until all is as it should be."""
        for server in self.servers:
            server.resume()
        for proxy in self.proxies:
            proxy.heal()


class Wanderer:
    """A client of a cluster that knows nothing of slots: it begins somewhere, and goes where it is sent."""

    def __init__(self, cluster: ServerCluster, first: ClusterNode) -> None:
        self.cluster = cluster
        self.first = first.announced
        self.nodes: dict[int, redis.Redis] = {}
        self.homes: dict[int, int] = {}

    def get(self, name: str) -> Any:
        return self.ask(name, "GET", name)

    def eval(self, script: str, count: int, name: str, *arguments: object) -> Any:
        return self.ask(name, "EVAL", script, count, name, *arguments) or 0

    def set(self, name: str, value: object) -> Any:
        return self.ask(name, "SET", name, value)

    def ask(self, name: str, *command: object) -> Any:
        """Return the reply of the node that holds *name*, None if none does."""
        slot = slot_of(name)
        at, permit = self.homes.get(slot, self.first), ()
        for _ in range(100):
            with self.node(at).pipeline(transaction=False) as pipe:
                for each in (*permit, command):
                    pipe.execute_command(*each)
                *_, reply = pipe.execute(raise_on_error=False)
            permit = ()
            match reply:
                case redis.exceptions.AskError():
                    at, permit = reply.port, (("ASKING",),)
                case redis.exceptions.MovedError():
                    at = self.homes[slot] = reply.port
                case redis.exceptions.ResponseError() | redis.exceptions.ClusterDownError():
                    time.sleep(0.005)
                case Exception():
                    raise reply
                case _:
                    return reply
        return None

    def node(self, announced: int) -> redis.Redis:
        if announced not in self.nodes:
            found = next(node for node in self.cluster.nodes if node.announced == announced)
            self.nodes[announced] = plain(found, PATIENCE)
        return self.nodes[announced]


class Cluster(One):
    """Three primaries, with *replicas* replicas each."""

    def __init__(self, stack: ExitStack, kind: str, replicas: int, options: dict[str, Any]) -> None:
        arguments = ["--cluster-require-full-coverage", "no", *options.get("arguments", ())]
        more = options | {"binary": BINARIES[kind](), "arguments": arguments}
        self.cluster = stack.enter_context(cluster(3, replicas, proxied=True, **more))
        self.url = self.cluster.url()

    @property
    def servers(self) -> list[ClusterNode]:
        return self.cluster.nodes

    @property
    def proxies(self) -> list[FaultProxy]:
        return [self.proxy(node) for node in self.cluster.nodes]

    @property
    def primaries(self) -> list[ClusterNode]:
        return self.cluster.primaries

    def proxy(self, server: ClusterNode) -> FaultProxy:
        assert server.proxy is not None
        return server.proxy

    def client(self, without: ClusterNode | None = None) -> Any:
        return Wanderer(self.cluster, next(node for node in self.cluster.running if node is not without))

    def restart(self) -> None:
        for node in self.cluster.nodes:
            node.kill()
        for node in self.cluster.nodes:
            node.restart()
        self.cluster.settle()

    def settle(self) -> None:
        super().settle()
        self.cluster.settle()

    def home(self, key: str) -> ClusterNode:
        """Return the node that holds *key*."""
        return self.cluster.owner(slot_of(keys.name(key)))

    def slots(self, node: EmbeddedServer, by: ClusterNode | None = None) -> frozenset[int]:
        """Return the slots that *node* holds, as *by* knows."""
        known = self.cluster._slots(by or self.cluster.running[0])
        held = [range(first, last + 1) for first, last, port in known if port == node.announced]
        return frozenset(slot for each in held for slot in each)

    def held(self, names: Iterable[str], node: EmbeddedServer) -> list[str]:
        """Return which of *names* *node* holds."""
        slots = self.slots(node)
        return [name for name in names if slot_of(keys.name(name)) in slots]

    def take_over(self, key: str, to: ClusterNode) -> None:
        """Let *to* have the slot of *key*, and what is in it, without a word of the node that had it.

        That gives the slot up before it can notice that what is in it is another's now; so it deletes nothing.
        """
        slot = slot_of(keys.name(key))
        old, names = self.home(key), (keys.name(key), keys.floor(key))
        run(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", old.name)
        with plain(old) as raw, raw.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.dump(name)
                pipe.pttl(name)
            pipe.execute_command("CLUSTER DELSLOTS", slot)
            *found, _ = pipe.execute()
        with plain(to) as raw, raw.pipeline(transaction=False) as pipe:
            for name, payload, left in zip(names, found[::2], found[1::2], strict=True):
                pipe.execute_command("ASKING")
                pipe.delete(name)  # it may have had the slot before
                if payload is not None:
                    pipe.execute_command("RESTORE-ASKING", name, max(left, 0), payload)
            pipe.execute()
        for node in dict.fromkeys([to, *self.primaries, old]):
            run(node, "CLUSTER", "SETSLOT", slot, "NODE", to.name)


class Sentinel(One):
    """A primary and two replicas, under three Sentinels."""

    def __init__(self, stack: ExitStack, kind: str, replicas: int, options: dict[str, Any]) -> None:
        self.watched = stack.enter_context(sentinels(proxied=True, binary=BINARIES[kind](), **options))
        self.servers = list(self.watched.servers)
        self.proxies = list(self.watched.proxies)
        self.url = self.watched.url()

    @property
    def primaries(self) -> list[EmbeddedServer]:
        return [self.watched.primary]

    @property
    def named(self) -> list[EmbeddedServer]:
        """Whom each Sentinel holds for the primary."""
        ask = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.watched.service
        ports = [proxy.port for proxy in self.proxies]
        return [self.servers[ports.index(int(run(each, *ask)[1]))] for each in self.watched.sentinels]

    def client(self, without: EmbeddedServer | None = None) -> Any:
        return plain(self.watched.primary, PATIENCE)

    def restart(self) -> None:
        self.watched.primary.restart()

    def settle(self) -> None:
        super().settle()
        self.watched.settle()


TOPOLOGIES: dict[str, type[One]] = {"one": One, "cluster": Cluster, "sentinel": Sentinel}


class Proxies:
    """Several proxies that fail alike, for clients."""

    def __init__(self, proxies: Iterable[FaultProxy]) -> None:
        self.proxies = list(proxies)

    def __getattr__(self, name: str) -> Callable[..., None]:
        def everywhere(*args: Any, **more: Any) -> None:
            if (name == "delay" or not args) and name not in {"heal", "repoint", "rewrite"}:
                more.setdefault("only", clients)
            for proxy in self.proxies:
                getattr(proxy, name)(*args, **more)

        return everywhere
