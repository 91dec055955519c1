"""The journal: recent writes and reads of each name, in the order in which this process learnt of them.

A read is noted before its command is sent, and takes the journal's number.  When the reply is in, the journal decides
whether the value may be kept.  It may not if the name has been written since: the reply may be older than
the write.  Reads of one name can also overlap, on connections that the server may serve in another order
than the replies arrive.  If two such reads brought different values, nobody knows which is newer, so
neither may be kept; if both brought the same value, the order does not matter.

Writes are noted only of names that are in the journal: no read that could leave a copy of another name is under
way.  A read that fails or is cancelled leaves nothing to undo.  Old events are forgotten, and a read that
was under way for so long that a forgotten event may concern it is refused.
"""

from __future__ import annotations

from typing import TypeAlias

SPAN = 2048
"""The journal keeps two generations of this many names; when the newer is full, the older is dropped."""

Digest: TypeAlias = int
"""The hash of the payload that a read brought."""

NOTHING = (0, 0, 0)


class Journal:
    """For each recently used name: when it was last written, when last read, and a hash of what was read.

    The number *written* also marks the moment at which two reads contradicted each other.
    """

    __slots__ = ("_floor", "_turned", "now", "older", "recent")

    def __init__(self) -> None:
        self.now = 1
        """The number of the latest event; a read takes it along."""
        self._floor = 1
        self._turned = 1
        self.recent: dict[str, tuple[int, int, Digest]] = {}
        self.older: dict[str, tuple[int, int, Digest]] = {}

    def depart(self, name: str) -> int:
        """Note that a read of *name* is about to be sent, and return the number for it.  Needs no lock."""
        number = self.now  # first: if the journal ends or turns before the name is noted, the read is refused in time
        recent = self.recent
        if name not in recent:
            recent.setdefault(name, self.older.get(name, NOTHING))
        return number

    def knows(self, name: str) -> bool:
        """Whether a read of *name* may be under way, or was lately.  Needs no lock."""
        return name in self.recent or name in self.older

    def write(self, name: str) -> None:
        """Note that *name* was changed: no value of a read that is under way may be kept."""
        if self.knows(name):
            now = self.now = self.now + 1
            self._note(name, (now, now, 0))

    def read(self, name: str, departed: int, digest: Digest) -> bool:
        """Note that a read sent at number *departed* brought *digest*; return whether its value may be kept."""
        now = self.now = self.now + 1
        written, read, known = self.recent.get(name) or self.older.get(name) or NOTHING
        differs = read > written and digest != known
        keeps = departed >= written and departed >= self._floor and not (differs and departed < read)
        if differs and not keeps:
            written = now  # any other read under way may contradict one of the two
        self._note(name, (written, now, digest))
        return keeps

    def end(self) -> None:
        """Note that every name was changed: an epoch ended."""
        self.recent, self.older = {}, {}
        self.now += 1  # after them: see `depart`
        self._floor = self.now

    def _note(self, name: str, event: tuple[int, int, Digest]) -> None:
        self.recent[name] = event
        self.tidy()

    def tidy(self) -> None:
        """Begin a new generation if the newer one is full.  To be called now and then, because reads may fail."""
        if len(self.recent) >= SPAN:
            self.older, self.recent = self.recent, {}
            self._floor = max(self._floor, self._turned)
            self.now += 1  # after them: see `depart`
            self._turned = self.now
