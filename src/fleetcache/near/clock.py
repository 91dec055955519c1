"""The clock of the near cache: seconds that never go back, and that go on while the machine sleeps, where there is such a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

clock: Callable[[], float] = time.monotonic
if hasattr(time, "CLOCK_BOOTTIME"):
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
