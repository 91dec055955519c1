"""Every kind of retry: which commands may be sent again, and to which server.  These functions decide; none acts.

A connection that ends before the reply leaves open whether the server ran the command.  What then may be done depends
on the command, as its `Verb` says, and on what is known:

====================================  ===================  =========================  ===============================
What happened                         Did it run?          To the same server         To another server
====================================  ===================  =========================  ===============================
A greeting failed                     nothing was sent     `greets_again`             as for NeverSent
NeverSent, CircuitOpen                no                   `after_loss`: any command  `elsewhere`, `to_another_node`:
                                                                                      any, but no ``sole`` one [1]_
Any other ServerGone: the connection  perhaps              `after_loss`: ``harmless`` `elsewhere`: ``repeats_elsewhere``
ended                                                      ones                       `to_another_node`: ``harmless``
ServerTimeout                         perhaps              never: its time is over    never, for the same reason
READONLY, NOAUTH: the connection      no; others of the    `after_refusal`: if the    never
leads to no primary any more          batch may have       others are ``harmless``
A replica refuses a read, or is gone  reads change         never                      `reads_elsewhere`
                                      nothing
MOVED, ASK, TRYAGAIN, CLUSTERDOWN     no                   TRYAGAIN: after a pause    to the node it names
NOSCRIPT                              no                   EVAL in place of EVALSHA   never
A primary fails a read of the near    reads change         never                      `reading`: where reads go
cache                                 nothing                                         without a near cache
====================================  ===================  =========================  ===============================

.. [1] `elsewhere` lets only CircuitOpen count as "not run": after any other failure of the primary, NeverSent too, the
   commands have to be ``repeats_elsewhere``.

"The same server" means a new connection, once.  A command is sent again only if its first connection was an old one,
which may have been dead for long, or might not lead to a primary any more: ``Conversation.replaceable``.  A new connection that dies is an outage, which the caller hears of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions as redis

from fleetcache.errors import CircuitOpen, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange.contract import Command, Reply

ENDED = frozenset((redis.ReadOnlyError, redis.AuthenticationError))
"""Refusals that end a connection: it leads to no primary, or its user is not logged in any more."""


def harmless(commands: Sequence[Command]) -> bool:
    """Whether each of *commands* may run twice on one server."""
    if len(commands) == 1:
        return bool(commands[0][0].harmless)
    return all([command[0].harmless for command in commands])  # noqa: C419 - a generator takes longer


def after_loss(commands: Sequence[Command], error: BaseException) -> bool:
    """Whether *commands* may be sent again to the same server, after their connection failed with *error*."""
    return isinstance(error, ServerGone) and (isinstance(error, NeverSent) or harmless(commands))


def after_refusal(commands: Sequence[Command], replies: Sequence[Reply]) -> bool:
    """Whether *commands* may be sent again to the same server, after *replies* of which some are `ENDED`."""
    return all(
        command[0].harmless or isinstance(reply, (*ENDED, redis.ExecAbortError))
        for command, reply in zip(commands, replies, strict=True)
    )


def elsewhere(commands: Sequence[Command], error: BaseException) -> bool:
    """Whether *commands* may be sent to a server that does not share the first one's state, which failed with *error*."""
    verbs = [command[0] for command in commands]
    if any(verb.sole for verb in verbs):
        return False
    return isinstance(error, CircuitOpen) or all(verb.repeats_elsewhere for verb in verbs)


def to_another_node(commands: Sequence[Command], replies: Sequence[Reply]) -> bool:
    """Whether *commands* may be sent to another node of the cluster, after *replies*, some of which are errors of the first."""
    if any(isinstance(reply, ServerTimeout) for reply in replies):
        return False
    return harmless(commands) or not any(
        isinstance(reply, ServerGone) and not isinstance(reply, (NeverSent, CircuitOpen)) for reply in replies
    )


def is_at_fault(found: Any) -> bool:
    """Whether a read failed because of the server that was asked; *found* is its error, or replies with refusals."""
    return not isinstance(found, Exception) or isinstance(found, (redis.ConnectionError, redis.TimeoutError))


def reads_elsewhere(found: Any) -> bool:
    """Whether another server may be asked to read what one did not; *found* is its error, or replies with refusals."""
    return is_at_fault(found) and not isinstance(found, redis.TimeoutError)


def greets_again(error: BaseException, *, suspected: bool) -> bool:
    """Whether a connection that failed with *error* while redis-py greeted the server may be tried once more.

    *suspected*: the wait was cut short, because the server may speak no TLS.
    """
    return isinstance(error, redis.ConnectionError) or (isinstance(error, redis.TimeoutError) and suspected)
