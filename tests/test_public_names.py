"""What a user sees after ``cache.`` and TAB: operations and documented attributes, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache as memoized
from pathlib import Path

import pytest

import fleetcache
from fleetcache import Cache
from fleetcache.client import HerdClient, SentinelClient, ShardClient
from fleetcache.locks.lock import Lock
from fleetcache.pipeline import OPERATIONS, Pipeline

pytestmark = pytest.mark.newest

HOME = Path(__file__).resolve().parent.parent
PAGES = [HOME / "README.md", HOME / "CHANGELOG.md", *(HOME / "docs").rglob("*.md")]

ATTRIBUTES = {
    *("settings", "topology", "codec", "near", "stats", "tally", "logger", "client", "strict"),
    *("key_prefix", "version", "key_func", "default_timeout"),
}
"""Attributes of a cache that pages name; the first are for looking, the last may be set."""

METHODS = {
    *("from_url", "info", "snapshot", "pipeline", "get_client"),
    *("make_key", "make_pattern", "reverse_key", "encode", "decode", "validate_key"),
}
"""Methods that ask no server, and so have one face."""

FOR_CLIENTS = {
    *("name", "ask", "encoded", "decoded", "milliseconds", "runtime", "operations", "shares_loads"),
    *("make_topology", "make_codec"),
}
"""What a client class of a site's own uses or overrides: docs/migration.md, docs/pipelines.md."""


def public(thing: object) -> set[str]:
    """Return the names that a completion shows first."""
    return {name for name in dir(thing) if not name.startswith("_")}


def two_faced(names: set[str]) -> set[str]:
    """Return those of *names* that have another face among them."""
    return {name for name in names if f"a{name}" in names or (name[0] == "a" and name[1:] in names)}


@memoized
def documented() -> frozenset[str]:
    """Return the words that stand in code on any page."""
    text = "\n".join(path.read_text() for path in PAGES)
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return frozenset(word for each in code for word in re.findall(r"\w+", each))


@memoized
def explained(kind: type) -> frozenset[str]:
    """Return the attributes of *kind* below which a docstring stands."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    found = set()
    for statement, after in zip(body, body[1:], strict=False):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            if isinstance(statement, ast.AnnAssign):
                found.add(statement.target.id)
            elif isinstance(statement, ast.Assign):
                found.update(target.id for target in statement.targets)
    return frozenset(found)


def has_docstring(kind: type, name: str) -> bool:
    """Whether *name* is explained where it is defined."""
    if any(name in explained(each) for each in kind.__mro__ if each.__module__.startswith("fleetcache.")):
        return True
    found = inspect.getattr_static(kind, name, None)
    return bool(getattr(found, "__doc__", None)) and (callable(found) or isinstance(found, (property, classmethod)))


@pytest.mark.parametrize("kind", [Cache, HerdClient])
def test_names_of_a_cache(kind):
    """A completion of a cache shows its operations, in both faces, and the names on these lists."""
    names = public(kind("memory://"))

    assert names - two_faced(names) == ATTRIBUTES | METHODS | FOR_CLIENTS


def test_names_of_the_default_cache():
    """``fleetcache.cache`` shows the operations of the cache that it stands for, configured or not."""
    assert two_faced(public(fleetcache.cache)) == two_faced(public(Cache))


def test_names_of_clients():
    """So do those of the other clients, one of which can tell its servers."""
    assert public(SentinelClient) - public(Cache) == set()
    assert public(ShardClient) - public(Cache) == {"get_server", "get_server_name"}


def test_names_of_locks_and_pipelines():
    """A lock shows its arguments and operations, a pipeline the operations of its cache."""
    cache = Cache("memory://")
    lock, pipe = public(cache.lock("a")), public(cache.pipeline())

    assert lock - two_faced(lock) == {
        *("cache", "client", "name", "timeout", "renew", "sleep", "blocking", "blocking_timeout", "thread_local"),
        *("local", "token", "lost"),
    }
    assert pipe == OPERATIONS | {"execute", "aexecute", "transaction"}


def test_names_under_django():
    """Django's backend adds what Django asks of a cache, and a name of another package's."""
    backend = pytest.importorskip("django.core.cache.backends.base").BaseCache
    from fleetcache.django import RedisCache

    assert public(RedisCache) - public(Cache) - public(backend) == {"get_master_client"}


@pytest.mark.parametrize("kind", [Cache, Lock, Pipeline], ids=lambda kind: kind.__name__)
def test_each_public_name_is_explained(kind):
    """Each has a docstring, of its own or of its other face."""
    cache = Cache("memory://")
    thing = {Cache: cache, Lock: cache.lock("a"), Pipeline: cache.pipeline()}[kind]
    names = public(thing) - (OPERATIONS if kind is Pipeline else set())

    assert sorted(name for name in names if not has_docstring(kind, name)) == []


@pytest.mark.parametrize("thing", ["cache", "lock"])
def test_each_public_name_stands_in_the_documentation(thing):
    """Each is named in code on a page; of an operation one of its faces."""
    cache = Cache("memory://")
    names = public(cache if thing == "cache" else cache.lock("a"))

    missing = {name for name in names if name not in documented()}

    assert {name for name in missing if not (two_faced(names) & {name, name[1:]} & documented())} - {
        name for name in missing if name.startswith("a") and name[1:] in documented()
    } == set()
