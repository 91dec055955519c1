"""What the demo prints: lines of at most 88 columns, and, on a terminal, one line of progress below them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Self, TextIO

WIDTH = 88
BLOCKS = " ▏▎▍▌▋▊▉█"
LEVELS = "▁▂▃▄▅▆▇█"
TICK = 0.2
"""Seconds between two pictures of the progress."""


class Screen:
    """Prints lines; only a terminal sees progress move, others get a line when a step begins."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.moves = self.stream.isatty()

    def line(self, text: str = "") -> None:
        """Print one line, or some."""
        print(text, file=self.stream, flush=True)

    def step(self, text: str, seconds: float) -> Step:
        """Say what is being done, and how far it is, if it takes about *seconds*."""
        return Step(self, text, seconds)


class Step:
    """Something that takes longer than a moment."""

    def __init__(self, screen: Screen, text: str, seconds: float) -> None:
        self.screen, self.text, self.seconds = screen, text, seconds
        self.began = time.monotonic()
        self.share: float | None = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self.screen.moves:
            self.thread.start()
        elif self.seconds >= 1:
            self.screen.line(f"   … {self.text}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen.moves:
            self.over.set()
            self.thread.join()
            print("\r\x1b[K", end="", file=self.screen.stream, flush=True)

    def done(self, share: float) -> None:
        """Say which share is done; without it, the time that has passed is shown."""
        self.share = share

    def _tick(self) -> None:
        while not self.over.wait(TICK):
            share = self.share
            if share is None:
                share = min(0.98, (time.monotonic() - self.began) / max(self.seconds, 0.1))
            text = f"   {bar(share, 1, 16, full=True)} {self.text}"
            print(f"\r{text[:WIDTH]}\x1b[K", end="", file=self.screen.stream, flush=True)


def bar(value: float, most: float, width: int, *, full: bool = False) -> str:
    """Return a bar of blocks; *most* has the whole *width*.  With *full* it is padded, by dots."""
    eighths = round(8 * width * min(1, value / most)) if most else 0
    text = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
    return text.ljust(width, "·") if full else text or "▏"


def spark(values: Sequence[float], most: float | None = None) -> str:
    """Return a column of blocks for each value."""
    top = most or max(values, default=0) or 1
    return "".join(" " if value <= 0 else LEVELS[min(7, int(8 * value / top))] for value in values)


def columns(rows: Sequence[Sequence[str]], indent: str = "   ") -> str:
    """Return rows of cells, aligned: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(indent + "   ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
