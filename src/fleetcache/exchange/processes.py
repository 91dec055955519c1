"""What must be right in a process that was forked."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock_across_forks() -> Any:
    """Return a lock that forking waits for, so that a child never finds it held by a thread it does not have.

    What is locked later must be made earlier: a fork takes them in the order that nested use does.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
