"""The clock of the near cache: it never goes back and, on Linux, continues while the machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

clock: Callable[[], float] = time.monotonic
if hasattr(time, "CLOCK_BOOTTIME"):
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
