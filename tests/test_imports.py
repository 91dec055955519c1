"""Making a cache imports modules of the site and calls its classes: no lock is held meanwhile."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from fleetcache import Cache, CacheHandler
from fleetcache.codec.compressors import ZlibCompressor
from fleetcache.codec.serializers import JSONSerializer
from fleetcache.pool import ConnectionFactory

MODULE = f"""
from {__name__} import *
state.begun.set()
assert state.go.wait(10)
caches = [Cache("redis://127.0.0.1:1/5"), Cache("redis://127.0.0.1:1/6", near=True)]
class Serializer(JSONSerializer): pass
class Compressor(ZlibCompressor): pass
class Factory(ConnectionFactory): pass
class Pool(redis.ConnectionPool): pass
class Client(redis.Redis): pass
class Provider(redis.CredentialProvider):
    def get_credentials(self): return ("secret",)
provider = Provider()
def named(key, prefix, version): return ":".join((prefix, str(version), key))
"""

__all__ = ["Cache", "ConnectionFactory", "JSONSerializer", "ZlibCompressor", "redis", "state"]
state = SimpleNamespace(begun=threading.Event(), go=threading.Event(), module="")
numbers = count()


def the_module() -> Any:
    return importlib.import_module(state.module)


class LateFactory(ConnectionFactory):
    """Imports a module of the site's when it is called."""

    def get_connection_pool(self, params: dict[str, Any]) -> Any:
        the_module()
        return super().get_connection_pool(params)


class LatePool(redis.ConnectionPool):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        the_module()
        super().__init__(*args, **kwargs)


class LateProvider(redis.CredentialProvider):
    def get_credentials(self) -> Any:
        return ("secret",)

    def on_next(self, listener: Any) -> None:
        the_module()

    def on_error(self, listener: Any) -> None: ...


def late_name(key: str, prefix: str, version: int) -> str:
    the_module()
    return f"{prefix}:{version}:{key}"


def late_serializer() -> Any:
    the_module()
    return JSONSerializer({})


PARAMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "serializer": lambda module: {"OPTIONS": {"SERIALIZER": f"{module}.Serializer"}},
    "compressor": lambda module: {"OPTIONS": {"COMPRESSOR": f"{module}.Compressor"}},
    "factory": lambda module: {"OPTIONS": {"CONNECTION_FACTORY": f"{module}.Factory"}},
    "pool": lambda module: {"OPTIONS": {"CONNECTION_POOL_CLASS": f"{module}.Pool"}},
    "client": lambda module: {"OPTIONS": {"REDIS_CLIENT_CLASS": f"{module}.Client"}},
    "provider": lambda module: {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"credential_provider": f"{module}.provider"}}},
    "name": lambda module: {"KEY_FUNCTION": f"{module}.named", "OPTIONS": {"NEAR": True}},
    "late serializer": lambda module: {"OPTIONS": {"serializer": late_serializer}},
    "late factory": lambda module: {"OPTIONS": {"CONNECTION_FACTORY": LateFactory}},
    "late pool": lambda module: {"OPTIONS": {"CONNECTION_POOL_CLASS": LatePool}},
    "late provider": lambda module: {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"credential_provider": LateProvider()}}},
    "late name": lambda module: {"KEY_FUNCTION": late_name, "OPTIONS": {"NEAR": True}},
}


@pytest.fixture
def module(tmp_path, monkeypatch) -> Iterator[str]:
    """The name of a module that makes caches while it is imported, and goes on doing so when `state.go` is set."""
    state.module = f"site_{next(numbers)}"
    state.begun.clear()
    state.go.clear()
    (tmp_path / f"{state.module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield state.module
    sys.modules.pop(state.module, None)


@pytest.mark.parametrize("way", PARAMS)
def test_a_module_that_makes_caches_while_it_is_imported(way, module):
    """A thread that imports it, one whose cache needs something of it, and one with another cache wait for nobody but the importer."""
    done = []

    def begin(work: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
        thread.start()
        return thread

    location = f"redis://127.0.0.1:1/{next(numbers)}"
    importer = begin(the_module)
    assert state.begun.wait(5)
    maker = begin(lambda: CacheHandler({"default": {"LOCATION": location, **PARAMS[way](module)}})["default"])
    maker.join(0.05)
    assert maker.is_alive()  # it waits for the module
    begin(lambda: Cache(f"{location}?client_name=another", near=True)).join(5)
    assert len(done) == 1
    state.go.set()
    for thread in (importer, maker):
        thread.join(5)

    assert len(done) == 3


def test_caches_made_at_once_share_all_that_is_the_process_s(monkeypatch):
    """Threads that make the same cache at the same moment have one codec, topology, near cache and pool between them."""
    gate = threading.Barrier(8)
    found = []

    def make() -> None:
        gate.wait()
        found.append(Cache(location, {"OPTIONS": {"NEAR": True, "CONNECTION_FACTORY": ConnectionFactory}}))

    for _ in range(10):
        location = f"redis://127.0.0.1:1/{next(numbers)}"
        found.clear()
        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for part in ("codec", "topology", "near", "stats"):
            assert len({id(getattr(cache, part)) for cache in found}) == 1
        assert len({id(cache.topology.primary) for cache in found}) == 1
        assert len({id(cache.get_client().connection_pool) for cache in found}) == 1
