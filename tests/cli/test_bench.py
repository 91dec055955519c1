"""``fleetcache bench`` measures a server, and leaves nothing behind."""

from __future__ import annotations

import pytest
import redis

from fleetcache.inspection.bench import spread_of


@pytest.mark.alone
def test_as_json(say, site):
    """Each operation has its time, that of a bare socket, and their ratio; nothing is left on the server."""
    said = say(*site.run("bench", "--seconds", "0.3", "--json"))

    assert said.code == 0
    found = said.document
    assert [(each["operation"], each["value_bytes"]) for each in found["operations"]] == [
        *(("get", 100), ("set", 100), ("get", 10000), ("set", 10000), ("get_many of 10", 100)),
        *(("near get", 100), ("near get", 10000)),
    ]
    assert found["absent"] == {}
    assert found["rounds"] >= 5
    for each in found["operations"]:
        assert 0 < each["call_seconds"] < 1
        assert 0 < each["socket_seconds"] < 1
        if each["operation"].startswith("near"):
            assert each["ratio"] < 0.8, each
    with redis.Redis.from_url(site.server.tcp_url(12), decode_responses=True) as raw:
        assert [name for name in raw.keys() if "~bench" in name] == []


def test_for_people(say, site):
    """A table, and how noisy it was."""
    said = say(*site.run("bench", "--seconds", "0.1"))

    assert said.code == 0
    assert "get_many of 10, 100 B" in said.out
    assert "Noise: the bare socket varied by" in said.out


@pytest.mark.parametrize("where", ["cluster", "sentinel", "tls", "unix"])
def test_everywhere(say, request, where):
    """It measures over every transport, and under every topology."""
    url = {
        "cluster": lambda: request.getfixturevalue("valkey_cluster").url(),
        "sentinel": lambda: request.getfixturevalue("watched_servers").url(),
        "tls": lambda: request.getfixturevalue("tls").tls_url(),
        "unix": lambda: request.getfixturevalue("valkey").url(11),
    }[where]()

    said = say("bench", url, "--seconds", "0.1", "--json")

    assert said.code == 0
    assert len(said.document["operations"]) == 7


def test_without_a_near_cache(say, redis_debian):
    """Where no copies can be kept, that is said, and the rest is measured."""
    said = say("bench", f"{redis_debian.tcp_url()}?protocol=2", "--seconds", "0.1", "--json")

    found = said.document
    assert said.code == 0
    assert len(found["operations"]) == 5
    assert "no copy within" in found["absent"]["near get"]


def test_memory(say):
    """There is no server to measure."""
    said = say("bench", "memory://")

    assert said.code == 2
    assert "there is no server to ask" in said.err


def test_spread():
    """The distance between the quartiles, relative to the median."""
    assert spread_of([1.0] * 9) == 0
    assert spread_of([1.0, 2.0, 3.0]) == 1.0
    assert spread_of([1.0]) == 0
