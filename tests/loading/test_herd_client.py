"""`get_or_set` of a HerdClient: one load in the fleet of a cold key, and of one that django-redis' die says to renew."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.caches import own_prefix
from tests.faces import FACES, Face
from tests.forks import ended_well, in_child
from tests.nearby import wait_until_live
from tests.waiting import until

from fleetcache.client import HerdClient
from fleetcache.codec.herding import Herded
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.loading.leading import TASKS

pytestmark = pytest.mark.timeout(60, method="thread")
THREADS, PROCESSES = 20, 2
HERD = 60
"""The HERD_TIMEOUT, in seconds."""


class Crowd:
    """Processes of threads, or of tasks, that ask for one key at once; a server counts what they do."""

    def __init__(self, url: str, face: str, **options: Any) -> None:
        self.url, self.face = url, face
        self.raw = redis.Redis.from_url(url)
        self.params = {"KEY_PREFIX": own_prefix(), "OPTIONS": {"HERD_TIMEOUT": HERD, **options}}

    def cache(self) -> HerdClient:
        return HerdClient(self.url, self.params)

    def count(self, what: str) -> int:
        return int(self.raw.get(f"crowd:{what}") or 0)

    def add(self, what: str) -> int:
        return int(self.raw.incr(f"crowd:{what}"))

    def ask(self, load: Callable[[], Any], callers: int) -> None:
        """Ask in each process by *callers* at once, and note what each of them got."""

        def process() -> None:
            cache = self.cache()
            self.raw = redis.Redis.from_url(self.url)
            if self.face == "awaiting":
                asyncio.run(self._tasks(cache, load, callers))
                return
            threads = [threading.Thread(target=self._thread, args=(cache, load)) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)

        children = [in_child(process) for _ in range(PROCESSES)]
        assert all([ended_well(child, 30) for child in children])  # noqa: C419 - each has to be waited for

    def _thread(self, cache: HerdClient, load: Callable[[], Any]) -> None:
        self.add("ready")
        until(lambda: self.count("ready") == THREADS * PROCESSES)
        self.note(cache.get_or_set("key", load, 300))

    async def _tasks(self, cache: HerdClient, load: Callable[[], Any], callers: int) -> None:
        async def task() -> None:
            self.note(await cache.aget_or_set("key", lambda: asyncio.to_thread(load), 300))

        self.raw.incrby("crowd:ready", callers)
        until(lambda: self.count("ready") == THREADS * PROCESSES)
        await asyncio.gather(*(task() for _ in range(callers)))
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(each for each in TASKS if each.get_loop() is loop))  # a renewal outlives its callers

    def note(self, got: str) -> None:
        self.raw.rpush("crowd:got", got)

    def got(self) -> list[str]:
        return sorted(value.decode() for value in self.raw.lrange("crowd:got", 0, -1))

    def forget(self) -> None:
        self.raw.delete(*self.raw.keys("crowd:*"))
        self.raw.close()


@pytest.fixture(params=FACES)
def crowd(valkey, request):
    crowd = Crowd(valkey.tcp_url(), request.param)
    yield crowd
    crowd.forget()


def test_a_cold_key_is_loaded_once(crowd):
    """Forty callers in two processes miss a key at the same time: one of them makes the value, all get it."""

    def load() -> str:
        crowd.add("loads")
        time.sleep(0.3)
        return "new"

    crowd.ask(load, THREADS)

    assert crowd.count("loads") == 1
    assert crowd.got() == ["new"] * THREADS * PROCESSES
    stored = crowd.cache().codec.decode(crowd.raw.get(crowd.cache().make_key("key")))
    assert type(stored) is Herded
    assert stored.value == "new"
    assert abs(stored.soft_expiry - time.time() - 300) < 20
    assert 300 + HERD - 20 < crowd.raw.ttl(crowd.cache().make_key("key")) <= 300 + HERD


def test_one_caller_renews_and_the_others_have_the_old_value(crowd):
    """All are told to renew: one does, and nobody waits for him."""
    cache = crowd.cache()
    late = int(time.time()) - HERD + 2
    crowd.raw.set(cache.make_key("key"), cache.codec.encode(Herded("old", late)), ex=100)
    others = THREADS * PROCESSES - (crowd.face == "blocking")

    def load() -> str:
        crowd.add("loads")
        until(lambda: len(crowd.got()) >= others, 20)
        return "new"

    crowd.ask(load, THREADS)

    assert crowd.count("loads") == 1
    assert crowd.got()[-others:] == ["old"] * others
    assert until(lambda: cache.get("key") == "new")


@pytest.fixture(params=[False, True], ids=["far", "near"])
def herd(valkey, request, face):
    """A cache that shows *face*, with a near cache or without."""
    params = {"KEY_PREFIX": own_prefix(), "OPTIONS": {"HERD_TIMEOUT": HERD, "NEAR": request.param}}
    whole = HerdClient(valkey.tcp_url(), params)
    if whole.near is not None:
        wait_until_live(whole.near)
    return Face(whole, face)


def stored(herd: Face, key: str = "key") -> Any:
    """Return what the server has under *key*."""
    payload = herd.whole.get_client().get(herd.whole.make_key(key))
    return None if payload is None else herd.whole.codec.decode(payload)


async def test_what_is_stored_is_what_set_stores(herd):
    """A loaded value has the bytes of one that was set, and its life."""
    await herd.set("set", {"a": 1}, 300)
    assert await herd.get_or_set("key", lambda: {"a": 1}, 300) == {"a": 1}

    raw = herd.whole.get_client()
    one, other = (raw.get(herd.whole.make_key(key)) for key in ("set", "key"))
    assert one[:-6] == other[:-6], "only the moments may differ"
    assert abs(raw.ttl(herd.whole.make_key("set")) - raw.ttl(herd.whole.make_key("key"))) <= 1
    assert [await herd.get_or_set("key", lambda: "another", 300) for _ in range(3)] == [{"a": 1}] * 3


@pytest.mark.parametrize(
    ("value", "timeout"), [(None, 300), (5, 300), (5, None), ("text", 2.5), ([1], DEFAULT_TIMEOUT)]
)
async def test_values_and_timeouts(herd, value, timeout):
    """None, numbers and endless lives are stored as `set` stores them, and read as they were."""
    await herd.set("set", value, timeout)

    assert await herd.get_or_set("key", lambda: value, timeout) == value

    one, other = stored(herd, "set"), stored(herd)
    assert type(one) is type(other)
    assert getattr(one, "value", one) == getattr(other, "value", other) == value
    assert abs(getattr(one, "soft_expiry", 0) - getattr(other, "soft_expiry", 0)) <= 1
    assert [await herd.get_or_set("key", lambda: "another", timeout) for _ in range(3)] == [value] * 3


async def test_a_failed_renewal_keeps_the_old_value(herd):
    """Who is told to renew and cannot has the old value if the call says so, and the error if not."""
    late = int(time.time()) - HERD + 1
    raw, name = herd.whole.get_client(), herd.whole.make_key("key")
    raw.set(name, herd.whole.codec.encode(Herded("old", late - 1)), ex=100)

    with pytest.raises(ZeroDivisionError):
        await herd.get_or_set("key", lambda: 1 // 0, 300)
    assert await herd.get_or_set("key", lambda: 1 // 0, 300, stale_if_error=600) == "old"
    assert await herd.get_or_set("key", lambda: "new", 300, refresh=True) == "new"
    assert await herd.get("key") == "new"


async def test_tags_and_batches(herd):
    """Loaded values have their tags, and many are loaded together."""
    assert await herd.get_or_set("key", lambda: 1, 300, tags=["tag"]) == 1
    assert await herd.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 2), 300) == {"a": 2, "b": 2}
    assert type(stored(herd, "a")) is Herded
    assert await herd.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 3), 300) == {"a": 2, "b": 2}

    await herd.invalidate_tags("tag")

    assert await herd.get("key") is None
    assert await herd.get_or_set("key", lambda: 4, 300, tags=["tag"]) == 4
