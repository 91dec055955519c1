"""The doctor finds rights that a user lacks, and what others on the way can read; asking for rights changes nothing."""

from __future__ import annotations

import pytest
import redis
from tests.inspection.doctors import cache_at, findings

from fleetcache import Cache
from fleetcache.inspection.doctor import examine
from fleetcache.inspection.doctor.access import is_loopback, is_private

ALL = "~shop:* ~fleetcache:* -@all +@read +@write -@admin -@dangerous +multi +exec +eval +evalsha +time +info +client|tracking +ping"
"""As docs/managed.md says."""


@pytest.fixture(params=["valkey", "redis_debian"])
def server(request):
    """A Valkey, then a Redis: their refusals have different words."""
    return request.getfixturevalue(request.param)


def rights(server, rules: str, **options) -> dict[str, str]:
    """Return the severity and the advice of each finding about the rights of a user with these *rules*."""
    admin = redis.Redis.from_url(server.tcp_url())
    admin.execute_command("ACL", "SETUSER", "shopper", "reset", "on", ">pw", *rules.split())
    cache = Cache(server.tcp_url().replace("://", "://shopper:pw@"), {"KEY_PREFIX": "shop", "OPTIONS": options})
    before = {*admin.scan_iter(count=1000)}
    found = {
        each.advice: each.severity
        for each in examine(cache, probes=False)
        if each.id in {"right-missing", "names-refused"}
    }
    assert {*admin.scan_iter(count=1000)} <= before  # entries of other tests may expire
    return found


def test_rights_of_the_page(server):
    """The rules in docs/managed.md are enough."""
    assert rights(server, ALL, NEAR=True) == {}


def test_no_scripts(server):
    """Without scripts most works: a warning that names the rule."""
    (advice,) = found = rights(server, ALL.replace("+eval +evalsha", ""))

    assert "ACL SETUSER shopper +eval +evalsha" in advice
    assert found[advice] == "warning"


def test_no_time(server):
    """The same for the clock."""
    assert any("+time" in advice for advice in rights(server, ALL.replace("+time", "")))


def test_names_of_the_library(server):
    """Without `~fleetcache:*` loads are protected less: a warning."""
    (advice,) = found = rights(server, ALL.replace("~fleetcache:*", ""))

    assert "ACL SETUSER shopper ~fleetcache:*" in advice
    assert found[advice] == "warning"


def test_names_of_the_cache(server):
    """Without the names of the cache nothing works: an error."""
    found = rights(server, ALL.replace("~shop:*", "~other:*"))

    assert found["Allow them: ACL SETUSER shopper ~shop:*"] == "error"


def test_no_writing(server):
    """Without writes, an error names the category."""
    found = rights(server, ALL.replace("+@write", ""))

    assert any("+@read +@write" in advice and severity == "error" for advice, severity in found.items())


def test_near_cache_needs_more(server):
    """CLIENT TRACKING is needed only with NEAR."""
    rules = ALL.replace("+client|tracking", "")

    assert rights(server, rules) == {}
    assert any("+client|tracking" in advice for advice in rights(server, rules, NEAR=True))


def test_transactions(server):
    """A user without MULTI is told so."""
    assert any("+multi" in advice for advice in rights(server, ALL.replace("+multi", "")))


def test_user_who_may_not_ask(server):
    """INFO that is refused is told; everything else goes on."""
    admin = redis.Redis.from_url(server.tcp_url())
    admin.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">pw", *ALL.replace("+info", "").split())
    cache = Cache(server.tcp_url().replace("://", "://blind:pw@"), {"KEY_PREFIX": "shop"})

    found = findings(cache, probes=True)

    assert "+info" in found["not-checked"].advice
    assert "server-away" not in found


def test_rights_of_a_cluster(valkey_cluster):
    """The commands about the slots are asked for, too; with all rights nothing is missing."""
    assert not {"right-missing", "names-refused"} & findings(cache_at(valkey_cluster.url(), NEAR=True)).keys()


# --- on the way -----------------------------------------------------------------------------------


def on_the_way(url: str, **options) -> dict[str, str]:
    cache = cache_at(url, SOCKET_TIMEOUT=0.2, SOCKET_CONNECT_TIMEOUT=0.2, **options)
    wanted = {"password-in-clear", "pickle-in-clear", "certificate-unchecked"}
    return {id: each.severity for id, each in findings(cache).items() if id in wanted}


def test_password_without_tls():
    """A password to another machine needs TLS; to this machine it does not."""
    assert on_the_way("redis://:pw@192.0.2.1:1/0", SERIALIZER="json") == {"password-in-clear": "warning"}
    assert on_the_way("redis://192.0.2.1:1/0", PASSWORD="pw", SERIALIZER="json") == {"password-in-clear": "warning"}
    assert on_the_way("redis://192.0.2.1:1/0", SERIALIZER="json") == {}
    assert on_the_way("redis://:pw@127.0.0.1:1/0") == {}
    assert on_the_way("redis://:pw@localhost:1/0") == {}


def test_pickles_without_tls():
    """Pickles from another machine without TLS are a warning; in a private network a note."""
    assert on_the_way("redis://8.8.8.8:1/0") == {"pickle-in-clear": "warning"}
    assert on_the_way("redis://10.0.0.1:1/0") == {"pickle-in-clear": "info"}


def test_tls(tls):
    """With TLS neither is a finding, unless no certificate is checked."""
    assert on_the_way("rediss://:pw@192.0.2.1:1/0") == {}
    assert on_the_way(tls.tls_url(), ssl_cert_reqs="none") == {"certificate-unchecked": "warning"}
    assert on_the_way(tls.tls_url()) == {}


def test_hosts():
    """Which hosts are this machine, and which look private."""
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost", "a.localhost"]))
    assert not any(map(is_loopback, ["10.0.0.1", "cache.example.com", "redis", "localhost.example.com"]))
    assert all(map(is_private, ["10.0.0.1", "192.168.1.1", "redis"]))
    assert not any(map(is_private, ["8.8.8.8", "cache.example.com"]))
