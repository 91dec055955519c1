"""Servers that may be killed, and what is noted while they are."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from fleetcache.testing import FaultProxy, valkey_server
from fleetcache.testing.servers import EmbeddedServer


@pytest.fixture
def mortal() -> Iterator[EmbeddedServer]:
    """A server of this test alone."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def proxy(mortal: EmbeddedServer) -> Iterator[FaultProxy]:
    """A faulty way to the test's own server."""
    with FaultProxy(mortal.socket) as proxy:
        yield proxy


class Journal(logging.Handler):
    """The beginnings and the ends of outages, as they were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(getattr(record, "event", "none"))
        self.lines.append(record.getMessage())


@pytest.fixture
def journal() -> Iterator[Journal]:
    """What the servers' health was said to be."""
    log, journal = logging.getLogger("fleetcache.server"), Journal()
    log.addHandler(journal)
    yield journal
    log.removeHandler(journal)


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """A URL where nobody listens, and nobody else can begin to."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{reserved.getsockname()[1]}/0"
