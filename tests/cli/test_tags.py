"""``fleetcache tags`` shows tags, and gives them up after a dry run."""

from __future__ import annotations


def test_list_everywhere(say, anywhere):
    """All tags that are in use, and no others."""
    for n in range(20):
        anywhere.cache.set(f"k{n}", n, 300, tags=[f"user:{n}", "users"])

    found = say(*anywhere.run("tags", "list", "user*", "--show-keys", "--json")).document

    assert sorted(tag["tag"] for tag in found["tags"]) == sorted([*(f"user:{n}" for n in range(20)), "users"])
    assert all(300 < tag["seconds"] <= 600 for tag in found["tags"])
    assert (found["count"], found["complete"]) == (21, True)


def test_masked(say, site):
    """Tags may name users, so they are shown only if that is asked for."""
    site.cache.set("k", 1, 300, tags=["user:ann"])

    assert "ann" not in say(*site.run("tags", "list")).out
    assert "user:ann" in say(*site.run("tags", "list", "--show-keys")).out
    assert say(*site.run("tags", "list", "x*")).code == 1


def test_show_everywhere(say, anywhere):
    """The entries with a tag are found, also those that were given up; a long value is not read for it."""
    for n in range(20):
        anywhere.cache.set(f"k{n}", "x" * 10_000, 300, tags=["even" if n % 2 == 0 else "odd"])
    anywhere.cache.set("plain", 1, 300)

    found = say(*anywhere.run("tags", "show", "even", "--entries", "--show-keys", "--json")).document
    assert sorted(entry["key"] for entry in found["entries"]) == sorted(f"k{n}" for n in range(0, 20, 2))
    assert (found["in_use"], found["valid"]) == (True, 10)

    anywhere.cache.invalidate_tags("even")
    said = say(*anywhere.run("tags", "show", "even", "--entries"))
    assert said.code == 1
    assert said.out.startswith("even: not in use\n")
    assert said.out.endswith("10 entries, 10 of them given up\n")


def test_invalidate_everywhere(say, anywhere):
    """Without ``--yes`` nothing happens; with it all entries of the tags are given up."""
    anywhere.cache.set("a", 1, 300, tags=["t", "u"])
    anywhere.cache.set("b", 2, 300, tags=["u"])

    dry = say(*anywhere.run("tags", "invalidate", "t", "x", "--json")).document
    assert anywhere.cache.get("a") == 1
    wet = say(*anywhere.run("tags", "invalidate", "t", "x", "--yes", "--json")).document

    assert dry == {"in_use": ["t"], "not_in_use": ["x"], "invalidated": 0, "dry_run": True}
    assert wet == {"in_use": ["t"], "not_in_use": ["x"], "invalidated": 1, "dry_run": False}
    assert anywhere.cache.get_many("ab") == {"b": 2}


def test_invalidate_for_people(say, site):
    """It says which tags are in use, and how to go on."""
    site.cache.set("a", 1, 300, tags=["t"])

    said = say(*site.run("tags", "invalidate", "t", "x"))

    assert said.code == 0
    assert said.out == "t: would be invalidated\nx: not in use\nNothing was done. Give --yes to invalidate.\n"
    assert say(*site.run("tags", "invalidate", "x", "--yes")).code == 1


def test_another_version(say, site):
    """Tags belong to a version of the keys."""
    site.cache.set("a", 1, 300, version=2, tags=["t"])

    assert say(*site.run("tags", "show", "t")).code == 1
    assert say(*site.run("tags", "show", "t", "--version", "2")).code == 0
    assert say(*site.run("tags", "list", "--all-versions", "--show-keys")).out.endswith("2:t\n")


def test_wrong_use(say, site):
    """A tag that no entry can have is refused, and so is no command at all."""
    assert say(*site.run("tags", "invalidate", "")).code == 2
    assert say("tags").code == 2
    assert "--nonsense" in say("tags", "list", "--nonsense").err
