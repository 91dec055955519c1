"""What loaders read: rows with versions, in a file that processes share; and journals of what happened, in one file each.

Both outlive a process that is killed: a lock on a file ends with the process, and what was written stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from tests.coherence.loads import DOUBTFUL, HUNG, RUNNING, SET, Call, Invalidation, Load, Operation

WIDTH = 8

FOREIGN = "foreign"
"""The kind of a `set` by a program that knows nothing of leases, and the process that it counts as."""


class Database:
    """A version for each of *keys*, in the file *path*; several processes may use it at once."""

    def __init__(self, path: Path, keys: list[str]) -> None:
        self.places = {key: WIDTH * place for place, key in enumerate(keys)}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        self._turn = threading.Lock()  # a lock on a file is its process's

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._turn:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self, key: str) -> int:
        """Return the version of *key*, 0 if it was never written."""
        with self._locked():
            return int.from_bytes(os.pread(self._file, WIDTH, self.places[key]))

    def write(self, *keys: str) -> int:
        """Give each of *keys* a new version; return the last one's."""
        version = 0
        with self._locked():
            for key in keys:
                version = int.from_bytes(os.pread(self._file, WIDTH, self.places[key])) + 1
                os.pwrite(self._file, version.to_bytes(WIDTH), self.places[key])
        return version


class Journal:
    """The operations of one process as they begin and end, each a line of the file *path*."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, kind: str, name: str, *facts: Any) -> None:
        """Note that something began or ended."""
        os.write(self._file, (json.dumps([kind, name, *facts]) + "\n").encode())


def read_journal(path: Path, process: str) -> list[Operation]:
    """Return the operations of *process*.

    What has no end was not over when the process was: a call hung, or its process was killed, which the
    caller of this function knows.
    """
    begun: dict[str, list[Any]] = {}
    ended: dict[str, list[Any]] = {}
    for line in path.read_bytes().splitlines():
        kind, name, *facts = json.loads(line)
        (ended if kind == "end" else begun)[name] = [kind, *facts]
    return [_operation(name, process, facts, ended.get(name)) for name, facts in begun.items()]


def _operation(name: str, process: str, begun: list[Any], end: list[Any] | None) -> Operation:
    kind, key, *facts = begun
    match kind:
        case "load":
            call, began, tags = facts
            _, ended, outcome, version = end or ("", inf, RUNNING, 0)
            return Load(name, process, key, call, began, ended, outcome, tuple(tags), version)
        case "call":
            how, invoked, refresh, fenced, batch = facts
            _, returned, outcome, origin, cancelled, stale, detail = end or ("", inf, HUNG, "", False, None, "")
            return Call(
                id=name,
                process=process,
                key=key,
                invoked=invoked,
                returned=returned,
                outcome=outcome,
                origin=origin,
                kind=how,
                cancelled=cancelled,
                refresh=refresh,
                fenced=fenced,
                stale=stale,
                detail=detail,
                batch=batch,
            )
        case _:
            how, invoked, life, version, tags = facts
            _, returned, outcome = end or ("", inf, DOUBTFUL)
            if how == FOREIGN:
                how, process = SET, FOREIGN
            return Invalidation(name, process, how, key, invoked, returned, outcome, life, version, tuple(tags))
