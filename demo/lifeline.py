"""gunicorn's configuration in the demo: a site ends with the demo, also with one that was killed."""

import os
import signal
import threading
from typing import Any


def when_ready(server: Any) -> None:
    """Wait, in the master, for the end of the demo."""
    threading.Thread(target=_end_with_demo, name="lifeline", daemon=True).start()


def _end_with_demo() -> None:
    os.read(0, 1)  # the demo holds the other end of this pipe, and never writes
    os.killpg(0, signal.SIGKILL)
