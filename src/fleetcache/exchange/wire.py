"""Bytes on the wire: commands to bytes, bytes to replies.  Nothing here knows of a socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

from fleetcache.exchange.contract import Command, Reply, Script, Verb

NEED_DATA: Any = hiredis.Reader  # any object that is no reply
Push = hiredis.PushNotification

NODE = ": the server is a node of a cluster. Write redis+cluster:// in LOCATION"
"""Added to refusals that a cache sees only if it was not told of the cluster."""


class MovedError(exceptions.MovedError):
    """MOVED, with a message for sites that were not told of the cluster; ``args`` stay "slot host:port"."""

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
    """Return *command* as bytes; hiredis is given no number.

    Of a number it takes the ``repr()``, and crashes where that raises, as it does for very many digits,
    or when a signal's handler raises.
    """
    if not TEXT.issuperset(map(type, command)):
        command = tuple([part if type(part) in TEXT else in_bytes(part) for part in command])
        if any([len(part) >= LARGE for part in command]):  # noqa: C419 - a generator takes longer
            return _in_pieces(words(command))
    data: bytes = hiredis.pack_command(command)
    return data


def _in_pieces(parts: Sequence[bytes]) -> bytes:
    """Return the bytes of a command some part of which is large; hiredis would copy it again and again."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(pieces)


def unsendable(command: Command, error: Exception) -> exceptions.DataError:
    """Return *error*, with which some part of *command* could not be written as bytes, as the caller's."""
    return exceptions.DataError(f"{in_bytes(command[0]).decode()}: {error}")


def words(command: Command) -> list[bytes]:
    """Return the parts of *command* as they are sent."""
    try:
        return [in_bytes(part) for part in command]
    except (TypeError, ValueError) as error:
        raise unsendable(command, error) from error


def in_bytes(part: Any) -> bytes:
    """Return what stands in a command, a text, bytes or a number, as it is sent."""
    kind = type(part)
    if kind is bytes:
        data: bytes = part
        return data
    if kind is int:
        return b"%d" % part  # a ValueError if it has more digits than Python is willing to write
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, (bytes, memoryview)):
        return bytes(part)
    if isinstance(part, int) and kind is not bool:
        return b"%d" % part
    if isinstance(part, float):
        return repr(part).encode()
    raise TypeError(f"a part of a command is text, bytes or a number, not {kind.__name__}")


class Packer:
    """What packs the commands of a connection of redis-py's, in place of its own, which gives hiredis numbers."""

    def pack(self, *command: Any) -> list[bytes]:
        """Return *command*, whose first part may be of several words, in pieces."""
        name, *parts = command
        words = in_bytes(name).split()
        return [pack((*words, *[bytes(part) if isinstance(part, bytearray) else part for part in parts]))]


PACKER = Packer()
PING = pack((b"PING",))
ABOUT = pack((b"INFO", "server", "replication"))


UNKNOWN = re.compile(r"unknown command [`'](\w+)[`']")


def _without_arguments(text: str) -> str:
    """Return a refusal without the key and the value that a server puts into it if it does not know the command."""
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
        error = kind(rest if code in {"ASK", "MOVED"} else text)  # whose classes parse "slot host:port"
        if isinstance(error, exceptions.AskError):  # a MovedError is one
            place_in(*error.node_addr)
            range(SLOTS).index(error.slot_id)
    except ValueError:
        return exceptions.ResponseError(text)
    return error


HOST = re.compile(r"[\w.:%?-]{0,255}")


def place_in(host: Any, port: Any) -> tuple[str, int]:
    """Return the host, which may be unsaid, and the port in a reply, or raise ValueError if they are none."""
    name = host.decode() if isinstance(host, bytes) else "" if host is None else host
    if not isinstance(name, str) or not HOST.fullmatch(name) or not isinstance(port, (int, bytes, str)):
        raise ValueError("a host and a port are expected")
    name.encode("idna")  # what is too long for a name is a ValueError
    if not 0 <= (number := int(port)) <= 65535:
        raise ValueError(f"port {number}")
    return name, number


SLOTS = 16384
"""What a cluster divides names into."""

NO_REPLY = (exceptions.InvalidResponse, TypeError, ValueError, IndexError, MemoryError)
"""What the parser raises at bytes that are no reply, such as a map whose key is a list; or who has none to give it to."""


def ends(replies: list[Reply], count: int) -> bool:
    """Whether *replies* end with the server's reason to hang up, which then stands for the rest of *count* too.

    What follows a command that is against the protocol is not looked at.
    """
    if not replies or not str(replies[-1]).startswith("Protocol error"):
        return False
    if not isinstance(replies[-1], exceptions.ResponseError):
        return False
    replies += [replies[-1]] * (count - len(replies))
    return True


def new_parser(**text: str) -> Any:
    """Return a parser of replies, which gives a refusal as an exception and ``NEED_DATA`` for want of bytes."""
    return hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=refusal, notEnoughData=NEED_DATA, **text)


def facts_in(about: Reply) -> dict[str, str]:
    """Return what the reply to INFO tells; nothing if it was refused."""
    text = about.decode(errors="replace") if isinstance(about, bytes) else about
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE)) if isinstance(text, str) else {}
