"""memory:// answers as a real server does."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import DataError, ExecAbortError, NoScriptError, ResponseError

from fleetcache import commands as c
from fleetcache.exchange.contract import Command, Reply, Script, Verb
from fleetcache.servers.arguments import glob
from fleetcache.servers.database import COMMANDS
from fleetcache.servers.memory import MemoryServer, memory_server
from fleetcache.servers.scripts import SCRIPTS
from fleetcache.testing.servers import EmbeddedServer

# A real server ----------------------------------------------------------------------------------


DATABASE = 15  # emptied by each test that compares; no other test is in it


class RealServer:
    """The same face as MemoryServer, over redis-py's own connection."""

    def __init__(self, path: str) -> None:
        kind: Any = UnixDomainSocketConnection
        self._connection = kind(path=path, db=DATABASE, protocol=3)
        self._connection.connect()

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        return [self._reply(command) for command in commands]

    def _reply(self, command: Command) -> Reply:
        parts = (part.lua if isinstance(part, Script) else part for part in command)
        self._connection.send_command(*parts)
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as refusal:
            return refusal

    def close(self) -> None:
        self._connection.disconnect()


@pytest.fixture
def real(valkey: EmbeddedServer) -> Iterator[RealServer]:
    """A real server, empty."""
    server = RealServer(str(valkey.socket))
    server.exchange([("FLUSHDB",)])
    yield server
    server.close()


# Random commands --------------------------------------------------------------------------------

# Lower case words stand for one of these, "word*" for one to three, "[word]" for one or none.
WORDS = {
    "any": "s1 s2 l1 l2 u1 u2 h1 z1 z2 none",
    "string": "s1 s2 s2 s3 s3 l1",
    "list": "l1 l1 l2 l2 l3 s1",
    "set": "u1 u1 u2 u2 u3 z1",
    "hash": "h1 h1 h1 h2 h2 s1",
    "zset": "z1 z1 z1 z2 z2 u1",
    "value": "a b c 1 12 -3 1.5 2.25 007 +1",
    "member": "a b c d e",
    "setting": "a|1 b|2 c|x a|1.5 d|-7 b|0",
    "int": "0 1 2 3 -1 -2 -3 10 -10 x 1.0 9223372036854775808",
    "delta": "1 2 -3 +1 x 1.0 9223372036854775808",
    "score": "0 1 2 2 -1.5 3.25 inf -inf 1e300 0.1 x nan",
    "scored": "1|a 2|b 2|a 3.5|c -1|d inf|e 2|d x|a nan|b .5|c",
    "bound": "-inf +inf 0 (0 1 (1 2 (2 3.5 (3.5 x (x",
    "count": "0 1 2 5 -1 x",
    "limit": "LIMIT|0|2 LIMIT|1|1 LIMIT|1|-1 LIMIT|-1|2 LIMIT|0|x",
    "scores": "WITHSCORES",
    "score?": "WITHSCORE",
    "zadd": "NX|CH NX XX XX|GT XX|LT GT|CH LT CH",
    "zadd-incr": "NX XX GT LT CH|XX",
    "px": "PX|time000 PX|time000 PX|0 PX|-1 PX|x",
    "if": "NX XX",
    "past": "0 -1 x 9223372036854775807 -9223372036854775807",
    "everything": "* [a-c] ? x*",
    "kind": "string list set hash zset",
    "pattern": "* *1 s* ? ?? [su]1 [^s]* [a-m]? \\s1 [s [z-s]* s[0-9]",
}

GRAMMAR = """
SCAN 0 COUNT 100 MATCH pattern | SCAN 0 COUNT 100 TYPE kind | SCAN 0 COUNT 3 | DBSIZE | TYPE any | STRLEN any | SCAN x | SCAN -1 | SCAN 0 COUNT 0 | SCAN 0 COUNT x
EXISTS any | DEL any | DEL any* | UNLINK any | DEL | RENAME any any | RENAME string string | TTL any
PTTL any | PERSIST any | PEXPIRE any time000 | PEXPIRE any past | EXPIREAT any 9999999time
EXPIREAT any past | EXPIREAT any 5 | PEXPIREAT any 9999999time000 | PEXPIREAT any past
GET any | GET string | GETRANGE any int int | GETRANGE string 0 int | MGET any*
SET string value | SET string value | SET any value [px] [if]
SET string value [px] [if] | SET string value KEEPTTL | INCRBY string delta | INCRBY string delta
HSET hash setting* | HSET hash setting | HSET any setting | HSETNX hash member value
HGET hash member | HMGET hash member* | HGETALL hash | HDEL hash member* | HLEN hash | HKEYS hash
HVALS hash | HSCAN hash 0 COUNT 100 MATCH everything | HEXISTS hash member | HINCRBY hash member delta
LPUSH list value* | RPUSH list value* | RPUSH list member* | LPOP list [count] | RPOP list [count]
LRANGE list int int | LRANGE list 0 -1 | LLEN any | LINDEX list int | LSET list int value
LREM list int member | LTRIM list int int
SADD set member* | SADD set member | SADD any member | SADD set | SCARD set
SDIFF set* | SDIFFSTORE set set* | SINTER set* | SINTERSTORE set set* | SUNION set*
SUNIONSTORE any set* | SISMEMBER set member | SMISMEMBER set member* | SMEMBERS set
SMOVE set set member | SPOP set 100 | SPOP set 0 | SPOP set -1 | SRANDMEMBER set 100
SREM set member* | SSCAN set 0 COUNT 100 MATCH everything
ZADD zset scored | ZADD zset scored* | ZADD zset zadd scored* | ZADD zset [zadd-incr] INCR scored
ZADD any scored | ZCARD zset | ZCOUNT zset bound bound | ZINCRBY zset score member
ZPOPMIN zset [count] | ZPOPMAX zset [count] | ZRANGE zset int int [scores]
ZREVRANGE zset int int [scores] | ZRANGEBYSCORE zset bound bound [scores] [limit]
ZREVRANGEBYSCORE zset bound bound [scores] [limit] | ZRANK zset member [score?]
ZREVRANK zset member [score?] | ZREM zset member* | ZREMRANGEBYSCORE zset bound bound
ZREMRANGEBYRANK zset int int | ZSCORE zset member
EVAL:incr string int value | EVAL:incr any int none time000 | EVAL:incr string int none none
EVAL:incr any int value -1 | EVAL:swap string value value | EVAL:release string value
EVAL:extend string value time000 1 | EVAL:extend string value time000 0
EVAL:capture string time000 time000 value | EVAL:capture any time000 time000 value | EVAL:capture string none none value
"""
TEMPLATES = [template for line in GRAMMAR.split("\n") for template in line.split("|") if template.strip()]
UNORDERED = set("SDIFF SINTER SUNION SMEMBERS HKEYS HVALS SPOP SRANDMEMBER".split())

LUA = {script.name: script for script in vars(c).values() if isinstance(script, Script)}


class Author:
    """Writes commands from `GRAMMAR`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        # No two deadlines are so near that the time between two commands could matter.
        self._times = list(range(1_000, 9_000, 5))
        self._random.shuffle(self._times)

    def command(self) -> Command:
        verb, *tokens = self._random.choice(TEMPLATES).split()
        parts = [part for token in tokens for part in self._expanded(token)]
        if verb.startswith("EVAL"):
            key, *arguments = ("" if part == "none" else part for part in parts)
            arguments += [""] * (3 - len(arguments)) if verb == "EVAL:incr" else []
            return ("EVAL", LUA[verb[5:]], 1, key, *arguments)
        return (verb, *parts)

    def _expanded(self, token: str) -> list[str]:
        if token.startswith("["):
            return self._expanded(token[1:-1]) if self._random.random() < 0.5 else []
        if token.endswith("*") and token[:-1] in WORDS:
            times = self._random.randint(1, 3)
            return [part for _ in range(times) for part in self._expanded(token[:-1])]
        choice = self._random.choice(WORDS[token].split()) if token in WORDS else token
        return [self._timed(part) for part in choice.split("|")]

    def _timed(self, part: str) -> str:
        return part.replace("time", str(self._times.pop())) if "time" in part else part

    def batch(self) -> list[Command]:
        commands = [self.command() for _ in range(self._random.randint(1, 4))]
        return [("MULTI",), *commands, ("EXEC",)] if self._random.random() < 0.1 else commands


def comparable(command: Command, reply: Reply) -> Any:
    """*reply* without what may differ between two servers that are both right."""
    match str(command[0]), reply:
        case _, ResponseError():
            # A real server adds where in the script a refusal was raised.
            return type(reply), str(reply).partition(" script: ")[0]
        case name, list() if name in UNORDERED:
            return sorted(reply)
        case (("SCAN" | "SSCAN"), [cursor, list(names)]):
            # The order is the server's own, so a page that is not the last may hold any names.
            return "3" in command or (cursor, sorted(names))
        case "HSCAN", [cursor, list(pairs)]:
            return cursor, dict(zip(pairs[::2], pairs[1::2], strict=True))
        case "PTTL", int() if reply > 0:
            return pytest.approx(reply, abs=2_000)
        case "TTL", int() if reply > 0:
            return pytest.approx(reply, abs=2)
        case _:
            return reply


def all_comparable(commands: Sequence[Command], replies: Sequence[Reply]) -> list[Any]:
    if commands[0] == ("MULTI",) and isinstance(replies[-1], list):
        return [*replies[:-1], all_comparable(commands[1:-1], replies[-1])]
    return [comparable(*pair) for pair in zip(commands, replies, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_answers_as_a_real_server(real: RealServer, seed: int) -> None:
    """Whatever is asked, in whatever order, both give the same replies."""
    memory, author = MemoryServer(), Author(seed)

    for _ in range(250):
        commands = author.batch()
        ours = all_comparable(commands, memory.exchange(commands))
        theirs = all_comparable(commands, real.exchange(commands))
        assert ours == theirs, commands


EDGES = """
SET a 9223372036854775807; INCRBY a 1; INCRBY a -1; INCRBY a -9223372036854775808; INCRBY a -9223372036854775808
HSET h a 9223372036854775807; HINCRBY h a 1; HSET h a 1 a 2; HGETALL h; HDEL h a a; EXISTS h; HLEN h
SET a 1 PX 9223372036854775807; SET a 1; EXPIREAT a 9223372036854775; PTTL a; EXPIREAT a 9223372036854775807
PEXPIRE a 9223372036854775807; EXPIREAT a -9223372036854775808; PEXPIRE a -9223372036854775808; EXISTS a; PERSIST a
ZADD z inf a -inf b 1e300 c 0.1 d 3 f; ZRANGE z 0 -1 WITHSCORES; ZINCRBY z -inf a; ZPOPMAX z 2; ZADD z INCR -inf x
RPUSH l a b; LRANGE l -9223372036854775808 9223372036854775807; LTRIM l 1 0; EXISTS l; LPOP l 0; LPOP l; LINDEX l x
SADD s a a; SREM s a a; EXISTS s; ZADD z 1 a 2 a; ZSCORE z a; SREM z a; SADD t; SREM t; LPUSH t; SMOVE z t a; SMOVE t z a
SADD s a; PEXPIRE s 90000; SMOVE s s a; PTTL s; SMOVE s s b; SMOVE s t a; EXISTS s; RENAME t t; RENAME t s; RENAME t s
SADD s a; SUNIONSTORE s s t; SDIFFSTORE s s s; EXISTS s; SINTER s t; SUNION s t u; SPOP s; SRANDMEMBER s; SET s 1; SCARD s
MULTI; FLUSHDB; GET a; EXEC; MULTI; EXEC; MULTI; GET; SET a 1; EXEC; GET a; SET a
"""


@pytest.mark.parametrize("line", EDGES.strip().split("\n"))
def test_edges_are_where_a_real_server_has_them(real: RealServer, line: str) -> None:
    """What hardly ever happens happens in the same way."""
    commands = [tuple(command.split()) for command in line.split(";")]

    ours, theirs = MemoryServer().exchange(commands), real.exchange(commands)

    assert all_comparable(commands, ours) == all_comparable(commands, theirs)


def test_every_command_is_compared() -> None:
    """A command that is added here is added to the grammar."""
    asked = {template.split()[0].split(":")[0] for template in TEMPLATES}

    untried = {name.decode() for name in COMMANDS} - asked

    assert untried == {"EVALSHA", "FLUSHDB", "TIME"}
    assert SCRIPTS.keys() == LUA.keys()


PATTERNS = """
* ** a*c *b*
? a?c [abc] [^abc] [a-c]x [c-a]x [a-] [a-]] [] []a [^] [^]a [ [a [^ [\\]] [\\a-c] \\* \\ a\\ [a\\
[-a] [a^] [a-cx-z] . + ( ) ^a a$ [.] [[] [[a] [&&] [a||b] {a}
""".split()


def test_patterns_match_as_a_real_server(real: RealServer) -> None:
    """A glob means what the server takes it for, down to its oddities."""
    memory = MemoryServer()
    letters = "abcx*?[]^-\\.\n&|"
    names = [*letters, *(a + b for a in letters for b in letters), "abc", "axc", "a\\", "aéc"]

    for server in memory, real:
        server.exchange([("SET", name, 1) for name in names])

    for pattern in PATTERNS:
        scan = ("SCAN", 0, "MATCH", pattern, "COUNT", 10_000)
        ((_, ours),), ((_, theirs),) = (server.exchange([scan]) for server in (memory, real))
        assert sorted(ours) == sorted(theirs), pattern
    assert glob(b"a*") is glob(b"a*")


# Time -------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ask(clock: Clock) -> Callable[..., Reply]:
    """Ask one command of a server with a turned clock."""
    server = MemoryServer(clock=clock)
    return lambda *command: server.exchange([command])[0]


def test_key_lives_until_its_deadline(clock: Clock, ask: Callable[..., Reply]) -> None:
    """A key is there up to the last millisecond and gone with it."""
    ask("SET", "a", 1, "PX", 10_000)

    clock.turn(9.999)
    assert ask("GET", "a") == b"1"
    assert ask("PTTL", "a") == 1

    clock.turn(0.001)
    assert ask("GET", "a") is None
    assert ask("TTL", "a") == -2


def test_ttl_is_rounded_and_pttl_exact(clock: Clock, ask: Callable[..., Reply]) -> None:
    """TTL is the nearest second, as on a real server."""
    ask("SET", "a", 1, "PX", 2_500)
    assert (ask("TTL", "a"), ask("PTTL", "a")) == (3, 2_500)

    clock.turn(0.001)
    assert (ask("TTL", "a"), ask("PTTL", "a")) == (2, 2_499)


def test_what_keeps_a_deadline_and_what_ends_it(ask: Callable[..., Reply]) -> None:
    """A changed value keeps its deadline, a replaced one does not."""
    for command, left in [
        (("INCRBY", "a", 1), 10),
        (("SET", "a", 2, "KEEPTTL"), 10),
        (("SET", "a", 2), -1),
        (("PERSIST", "a"), -1),
    ]:
        ask("SET", "a", 1, "PX", 10_000)
        ask(*command)
        assert ask("TTL", "a") == left, command

    ask("PEXPIRE", "a", 10_000)
    ask("SET", "b", 1, "PX", 99_000)
    ask("RENAME", "a", "b")
    assert ask("TTL", "b") == 10


def test_a_deadline_that_has_passed_deletes(ask: Callable[..., Reply]) -> None:
    """PEXPIRE in the past is a DEL that says 1."""
    ask("SET", "a", 1)
    ask("SET", "b", 1)

    assert ask("PEXPIRE", "a", 0) == 1
    assert ask("PEXPIREAT", "b", 1_700_000_000_000) == 1
    assert ask("MGET", "a", "b") == [None, None]


def test_expired_keys_are_counted_nowhere(clock: Clock, ask: Callable[..., Reply]) -> None:
    """Nobody has to ask for a key to be rid of it."""
    ask("SET", "a", 1, "PX", 1_000)
    ask("RPUSH", "b", 1)
    ask("PEXPIRE", "b", 1_000)
    ask("SET", "c", 1)

    clock.turn(1)

    assert ask("SCAN", 0) == [b"0", [b"c"]]
    assert ask("SET", "a", 2, "XX") is None
    assert ask("SADD", "b", "of another type") == 1


def test_extend_adds_or_replaces(ask: Callable[..., Reply]) -> None:
    """A lock is extended by its holder only."""
    ask("SET", "lock", "me", "PX", 1_000)

    assert ask("EVALSHA", c.EXTEND, 1, "lock", "you", 500, "1") == 0
    assert ask("EVALSHA", c.EXTEND, 1, "lock", "me", 500, "0") == 1
    assert ask("PTTL", "lock") == 1_500
    assert ask("EVALSHA", c.EXTEND, 1, "lock", "me", 500, "1") == 1
    assert ask("PTTL", "lock") == 500


# Scanning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 100, 1_000])
@pytest.mark.parametrize(
    ("scan", "add", "remove"),
    [
        (("SCAN",), lambda name: ("SET", name, 1), lambda name: ("DEL", name)),
        (("SSCAN", "k"), lambda name: ("SADD", "k", name), lambda name: ("SREM", "k", name)),
    ],
)
def test_scan_misses_nothing_that_stays(
    scan: Command,
    add: Callable[[str], Command],
    remove: Callable[[str], Command],
    count: int,
) -> None:
    """However much comes and goes meanwhile, what is there all the time is returned."""
    server, chance = MemoryServer(), random.Random(count)
    staying = {f"stays{number}" for number in range(200)}
    coming = [f"comes{number}" for number in range(200)]
    server.exchange([add(name) for name in (*staying, *coming)])

    seen: set[str] = set()
    cursor: Any = 0
    while cursor != b"0":
        ((cursor, names),) = server.exchange([(*scan, cursor, "COUNT", count)])
        seen.update(name.decode() for name in names)
        some = chance.sample(coming, 20)
        server.exchange([remove(name) for name in some[:10]] + [add(name) for name in some[10:]])

    assert staying <= seen


# The exchange -----------------------------------------------------------------------------------


def test_refusals_stand_in_their_place() -> None:
    """One command's refusal is not the next one's."""
    ok, refusal, value = MemoryServer().exchange(
        [(Verb("SET"), "a", "x"), (Verb("INCRBY"), "a", 1), (Verb("GET", reads=True), "a")]
    )

    assert (ok, value) == (b"OK", b"x")
    assert isinstance(refusal, ResponseError)
    assert str(refusal) == "value is not an integer or out of range"


def test_unknown_command_is_refused() -> None:
    """A name that nobody knows is a refusal, not a crash."""
    script = Script.of("nobody's", "return 1")

    first, second = MemoryServer().exchange([("FOO", "a"), ("EVALSHA", script, 1, "a")])

    assert str(first) == "unknown command 'FOO'"
    assert isinstance(second, NoScriptError)


def test_parts_are_written_as_on_the_wire() -> None:
    """The same types are taken, and refused, as by hiredis."""
    server = MemoryServer()

    server.exchange([("SET", "é", 1), ("SET", b"\xff", 1.5), ("SET", "big", 1e17)])

    assert server.exchange([("MGET", "é".encode(), b"\xff", "big")]) == [[b"1", b"1.5", b"1e+17"]]
    for part in (None, True, object()):
        with pytest.raises(DataError):
            server.exchange([("SET", "é", "changed"), ("SET", "a", part)])
    assert server.exchange([("GET", "é")]) == [b"1"]


def test_transaction_queues_and_then_runs() -> None:
    """A refusal inside leaves the rest of the transaction standing."""
    replies = MemoryServer().exchange([("MULTI",), ("SET", "a", "x"), ("INCRBY", "a", 1), ("GET", "a"), ("EXEC",)])

    assert replies[:4] == [b"OK", b"QUEUED", b"QUEUED", b"QUEUED"]
    assert replies[4][0::2] == [b"OK", b"x"]
    assert isinstance(replies[4][1], ResponseError)


def test_transaction_with_a_wrong_command_does_nothing() -> None:
    """What could not be queued spoils the whole."""
    server = MemoryServer()

    replies = server.exchange([("MULTI",), ("SET", "a", 1), ("GET",), ("EXEC",), ("EXISTS", "a")])

    assert isinstance(replies[3], ExecAbortError)
    assert replies[4] == 0


def test_flushdb_forgets_deadlines(clock: Clock, ask: Callable[..., Reply]) -> None:
    """A key made after FLUSHDB does not die of one made before."""
    ask("SET", "a", 1, "PX", 1_000)
    assert ask("FLUSHDB") == b"OK"
    ask("RPUSH", "a", 1)

    clock.turn(2)

    assert ask("LLEN", "a") == 1


@pytest.mark.parametrize("command", ["SPOP", "SRANDMEMBER"])
def test_random_members(ask: Callable[..., Reply], command: str) -> None:
    """They are members; a negative count may repeat them."""
    ask("SADD", "u", "a", "b", "c", "d")

    assert ask("SRANDMEMBER", "u", 2) != ask("SRANDMEMBER", "none", 2) == []
    assert len(ask("SRANDMEMBER", "u", -20)) == 20
    assert ask(command, "u") in {b"a", b"b", b"c", b"d"}
    assert len(set(ask(command, "u", 2))) == 2
    assert ask("SCARD", "u") == {"SPOP": 1, "SRANDMEMBER": 4}[command]


def test_both_faces_reach_the_same_keys() -> None:
    """What one face writes, the other reads."""
    server = MemoryServer()

    server.exchange([("SET", "a", 1)])

    assert asyncio.run(server.aexchange([("INCRBY", "a", 1)])) == [2]


def test_replies_are_copies() -> None:
    """A caller that changes a reply changes nothing on the server."""
    server = MemoryServer()
    server.exchange([("HSET", "h", "a", 1), ("RPUSH", "l", 1)])
    reads = [("HGETALL", "h"), ("LRANGE", "l", 0, -1)]

    for reply in server.exchange(reads):
        reply.clear()

    assert server.exchange(reads) == [{b"a": b"1"}, [b"1"]]


def test_batches_of_many_threads_do_not_mix() -> None:
    """A batch runs as one step."""
    server = MemoryServer()
    batch = [("GET", "a"), ("INCRBY", "a", 1), ("INCRBY", "a", 1)]
    seen: list[list[Reply]] = []

    def run() -> None:
        seen.extend(server.exchange(batch) for _ in range(200))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(last == first + 1 == int(before or 0) + 2 for before, first, last in seen)
    assert server.exchange([("GET", "a")]) == [b"3200"]


def test_no_client_of_a_server_in_memory() -> None:
    """The refusal says what to use instead."""
    with pytest.raises(NotImplementedError, match="embedded://"):
        MemoryServer("here").client()


def test_one_server_for_a_name() -> None:
    """Two caches of one address share their keys, and nobody else does."""
    assert memory_server("here/0") is memory_server("here/0")
    assert memory_server("here/0") is not memory_server("here/1")
    assert memory_server("here/0").address == "memory://here/0"
