"""The audit of hits: it finds copies that are older than promised, and raises no false alarm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from tests.faces import Face
from tests.near.conftest import Copies, copied, copy
from tests.waiting import until

from fleetcache import Cache
from fleetcache.codec.payloads import Codec
from fleetcache.near import audit
from fleetcache.near.audit import Auditor, holds
from fleetcache.near.listener import Listener
from fleetcache.near.store import PACKED, Epoch, Store, Watched
from fleetcache.near.tracking import Tracking


@pytest.fixture
def audited(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Face]:
    """Make caches of which all hits are compared."""
    monkeypatch.setattr(audit, "PAUSE", 0.01)

    def make(**near: Any) -> Face:
        return copies(near={"T_LIVE": 0.3, **near}, STATS={"AUDIT": 1})

    return make


async def compared(cache: Face, key: str, number: int = 1, what: str = "compared") -> dict[str, Any]:
    """Read *key* until *number* more hits have been compared, or have come to another result; return the report."""
    auditor: Auditor = cache.near.auditor
    wanted, deadline = getattr(auditor, what) + number, time.monotonic() + 10
    while getattr(auditor, what) < wanted:
        assert time.monotonic() < deadline, auditor.report()
        await cache.get(key)
        time.sleep(0.001)
    report: dict[str, Any] = cache.near.audit()
    return report


@pytest.mark.parametrize("value", ["text", 17, {"a": [1]}, None])
async def test_right_hits_are_no_violations(audited: Callable[..., Face], value: Any) -> None:
    """A copy of what the server has is compared, and found right."""
    cache = audited()
    await cache.set("a", value)
    await copied(cache, "a")

    report = await compared(cache, "a", 3)

    assert report["violations"] == report["changed"] == 0
    assert report["compared"] >= 3
    assert report["text"].startswith(f"0 of {report['compared']} compared: ")
    assert cache.snapshot()["audit"]["compared"] >= 3


async def test_missing_entry_is_compared(audited: Callable[..., Face]) -> None:
    """That an entry is missing is a value too."""
    cache = audited()
    await copied(cache, "missing")

    assert (await compared(cache, "missing"))["violations"] == 0


async def test_tagged_entry_is_compared(audited: Callable[..., Face]) -> None:
    """An entry with tags has metadata on the server that its copy lacks."""
    cache = audited()
    await cache.set("a", {"of": "users"}, tags=["users"])
    await copied(cache, "a")

    report = await compared(cache, "a", 2)

    assert (report["violations"], report["changed"], report["unanswered"]) == (0, 0, 0)


class Deaf(Tracking):
    """Changes are not heard, although announcements come."""

    def invalidated(self, name: str) -> None:
        pass


async def test_missed_change_is_found(
    audited: Callable[..., Face], raw: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the listener misses a change, the copy survives a fence; this is logged with what happened, and the copy ends."""
    monkeypatch.setattr(Listener, "tracking_class", Deaf)
    cache = audited()
    await cache.set("a", "old")
    await copied(cache, "a")
    name = str(cache.make_key("a"))

    raw.set(name, cache.codec.encode("new"))
    report = await compared(cache, "a", what="violations")

    assert report["violations"] == 1
    (event,) = report["events"]
    assert event["key"] == name
    assert event["promise"] == "fence"
    told = [each["what"] for each in event["history"]]
    assert {"watched", "hit", "on the server: another value", "fence passed"} <= set(told)
    assert "is older than promised (fence)" in caplog.text
    assert name not in caplog.text
    assert await cache.get("a") == "new"
    assert report["better_than"] is None
    assert report["text"] == f"1 of {report['compared']} compared hits were older than promised."


async def test_copy_that_outlives_its_entry_is_found(audited: Callable[..., Face], raw: Any) -> None:
    """A copy may not live longer than its entry, even while both have the same value."""
    cache = audited()
    await cache.set("a", "same", timeout=20)
    await copied(cache, "a")

    copy(cache, str(cache.make_key("a"))).deadline += 1
    report = await compared(cache, "a", what="violations")

    assert report["violations"] == 1
    assert "on the server: a shorter life" in [each["what"] for each in report["events"][0]["history"]]


class Trusting(Tracking):
    """Copies are served although the server does not answer any more, and fences are not passed."""

    def leased(self, now: float) -> bool:
        return self.stage.proven

    def _extend(self) -> None:
        self.epoch.until = inf

    def invalidated(self, name: str) -> None:
        pass

    def fence(self, now: float, then: Callable[[], object]) -> bool:
        return True


async def test_copy_older_than_the_bound_is_found(
    audited: Callable[..., Face], raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a fence, a copy that is served T_LIVE after another value was read is too old."""
    monkeypatch.setattr(Listener, "tracking_class", Trusting)
    cache = audited()
    await cache.set("a", "old")
    await copied(cache, "a", deaf=True)

    raw.set(str(cache.make_key("a")), cache.codec.encode("new"))
    report = await compared(cache, "a", what="violations")

    assert report["violations"] == 1
    assert report["events"][0]["promise"] == "bound"


async def test_no_false_alarm_while_others_write(audited: Callable[..., Face], raw: Any) -> None:
    """Entries that change all the time are compared, and no comparison is taken for a violation."""
    cache = audited()
    names = [str(cache.make_key(f"k{number}")) for number in range(5)]
    stopping = threading.Event()

    def write() -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            raw.set(names[number % len(names)], number)
            time.sleep(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        deadline = time.monotonic() + 20
        while cache.near.auditor.compared < 150 and time.monotonic() < deadline:
            for number in range(5):
                await cache.get(f"k{number}")
    finally:
        stopping.set()
        writer.join()

    report = cache.near.audit()
    assert report["compared"] >= 150
    assert report["violations"] == 0, report["events"]


async def test_server_away_is_no_violation(audited: Callable[..., Face], monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that fails is counted, and nothing else."""
    cache = audited()
    await cache.set("a", 1)
    await copied(cache, "a")
    auditor = cache.near.auditor

    class Away:
        def exchange(self, _: Any) -> Any:
            raise ConnectionError("away")

    monkeypatch.setattr(cache.near.reads_of("a"), "server", Away())
    await cache.get("a")
    auditor.hit(copy(cache, str(cache.make_key("a"))))
    until(lambda: auditor.unanswered > 0)

    assert auditor.violations == auditor.compared == 0


@pytest.mark.parametrize("stats", [False, {"AUDIT": 0}])
def test_audit_can_be_off(copies: Copies, stats: Any) -> None:
    """Without it nothing is watched."""
    cache = copies(live=False, STATS=stats)

    assert cache.near.auditor is None
    assert cache.near.audit() == {}


def test_only_one_in_so_many_is_watched(copies: Copies) -> None:
    """The number of watched copies follows the number of hits, and their choice their share of the hits."""
    cache = copies(live=False, STATS={"AUDIT": 100, "ADVISE": False})
    auditor, store = cache.near.auditor, cache.near.store
    for name in ("hot", "cold"):
        store.put(name, 1, None, inf, Epoch(inf))
    auditor.turn(0.0)

    store.copies["hot"].hits = 399
    auditor.turn(1e9)
    assert auditor.owing == pytest.approx(0.99)
    assert type(store.copies["hot"].epoch) is Watched
    assert type(store.copies["cold"].epoch) is Epoch


@pytest.mark.parametrize(
    ("compared", "violations", "text"),
    [
        (0, 0, "No hit has been compared yet."),
        (3_214, 0, "0 of 3,214 compared: better than 99.9 % with 95 % confidence."),
        (30_000, 0, "0 of 30,000 compared: better than 99.99 % with 95 % confidence."),
        (29, 0, "0 of 29 compared: too few to say more."),
        (30, 0, "0 of 30 compared: better than 90 % with 95 % confidence."),
        (50, 2, "2 of 50 compared hits were older than promised."),
    ],
)
def test_nines(copies: Copies, compared: int, violations: int, text: str) -> None:
    """The rule of three gives the confidence."""
    auditor = copies(live=False).near.auditor
    auditor.compared, auditor.violations = compared, violations

    assert auditor.report()["text"] == text


def test_values_are_compared_as_reads_decode_them() -> None:
    """A copy holds a payload or a value, and is compared with a payload."""
    codec: Codec = Cache("memory://").codec
    store = Store(1_000_000)

    def kept(value: Any, payload: bytes | None) -> Any:
        store.put("a", value, payload, inf, Epoch(inf))
        return store.copies["a"]

    assert holds(kept(PACKED, None), None, codec)
    assert not holds(kept(PACKED, None), b"1", codec)
    assert not holds(kept(1, None), None, codec)
    assert holds(kept(1, None), b"1", codec)
    assert not holds(kept(True, None), b"1", codec)
    packed = bytes(codec.encode([1, 2]))  # type: ignore[arg-type]
    assert holds(kept(PACKED, packed), packed, codec)
    assert not holds(kept(PACKED, packed), bytes(codec.encode([1, 3])), codec)  # type: ignore[arg-type]
