"""Nothing of django-redis is left out: neither here, nor in fleetcache.

Its methods are listed by introspection and its options by reading its source; what the cases call
is read off their syntax trees.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import django_redis
import pytest
from django.core.cache.backends.base import BaseCache
from django_redis.cache import RedisCache as TheirCache
from django_redis.client import DefaultClient, HerdClient, SentinelClient, ShardClient

from fleetcache import client as clients
from fleetcache.django import RedisCache as OurCache

from . import test_herd, test_options
from .mended import MENDED, NOT_CARRIED_OVER
from .setups import CLIENTS
from .test_cases import RUNS

pytestmark = pytest.mark.also(near=True)

THEIRS = {"default": DefaultClient, "herd": HerdClient, "shard": ShardClient, "sentinel": SentinelClient}
OURS = {
    "default": clients.DefaultClient,
    "herd": clients.HerdClient,
    "shard": clients.ShardClient,
    "sentinel": clients.SentinelClient,
}

PROPERTIES = {"client"}
"""Public, and no methods."""

OPEN: dict[str, str] = {}
"""Methods whose parameters were widened, by the entry of MENDED."""

Call = tuple[int, set[str]]
"""How many arguments were given by position, and which by name."""


def public(cls: type) -> set[str]:
    """Return the public methods of a class, a-twins aside: those are a face of the others."""
    names = {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}
    return {name for name in names if not (name[0] == "a" and name[1:] in names)}


METHODS = (public(TheirCache) | public(DefaultClient)) - NOT_CARRIED_OVER.keys()
FACADE = {name for name in vars(TheirCache) if not name.startswith("_")} - PROPERTIES


# --- what the cases call --------------------------------------------------------------------------


def calls(functions: Iterable[Callable[..., Any]]) -> dict[str, list[Call]]:
    """Return how each method is called in the source of *functions*; a mere mention counts without arguments."""
    found: dict[str, list[Call]] = defaultdict(list)
    for function in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(attr=name), args=given, keywords=named):
                    found[name].append((len(given), {keyword.arg for keyword in named}))
                case ast.Attribute(attr=name):
                    found[name].append((0, set()))
                case ast.Compare(ops=[ast.In()]):
                    found["__contains__"].append((1, set()))
    return found


def run_in(setup: str) -> list[Callable[..., Any]]:
    """Return all scripts that are run in a setup, and the entries of MENDED about it."""
    scripts = [case.script for name, case in (run.values for run in RUNS) if name == setup]
    scripts += [entry.script for entry in MENDED if setup in entry.setups]
    return scripts + {"herd": [test_herd.test_soft_expiry], "shard": [test_options.test_shards_are_placed_alike]}.get(
        setup, []
    )


@pytest.mark.parametrize("setup", CLIENTS)
def test_every_method_has_a_case(setup: str) -> None:
    """Of the cache, and of each of the four clients."""
    wanted = (public(TheirCache) | public(THEIRS[setup])) - NOT_CARRIED_OVER.keys()

    assert wanted - calls(run_in(setup)).keys() == set()


def test_every_parameter_has_a_case() -> None:
    """By its name, or at its place."""
    made = calls(run_in("default"))
    missing = [
        f"{name}({parameter})"
        for name in METHODS
        for place, (parameter, kind) in enumerate(parameters(their_method(name)))
        if kind not in {"VAR_POSITIONAL", "VAR_KEYWORD"}
        and not any(parameter in named or place < given for given, named in made[name])
    ]

    assert missing == []


# --- options --------------------------------------------------------------------------------------

READS = [
    r'options\.(?:get|setdefault)\(\s*"([A-Z_]+)"',
    r'options\["([A-Z_]+)"\]',
    r'"([A-Z_]+)" in options',
    r'settings,\s*"([A-Z_]+)"',
    r'params\.get\(\s*"([A-Z_]+)"',
]
"""How django-redis looks up an option or a setting."""

DJANGO = {"LOCATION", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION", "MAX_ENTRIES", "CULL_FREQUENCY"}
"""What Django itself reads of an entry."""


def test_every_option_has_a_test() -> None:
    """Every name that django-redis looks up is one that some test of test_options is about."""
    sources = [path.read_text() for path in Path(django_redis.__file__).parent.rglob("*.py")]
    read = {name for source in sources for how in READS for name in re.findall(how, source)}

    assert len(read) >= 27  # or the expressions above no longer fit the source
    assert (read | DJANGO) - test_options.COVERED.keys() == set()


# --- the same surface -----------------------------------------------------------------------------


def their_method(name: str) -> Callable[..., Any]:
    """Return the method that says what parameters there are: the cache passes most of them on."""
    holder = DefaultClient if hasattr(DefaultClient, name) else TheirCache
    return getattr(holder, name)


def parameters(method: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return names and kinds of the parameters of a method, without itself."""
    found = [(each.name.lstrip("_"), each.kind.name) for each in inspect.signature(method).parameters.values()]
    return found[1:]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameters(name: str) -> None:
    """Every parameter of django-redis is one of fleetcache, of the same name at the same place."""
    theirs = parameters(their_method(name))
    ours = parameters(getattr(OurCache, name))

    if name in OPEN:
        assert OPEN[name] in {entry.name for entry in MENDED}
        assert {parameter for parameter, _ in theirs} <= {parameter for parameter, _ in ours}
    elif all(kind != "VAR_KEYWORD" for _, kind in theirs):
        assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("setup", CLIENTS)
def test_parameters_of_clients(setup: str) -> None:
    """The same of each client's own methods."""
    differing = {}
    for name in sorted(public(THEIRS[setup]) - NOT_CARRIED_OVER.keys() - OPEN.keys()):
        theirs, ours = parameters(getattr(THEIRS[setup], name)), parameters(getattr(OURS[setup], name))
        if all(kind != "VAR_KEYWORD" for _, kind in theirs) and ours[: len(theirs)] != theirs:
            differing[name] = (theirs, ours)

    assert differing == {}


@pytest.mark.parametrize("name", sorted(FACADE))
def test_twins(name: str) -> None:
    """Every method of django-redis' cache has an a-twin, and is a method of the class, as Django wants it."""
    assert inspect.isfunction(vars(OurCache).get(name) or getattr(OurCache, name))
    twin = getattr(OurCache, f"a{name}")
    assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
    assert twin is not getattr(BaseCache, f"a{name}", None)
