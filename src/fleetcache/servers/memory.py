"""``memory://``: a server in a dict, on which every feature of the cache works and is tested.

It has no socket, file or thread.  A batch of commands runs at one moment and under one lock, so here every
batch is atomic, while a real server promises that only of MULTI.  A transaction must begin and end in one
batch, because there is no connection that could remember it.  The commands themselves are in `database`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ExecAbortError, ResponseError

from fleetcache.exchange.contract import Command, Reply, Script, Server
from fleetcache.exchange.wire import words as in_words
from fleetcache.forks import Guard, in_children
from fleetcache.masking import masked_url
from fleetcache.servers.database import Database


def outcome(run: Callable[..., Reply], *arguments: object) -> Reply:
    """Return the result of *run*, or the refusal that it raises."""
    try:
        return run(*arguments)
    except ResponseError as refusal:
        # its traceback would keep every reply of the batch alive
        return refusal.with_traceback(None)


class Batch:
    """The commands of one batch: they run as they come, or wait from MULTI to EXEC."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[Callable[[], Reply] | None] | None = None

    def take(self, words: Sequence[bytes]) -> Reply:
        if words[0] == b"MULTI":
            self._queue = []
            return b"OK"
        if self._queue is None:
            return self._database.prepare(words)()
        if words[0] == b"EXEC":
            queue, self._queue = self._queue, None
            if None in queue:
                raise ExecAbortError("Transaction discarded because of previous errors.")
            return [call and outcome(call) for call in queue]
        self._queue.append(None)  # stays None if this command is refused
        self._queue[-1] = self._database.prepare(words)
        return b"QUEUED"


_batches = Guard()  # one for all servers: under the GIL, several would not be faster
if hasattr(os, "register_at_fork"):
    # A fork by Python waits for a batch to end; a fork by C code cannot.
    os.register_at_fork(
        before=lambda: _batches.lock.acquire(),  # noqa: PLW0108 - a child has another lock, for its own children
        after_in_parent=lambda: _batches.lock.release(),  # noqa: PLW0108 - the same
    )


class MemoryServer(Server):
    """One database of a server in this process, which ends with it.

    *clock* returns the time in seconds, by default that of the process, which tests may freeze; the time stands still
    while a batch runs.
    """

    def __init__(self, name: str = "", *, clock: Callable[[], float] | None = None) -> None:
        self.address = masked_url(f"memory://{name}")
        self._clock = clock
        self._database = Database()
        self._torn = False
        """Whether a batch is running, or was interrupted."""
        in_children(self.after_fork)

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        requests = [
            in_words(tuple([part.name if isinstance(part, Script) else part for part in command]))
            for command in commands
        ]
        with _batches.lock:
            # Looked up each time, so that a test can freeze it at any time.
            self._database.now = round((self._clock or time.time)() * 1000)
            batch = Batch(self._database)
            self._torn = True
            replies = [outcome(batch.take, words) for words in requests]
            self._torn = False
            return replies

    def after_fork(self) -> None:
        """In a child, keep the entries; but start empty if a thread of the parent was changing them."""
        if self._torn:
            self._database = Database()
        self._torn = False

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return self.exchange(commands)

    def client(self) -> Any:
        raise NotImplementedError(
            f"{self.address}: a server in memory has no redis-py client. Use embedded:// for "
            f"a real server without an installation."
        )


MEMORY: dict[str, MemoryServer] = {}
"""The servers of this process."""


def memory_server(name: str) -> MemoryServer:
    """Return this process's server called *name*, the same one each time."""
    # setdefault() is one step, so two threads cannot get two servers.
    return MEMORY.setdefault(name, MemoryServer(name))
