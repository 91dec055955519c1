"""The configurations that cases are run in: entries of ``CACHES``, the same for both backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from tests.elsewhere import ON
from tests.nearby import EVERYWHERE

from fleetcache.testing.servers import EmbeddedServer

from .sides import Setup

CLIENTS = ("default", "herd") if ON else ("default", "herd", "shard", "sentinel")
"""The four clients of django-redis; shards that have other URLs hold other keys."""

VARIANTS = ("named",) if EVERYWHERE or ON else ("named", "replicas")
"""The default client with a prefix, version and timeout of its own; and with replicas, which a near cache does not ask."""

SERIALIZERS = {
    "pickle": {},
    "pickle-0": {"PICKLE_VERSION": 0},
    "pickle-2": {"PICKLE_VERSION": 2},
    "pickle-5": {"PICKLE_VERSION": 5},
    "pickle-highest": {"PICKLE_VERSION": "-1"},
    "json": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
    "msgpack": {"SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"},
}
COMPRESSORS = {
    "identity": {"COMPRESSOR": "django_redis.compressors.identity.IdentityCompressor"},
    "zlib": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
    "gzip": {"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
    "lzma": {"COMPRESSOR": "django_redis.compressors.lzma.LzmaCompressor"},
    "lz4": {"COMPRESSOR": "django_redis.compressors.lz4.Lz4Compressor"},
    "zstd": {"COMPRESSOR": "django_redis.compressors.zstd.ZStdCompressor"},
}


@dataclass
class Servers:
    """What runs during the tests."""

    single: EmbeddedServer
    primary: EmbeddedServer
    replica: EmbeddedServer
    sentinel: EmbeddedServer
    nodes: Sequence[EmbeddedServer] = ()
    """The primaries of the cluster that fleetcache uses instead of ``single``, if it does."""


class Setups:
    """Makes setups by their names."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._made: dict[str, Setup] = {}
        self._raw: list[redis.Redis] = []

    def __getitem__(self, name: str) -> Setup:
        if name not in self._made:
            serializer, slash, compressor = name.partition("/")
            if slash:
                made = self.single(name, SERIALIZERS[serializer] | COMPRESSORS[compressor])
            else:
                made = getattr(self, f"_{name}")()
            self._made[name] = made
        return self._made[name]

    def single(self, name: str, options: dict[str, Any], **params: Any) -> Setup:
        """Return a setup of one server."""
        nodes = [self.raw(0, node) for node in self.servers.nodes]
        return Setup(name, self.servers.single.tcp_url(1), {"OPTIONS": options, **params}, [self.raw(1)], nodes=nodes)

    def raw(self, db: int, server: EmbeddedServer | None = None) -> redis.Redis:
        """Return a client of our own."""
        self._raw.append(redis.Redis(port=(server or self.servers.single).port, db=db))
        return self._raw[-1]

    def close(self) -> None:
        for raw in self._raw:
            raw.close()

    def _default(self) -> Setup:
        return self.single("default", {})

    def _herd(self) -> Setup:
        return self.single("herd", {"CLIENT_CLASS": "django_redis.client.HerdClient"})

    def _named(self) -> Setup:
        prefix = "{s[i]te*}" if ON == "cluster" else "s[i]te*"  # in braces all keys are in one slot
        names = {"KEY_PREFIX": prefix, "VERSION": 3, "TIMEOUT": 1000}
        return self.single("named", {"CLEAR": "database"}, **names)

    def _shard(self) -> Setup:
        location = [self.servers.single.tcp_url(db) for db in (2, 3, 4)]
        params = {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"}}
        return Setup("shard", location, params, [self.raw(db) for db in (2, 3, 4)])

    def _replicas(self) -> Setup:
        """The second server is no replica at all: so it shows which server each method asks."""
        location = f"{self.servers.single.tcp_url(5)},{self.servers.single.tcp_url(6)}"
        return Setup("replicas", location, {"OPTIONS": {}}, [self.raw(5), self.raw(6)])

    def _herd_replicas(self) -> Setup:
        location = [self.servers.single.tcp_url(5), self.servers.single.tcp_url(6)]
        params = {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.HerdClient"}}
        return Setup("herd_replicas", location, params, [self.raw(5), self.raw(6)])

    def _sentinel(self) -> Setup:
        options = {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", self.servers.sentinel.port)],
        }
        primary = self.raw(1, self.servers.primary)
        return Setup("sentinel", "redis://service/1", {"OPTIONS": options}, [primary], self._replicated(primary))

    def _replicated(self, primary: redis.Redis) -> Callable[[], None]:
        def settle() -> None:
            # WAIT is for the writes of its own connection, so it makes one, where no case looks.
            with primary.pipeline(transaction=False) as pipeline:
                pipeline.execute_command("SELECT", 9)
                pipeline.incr("settled")
                pipeline.execute_command("SELECT", 1)
                pipeline.execute_command("WAIT", 1, 5000)
                assert pipeline.execute()[-1] == 1, "the replica is not there"

        return settle
