"""``keys``, ``get``, ``ttl`` and ``delete``: what is there, and what becomes of it."""

from __future__ import annotations

import argparse
import io
import json
import os
import re

import pytest
import redis
from tests.cli.conftest import SECRET, unused_port

from fleetcache import Cache
from fleetcache.cli.calls import Call
from fleetcache.cli.listing import Listing
from fleetcache.inspection.names import masked_key
from fleetcache.testing import cluster

# --- keys -----------------------------------------------------------------------------------------


def test_keys_everywhere(say, anywhere):
    """All keys of the cache, and no others, on every server and topology."""
    anywhere.cache.set_many({f"user:{n}": n for n in range(50)} | {"other": 1}, 300)

    said = say(*anywhere.run("keys", "user:*", "--show-keys"))

    assert (said.code, said.err) == (0, "")
    assert sorted(said.out.split()) == sorted(f"user:{n}" for n in range(50))


def test_keys_are_masked(say, site):
    """Unless they are asked for, only the group is shown."""
    site.cache.set("user:ann@example.com", 1, 300)

    assert say(*site.run("keys")).out == f"{masked_key('user:ann@example.com')}\n"
    assert say(*site.run("keys", "--show-keys")).out == "user:ann@example.com\n"
    assert "ann" not in say(*site.run("keys", "--long", "--json")).out


def test_keys_as_json(say, site):
    """One document, also if it is written as it is found."""
    site.cache.set_many({f"k{n}": n for n in range(5)}, 300)

    found = say(*site.run("keys", "k*", "--show-keys", "--json")).document

    assert sorted(found.pop("keys"), key=str) == [{"key": f"k{n}"} for n in range(5)]
    assert found.pop("names_on_servers") >= 5
    assert found == {"count": 5, "complete": True, "away": []}


def test_keys_in_full(say, site):
    """``--long`` has lifetimes, sizes and types."""
    site.cache.set("a", 1, 300)
    site.cache.set("b", 2, None)
    site.cache.hset("c", "field", 1)

    lines = say(*site.run("keys", "--long", "--show-keys")).out.splitlines()
    rows = {row["key"]: row for row in say(*site.run("keys", "--long", "--show-keys", "--json")).document["keys"]}

    assert re.fullmatch(r" +(5 min|4 min 59 s) +\d+ B  string  a", lines[0]), lines[0]
    assert lines[1].split()[:2] == ["for", "ever"]
    assert 290 < rows["a"]["seconds"] <= 300
    assert rows["b"]["seconds"] is None
    assert rows["c"]["type"] == "hash"
    assert rows["a"].keys() == {"key", "seconds", "bytes", "type", "server"}


def test_counting(say, site):
    """``--count`` counts, with ``--kind`` those of a type only."""
    site.cache.set_many({f"k{n}": n for n in range(5)}, 300)
    site.cache.hset("h", "field", 1)

    assert say(*site.run("keys", "--count")).out == "6\n"
    assert say(*site.run("keys", "--count", "--kind", "hash", "--json")).document["count"] == 1
    assert say(*site.run("keys", "nothing:*", "--count")).code == 1


def test_versions(say, site):
    """The cache's own version, another one, or all."""
    site.cache.set("a", 1, 300)
    site.cache.set("b", 1, 300, version=2)
    site.cache.set("c", 1, 300, tags=["t"])

    def found(*arguments):
        return say(*site.run("keys", "--show-keys", *arguments)).out.split()

    assert sorted(found()) == ["a", "c"]
    assert found("--version", "2") == ["b"]
    assert sorted(found("--all-versions")) == ["1:a", "1:c", "2:b"]
    assert sorted(found("--library")) == ["a", "c", "~tag:t"]


def test_names_that_are_no_text(say, site):
    """Any name can be listed, shown and deleted by what ``keys`` writes; nothing in it commands the terminal."""
    name = f"{site.cache.key_prefix}:1:\\\xff\x1b[31m".encode("latin-1")
    with redis.Redis.from_url(site.server.tcp_url(12)) as raw:
        raw.set(name, b"value")

        written = say(*site.run("keys", "--show-keys", "--full-names")).out.strip()
        shown = say(*site.run("get", written, "--name"))
        kept = say(*site.run("ttl", written, "100", "--name"))
        gone = say(*site.run("delete", written, "--name", "--yes"))

        assert written.isascii()
        assert written.isprintable()
        assert (shown.code, kept.code, gone.code) == (0, 0, 0)
        assert "value" in shown.out
        assert "\x1b" not in shown.out + kept.out + gone.out
        assert not raw.exists(name)


@pytest.mark.parametrize(
    "arguments, fault",
    [
        (["keys", "*" * 3 + "a*" * 11], "a pattern has at most"),
        (["keys", "x" * 501, "--json"], "a pattern has at most"),
        (["keys", "--limit", "0"], "a whole number above 0"),
        (["keys", "--all-versions", "--version", "2"], "--all-versions goes with neither"),
        (["keys", "--count", "--long"], "--count goes with neither"),
        (["keys", "--kind", "nonsense"], "invalid choice: 'nonsense'"),
        (["ttl", "a", "-5"], "a number above 0"),
        (["ttl", "a", "nan"], "a number above 0"),
        (["ttl", "a", "1e300"], "timeout"),
        (["bench", "--seconds", "1e9"], "seconds from 0.1 to 86400"),
        (["top", "--interval", "0.001"], "seconds from 0.1 to 86400"),
        (["delete"], "give keys, or --pattern"),
        (["delete", "a", "--pattern", "b"], "give keys, or --pattern PATTERN, not both"),
        (["delete", "a", "--all-versions"], "--all-versions goes with --pattern"),
        (["get", "a", "--raw", "--json"], "--raw writes bytes"),
        (["get", "a", "--raw", "--unpickle"], "not allowed with"),
        (["get"], "the following arguments are required: KEY"),
    ],
)
def test_wrong_use(say, site, arguments, fault):
    """Each has the exit code 2, and says what is wrong, in JSON if that was asked for."""
    said = say(*site.run(*arguments))

    assert said.code == 2
    if "--json" in arguments:
        assert fault in said.document["error"]
    else:
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert fault in said.err


# --- get ------------------------------------------------------------------------------------------


def test_get_everywhere(say, anywhere):
    """An entry with tags and a stale life, on every server and topology."""
    anywhere.cache.get_or_set("profile", lambda: {"name": "Ann"}, 100, stale_while_revalidate=50, tags=["users"])

    found = say(*anywhere.run("get", "profile", "--json", "--unpickle")).document

    assert found["there"] is True
    assert found["type"] == "string"
    assert 140 < found["seconds"] <= 150
    assert found["about"]["standing"] == "fresh"
    assert found["about"]["tags"] == [{"name": "users", "valid": True}]
    assert found["codec"] == ["metadata", "pickle 5"] or found["codec"][0] == "metadata"
    assert "'Ann'" in found["value"]["text"]


def test_get_for_people(say, site):
    """It names what it found, and does not unpickle."""
    site.cache.set("a", {"b": 1}, 300, tags=["t"])
    site.cache.invalidate_tags("t")

    said = say(*site.run("get", "a"))

    assert said.code == 0
    assert re.search(r"^state +given up$", said.out, re.MULTILINE)
    assert re.search(r"^tag +t \(invalidated\)$", said.out, re.MULTILINE)
    assert "It is not unpickled" in said.out


def test_get_raw(say, shell, site):
    """``--raw`` writes the very bytes that are on the server."""
    site.cache.set("a", b"\x00\xff" * 100, 300)
    with redis.Redis.from_url(site.server.tcp_url(12)) as raw:
        stored = raw.get(site.cache.name("a"))

    ran = shell(*site.run("get", "a", "--raw"), text=False)

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == stored
    site.cache.hset("h", "f", 1)
    assert say(*site.run("get", "h", "--raw")).code == 2


@pytest.mark.parametrize("command", ["get", "ttl", "delete"])
def test_what_is_not_there(say, site, command):
    """Nothing found is the exit code 1, also in JSON."""
    assert say(*site.run(command, "nothing")).code == 1
    said = say(*site.run(command, "nothing", "--json"))
    assert said.code == 1
    assert said.document.get("there", False) is False


def test_what_is_not_there_is_named_as_on_the_server(say, site):
    """Whoever looks for a key sees which name was asked for: with another prefix or version it would be another one."""
    name = site.cache.make_key("nothing", version=7)

    said = say(*site.run("get", "nothing", "--version", "7"))
    document = say(*site.run("get", "nothing", "--version", "7", "--json")).document

    assert f"there is no entry {name} on {document['server']}" in said.out + said.err
    assert document["name"] == name


def test_json_has_no_infinity(say, site):
    """A score without an end is a text, so that every reader of JSON reads the document."""
    site.cache.zadd("z", {"a": float("inf"), "b": 1.0})

    found = json.loads(say(*site.run("get", "z", "--json")).out, parse_constant=pytest.fail)

    assert {member["score"] for member in found["members"]} == {"inf", 1.0}


def test_keys_that_no_cache_can_have(say, site):
    """A key of bytes that are no text is refused by every command, in one line."""
    key = os.fsdecode(b"\xff")
    for words in (
        ["get", key],
        ["ttl", key],
        ["ttl", key, "5"],
        ["delete", key],
        ["keys", key],
        ["delete", "--pattern", key],
    ) + ((["tags", "show", key], ["tags", "list", key], ["tags", "invalidate", key, "--yes"])):
        said = say(*site.run(*words))
        assert said.code in {1, 2}, words
        assert said.err.count("\n") == (said.code == 2), words
        assert "Traceback" not in said.err


# --- ttl ------------------------------------------------------------------------------------------


def test_ttl_everywhere(say, anywhere):
    """A lifetime is shown, changed, and taken away."""
    anywhere.cache.set("a", 1, 300)

    assert 290 < say(*anywhere.run("ttl", "a", "--json")).document["seconds"] <= 300
    assert 90 < say(*anywhere.run("ttl", "a", "100", "--json")).document["seconds"] <= 100
    assert say(*anywhere.run("ttl", "a", "forever")).out == "for ever\n"
    assert say(*anywhere.run("ttl", "a", "forever")).code == 0
    assert anywhere.cache.ttl("a") is None


def test_ttl_of_a_stale_life(say, site):
    """The fresh life and the whole life are told apart; a change keeps the stale life."""
    site.cache.get_or_set("a", lambda: 1, 100, stale_while_revalidate=50)

    before = say(*site.run("ttl", "a", "--json")).document
    after = say(*site.run("ttl", "a", "200", "--json")).document

    assert 90 < before["fresh_seconds"] <= 100 < before["seconds"] <= 150
    assert 190 < after["fresh_seconds"] <= 200 < after["seconds"] <= 250
    assert say(*site.run("ttl", "a")).out.startswith("fresh for ")


# --- delete ---------------------------------------------------------------------------------------


def test_delete_everywhere(say, anywhere):
    """Without ``--yes`` nothing is deleted; with it, only what was named."""
    anywhere.cache.set_many({"a": 1, "b": 2, "c": 3}, 300)

    dry = say(*anywhere.run("delete", "a", "b", "x", "--json"))
    assert sorted(anywhere.cache.get_many("abc")) == ["a", "b", "c"]
    wet = say(*anywhere.run("delete", "a", "b", "x", "--yes", "--json"))

    assert dry.document == {"found": ["a", "b"], "missing": ["x"], "deleted": 0, "dry_run": True}
    assert wet.document == {"found": ["a", "b"], "missing": ["x"], "deleted": 2, "dry_run": False}
    assert anywhere.cache.get_many("abc") == {"c": 3}


def test_delete_by_pattern_everywhere(say, anywhere):
    """The dry run counts and shows some; the real one deletes them, and nothing else."""
    anywhere.cache.set_many({f"user:{n}": n for n in range(50)} | {"other": 1}, 300)

    dry = say(*anywhere.run("delete", "--pattern", "user:*", "--json")).document
    assert anywhere.cache.get("user:7") == 7
    wet = say(*anywhere.run("delete", "--pattern", "user:*", "--yes", "--json")).document

    assert (dry["matched"], dry["deleted"], dry["dry_run"], len(dry["samples"])) == (50, 0, True, 20)
    assert all(re.fullmatch("user:…[0-9a-f]{8}", sample) for sample in dry["samples"])
    assert (wet["matched"], wet["deleted"], wet["dry_run"]) == (50, 50, False)
    assert anywhere.cache.keys("*") == ["other"]


def test_delete_ends_loads(say, site):
    """A value that is just being loaded under a deleted key is not stored."""

    def load():
        say(*site.run("delete", "--pattern", "a*", "--yes"))
        return "old"

    site.cache.get_or_set("a", load, 300)

    assert site.cache.get("a") is None


def test_dry_run_for_people(say, site):
    """It says that nothing was deleted, and how to delete."""
    site.cache.set("user:1", 1, 300)

    said = say(*site.run("delete", "--pattern", "*", "--show-keys"))

    assert said.out == "1 would be deleted:\n  user:1\nNothing was deleted. Give --yes to delete.\n"
    assert say(*site.run("delete", "--pattern", "x*")).out == "Nothing matches.\n"


# --- outages --------------------------------------------------------------------------------------


def test_json_of_a_failure_half_way():
    """A document that has begun is ended, and says why it is not complete."""
    out = io.StringIO()
    call = Call(argparse.Namespace(json=True), out)
    Listing(call, "keys").add({"key": "a"}, "")

    assert call.complain(redis.ConnectionError("gone")) == 2
    assert json.loads(out.getvalue()) == {
        "keys": [{"key": "a"}],
        "error": "gone",
        "kind": "ConnectionError",
        "away": True,
    }


def test_a_cluster_with_a_node_away(say):
    """What the others hold is shown and deleted; the node is named, and the exit code says that something is missing."""
    with cluster(replicas=0) as servers:
        url = f"{servers.url()}?key_prefix=p&socket_timeout=1"
        cache = Cache.from_url(url)
        cache.set_many({f"k{n}": n for n in range(60)}, 300)
        cache.set_many({f"t{n}": n for n in range(20)}, 300, tags=["t"])
        gone = servers.nodes[1]
        gone.kill()

        keys = say("keys", "k*", "--url", url, "--json")
        people = say("keys", "k*", "--url", url, "--count")
        tags = say("tags", "show", "t", "--entries", "--url", url, "--json")
        deleted = say("delete", "--pattern", "k*", "--yes", "--url", url, "--json")

        assert [said.code for said in (keys, people, deleted)] == [2, 2, 2]
        away = [f"127.0.0.1:{gone.port}/0"]
        assert keys.document["away"] == deleted.document["away"] == away
        assert keys.document["complete"] is False
        assert 20 < keys.document["count"] < 60
        assert deleted.document["deleted"] == keys.document["count"]
        assert people.err == f"fleetcache: not complete: no answer from {away[0]}\n"
        assert tags.code == 2


def test_no_server(say):
    """Each command says that nobody answers, with the exit code 2, also in JSON, and shows no password."""
    port = unused_port()
    url = f"redis://:{SECRET}@127.0.0.1:{port}/0"
    for words in (
        (["keys"], ["keys", "--long"], ["get", "a"], ["get", "a", "--raw"], ["ttl", "a"], ["ttl", "a", "5"])
        + (
            (
                ["delete", "a"],
                ["delete", "a", "--yes"],
                ["delete", "--pattern", "a"],
                ["delete", "--pattern", "a", "--yes"],
            )
        )
        + (["tags", "list"], ["tags", "show", "a"], ["tags", "invalidate", "a", "--yes"], ["bench"])
    ):
        said = say(*words, "--url", url)
        found = say(*words, "--url", url, "--json") if "--raw" not in words else None

        assert (said.code, said.out) == (2, ""), words
        assert said.err.startswith(f"fleetcache: 127.0.0.1:{port}/0: "), words
        assert SECRET not in said.err
        if found is not None:
            assert (found.code, found.document["away"]) == (2, True), words
            assert SECRET not in found.out
