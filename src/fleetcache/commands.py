"""The commands that fleetcache sends, and the properties of each: reads, may be repeated, its names, its replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

from fleetcache.errors import ServerGone
from fleetcache.exchange.contract import ALL, EVERYTHING, Command, Reply, Script, Verb


def _reading(name: str, *, key: int = 1) -> Verb:
    return Verb(name, reads=True, key=key)


def _same_again(name: str, *, key: int = 1, writes: int | None = None) -> Verb:
    """A write that may be repeated: the entry and the reply are the same however often it ran."""
    return Verb(name, harmless=True, key=key, writes=writes)


# Strings and keys.
GET = _reading("GET")
MGET = _reading("MGET")
# Reads that only the primary answers: a write depends on them, and a replica may be behind.
GET_NOW, PTTL_NOW = _same_again("GET", writes=0), _same_again("PTTL", writes=0)
MGET_NOW, EXISTS_NOW = _same_again("MGET", writes=0), _same_again("EXISTS", writes=0)
EXISTS, TTL, PTTL = _reading("EXISTS"), _reading("TTL"), _reading("PTTL")
SET = _same_again("SET")
SET_IF = Verb("SET")  # with NX or XX: run twice on one server it answers differently; on another server it may run
ADD = Verb("SET")  # with NX GET, which returns the value that is there
ACQUIRE = Verb("SET")  # of a lock: on two servers it would admit two holders
DEL, UNLINK, RENAME = Verb("DEL", writes=ALL), Verb("UNLINK", writes=ALL), Verb("RENAME", writes=2)
PERSIST = Verb("PERSIST")
EXPIREAT, PEXPIREAT, PEXPIRE = _same_again("EXPIREAT"), _same_again("PEXPIREAT"), _same_again("PEXPIRE")
SCAN = _reading("SCAN", key=0)
INFO = _reading("INFO", key=0)
FLUSHDB = _same_again("FLUSHDB", key=0, writes=EVERYTHING)
MULTI, EXEC = _same_again("MULTI", key=0), _same_again("EXEC", key=0)  # as harmless as the commands between them
EVALSHA, EVAL = Verb("EVALSHA", key=3), Verb("EVAL", key=3)
UNSETTLED = (EVALSHA, ADD)
"""After the replies to these an operation may send a second command about the same entry: see `pipeline`."""

# Hashes.
HSET, HSETNX, HDEL = Verb("HSET"), Verb("HSETNX"), Verb("HDEL")
HGET, HMGET, HGETALL, HVALS = _reading("HGET"), _reading("HMGET"), _reading("HGETALL"), _reading("HVALS")
HKEYS, HLEN, HEXISTS = _reading("HKEYS"), _reading("HLEN"), _reading("HEXISTS")
HINCRBY = Verb("HINCRBY")

# Sets.
SADD, SREM, SMOVE, SPOP = Verb("SADD"), Verb("SREM"), Verb("SMOVE", writes=2), Verb("SPOP")
SCARD, SISMEMBER, SMISMEMBER = _reading("SCARD"), _reading("SISMEMBER"), _reading("SMISMEMBER")
SMEMBERS, SRANDMEMBER, SSCAN = _reading("SMEMBERS"), _reading("SRANDMEMBER"), _reading("SSCAN")
SDIFF, SINTER, SUNION = _reading("SDIFF"), _reading("SINTER"), _reading("SUNION")
SDIFFSTORE, SINTERSTORE, SUNIONSTORE = Verb("SDIFFSTORE"), Verb("SINTERSTORE"), Verb("SUNIONSTORE")

# Sorted sets.
ZADD, ZINCRBY, ZREM = Verb("ZADD"), Verb("ZINCRBY"), Verb("ZREM")
ZPOPMAX, ZPOPMIN = Verb("ZPOPMAX"), Verb("ZPOPMIN")
ZREMRANGEBYSCORE, ZREMRANGEBYRANK = Verb("ZREMRANGEBYSCORE"), Verb("ZREMRANGEBYRANK")
ZCARD, ZCOUNT, ZSCORE = _reading("ZCARD"), _reading("ZCOUNT"), _reading("ZSCORE")
ZRANK, ZREVRANK = _reading("ZRANK"), _reading("ZREVRANK")
ZRANGE, ZREVRANGE = _reading("ZRANGE"), _reading("ZREVRANGE")
ZRANGEBYSCORE, ZREVRANGEBYSCORE = _reading("ZRANGEBYSCORE"), _reading("ZREVRANGEBYSCORE")

# Lists.
LPUSH, RPUSH, LPOP, RPOP = Verb("LPUSH"), Verb("RPUSH"), Verb("LPOP"), Verb("RPOP")
LREM, LTRIM, LSET = Verb("LREM"), Verb("LTRIM"), _same_again("LSET")
LLEN, LRANGE, LINDEX = _reading("LLEN"), _reading("LRANGE"), _reading("LINDEX")


ANSWERS: dict[tuple[type, ...], str] = {
    (bytes, NoneType): "GET SET RENAME FLUSHDB HGET LSET LTRIM LINDEX",
    (int,): (
        "EXISTS TTL PTTL DEL UNLINK PERSIST EXPIREAT PEXPIREAT PEXPIRE HSET HSETNX HDEL HLEN HEXISTS HINCRBY SADD SREM SMOVE "
        "SCARD SISMEMBER SDIFFSTORE SINTERSTORE SUNIONSTORE ZREM ZREMRANGEBYSCORE ZREMRANGEBYRANK ZCARD ZCOUNT LPUSH RPUSH "
        "LREM LLEN"
    ),
    (list, NoneType): "EXEC",
}
"""The types of each command's reply.  A reply of another type belongs to another command, or to another protocol."""


def _one_each(*kinds: type, first: int) -> Callable[[Reply, Command], bool]:
    """Return a check that a reply is a list of *kinds*, one for each part of the command from *first* on."""
    known = frozenset(kinds)
    return lambda reply, command: (
        type(reply) is list and len(reply) == len(command) - first and known.issuperset(map(type, reply))
    )


def _is_some(reply: Reply, command: Command | None = None) -> bool:
    """Whether *reply* is a list or a set of payloads."""
    return type(reply) in {list, set} and {bytes}.issuperset(map(type, reply))


def _is_taken(reply: Reply, command: Command) -> bool:
    """Whether *reply* is None, one payload or, if *command* has a count, several."""
    return reply is None or (_is_some(reply) if len(command) > 2 else type(reply) is bytes)


def _is_mapping(reply: Reply, command: Command) -> bool:
    if type(reply) is dict:
        return _is_some([*reply, *reply.values()])
    return _is_some(reply) and len(reply) % 2 == 0


def _is_whole(reply: Reply) -> bool:
    return type(reply) is int or (type(reply) is bytes and len(reply) < 100 and reply.removeprefix(b"-").isdigit())


def _is_score(reply: Reply, command: Command | None = None) -> bool:
    """Whether *reply* is None or a number; RESP2 sends numbers as text."""
    if type(reply) is bytes:
        try:
            float(reply)
        except ValueError:
            return False
    return type(reply) in {bytes, int, float, NoneType}


def _is_page(reply: Reply, command: Command) -> bool:
    """Whether *reply* is a cursor of 64 bits and a list of names."""
    return (
        type(reply) is list
        and len(reply) == 2
        and _is_whole(reply[0])
        and 0 <= int(reply[0]) < 2**64
        and type(reply[1]) is list
        and _is_some(reply[1])
    )


def _is_scored(reply: Reply, command: Command | None = None) -> bool:
    """Whether *reply* is members with their scores: in pairs, or one after another."""
    if type(reply) is not list:
        return False
    pairs = reply if reply and type(reply[0]) is list else [reply[at : at + 2] for at in range(0, len(reply), 2)]
    return all(
        type(pair) is list and len(pair) == 2 and type(pair[0]) is bytes and pair[1] is not None and _is_score(pair[1])
        for pair in pairs
    )


def _is_range(reply: Reply, command: Command) -> bool:
    return _is_scored(reply) if command[-1] == "WITHSCORES" else type(reply) is list and _is_some(reply)


def _is_rank(reply: Reply, command: Command) -> bool:
    if reply is None or len(command) == 3:
        return type(reply) in {int, NoneType}
    return type(reply) is list and len(reply) == 2 and type(reply[0]) is int and _is_score(reply[1])


def _is_added(reply: Reply, command: Command) -> bool:
    return _is_score(reply) if "INCR" in command[2:] else type(reply) is int


SUITS: dict[Callable[[Reply, Command], bool], str] = {
    _one_each(bytes, NoneType, first=1): "MGET",
    _one_each(bytes, NoneType, first=2): "HMGET",
    _one_each(int, first=2): "SMISMEMBER",
    _is_some: "HVALS HKEYS LRANGE SMEMBERS SDIFF SINTER SUNION",
    _is_taken: "SPOP SRANDMEMBER LPOP RPOP",
    _is_mapping: "HGETALL",
    _is_page: "SCAN SSCAN",
    _is_scored: "ZPOPMAX ZPOPMIN",
    _is_range: "ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE",
    _is_rank: "ZRANK ZREVRANK",
    _is_score: "ZINCRBY ZSCORE",
    _is_added: "ZADD",
    lambda reply, _: reply is None or _is_whole(reply): "EVALSHA EVAL",
}
"""Checks of replies that have parts, or send a number as text, in RESP3 or RESP2."""


def _among(table: dict[Any, str], verb: Verb) -> Any:
    return next((found for found, names in table.items() if verb.decode() in names.split()), None)


for _verb in [each for each in vars().values() if isinstance(each, Verb)]:
    _verb.answers = frozenset(_among(ANSWERS, _verb) or ())
    _verb.suits = _among(SUITS, _verb)


class Round:
    """One scan, page by page: it ends with an error if the server repeats a cursor, since the scan would never end.

    (R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980: a cycle is found without keeping all
    cursors.)
    """

    def __init__(self) -> None:
        self.steps = 0
        self.mark: int | None = None

    def step(self, cursor: int) -> None:
        """Go on to *cursor*, or raise ServerGone."""
        if cursor == self.mark:
            raise ServerGone("the server repeats the cursors of a scan, which would never end")
        self.steps += 1
        if self.steps & (self.steps - 1) == 0:
            self.mark = cursor


def written(commands: Iterable[Command]) -> list[str] | None:
    """Return the names that *commands* may change; None means every name."""
    names: list[str] = []
    for command in commands:
        verb = command[0]
        if verb.writes == EVERYTHING:
            return None
        if verb.writes:
            names += command[verb.key : verb.key + verb.writes]
    return [name if isinstance(name, str) else name.decode(errors="replace") for name in names]


SEVERAL = {
    **dict.fromkeys((b"MGET", b"DEL", b"UNLINK", b"SDIFF", b"SINTER", b"SUNION"), ALL),
    **dict.fromkeys((b"SDIFFSTORE", b"SINTERSTORE", b"SUNIONSTORE"), ALL),
    **dict.fromkeys((b"RENAME", b"SMOVE"), 2),
}
"""The number of names in the commands that take more than one."""


def named(command: Command) -> Command:
    """Return the names in *command*, or the pattern of a SCAN."""
    verb = command[0]
    if verb == b"SCAN":
        return command[3:4]
    return command[verb.key : verb.key + SEVERAL.get(verb, 1)] if verb.key else ()


# Scripts.  `servers.memory` has each of them in Python, by name.
INCR = Script.of(
    "incr",
    """
if redis.call('EXISTS', KEYS[1]) == 0 then
  if ARGV[2] == '' then return false end
  if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
  else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
end
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
if sum > -2^53 and sum < 2^53 then return sum end
-- Lua turned the sum into a double, which may have rounded it.
return redis.call('GET', KEYS[1])
""",
)
SWAP = Script.of(
    "swap",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], unpack(ARGV, 3))
return 1
""",
)
RELEASE = Script.of(
    "release",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
)
EXTEND = Script.of(
    "extend",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or ARGV[3] == '1' then left = 0 end
return redis.call('PEXPIRE', KEYS[1], left + ARGV[2])
""",
)
