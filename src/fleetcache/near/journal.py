"""What happened to names lately, in the order in which this process learnt of it.

A read takes the journal's number before it is sent, and asks when its reply is in whether what it
brought may be kept.  It may not if its name has been written since: the reply may be older.  And
reads of one name overlap, on connections that may be served in another order than they reply.  Of two
that did and brought different values nobody knows which is newer, so neither may stay; if they brought
the same, it does not matter.

Nothing has to be taken back when a read fails or is cancelled.  Old events are forgotten, and reads
that were under way for so long that they may have missed one are refused.
"""

from __future__ import annotations

from typing import TypeAlias

SPAN = 2048
"""Names after which those before are forgotten, of two such halves."""

Digest: TypeAlias = int
"""The hash of what a read brought."""

NOTHING = (0, 0, 0)


class Journal:
    """For each name that had to do with something lately: when it was last written, when read, and what was read then.

    *Written* also stands for the moment at which two reads contradicted each other.
    """

    __slots__ = ("_floor", "_older", "_recent", "_turned", "now")

    def __init__(self) -> None:
        self.now = 1
        """The number of the latest event; what a read has to take with it."""
        self._floor = 1
        self._turned = 1
        self._recent: dict[str, tuple[int, int, Digest]] = {}
        self._older: dict[str, tuple[int, int, Digest]] = {}

    def write(self, name: str) -> None:
        """*name* was changed: no read that is under way may be kept."""
        now = self.now = self.now + 1
        self._note(name, (now, now, 0))

    def read(self, name: str, departed: int, digest: Digest) -> bool:
        """A read that had *departed* at this number brought *digest*; return whether it may be kept."""
        now = self.now = self.now + 1
        written, read, known = self._recent.get(name) or self._older.get(name) or NOTHING
        differs = read > written and digest != known
        keeps = departed >= written and departed >= self._floor and not (differs and departed < read)
        if differs and not keeps:
            written = now  # whatever else is under way contradicts one of them, or may
        self._note(name, (written, now, digest))
        return keeps

    def end(self) -> None:
        """Everything was changed."""
        self.now += 1
        self._floor = self.now
        self._recent, self._older = {}, {}

    def _note(self, name: str, event: tuple[int, int, Digest]) -> None:
        self._recent[name] = event
        if len(self._recent) >= SPAN:
            self._older, self._recent = self._recent, {}
            self._floor = max(self._floor, self._turned)
            self._turned = self.now
