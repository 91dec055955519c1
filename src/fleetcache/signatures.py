"""The arguments of redis-py's connections, read from the installed release, because releases differ."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

DEADLINE = 5.0
"""How many seconds connecting, and an exchange, may take where a site says nothing."""


@cache
def defaults(connection_class: type) -> Mapping[str, Any]:
    """Return the keyword arguments that a redis-py connection class takes, with what stands in for each."""
    found: dict[str, Any] = {}
    for cls in reversed(connection_class.__mro__):
        if "__init__" in vars(cls):
            # Some redis-py releases wrap __init__ in decorators that hide its signature.
            signature = inspect.signature(inspect.unwrap(vars(cls)["__init__"]))
            found |= {name: parameter.default for name, parameter in signature.parameters.items()}
    return {name: default for name, default in found.items() if name not in {"self", "kwargs", "args"}}


def parameters(connection_class: type) -> frozenset[str]:
    """Return the names of the keyword arguments that a redis-py connection class takes."""
    return frozenset(defaults(connection_class))


NEVER_NONE = {"parser_class", "protocol", "retry_on_error", "socket_read_size", "socket_type"}
"""Arguments of redis-py's connections that cannot be None, or mean by it what they mean without it."""


def says_none(name: str) -> bool:
    """Whether None says something to redis-py's connections as the argument *name*, which leaving it out would not."""
    if name.endswith(("_timeout", "driver_info")):
        return True
    return name not in NEVER_NONE and defaults(SSLConnection).get(name) is not None


@cache
def connection_options() -> frozenset[str]:
    """Return the keyword arguments of redis-py's connections that may be passed on to them."""
    own = {"host", "port", "path", "parser_class", "command_packer", "event_dispatcher"}
    kinds = (Connection, SSLConnection, UnixDomainSocketConnection)
    names = frozenset().union(*(parameters(kind) for kind in kinds))
    return frozenset(name for name in names - own if not name.startswith(("maint", "orig", "oss", "himport")))
