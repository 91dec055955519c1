"""What callers get while the server is away, decided in one place."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from fleetcache.errors import is_outage

TROUBLE = (ConnectionError, TimeoutError, ResponseError, OSError)
"""What may be ignored: the server is away, or refuses."""


@dataclass(frozen=True)
class Failsafe:
    """Whether trouble with the server is the caller's, or is answered as a missing key would be.

    The value a caller gets instead stands at each operation.  An outage is logged by the
    server's breaker, once as it begins and once as it ends; a refusal (a wrong type, no memory
    left) is logged here, each time, if *log* is set.
    """

    ignore: bool = False
    log: logging.Logger | None = None

    def pass_over(self, error: Exception) -> None:
        """Log what is being ignored."""
        if self.log is not None and not is_outage(error):
            self.log.error("Exception ignored: %s", error, exc_info=error)


RAISE = Failsafe()
