"""A site's subclass that names its entries itself: the same body of a class gives the same names in every package."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.cache.backends.redis import RedisCache as DjangoCache
from django_redis.cache import RedisCache as TheirCache
from django_redis.client import DefaultClient as TheirClient
from django_redis.client import ShardClient as TheirShards

from fleetcache.client import DefaultClient, ShardClient

from . import counting, structures, values
from .setups import Setups
from .sides import Case, OurCache, Setup, agreeing, contents

pytestmark = pytest.mark.also(near=True)

# --- clients of django-redis ----------------------------------------------------------------------


class Serviced:
    """What a site puts before a client of either package: its service's name stands around each name."""

    def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> Any:
        made = super().make_key(key, version=version, prefix=prefix)  # type: ignore[misc]
        return made if made is key else type(made)(f"shop:{made}:v")


class TheirServiced(Serviced, TheirClient): ...


class OurServiced(Serviced, DefaultClient): ...


class TheirServicedShards(Serviced, TheirShards): ...


class OurServicedShards(Serviced, ShardClient): ...


CLIENTS = {"default": (TheirServiced, OurServiced), "shard": (TheirServicedShards, OurServicedShards)}


@dataclass
class Overriding(Setup):
    """A setup whose two packages use a client class of the site's, each derived from that package's."""

    clients: tuple[type, type] = CLIENTS["default"]

    @classmethod
    def of(cls, setups: Setups, name: str) -> Overriding:
        setup = setups[name]
        return cls(f"{name}, overriding", setup.location, setup.params, setup.databases, clients=CLIENTS[name])

    def theirs(self) -> Any:
        return TheirCache(self.location, self._with(self.clients[0]))

    def ours(self) -> Any:
        return OurCache(self.location, self._with(self.clients[1]))

    def _with(self, client: type) -> dict[str, Any]:
        return {**self.params, "OPTIONS": {**self.params["OPTIONS"], "CLIENT_CLASS": f"{__name__}.{client.__name__}"}}


APART = {
    "names": "django-redis' backend, unlike its client, does not know the class's names",
    "patterns": "django-redis' patterns do not know them, so that they find no entry",
    "moving_by_name": "django-redis takes the last part of a name for the key",
}
"""Cases in which fleetcache is meant to differ, with the reason."""

CASES = [
    pytest.param(name, case, id=f"{name}-{case.name}")
    for name in CLIENTS
    for case in [*values.case, *counting.case, *structures.case]
    if name not in case.but and case.name not in APART and not (name == "shard" and case.name.startswith("moving"))
]


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_client_that_overrides_make_key(name: str, case: Case, face: str, setups, faces, expected) -> None:
    """Every operation names entries as in django-redis, if the client class of a site changes their names."""
    setup = Overriding.of(setups, name)

    theirs = expected.of(setup, case)
    ours = setup.run(case.script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)


def test_patterns_of_a_client_that_overrides_make_key(setups) -> None:
    """Patterns find the entries, and give back their keys; those of django-redis look for other names."""
    setup = Overriding.of(setups, "default")
    setup.databases[0].flushdb()
    theirs, ours = setup.theirs(), setup.ours()
    theirs.set_many({"a:1": 1, "a:2": 2, "b": 3})

    assert (theirs.keys("*"), theirs.delete_pattern("a*")) == ([], 0)
    assert sorted(ours.keys("*")) == ["a:1", "a:2", "b"]
    assert ours.keys("b", version=2) == []
    assert ours.delete_pattern("a*") == 2
    assert theirs.get_many(["a:1", "a:2", "b"]) == {"b": 3}


# --- Django's backend -----------------------------------------------------------------------------


class Hashed:
    """Names of one length, whatever the key is."""

    def make_key(self, key: Any, version: Any = None) -> str:
        made = super().make_key(key, version=version)  # type: ignore[misc]
        return f"site:{hashlib.sha256(made.encode()).hexdigest()}"


class Raw:
    """The key itself."""

    def make_key(self, key: Any, version: Any = None) -> Any:
        return str(key)


class AsInDjango:
    """What Django's documentation calls custom key making: its own lines, changed."""

    def make_key(self, key: Any, version: Any = None) -> str:
        if version is None:
            version = self.version  # type: ignore[attr-defined]
        return self.key_func(key, self.key_prefix, version).upper()  # type: ignore[attr-defined]


class Validated:
    """Both steps in one method."""

    def make_and_validate_key(self, key: Any, version: Any = None) -> str:
        made = super().make_and_validate_key(key, version=version)  # type: ignore[misc]
        return f"{made}/checked"


class Refusing:
    """A policy of the site's for names."""

    def validate_key(self, key: str) -> None:
        if "secret" in key:
            raise ValueError(f"{key} is not allowed")


BODIES = [Hashed, Raw, AsInDjango, Validated, Refusing]
KEYS = ["a", "user:1", "with space", "x" * 300, 5]


def everything(cache: Any) -> list[Any]:
    """Return what each operation of Django's says, with keys of several kinds."""
    said = [
        cache.set("a", 1, 60) and None,  # Django's returns nothing
        cache.add("a", 2),
        cache.add("user:1", [1], 60),
        cache.set("a", 3, 60, version=2) and None,
        cache.incr("a"),
        cache.incr("a", 5, version=2),
        cache.set_many({"with space": 4, "x" * 300: 5, 5: None}, 60),
        cache.get_or_set("made", lambda: "made", 60),
        cache.get("a"),
        cache.get("a", version=2),
        cache.get_many([*KEYS, "missing"]),
        cache.get_many(["a", "user:1"], version=2),
        cache.has_key("a"),
        "missing" in cache,
        cache.touch("user:1", 90),
        cache.delete("user:1"),
        cache.delete_many(["with space", "missing"]) and None,
        cache.get_many(KEYS),
    ]
    for action in (
        lambda: cache.set("secret", 1) and None,
        lambda: cache.get("secret"),
        lambda: cache.get_many(["secret"]),
    ):
        try:
            said.append(action())
        except ValueError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_backend_of_django_that_names_entries(body: type, setups) -> None:
    """The same body over Django's backend and over this one: the same answers, and the same names on the server."""
    location, raw = setups["default"].location, setups.raw(1)
    theirs = type("Theirs", (body, DjangoCache), {})(location, {"KEY_PREFIX": "p"})
    ours = type("Ours", (body, OurCache), {})(location, {"KEY_PREFIX": "p", "OPTIONS": near_options(body)})
    results, names = [], []

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cache in (theirs, ours):
            raw.flushdb()
            results.append(everything(cache))
            names.append(set(contents(raw)))
        read = ours.get_many(KEYS), theirs.get_many(KEYS)

    assert results[1] == results[0]
    assert {name for name in names[1] if not name.startswith("fleetcache:")} == names[0]
    assert read[0] == read[1] != {}


def near_options(body: type) -> dict[str, Any]:
    """Return the options for a near cache, should there be one: names without a common beginning need their prefixes."""
    from tests.nearby import EVERYWHERE, NEAR

    return {"NEAR": {**NEAR, "PREFIXES": ["a", "user"]}} if EVERYWHERE and body is Raw else {}
