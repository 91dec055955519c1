"""A bar that shows how far a command has come, on a terminal only, and only if it lasts."""

from __future__ import annotations

import shutil
from time import monotonic
from typing import Self, TextIO

from fleetcache.cli.showing import count, duration

AFTER, EACH = 1.0, 0.1
"""Seconds before it appears, and between two of its states."""
WIDTH = 24


class Progress:
    """A line on a terminal that is written again and again; off a terminal, nothing."""

    def __init__(self, stream: TextIO, what: str, total: int | None, *, shown: bool) -> None:
        self.stream, self.what, self.total, self.shown = stream, what, total, shown
        self.done = 0
        self._began = monotonic()
        self._next = self._began + AFTER
        self._written = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def step(self, number: int = 1, note: str = "") -> None:
        """Note that *number* more are done."""
        self.at(self.done + number, note)

    def at(self, done: int, note: str = "") -> None:
        """Note that *done* are done; *note* stands behind."""
        self.done = done
        if not self.shown:
            return
        now = monotonic()
        if now >= self._next:
            self._next = now + EACH
            self._write(self.line(now - self._began, note))

    def line(self, passed: float, note: str) -> str:
        """Return the line after *passed* seconds."""
        rate = self.done / passed if passed else 0.0
        if self.total:
            full = min(WIDTH, int(WIDTH * self.done / self.total))
            left = (self.total - self.done) / rate if rate else None
            how = (
                f"[{'#' * full}{'.' * (WIDTH - full)}] {count(self.done)} of {count(self.total)}, {duration(left)} left"
            )
        else:
            how = f"{count(self.done)}, {count(rate)} a second"
        return f"{self.what} {how}{f', {note}' if note else ''}"

    def clear(self) -> None:
        """Remove the line, so that other output may follow."""
        if self._written:
            self._write("")
            self._written = False

    def _write(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self.stream.write(f"\r\x1b[K{line[:width]}")
        self.stream.flush()
        self._written = True
