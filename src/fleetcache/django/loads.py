"""What a view sees of the load of its page: `current_load()` within a view under `cache_page`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleetcache.django.responses import kept
from fleetcache.loading.load import CURRENT, Load
from fleetcache.marks import DEFAULT_TIMEOUT, MISSING, Timeout
from fleetcache.times import milliseconds


class PageLoad(Load):
    """The load of a page.  Its old value is the old response; what the view says counts wherever the page is stored."""

    def __init__(self, name: str, timeout: Timeout, old: Any = MISSING) -> None:
        super().__init__(name, timeout, old if old is MISSING else renewed(old))
        self.usual = timeout

    @property
    def has_ended(self) -> bool:
        """Whether the load that is to store the page has ended."""
        return self.outer is not None and self.outer.has_ended

    @property
    def has_timeout(self) -> bool:
        """Whether the view has set the timeout."""
        return self.timeout is not DEFAULT_TIMEOUT and self.timeout != self.usual

    @property
    def life(self) -> float | None:
        """For how many seconds the page is fresh, if the view has set the timeout; None for ever."""
        return None if self.timeout is None else milliseconds(self.timeout) / 1000

    def tell(self, load: Load) -> None:
        """Tell *load*, which stores the page, what the view has said, except for the timeout, which the response has a say in."""
        load.tag(*self.tags)
        if self.skipped:
            load.skip()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let `current_load` return this load."""
        CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.set(self.outer)


def renewed(response: Any) -> Any:
    """Return a copy of an old *response* for another life: it gets a new date of expiry."""
    fresh = kept(response)
    fresh.headers.pop("Expires", None)
    return fresh
