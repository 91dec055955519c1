"""From URLs to servers.  Nothing is connected, or started, before the first command."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis

from fleetcache.errors import SettingsError
from fleetcache.exchange.breaker import Breaker
from fleetcache.exchange.connecting import OF_CLUSTERS
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.kinds import SENTINEL_PORT
from fleetcache.masking import masked_url, without_frames
from fleetcache.pool import ConnectionFactory, SentinelConnectionFactory, frozen
from fleetcache.servers.embedded import shared_server
from fleetcache.servers.memory import memory_server
from fleetcache.servers.remote import RemoteServer
from fleetcache.settings import Options
from fleetcache.topology.cluster import Cluster, Node
from fleetcache.topology.contract import Topology
from fleetcache.urls import clustered, watched

_servers: dict[Hashable, RemoteServer] = {}
_clusters: dict[Hashable, Cluster] = {}


class OnDemand(Server):
    """A server that is started by the first command for it."""

    def __init__(self, address: str, start: Callable[[], Server]) -> None:
        self.address = address
        self._start = start
        self._started: Server | None = None

    @property
    def server(self) -> Server:
        """The started server.  Of threads that start it at once all but one join it, and they share its connections."""
        if self._started is None:
            self._started = self._start()
        return self._started

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        return self.server.exchange(commands)

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return await self.server.aexchange(commands)

    def client(self) -> Any:
        return self.server.client()


def open_servers(urls: Sequence[str], options: Options) -> list[Server]:
    """Return the server of each URL."""
    makes = (options.connection_factory or ConnectionFactory)(options.given)
    return [_open(url, options, makes) for url in urls]


def in_both_roles(url: str) -> tuple[str, ...]:
    """Return the URLs of the primary and of the replicas of the service in *url*."""
    place = urlsplit(url)
    query = dict(parse_qsl(place.query, keep_blank_values=True))
    return tuple(place._replace(query=urlencode({**query, "is_master": role})).geturl() for role in (1, 0))


def service_client(url: str, options: Options) -> Any:
    """Return a raw client that asks Sentinels for the service in *url*: those in *url*, or in the options."""
    _refuse_cluster(url)
    given = options.given
    if watched(url):
        place = urlsplit(url)
        user, at, hosts = place.netloc.rpartition("@")
        service, _, database = place.path.removeprefix("/").partition("/")
        sentinels = [urlsplit(f"//{host.strip()}") for host in hosts.split(",")]
        given = {**given, "SENTINELS": [(each.hostname, each.port or SENTINEL_PORT) for each in sentinels]}
        as_written = "" if service.islower() else f"&service_name={service}"
        url = f"{place.scheme.removesuffix('+sentinel')}://{user}{at}{service}/{database}?{place.query}{as_written}"
    raw = (options.connection_factory or SentinelConnectionFactory)(given).connect(url)
    if not hasattr(raw.connection_pool, "sentinel_manager"):
        raise SettingsError(
            "A service is found by pools that ask Sentinels. Leave CONNECTION_FACTORY and CONNECTION_POOL_CLASS out, "
            "or derive them from SentinelConnectionFactory and redis.sentinel.SentinelConnectionPool"
        )
    return raw


def open_cluster(urls: Sequence[str], options: Options) -> Cluster:
    """Return the cluster that the nodes at *urls* belong to."""
    makes = (options.connection_factory or ConnectionFactory)(options.given)
    plain = [url.replace("+cluster://", "://", 1) for url in urls]
    starts = [_open(url, options, makes) for url in plain]
    for start, url in zip(starts, urls, strict=True):
        if not isinstance(start, RemoteServer) or start.sentinels or "path" in start.pool.connection_kwargs:
            raise SettingsError(f"LOCATION {masked_url(url)!r}: the nodes of a cluster have redis+cluster:// URLs")
        if start.pool.connection_kwargs.get("db"):
            raise SettingsError(f"LOCATION {masked_url(url)!r}: a cluster has only database 0. Leave the number out")

    def connect(host: str, port: int) -> RemoteServer:
        place = urlsplit(plain[0])
        user, at, _ = place.netloc.rpartition("@")
        netloc = f"{user}{at}[{host}]:{port}" if ":" in host else f"{user}{at}{host}:{port}"
        server = _open(place._replace(netloc=netloc).geturl(), options, makes)
        assert isinstance(server, RemoteServer)
        return server

    def client() -> Any:
        params = makes.make_connection_params(plain[0])
        # Its nodes' pools are told what it would leave out without a word.
        if told := {
            name: params.pop(name) for name in list(params) if name.startswith("ssl_") and name not in OF_CLUSTERS
        }:
            params["connection_pool_class"] = partial(redis.ConnectionPool, **told)
        if options.address_remap is not None:
            params["address_remap"] = options.address_remap
        try:
            return redis.RedisCluster.from_url(**params)
        except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
            raise without_frames(error)  # noqa: B904 - it is the same

    # Servers are the process's, one for each configuration: so is their cluster.
    made = Cluster(starts, connect, client, options.read_from, options.address_remap)  # type: ignore[arg-type]
    return _clusters.setdefault((*starts, made.read_from, made.remap), made)


def _open(url: str, options: Options, factory: Any) -> Server:
    place = urlsplit(url)
    if place.scheme == "memory":
        return memory_server(f"{place.netloc}{place.path}")
    _refuse_cluster(url)
    if watched(url):
        return remote(service_client(url, options), url, options)
    if place.scheme == "embedded":
        embedded_database(url)
        return OnDemand(masked_url(url), lambda: _embedded(url, options, factory))
    raw = factory.connect(url)
    if (
        options.sentinels
        and type(factory) is ConnectionFactory
        and not hasattr(raw.connection_pool, "sentinel_manager")
    ):
        raise SettingsError("SENTINELS needs CLIENT_CLASS SentinelClient or a redis+sentinel:// LOCATION")
    return remote(raw, url, options)


def _refuse_cluster(url: str) -> None:
    if clustered([url]):
        raise SettingsError(f"LOCATION {masked_url(url)!r}: a cluster is for DefaultClient, HerdClient, ClusterClient")


def embedded_database(url: str) -> int:
    """Return the number of the database in *url*, whose query may say nothing else."""
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name != "db" or not (value.isascii() and value.isdigit()):
            raise SettingsError(f"LOCATION {masked_url(url)!r}: ?db=1 is all that may be said of it there")
        return int(value)
    return 0


def _embedded(url: str, options: Options, factory: Any) -> Server:
    """Start the project's own server, or join the one that another process started."""
    place = urlsplit(url)
    database = embedded_database(url)
    data = Path(unquote(place.path)) if place.path.strip("/") else None
    directory = Path.cwd() / ".fleetcache"
    running = shared_server(directory, data)
    with suppress(FileExistsError), (directory / ".gitignore").open("x") as file:
        file.write("*\n")
    return remote(factory.connect(running.url(database)), url, options)


def remote(raw: Any, url: str, options: Options) -> RemoteServer:
    """Return the process's server behind *raw*, a redis-py client."""
    pool = raw.connection_pool
    waits = isinstance(pool, redis.BlockingConnectionPool)
    limit = options.max_connections or options.connection_pool_kwargs.get("max_connections")
    if waits or "max_connections=" in url:
        limit = pool.max_connections
    patience = pool.timeout if waits else 0.0
    raw_kind = (options.redis_client_class, frozen(options.redis_client_kwargs))
    policy = (
        limit,
        patience,
        options.breaker_failures,
        options.breaker_cooldown,
        raw_kind,
        frozen(options.address_remap),
    )
    if (pool, policy) not in _servers:
        breaker = Breaker("", options.breaker_failures, options.breaker_cooldown)
        made = RemoteServer(raw, breaker, max_connections=limit, patience=patience, remap=options.address_remap)
        _servers.setdefault((pool, policy), made)  # one step, so all threads have the same
    return _servers[pool, policy]


def close_idle(topology: Topology) -> list[RemoteServer]:
    """Close the idle connections of every server of *topology*; return those servers that have connections."""
    servers: list[Server] = []
    for server in topology.servers:
        servers += (server.remote, server.reader) if isinstance(server, Node) else (server,)
    connected = [server for server in dict.fromkeys(servers) if isinstance(server, RemoteServer)]
    for server in connected:
        server.close_idle()
    return connected


async def aclose_idle(topology: Topology) -> None:
    """Close the idle connections of every server of *topology*, and the running loop's."""
    for server in close_idle(topology):
        await server.aclose()
