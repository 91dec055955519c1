"""Commands to bytes, bytes to replies, without a socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from enum import IntEnum

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import DataError, ResponseError

from fleetcache import Cache
from fleetcache import commands as c
from fleetcache.exchange.wire import PACKER, pack, packed, refusal

HUGE = 10**5000
"""A number of more digits than Python is willing to write, at which hiredis crashes."""

parts = st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.just(b"x" * 70_000), st.just("PX"))


class Answer(IntEnum):
    """A number that is written as a name."""

    RIGHT = 42


def parsed(data: bytes) -> list[list[bytes]]:
    """Return the commands in *data*, as a server reads them."""
    reader = hiredis.Reader(notEnoughData=EOFError)
    reader.feed(data)
    found = []
    while (command := reader.gets()) is not EOFError:
        found.append(command)
    return found


def said(part: object) -> bytes:
    """Return how *part* is written."""
    return part if isinstance(part, bytes) else (part if isinstance(part, str) else repr(part)).encode()


@given(st.lists(st.lists(parts, max_size=6), min_size=1, max_size=4))
def test_a_server_reads_what_was_meant(commands):
    """Whatever its shape, a command arrives part for part."""
    meant = [(c.SET, *parts) for parts in commands]

    assert parsed(packed(meant)) == [[said(part) for part in command] for command in meant]


@pytest.mark.parametrize("rest", [(1,), ("a", 1.5), ("a", b"v", "PX", 300_000), ("a", 1, "PX", 7), ("a",) * 50])
def test_numbers_are_their_digits(rest):
    """In a command of any shape a number is sent as its digits."""
    assert parsed(pack((c.SET, *rest))) == [[b"SET", *map(said, rest)]]


@pytest.mark.parametrize(
    "rest", [(HUGE,), ("a", HUGE), ("a", b"v", "PX", HUGE), ("a", HUGE, "PX", 1), (b"a", *[HUGE] * 9)]
)
def test_a_number_that_is_too_long_is_refused(rest):
    """Python's limit of digits is the caller's error, and no crash."""
    with pytest.raises(DataError, match="SET: Exceeds the limit .4300 digits."):
        pack((c.SET, *rest))


@pytest.mark.parametrize("part", [True, None, object(), (1,), bytearray(b"a"), "\ud800"])
def test_what_cannot_be_sent_is_refused(part):
    """Anything else than text, bytes and numbers is the caller's error, wherever it stands."""
    for command in [
        (c.GET, part),
        (c.SET, "a", part, "PX", 1),
        (c.SET, "a", b"v", "PX", part),
        (c.DEL, "a", "b", part),
    ]:
        with pytest.raises(DataError, match=command[0].decode()):
            pack(command)


def test_a_number_with_a_name_is_a_number():
    """An enumeration of integers is sent as the number, not as its name."""
    assert parsed(pack((c.SET, "a", Answer.RIGHT))) == [[b"SET", b"a", b"42"]]


def test_redis_py_packs_as_before():
    """What packs for redis-py's connections takes what redis-py's own takes, words in one text included."""
    assert parsed(b"".join(PACKER.pack("CLIENT TRACKING", "ON", 3, 1.5, b"a", bytearray(b"b"), memoryview(b"c")))) == [
        [b"CLIENT", b"TRACKING", b"ON", b"3", b"1.5", b"a", b"b", b"c"]
    ]
    with pytest.raises(DataError):
        PACKER.pack("SET", "a", HUGE)


@pytest.mark.parametrize("text", ["MOVED x", "MOVED", "ASK", "ASK 1", "MOVED 1 host:port", "MOVED x y z"])
def test_a_redirection_of_nonsense_is_a_refusal(text):
    """A redirection that leads nowhere is the server's error, and told as it stands."""
    assert type(refusal(text)) is ResponseError
    assert str(refusal(text)) == text


OPERATIONS = [
    ("set", "k", 1, HUGE), ("add", "k", 1, HUGE), ("set_many", {"k": 1}, HUGE), ("touch", "n", HUGE),
    ("expire", "n", HUGE), ("pexpire", "n", HUGE), ("expire_at", "n", HUGE), ("hincrby", "h", "f", HUGE),
    ("hset", "h", HUGE, 1), ("hget", "h", HUGE), ("hdel", "h", HUGE), ("hexists", "h", HUGE), ("hmget", "h", [HUGE]),
    ("zadd", "z", {"m": HUGE}), ("zincrby", "z", HUGE, "m"), ("zrange", "z", 0, HUGE), ("zcount", "z", 0, HUGE),
    ("zpopmin", "z", HUGE), ("zremrangebyscore", "z", 0, HUGE), ("lrange", "l", 0, HUGE), ("ltrim", "l", 0, HUGE),
    ("lindex", "l", HUGE), ("lset", "l", HUGE, 1), ("lpop", "l", HUGE), ("spop", "s", HUGE), ("srandmember", "s", HUGE),
    ("sscan", "s", "*", HUGE), ("get_or_set", "new", 1, HUGE),
]  # fmt: skip
STORED = [
    ("set", "k", HUGE),
    ("lpush", "l", HUGE),
    ("sadd", "s", HUGE),
    ("sismember", "s", HUGE),
    ("zscore", "z", HUGE),
]


async def everything(cache: Cache) -> list[str]:
    """Return what in *cache* did not refuse a number that cannot be sent, or did not take it as a value."""
    wrong = []
    assert cache.incr("m", default=HUGE) == HUGE + 1
    for name, *arguments in OPERATIONS + STORED:
        for face in (name, f"a{name}", "pipeline"):
            try:
                if face == "pipeline":
                    getattr(cache.pipeline(), name)(*arguments).execute()
                elif face == name:
                    getattr(cache, name)(*arguments)
                else:
                    await getattr(cache, face)(*arguments)
            except DataError:
                refused = True
            else:
                refused = False
            if refused is ((name, *arguments) in STORED):
                wrong.append(f"{face}: {name}")
    return wrong


def test_no_operation_crashes_at_a_number(valkey):
    """In each operation of either face, and of a pipeline, a number that cannot be sent is a DataError."""
    program = f"import asyncio, tests.test_wire as t; print(asyncio.run(t.everything(t.Cache({valkey.tcp_url()!r}))))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_in_memory_a_number_is_refused_as_well():
    """``memory://`` refuses what a server would not be sent."""
    assert asyncio.run(everything(Cache("memory://numbers"))) == []
