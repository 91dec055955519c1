"""Bytes on the wire: commands to bytes, bytes to replies.  Nothing here knows of a socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

from fleetcache.exchange import Command, Reply

NEED_DATA: Any = hiredis.Reader  # any object that is no reply
Push = hiredis.PushNotification

REFUSALS: dict[str, type[exceptions.RedisError]] = {
    "ASK": exceptions.AskError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "CROSSSLOT": exceptions.ClusterCrossSlotError,
    "EXECABORT": exceptions.ExecAbortError,
    "LOADING": exceptions.BusyLoadingError,
    "MASTERDOWN": exceptions.MasterDownError,
    "MOVED": exceptions.MovedError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "TRYAGAIN": exceptions.TryAgainError,
    "WRONGPASS": exceptions.AuthenticationError,
}

LARGE = 32768  # benchmarks/growth.py: from here on hiredis' packing costs more than ours


def pack(command: Command) -> bytes:
    """Return *command* as bytes."""
    try:
        if len(command) > 2:
            for part in command:
                if type(part) is bytes and len(part) > LARGE:
                    return _pack_large(command)
        data: bytes = hiredis.pack_command(command)
    except (TypeError, UnicodeEncodeError) as error:
        raise exceptions.DataError(f"{command[0].decode()}: {error}") from error
    return data


def _pack_large(command: Command) -> bytes:
    """Return *command*, some part of which is large, as bytes; hiredis would copy it again and again."""
    pieces = [b"*%d\r\n" % len(command)]
    for part in command:
        if not isinstance(part, (bytes, str, int, float)):
            raise TypeError("A tuple item must be str, int, float or bytes.")
        data = part if isinstance(part, bytes) else str(part).encode()
        pieces += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(pieces)


def packed(commands: Sequence[Command]) -> bytes:
    """Return *commands* as the bytes of one write."""
    if len(commands) == 1:
        return pack(commands[0])
    return b"".join([pack(command) for command in commands])


ABOUT = pack((b"INFO", "server", "replication"))


def refusal(text: str) -> exceptions.RedisError:
    """Return the server's error message as the exception redis-py would raise for it."""
    code, _, rest = text.partition(" ")
    kind = REFUSALS.get(code, exceptions.ResponseError)
    if kind is exceptions.ResponseError:
        return kind(text.removeprefix("ERR "))
    error = kind(rest if code in {"ASK", "MOVED"} else text)  # whose classes parse "slot host:port"
    if code in {"CROSSSLOT", "MOVED"}:  # seen only by who does not know of the cluster
        error.args = (f"{text}: the server is a node of a cluster. Write redis+cluster:// in LOCATION",)
    return error


def new_reader() -> Any:
    """Return a parser of replies, which gives a refusal as an exception and ``NEED_DATA`` for want of bytes."""
    return hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=refusal, notEnoughData=NEED_DATA)


def facts_in(about: Reply) -> dict[str, str]:
    """Return what the reply to INFO tells; nothing if it was refused."""
    text = about.decode(errors="replace") if isinstance(about, bytes) else about
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE)) if isinstance(text, str) else {}
