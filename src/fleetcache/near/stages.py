"""The stages of trust in a primary's announcements, and one table of those that each may lead to.

The usual way, and its side ways::

    GREETING ── agreed ──▶ AGREED ── armed ──▶ ARMED ── heard ──▶ PROVEN ── leased ──▶ LIVE
        │                                        │                  ▲                  │  ▲
     refused                                unwritable            heard              late leased
        ▼                                        ▼                  │                  ▼  │
    UNTRACKED                                  MUTE ────────────────┘                  LATE

A canary that was not announced leads from ARMED, MUTE, PROVEN, LIVE and LATE to DEAF; one that was, to PROVEN.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class State(StrEnum):
    """How far a primary's copies can be trusted, in the words of `Near.stats`; the best comes first."""

    LIVE = "live"
    ARMED = "armed"
    CONNECTING = "connecting"
    ASLEEP = "asleep"
    SUSPECT = "suspect"
    ASIDE = "aside"
    DEAD = "dead"
    OFF = "off"


class Stage(Enum):
    """The stage of a connection."""

    GREETING = "there is no connection, or the server has not agreed yet to announce changes", False, False, None
    AGREED = "the server has agreed; where ordinary connections lead is still to be checked", False, False, None
    ARMED = "reads leave copies, which are not served before a canary was announced", True, False, State.ARMED
    MUTE = "the same, and no canary can be written", True, False, State.SUSPECT
    PROVEN = "a canary was announced; the server has still to answer", True, True, State.ARMED
    LIVE = "copies are served while the lease lasts", True, True, State.LIVE
    LATE = "the server did not answer in time, and may yet", True, True, State.SUSPECT
    DEAF = "a canary was written and not announced, so that reads leave no copies", False, False, State.SUSPECT
    UNTRACKED = "the server announces nothing; copies live for a short time", True, False, None

    def __init__(self, _: str, keeps: bool, proven: bool, state: State | None) -> None:
        self.keeps = keeps
        """Whether reads may leave copies."""
        self.proven = proven
        """Whether a canary has shown that announcements arrive."""
        self.state = state
        """The `State` of this stage; None without an agreement: then the end of the last connection decides."""


_TRUSTED = frozenset((Stage.LIVE, Stage.LATE, Stage.DEAF))

FOLLOWERS: Mapping[Stage, frozenset[Stage]] = {
    Stage.GREETING: frozenset((Stage.AGREED, Stage.UNTRACKED)),
    Stage.AGREED: frozenset((Stage.ARMED,)),
    Stage.ARMED: frozenset((Stage.PROVEN, Stage.MUTE, Stage.DEAF)),
    Stage.MUTE: frozenset((Stage.PROVEN, Stage.DEAF)),
    Stage.PROVEN: _TRUSTED,
    Stage.LIVE: _TRUSTED,
    Stage.LATE: _TRUSTED,
    Stage.DEAF: frozenset((Stage.PROVEN,)),
    Stage.UNTRACKED: frozenset(),
}
"""The stages to which each may lead; besides, every stage leads to GREETING, when the connection is lost."""
