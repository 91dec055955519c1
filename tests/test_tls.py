"""TLS is the same in both faces, and for raw clients, with every redis-py that is allowed; or it is refused."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests.faces import Face, settled

from fleetcache import Cache, SettingsError
from fleetcache.errors import ServerGone
from fleetcache.signatures import parameters
from fleetcache.testing import TLSServer, cluster
from fleetcache.testing.servers import certify

WRONG_NAME = "127.1"  # the same place, which the certificate does not name


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that has signed nothing."""
    return certify(tmp_path_factory.mktemp("other")) / "ca.pem"


@pytest.fixture
def secured(tls: TLSServer, face: str) -> Callable[..., Face]:
    """Make caches over TLS that show this face."""

    def secured(host: str = "127.0.0.1", **options: object) -> Face:
        options = {"SOCKET_TIMEOUT": 2, "BREAKER_FAILURES": 1000, **options}
        return Face(Cache(f"rediss://{host}:{tls.tls_port}/0", {"KEY_PREFIX": "tls", "OPTIONS": options}), face)

    return secured


class Pinned(redis.SSLConnection):
    """A connection that looks at more than the certificate, and refuses."""

    def _wrap_socket_with_ssl(self, sock):
        raise redis.ConnectionError("the pin does not match")


def ways(name: str, value: object) -> Iterator[dict[str, object]]:
    """Yield the places where an argument of redis-py's connections may stand."""
    yield {name: value}
    yield {"CONNECTION_POOL_KWARGS": {name: value}}


async def test_a_certificate_of_whom_it_trusts(secured, tls):
    """The right name by a trusted authority connects."""
    assert await secured(ssl_ca_certs=str(tls.ca)).set("a", 1) is True
    assert await secured("localhost", ssl_ca_certs=str(tls.ca)).set("a", 1) is True


async def test_a_certificate_of_somebody_else(secured, other_ca):
    """Without the authority, or with another one, nothing connects, unless that is said."""
    for options in ({}, {"ssl_ca_certs": str(other_ca)}):
        for strictness in (
            {},
            *({"ssl_cert_reqs": word} for word in ("required", ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL, True)),
        ):
            assert isinstance(await settled(secured(**options, **strictness).set("a", 1)), ServerGone)


@pytest.mark.parametrize("value", [None, "none", ssl.CERT_NONE, False], ids=repr)
async def test_a_certificate_that_is_not_looked_at(secured, value):
    """`ssl_cert_reqs=None`, which a hosting service tells its customers to write, reaches redis-py; so does its like."""
    for options in ways("ssl_cert_reqs", value):
        cache = secured(WRONG_NAME, **options)
        assert await cache.set("a", 1) is True
        assert cache.whole.get_client().ping()


@pytest.mark.parametrize("value", ["REQUIRED", "bogus", "", 3, [], "None"], ids=repr)
def test_a_strictness_that_there_is_not(value):
    """The error lists the words."""
    for options in ways("ssl_cert_reqs", value):
        with pytest.raises(SettingsError, match="one of 'none', 'optional', 'required' is expected|unhashable"):
            Cache("rediss://host", {"OPTIONS": options})


@pytest.mark.parametrize(
    "options",
    [{"ssl_min_version": 12345}, {"ssl_ciphers": 5}, {"ssl_include_verify_flags": ["all"]}, {"ssl_ca_data": 5}],
)
async def test_options_of_a_wrong_kind(secured, options):
    """The connection for which they were meant is closed at once: pytest reports a socket that a finalizer closes."""
    assert isinstance(await settled(secured(**options).set("a", 1)), SettingsError)


async def test_the_name_of_the_host(secured, tls):
    """It is checked where nothing is said, by raw clients as well, and not where that is said."""
    strict = secured(WRONG_NAME, ssl_ca_certs=str(tls.ca))
    loose = secured(WRONG_NAME, ssl_ca_certs=str(tls.ca), ssl_check_hostname=False)

    assert isinstance(await settled(strict.set("a", 1)), ServerGone)
    with pytest.raises(redis.ConnectionError):
        strict.whole.get_client().ping()
    assert await loose.set("a", 1) is True
    assert loose.whole.get_client().ping()


async def test_the_name_of_the_host_in_a_url(tls, face):
    """So it is with parameters of the URL."""
    url = f"rediss://{WRONG_NAME}:{tls.tls_port}/0?ssl_ca_certs={tls.ca}"

    assert isinstance(await settled(Face(Cache(url), face).set("a", 1)), ServerGone)
    assert await Face(Cache(f"{url}&ssl_check_hostname=no"), face).set("a", 1) is True
    assert await Face(Cache(f"{url}&ssl_cert_reqs=none"), face).set("a", 1) is True


def test_a_name_that_nothing_vouches_for():
    """A check of the name without one of the certificate would check nothing."""
    for options in ways("ssl_check_hostname", True):
        with pytest.raises(SettingsError, match="ssl_check_hostname needs a certificate"):
            Cache("rediss://host", {"OPTIONS": {"ssl_cert_reqs": "none", **options}})


@pytest.mark.few(1)
async def test_the_name_of_the_nodes_of_a_cluster(face):
    """The cache and its raw client check each node's name; what a raw client would leave out reaches it all the same."""
    with cluster(replicas=0, tls=True) as servers:
        scheme, _, rest = servers.url().partition("://")
        url = f"{scheme}://{rest.replace('127.0.0.1', WRONG_NAME)}"
        minimum = {"ssl_min_version": ssl.TLSVersion.TLSv1_2}

        right = Face(Cache(servers.url(), {"OPTIONS": minimum}), face)
        wrong = Face(Cache(url, {"OPTIONS": {"SOCKET_TIMEOUT": 1}}), face)

        assert await right.set("a", 1) is True
        with right.whole.get_client() as raw:
            assert raw.ping()
            (kept,) = {
                node.redis_connection.connection_pool.connection_kwargs["ssl_min_version"]
                for node in raw.get_nodes()
                if node.redis_connection
            }
            assert kept == ssl.TLSVersion.TLSv1_2
        assert isinstance(await settled(wrong.set("a", 1)), ServerGone)
        with pytest.raises(redis.exceptions.RedisClusterException):
            wrong.whole.get_client()


def test_the_name_of_the_servers_of_a_service():
    """Under Sentinels it is checked of the servers, and of the Sentinels that speak TLS."""
    options = {"SENTINEL_KWARGS": {"ssl": True}}
    cache = Cache("rediss+sentinel://127.0.0.1:1/service/0", {"OPTIONS": options})
    pool = cache.topology.servers[0].pool

    assert pool.connection_kwargs["ssl_check_hostname"] is True
    (sentinel,) = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_kwargs["ssl_check_hostname"] is True


NOT_OF_ASYNCIO = sorted(
    name
    for name in parameters(redis.SSLConnection) - parameters(redis.asyncio.SSLConnection)
    if name in {"ssl_ca_path", "ssl_password"} or "ocsp" in name
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # redis-py forgets a socket
@pytest.mark.parametrize("name", NOT_OF_ASYNCIO)
async def test_what_redis_asyncio_does_not_know(secured, tls, face, name):
    """Awaiting callers have it all the same: their connections are made as those of blocking ones."""
    for options in ways(name, True if "validate" in name else "/nowhere"):
        error = await settled(secured(ssl_ca_certs=str(tls.ca), **options).set("a", 1))

        assert error is not True or name in {
            "ssl_ca_path",
            "ssl_password",
            "ssl_ocsp_context",
            "ssl_ocsp_expected_cert",
        }
    if "validate" in name:
        assert await secured(ssl_ca_certs=str(tls.ca), **{name: False}).set("a", 1) is True  # as if left out


async def test_a_connection_class_of_ones_own(secured, tls, face):
    """It is asked by both faces."""
    options = {"ssl_ca_certs": str(tls.ca), "CONNECTION_POOL_KWARGS": {"connection_class": Pinned}}

    error = await settled(secured(**options).set("a", 1))

    assert isinstance(error, ServerGone)
    assert "the pin does not match" in str(error)
