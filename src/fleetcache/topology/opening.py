"""From a LOCATION to servers.  Nothing connects, and no server is started, before the first command."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import redis

from fleetcache.errors import SettingsError
from fleetcache.exchange.breaker import Breaker
from fleetcache.exchange.connecting import OF_CLUSTERS
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.masking import hide, without_frames
from fleetcache.pool import ConnectionFactory, SentinelConnectionFactory
from fleetcache.servers.embedded import SharedServer
from fleetcache.servers.memory import memory_server
from fleetcache.servers.observed import observed
from fleetcache.servers.remote import RemoteServer
from fleetcache.settings import Options
from fleetcache.sharing import frozen
from fleetcache.stats.exchanges import is_heard
from fleetcache.topology.cluster import Cluster
from fleetcache.topology.contract import Topology
from fleetcache.topology.standalone import Standalone
from fleetcache.urls import Kind, Location

_servers: dict[Hashable, RemoteServer] = {}
_clusters: dict[Hashable, Cluster] = {}


class OnDemand(Server):
    """A server that its first command starts."""

    def __init__(self, address: str, start: Callable[[], Server]) -> None:
        self.address = address
        self._start = start
        self._started: Server | None = None

    @property
    def server(self) -> Server:
        """The server, started.  If several threads start it at once, all get the same one, and share its connections."""
        if self._started is None:
            self._started = self._start()
        return self._started

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        return self.server.exchange(commands)

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return await self.server.aexchange(commands)

    @property
    def remote(self) -> Any:
        return self.server.remote

    def client(self) -> Any:
        return self.server.client()

    def close_idle(self) -> None:
        if self._started is not None:
            self._started.close_idle()

    async def aclose_idle(self) -> None:
        if self._started is not None:
            await self._started.aclose_idle()


def open_topology(locations: Sequence[Location], options: Options) -> Topology:
    """Return the topology at *locations*: a cluster, or a primary with its replicas, as the schemes of the URLs say."""
    if locations[0].kind == "cluster":
        return open_cluster(locations, options)
    if len(locations) == 1 and locations[0].kind == "service" and options.read_from not in {None, "primary"}:
        locations = locations[0].in_both_roles
    return standalone(open_servers(locations, options), options)


def standalone(servers: Sequence[Server], options: Options) -> Standalone:
    """Return a primary and its replicas as one topology."""
    return Standalone(servers, writes_elsewhere=not options.replica_read_only, read_from=options.read_from)


def open_servers(locations: Sequence[Location], options: Options) -> list[Server]:
    """Return the server at each location."""
    factory = options.make("CONNECTION_FACTORY", options.connection_factory or ConnectionFactory)
    return [observed(_open(location, options, factory)) for location in locations]


def service_client(location: Location, options: Options) -> Any:
    """Return a raw client that asks Sentinels for the service at *location*: those named there, or in the options."""
    if location.kind == "service":
        given = {**options.given, "SENTINELS": location.sentinels}
        options, location = replace(options, sentinels=location.sentinels, given=given), location.of_service
    elif location.kind == "cluster":
        _refuse_cluster(location)
    raw = options.make("CONNECTION_FACTORY", options.connection_factory or SentinelConnectionFactory).connect(
        location.url
    )
    if not hasattr(raw.connection_pool, "sentinel_manager"):
        raise SettingsError(
            "A service is found by pools that ask Sentinels. Leave CONNECTION_FACTORY and CONNECTION_POOL_CLASS out, "
            "or derive them from SentinelConnectionFactory and redis.sentinel.SentinelConnectionPool"
        )
    return raw


def open_cluster(locations: Sequence[Location], options: Options) -> Cluster:
    """Return the cluster that the nodes at *locations* belong to."""
    factory = options.make("CONNECTION_FACTORY", options.connection_factory or ConnectionFactory)
    nodes = [location.plain if location.kind == "cluster" else location for location in locations]
    starts = [_open(node, options, factory) for node in nodes]
    for start, location in zip(starts, locations, strict=True):
        if not isinstance(start, RemoteServer) or start.sentinels or "path" in start.pool.connection_kwargs:
            raise SettingsError(f"LOCATION {location.masked!r}: the nodes of a cluster have redis+cluster:// URLs")
        if start.pool.connection_kwargs.get("db"):
            raise SettingsError(f"LOCATION {location.masked!r}: a cluster has only database 0. Leave the number out")

    def connect(host: str, port: int) -> RemoteServer:
        server = _open(nodes[0].at(host, port), options, factory)
        assert isinstance(server, RemoteServer)
        return server

    def params_of_client() -> dict[str, Any]:
        params: dict[str, Any] = factory.make_connection_params(nodes[0].url)
        # RedisCluster would silently leave these out, so they are passed to the pools of its nodes.
        if told := {
            name: params.pop(name) for name in list(params) if name.startswith("ssl_") and name not in OF_CLUSTERS
        }:
            params["connection_pool_class"] = partial(redis.ConnectionPool, **told)
        if options.address_remap is not None:
            params["address_remap"] = options.address_remap
        return params

    def client() -> Any:
        try:
            raw: Any = redis.RedisCluster.from_url(**params_of_client())  # a local variable would show the password
        except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
            raise without_frames(error)  # noqa: B904 - the same error
        hide(raw.nodes_manager.connection_kwargs)
        for node in raw.get_nodes():
            hide(node.redis_connection.connection_pool.connection_kwargs)
        return raw

    # A process has one server for each configuration, and so one cluster.
    made = Cluster(starts, connect, client, options.read_from, options.address_remap)  # type: ignore[arg-type]  # remote ones
    return _clusters.setdefault((*starts, made.read_from, made.remap, is_heard()), made)


# --- one server, by the kind of its location ------------------------------------------------------


def _open(location: Location, options: Options, factory: Any) -> Server:
    return OPENERS[location.kind](location, options, factory)


def _open_server(location: Location, options: Options, factory: Any) -> Server:
    raw = factory.connect(location.url)
    asks = hasattr(raw.connection_pool, "sentinel_manager")
    if options.sentinels and type(factory) is ConnectionFactory and not asks:
        raise SettingsError("SENTINELS needs CLIENT_CLASS SentinelClient or a redis+sentinel:// LOCATION")
    return remote(raw, location, options)


def open_service(location: Location, options: Options, factory: Any = None) -> Server:
    """Return the primary, or the replicas, of the service at *location*, as one server that Sentinels find."""
    return remote(service_client(location, options), location, options)


def _refuse_cluster(location: Location, *_: Any) -> NoReturn:
    raise SettingsError(f"LOCATION {location.masked!r}: a cluster is for DefaultClient, HerdClient, ClusterClient")


def _open_memory(location: Location, *_: Any) -> Server:
    return memory_server(f"{location.login}{location.hosts[0]}{location.path}")


def _open_embedded(location: Location, options: Options, factory: Any) -> Server:
    embedded_database(location)
    return OnDemand(location.masked, lambda: _embedded(location, options, factory))


OPENERS: Mapping[Kind, Callable[[Location, Options, Any], Server]] = {
    "server": _open_server,
    "service": open_service,
    "cluster": _refuse_cluster,
    "memory": _open_memory,
    "embedded": _open_embedded,
}
"""The function that opens one server of each kind of `Location`; `open_topology` opens a whole cluster."""


def embedded_database(location: Location) -> int:
    """Return the number of the database in *location*; its query may hold nothing else."""
    for name, value in location.parameters.items():
        if name != "db" or not (value.isascii() and value.isdigit()):
            raise SettingsError(f"LOCATION {location.masked!r}: the query may only choose a database: ?db=1")
        return int(value)
    return 0


def _embedded(location: Location, options: Options, factory: Any) -> Server:
    """Start the project's own server, or use the one that another process started."""
    database = embedded_database(location)
    data = Path(unquote(location.path)) if location.path.strip("/") else None
    directory = Path.cwd() / ".fleetcache"
    running = SharedServer(directory, data)
    with suppress(FileExistsError), (directory / ".gitignore").open("x") as file:
        file.write("*\n")
    return remote(factory.connect(running.url(database)), location, options)


def remote(raw: Any, location: Location, options: Options) -> RemoteServer:
    """Return the process's server for the pool of *raw*, a redis-py client."""
    pool = raw.connection_pool
    waits = isinstance(pool, redis.BlockingConnectionPool)
    limit = options.max_connections or options.connection_pool_kwargs.get("max_connections")
    if waits or "max_connections" in location.parameters:
        limit = pool.max_connections
    patience = pool.timeout if waits else 0.0
    raw_kind = (options.redis_client_class, frozen(options.redis_client_kwargs))
    health = options.breaker_failures, options.breaker_cooldown
    policy = (limit, patience, *health, raw_kind, frozen(options.address_remap))
    if (pool, policy) not in _servers:
        breaker = Breaker("", *health)
        made = RemoteServer(raw, breaker, max_connections=limit, patience=patience, remap=options.address_remap)
        _servers.setdefault((pool, policy), made)  # one step, so all threads get the same server
    return _servers[pool, policy]
