"""Cases: counters, versions and times to live."""

from __future__ import annotations

import datetime as dt
from time import time

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .sides import Cache, Cases

case = Cases()


@case
def counting(cache: Cache) -> None:
    cache.set("a", 1)
    cache.incr("a")
    cache.incr("a", 10)
    cache.incr("a", delta=-20)
    cache.decr("a")
    cache.decr("a", 5)
    cache.decr("a", delta=-3)
    cache.incr("a", 0)
    cache.get("a")


@case
def counting_what_is_missing(cache: Cache) -> None:
    cache.incr("a")
    cache.decr("a")
    cache.incr("a", 1.5)
    cache.set("a", 1, version=2)
    cache.incr("a")
    cache.get("a")


@case
def counting_from_nothing(cache: Cache) -> None:
    cache.incr("a", ignore_key_check=True)
    cache.incr("a", 5, ignore_key_check=True)
    cache.incr("b", delta=7, version=2, ignore_key_check=True)
    cache.incr("c", -7, ignore_key_check=True)
    cache.ttl("a")


@case
def counting_versions(cache: Cache) -> None:
    cache.set("a", 1, version=2)
    cache.incr("a", version=2)
    cache.incr("a", 2, 2)
    cache.decr("a", version=2)
    cache.decr("a", 2, 2)
    cache.get("a", version=2)


@case
def counting_keeps_the_time_to_live(cache: Cache) -> None:
    cache.set("a", 1, 100)
    cache.incr("a")
    cache.set("b", 1, None)
    cache.incr("b")
    cache.set("c", 1.5, 100)
    cache.incr("c")
    cache.set("d", 1.5, None)
    cache.decr("d")
    cache.set("e", 2**63 - 1, 100)
    cache.incr("e")


@case
def counting_floats(cache: Cache) -> None:
    cache.set("a", 1.5)
    cache.incr("a")
    cache.incr("a", 2)
    cache.decr("a", 0.25)
    cache.get("a")
    cache.set("b", 1)
    cache.incr("b", 1.5)
    cache.get("b")
    cache.set("c", 10)
    cache.decr("c", delta=0.5)


@case
def counting_huge_numbers(cache: Cache) -> None:
    for start, delta in ((2**63 - 1, 1), (2**70, 1), (-(2**63), -1), (5, 2**70), (2**62, 2**62)):
        cache.set("a", start)
        cache.incr("a", delta)
        cache.get("a")
        cache.set("b", start)
        cache.decr("b", -delta)


@case
def counting_what_is_no_number(cache: Cache) -> None:
    for value in (True, "text", "5", None, [1], b"bytes", {"a": 1}):
        cache.set("a", value)
        cache.incr("a")
        cache.decr("a", 2)
        cache.get("a")


@case
def counting_what_is_no_value(cache: Cache) -> None:
    cache.sadd("a", 1)
    cache.incr("a")
    cache.decr("a")
    cache.incr("a", 1.5)


@case(herd="incr_version, herded")
def moving_to_another_version(cache: Cache) -> None:
    cache.set("a", "value", 100)
    cache.incr_version("a")
    cache.get("a")
    cache.get("a", version=2)
    cache.incr_version("a", 5, 2)
    cache.incr_version("a", delta=-3, version=7)
    cache.decr_version("a", version=4)
    cache.decr_version("a", 2, 3)
    cache.ttl("a")
    cache.set("b", 1, None)
    cache.incr_version("b")


@case
def moving_what_is_missing(cache: Cache) -> None:
    cache.incr_version("a")
    cache.decr_version("a")
    cache.set("a", 1)
    cache.incr_version("a", version=9)
    cache.decr_version("a", delta=1, version=9)
    cache.get("a")


@case(herd="incr_version, herded")
def moving_onto_another_value(cache: Cache) -> None:
    cache.set("a", "one", 100)
    cache.set("a", "two", None, version=2)
    cache.incr_version("a")
    cache.get("a", version=2)


@case(herd="incr_version, herded")
def moving_by_name(cache: Cache) -> None:
    cache.set("a", "one", 100)
    cache.incr_version(cache.client.make_key("a"))
    cache.get("a")
    cache.get("a", version=2)


@case
def times_to_live(cache: Cache) -> None:
    cache.set("a", 1, 100)
    cache.set("b", 1, None)
    cache.set("c", 1, 100, version=2)
    for key in ("a", "b", "c", "missing"):
        cache.ttl(key)
        cache.pttl(key)
    cache.ttl("c", version=2)
    cache.pttl("c", version=2)


@case
def persisting(cache: Cache) -> None:
    cache.set("a", 1, 100)
    cache.persist("a")
    cache.persist("a")
    cache.ttl("a")
    cache.persist("missing")
    cache.set("a", 1, 100, version=2)
    cache.persist("a", version=2)


@case
def expiring(cache: Cache) -> None:
    cache.set("a", 1, None)
    for timeout in (100, dt.timedelta(minutes=10), DEFAULT_TIMEOUT, 1000):
        cache.expire("a", timeout)
        cache.expire("missing", timeout=timeout)
        cache.ttl("a")
    cache.set("b", 1, version=2)
    cache.expire("b", timeout=50, version=2)
    for timeout in (0, -1, dt.timedelta()):
        cache.set("c", 1)
        cache.expire("c", timeout)
        cache.get("c")


@case
def expiring_by_milliseconds(cache: Cache) -> None:
    cache.set("a", 1, None)
    for timeout in (100_000, dt.timedelta(minutes=10)):
        cache.pexpire("a", timeout)
        cache.pexpire("missing", timeout=timeout)
        cache.pttl("a")
    cache.set("b", 1, version=2)
    cache.pexpire("b", timeout=50_000, version=2)
    for timeout in (0, -1, dt.timedelta()):
        cache.set("c", 1)
        cache.pexpire("c", timeout)
        cache.get("c")


@case
def expiring_at_a_moment(cache: Cache) -> None:
    now = int(time())
    moments = [
        now + 100,
        dt.datetime.now() + dt.timedelta(seconds=200),
        dt.datetime.now(dt.UTC) + dt.timedelta(seconds=300),
    ]
    cache.set("a", 1, None)
    cache.set("a", 1, None, version=2)
    for moment in moments:
        cache.expire_at("a", moment)
        cache.expire_at("missing", when=moment)
        cache.expire_at("a", when=moment, version=2)
        cache.ttl("a")
        cache.pexpire_at("missing", when=moment)
    cache.pexpire_at("a", (now + 400) * 1000)
    cache.ttl("a")
    cache.pexpire_at("a", when=moments[1], version=2)
    cache.pexpire_at("a", moments[2])
    for past in (now - 10, 0, -5, dt.datetime.now() - dt.timedelta(days=1)):
        for method in (cache.expire_at, cache.pexpire_at):
            cache.set("b", 1)
            method("b", past)
            cache.get("b")


@case(herd="touch of None, herded")
def touching(cache: Cache) -> None:
    cache.set("a", "value", 100)
    cache.touch("a", 200)
    cache.ttl("a")
    cache.touch("a")
    cache.touch("a", timeout=DEFAULT_TIMEOUT)
    cache.ttl("a")
    cache.touch("a", 50.5)
    cache.touch("missing")
    cache.touch("missing", None)
    cache.set("b", 1, 100, version=2)
    cache.touch("b", 200, 2)
    cache.touch("b", timeout=300, version=2)
    cache.set("c", None, 100)
    cache.touch("c", 200)


@case
def touching_what_lives_for_ever(cache: Cache) -> None:
    cache.set("a", 1, 100)
    cache.touch("a", None)
    cache.ttl("a")
    cache.set("b", 1, None)
    cache.touch("b", 100)


@case
def touching_for_ever_twice(cache: Cache) -> None:
    cache.set("a", 1, None)
    cache.touch("a", None)


@case
def touching_that_deletes(cache: Cache) -> None:
    for timeout in (0, -1):
        cache.set("a", 1)
        cache.touch("a", timeout)
        cache.get("a")
        cache.touch("a", timeout)
