"""The commands that fleetcache sends, and the properties of each: reads, may be repeated, its names, its replies.

A new operation needs its command here; a coroutine in `values`, `keyspace` or `structures`; its name in
`pipeline.OPERATIONS`; and a method in `servers.database`, so that ``memory://`` knows the command too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType

from redis.exceptions import NoPermissionError, ResponseError

from fleetcache.errors import ServerGone
from fleetcache.exchange.contract import ALL, EVERYTHING, Command, Replies, Reply, Script, Suits, Verb

TEXT: Replies = frozenset((bytes, NoneType))
"""One payload or ``OK``, or nothing."""
COUNT: Replies = frozenset((int,))
GLIMPSES: Replies = frozenset((bytes, NoneType, ResponseError, NoPermissionError))
"""Some bytes; or a refusal, if it is no string, or this user may not read it."""


def _one_each(*kinds: type, first: int) -> Suits:
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


def _is_whole(reply: Reply, command: Command | None = None) -> bool:
    """Whether *reply* is an integer, or an integer in text."""
    return type(reply) is int or (type(reply) is bytes and len(reply) < 100 and reply.removeprefix(b"-").isdigit())


def _is_result(reply: Reply, command: Command) -> bool:
    """Whether *reply* may come from one of our scripts."""
    return reply is None or _is_whole(reply)


def _is_versions(reply: Reply, command: Command) -> bool:
    """Whether *reply* is a version for each name in *command*."""
    return type(reply) is list and len(reply) == command[2] and {bytes}.issuperset(map(type, reply))


def _is_standing(reply: Reply, command: Command) -> bool:
    """Whether *reply* may come from `TAKE`: how many milliseconds a lease is held, a word, and what belongs to it."""
    return type(reply) is list and len(reply) > 1 and type(reply[0]) is int and type(reply[1]) is bytes


def _is_notes(reply: Reply, command: Command) -> bool:
    """Whether *reply* may come from `NOTED`: the version of an epoch, and what was noted when earlier ones ended."""
    return type(reply) is list and len(reply) > 0 and {bytes}.issuperset(map(type, reply))


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
    if type(reply) is not list or len(reply) != 2:
        return False
    cursor, names = reply
    return _is_whole(cursor) and 0 <= int(cursor) < 2**64 and type(names) is list and _is_some(names)


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


# --- the commands, each with the replies that it may have -----------------------------------------


def _reading(name: str, replies: Replies, *, names: int = 1) -> Verb:
    return Verb(name, replies, reads=True, names=names)


def _same_again(name: str, replies: Replies, *, names: int = 1, writes: int | None = None) -> Verb:
    """A write that may be repeated: its effect and its reply do not depend on how often it ran."""
    return Verb(name, replies, harmless=True, names=names, writes=writes)


def _is_time(reply: Reply, command: Command) -> bool:
    """Whether *reply* is seconds and microseconds, in digits."""
    return type(reply) is list and len(reply) == 2 and all(type(part) is bytes and part.isdigit() for part in reply)


PAYLOADS, FIELDS = _one_each(bytes, NoneType, first=1), _one_each(bytes, NoneType, first=2)

# Strings and keys.
GET, MGET = _reading("GET", TEXT), _reading("MGET", PAYLOADS, names=ALL)
EXISTS, TTL, PTTL = _reading("EXISTS", COUNT), _reading("TTL", COUNT), _reading("PTTL", COUNT)
# Reads that only the primary answers: a write depends on them, and a replica may be behind.
GET_NOW, PTTL_NOW = _same_again("GET", TEXT, writes=0), _same_again("PTTL", COUNT, writes=0)
PTTL_NOW.aside = True  # it tells how long a copy may live
EXISTS_NOW, MGET_NOW = _same_again("EXISTS", COUNT, writes=0), _same_again("MGET", PAYLOADS, writes=0, names=ALL)
# Whether an entry has metadata, asked beside a command that does not tell; of an entry of another kind they show nothing.
GLIMPSE, GLIMPSE_NOW = _reading("GETRANGE", GLIMPSES), _same_again("GETRANGE", GLIMPSES, writes=0)
GLANCE, GLANCE_NOW = _reading("GET", GLIMPSES), _same_again("GET", GLIMPSES, writes=0)
for _glimpse in (GLIMPSE, GLIMPSE_NOW, GLANCE, GLANCE_NOW):
    _glimpse.aside = True
# Its clock, by which entries tell how long they are fresh.
TIME = Verb("TIME", _is_time, harmless=True, key=0)
TIME.answers |= frozenset((NoPermissionError,))  # for a user who may not ask: see `judging`
SET = _same_again("SET", TEXT)
# With NX or XX.  Repeated on one server it answers differently; another server may run it.
SET_IF = Verb("SET", TEXT, repeats_elsewhere=True)
ADD = Verb("SET", TEXT, repeats_elsewhere=True)  # with NX GET, which returns the payload that is there
ACQUIRE = Verb("SET", TEXT, sole=True)  # of a lock: two servers would admit two holders
ADMIT = Verb("EVALSHA", TEXT, sole=True, key=3)  # the same, with the script `LOCK`
DEL, UNLINK = Verb("DEL", COUNT, writes=ALL), Verb("UNLINK", COUNT, writes=ALL)
GIVE_UP = Verb("DEL", COUNT, harmless=True, names=ALL, writes=ALL)  # of tags' versions: once more gives up the same
RENAME, PERSIST = Verb("RENAME", TEXT, writes=2), Verb("PERSIST", COUNT)
PEXPIRE, EXPIREAT = _same_again("PEXPIRE", COUNT), _same_again("EXPIREAT", COUNT)
PEXPIREAT = _same_again("PEXPIREAT", COUNT)
SCAN = Verb("SCAN", _is_page, reads=True, key=0)
INFO = Verb("INFO", reads=True, key=0)
# Of any entry, asked of the server that holds it: what it is, and how large.  For `inspection`.
TYPE, STRLEN = (Verb(name, harmless=True, writes=0) for name in ("TYPE", "STRLEN"))
DBSIZE = Verb("DBSIZE", harmless=True, key=0)
MEMORY, OBJECT = (Verb(name, harmless=True, key=2, writes=0) for name in ("MEMORY", "OBJECT"))
HSCAN, XLEN, XRANGE = (Verb(name, harmless=True, writes=0) for name in ("HSCAN", "XLEN", "XRANGE"))
HSTRLEN, HRANDFIELD = (Verb(name, harmless=True, writes=0) for name in ("HSTRLEN", "HRANDFIELD"))
BEGINNINGS = Verb("EVAL_RO", harmless=True, key=3, writes=0)  # with a script that returns the beginnings of members
FLUSHDB = Verb("FLUSHDB", TEXT, harmless=True, key=0, writes=EVERYTHING)
# As harmless as the commands between them.
MULTI, EXEC = Verb("MULTI", harmless=True, key=0), Verb("EXEC", frozenset((list, NoneType)), harmless=True, key=0)
EVALSHA, EVAL = Verb("EVALSHA", _is_result, key=3), Verb("EVAL", _is_result, key=3)
# Of the versions of tags.  Making one changes no copy: there are copies of versions, but not of missing ones.
CAPTURES = Verb("EVALSHA", _is_versions, harmless=True, key=3, writes=0)
VOID = Verb(
    "DEL", COUNT, harmless=True, names=0, writes=0, aside=True
)  # of leases, before a write; nobody reads its reply
# With the scripts about leases, each of which may run twice: `TAKE` grants one lease to one holder, and `FILL` finds the
# payload that it stored.  Their first key is the entry.
LEASE = Verb("EVALSHA", _is_standing, harmless=True, key=3, writes=0)
STORE = Verb("EVALSHA", COUNT, harmless=True, key=3)
FREE = Verb("EVALSHA", COUNT, harmless=True, key=3, writes=0)
NOTES = Verb("EVALSHA", _is_notes, harmless=True, key=3, writes=0)
for _verb in (CAPTURES, LEASE, STORE, FREE, NOTES):  # perhaps this user may run no scripts: see `refuses_scripts`
    _verb.answers |= frozenset((NoPermissionError, ResponseError))
# A lease without scripts; perhaps this user may not write it either.
HOLD = Verb("SET", frozenset((bytes, NoneType, NoPermissionError)), writes=0)
UNSETTLED = (EVALSHA, ADD)
"""Commands after whose reply an operation may ask the server again about the same entry: see `pipeline`."""

# Hashes.
HSET, HSETNX, HDEL, HINCRBY = (Verb(name, COUNT) for name in ("HSET", "HSETNX", "HDEL", "HINCRBY"))
HGET, HMGET, HGETALL = _reading("HGET", TEXT), _reading("HMGET", FIELDS), _reading("HGETALL", _is_mapping)
HKEYS, HVALS = _reading("HKEYS", _is_some), _reading("HVALS", _is_some)
HLEN, HEXISTS = _reading("HLEN", COUNT), _reading("HEXISTS", COUNT)

# Sets.
SADD, SREM, SMOVE = Verb("SADD", COUNT), Verb("SREM", COUNT), Verb("SMOVE", COUNT, writes=2)
SPOP, SRANDMEMBER = Verb("SPOP", _is_taken), _reading("SRANDMEMBER", _is_taken)
SCARD, SISMEMBER = _reading("SCARD", COUNT), _reading("SISMEMBER", COUNT)
SMISMEMBER = _reading("SMISMEMBER", _one_each(int, first=2))
SMEMBERS, SSCAN = _reading("SMEMBERS", _is_some), _reading("SSCAN", _is_page)
SDIFF, SINTER, SUNION = (_reading(name, _is_some, names=ALL) for name in ("SDIFF", "SINTER", "SUNION"))
SDIFFSTORE, SINTERSTORE, SUNIONSTORE = (
    Verb(name, COUNT, names=ALL) for name in ("SDIFFSTORE", "SINTERSTORE", "SUNIONSTORE")
)

# Sorted sets.
ZADD, ZINCRBY, ZREM = Verb("ZADD", _is_added), Verb("ZINCRBY", _is_score), Verb("ZREM", COUNT)
ZPOPMAX, ZPOPMIN = Verb("ZPOPMAX", _is_scored), Verb("ZPOPMIN", _is_scored)
ZREMRANGEBYSCORE, ZREMRANGEBYRANK = Verb("ZREMRANGEBYSCORE", COUNT), Verb("ZREMRANGEBYRANK", COUNT)
ZCARD, ZCOUNT, ZSCORE = _reading("ZCARD", COUNT), _reading("ZCOUNT", COUNT), _reading("ZSCORE", _is_score)
ZRANK, ZREVRANK = _reading("ZRANK", _is_rank), _reading("ZREVRANK", _is_rank)
ZRANGE, ZREVRANGE = _reading("ZRANGE", _is_range), _reading("ZREVRANGE", _is_range)
ZRANGEBYSCORE, ZREVRANGEBYSCORE = _reading("ZRANGEBYSCORE", _is_range), _reading("ZREVRANGEBYSCORE", _is_range)

# Lists.
LPUSH, RPUSH, LPOP, RPOP = Verb("LPUSH", COUNT), Verb("RPUSH", COUNT), Verb("LPOP", _is_taken), Verb("RPOP", _is_taken)
LREM, LTRIM, LSET = Verb("LREM", COUNT), Verb("LTRIM", TEXT), _same_again("LSET", TEXT)
LLEN, LRANGE, LINDEX = _reading("LLEN", COUNT), _reading("LRANGE", _is_some), _reading("LINDEX", TEXT)


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


def refuses_scripts(reply: Reply) -> bool:
    """Whether *reply* to a script says that this user may run none, or that the server has none."""
    return isinstance(reply, NoPermissionError) or (
        isinstance(reply, ResponseError) and any(sign in str(reply).lower() for sign in REFUSED)
    )


REFUSED = ("unknown command", "acl failure in script", "the user executing the script can't")
"""Words in refusals of scripts: the server has none, or this user may not call one of the commands in it."""


def written_by(command: Command) -> Sequence[str] | None:
    """Return the names that *command* may change; None means every name."""
    verb = command[0]
    if verb.writes == 1 and type(command[verb.key]) is str:
        return (command[verb.key],)
    if verb.writes == EVERYTHING:
        return None
    names = command[verb.key : verb.key + verb.writes] if verb.writes else ()
    return [name if isinstance(name, str) else name.decode(errors="replace") for name in names]


def written(commands: Iterable[Command]) -> list[str] | None:
    """Return the names that *commands* may change; None means every name."""
    names: list[str] = []
    for command in commands:
        found = written_by(command)
        if found is None:
            return None
        names += found
    return names


def named(command: Command) -> Command:
    """Return the names in *command*, or the pattern of a SCAN."""
    verb = command[0]
    if verb == b"SCAN":
        return command[3:4]
    return command[verb.key : verb.key + verb.names] if verb.key else ()


# Scripts.  `servers.database` has each of them in Python, by name.
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
LOCK = Script.of(
    "lock",
    # KEYS[2], if it is given, holds the last number.  ARGV: the end of the token, and the options of SET.
    """
local time = redis.call('TIME')
local number = string.format('%016x', time[1] * 1000000 + time[2])
local last = KEYS[2] and redis.call('GET', KEYS[2])
if last and last >= number and tonumber(last, 16) then number = string.format('%016x', tonumber(last, 16) + 1) end
local token = number .. ARGV[1]
if not redis.call('SET', KEYS[1], token, 'NX', unpack(ARGV, 2)) then return false end
if KEYS[2] then redis.call('SET', KEYS[2], number, 'PX', 604800000) end
return token
""",
)
RELEASE = Script.of(
    "release",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
)
RELEASE_ENDING = Script.of(
    "release_ending",
    # For a caller who does not know the number at the beginning of the token.
    """
local token = redis.call('GET', KEYS[1])
if not token or string.sub(token, -#ARGV[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
)
EXTEND = Script.of(
    "extend",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
-- 0: longer by ARGV[2]; 1: for ARGV[2] from now on; 2: the same, if that is not shorter.
if ARGV[3] == '2' and left > tonumber(ARGV[2]) then return 1 end
if left < 0 or ARGV[3] ~= '0' then left = 0 end
return redis.call('PEXPIRE', KEYS[1], left + ARGV[2])
""",
)
CAPTURE = Script.of(
    "capture",
    """
local found = {}
for place, key in ipairs(KEYS) do
  local version, new = redis.call('GET', key), ARGV[place + 2]
  if not version or #version ~= #new then
    version = new
    if ARGV[1] == '' then redis.call('SET', key, version)
    else redis.call('SET', key, version, 'PX', ARGV[2]) end
  else
    local left = redis.call('PTTL', key)
    if left >= 0 and ARGV[1] == '' then redis.call('PERSIST', key)
    -- Rarely, because it is announced: every near cache then reads the version anew.
    elseif left >= 0 and left < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[2]) end
  end
  found[place] = version
end
return found
""",
)

# Leases: which process of the fleet may load an entry.  KEYS[1] is the entry, KEYS[2] its lease.  The value is "generation
# holder over", and " failed" if no process shall try as long as the key lives.  Others wait for the holder until the key
# has only *over* milliseconds to live: so no clock is read, for which a user may lack the right.
_LEASES = """
local function same(mode, mark)
  if mode == '' then return redis.call('EXISTS', KEYS[1]) == 0 end
  if mode == 'head' then return redis.call('GETRANGE', KEYS[1], 0, #mark - 1) == mark end
  local payload = redis.call('GET', KEYS[1])
  return payload and redis.sha1hex(payload) == mark
end
local function drop()
  -- Not every user may delete.
  if type(redis.pcall('DEL', KEYS[2])) == 'table' then redis.call('SET', KEYS[2], '- - 0', 'PX', 1) end
end
local lease = redis.call('GET', KEYS[2])
local generation, holder, over, failed
if lease then generation, holder, over, failed = lease:match('^(%x+) (%x+) (%d+)(.*)$') end
"""
TAKE = Script.of(
    "take",
    f"""{_LEASES}
-- ARGV: mode, mark, generation, holder, milliseconds to hold and to keep; without the last two only look.
if not same(ARGV[1], ARGV[2]) then
  local payload = redis.call('GET', KEYS[1])
  return payload and {{0, 'entry', payload}} or {{0, 'gone'}}
end
local left = generation and redis.call('PTTL', KEYS[2]) - over or 0
if generation and failed ~= '' then return {{left, 'failed', generation, holder}} end
if generation and holder == ARGV[4] then return {{left, 'mine', generation, holder}} end
if generation and (left > 0 or not ARGV[5]) then return {{left, 'held', generation, holder}} end
if not ARGV[5] then return {{0, 'free'}} end
-- Who takes over keeps the generation: else a value that takes longer than a lease would never be stored.
if not generation then generation = ARGV[3] end
local new = string.format('%s %s %.0f', generation, ARGV[4], ARGV[6] - ARGV[5])
redis.call('SET', KEYS[2], new, 'PX', ARGV[6])
return {{tonumber(ARGV[5]), 'mine', generation, ARGV[4]}}
""",
)
FILL = Script.of(
    "fill",
    f"""{_LEASES}
-- ARGV: generation, mode, mark, payload, milliseconds to live or '', and a version for each further key.
if generation ~= ARGV[1] or failed ~= '' then
  local there = redis.pcall('GET', KEYS[1])
  return there == ARGV[4] and 1 or 0
end
if not same(ARGV[2], ARGV[3]) then return -1 end
for place = 3, #KEYS do
  if redis.call('GET', KEYS[place]) ~= ARGV[place + 3] then return -2 end
end
if ARGV[5] == '' then redis.call('SET', KEYS[1], ARGV[4])
else redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5]) end
drop()
return 1
""",
)
LETGO = Script.of(
    "letgo",
    f"""{_LEASES}
-- ARGV: holder, and for how many milliseconds no process shall try again.
if not generation or holder ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) <= 0 then
  drop()
  return 1
end
redis.call('SET', KEYS[2], generation .. ' ' .. holder .. ' 0 failed', 'PX', ARGV[2])
return 1
""",
)

# KEYS: the epoch, and the list of what has ended its versions: each element is such a version, and the glob of what was
# deleted, the newest first.  A load whose epoch is in the list knows all that was deleted since.
ENDING = Script.of(
    "ending",
    """
-- ARGV: the glob, and for how many milliseconds it is kept.
local ended = redis.call('GET', KEYS[1])
-- No load could find its epoch in the list.
if not ended and redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if not ended or #ended ~= 8 then ended = '--------' end
redis.call('LPUSH', KEYS[2], ended .. ARGV[1])
redis.call('LTRIM', KEYS[2], 0, 99)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
""",
)
NOTED = Script.of(
    "noted",
    """
-- ARGV: a version, if there is none, and for how many milliseconds it lives.
local epoch = redis.call('GET', KEYS[1])
if not epoch or #epoch ~= #ARGV[1] then
  epoch = ARGV[1]
  redis.call('SET', KEYS[1], epoch, 'PX', ARGV[2])
else
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return {epoch, unpack(redis.call('LRANGE', KEYS[2], 0, -1))}
""",
)
