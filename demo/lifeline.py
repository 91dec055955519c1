"""gunicorn's configuration in the demo: its garbage collector, and its end."""

import gc
import os
import signal
import threading
from typing import Any


def pre_fork(server: Any, worker: Any) -> None:
    """Set aside, in the master, what the site has loaded, as sites of many objects do.

    A worker's collector would else look at all of it now and then: as long as 30 pages take, in the one round that it hits.
    """
    gc.freeze()


def when_ready(server: Any) -> None:
    """Wait, in the master, for the end of the demo: a site ends with the demo, also with one that was killed."""
    threading.Thread(target=_end_with_demo, name="lifeline", daemon=True).start()


def _end_with_demo() -> None:
    os.read(0, 1)  # the demo holds the other end of this pipe, and never writes
    os.killpg(0, signal.SIGKILL)
