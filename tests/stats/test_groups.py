"""Groups of keys: their rules, and how many there are at most."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.caches import own_prefix, params

from fleetcache import Cache
from fleetcache.keys import CacheKey
from fleetcache.stats.groups import LONGEST, MOST, NAMES, SAVED, SUMS, Grouping, Groups
from fleetcache.testing import empty_memory

from .conftest import figures


def cache_of(**options: Any) -> Cache:
    """Return a cache in memory."""
    return Cache("memory://groups", params({"KEY_PREFIX": own_prefix(), **options}))


def groups_of(cache: Cache) -> set[str]:
    return set(cache.snapshot()["groups"])


def by_colon(key: Any, prefix: str, version: Any) -> str:
    """A site's KEY_FUNCTION whose names begin with the version."""
    return f"v{version}/{prefix}/{key}"


def hashed(key: Any, prefix: str, version: Any) -> str:
    """A site's KEY_FUNCTION whose names do not show the key."""
    return f"{prefix}:{hash(key)}"


def reverse(name: str) -> str:
    """Return the key in a name of `by_colon`; fails for others."""
    return name.split("/", 2)[2]


def test_the_part_before_the_first_colon_is_the_group():
    """Without globs; keys without a colon are in "other", Django's own in groups that say what they are for."""
    cache = cache_of()
    for key in ("users:1:name", "users:2", "plain", ":odd", "template.cache.side.abc", "views.decorators.cache.x.GET"):
        cache.get(key)

    assert groups_of(cache) == {"users", "other", "fragments", "pages"}
    assert figures(cache, "users") == {"missed": 2}
    assert figures(cache, "other") == {"missed": 2}


def test_the_first_glob_that_matches_decides():
    """Keys that no glob matches are in "other"."""
    cache = cache_of(STATS={"GROUPS": {"user:[0-9]*": "numbered", "user:*": "users", "*.html": "pages"}})
    for key in ("user:1", "user:anna", "user:\xe9", "a/b.html", "user.htm"):
        cache.get(key)

    assert {name: figures(cache, name) for name in groups_of(cache)} == {
        "numbered": {"missed": 1},
        "users": {"missed": 2},
        "pages": {"missed": 1},
        "other": {"missed": 1},
    }


def test_a_glob_may_match_all():
    """It makes one group."""
    cache = cache_of(STATS={"GROUPS": {"*": "all"}})
    cache.get_many(["a:1", "b:2", "c"])

    assert groups_of(cache) == {"all"}


def test_versions_and_complete_names():
    """The key is what follows the prefix and any version; a complete name of another prefix is its own key."""
    cache = cache_of()
    cache.get("a:1", version=7)
    cache.get(cache.make_key("a:2"))
    cache.get(CacheKey("elsewhere:1:b:1"))

    assert groups_of(cache) == {"a", "elsewhere"}
    assert figures(cache) == {"missed": 2}


def test_prefix_of_the_librarys_own_name():
    """A site may use the prefix "fleetcache"."""
    cache = cache_of(KEY_PREFIX="fleetcache")
    cache.get("a:1")

    assert groups_of(cache) == {"a"}
    empty_memory()


def test_key_functions():
    """The key is found in names of a KEY_FUNCTION that leaves it as it is; or by REVERSE_KEY_FUNCTION; else it is the name."""
    plain = cache_of(KEY_FUNCTION=by_colon)
    told = cache_of(KEY_FUNCTION=by_colon, REVERSE_KEY_FUNCTION=reverse)
    hidden = cache_of(KEY_FUNCTION=hashed)
    for cache in (plain, told, hidden):
        cache.get("a:1")
    told.get("a:1", version=5)
    plain.get("a:1", version=5)
    told.get(CacheKey("unlike:the:others"))  # the function fails, and the read goes on

    assert groups_of(told) == {"a", "unlike"}
    assert figures(told) == {"missed": 2}
    assert figures(plain) == {"missed": 1}
    assert groups_of(hidden) == {hidden.key_prefix}


def test_there_are_at_most_so_many_groups():
    """Groups that come later are counted as "other", so that nobody can fill the memory with group names."""
    cache = cache_of()
    for at in range(3 * MOST):
        cache.get(f"group{at}:1")
    cache.get(f"{'x' * 1000}:1")

    groups = cache.snapshot()["groups"]
    assert len(groups) == MOST
    assert groups["other"]["missed"] == 2 * MOST + 2
    assert sum(each["missed"] for each in groups.values()) == 3 * MOST + 1


def test_names_of_groups_are_cut():
    """A long part before the colon is cut."""
    cache = cache_of()
    cache.get(f"{'x' * 1000}:1")

    assert groups_of(cache) == {"x" * LONGEST}


def test_names_are_forgotten():
    """The memory for groups of names is bounded, also if names are long."""
    groups = Groups(Grouping())
    for at in range(3 * NAMES):
        assert groups[f"a:{at}"].name == "a"
        assert groups[f"b:{'x' * 10_000}{at}"].name == "b"
        assert len(groups.seen) <= NAMES

    assert sum(map(len, groups.seen)) < 100 * NAMES
    assert set(groups.named) == {"a", "b"}


@pytest.mark.parametrize("given", [{"GROUPS": {}}, {}, True])
def test_ways_to_ask_for_the_usual_groups(given: Any):
    """STATS may be a switch or a dict."""
    cache = cache_of(STATS=given)
    asyncio.run(cache.aget("a:1"))

    assert figures(cache) == {"missed": 1}


def test_each_figure_is_explained():
    """docs/observing.md says of each figure of a group what its definition says, and lists no others."""
    page = Path(__file__).resolve().parents[2] / "docs/observing.md"
    table = page.read_text().partition("| figure of a group | meaning |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)

    assert dict(rows) == {**SUMS, "saved": SAVED}
    assert len(rows) == len(SUMS) + 1
    cache = cache_of()
    cache.get("a:1")
    assert set(cache.snapshot()["groups"]["a"]) == dict(rows).keys()
