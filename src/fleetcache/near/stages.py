"""The stages of trust in a primary's announcements, and one table of the events that lead from one to the next.

GREETING ── agreed ──▶ AGREED ── armed ──▶ ARMED ── heard ──▶ PROVEN ── leased ──▶ LIVE ◀─ leased ─┐
│                                        │ ▲                                    │             │
└─ refused ─▶ UNTRACKED        unwritable ▼ │ (heard leads to PROVEN)            └── late ──▶ LATE
MUTE
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

    def __init__(self, meaning: str, keeps: bool, proven: bool, state: State | None) -> None:
        self.meaning = meaning
        self.keeps = keeps
        """Whether reads may leave copies."""
        self.proven = proven
        """Whether a canary has shown that announcements arrive."""
        self.state = state
        """The `State` of this stage; None without an agreement: then the end of the last connection decides."""


class Event(Enum):
    """The events that can change the stage."""

    AGREED = "the server agreed to announce changes, and said who it is"
    REFUSED = "it did not, and copies are wanted all the same"
    ARMED = "the ordinary connections lead to the same server"
    UNWRITABLE = "the server refused a canary"
    HEARD = "a canary was announced"
    MISSED = "a canary was not announced before a later answer"
    LEASED = "all announcements up to a fresh answer were applied"
    LATE = "the lease has ended"
    LOST = "the connection is gone"


_PROVEN = {Event.LEASED: Stage.LIVE, Event.LATE: Stage.LATE, Event.MISSED: Stage.DEAF}

TRANSITIONS: Mapping[Stage, Mapping[Event, Stage]] = {
    Stage.GREETING: {Event.AGREED: Stage.AGREED, Event.REFUSED: Stage.UNTRACKED},
    Stage.AGREED: {Event.ARMED: Stage.ARMED},
    Stage.ARMED: {Event.HEARD: Stage.PROVEN, Event.MISSED: Stage.DEAF, Event.UNWRITABLE: Stage.MUTE},
    Stage.MUTE: {Event.HEARD: Stage.PROVEN, Event.MISSED: Stage.DEAF},
    Stage.PROVEN: _PROVEN,
    Stage.LIVE: _PROVEN,
    Stage.LATE: _PROVEN,
    Stage.DEAF: {Event.HEARD: Stage.PROVEN},
    Stage.UNTRACKED: {},
}
"""The next stage, by stage and event.  LOST always leads to GREETING; an event without an entry changes nothing."""
