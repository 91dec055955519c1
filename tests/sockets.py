"""How many sockets this process has open."""

from __future__ import annotations

import os
from contextlib import suppress


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    return found
