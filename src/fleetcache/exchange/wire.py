"""The wire: commands to bytes, bytes to replies, refusals to exceptions.  No code here uses a socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

from fleetcache.exchange.contract import Command, Reply, Script, Verb
from fleetcache.masking import Secret, SecretBytes

NEED_DATA: Any = hiredis.Reader  # any object that is no reply
Push = hiredis.PushNotification

NODE = ": the server is a node of a cluster. Write redis+cluster:// in LOCATION"
"""Added to refusals that a cache gets only if its LOCATION does not name the cluster."""


class MovedError(exceptions.MovedError):
    """MOVED, with a message for sites whose LOCATION does not name the cluster; ``args`` stay "slot host:port"."""

    def __str__(self) -> str:
        return f"MOVED {super().__str__()}{NODE}"


REFUSALS: dict[str, type[exceptions.RedisError]] = {
    "ASK": exceptions.AskError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "CROSSSLOT": exceptions.ClusterCrossSlotError,
    "EXECABORT": exceptions.ExecAbortError,
    "LOADING": exceptions.BusyLoadingError,
    "MASTERDOWN": exceptions.MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "TRYAGAIN": exceptions.TryAgainError,
    "WRONGPASS": exceptions.AuthenticationError,
}

LARGE = 32768  # benchmarks/growth.py: from here on hiredis' packing costs more than ours
TEXT = frozenset((Verb, Script, str))


NAMED = b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
STORING = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"


def pack(command: Command) -> bytes:
    """Return *command* as bytes.

    The two shapes that are sent most are written out, in the time that hiredis takes.
    """
    try:
        if len(command) == 2:
            verb, name = command
            if type(name) is str and type(verb) is Verb:
                name = name.encode()
                return NAMED % (len(verb), verb, len(name), name)
        elif len(command) == 5 and command[3] == "PX" and command[0] == b"SET":
            _, name, payload, _, life = command
            if type(payload) is bytes and type(name) is str and type(life) is int and len(payload) < LARGE:
                name, life = name.encode(), b"%d" % life
                return STORING % (len(name), name, len(payload), payload, len(life), life)
        return _packed_by_hiredis(command)
    except (TypeError, ValueError) as error:
        raise unsendable(command, error) from error


def packed(commands: Sequence[Command]) -> bytes:
    """Return *commands* as the bytes of one write."""
    if len(commands) == 1:
        return pack(commands[0])
    return b"".join([pack(command) for command in commands])


def _packed_by_hiredis(command: Command) -> bytes:
    """Return *command* as bytes; numbers are converted before hiredis gets them.

    hiredis converts a number by ``repr()``, and crashes if that raises: for an integer of very many digits,
    or when a signal's handler raises.
    """
    if not TEXT.issuperset(map(type, command)):
        command = tuple([part if type(part) in TEXT else in_bytes(part) for part in command])
        if any([len(part) >= LARGE for part in command]):  # noqa: C419 - a generator takes longer
            return _in_pieces(words(command))
    data: bytes = hiredis.pack_command(command)
    return data


def _in_pieces(parts: Sequence[bytes]) -> bytes:
    """Return the bytes of a command with a large part, which hiredis would copy again and again."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(pieces)


def unsendable(command: Command, error: Exception) -> exceptions.DataError:
    """Return the `DataError` for *error*: a part of *command* could not be converted to bytes."""
    return exceptions.DataError(f"{in_bytes(command[0]).decode()}: {error}")


def words(command: Command) -> list[bytes]:
    """Return the parts of *command* as bytes."""
    try:
        return [in_bytes(part) for part in command]
    except (TypeError, ValueError) as error:
        raise unsendable(command, error) from error


def in_bytes(part: Any) -> bytes:
    """Return a part of a command, which is a text, bytes or a number, as bytes."""
    kind = type(part)
    if kind is bytes:
        data: bytes = part
        return data
    if kind is int:
        return b"%d" % part  # a ValueError if it has more digits than Python converts to text
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, (bytes, memoryview)):
        return bytes(part)
    if isinstance(part, int) and kind is not bool:
        return b"%d" % part
    if isinstance(part, float):
        return repr(part).encode()
    raise TypeError(f"a part of a command is text, bytes or a number, not {kind.__name__}")


SECRETS = frozenset((Secret, SecretBytes))


class Packer:
    """The packer of redis-py's connections, in place of redis-py's own, which passes numbers to hiredis."""

    def pack(self, *command: Any) -> list[bytes]:
        """Return *command*, whose first part may consist of several words, in pieces."""
        name, *parts = command
        words = in_bytes(name).split()
        packed = pack((*words, *[bytes(part) if isinstance(part, bytearray) else part for part in parts]))
        return [SecretBytes(packed) if type(command[-1]) in SECRETS else packed]


PACKER = Packer()
PING = pack((b"PING",))
ABOUT = pack((b"INFO", "server", "replication"))


UNKNOWN = re.compile(r"unknown command [`'](\w+)[`']")


def _without_arguments(text: str) -> str:
    """Return a refusal without key and value, which a server quotes if it does not know the command."""
    found = UNKNOWN.match(text)
    if found is None:
        return text
    sentinel = found[1].upper() in {"GET", "SET", "MGET", "MULTI"}
    hint = ". If the server is a Sentinel, write redis+sentinel://host:port/service/0 in LOCATION" if sentinel else ""
    return f"{found[0]}{hint}"


def refusal(text: str) -> exceptions.RedisError:
    """Return the server's error message as the exception redis-py would raise for it."""
    code, _, rest = text.partition(" ")
    kind = REFUSALS.get(code, exceptions.ResponseError)
    if kind is exceptions.ResponseError:
        if text.endswith("invalid bulk length"):
            text += ": a value is larger than the server's proto-max-bulk-len allows"
        return kind(_without_arguments(text.removeprefix("ERR ")))
    if code == "CROSSSLOT":
        text += NODE
    try:
        error = kind(rest if code in {"ASK", "MOVED"} else text)  # these classes parse "slot host:port"
        if isinstance(error, exceptions.AskError):  # also a MovedError, which derives from it
            place_in(*error.node_addr)
            range(SLOTS).index(error.slot_id)
    except ValueError:
        return exceptions.ResponseError(text)
    return error


HOST = re.compile(r"[\w.:%?-]{0,255}")


def place_in(host: Any, port: Any) -> tuple[str, int]:
    """Return the host, which may be empty, and the port in a reply; raise ValueError if they are none."""
    name = host.decode() if isinstance(host, bytes) else "" if host is None else host
    if not isinstance(name, str) or not HOST.fullmatch(name) or not isinstance(port, (int, bytes, str)):
        raise ValueError("a host and a port are expected")
    name.encode("idna")  # a ValueError if it is too long for a host name
    if not 0 <= (number := int(port)) <= 65535:
        raise ValueError(f"port {number}")
    return name, number


SLOTS = 16384
"""The number of slots of a cluster."""

NO_REPLY = (exceptions.InvalidResponse, TypeError, ValueError, IndexError, MemoryError)
"""Raised by the parser for bytes that are no reply, or for a reply that no command awaits."""


def ends(replies: list[Reply], count: int) -> bool:
    """Whether *replies* end with the server's reason to close the connection, the reply to the rest of *count* too.

    A server does not read the commands after one that violates the protocol.
    """
    if not replies or not str(replies[-1]).startswith("Protocol error"):
        return False
    if not isinstance(replies[-1], exceptions.ResponseError):
        return False
    replies += [replies[-1]] * (count - len(replies))
    return True


def new_parser(**text: str) -> Any:
    """Return a parser of replies: a refusal is an exception object; ``NEED_DATA`` means that bytes are missing."""
    return hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=refusal, notEnoughData=NEED_DATA, **text)


def facts_in(about: Reply) -> dict[str, str]:
    """Return the facts in the reply to INFO, by name; none if it was refused."""
    text = about.decode(errors="replace") if isinstance(about, bytes) else about
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE)) if isinstance(text, str) else {}
